"""Measurements that mean something on idle cores only: made again while others are at work, skipped if they stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")

ATTEMPTS = 5
#: Others use less than this much of all cores, in percent.
BUSY_PERCENT_MAX = 5.0
LOOK_S = 1.0


def is_quiet() -> bool:
    """Whether the cores are idle now."""
    return psutil.cpu_percent(LOOK_S) < BUSY_PERCENT_MAX


def measured_in_quiet(measure: Callable[[], T], is_right: Callable[[T], bool]) -> T:
    """What `measure` gives once `is_right` says so; a failure only where it was wrong while nobody else was at work."""
    wrong: list[T] = []
    for _ in range(ATTEMPTS):
        if not is_quiet():
            continue
        found = measure()
        if is_right(found):
            return found
        if is_quiet():
            wrong.append(found)
    if not wrong:
        pytest.skip("other processes kept the cores busy, before or after every attempt")
    pytest.fail(f"wrong on idle cores {len(wrong)} times, at last {wrong[-1]}")
