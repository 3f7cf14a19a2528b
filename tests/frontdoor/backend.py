"""Shards in a dict, by the reference functions of kio.opbatch: what stands behind a front door in these tests."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

import msgpack

from kio import opbatch, wire
from kio.errors import Aborted, NotAnInteger, NumberOverflow
from kio.opbatch import ABSENT, DONE, NUMBER, UNMET, VALUE, VERSIONED, Operation, Reply

Answer = tuple[int, bytes]
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class Version(NamedTuple):
    """What a shard keeps beside a value."""

    lsn: int
    expire_at: int


class Shards:
    """Every shard's keys, and what the daemon's kernel would answer.

    Attributes:
        now_ms: the shards' clock, in ms since 1970.
    """

    def __init__(self, shards: int) -> None:
        self.keys: list[dict[tuple[int, bytes], bytes]] = [{} for _ in range(shards)]
        self.versions: list[dict[tuple[int, bytes], Version]] = [{} for _ in range(shards)]
        self.operations: list[Operation] = []
        self.now_ms = 1_000_000
        self._lsns = [0] * shards

    def replies(self, batch: bytes) -> list[Reply]:
        """The replies to one batch message, in the order of its operations."""
        shard, _, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
        operations = opbatch.decode_batch(batch)
        self.operations += operations
        return [Reply(index, *self._execute(shard, operation)) for index, operation in enumerate(operations)]

    def execute(self, batch: bytes) -> bytes:
        """One replies message to one batch message."""
        return encode(batch, self.replies(batch))

    def _execute(self, shard: int, o: Operation) -> Answer:
        if o.op <= wire.OP_TTL:
            return self._execute_on_key(shard, o)
        if o.op == wire.OP_ATOMIC:
            return VALUE, self._atomic(shard, o.value)
        keys = self.keys[shard]
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

    def _execute_on_key(self, shard: int, o: Operation) -> Answer:
        keys, versions, at = self.keys[shard], self.versions[shard], (o.keyspace, o.key)
        if at in keys and 0 < versions.setdefault(at, Version(0, 0)).expire_at <= self.now_ms:
            del keys[at]
        arguments, value = split(o)
        old = keys.get(at)
        there = versions[at] if old is not None else None
        shown = opbatch.VERSION.pack(1, *there) if there else b""
        met = {
            opbatch.IF_ABSENT: old is None,
            opbatch.IF_PRESENT: old is not None,
            opbatch.IF_VERSION: there is not None and arguments.get(opbatch.IF_VERSION) == (1, there.lsn),
        }
        if any(o.flags & flag and not holds for flag, holds in met.items()):
            return UNMET, shown
        if o.op == wire.OP_GET:
            if old is None:
                return ABSENT, b""
            return (VERSIONED, shown + old) if o.flags & opbatch.WITH_VERSION else (VALUE, old)
        if o.op == wire.OP_TTL:
            if there is None:
                return ABSENT, b""
            return NUMBER, struct.pack("<q", there.expire_at - self.now_ms if there.expire_at else -1)
        if o.op == wire.OP_EXISTS:
            return (ABSENT if old is None else DONE), b""
        answer = self._write(shard, o, value, old, there)
        expire_at = there.expire_at if there and answer[0] != UNMET else 0
        if opbatch.TTL in arguments:
            expire_at = self.now_ms + arguments[opbatch.TTL][0]
        elif opbatch.EXPIRE_AT in arguments:
            expire_at = arguments[opbatch.EXPIRE_AT][0]
        elif (o.op == wire.OP_SET and not o.flags & opbatch.KEEP_TTL) or (o.op == wire.OP_PERSIST):
            expire_at = 0
        if answer[0] in (DONE, NUMBER):
            self._lsns[shard] += 1
            versions[at] = Version(self._lsns[shard], expire_at)
        if answer[0] != DONE or not o.flags & (opbatch.WITH_OLD | opbatch.WITH_VERSION):
            return answer
        if o.flags & opbatch.WITH_OLD:
            return (ABSENT, b"") if old is None else (VALUE, old)
        return VERSIONED, opbatch.VERSION.pack(1, *versions[at])

    def _write(self, shard: int, o: Operation, value: bytes, old: bytes | None, there: Version | None) -> Answer:
        """Change the value, not its version: the plain answer to a write."""
        keys, at = self.keys[shard], (o.keyspace, o.key)
        if o.op == wire.OP_INCR:
            before = b"0" if old is None else old
            if not _INTEGER.fullmatch(before) or not -(2**63) <= int(before) < 2**63:
                return NotAnInteger.code, b""
            total = int(before) + struct.unpack("<q", value)[0]
            if not -(2**63) <= total < 2**63:
                return NumberOverflow.code, b""
            keys[at] = b"%d" % total
            return NUMBER, struct.pack("<q", total)
        if o.op == wire.OP_APPEND:
            keys[at] = (old or b"") + value
            return NUMBER, struct.pack("<q", len(keys[at]))
        if o.op == wire.OP_SET:
            keys[at] = value
            return DONE, b""
        if there is None:
            return ABSENT, b""
        if o.op == wire.OP_DELETE:
            del keys[at]
        elif o.op == wire.OP_PERSIST and not there.expire_at:
            return UNMET, opbatch.VERSION.pack(1, *there)
        return DONE, b""

    def _atomic(self, shard: int, batch: bytes) -> bytes:
        before = dict(self.keys[shard]), dict(self.versions[shard])
        replies = self.replies(batch)
        faults = [reply for reply in replies if reply.status >= opbatch.ERROR or reply.status == UNMET]
        if faults:
            self.keys[shard], self.versions[shard] = before
            replies = [
                reply if reply is faults[0] else Reply(reply.index, Aborted.code, b"") for reply in reversed(replies)
            ]
        return encode(batch, replies)

    def _scan(self, shard: int, o: Operation, mine: list[bytes]) -> bytes:
        cursor, limit, what = opbatch.SCAN_ARGUMENTS.unpack_from(o.value)
        prefix = o.value[opbatch.SCAN_ARGUMENTS.size :]
        found = [key for key in mine if key.startswith(prefix)]
        page = found[cursor : cursor + limit]
        more = cursor + limit if cursor + limit < len(found) else 0
        items: list[Any] = []
        for key in page:
            at = (o.keyspace, key)
            record = (key, self.keys[shard][at], self.versions[shard].get(at, Version(0, 0)).expire_at)
            items += record[: what + 1]
        packed: bytes = msgpack.packb(items)
        return struct.pack("<Q", more) + packed


def split(o: Operation) -> tuple[dict[int, tuple[int, ...]], bytes]:
    """The arguments of an operation's flags, and its value."""
    arguments = {}
    at = 0
    for flag, form in opbatch.ARGUMENTS.items():
        if o.flags & flag:
            arguments[flag] = form.unpack_from(o.value, at)
            at += form.size
    return arguments, o.value[at:]


def encode(batch: bytes, replies: list[Reply]) -> bytes:
    """`replies` as a message that answers `batch`."""
    shard, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    return opbatch.encode_replies(shard, batch_id, replies)
