"""Measurements that mean something on idle cores only: made again while others are at work, skipped if they stay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")

ATTEMPTS = 12
#: Others use less than this much of all cores, in percent.
BUSY_PERCENT_MAX = 5.0
LOOK_S = 1.0


def is_quiet() -> bool:
    """Whether the cores are idle now."""
    return psutil.cpu_percent(LOOK_S) < BUSY_PERCENT_MAX


def measured_in_quiet(
    measure: Callable[[], T], is_right: Callable[[T], bool], was_disturbed: Callable[[T], bool] = lambda _: False
) -> T:
    """What `measure` gives once `is_right` says so; a failure only where it was wrong while nobody else was at work.

    Args:
        was_disturbed: whether a wrong outcome says itself that somebody was.
    """
    wrong: list[T] = []
    for _ in range(ATTEMPTS):
        if not is_quiet():
            continue
        found = measure()
        if is_right(found):
            return found
        if is_quiet() and not was_disturbed(found):
            wrong.append(found)
    if not wrong:
        pytest.skip("other processes kept the cores busy, before or after every attempt")
    pytest.fail(f"wrong on idle cores {len(wrong)} times, at last {wrong[-1]}")


@contextmanager
def cores_apart(server: int) -> Iterator[None]:
    """The process `server` on one core, this one and the children that it starts on another.

    Both wait awake for what is due: on one core, where a wake-up may put them, each makes the other late.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    os.sched_setaffinity(server, {min(cores)})
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
