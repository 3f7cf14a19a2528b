r"""JSON lines as records and back: an object a line, one of its fields the key, the bytes of the line the value.

Not kept: blank lines, and the difference between \n and \r\n at a line's end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO, Final

from kio.cli import files, json_records, progress
from kio.cli.transfer import Record, Tally


class JsonLinesSource:
    """The records of a file of JSON lines; a line that is none is a fault, told with its number.

    Args:
        name: what messages call the file.
        field: the field that holds the key.
        value_bytes_max: a longer line is a fault.
    """

    unit: Final = progress.BYTES

    def __init__(self, file: BinaryIO, name: str, *, field: str, value_bytes_max: int, tally: Tally) -> None:
        self._file = file
        self._name = name
        self._field = field
        self._value_bytes_max = value_bytes_max
        self._tally = tally
        #: Bytes read so far.
        self.done = 0

    def total(self) -> int | None:
        """The bytes that there are to read; None for a pipe."""
        return files.size(self._file)

    def __iter__(self) -> Iterator[Record]:
        for number, line in enumerate(files.lines(self._file, self._value_bytes_max), start=1):
            origin = f"{self._name}:{number}"
            if line is None:
                self._tally.fault(origin, f"the line is longer than max_value_bytes, which is {self._value_bytes_max}")
                continue
            self.done += len(line)
            value = line.rstrip(b"\r\n")
            if not value.strip():
                continue
            try:
                key, value, expire_at = self._read(value)
            except ValueError as error:
                self._tally.fault(origin, str(error))
            else:
                yield Record(key, value, origin, expire_at)

    def _read(self, value: bytes) -> tuple[bytes, bytes, float | None]:
        fields = json_records.parse(value)
        if json_records.is_wrapped(fields):
            return json_records.unwrap(fields)
        return json_records.key_of(fields, self._field), value, None


class JsonLinesTarget:
    """Writes records as lines.

    Args:
        field: where given, a line goes out as it stands only when its field is the record's key; without it the key of
            a line that does not hold it is lost.
    """

    def __init__(self, file: BinaryIO, tally: Tally, *, field: str | None) -> None:
        self._file = file
        self._tally = tally
        self._field = field

    def put(self, record: Record) -> None:
        """Write one record as a line."""
        line = record.value if self._comes_back(record) else self._wrapped(record)
        self._file.write(line + b"\n")
        self._tally.moved(len(record.value))

    def _comes_back(self, record: Record) -> bool:
        """Whether the value as a line would be imported as this very record."""
        if record.expire_at is not None or b"\n" in record.value or b"\r" in record.value:
            return False
        try:
            fields = json_records.parse(record.value)
        except ValueError:
            return False
        if json_records.is_wrapped(fields):
            return False
        return self._field is None or json_records.has_key(fields, self._field, record.key)

    def _wrapped(self, record: Record) -> bytes:
        return json.dumps(json_records.wrap(record.key, record.value, record.expire_at), ensure_ascii=False).encode()
