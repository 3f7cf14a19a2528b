"""Waiting to the microsecond, which epoll's own milliseconds do not give."""

from __future__ import annotations

import ctypes
import select
from typing import Final

#: The last part of a wait is spent awake: on an idle core of a virtual machine a sleep ends this much late.
SPIN_NS: Final = 100_000
#: But no more of the time than this: where there are few cores, the server needs the generator's as well. At 10,000
#: requests a second on two cores, a generator that never slept made kio's p99 four times what it is.
SPIN_SHARE: Final = 0.1
_PR_SET_TIMERSLACK: Final = 29


def wake_on_time() -> None:
    """Have the kernel end this thread's sleeps when they are over; it rounds them up by 50 us otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def spin_ns(interval_ns: float) -> int:
    """How much of each wait to spend awake, where waits end every `interval_ns`."""
    return min(SPIN_NS, int(interval_ns * SPIN_SHARE))


def sleep_precisely(epoll: select.epoll, wait_ns: int, awake_ns: int = SPIN_NS) -> None:
    """Sleep until `epoll` has events, or until `awake_ns` before `wait_ns` are over; at once if less is left."""
    if wait_ns > awake_ns:
        select.select([epoll], [], [], (wait_ns - awake_ns) / 1e9)
