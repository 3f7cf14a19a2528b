"""What the operations of an op batch mean, written down once more, plainly: a dict, and one method per operation."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from kio import opbatch, wire
from kio.errors import NotAnInteger, NumberOverflow
from kio.opbatch import (
    ABSENT,
    DONE,
    EXPIRE_AT,
    IF_ABSENT,
    IF_PRESENT,
    IF_VERSION,
    KEEP_TTL,
    NUMBER,
    TTL,
    UNMET,
    VALUE,
    VERSIONED,
    WITH_OLD,
    WITH_VERSION,
    Operation,
)

I64 = struct.Struct("<q")
NO_VERSION = opbatch.VERSION.pack(0, 0, 0)


class Held(NamedTuple):
    """A key's record; `expiry` 0 is none."""

    value: bytes
    epoch: int
    lsn: int
    expiry: int

    @property
    def version(self) -> bytes:
        return opbatch.VERSION.pack(self.epoch, self.lsn, self.expiry)


Key = tuple[int, bytes]
Records = dict[Key, Held]
Answer = tuple[int, bytes]


class OperationsModel:
    """The records of a shard, those that have expired included; `apply` executes an operation."""

    def __init__(self) -> None:
        self.records: Records = {}
        self.now_ms = 0
        self.lsn = 0
        self.epoch = 1

    def copy(self) -> OperationsModel:
        other = OperationsModel()
        other.records, other.now_ms, other.lsn, other.epoch = dict(self.records), self.now_ms, self.lsn, self.epoch
        return other

    def held(self, key: Key) -> Held | None:
        """The record that is there now."""
        held = self.records.get(key)
        return held if held is not None and (held.expiry == 0 or held.expiry > self.now_ms) else None

    def sweep(self) -> None:
        """Forget what has expired."""
        self.records = {key: held for key, held in self.records.items() if self.held(key) is not None}

    def clear(self, keyspace: int) -> int:
        """Forget a keyspace; how many records it had, those that have expired included."""
        cleared = [key for key in self.records if key[0] == keyspace]
        for key in cleared:
            del self.records[key]
        self.lsn += 1
        return len(cleared)

    def visible(self, keyspace: int) -> dict[bytes, bytes]:
        """What a scan of the keyspace gives."""
        found = {key: self.held((space, key)) for space, key in self.records if space == keyspace}
        return {key: held.value for key, held in found.items() if held is not None}

    def apply(self, op: Operation) -> Answer:
        """Execute one operation: (status, payload) of its answer, no message of errors."""
        key = (op.keyspace, op.key)
        held = self.held(key)
        arguments, value = self._arguments(op)
        expiry = arguments.get(EXPIRE_AT, (0,))[0] or (self.now_ms + arguments[TTL][0] if TTL in arguments else 0)
        if op.op == wire.OP_GET:
            if held is None:
                return ABSENT, b""
            return (VERSIONED, held.version + held.value) if op.flags & WITH_VERSION else (VALUE, held.value)
        if op.op == wire.OP_EXISTS:
            return (DONE if held else ABSENT), b""
        if op.op == wire.OP_TTL:
            left = held.expiry - self.now_ms if held and held.expiry else -1
            return (NUMBER, I64.pack(left)) if held else (ABSENT, b"")
        if not self._is_met(op, held, arguments):
            return UNMET, held.version if held else b""
        if op.op == wire.OP_SET:
            is_over = bool(op.flags & (TTL | EXPIRE_AT)) and expiry <= self.now_ms
            if op.flags & KEEP_TTL and held:
                expiry = held.expiry
            if not is_over:
                self._put(key, value, expiry)
            elif key in self.records:
                self._remove(key)
            return self._answer_write(op, held, NO_VERSION if is_over else self.records[key].version)
        if op.op == wire.OP_DELETE:
            if held is None:
                return ABSENT, b""
            self._remove(key)
            return self._answer_write(op, held, opbatch.VERSION.pack(self.epoch, self.lsn, 0))
        return self._update(op, key, held, value, expiry)

    def _update(self, op: Operation, key: Key, held: Held | None, value: bytes, expiry: int) -> Answer:
        kept = held.expiry if held else 0
        old = held.value if held else b""
        if op.op == wire.OP_INCR:
            if held and not (re.fullmatch(rb"0|-?[1-9][0-9]*", old) and -(1 << 63) <= int(old) < 1 << 63):
                return NotAnInteger.code, b""
            total = int(old or b"0") + I64.unpack(value)[0]
            if not -(1 << 63) <= total < 1 << 63:
                return NumberOverflow.code, b""
            self._put(key, b"%d" % total, kept)
            return NUMBER, I64.pack(total)
        if op.op == wire.OP_APPEND:
            self._put(key, old + value, kept)
            return NUMBER, I64.pack(len(old + value))
        if held is None:
            return ABSENT, b""
        if op.op == wire.OP_EXPIRE:
            if expiry <= self.now_ms:
                self._remove(key)
            else:
                self._put(key, old, expiry)
            return DONE, b""
        assert op.op == wire.OP_PERSIST
        if held.expiry == 0:
            return UNMET, held.version
        self._put(key, old, 0)
        return DONE, b""

    @staticmethod
    def _arguments(op: Operation) -> tuple[dict[int, tuple[int, ...]], bytes]:
        arguments = {}
        at = 0
        for flag, argument in opbatch.ARGUMENTS.items():
            if op.flags & flag:
                arguments[flag] = argument.unpack_from(op.value, at)
                at += argument.size
        return arguments, op.value[at:]

    @staticmethod
    def _is_met(op: Operation, held: Held | None, arguments: dict[int, tuple[int, ...]]) -> bool:
        if op.flags & IF_ABSENT:
            return held is None
        if op.flags & IF_PRESENT:
            return held is not None
        return not op.flags & IF_VERSION or (held is not None and (held.epoch, held.lsn) == arguments[IF_VERSION])

    @staticmethod
    def _answer_write(op: Operation, held: Held | None, version: bytes) -> Answer:
        if op.flags & WITH_OLD:
            return (VALUE, held.value) if held else (ABSENT, b"")
        return (VERSIONED, version) if op.flags & WITH_VERSION else (DONE, b"")

    def _put(self, key: Key, value: bytes, expiry: int) -> None:
        self.lsn += 1
        self.records[key] = Held(value, self.epoch, self.lsn, expiry)

    def _remove(self, key: Key) -> None:
        self.lsn += 1
        del self.records[key]
