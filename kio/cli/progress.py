"""The progress bar of import and export: on stderr, on a terminal only; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from kio.cli import output

#: Units that can be measured.
BYTES: Final = "bytes"
RECORDS: Final = "records"


@dataclass(frozen=True)
class Bar:
    """Where a run reports to.

    Attributes:
        moved_to: called with how far the run is, in the bar's unit.
        tell: prints a message without tearing the bar.
    """

    moved_to: Callable[[int], None]
    tell: Callable[[str], None]


def is_wanted() -> bool:
    """Whether a bar would be seen; finding out the total may cost a walk over the input."""
    return sys.stderr.isatty()


@contextmanager
def bar(title: str, total: int | None, unit: str) -> Iterator[Bar]:
    """A bar with rate and remaining time while the block runs; `total` None is not known beforehand."""
    if not is_wanted():
        yield Bar(moved_to=lambda done: None, tell=output.message)
        return
    from rich import progress
    from rich.console import Console

    amount = (
        (progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn())
        if unit == BYTES
        else (progress.MofNCompleteColumn(), progress.TextColumn("{task.speed:,.0f} records/s"))
    )
    console = Console(stderr=True, highlight=False)
    columns = (progress.TextColumn(title), progress.BarColumn(), *amount, progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=total)
        yield Bar(
            moved_to=lambda done: shown.update(task, completed=done),
            tell=lambda text: console.print(f"kio: {text}", markup=False, soft_wrap=True),
        )
