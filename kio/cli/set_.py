"""`kio set`: store one value, from the command line, a file or stdin."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from kio.cli import options, output

EXAMPLE: Final = """\
kio set greeting hello
kio set logo --file logo.png
echo '{"name": "Ada"}' | kio set user:42 -"""


def command(
    key: options.Key,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The value; - reads it from stdin.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="PATH", exists=True, dir_okay=False, help="Read the value from this file."),
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Store a value under a key; a value that was there is replaced."""
    if (value is None) == (file is None):
        raise typer.BadParameter("give either VALUE (- for stdin) or --file PATH")
    wanted, data = options.key_bytes(key), _read(value, file)
    with options.connect(url, timeout) as db:
        db.set(wanted, data)
    if json:
        output.as_json({**output.in_json("key", wanted), "value_bytes": len(data)})


def _read(value: str | None, file: Path | None) -> bytes:
    if file is not None:
        return file.read_bytes()
    return sys.stdin.buffer.read() if value == "-" else os.fsencode(value or "")
