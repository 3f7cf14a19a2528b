"""Op batches and their replies: what crosses the pipe between a front door and a shard.

One message carries all operations that one loop turn of a front door gathered for one shard; one or more messages carry
the replies back. Both are built and read in C (_opbatch.pxd, segments/_kernel.pyx, frontdoor/_dispatch.pyx); the
functions here are the reference, for rare operations and for tests. Integers are little-endian; nothing is padded.

Batch = header, `count` operations.
    offset width  header                      offset width  operation
      0     4     magic "KOB1"                  0     1     op
      4     4     shard                         1     1     keyspace
      8     8     batch id                      2     2     key length
     16     4     count                         4     4     value length
     20     4     reserved, 0                   8     8     routed hash (hashing.py)
                                               16     4     deadline: CLOCK_MONOTONIC in ms, modulo 2**32; 0 is none
                                               20     4     flags, 0
                                               24           key, then value

Replies = header, `count` entries. The entries of one batch may come in several messages: with sync = "always" what
reads no fresh write is answered at once, the rest after its fdatasync. Every operation is answered exactly once.
    offset width  header                      offset width  entry
      0     4     magic "KOR1"                  0     4     index of the operation in its batch
      4     4     shard                         4     1     status
      8     8     batch id                      5     3     0
     16     4     count                         8     4     payload length
     20     4     reserved, 0                  12           payload

    status   meaning                                            payload
      0      done                                               none
      1      a value                                            its bytes
      2      absent                                             none
      3      a number                                           i64
    16..     an error: its code in errors.py                    message in UTF-8, empty for the class's own text;
             bit 7 set: maybe_applied

Operations 1 to 4 (get, set, delete, exists) have the numbers of wire.py and are executed by the kernel: get answers 1
or 2, set 0, delete and exists 0 or 2. The rare ones go through Python, still in their order within the batch:
    32 count    -> 3
    33 clear    -> 3, the number of keys removed
    34 scan     value = u64 cursor, u32 limit, u8 what, prefix -> 1: u64 next cursor, then a msgpack array as in
                wire.py; cursor 0 begins, next cursor 0 ends
    35 stats    -> 1: a msgpack map
Batches and replies come from processes of the same version on the same machine, yet every length is bounded before use.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kio.errors import KioError, ProtocolError, from_wire

BATCH_MAGIC: Final = 0x31424F4B
REPLIES_MAGIC: Final = 0x31524F4B
HEADER: Final = struct.Struct("<IIQII")
OPERATION: Final = struct.Struct("<BBHIQII")
ENTRY: Final = struct.Struct("<IB3xI")
SCAN_ARGUMENTS: Final = struct.Struct("<QIB")
assert (HEADER.size, OPERATION.size, ENTRY.size) == (24, 24, 12)

DONE: Final = 0
VALUE: Final = 1
ABSENT: Final = 2
NUMBER: Final = 3
ERROR: Final = 16
MAYBE_APPLIED: Final = 0x80


class Operation(NamedTuple):
    """One operation of a batch."""

    op: int
    key: bytes = b""
    value: bytes = b""
    hash: int = 0
    keyspace: int = 0
    deadline: int = 0


class Reply(NamedTuple):
    """One entry of a replies message."""

    index: int  # type: ignore[assignment]
    status: int
    payload: bytes

    def error(self) -> KioError | None:
        """The error this entry stands for, or None."""
        code = self.status & ~MAYBE_APPLIED
        if code < ERROR:
            return None
        return from_wire(code, self.payload.decode("utf-8", "replace"), bool(self.status & MAYBE_APPLIED))


def monotonic_ms() -> int:
    """CLOCK_MONOTONIC as a deadline counts it; never 0."""
    return (time.monotonic_ns() // 1_000_000) & 0xFFFFFFFF or 1


def encode_batch(shard: int, batch_id: int, operations: Iterable[Operation]) -> bytes:
    """`operations` as one batch message."""
    parts = [b""]
    for o in operations:
        parts.append(OPERATION.pack(o.op, o.keyspace, len(o.key), len(o.value), o.hash, o.deadline, 0))
        parts.append(o.key)
        parts.append(o.value)
    parts[0] = HEADER.pack(BATCH_MAGIC, shard, batch_id, len(parts) // 3, 0)
    return b"".join(parts)


def encode_replies(shard: int, batch_id: int, replies: Iterable[Reply]) -> bytes:
    """`replies` as one replies message."""
    parts = [b""]
    for r in replies:
        parts.append(ENTRY.pack(r.index, r.status, len(r.payload)))
        parts.append(r.payload)
    parts[0] = HEADER.pack(REPLIES_MAGIC, shard, batch_id, len(parts) // 2, 0)
    return b"".join(parts)


def decode_header(message: bytes, magic: int) -> tuple[int, int, int]:
    """(shard, batch id, count) of a message that must begin with `magic`."""
    if len(message) < HEADER.size:
        raise ProtocolError(f"an op message of {len(message)} bytes is shorter than its header")
    found, shard, batch_id, count, _ = HEADER.unpack_from(message)
    if found != magic:
        raise ProtocolError(f"an op message begins with {found:08x}, not {magic:08x}")
    return shard, batch_id, count


def decode_batch(message: bytes) -> list[Operation]:
    """The operations of a batch message."""
    _, _, count = decode_header(message, BATCH_MAGIC)
    return list(_operations(message, count))


def _operations(message: bytes, count: int) -> Iterator[Operation]:
    at = HEADER.size
    for _ in range(count):
        if at + OPERATION.size > len(message):
            raise ProtocolError("an op batch ends inside an operation")
        op, keyspace, key_length, value_length, hash_, deadline, _ = OPERATION.unpack_from(message, at)
        at += OPERATION.size
        end = at + key_length + value_length
        if end > len(message):
            raise ProtocolError("an op batch ends inside an operation")
        yield Operation(op, message[at : at + key_length], message[at + key_length : end], hash_, keyspace, deadline)
        at = end


def decode_replies(message: bytes) -> list[Reply]:
    """The entries of a replies message."""
    _, _, count = decode_header(message, REPLIES_MAGIC)
    replies = []
    at = HEADER.size
    for _ in range(count):
        if at + ENTRY.size > len(message):
            raise ProtocolError("op replies end inside an entry")
        index, status, length = ENTRY.unpack_from(message, at)
        at += ENTRY.size
        if at + length > len(message):
            raise ProtocolError("op replies end inside an entry")
        replies.append(Reply(index, status, message[at : at + length]))
        at += length
    return replies
