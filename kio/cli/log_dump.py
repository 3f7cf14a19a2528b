"""`kio log dump`: the records of a segment as they stand in the file, read without a daemon.

It takes no lock and changes nothing, so it may look at a segment that is in use; what is written meanwhile may or may
not be shown.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kio.cli import exit_codes, options, output

if TYPE_CHECKING:
    from kio.segments.dump import Dumped

EXAMPLE: Final = """\
kio log dump ./data/shard-0000/0000000001.seg
kio log dump ./data --json"""

_KINDS: Final = {1: "put", 2: "tombstone", 3: "clear"}
_FLAGS: Final = {0x20: "batch_open", 0x40: "collides", 0x80: "hides"}


def command(
    path: Annotated[
        Path, typer.Argument(metavar="SEGMENT|DIR", help="A segment file, or a directory: all segments below it.")
    ],
    values: Annotated[bool, typer.Option("--values", help="Print the values too, not only their lengths.")] = False,
    json: options.Json = False,
) -> int:
    r"""Print the records of segments: offset, LSN, epoch, kind, keyspace, key and length of the value.

    What is not printable UTF-8 is printed as \xNN and a backslash is doubled. Exit with 65 where bytes are no valid
    records.
    """
    from kio.segments.dump import read_header, read_records, segment_files

    damaged = 0
    if json:
        output.write(b'{"records": [')
    separator = b"\n"
    for file in segment_files(path):
        header = read_header(file)
        if not json:
            output.line(
                f"# {file} shard={header.shard} segment={header.segment} epoch={header.epoch} salt={header.salt:016x}"
            )
        for dumped in read_records(file, header):
            damaged += dumped.record is None
            if json:
                fields = {"shard": header.shard, "segment": header.segment} | _fields(dumped, values)
                output.write(separator + json_text.dumps(fields, ensure_ascii=False).encode())
                separator = b",\n"
            else:
                output.line(" ".join(_described(dumped, values)))
    if json:
        output.line(f'\n], "damaged": {damaged}}}')
    return exit_codes.CORRUPT if damaged else exit_codes.DONE


def _described(dumped: Dumped, values: bool) -> Iterator[str]:
    yield f"offset={dumped.offset}"
    record = dumped.record
    if record is None:
        yield f"bytes={dumped.size} damaged"
        return
    yield f"lsn={record.lsn} epoch={record.epoch} {_KINDS[record.kind]} keyspace={record.keyspace}"
    if record.flags & ~0x18:
        yield "flags=" + ",".join(_flags(record.flags))
    if record.expiry:
        yield f"expire_at_ms={record.expiry}"
    if record.key:
        yield f"key={output.escape(record.key)}"
    if _KINDS[record.kind] == "put":
        yield f"value_bytes={len(record.value)}"
        if values:
            yield f"value={output.escape(record.value)}"


def _fields(dumped: Dumped, values: bool) -> dict[str, Any]:
    """What --json tells of one record: the same fields, under the same names."""
    record = dumped.record
    if record is None:
        return {"offset": dumped.offset, "bytes": dumped.size, "damaged": True}
    fields: dict[str, Any] = {
        "offset": dumped.offset,
        "bytes": dumped.size,
        "lsn": record.lsn,
        "epoch": record.epoch,
        "kind": _KINDS[record.kind],
        "keyspace": record.keyspace,
        "flags": list(_flags(record.flags)),
        "expire_at_ms": record.expiry or None,
    }
    fields |= output.in_json("key", record.key or None)
    fields["value_bytes"] = len(record.value)
    return fields | (output.in_json("value", record.value) if values else {})


def _flags(flags: int) -> Iterator[str]:
    return (name for bit, name in _FLAGS.items() if flags & bit)
