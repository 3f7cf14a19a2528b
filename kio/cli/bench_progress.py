"""The line that shows how a run of `kio bench` goes: on stderr, on a terminal only; nothing anywhere else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kio.bench.run import Progress, Watch

_CLEAR: Final = "\r\x1b[K"


@contextmanager
def shown(step: str) -> Iterator[Watch | None]:
    """What to call with the progress of `step` while the block runs; the line is gone afterwards."""
    if not sys.stderr.isatty():
        yield None
        return
    _write(f"{step} ...")
    try:
        yield lambda progress: _write(line(step, progress))
    finally:
        _write("")


def line(step: str, progress: Progress) -> str:
    """Rate, p99 so far, time that remains; errors once there are any."""
    parts = [
        f"{step}: {progress.rate:,.0f}/s",
        f"p99 {progress.p99_us:,} us",
        f"{progress.operations:,} operations in {progress.elapsed_s:.0f} s",
    ]
    if progress.remaining_s is not None:
        parts.append(f"{progress.remaining_s:.0f} s to go")
    if progress.errors:
        parts.append(f"{progress.errors:,} errors")
    return ", ".join(parts)


def _write(text: str) -> None:
    """One line in the place of the last; cut, since what wraps cannot be cleared again."""
    columns = shutil.get_terminal_size().columns
    print(_CLEAR + text[: columns - 1], end="", file=sys.stderr, flush=True)
