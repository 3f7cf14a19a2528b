"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from kio import wire
from kio.client import arguments, caching, calls, operations, options
from kio.client.arguments import K, Key, Value
from kio.client.caching import Cached, P
from kio.client.calls import Calls, Scan
from kio.client.codecs import Codec
from kio.client.locks import Lock
from kio.client.mapping import MappingView
from kio.client.operations import Moment, Seconds, SetOptions
from kio.client.options import UNSET, Options, Unset
from kio.client.pipeline import Pipeline
from kio.client.plans import Plan, Round
from kio.client.pool import Pool
from kio.client.protocol import Reply, Request
from kio.client.records import Entry, Record, Version
from kio.client.retry import Deadline
from kio.errors import KioError

R = TypeVar("R")

#: Keys on one page of a scan.
PAGE_KEYS = 1_000


class Client:
    """A connection to a kio daemon; made by `kio.connect`.

    Keys are bytes, or str that stands for its UTF-8 bytes; 1 to 65,535 bytes. Values are bytes, bytearray or memoryview
    and come back as bytes, unless there is a codec. When a call fails it raises a subclass of `kio.errors.KioError`:

        Timeout             the timeout passed; where `maybe_applied` is True the write may still happen
        ConnectionLost      no connection could be made or kept until the timeout; `maybe_applied` as above
        ShardDown, Overloaded, Draining    the daemon could not answer until the timeout
        KeyEmpty, KeyTooLarge, ValueTooLarge   the request can never succeed
        StorageError        the daemon's disk needs an operator
        PartialFailure      some keys of a batch failed and others did not
        NotDecodable        the codec makes nothing of a value; `maybe_applied` where it was replaced or removed

    and TypeError when a key or a value is of a wrong type.
    """

    def __init__(self, settings: Options, pool: Pool | None = None) -> None:
        self._options = settings
        self._pool = pool or Pool(settings)
        self._calls = Calls(settings, lambda: self._pool.limits)

    def open(self) -> None:
        """Make the first connection, if there is none; errors as in `kio.connect`."""
        self._pool.put(self._pool.take(Deadline(self._options.timeout)))

    def close(self) -> None:
        """Close all connections; a call that is under way in another thread still ends."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kio client of {self._options.url}>"

    def with_options(
        self,
        *,
        timeout: float | Unset | None = UNSET,
        retries: bool | Unset = UNSET,
        keyspace: int | Unset = UNSET,
        codec: str | Codec | Unset = UNSET,
    ) -> Client:
        """The same client with other options: it shares the connections, and closing one closes both.

        `codec="bytes"` takes a codec away.
        """
        changed = options.changed(self._options, timeout=timeout, retries=retries, keyspace=keyspace, codec=codec)
        return Client(changed, self._pool)

    def get(self, key: Key) -> Any:
        """The value of `key`, or None where there is none."""
        return self._run(self._calls.on_key(operations.get, key))

    def entry(self, key: Key) -> Entry | None:
        """The value of `key` with its version and expiry, or None where there is none.

        `if_version` of `set` and `delete` takes the version: then the write fails when another came in between.
        """
        return self._run(self._calls.on_key(operations.entry, key))

    def set(
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
        """Store `value` under `key`, in the place of what was there; True, or False where a condition did not hold.

        Args:
            ttl: seconds, or a timedelta, until it expires; to the millisecond.
            expire_at: when it expires: seconds since 1970, or a datetime with a time zone.
            keep_ttl: it expires when the value that it replaces would have. Without one of these it never does.
            if_absent, if_present: store it only where the key is absent, or is there.
            if_version: store it only where the key still has this version.
        """
        options = SetOptions(ttl, expire_at, keep_ttl, if_absent, if_present, if_version)
        return self._run(self._calls.on_key(operations.set, key, value, options))

    def set_with_version(
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
        return self._run(self._calls.on_key(operations.set_with_version, key, value, options))

    def get_and_set(
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
        return self._run(self._calls.on_key(operations.get_and_set, key, value, options))

    def delete(self, key: Key, *, if_version: Version | None = None) -> bool:
        """Remove `key`; whether it was there, and had the version `if_version` where one is given.

        After a lost reply the retry may say False for what this call removed.
        """
        return self._run(self._calls.on_key(operations.delete, key, if_version))

    def get_and_delete(self, key: Key) -> Any:
        """Remove `key`; the value that was there, or None where there was none."""
        return self._run(self._calls.on_key(operations.get_and_delete, key))

    def exists(self, key: Key) -> bool:
        """Whether `key` is there."""
        return self._run(self._calls.on_key(operations.exists, key))

    def incr(self, key: Key, by: int = 1) -> int:
        """Add `by`, which may be negative, to the value of `key`; the sum. An absent key counts as 0.

        The value is the decimal text of the number, as `set(key, b"42")` stores it; its expiry stays.

        Raises:
            NotAnInteger: when the value is something else.
            NumberOverflow: when the sum does not fit into 64 bits.
        """
        return self._run(self._calls.on_key(operations.incr, key, by))

    def append(self, key: Key, value: Value) -> int:
        """Put `value` behind what stands under `key`; the length of the whole. An absent key counts as empty."""
        return self._run(self._calls.on_key(operations.append, key, value))

    def touch(self, key: Key, ttl: Seconds | None = None, *, expire_at: Moment | None = None) -> bool:
        """Give `key` an expiry, as `set` takes it, and leave the value; whether it is there. A past time removes it."""
        return self._run(self._calls.on_key(operations.touch, key, ttl, expire_at))

    def persist(self, key: Key) -> bool:
        """Take the expiry of `key` away; whether it had one. After a lost reply the retry may say False."""
        return self._run(self._calls.on_key(operations.persist, key))

    def ttl(self, key: Key) -> float | None:
        """The seconds until `key` expires; infinity where it never does, None where it is absent."""
        return self._run(self._calls.on_key(operations.ttl, key))

    def get_many(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values of those of `keys` that are there, in the order of `keys` and under the keys as given.

        Raises:
            PartialFailure: when some keys could not be read; `errors` tells which and why, `result` has the others.

        Cost: one round trip for up to 8,192 keys; several such frames are under way at once.
        """
        return self._run(self._calls.get_many(keys))

    def set_many(
        self,
        pairs: Mapping[K, Any] | Iterable[tuple[K, Any]],
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
    ) -> int:
        """Store all `pairs`, a mapping or (key, value) pairs; their number. The last of two equal keys wins.

        The pairs are not one transaction: each is stored or not by itself. An iterator is read to its end first. `ttl`
        and `expire_at` are those of `set`, for all of them.

        Raises:
            PartialFailure: when some pairs could not be stored; `errors` tells which and why, `result` is the number
                of the others.

        Cost: one round trip for up to 8,192 pairs or 4 MiB; several such frames are under way at once.
        """
        return self._run(self._calls.set_many(pairs, SetOptions(ttl, expire_at)))

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove `keys`; how many were there. Errors as in `set_many`."""
        return self._run(self._calls.delete_many(keys))

    def exists_many(self, keys: Iterable[K]) -> dict[K, bool]:
        """Each of `keys`, and whether it is there. Errors as in `get_many`."""
        return self._run(self._calls.exists_many(keys))

    def count(self) -> int:
        """The number of keys in this keyspace."""
        return self._run(self._calls.count())

    def clear(self) -> int:
        """Remove all keys of this keyspace; how many there were."""
        return self._run(self._calls.clear())

    @overload
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: Literal[True] = True, limit: int = PAGE_KEYS
    ) -> Iterator[tuple[bytes, Any]]: ...
    @overload
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: Literal[False], limit: int = PAGE_KEYS
    ) -> Iterator[bytes]: ...
    def scan(
        self, prefix: Key = b"", *, match: Key | None = None, values: bool = True, limit: int = PAGE_KEYS
    ) -> Iterator[Any]:
        """Iterate over the (key, value) pairs, or with `values=False` over the keys, that begin with `prefix`.

        In no order. A key that is there from beginning to end comes exactly once; one that comes or goes meanwhile may
        or may not come. `match` is a pattern over whole keys, in the grammar of kio.glob: the daemon is asked for its
        plain beginning only, and the rest is picked here. `limit` is the number of keys asked for at once, 1 to 65,536;
        each page has its own timeout.
        """
        return self._pages(calls.scan(prefix, match, limit, wire.SCAN_ITEMS if values else wire.SCAN_KEYS))

    def records(self, prefix: Key = b"", *, match: Key | None = None, limit: int = PAGE_KEYS) -> Iterator[Record]:
        """Iterate over the records, key, value and expiry, whose key begins with `prefix`; see `scan`."""
        return self._pages(calls.scan(prefix, match, limit, wire.SCAN_RECORDS))

    def keys(self, prefix: Key = b"", *, match: Key | None = None) -> Iterator[bytes]:
        """Iterate over the keys that begin with `prefix`; see `scan`."""
        return self.scan(prefix, match=match, values=False)

    def values(self, prefix: Key = b"", *, match: Key | None = None) -> Iterator[Any]:
        """Iterate over the values of the keys that begin with `prefix`; see `scan`."""
        return (value for _, value in self.scan(prefix, match=match))

    def items(self, prefix: Key = b"", *, match: Key | None = None) -> Iterator[tuple[bytes, Any]]:
        """Iterate over the (key, value) pairs whose key begins with `prefix`; see `scan`."""
        return self.scan(prefix, match=match)

    def stats(self) -> dict[str, Any]:
        """What the daemon tells of itself: the fields of `kio status --json`."""
        return self._run(self._calls.stats())

    def compact(self) -> int:
        """Have the daemon give back what overwritten and deleted records take; how many bytes that is.

        It answers at once; `stats` tells how it goes on. Without it kio compacts when too much is dead.
        """
        return self._run(self._calls.compact())

    def ping(self) -> float:
        """The seconds of one round trip to the daemon."""
        started_s = time.perf_counter()
        self._run(self._calls.ping())
        return time.perf_counter() - started_s

    def seal(self) -> list[dict[str, Any]]:
        """For a backup: which files hold the state of each shard at one moment, as `kio backup` reads it."""
        return self._run(self._calls.seal())

    def pipeline(self, *, raise_on_error: bool = True) -> Pipeline:
        """Queue operations and send them at once, in order:

            with db.pipeline() as p:
                p.set("a", b"1")
                p.get("a")
            p.results                           # [True, b"1"]

        With `raise_on_error` the first error is raised; without, errors stand in their places among the results.
        """

        def send(requests: list[Request], keys: list[Key]) -> list[Any]:
            return self._run(self._calls.pipeline(requests, keys))

        return Pipeline(send, self._options.space, raise_on_error)

    def batch(self) -> Pipeline:
        """Queue operations and apply them all or nothing when the `with` block ends, or at `execute`.

            with db.batch() as batch:
                batch.set("{user:42}name", b"Ada", if_absent=True)
                batch.incr("{user:42}edits")
            batch.results                       # [True, 1]

        All keys must be of one shard: keys that hold the same `{tag}` are. At most 1,024 operations and 8 MiB.

        Raises, at the end of the block:
            Aborted: when a condition did not hold; the message names the operation. Nothing was applied.
            KioError: the error of an operation that failed, named in the message; nothing was applied either.
            NotDecodable: when the batch was applied, and the codec makes nothing of a value that it read; `results`
                has the error in its place.
        """

        def send(requests: list[Request], keys: list[Key]) -> list[Any]:
            return self._run(self._calls.atomic(requests))

        return Pipeline(send, self._options.space, True)

    def lock(self, name: Key, ttl: Seconds, *, timeout: float | None = None) -> Lock:
        """A lock named `name` among all programs of this keyspace, to be held by a `with` block or by `acquire`.

            with db.lock("report", ttl=30, timeout=10) as lock:
                lock.token                      # (epoch, lsn), greater than that of every holder before
                lock.extend()                   # 30 more seconds from now

        It expires after `ttl` seconds, so that a holder that died gives it up. A holder that was only slow may find
        that it is another's by then: read in kio.client.locks what the token is for. `name` is a key as any other.

        Args:
            timeout: seconds to wait while somebody else holds it; 0 tries once, None waits for ever.

        Raises, beside what every call may:
            LockTimeout: in `acquire`, or at the beginning of the block.
            LockLost: in `extend`, in `release`, or at the end of the block: it expired, or was removed.
        """
        return Lock(self._run, self._raw_calls(), name, ttl, timeout)

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
    ) -> Callable[[Callable[P, R]], Cached[P, R, bool]]:
        """A decorator that keeps what a function returns, for all programs that call it:

            @db.cached(ttl=60, stale=30, single_flight=True)
            def page(number: int) -> str: ...

            page(7)                             # computed, or from the store
            page.invalidate(7)                  # forgotten

        The key is made of the function's module and name and of its arguments; where they are no plain values, say it
        with `key`. What comes from the store is what `codec` makes of the result: lists for tuples, say.

        Args:
            ttl: seconds for which a result is fresh.
            stale: seconds for which an expired result is still returned, while one caller computes it anew.
            single_flight: of all callers in all processes only one computes; the others wait for it, or get what is
                stale. Where it fails, the next computes.
            flight: seconds that a computation may take, at most: then another caller begins, and no one waits longer.
                With a lock, a result that took longer is not kept.
            key: from the same arguments to the whole key, instead of the one that is made.
            codec: of the results; the client's own unless given, and msgpack where it has none.
            fail_open: compute, and log it once, when the store does not answer; each call then takes as long as the
                client's `timeout` and `retries` allow, so give it short ones. Without it the error is raised, as
                `invalidate` always does.

        Without `single_flight` a result that is being computed while `invalidate` runs may be kept nevertheless.
        """
        settings = caching.Settings(ttl, stale, single_flight, flight, key, fail_open)
        if isinstance(codec, Unset):
            codec = self._options.codec or "msgpack"
        space = options.changed(self._options, codec=codec).space

        def decorate(function: Callable[P, R]) -> Cached[P, R, bool]:
            return caching.cached(self._run, self._raw_calls(), space, function, settings)

        return decorate

    def mapping(self, prefix: Key = b"") -> MappingView:
        """The keys that begin with `prefix` as a MutableMapping; its keys are what follows the prefix, as bytes."""
        raw = Client(self._options.raw, self._pool)
        return MappingView(raw, arguments.key_bytes(arguments.prefix(prefix)), self._options.space)

    def _pages(self, scan: Scan | None) -> Iterator[Any]:
        cursor = b""
        while scan is not None:
            cursor, page = self._run(self._calls.page(cursor, scan))
            yield from page
            if not cursor:
                return

    def _raw_calls(self) -> Calls:
        return Calls(self._options.raw, lambda: self._pool.limits)

    def _run(self, plan: Plan[R]) -> R:
        try:
            step = next(plan)
            while True:
                if step.pause_s:
                    time.sleep(step.pause_s)
                step = plan.send(self._exchange(step))
        except StopIteration as done:
            result: R = done.value
            return result

    def _exchange(self, step: Round) -> list[Reply]:
        if not step.requests:
            return []
        try:
            channel = self._pool.take(step.deadline)
        except KioError as error:
            return [Reply(error=error)] * len(step.requests)
        try:
            return channel.exchange(step.requests, step.deadline)
        finally:
            self._pool.put(channel)
