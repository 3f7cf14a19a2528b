"""What a measuring script prints: one table of figures, each beside its bar where it has one, and the verdict.

    figure                               value        bar
    uniform write_amplification           2.04     <= 2.3  pass

A figure that could not be had (a void run, nothing of what was to be measured took place) is printed as `none`; if it
has a bar, it missed it. The exit code is 1 when a bar was missed. --json prints the same rows, one document.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

MISSED = 1


class Figure(NamedTuple):
    """One row; `bar` is the most that the value may be."""

    name: str
    value: float | None
    bar: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it keeps to its bar; one without a bar does."""
        return self.bar is None or (self.value is not None and self.value <= self.bar)

    @property
    def verdict(self) -> str:
        """`pass` or `FAIL`; empty for a figure without a bar."""
        return "" if self.bar is None else "pass" if self.is_met else "FAIL"


def parser(doc: str | None, segment_mib: int) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a small scale that takes seconds and proves nothing")
    made.add_argument("--json", action="store_true")
    made.add_argument("--dir", type=Path, metavar="DIR", help="on the disk that is measured; default: for temporaries")
    made.add_argument("--segment-mib", type=int, default=segment_mib)
    made.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of kio serve; the last word")
    return made


def shrink(args: argparse.Namespace, **small: Any) -> argparse.Namespace:
    """With --quick the options are what `small` says, whatever else was given."""
    if args.quick:
        for name, value in small.items():
            setattr(args, name, value)
    return args


@contextmanager
def scratch(args: argparse.Namespace) -> Iterator[Path]:
    """An empty directory on the disk that is measured, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="kio-measure.", dir=args.dir) as name:
        if file_system(Path(name)) in ("tmpfs", "ramfs"):
            say(f"{name} is in memory: name a directory on a disk by --dir")
        yield Path(name)


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`; empty where the system does not tell."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[str(parent)] for parent in (path, *path.parents) if str(parent) in mounts), "")


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def show(args: argparse.Namespace, figures: Sequence[Figure]) -> int:
    """Print the table; the exit code."""
    if args.json:
        chosen = {name: value for name, value in vars(args).items() if name != "json" and value is not None}
        rows = [{**figure._asdict(), "verdict": figure.verdict} for figure in figures]
        print(json.dumps({"options": chosen, "figures": rows}, default=str))
    else:
        width = max(len(figure.name) for figure in figures)
        print(f"{'figure':<{width}}  {'value':>16}  {'bar':>12}")
        for figure in figures:
            bar = "" if figure.bar is None else f"<= {_shown(figure.bar)}"
            print(f"{figure.name:<{width}}  {_shown(figure.value):>16}  {bar:>12}  {figure.verdict}".rstrip())
    return 0 if all(figure.is_met for figure in figures) else MISSED


def _shown(value: float | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3f}"
