"""`kio scan`: the keys, or keys and values, that begin with a prefix or match a pattern.

Nothing is kept in memory but a page: a scan of any size streams, also as JSON.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kio.cli import options, output

if TYPE_CHECKING:
    from kio.client import Client

EXAMPLE: Final = """\
kio scan user: --limit 10
kio scan --match 'user:*:name'
kio scan user: --raw --null | xargs -0 kio delete"""

#: Keys asked for at once; fewer where --limit says so.
PAGE_KEYS: Final = 1_000


def command(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only keys that begin with it.")] = "",
    match: Annotated[
        str | None,
        typer.Option("--match", metavar="PATTERN", help=r"Only keys that match it as a whole: * ? [a-c] [^a] \x"),
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Print a tab and the value after each key.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Stop after N keys; 0 is no limit.")] = 0,
    null: Annotated[bool, typer.Option("--null", help="End each record with a NUL byte instead of a newline.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print bytes as they are; else what is not printable UTF-8 is escaped.")
    ] = False,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    r"""Print keys, one a line, in no particular order.

    What is not printable UTF-8 is printed as \xNN and a backslash is doubled, unless --raw.
    """
    with options.connect(url, timeout) as db:
        records = _records(
            db,
            options.key_bytes(prefix),
            None if match is None else options.key_bytes(match),
            values,
            # A pattern may pick few of a page.
            PAGE_KEYS if match else min(limit or PAGE_KEYS, PAGE_KEYS),
        )
        chosen = islice(records, limit) if limit else records
        if json:
            _print_json(chosen)
        else:
            _print(chosen, raw=raw, end=b"\0" if null else b"\n")


def _records(
    db: Client, prefix: bytes, match: bytes | None, values: bool, page_keys: int
) -> Iterator[tuple[bytes, ...]]:
    if values:
        return db.scan(prefix, match=match, limit=page_keys)
    return ((key,) for key in db.scan(prefix, match=match, values=False, limit=page_keys))


def _print(records: Iterator[tuple[bytes, ...]], *, raw: bool, end: bytes) -> None:
    for record in records:
        parts = record if raw else (output.escape(part).encode() for part in record)
        output.write(b"\t".join(parts) + end)


def _print_json(records: Iterator[tuple[bytes, ...]]) -> None:
    """{"records": [...], "keys": n}, a record a line, written as it comes."""
    keys = 0
    for record in records:
        fields = output.in_json("key", record[0]) | (output.in_json("value", record[1]) if record[1:] else {})
        output.write((b",\n" if keys else b'{"records": [\n') + json_text.dumps(fields, ensure_ascii=False).encode())
        keys += 1
    output.write((b"\n" if keys else b'{"records": [') + f'], "keys": {keys}}}\n'.encode())
