"""CSV as records and back: the first row names the columns, each further row is a JSON object of its fields.

In: every value is {"column": "text", ...} in the order of the columns, all texts. Out: the columns are the fields of
all values, in the order in which they are met; a field that is not a text goes out as its JSON, a missing one and null
as an empty text. So what came from CSV goes back as it came, row order and quoting aside.
A value that is no JSON object (or would make too many columns), or whose record expires, has its key and its bytes in
the columns `key_base64` and `value_base64`, and the expiry in `key_expire_at`, in seconds since 1970; import turns them
back. These three columns are never a part of a value.
"""

from __future__ import annotations

import base64
import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import typer

from kio.cli import files, json_records, progress
from kio.cli.json_records import KEY_BASE64, VALUE_BASE64
from kio.cli.transfer import Record, Tally

KEY_EXPIRE_AT: Final = "key_expire_at"
COLUMNS_MAX: Final = 4096
_OWN_COLUMNS: Final = (KEY_BASE64, VALUE_BASE64, KEY_EXPIRE_AT)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class CsvSource:
    """The records of a CSV file in UTF-8; a row that is none is a fault, told with its line number.

    Args:
        name: what messages call the file.
        column: the column that holds the key.
        value_bytes_max: a longer line is a fault.

    Raises:
        typer.BadParameter: at the first record, when the first row lacks `column` or names a column twice.
    """

    unit: Final = progress.BYTES

    def __init__(self, file: BinaryIO, name: str, *, column: str, value_bytes_max: int, tally: Tally) -> None:
        self._file = file
        self._name = name
        self._column = column
        self._value_bytes_max = value_bytes_max
        self._tally = tally
        #: Bytes read so far.
        self.done = 0
        self._line = 0

    def total(self) -> int | None:
        """The bytes that there are to read; None for a pipe."""
        return files.size(self._file)

    def __iter__(self) -> Iterator[Record]:
        csv.field_size_limit(self._value_bytes_max)
        # map() goes on after its function raised, and the reader drops what it had of that row.
        rows = csv.reader(map(self._decode, files.lines(self._file, self._value_bytes_max)))
        columns: list[str] | None = None
        while True:
            origin = f"{self._name}:{self._line + 1}"
            try:
                row = next(rows)
                if row and columns is None:
                    columns = self._columns(row)
                elif row and columns is not None:
                    key, value, expire_at = self._read(columns, row)
                    yield Record(key, value, origin, expire_at)
            except StopIteration:
                return
            except (csv.Error, ValueError) as error:
                self._tally.fault(origin, str(error))

    def _decode(self, line: bytes | None) -> str:
        self._line += 1
        if line is None:
            raise ValueError(f"the line is longer than max_value_bytes, which is {self._value_bytes_max}")
        self.done += len(line)
        if self._line == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        return line.decode("utf-8", "surrogateescape")

    def _columns(self, row: list[str]) -> list[str]:
        if len(set(row)) < len(row):
            raise typer.BadParameter(f"{self._name} names a column twice: {', '.join(row)}")
        if self._column not in row:
            raise typer.BadParameter(f'{self._name} has no column "{self._column}"; it has {", ".join(row)}')
        return row

    def _read(self, columns: list[str], row: list[str]) -> tuple[bytes, bytes, float | None]:
        if len(row) != len(columns):
            raise ValueError(f"the row has {len(row)} fields, the first row has {len(columns)}")
        fields: json_records.Fields = dict(zip(columns, row, strict=True))
        wrapped = {name: fields.pop(name, "") for name in _OWN_COLUMNS}
        if wrapped[KEY_BASE64]:
            return json_records.unwrap({**wrapped, json_records.EXPIRE_AT: _number(wrapped[KEY_EXPIRE_AT])})
        try:
            value = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8") from None
        return json_records.key_of(fields, self._column), value, None


class CsvTarget:
    """Writes records as rows. They wait in a temporary file until all columns are known, so memory stays flat.

    Args:
        beside: the directory for the temporary file; None is the system's.
        field: where given, only a value whose field is the record's key goes out as columns.
    """

    def __init__(self, file: BinaryIO, tally: Tally, *, field: str | None, beside: Path | None) -> None:
        self._file = file
        self._tally = tally
        self._field = field
        self._waiting = tempfile.TemporaryFile(dir=beside)  # noqa: SIM115 - closed by __exit__
        self._columns: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waiting.close()

    def put(self, record: Record) -> None:
        """Take one record; it is written by `finish`."""
        fields = self._fields(record)
        self._columns.update(dict.fromkeys(fields))
        self._waiting.write(json.dumps(fields).encode() + b"\n")
        self._tally.moved(len(record.value))

    def finish(self) -> None:
        """Write the columns' names and all rows."""
        write = _writer(_Utf8(self._file))
        if self._columns:
            write(list(self._columns))
        self._waiting.seek(0)
        for line in self._waiting:
            fields = json.loads(line)
            write([_text(fields.get(column)) for column in self._columns])

    def _fields(self, record: Record) -> json_records.Fields:
        """The columns of a record; those for raw bytes where its value cannot stand in columns."""
        try:
            fields = json_records.parse(record.value)
            json.dumps(fields, ensure_ascii=False).encode()
        except ValueError:
            fields = {}
        if record.expire_at is None and self._fits(fields, record.key):
            return fields
        encoded = (base64.b64encode(data).decode("ascii") for data in (record.key, record.value))
        wrapped: json_records.Fields = dict(zip((KEY_BASE64, VALUE_BASE64), encoded, strict=True))
        return wrapped if record.expire_at is None else wrapped | {KEY_EXPIRE_AT: record.expire_at}

    def _fits(self, fields: json_records.Fields, key: bytes) -> bool:
        if not fields or fields.keys() & set(_OWN_COLUMNS):
            return False
        if len(self._columns.keys() | fields.keys()) > COLUMNS_MAX:
            return False
        return self._field is None or json_records.has_key(fields, self._field, key)


class _Utf8:
    """Text for a binary file. A TextIOWrapper would close the file when an error leaves it behind."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())


def _writer(file: _Utf8) -> Callable[[list[str]], None]:
    """What writes one row."""
    plain = csv.writer(file, lineterminator="\n")
    # Where a lone \r stands unquoted, no reader takes it, and the writer of Python 3.11 and 3.12 does not quote it.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: list[str]) -> None:
        (quoting if any("\r" in text for text in row) else plain).writerow(row)

    return write


def _number(text: str) -> float | str | None:
    """What an expiry's column tells; a text that is no number is left for the one who finds fault with it."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _text(found: object) -> str:
    if found is None:
        return ""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
