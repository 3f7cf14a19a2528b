"""Files of lines that import reads and export writes; "-" is stdin or stdout."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

STANDARD: Final = Path("-")


@contextmanager
def source(path: Path) -> Iterator[BinaryIO]:
    """The file to read."""
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


@contextmanager
def target(path: Path) -> Iterator[BinaryIO]:
    """The file to write: it appears whole, under its name, when the block ends well, and not at all otherwise."""
    if path == STANDARD:
        yield sys.stdout.buffer
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def size(file: BinaryIO) -> int | None:
    """How many bytes there are to read; None for a pipe."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def lines(file: BinaryIO, bytes_max: int) -> Iterator[bytes | None]:
    """The lines with their ends; None for each that is longer than `bytes_max`, and is not kept."""
    while line := file.readline(bytes_max + 2):
        if len(line.rstrip(b"\r\n")) <= bytes_max:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
        yield None
