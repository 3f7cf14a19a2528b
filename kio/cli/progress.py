"""The progress bar of import and export: on stderr, on a terminal only; nothing anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kio.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress

#: Units that can be measured.
BYTES: Final = "bytes"
RECORDS: Final = "records"
SEGMENTS: Final = "segments"
REFRESH_S: Final = 0.1


class Bar:
    """Where a run reports to; without a terminal, nobody sees how far it is and messages go out as always."""

    def moved_to(self, done: int, total: int | None = None) -> None:
        """The run is at `done`, in the bar's unit, of `total` where that is known only now.

        May be called for every record.
        """

    def tell(self, text: str) -> None:
        """Print a message without tearing the bar."""
        output.message(text)


def is_wanted() -> bool:
    """Whether a bar would be seen; finding out the total may cost a walk over the input."""
    return sys.stderr.isatty()


@contextmanager
def bar(title: str, total: int | None, unit: str) -> Iterator[Bar]:
    """A bar with rate and remaining time while the block runs; `total` None is not known beforehand."""
    if not is_wanted():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    if unit == BYTES:
        columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()]
    else:
        columns += [MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True, highlight=False)) as progress:
        shown = _TerminalBar(progress, title, total, unit)
        yield shown
        shown.show()


class _TerminalBar(Bar):
    """The bar on a terminal: told of every record, it draws a few times a second."""

    def __init__(self, progress: Progress, title: str, total: int | None, unit: str) -> None:
        self._unit = unit
        self._progress = progress
        self._task = progress.add_task(title, total=total, rate="")
        self._done = 0
        self._total = total
        self._shown_at = 0.0

    def moved_to(self, done: int, total: int | None = None) -> None:
        self._done = done
        self._total = total or self._total
        now = time.monotonic()
        if now - self._shown_at >= REFRESH_S:
            self._shown_at = now
            self.show()

    def show(self) -> None:
        """Draw how far the run is."""
        speed = self._progress.tasks[0].speed
        rate = "" if speed is None else f"{speed:,.0f} {self._unit}/s"
        self._progress.update(self._task, completed=self._done, total=self._total, rate=rate)

    def tell(self, text: str) -> None:
        self._progress.console.print(f"kio: {text}", markup=False, soft_wrap=True)
