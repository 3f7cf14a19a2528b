"""Where a verb's value comes from: the command line, a file, or stdin."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Value = Annotated[
    str | None, typer.Argument(metavar="VALUE", help="The value; - reads it from stdin.", show_default=False)
]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="PATH", exists=True, dir_okay=False, help="Read the value from this file."),
]


def read(value: str | None, file: Path | None) -> bytes:
    """The bytes of the value.

    Raises:
        typer.BadParameter: when it is given twice, or not at all.
    """
    if (value is None) == (file is None):
        raise typer.BadParameter("give either VALUE (- for stdin) or --file PATH")
    if file is not None:
        return file.read_bytes()
    return sys.stdin.buffer.read() if value == "-" else os.fsencode(value or "")
