"""Operations on one key as requests: their arguments checked, and what their results mean to a caller.

A request that must not be applied twice (incr, append, what has a condition or answers with what it replaced) is not
`is_repeatable`: once it may have been applied it is not asked again, and the caller is told so.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from kio import wire
from kio.client import arguments, records
from kio.client.arguments import Key, Value
from kio.client.codecs import Space
from kio.client.protocol import Request, Unmet
from kio.client.records import Entry, Version
from kio.errors import Aborted, RequestError
from kio.limits import ATOMIC_OPERATIONS_MAX

Seconds = float | timedelta
Moment = float | datetime

_DELTA_MAX = 2**63 - 1
_NAMES = {
    wire.OP_SET: "set", wire.OP_DELETE: "delete", wire.OP_PERSIST: "persist",
}  # fmt: skip


class SetOptions(NamedTuple):
    """How a set is meant; the client's `set` says what each of them does."""

    ttl: Seconds | None = None
    expire_at: Moment | None = None
    keep_ttl: bool = False
    if_absent: bool = False
    if_present: bool = False
    if_version: Version | None = None

    def encoded(self, flags: int = 0) -> tuple[int, ...]:
        """The options of a frame, `flags` among them; empty when there are none.

        Raises:
            RequestError: when options contradict each other, or a time is out of range.
            TypeError: when one has a wrong type.
        """
        if (self.ttl is not None) + (self.expire_at is not None) + self.keep_ttl > 1:
            raise RequestError("give one of ttl, expire_at and keep_ttl")
        if self.if_absent + self.if_present + (self.if_version is not None) > 1:
            raise RequestError("give one of if_absent, if_present and if_version")
        flags |= wire.KEEP_TTL * self.keep_ttl | wire.IF_ABSENT * self.if_absent | wire.IF_PRESENT * self.if_present
        told: list[int] = []
        if self.ttl is not None:
            flags |= wire.TTL
            told.append(records.ttl_ms(self.ttl))
        elif self.expire_at is not None:
            flags |= wire.EXPIRE_AT
            told.append(records.expire_at_ms(self.expire_at))
        if self.if_version is not None:
            flags |= wire.IF_VERSION
            told += _version(self.if_version)
        return (flags, *told) if flags else ()

    @property
    def has_condition(self) -> bool:
        """Whether the set may be refused for what is there."""
        return self.if_absent or self.if_present or self.if_version is not None


PLAIN = SetOptions()


def get(space: Space, key: Key) -> Request:
    """The value, or None."""
    return Request(wire.OP_GET, (space.keyspace, arguments.key(key)), read=space.reader(key))


def entry(space: Space, key: Key) -> Request:
    """The value with its version, or None."""
    parts = (space.keyspace, arguments.key(key), wire.WITH_VERSION)
    return Request(wire.OP_GET, parts, read=partial(_entry, space, key))


def set(space: Space, key: Key, value: Any, options: SetOptions = PLAIN) -> Request:
    """True, or False where a condition did not hold."""
    told = () if options is PLAIN else options.encoded()
    parts = (space.keyspace, arguments.key(key), space.encoded(value), *told)
    return Request(wire.OP_SET, parts, read=_is_met, is_repeatable=not options.has_condition)


def set_with_version(space: Space, key: Key, value: Any, options: SetOptions) -> Request:
    """The version it made, or None where a condition did not hold."""
    parts = (space.keyspace, arguments.key(key), space.encoded(value), *options.encoded(wire.WITH_VERSION))
    return Request(wire.OP_SET, parts, read=_version_of, is_repeatable=not options.has_condition)


def get_and_set(space: Space, key: Key, value: Any, options: SetOptions) -> Request:
    """The value that was there, or None."""
    parts = (space.keyspace, arguments.key(key), space.encoded(value), *options.encoded(wire.WITH_OLD))
    return Request(wire.OP_SET, parts, read=space.reader(key, is_applied=True), is_repeatable=False)


def delete(space: Space, key: Key, if_version: Version | None = None) -> Request:
    """Whether it was there, in that version where one is given."""
    told = () if if_version is None else (wire.IF_VERSION, *_version(if_version))
    return Request(wire.OP_DELETE, (space.keyspace, arguments.key(key), *told), read=_truth, is_repeatable=not told)


def get_and_delete(space: Space, key: Key) -> Request:
    """The value that was there, or None."""
    parts = (space.keyspace, arguments.key(key), wire.WITH_OLD)
    return Request(wire.OP_DELETE, parts, read=space.reader(key, is_applied=True), is_repeatable=False)


def exists(space: Space, key: Key) -> Request:
    """Whether it is there."""
    return Request(wire.OP_EXISTS, (space.keyspace, arguments.key(key)))


def incr(space: Space, key: Key, by: int) -> Request:
    """The sum."""
    if type(by) is not int:
        raise TypeError(f"incr adds an int, not {type(by).__name__}")
    if not -_DELTA_MAX - 1 <= by <= _DELTA_MAX:
        raise RequestError(f"incr adds an integer of 64 bits, not {by}")
    return Request(wire.OP_INCR, (space.keyspace, arguments.key(key), by), is_repeatable=False)


def append(space: Space, key: Key, value: Value) -> Request:
    """The length of the value now."""
    return Request(wire.OP_APPEND, (space.keyspace, arguments.key(key), arguments.value(value)), is_repeatable=False)


def touch(space: Space, key: Key, ttl: Seconds | None, expire_at: Moment | None) -> Request:
    """Whether the key was there to be given an expiry."""
    if (ttl is None) == (expire_at is None):
        raise RequestError("touch takes either ttl or expire_at")
    told = SetOptions(ttl, expire_at).encoded()
    return Request(wire.OP_EXPIRE, (space.keyspace, arguments.key(key), *told))


def persist(space: Space, key: Key) -> Request:
    """Whether there was an expiry to take away."""
    return Request(wire.OP_PERSIST, (space.keyspace, arguments.key(key)), read=_truth)


def ttl(space: Space, key: Key) -> Request:
    """The seconds left; None where the key is absent, infinity where it never expires."""
    return Request(wire.OP_TTL, (space.keyspace, arguments.key(key)), read=records.ttl_of)


def atomic(keyspace: int, requests: list[Request]) -> Request:
    """The results of all `requests`, applied together.

    Raises:
        RequestError: when they are too many.
    """
    if len(requests) > ATOMIC_OPERATIONS_MAX:
        raise RequestError(f"an atomic batch has at most {ATOMIC_OPERATIONS_MAX} operations, not {len(requests)}")
    calls = [[request.op, *request.arguments[1:]] for request in requests]

    def read(answer: Any) -> list[Any]:
        if not isinstance(answer, Unmet):
            return [request.outcome_of(result) for request, result in zip(requests, answer, strict=True)]
        place = answer.there[0]
        failed = requests[place]
        what = f"{_NAMES[failed.op]} of {failed.arguments[1]!r:.80}"
        raise Aborted(
            f"operation {place}, the {what}: its condition does not hold, so nothing of the batch was applied"
        )

    is_repeatable = all(request.is_repeatable for request in requests)
    return Request(
        wire.OP_ATOMIC, (keyspace, calls), len(requests), read=read, is_repeatable=is_repeatable, parts=requests
    )


def _version(given: Any) -> tuple[int, int]:
    if isinstance(given, tuple) and len(given) == 2 and all(type(part) is int for part in given):
        return given
    raise TypeError(f"if_version takes the version that entry gave, not {given!r:.80}")


def _entry(space: Space, key: Key, answer: Any) -> Entry | None:
    if answer is None:
        return None
    value, epoch, lsn, expire_at = answer
    return Entry(space.decoded(key, value), Version(epoch, lsn), records.expire_at_of(expire_at))


def _version_of(answer: Any) -> Version | None:
    return None if isinstance(answer, Unmet) else Version(*answer[:2])


def _is_met(answer: Any) -> bool:
    return not isinstance(answer, Unmet)


def _truth(answer: Any) -> bool:
    return answer is True
