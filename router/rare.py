"""The operations that cross shards: count, clear, scan, stats, seal, compact.

Owns: for each such request what is to be done with the shards' replies. Sans-I/O: it speaks to Dispatch alone.
Invariants: a request is answered, failed or dropped, and its step is forgotten with it.
A count, clear, seal or compact fails when any shard does. A stats never does: a shard that is away or does not answer
within STATS_LIMIT_MS is told as the supervisor last knew it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from kio import errors, limits, opbatch
from kio.errors import BadRequest, InternalError, KioError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Dropped, Gathered
from kio.router import cursor
from kio.wire import (
    OP_CLEAR,
    OP_COMPACT,
    OP_COUNT,
    OP_SCAN,
    OP_SEAL,
    OP_STATS,
    SCAN_ITEMS,
    SCAN_KEYS,
    SCAN_RECORDS,
)

STATS_LIMIT_MS: Final = 800
SCAN_LIMIT_MAX: Final = 65_536

_NUMBER: Final = struct.Struct("<q")
_SHARD_CURSOR: Final = struct.Struct("<Q")
_PAIR: Final = b"\x92"

Replies = list[tuple[int, bytes]]


class RareOperations:
    """Answers them (the `RareOperations` of kio.frontdoor.door).

    Args:
        dispatch: the door's.
        shards: how many there are.
        router_stats: what the router tells of itself in `stats`.
    """

    def __init__(self, dispatch: Dispatch, shards: int, router_stats: Callable[[], Mapping[str, Any]]) -> None:
        self._dispatch = dispatch
        self._shards = shards
        self._router_stats = router_stats
        self._steps: dict[int, Callable[[Replies], None]] = {}
        #: Calls back when no keyspaces are being swapped, now or later.
        self.when_still: Callable[[Callable[[], None]], None] = lambda then: then()
        #: What the supervisor last told of the daemon.
        self.topology: Mapping[str, Any] = {}

    def asked(self, event: Asked) -> None:
        """Begin to answer a request."""
        if event.op in (OP_COUNT, OP_CLEAR, OP_COMPACT):
            self._sum(event)
        elif event.op == OP_SCAN:
            self._scan(event)
        elif event.op == OP_STATS:
            self._ask_shards(event.handle, OP_STATS, 0, self._stats, limit_ms=STATS_LIMIT_MS)
        elif event.op == OP_SEAL:
            self._seal(event.handle)
        else:
            self._fail(event.handle, errors.UnknownOperation())

    def gathered(self, event: Gathered) -> None:
        """Go on with a request whose shards have answered."""
        self._steps.pop(event.handle)(event.replies)

    def dropped(self, event: Dropped) -> None:
        """Forget a request."""
        self._steps.pop(event.handle, None)

    def _ask_shards(
        self, handle: int, op: int, keyspace: int, step: Callable[[int, Replies], None], limit_ms: int = 0
    ) -> None:
        self._steps[handle] = lambda replies: step(handle, replies)
        self._dispatch.fan_out(handle, op, list(range(self._shards)), b"", keyspace, limit_ms)

    def _fail(self, handle: int, error: KioError) -> None:
        self._dispatch.fail(handle, error.code, str(error), error.maybe_applied)

    # --- count, clear, compact

    def _sum(self, event: Asked) -> None:
        keyspace = event.arguments[0] if event.arguments else 0
        is_write = event.op == OP_CLEAR
        self._ask_shards(
            event.handle, event.op, keyspace, lambda handle, replies: self._answer_sum(handle, replies, is_write)
        )

    def _answer_sum(self, handle: int, replies: Replies, is_write: bool) -> None:
        total = 0
        failures: list[KioError] = []
        for shard, (status, payload) in enumerate(replies):
            if status == opbatch.NUMBER and len(payload) == _NUMBER.size:
                total += _NUMBER.unpack(payload)[0]
            else:
                failures.append(_error(shard, status, payload))
        if failures:
            first = failures[0]
            # Where one shard was cleared and another was not, the whole was applied in part.
            partly = is_write and len(failures) < len(replies)
            first.maybe_applied = partly or any(failure.maybe_applied for failure in failures)
            self._fail(handle, first)
        else:
            self._dispatch.answer(handle, msgpack.packb(total))

    # --- scan

    def _scan(self, event: Asked) -> None:
        keyspace, after, prefix, limit, what = event.arguments
        try:
            if not 1 <= limit <= SCAN_LIMIT_MAX:
                raise BadRequest(f"the limit of a scan is 1 to {SCAN_LIMIT_MAX}, not {limit}")
            if what not in (SCAN_KEYS, SCAN_ITEMS, SCAN_RECORDS):
                kinds = f"keys ({SCAN_KEYS}), items ({SCAN_ITEMS}) or items with their expiry ({SCAN_RECORDS})"
                raise BadRequest(f"a scan gives {kinds}, not {what}")
            if len(prefix) > limits.KEY_BYTES_MAX:
                raise BadRequest(f"a prefix has at most {limits.KEY_BYTES_MAX} bytes, this one {len(prefix)}")
            shard, within = cursor.decode(after, self._shards)
        except BadRequest as error:
            self._fail(event.handle, error)
            return
        self._scan_shard(event.handle, keyspace, shard, within, prefix, limit, what)

    def _scan_shard(
        self, handle: int, keyspace: int, shard: int, within: int, prefix: bytes, limit: int, what: int
    ) -> None:
        def step(replies: Replies) -> None:
            ((status, payload),) = replies
            if status != opbatch.VALUE or len(payload) <= _SHARD_CURSOR.size:
                self._fail(handle, _error(shard, status, payload))
                return
            (next_within,) = _SHARD_CURSOR.unpack_from(payload)
            page = payload[_SHARD_CURSOR.size :]
            if next_within:
                after = cursor.encode(shard, next_within)
            elif shard + 1 == self._shards:
                after = b""
            elif page == b"\x90":
                self._scan_shard(handle, keyspace, shard + 1, 0, prefix, limit, what)
                return
            else:
                after = cursor.encode(shard + 1, 0)
            self._dispatch.answer(handle, _PAIR + msgpack.packb(after) + page)

        self._steps[handle] = step
        value = opbatch.SCAN_ARGUMENTS.pack(within, limit, what) + prefix
        self._dispatch.fan_out(handle, OP_SCAN, [shard], value, keyspace)

    # --- seal

    def _seal(self, handle: int) -> None:
        # Points are of the map of keyspaces that is on disk, so they wait until that one holds here, too.
        self._steps[handle] = lambda _: None

        def begin() -> None:
            if handle in self._steps:
                self._ask_shards(handle, OP_SEAL, 0, self._answer_points)

        self.when_still(begin)

    def _answer_points(self, handle: int, replies: Replies) -> None:
        for shard, (status, payload) in enumerate(replies):
            if status != opbatch.VALUE:
                self._fail(handle, _error(shard, status, payload))
                return
        points = [payload for _, payload in replies]
        self._dispatch.answer(handle, msgpack.Packer().pack_array_header(len(points)) + b"".join(points))

    # --- stats

    def _stats(self, handle: int, replies: Replies) -> None:
        known = self.topology.get("shards", {})
        shards: list[dict[str, Any]] = []
        for shard, (status, payload) in enumerate(replies):
            figures = {"shard": shard, "worker": None, "state": "recovering", "reason": ""} | dict(known.get(shard, {}))
            if status == opbatch.VALUE:
                figures |= msgpack.unpackb(payload, strict_map_key=False)
            elif figures["state"] == "serving":
                figures |= {"state": "down", "reason": str(_error(shard, status, payload))}
            figures["in_flight"], _ = self._dispatch.shard_in_flight(shard)
            shards.append(figures)
        told = dict(self.topology)
        told["router"] = dict(told.get("router", {})) | dict(self._router_stats())
        told["shards"] = shards
        self._dispatch.answer(handle, msgpack.packb(told))


def _error(shard: int, status: int, payload: bytes) -> KioError:
    error = opbatch.Reply(0, status, payload).error()
    if error is None:
        return InternalError(f"shard {shard} gave an answer of the wrong kind")
    return errors.from_wire(error.code, f"shard {shard}: {error}", error.maybe_applied)
