"""A real shard in place of the dict: the kernel executes what it knows, functions run over what it holds."""

from __future__ import annotations

from pathlib import Path

import msgpack

from kio import opbatch, wire
from kio.commands import ops
from kio.commands.functions import REGISTER
from kio.commands.ops import Entry, get_entry, result_of
from kio.commands.ops import Operation as Asked
from kio.commands.state import Removed, State
from kio.errors import KeyEmpty
from kio.limits import MIB
from kio.segments.options import StoreOptions
from tests.commands.shard_model import ShardModel
from tests.segments.operations_model import Answer
from tests.segments.support import Timed, operation


class StoredShard(ShardModel):
    """One shard, in a directory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.shards = 1
        self._driven = Timed(path, StoreOptions(segment_bytes=MIB)).at(self.now_ms)

    def close(self) -> None:
        self._driven.kill()

    def state(self, key: bytes) -> State | None:
        entry = self._entry(key, self.keyspace)
        return State(entry.value, entry.expire_at_ms) if entry else None

    def _entry(self, key: bytes, keyspace: int) -> Entry | None:
        asked = get_entry(key)
        found: Entry | None = result_of(asked, *self._one(asked, keyspace))
        return found

    def _apply(self, asked: Asked, keyspace: int) -> Answer:
        if asked.op == wire.OP_APPLY:
            return self._apply_function(asked.key, keyspace, asked.value)
        if asked.shard < 0 and not asked.key and asked.op < wire.OP_COUNT:
            raise KeyEmpty
        return self._one(asked, keyspace)

    def _one(self, asked: Asked, keyspace: int) -> Answer:
        reply = self._driven.one(operation(asked.op, asked.key, asked.value, keyspace)._replace(flags=asked.flags))
        return reply.status, reply.payload

    def _apply_function(self, key: bytes, keyspace: int, value: bytes) -> Answer:
        if not key:
            raise KeyEmpty
        name, *arguments = msgpack.unpackb(value)
        entry = self._entry(key, keyspace)
        state = State(entry.value, entry.expire_at_ms) if entry else None
        outcome = REGISTER.call(name, state, self.now_ms, arguments)
        if isinstance(outcome.change, Removed):
            self._driven.delete(key, keyspace)
        elif outcome.change is not None:
            new, expire_at_ms = outcome.change
            self._one(ops.set(key, new, expire_at_ms=expire_at_ms), keyspace)
        return opbatch.VALUE, msgpack.packb(outcome.reply)
