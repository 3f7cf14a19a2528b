"""The clocks. Wall time decides expiry only, never order; every timeout and interval runs on the monotonic clock."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Milliseconds since 1970, by the wall clock."""
    return time.time_ns() // 1_000_000


def wall_us() -> int:
    """Microseconds since 1970, by the wall clock: for people, and protocols that tell the time."""
    return time.time_ns() // 1_000


def monotonic_s() -> float:
    """Seconds of CLOCK_MONOTONIC: the same in every process of this machine."""
    return time.monotonic()
