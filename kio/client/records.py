"""What a client tells of a record beside its value, and how times are given to it.

Times are the caller's: seconds, or timedelta and datetime; on the wire they are whole milliseconds.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from kio import clock
from kio.errors import RequestError
from kio.limits import EXPIRE_AT_MS_MAX, TTL_MS_MAX


class Version(NamedTuple):
    """The name of one state of a key: no two writes of it ever have the same."""

    epoch: int
    lsn: int


class Entry(NamedTuple):
    """A value, the version it has, and when it expires: in seconds since 1970, None where it never does."""

    value: Any
    version: Version
    expire_at: float | None

    @property
    def ttl(self) -> float:
        """The seconds until it expires, by this machine's clock; infinity where it never does."""
        return math.inf if self.expire_at is None else max(0.0, self.expire_at - clock.wall_ms() / 1000)


class Record(NamedTuple):
    """A key, its value, and when it expires: in seconds since 1970, None where it never does."""

    key: bytes
    value: Any
    expire_at: float | None


def ttl_ms(given: Any) -> int:
    """A time to live as milliseconds, at least 1.

    Raises:
        TypeError: when it is neither a number of seconds nor a timedelta.
        RequestError: when it is not above 0, or too long.
    """
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a ttl is a number of seconds or a timedelta, not {type(given).__name__}")
    if not 0 < seconds <= TTL_MS_MAX / 1000:
        raise RequestError(f"a ttl is above 0 and at most {TTL_MS_MAX // 1000} seconds, not {seconds}")
    return max(1, math.ceil(seconds * 1000))


def expire_at_ms(given: Any) -> int:
    """A moment as milliseconds since 1970.

    Raises:
        TypeError: when it is neither a number of seconds since 1970 nor a datetime with a time zone.
        RequestError: when it is in 1970 or before, or too far away.
    """
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise TypeError("a datetime without time zone is no moment; give it one, as in datetime.now(UTC)")
        seconds: Any = given.timestamp()
    else:
        seconds = given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"expire_at is a number of seconds since 1970 or a datetime, not {type(given).__name__}")
    if not 0.001 <= seconds <= EXPIRE_AT_MS_MAX / 1000:
        raise RequestError(f"expire_at is above 0 and at most {EXPIRE_AT_MS_MAX // 1000} seconds, not {seconds}")
    return min(EXPIRE_AT_MS_MAX, round(seconds * 1000))


def expire_at_of(milliseconds: int) -> float | None:
    """The moment that a reply tells."""
    return milliseconds / 1000 if milliseconds else None


def ttl_of(milliseconds: int | None) -> float | None:
    """The seconds left that a reply tells: None where there is no record, infinity where it never expires."""
    if milliseconds is None:
        return None
    return math.inf if milliseconds < 0 else milliseconds / 1000
