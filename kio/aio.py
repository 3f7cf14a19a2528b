"""The asyncio client: the methods of the blocking one, awaited.

    async with kio.aio.connect("kio://127.0.0.1:7400") as db:
        await db.set("greeting", b"hello")
        async for key in db.keys("user:"):
            ...

All tasks share one connection: each request carries an id, so that many are under way at once, what one turn of the
loop asks goes out in one write, and a cancelled task takes nothing from the others. A client belongs to the event loop
that opened it. What the methods ask, and what they do with failures, is shared with the blocking client (kio.client).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from kio import wire
from kio.client import caching, calls, operations, options
from kio.client.arguments import K, Key, Value
from kio.client.blocking import PAGE_KEYS
from kio.client.caching import AsyncCached, P
from kio.client.calls import Calls, Scan
from kio.client.codecs import Codec, Space
from kio.client.link import Link
from kio.client.locks import AsyncLock
from kio.client.operations import Moment, Seconds, SetOptions
from kio.client.options import UNSET, Options, Unset
from kio.client.pipeline import Queue
from kio.client.plans import Plan, Round
from kio.client.protocol import Reply, Request
from kio.client.records import Entry, Record, Version
from kio.client.retry import Deadline
from kio.errors import KioError

R = TypeVar("R")


def connect(
    url: str = "kio://127.0.0.1:7400",
    *,
    timeout: float | Unset | None = UNSET,
    connect_timeout: float | Unset = UNSET,
    retries: bool | Unset = UNSET,
    keyspace: int | Unset = UNSET,
    codec: str | Codec | Unset = UNSET,
    user: str | Unset = UNSET,
    password: str | bytes | Unset = UNSET,
) -> Client:
    """A client of the daemon at `url`, to be opened by `async with`; or by `await`, and closed by `await db.close()`.

    The arguments are those of `kio.connect`; there is always one connection. Opening it raises ConnectionLost when no
    daemon answers, NotAuthenticated when it wants another password, and ProtocolError when what answers is not kio.

    Raises:
        ConfigError: when the URL or an option is wrong.
    """
    return Client(
        options.parse(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            retries=retries,
            keyspace=keyspace,
            codec=codec,
            user=user,
            password=password,
        )
    )


class Client:
    """A connection to a kio daemon, made by `kio.aio.connect`; keys, values and errors as in `kio.client.Client`."""

    def __init__(self, settings: Options, link: Link | None = None) -> None:
        self._options = settings
        self._link = link or Link(settings)
        self._calls = Calls(settings, lambda: self._link.limits)

    async def open(self) -> Client:
        """Connect, if there is no connection."""
        await self._link.take(Deadline(self._options.timeout))
        return self

    async def close(self) -> None:
        """Close the connection; calls of other tasks that are under way fail with ConnectionLost or RequestError."""
        await self._link.close()

    def __await__(self) -> Generator[Any, None, Client]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<kio asyncio client of {self._options.url}>"

    def with_options(
        self,
        *,
        timeout: float | Unset | None = UNSET,
        retries: bool | Unset = UNSET,
        keyspace: int | Unset = UNSET,
        codec: str | Codec | Unset = UNSET,
    ) -> Client:
        """The same client with other options: it shares the connection, and closing one closes both."""
        changed = options.changed(self._options, timeout=timeout, retries=retries, keyspace=keyspace, codec=codec)
        return Client(changed, self._link)

    async def get(self, key: Key) -> Any:
        """The value of `key`, or None where there is none."""
        return await self._run(self._calls.on_key(operations.get, key))

    async def entry(self, key: Key) -> Entry | None:
        """The value of `key` with its version and expiry, or None where there is none."""
        return await self._run(self._calls.on_key(operations.entry, key))

    async def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: Version | None = None,
    ) -> bool:
        """Store `value` under `key`; as `kio.client.Client.set`."""
        options = SetOptions(ttl, expire_at, keep_ttl, if_absent, if_present, if_version)
        return await self._run(self._calls.on_key(operations.set, key, value, options))

    async def set_with_version(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: Version | None = None,
    ) -> Version | None:
        """As `set`; the version that it made, or None where a condition did not hold."""
        options = SetOptions(ttl, expire_at, keep_ttl, if_absent, if_present, if_version)
        return await self._run(self._calls.on_key(operations.set_with_version, key, value, options))

    async def get_and_set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
    ) -> Any:
        """As `set`; the value that was there, or None where there was none."""
        options = SetOptions(ttl, expire_at, keep_ttl)
        return await self._run(self._calls.on_key(operations.get_and_set, key, value, options))

    async def delete(self, key: Key, *, if_version: Version | None = None) -> bool:
        """Remove `key`; whether it was there, and had the version `if_version` where one is given."""
        return await self._run(self._calls.on_key(operations.delete, key, if_version))

    async def get_and_delete(self, key: Key) -> Any:
        """Remove `key`; the value that was there, or None where there was none."""
        return await self._run(self._calls.on_key(operations.get_and_delete, key))

    async def exists(self, key: Key) -> bool:
        """Whether `key` is there."""
        return await self._run(self._calls.on_key(operations.exists, key))

    async def incr(self, key: Key, by: int = 1) -> int:
        """Add `by` to the value of `key`, decimal text; the sum. As `kio.client.Client.incr`."""
        return await self._run(self._calls.on_key(operations.incr, key, by))

    async def append(self, key: Key, value: Value) -> int:
        """Put `value` behind what stands under `key`; the length of the whole. An absent key counts as empty."""
        return await self._run(self._calls.on_key(operations.append, key, value))

    async def touch(self, key: Key, ttl: Seconds | None = None, *, expire_at: Moment | None = None) -> bool:
        """Give `key` an expiry, as `set` takes it, and leave the value; whether it is there. A past time removes it."""
        return await self._run(self._calls.on_key(operations.touch, key, ttl, expire_at))

    async def persist(self, key: Key) -> bool:
        """Take the expiry of `key` away; whether it had one. After a lost reply the retry may say False."""
        return await self._run(self._calls.on_key(operations.persist, key))

    async def ttl(self, key: Key) -> float | None:
        """The seconds until `key` expires; infinity where it never does, None where it is absent."""
        return await self._run(self._calls.on_key(operations.ttl, key))

    async def get_many(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values of those of `keys` that are there; as `kio.client.Client.get_many`."""
        return await self._run(self._calls.get_many(keys))

    async def set_many(
        self,
        pairs: Mapping[K, Any] | Iterable[tuple[K, Any]],
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
    ) -> int:
        """Store all `pairs`; their number; as `kio.client.Client.set_many`."""
        return await self._run(self._calls.set_many(pairs, SetOptions(ttl, expire_at)))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove `keys`; how many were there."""
        return await self._run(self._calls.delete_many(keys))

    async def exists_many(self, keys: Iterable[K]) -> dict[K, bool]:
        """Each of `keys`, and whether it is there."""
        return await self._run(self._calls.exists_many(keys))

    async def count(self) -> int:
        """The number of keys in this keyspace."""
        return await self._run(self._calls.count())

    async def clear(self) -> int:
        """Remove all keys of this keyspace; how many there were."""
        return await self._run(self._calls.clear())

    @overload
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: Literal[True] = True, limit: int = PAGE_KEYS
    ) -> AsyncIterator[tuple[bytes, Any]]: ...
    @overload
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: Literal[False], limit: int = PAGE_KEYS
    ) -> AsyncIterator[bytes]: ...
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: bool = True, limit: int = PAGE_KEYS
    ) -> AsyncIterator[Any]:
        """Iterate over what begins with `prefix` and matches the pattern `match`; as `kio.client.Client.scan`."""
        return self._pages(calls.scan(prefix, match, limit, wire.SCAN_ITEMS if values else wire.SCAN_KEYS))

    def records(self, prefix: Key = b"", *, match: Key | None = None, limit: int = PAGE_KEYS) -> AsyncIterator[Record]:
        """Iterate over the records, key, value and expiry, whose key begins with `prefix`; see `scan`."""
        return self._pages(calls.scan(prefix, match, limit, wire.SCAN_RECORDS))

    def keys(self, prefix: Key = b"", *, match: Key | None = None) -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with `prefix`; see `scan`."""
        return self.scan(prefix, match=match, values=False)

    def values(self, prefix: Key = b"", *, match: Key | None = None) -> AsyncIterator[Any]:
        """Iterate over the values of the keys that begin with `prefix`; see `scan`."""
        found = self.scan(prefix, match=match)
        return (value async for _, value in found)

    def items(self, prefix: Key = b"", *, match: Key | None = None) -> AsyncIterator[tuple[bytes, Any]]:
        """Iterate over the (key, value) pairs whose key begins with `prefix`; see `scan`."""
        return self.scan(prefix, match=match)

    async def stats(self) -> dict[str, Any]:
        """What the daemon tells of itself: the fields of `kio status --json`."""
        return await self._run(self._calls.stats())

    async def compact(self) -> int:
        """Have the daemon give back what overwritten and deleted records take; how many bytes that is."""
        return await self._run(self._calls.compact())

    async def ping(self) -> float:
        """The seconds of one round trip to the daemon."""
        started_s = time.perf_counter()
        await self._run(self._calls.ping())
        return time.perf_counter() - started_s

    async def seal(self) -> list[dict[str, Any]]:
        """For a backup: which files hold the state of each shard at one moment, as `kio backup` reads it."""
        return await self._run(self._calls.seal())

    def pipeline(self, *, raise_on_error: bool = True) -> Pipeline:
        """Queue operations and send them at once, in order; as `kio.client.Client.pipeline`, with `async with`."""

        def send(requests: list[Request], keys: list[Key]) -> Coroutine[Any, Any, list[Any]]:
            return self._run(self._calls.pipeline(requests, keys))

        return Pipeline(send, self._options.space, raise_on_error)

    def batch(self) -> Pipeline:
        """Queue operations and apply them all or nothing; as `kio.client.Client.batch`, with `async with`."""

        def send(requests: list[Request], keys: list[Key]) -> Coroutine[Any, Any, list[Any]]:
            return self._run(self._calls.atomic(requests))

        return Pipeline(send, self._options.space, True)

    def lock(self, name: Key, ttl: Seconds, *, timeout: float | None = None) -> AsyncLock:
        """A lock named `name` among all programs of this keyspace, for `async with`; as `kio.client.Client.lock`."""
        return AsyncLock(self._run, self._raw_calls(), name, ttl, timeout)

    def cached(
        self,
        *,
        ttl: Seconds,
        stale: Seconds = 0,
        single_flight: bool = False,
        flight: Seconds = 30,
        key: Callable[..., Key] | None = None,
        codec: str | Codec | Unset = UNSET,
        fail_open: bool = True,
    ) -> Callable[[Callable[P, Awaitable[R]]], AsyncCached[P, R]]:
        """A decorator that keeps what a coroutine function returns; as `kio.client.Client.cached`."""
        settings = caching.Settings(ttl, stale, single_flight, flight, key, fail_open)
        if isinstance(codec, Unset):
            codec = self._options.codec or "msgpack"
        space = options.changed(self._options, codec=codec).space

        def decorate(
            function: Callable[P, Awaitable[R]],
        ) -> AsyncCached[P, R]:
            return caching.cached_async(self._run, self._raw_calls(), space, function, settings)

        return decorate

    async def _pages(self, scan: Scan | None) -> AsyncIterator[Any]:
        cursor = b""
        while scan is not None:
            cursor, page = await self._run(self._calls.page(cursor, scan))
            for each in page:
                yield each
            if not cursor:
                return

    def _raw_calls(self) -> Calls:
        return Calls(self._options.raw, lambda: self._link.limits)

    async def _run(self, plan: Plan[R]) -> R:
        try:
            step = next(plan)
            while True:
                if step.pause_s:
                    await asyncio.sleep(step.pause_s)
                step = plan.send(await self._exchange(step))
        except StopIteration as done:
            result: R = done.value
            return result

    async def _exchange(self, step: Round) -> list[Reply]:
        if not step.requests:
            return []
        try:
            link = await self._link.take(step.deadline)
        except KioError as error:
            return [Reply(error=error)] * len(step.requests)
        return await link.exchange(step.requests, step.deadline)


class Pipeline(Queue):
    """A pipeline of the asyncio client; leaving its `async with` block sends what is queued, unless by an exception."""

    def __init__(
        self,
        send: Callable[[list[Request], list[Key]], Coroutine[Any, Any, list[Any]]],
        space: Space,
        raise_on_error: bool,
    ) -> None:
        super().__init__(space, raise_on_error)
        self._send = send

    async def execute(self) -> list[Any]:
        """Send all that is queued, in order; the results in the same order. Errors as in the blocking pipeline."""
        return self._finish(await self._send(*self._taken()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._requests:
            await self.execute()
