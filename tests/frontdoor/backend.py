"""Shards in a dict, by the reference functions of kio.opbatch: what stands behind a front door in these tests."""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from kio import opbatch, wire
from kio.opbatch import ABSENT, DONE, NUMBER, VALUE, Operation, Reply


class Shards:
    """Every shard's keys, and what the daemon's kernel would answer."""

    def __init__(self, shards: int) -> None:
        self.keys: list[dict[tuple[int, bytes], bytes]] = [{} for _ in range(shards)]
        self.operations: list[Operation] = []

    def replies(self, batch: bytes) -> list[Reply]:
        """The replies to one batch message, in the order of its operations."""
        shard, _, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
        operations = opbatch.decode_batch(batch)
        self.operations += operations
        return [Reply(index, *self._execute(shard, operation)) for index, operation in enumerate(operations)]

    def execute(self, batch: bytes) -> bytes:
        """One replies message to one batch message."""
        return encode(batch, self.replies(batch))

    def _execute(self, shard: int, o: Operation) -> tuple[int, bytes]:
        keys = self.keys[shard]
        at = (o.keyspace, o.key)
        if o.op == wire.OP_GET:
            return (VALUE, keys[at]) if at in keys else (ABSENT, b"")
        if o.op == wire.OP_SET:
            keys[at] = o.value
            return DONE, b""
        if o.op == wire.OP_DELETE:
            return (ABSENT, b"") if keys.pop(at, None) is None else (DONE, b"")
        if o.op == wire.OP_EXISTS:
            return (DONE if at in keys else ABSENT), b""
        mine = sorted(key for keyspace, key in keys if keyspace == o.keyspace)
        if o.op == wire.OP_COUNT:
            return NUMBER, struct.pack("<q", len(mine))
        if o.op == wire.OP_CLEAR:
            for key in mine:
                del keys[o.keyspace, key]
            return NUMBER, struct.pack("<q", len(mine))
        if o.op == wire.OP_SCAN:
            return VALUE, self._scan(shard, o, mine)
        return VALUE, msgpack.packb({"state": "serving", "keys": len(keys), "live_bytes": 0})

    def _scan(self, shard: int, o: Operation, mine: list[bytes]) -> bytes:
        cursor, limit, what = opbatch.SCAN_ARGUMENTS.unpack_from(o.value)
        prefix = o.value[opbatch.SCAN_ARGUMENTS.size :]
        found = [key for key in mine if key.startswith(prefix)]
        page = found[cursor : cursor + limit]
        more = cursor + limit if cursor + limit < len(found) else 0
        items: list[Any] = page
        if what == wire.SCAN_ITEMS:
            items = [part for key in page for part in (key, self.keys[shard][o.keyspace, key])]
        packed: bytes = msgpack.packb(items)
        return struct.pack("<Q", more) + packed


def encode(batch: bytes, replies: list[Reply]) -> bytes:
    """`replies` as a message that answers `batch`."""
    shard, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    return opbatch.encode_replies(shard, batch_id, replies)
