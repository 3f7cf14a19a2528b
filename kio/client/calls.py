"""What each method of a client asks the daemon, and what it makes of the answer.

Every function here returns a plan (plans.py), so that the blocking client and the asyncio client differ only in how
they drive one. Arguments are checked when the plan is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import compress
from typing import Any, NamedTuple, TypeVar

from kio import wire
from kio.client import arguments, operations, plans, records
from kio.client.arguments import K, Key
from kio.client.operations import SetOptions
from kio.client.options import Options
from kio.client.plans import Batch, Plan
from kio.client.protocol import Limits, Request
from kio.client.records import Record
from kio.client.retry import Retry
from kio.errors import NotDecodable
from kio.glob import Glob

#: What an operation results in; its caller says it.
R = TypeVar("R")


class Scan(NamedTuple):
    """What a scan asks for with each page, and what it picks from one."""

    prefix: Key
    limit: int
    #: What of each record: wire.SCAN_*.
    what: int
    pattern: Glob | None = None


def scan(prefix: Key, match: Key | None, limit: int, what: int) -> Scan | None:
    """The scan for keys that begin with `prefix` and match `match`; None where that is no key at all."""
    sought, keys = arguments.sought(prefix, match), arguments.scan_limit(limit)
    return sought and Scan(sought[0], keys, what, sought[1])


class Calls:
    """The calls of one client: its options, and the limits its daemon told last."""

    def __init__(self, options: Options, limits: Callable[[], Limits]) -> None:
        self._options = options
        self._limits = limits
        self._space = options.space

    def _retry(self) -> Retry:
        return Retry(self._options.timeout, self._options.retries)

    def _single(self, op: int, *rest: Any) -> Plan[Any]:
        return self._one(Request(op, rest))

    def _one(self, request: Request) -> Plan[Any]:
        return plans.single(request, self._limits(), self._retry())

    def _batch(self, op: int, items: list[Any], options: tuple[int, ...] = ()) -> Batch:
        return Batch(op, self._options.keyspace, items, self._limits(), self._retry(), options)

    def on_key(self, operation: Callable[..., Request], *rest: Any) -> Plan[R]:
        """The result of an operation of operations.py, whose arguments behind the space are `rest`."""
        answer: R = yield from self._one(operation(self._space, *rest))
        return answer

    def atomic(self, requests: list[Request]) -> Plan[list[Any]]:
        """The results of `requests`, applied all or nothing."""
        answers: list[Any] = []
        if requests:
            answers = yield from self._one(operations.atomic(self._options.keyspace, requests))
        return answers

    def get_many(self, keys: Iterable[K]) -> Plan[dict[K, Any]]:
        """The values of those of `keys` that are there."""
        asked = arguments.keys(keys, "get_many")
        batch = self._batch(wire.OP_GET_MANY, asked)
        yield from batch.run()
        if self._space.codec is None:
            found = {key: value for key, value in zip(asked, batch.results, strict=True) if value is not None}
        else:
            found = self._decoded(batch)
        batch.raise_errors(found)
        return found

    def _decoded(self, batch: Batch) -> dict[Any, Any]:
        """The values that were there, decoded; what cannot be is an error of its key."""
        found = {}
        for place, (key, data) in enumerate(zip(batch.keys, batch.results, strict=True)):
            if data is not None:
                try:
                    found[key] = self._space.decoded(key, data)
                except NotDecodable as error:
                    batch.errors[place] = error
        return found

    def set_many(self, pairs: Mapping[K, Any] | Iterable[tuple[K, Any]], options: SetOptions) -> Plan[int]:
        """Store all `pairs`; their number."""
        encode = None if self._space.codec is None else self._space.encoded
        batch = self._batch(wire.OP_SET_MANY, arguments.pairs(pairs, encode), options.encoded())
        yield from batch.run()
        return self._total(batch)

    def delete_many(self, keys: Iterable[Key]) -> Plan[int]:
        """Remove `keys`; how many were there."""
        batch = self._batch(wire.OP_DELETE_MANY, arguments.keys(keys, "delete_many"))
        yield from batch.run()
        return self._total(batch)

    def exists_many(self, keys: Iterable[K]) -> Plan[dict[K, bool]]:
        """Each of `keys`, and whether it is there."""
        asked = arguments.keys(keys, "exists_many")
        batch = self._batch(wire.OP_EXISTS_MANY, asked)
        yield from batch.run()
        known = {key: there for key, there in zip(asked, batch.results, strict=True) if there is not None}
        batch.raise_errors(known)
        return known

    @staticmethod
    def _total(batch: Batch) -> int:
        total = batch.results.count(True)
        batch.raise_errors(total)
        return total

    def count(self) -> Plan[int]:
        """The number of keys."""
        answer: int = yield from self._single(wire.OP_COUNT, self._options.keyspace)
        return answer

    def clear(self) -> Plan[int]:
        """Remove all keys; how many there were."""
        answer: int = yield from self._single(wire.OP_CLEAR, self._options.keyspace)
        return answer

    def page(self, cursor: bytes, scan: Scan) -> Plan[tuple[bytes, list[Any]]]:
        """One page of a scan: the next cursor, and what was asked for of each record."""
        prefix, limit, what, pattern = scan
        cursor, found = yield from self._single(wire.OP_SCAN, self._options.keyspace, cursor, prefix, limit, what)
        if pattern is not None:
            found = _matching(found, pattern, 1 + what)
        if what != wire.SCAN_KEYS and self._space.codec is not None:
            found[1 :: 1 + what] = map(self._space.decoded, found[0 :: 1 + what], found[1 :: 1 + what])
        if what == wire.SCAN_ITEMS:
            return cursor, list(zip(found[0::2], found[1::2], strict=True))
        if what == wire.SCAN_RECORDS:
            expiries = map(records.expire_at_of, found[2::3])
            return cursor, list(map(Record, found[0::3], found[1::3], expiries))
        return cursor, found

    def stats(self) -> Plan[dict[str, Any]]:
        """What the daemon tells of itself."""
        answer: dict[str, Any] = yield from self._single(wire.OP_STATS)
        return answer

    def compact(self) -> Plan[int]:
        """Give dead bytes back from now on; how many there are."""
        answer: int = yield from self._single(wire.OP_COMPACT)
        return answer

    def ping(self) -> Plan[bytes]:
        """One round trip to the router and back."""
        answer: bytes = yield from self._single(wire.OP_PING, b"")
        return answer

    def seal(self) -> Plan[list[dict[str, Any]]]:
        """The point of a backup, for each shard."""
        answer: list[dict[str, Any]] = yield from self._single(wire.OP_SEAL)
        return answer

    def pipeline(self, requests: list[Request], keys: list[Key]) -> Plan[list[Any]]:
        """The results of queued operations, errors in their places."""
        return plans.pipeline(requests, keys, self._limits(), self._retry())


def _matching(found: list[Any], pattern: Glob, width: int) -> list[Any]:
    """The records of a page, `width` items each, whose key `pattern` matches."""
    is_wanted = list(map(pattern.matches, found[0::width]))
    picked: list[Any] = [None] * (sum(is_wanted) * width)
    for at in range(width):
        picked[at::width] = compress(found[at::width], is_wanted)
    return picked
