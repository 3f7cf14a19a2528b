"""The clock of a shard: it decides what has expired, and nothing else.

It is the wall clock, except that it never goes back: not when the wall clock is set back, and not when that happens
while kio is stopped, because the time it had reached is kept in the manifest. Where the wall clock is behind, it goes
on with the monotonic clock. So what has expired once never comes back; and after the wall clock was wrong by a day
ahead, times to live count from that day until the wall clock has caught up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kio.clock import wall_ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class ShardClock:
    """A clock that begins at `floor_ms` or at the wall clock's time, whichever is later.

    Args:
        floor_ms: the highest time that it is known to have reached, in ms since 1970.
        wall_ms, monotonic_ms: what it is made of.
    """

    def __init__(
        self,
        floor_ms: int,
        wall_ms: Callable[[], int] = wall_ms,
        monotonic_ms: Callable[[], int] = _monotonic_ms,
    ) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._now_ms = floor_ms
        self._at_ms = monotonic_ms()

    def now_ms(self) -> int:
        """Milliseconds since 1970; never less than before."""
        at_ms = self._monotonic_ms()
        self._now_ms = max(self._now_ms + at_ms - self._at_ms, self._wall_ms())
        self._at_ms = at_ms
        return self._now_ms
