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
                                               20     4     flags
                                               24           key, then the flags' arguments, then value

    flag                    argument, counted in the value length; arguments stand in the order of their flags
      1  TTL                u64 ms from now, by the shard's clock
      2  EXPIRE_AT          u64 ms since 1970
      4  KEEP_TTL           none: an overwritten record's expiry stays
      8  IF_ABSENT          none
     16  IF_PRESENT         none
     32  IF_VERSION         u32 epoch, u64 LSN: the record must be exactly this one
     64  WITH_OLD           none: the answer is the value that was there
    128  WITH_VERSION       none: the answer is VERSIONED

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
      4      a record's version                                 u32 epoch, u64 LSN, i64 expiry in ms since 1970 (0
                                                                is none), then the value where one is answered
      5      a condition did not hold, nothing was applied      that of 4, without a value, of the record that is there;
                                                                none where the key is absent
    16..     an error: its code in errors.py                    message in UTF-8, empty for the class's own text;
             bit 7 set: maybe_applied

Operations 1 to 9 have the numbers of wire.py and are executed by the kernel:
     1 get       WITH_VERSION                       -> 1 or 2; with the flag 4 (with the value) or 2
     2 set       all flags                          -> 0; WITH_OLD: 1 or 2; WITH_VERSION: 4; IF_*: or else 5
     3 delete    IF_VERSION, WITH_*                 -> 0 or 2; WITH_OLD: 1 or 2; WITH_VERSION: 4 or 2; IF_*: or else 5
     4 exists    WITH_VERSION                       -> 0 or 2; with the flag 4 without a value: epoch 0 is none, and
                                                       its LSN changes when a key of this hash comes
     5 incr      value = i64 to add                 -> 3, the sum. The value is decimal text; absent counts as 0
     6 append    value = bytes to add               -> 3, the new length
     7 expire    TTL or EXPIRE_AT                   -> 0 or 2; a time in the past deletes
     8 persist                                      -> 0; 5 when it had no expiry; 2
     9 ttl                                          -> 3, the ms that are left, -1 when it has no expiry; 2
A set without TTL, EXPIRE_AT and KEEP_TTL clears the expiry; incr and append keep it.
The rare ones go through Python, still in their order within the batch:
    32 count    -> 3
    33 clear    -> 3, the number of keys removed
    34 scan     value = u64 cursor, u32 limit, u8 what, prefix -> 1: u64 next cursor, then a msgpack array as in
                wire.py; cursor 0 begins, next cursor 0 ends
    35 stats    -> 1: a msgpack map
    37 atomic   value = a batch message of operations 1 to 9 of this shard, executed all or nothing -> 1: a replies
                message to it. Where one fails or answers 5 nothing is applied, and all the others answer Aborted
                With the flag EACH only over a crash: what fails is answered so, and the others are applied
    38 seal     -> 1: a msgpack map, see segments/point.py
    41 checkpoint  -> 3, 0: one is taken soon
    42 sync     -> 3, 0, when all that was written before is on the disk
    40 apply    a key; value = a msgpack array, the name of a function of kio.commands and its arguments -> 1: its
                reply, as msgpack. It may stand in an atomic batch
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
#: Epoch, LSN and expiry of a record.
VERSION: Final = struct.Struct("<IQq")
assert (HEADER.size, OPERATION.size, ENTRY.size, VERSION.size) == (24, 24, 12, 20)

TTL: Final = 1
EXPIRE_AT: Final = 2
KEEP_TTL: Final = 4
IF_ABSENT: Final = 8
IF_PRESENT: Final = 16
IF_VERSION: Final = 32
WITH_OLD: Final = 64
WITH_VERSION: Final = 128
#: The flag of an atomic batch.
EACH: Final = 1
#: Flag -> its argument, in the order in which they stand before the value.
ARGUMENTS: Final = {TTL: struct.Struct("<Q"), EXPIRE_AT: struct.Struct("<Q"), IF_VERSION: struct.Struct("<IQ")}

DONE: Final = 0
VALUE: Final = 1
ABSENT: Final = 2
NUMBER: Final = 3
VERSIONED: Final = 4
UNMET: Final = 5
ERROR: Final = 16
MAYBE_APPLIED: Final = 0x80


class Operation(NamedTuple):
    """One operation of a batch; `value` begins with the arguments of its flags."""

    op: int
    key: bytes = b""
    value: bytes = b""
    hash: int = 0
    keyspace: int = 0
    deadline: int = 0
    flags: int = 0


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
        parts.append(OPERATION.pack(o.op, o.keyspace, len(o.key), len(o.value), o.hash, o.deadline, o.flags))
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
        op, keyspace, key_length, value_length, hash_, deadline, flags = OPERATION.unpack_from(message, at)
        at += OPERATION.size
        end = at + key_length + value_length
        if end > len(message):
            raise ProtocolError("an op batch ends inside an operation")
        key, value = message[at : at + key_length], message[at + key_length : end]
        yield Operation(op, key, value, hash_, keyspace, deadline, flags)
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
