"""Deadlines, and when to ask again.

A call has one deadline for everything it does: waiting for a connection, all attempts, all pauses. Only failures that
may heal by themselves (`error.retryable`) are asked again, after a pause that doubles from 10 ms to 250 ms and is
shortened by a random part, so that clients which failed together do not come back together.
"""

from __future__ import annotations

import math
import os
import time
from typing import Final

from kio import clock
from kio.errors import KioError

FIRST_PAUSE_S: Final = 0.010
PAUSE_S_MAX: Final = 0.250
#: A frame tells at most a day; a deadline beyond that is kept by the client alone.
DEADLINE_MS_MAX: Final = 86_400_000


class Deadline:
    """A moment on the monotonic clock, or never."""

    __slots__ = ("at_s",)

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; None is never."""
        self.at_s = math.inf if seconds is None else clock.monotonic_s() + seconds

    def left_s(self) -> float:
        """Seconds until it; 0 or less when it has passed, infinity when it is never."""
        return self.at_s - clock.monotonic_s()

    def left_ms(self) -> int:
        """What a frame tells: whole milliseconds, at least 1; 0 when it is never."""
        if self.at_s == math.inf:
            return 0
        return max(1, min(DEADLINE_MS_MAX, int(self.left_s() * 1000)))

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this and `seconds` from now."""
        other = Deadline(seconds)
        return other if other.at_s < self.at_s else self


class Retry:
    """The attempts of one call."""

    __slots__ = ("_cause", "_pause_s", "attempts", "deadline", "is_on", "started_s")

    def __init__(self, timeout: float | None, is_on: bool) -> None:
        """`timeout` in seconds from now, None for none; `is_on` False makes the first failure the last."""
        self.deadline = Deadline(timeout)
        self.is_on = is_on
        self.started_s = clock.monotonic_s()
        self.attempts = 1
        self._pause_s = FIRST_PAUSE_S
        self._cause: KioError | None = None

    def next_pause_s(self, cause: KioError) -> float | None:
        """Begin another attempt after one that failed with `cause`: the seconds to wait before it.

        None when retries are off, or what is left is no time for one: an attempt gets at least as long as the pause
        before it.
        """
        if not self.is_on:
            return None
        pause_s = _jittered(self._pause_s)
        if 2 * pause_s >= self.deadline.left_s():
            return None
        self._pause_s = min(PAUSE_S_MAX, self._pause_s * 2)
        self._cause = cause
        self.attempts += 1
        return pause_s

    def final(self, error: KioError) -> KioError:
        """`error` as the caller gets it: with a note of what was tried before it was given up."""
        if self._cause is not None:
            took_s = clock.monotonic_s() - self.started_s
            before = f"the one before failed with {type(self._cause).__name__}: {self._cause}"
            error.add_note(f"given up after {self.attempts} attempts in {took_s:.3f} s; {before}")
        return error


class Poll:
    """The pauses of one that looks again and again for what another will have done: they grow as those of a Retry."""

    __slots__ = ("_pause_s",)

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        """Seconds to wait before the next look."""
        pause_s = _jittered(self._pause_s)
        self._pause_s = min(PAUSE_S_MAX, self._pause_s * 2)
        return pause_s

    def sleep(self) -> None:
        """Wait before the next look, in a thread that may."""
        time.sleep(self.next_s())


def _jittered(pause_s: float) -> float:
    """`pause_s` without a random part of its half."""
    return pause_s * (0.5 + 0.5 * int.from_bytes(os.urandom(2), "little") / 0x10000)


def own_error(error: KioError, maybe_applied: bool) -> KioError:
    """A fresh error like `error`, for one caller alone, that says `maybe_applied` where it or the argument does."""
    return type(error)(str(error), maybe_applied=maybe_applied or error.maybe_applied)
