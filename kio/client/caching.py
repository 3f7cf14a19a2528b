"""The results of a function, kept in the store for all programs that call it.

    @db.cached(ttl=60, stale=30, single_flight=True)
    def page(number: int) -> str: ...

A result is one record, which expires after ttl + stale seconds; while more than `stale` of them are left it is fresh.
Who computes holds a lock beside the record (locks.py), so that others, in whatever process, wait for the result or are
given the stale one. Nothing is kept in this process.

Invariants:
  * what the function raises is raised, and never kept;
  * with `fail_open`, an error of the store is logged, once until the store answers again, and the function computes;
  * a result whose computation was overtaken by `invalidate` is not left in the store, where a lock is used.

The plans are shared by both clients; between two of them the caller's function runs, blocking or awaited.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import wraps
from hashlib import blake2b
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from kio.client import arguments, operations, records
from kio.client.arguments import Key
from kio.client.calls import Calls
from kio.client.codecs import Space
from kio.client.locks import Holding
from kio.client.operations import Seconds, SetOptions
from kio.client.plans import Plan, Round
from kio.client.records import Entry, Version
from kio.client.retry import Deadline, Poll
from kio.errors import KioError, LockLost, NotDecodable
from kio.log import Log

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B_co = TypeVar("B_co", covariant=True)

#: What stands behind a record's key in that of its lock.
LOCK_SUFFIX: Final = b"\0lock"
DIGEST_BYTES: Final = 16
_BY_TEXT: Final = {date, datetime, time, timedelta, Decimal, UUID}

_log = Log(__name__)


class Cached(Protocol[P, R_co, B_co]):
    """A function whose results are kept; of the asyncio client, one whose calls and `invalidate` are awaited."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The function's result, from the store or anew."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> B_co:
        """Forget the result for these arguments; whether there was one. Errors of the store are raised."""

    def key_of(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """The key of the result for these arguments."""


AsyncCached = Cached[P, Coroutine[Any, Any, R], Coroutine[Any, Any, bool]]


class Settings(NamedTuple):
    """How results are kept; the client's `cached` says what each of these does."""

    ttl: Seconds
    stale: Seconds = 0
    single_flight: bool = False
    flight: Seconds = 30
    key: Callable[..., Key] | None = None
    fail_open: bool = True


class Found(NamedTuple):
    """What a look at the store tells: a result, or that the caller is to compute one, with a lock perhaps."""

    is_there: bool
    value: Any = None
    lock: Holding | None = None


COMPUTE: Final = Found(is_there=False)


class Cache:
    """The results of one function."""

    def __init__(self, calls: Calls, space: Space, function: Callable[..., Any], settings: Settings) -> None:
        """`calls` are those of a client without a codec; `space` has the codec of the results.

        Raises:
            TypeError, RequestError: when a setting is none.
        """
        self._calls = calls
        self._space = space
        self._settings = settings
        self._ttl_s = records.ttl_ms(settings.ttl) / 1000
        self._stale_s = records.ttl_ms(settings.stale) / 1000 if settings.stale else 0.0
        self._flight_s = records.ttl_ms(settings.flight) / 1000
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._signature = inspect.signature(function)
        self._is_away = False

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key:
        """The key for these arguments, which may be given by position or by name.

        Raises:
            TypeError: when they do not fit the function, or one of them cannot be part of a key.
        """
        if self._settings.key is not None:
            return arguments.key(self._settings.key(*args, **kwargs))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            told = written(dict(bound.arguments))
        except TypeError as error:
            raise TypeError(f"{self._name}: {error}; tell cached the key, as in key=lambda user: ...") from None
        return f"cached:{self._name}:{blake2b(told, digest_size=DIGEST_BYTES).hexdigest()}"

    def encoded(self, value: Any) -> bytes:
        """A result as it is kept."""
        return bytes(self._space.encoded(value))

    def look(self, key: Key) -> Plan[Found]:
        """The result, when there is one or another caller brings one; else the caller is to compute it."""
        deadline, poll = Deadline(self._flight_s), Poll()
        while True:
            found, is_fresh = yield from self._kept(key)
            if is_fresh or (not found.is_there and not self._settings.single_flight):
                return found
            lock = self._lock(key)
            if (yield from lock.trying()):
                again, is_fresh = yield from self._kept(key)
                if not is_fresh:
                    return Found(is_there=False, lock=lock)
                yield from self.give_up(lock)
                return again
            if found.is_there:
                return found
            if deadline.left_s() <= 0:
                return COMPUTE
            yield Round([], poll.next_s(), deadline)

    def keep(self, key: Key, data: bytes, lock: Holding | None) -> Plan[None]:
        """Store a result that was computed, and let the others have it."""
        options = SetOptions(ttl=self._ttl_s + self._stale_s)
        try:
            version: Version = yield from self._calls.on_key(operations.set_with_version, key, data, options)
        except KioError:
            yield from self.give_up(lock)
            raise
        if lock is None:
            return
        try:
            yield from lock.releasing()
        except LockLost:
            # It was invalidated meanwhile, or took longer than `flight` and another computes it anew.
            yield from self._calls.on_key(operations.delete, key, version)

    def give_up(self, lock: Holding | None) -> Plan[None]:
        """Let another caller compute."""
        if lock is not None:
            try:
                yield from lock.releasing()
            except LockLost:
                return

    def forget(self, key: Key) -> Plan[bool]:
        """Remove a result, and what is being computed; whether there was one."""
        yield from self._calls.on_key(operations.delete, self._lock(key).name)
        was_there: bool = yield from self._calls.on_key(operations.delete, key)
        return was_there

    def is_borne(self, error: KioError) -> bool:
        """Whether the function shall compute in spite of `error`, which is told then."""
        if not self._settings.fail_open:
            return False
        if not self._is_away:
            self._is_away = True
            _log.warning("cache unavailable", function=self._name, error=type(error).__name__, reason=error)
        return True

    def answered(self) -> None:
        """The store did what was asked: its next fault is a new one."""
        self._is_away = False

    def _lock(self, key: Key) -> Holding:
        return Holding(self._calls, arguments.key_bytes(key) + LOCK_SUFFIX, self._flight_s)

    def _kept(self, key: Key) -> Plan[tuple[Found, bool]]:
        """The result in the store, and whether it is fresh; what cannot be decoded counts as none."""
        entry: Entry | None = yield from self._calls.on_key(operations.entry, key)
        if entry is None:
            return COMPUTE, False
        try:
            value = self._space.decoded(key, entry.value)
        except NotDecodable:
            return COMPUTE, False
        return Found(is_there=True, value=value), not self._stale_s or entry.ttl > self._stale_s


def cached(
    run: Callable[[Plan[Any]], Any], calls: Calls, space: Space, function: Callable[P, R], settings: Settings
) -> Cached[P, R, bool]:
    """`function` with its results kept, for the blocking client."""
    if inspect.iscoroutinefunction(function):
        raise TypeError("cached of the blocking client takes functions; for coroutine functions there is kio.aio")
    cache = Cache(calls, space, function, settings)

    def asked(plan: Plan[Any], instead: Any = None) -> Any:
        try:
            result = run(plan)
        except KioError as error:
            if not cache.is_borne(error):
                raise
            return instead
        cache.answered()
        return result

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = cache.key_of(args, kwargs)
        found: Found = asked(cache.look(key), COMPUTE)
        if found.is_there:
            return cast(R, found.value)
        try:
            value = function(*args, **kwargs)
            data = cache.encoded(value)
        except BaseException:
            asked(cache.give_up(found.lock))
            raise
        asked(cache.keep(key, data, found.lock))
        return value

    def invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
        was_there: bool = run(cache.forget(cache.key_of(args, kwargs)))
        return was_there

    return cast("Cached[P, R, bool]", _dressed(call, invalidate, cache))


def cached_async(
    run: Callable[[Plan[Any]], Coroutine[Any, Any, Any]],
    calls: Calls,
    space: Space,
    function: Callable[P, Awaitable[R]],
    settings: Settings,
) -> AsyncCached[P, R]:
    """The coroutine function `function` with its results kept, for the asyncio client."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError("cached of the asyncio client takes coroutine functions; for others there is kio.connect")
    cache = Cache(calls, space, function, settings)

    async def asked(plan: Plan[Any], instead: Any = None) -> Any:
        try:
            result = await run(plan)
        except KioError as error:
            if not cache.is_borne(error):
                raise
            return instead
        cache.answered()
        return result

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = cache.key_of(args, kwargs)
        found: Found = await asked(cache.look(key), COMPUTE)
        if found.is_there:
            return cast(R, found.value)
        try:
            value = await function(*args, **kwargs)
            data = cache.encoded(value)
        except BaseException:
            await asked(cache.give_up(found.lock))
            raise
        await asked(cache.keep(key, data, found.lock))
        return value

    async def invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
        was_there: bool = await run(cache.forget(cache.key_of(args, kwargs)))
        return was_there

    return cast("AsyncCached[P, R]", _dressed(call, invalidate, cache))


def _dressed(call: Any, invalidate: Any, cache: Cache) -> Any:
    call.invalidate = invalidate
    call.key_of = lambda *args, **kwargs: cache.key_of(args, kwargs)
    return call


def written(value: Any) -> bytes:
    """`value` as bytes that no other value has: its type, its length, and what it holds.

    Raises:
        TypeError: when it is of a type that has no such bytes.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float):
        text = repr(value).encode()
    elif kind in (bytes, str):
        text = value if kind is bytes else value.encode("utf-8", "surrogatepass")
    elif kind in (tuple, list):
        text = b"".join(map(written, value))
    elif kind in (set, frozenset):
        text = b"".join(sorted(map(written, value)))
    elif kind is dict:
        text = b"".join(sorted(written(name) + written(each) for name, each in value.items()))
    elif kind in _BY_TEXT:
        text = repr(value).encode()
    elif isinstance(value, Enum):
        text = f"{kind.__module__}.{kind.__qualname__}.{value.name}".encode()
    else:
        raise TypeError(f"a {kind.__name__} cannot be part of a key")
    return b"%b:%d:%b" % (kind.__name__.encode(), len(text), text)
