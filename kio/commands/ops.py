"""The operations that plans are made of, and their results.

A plan is a generator. It yields a list of what is to be done at one moment: nothing that goes through the same front
door comes in between, on whatever shards the keys are. It gets the list of results, and returns the reply of its
command. Where it yields a second time, the table says so of its command (`moments`): the shards of its first moment do
nothing for others until its last, and the first moment names every key that a later one touches. An operation that
fails throws its error into the plan.

    operation       result
    get             bytes or None                       count       int, over all shards
    get_entry       Entry or None                       clear       int, keys removed, over all shards
    set             True                                scan        (next cursor, [key, ...]) of one shard
      if_absent...  True or UNMET                       apply       what the function replies
      with_old      bytes or None
    delete          True or False                       expire      True, False where the key is absent
      with_old      bytes or None                       persist     True, False where there was no expiry
    version         (epoch, LSN)
    exists          True or False                       ttl         ms, -1 never, None where the key is absent
    incr            int                                 append      int, the length
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import msgpack

from kio import opbatch, wire

_U64: Final = struct.Struct("<Q")
_I64: Final = struct.Struct("<q")
_VERSION: Final = struct.Struct("<IQ")

#: `Operation.shard`: the one that the key's hash says; all of them.
BY_KEY: Final = -1
ALL: Final = -2


class Operation(NamedTuple):
    """One operation, as an op batch has it (opbatch.py); `value` begins with the arguments of its flags."""

    op: int
    key: bytes = b""
    flags: int = 0
    value: bytes = b""
    shard: int = BY_KEY
    #: None: that of whoever asks.
    keyspace: int | None = None


class Entry(NamedTuple):
    """A record as it stands; (epoch, lsn) is its version."""

    value: bytes
    epoch: int
    lsn: int
    #: 0 where it never expires.
    expire_at_ms: int


class Unmet:
    """The result of a write whose condition did not hold."""


UNMET: Final = Unmet()

Plan = Generator[list[Operation], list[Any], Any]


def get(key: bytes) -> Operation:
    """The value."""
    return Operation(wire.OP_GET, key)


def get_entry(key: bytes, keyspace: int | None = None) -> Operation:
    """The record."""
    return Operation(wire.OP_GET, key, wire.WITH_VERSION, keyspace=keyspace)


def set(
    key: bytes,
    value: bytes,
    *,
    ttl_ms: int = 0,
    expire_at_ms: int = 0,
    keep_ttl: bool = False,
    if_absent: bool = False,
    if_present: bool = False,
    with_old: bool = False,
    keyspace: int | None = None,
) -> Operation:
    """Store a value; at most one of `ttl_ms`, `expire_at_ms`, `keep_ttl`, and of `if_absent`, `if_present`."""
    flags = wire.KEEP_TTL * keep_ttl | wire.IF_ABSENT * if_absent | wire.IF_PRESENT * if_present
    flags |= wire.WITH_OLD * with_old
    if ttl_ms:
        return Operation(wire.OP_SET, key, flags | wire.TTL, _U64.pack(ttl_ms) + value, keyspace=keyspace)
    if expire_at_ms:
        flags |= wire.EXPIRE_AT
        return Operation(wire.OP_SET, key, flags, _U64.pack(expire_at_ms) + value, keyspace=keyspace)
    return Operation(wire.OP_SET, key, flags, value, keyspace=keyspace)


def delete(key: bytes, *, with_old: bool = False, keyspace: int | None = None) -> Operation:
    """Remove a key."""
    return Operation(wire.OP_DELETE, key, wire.WITH_OLD * with_old, keyspace=keyspace)


def exists(key: bytes, keyspace: int | None = None) -> Operation:
    """Whether it is there."""
    return Operation(wire.OP_EXISTS, key, keyspace=keyspace)


def version(key: bytes, keyspace: int | None = None) -> Operation:
    """The version of its record, (epoch, LSN); of an absent key (0, what changes when it comes)."""
    return Operation(wire.OP_EXISTS, key, wire.WITH_VERSION, keyspace=keyspace)


def incr(key: bytes, delta: int) -> Operation:
    """Add an integer of 64 bits."""
    return Operation(wire.OP_INCR, key, value=_I64.pack(delta))


def append(key: bytes, value: bytes) -> Operation:
    """Put bytes behind the value."""
    return Operation(wire.OP_APPEND, key, value=value)


def expire(key: bytes, *, ttl_ms: int = 0, expire_at_ms: int = 0) -> Operation:
    """Give it an expiry, by one of the two; one that has passed removes it."""
    if ttl_ms:
        return Operation(wire.OP_EXPIRE, key, wire.TTL, _U64.pack(ttl_ms))
    return Operation(wire.OP_EXPIRE, key, wire.EXPIRE_AT, _U64.pack(expire_at_ms))


def persist(key: bytes) -> Operation:
    """Take the expiry away."""
    return Operation(wire.OP_PERSIST, key)


def ttl(key: bytes) -> Operation:
    """What is left of its time."""
    return Operation(wire.OP_TTL, key)


def apply(key: bytes, name: str, *arguments: Any, keyspace: int | None = None) -> Operation:
    """Run a registered function (state.py) on the key, in its shard."""
    return Operation(wire.OP_APPLY, key, value=msgpack.packb([name, *arguments]), keyspace=keyspace)


def count(keyspace: int | None = None) -> Operation:
    """How many keys there are in the keyspace."""
    return Operation(wire.OP_COUNT, shard=ALL, keyspace=keyspace)


def clear(keyspace: int | None = None) -> Operation:
    """Remove all keys of the keyspace."""
    return Operation(wire.OP_CLEAR, shard=ALL, keyspace=keyspace)


def scan(shard: int, within: int, limit: int, prefix: bytes = b"") -> Operation:
    """One page of the keys of a shard."""
    value = opbatch.SCAN_ARGUMENTS.pack(within, limit, wire.SCAN_KEYS) + prefix
    return Operation(wire.OP_SCAN, value=value, shard=shard)


def result_of(operation: Operation, status: int, payload: bytes) -> Any:
    """What a shard's answer means.

    Raises:
        KioError: when the operation failed.
    """
    if status >= opbatch.ERROR:
        error = opbatch.Reply(0, status, payload).error()
        assert error is not None
        raise error
    op = operation.op
    if status == opbatch.VALUE:
        if op == wire.OP_APPLY:
            return msgpack.unpackb(payload, strict_map_key=False)
        if op == wire.OP_SCAN:
            (following,) = _U64.unpack_from(payload)
            return following, msgpack.unpackb(payload[_U64.size :])
        return payload
    if status == opbatch.NUMBER:
        return _I64.unpack(payload)[0]
    if status == opbatch.VERSIONED:
        epoch, lsn = _VERSION.unpack_from(payload)
        if op == wire.OP_EXISTS:
            return epoch, lsn
        (expire_at_ms,) = _I64.unpack_from(payload, _VERSION.size)
        return Entry(payload[_VERSION.size + _I64.size :], epoch, lsn, expire_at_ms)
    if status == opbatch.ABSENT:
        is_value = op in (wire.OP_GET, wire.OP_TTL) or operation.flags & (wire.WITH_OLD | wire.WITH_VERSION)
        return None if is_value else False
    if status == opbatch.UNMET:
        return False if op == wire.OP_PERSIST else UNMET
    return True
