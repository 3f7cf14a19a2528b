"""Waiting to the microsecond, which epoll's own milliseconds do not give."""

from __future__ import annotations

import ctypes
import select
from typing import Final

#: The last part of a wait is spent awake: on an idle core of a virtual machine a sleep ends this much late.
SPIN_NS: Final = 100_000
_PR_SET_TIMERSLACK: Final = 29


def wake_on_time() -> None:
    """Have the kernel end this thread's sleeps when they are over; it rounds them up by 50 us otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def sleep_precisely(epoll: select.epoll, wait_ns: int, spin_ns: int = SPIN_NS) -> None:
    """Sleep until `epoll` has events, or until `spin_ns` before `wait_ns` are over; at once if less is left."""
    if wait_ns > spin_ns:
        select.select([epoll], [], [], (wait_ns - spin_ns) / 1e9)
