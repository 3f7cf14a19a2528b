"""What each method of a client asks the daemon, and what it makes of the answer.

Every function here returns a plan (plans.py), so that the blocking client and the asyncio client differ only in how
they drive one. Arguments are checked when the plan is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kio import wire
from kio.client import arguments, plans
from kio.client.arguments import K, Key, Value
from kio.client.options import Options
from kio.client.plans import Batch, Plan
from kio.client.protocol import Limits, Request
from kio.client.retry import Retry


class Calls:
    """The calls of one client: its options, and the limits its daemon told last."""

    def __init__(self, options: Options, limits: Callable[[], Limits]) -> None:
        self._options = options
        self._limits = limits

    def _retry(self) -> Retry:
        return Retry(self._options.timeout, self._options.retries)

    def _single(self, op: int, *rest: Any) -> Plan[Any]:
        return plans.single(Request(op, rest), self._limits(), self._retry())

    def _batch(self, op: int, items: list[Any]) -> Batch:
        return Batch(op, self._options.keyspace, items, self._limits(), self._retry())

    def get(self, key: Key) -> Plan[bytes | None]:
        """The value of `key`."""
        answer: bytes | None = yield from self._single(wire.OP_GET, self._options.keyspace, arguments.key(key))
        return answer

    def set(self, key: Key, value: Value) -> Plan[None]:
        """Store `value` under `key`."""
        key, value = arguments.key(key), arguments.value(value)
        yield from self._single(wire.OP_SET, self._options.keyspace, key, value)

    def delete(self, key: Key) -> Plan[bool]:
        """Remove `key`; whether it was there."""
        answer: bool = yield from self._single(wire.OP_DELETE, self._options.keyspace, arguments.key(key))
        return answer

    def exists(self, key: Key) -> Plan[bool]:
        """Whether `key` is there."""
        answer: bool = yield from self._single(wire.OP_EXISTS, self._options.keyspace, arguments.key(key))
        return answer

    def get_many(self, keys: Iterable[K]) -> Plan[dict[K, bytes]]:
        """The values of those of `keys` that are there."""
        asked = arguments.keys(keys, "get_many")
        batch = self._batch(wire.OP_GET_MANY, asked)
        yield from batch.run()
        found = {key: value for key, value in zip(asked, batch.results, strict=True) if value is not None}
        batch.raise_errors(found)
        return found

    def set_many(self, pairs: Mapping[K, Value] | Iterable[tuple[K, Value]]) -> Plan[int]:
        """Store all `pairs`; their number."""
        batch = self._batch(wire.OP_SET_MANY, arguments.pairs(pairs))
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

    def page(self, cursor: bytes, prefix: Key, limit: int, values: bool) -> Plan[tuple[bytes, list[Any]]]:
        """One page of a scan: the next cursor, and keys or (key, value) pairs."""
        what = wire.SCAN_ITEMS if values else wire.SCAN_KEYS
        cursor, found = yield from self._single(wire.OP_SCAN, self._options.keyspace, cursor, prefix, limit, what)
        return cursor, list(zip(found[0::2], found[1::2], strict=True)) if values else found

    def stats(self) -> Plan[dict[str, Any]]:
        """What the daemon tells of itself."""
        answer: dict[str, Any] = yield from self._single(wire.OP_STATS)
        return answer

    def ping(self) -> Plan[bytes]:
        """One round trip to the router and back."""
        answer: bytes = yield from self._single(wire.OP_PING, b"")
        return answer

    def pipeline(self, requests: list[Request], keys: list[Key]) -> Plan[list[Any]]:
        """The results of queued operations, errors in their places."""
        return plans.pipeline(requests, keys, self._limits(), self._retry())
