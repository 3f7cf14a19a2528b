"""Shards as a dict, and what a front door does with a command: for tests of plans without a daemon."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

import msgpack

from kio import opbatch, wire
from kio.commands.error_texts import text_of
from kio.commands.functions import REGISTER
from kio.commands.ops import ALL, Operation, result_of
from kio.commands.replies import CommandError
from kio.commands.state import Removed, State
from kio.commands.table import TABLE, Command
from kio.errors import KeyEmpty, KeyTooLarge, KioError, ValueTooLarge
from kio.limits import EXPIRE_AT_MS_MAX, KEY_BYTES_MAX, TTL_MS_MAX, VALUE_BYTES_MAX
from tests.segments.operations_model import Answer, OperationsModel

U64 = struct.Struct("<Q")
I64 = struct.Struct("<q")


class Refused(Exception):
    """A command was answered with an error."""


class ShardModel:
    """Keys of all shards in one dict, and the context of a connection."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.operations = OperationsModel()
        self.operations.now_ms = now_ms
        self.shards = 4
        self.keyspace = 0
        #: The moments of the last command: the operations of each.
        self.moments: list[list[Operation]] = []

    @property
    def now_ms(self) -> int:
        return self.operations.now_ms

    def pass_ms(self, ms: int) -> None:
        self.operations.now_ms += ms

    def state(self, key: bytes) -> State | None:
        held = self.operations.held((self.keyspace, key))
        return State(held.value, held.expiry) if held else None

    def __call__(self, *words: bytes | str | int) -> Any:
        """What a command answers.

        Raises:
            Refused: with the text of the error.
        """
        args = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        command = TABLE[args[0].decode().lower()]
        self.moments = []
        if len(args) < abs(command.arity) or (command.arity > 0 and len(args) != command.arity):
            raise Refused(f"ERR wrong number of arguments for '{command.name}' command")
        assert command.run is not None
        try:
            plan = command.run(args, self)
            return self._finish(plan, command) if isinstance(plan, GeneratorType) else plan
        except CommandError as error:
            raise Refused(error.text) from None
        except KioError as error:
            raise Refused(text_of(error)) from None

    def _finish(self, plan: Any, command: Command) -> Any:
        try:
            asked = next(plan)
            while True:
                self.moments.append(asked)
                self._check_moments(command)
                # A real shard answers every operation of a moment, whatever became of the others.
                answers = [self._answer(operation) for operation in asked]
                try:
                    results = [result_of(o, *answer) for o, answer in zip(asked, answers, strict=True)]
                except KioError as error:
                    asked = plan.throw(error)
                else:
                    asked = plan.send(results)
        except StopIteration as stop:
            return stop.value

    def _check_moments(self, command: Command) -> None:
        """What the table promises of a plan: a door that holds the shards of its first moment holds enough."""
        first, *others = self.moments
        assert all(self.moments), "a moment is of at least one operation"
        if command.moments == 0:
            assert {operation.op for operations in self.moments for operation in operations} == {wire.OP_SCAN}
            return
        assert len(self.moments) <= command.moments
        held = {(operation.keyspace, operation.key, operation.shard) for operation in first}
        for operation in (operation for operations in others for operation in operations):
            named = operation.keyspace if operation.keyspace != self.keyspace else None
            assert {
                (operation.keyspace, operation.key, operation.shard),
                (named, operation.key, operation.shard),
            } & held

    def _answer(self, operation: Operation) -> Answer:
        keyspace = self.keyspace if operation.keyspace is None else operation.keyspace
        try:
            return self._apply(operation, keyspace)
        except KioError as error:
            return error.code, str(error).encode()

    def _apply(self, operation: Operation, keyspace: int) -> Answer:
        if operation.op == wire.OP_COUNT:
            assert operation.shard == ALL
            return opbatch.NUMBER, I64.pack(len(self.operations.visible(keyspace)))
        if operation.op == wire.OP_CLEAR:
            assert operation.shard == ALL
            gone = self.operations.visible(keyspace)
            for key in gone:
                del self.operations.records[keyspace, key]
            return opbatch.NUMBER, I64.pack(len(gone))
        if operation.op == wire.OP_SCAN:
            return self._scan(operation, keyspace)
        if not operation.key:
            raise KeyEmpty
        if len(operation.key) > KEY_BYTES_MAX:
            raise KeyTooLarge
        if operation.op == wire.OP_APPLY:
            return self._apply_function(operation.key, keyspace, operation.value)
        if len(operation.value) > VALUE_BYTES_MAX + 8:
            raise ValueTooLarge
        if operation.flags & wire.TTL:
            assert 1 <= U64.unpack_from(operation.value)[0] <= TTL_MS_MAX
        if operation.flags & wire.EXPIRE_AT:
            assert 1 <= U64.unpack_from(operation.value)[0] <= EXPIRE_AT_MS_MAX
        return self.operations.apply(
            opbatch.Operation(operation.op, operation.key, operation.value, 0, keyspace, 0, operation.flags)
        )

    def _apply_function(self, key: bytes, keyspace: int, value: bytes) -> Answer:
        name, *arguments = msgpack.unpackb(value)
        held = self.operations.held((keyspace, key))
        state = State(held.value, held.expiry) if held else None
        outcome = REGISTER.call(name, state, self.now_ms, arguments)
        if isinstance(outcome.change, Removed):
            self.operations.records.pop((keyspace, key), None)
        elif outcome.change is not None:
            value, expire_at_ms = outcome.change
            if len(value) > VALUE_BYTES_MAX:
                raise ValueTooLarge
            assert 0 <= expire_at_ms <= EXPIRE_AT_MS_MAX
            flags = opbatch.EXPIRE_AT if expire_at_ms else 0
            written = U64.pack(expire_at_ms) + value if expire_at_ms else value
            self.operations.apply(opbatch.Operation(wire.OP_SET, key, written, 0, keyspace, 0, flags))
        return opbatch.VALUE, msgpack.packb(outcome.reply)

    def _scan(self, operation: Operation, keyspace: int) -> Answer:
        within, limit, what = opbatch.SCAN_ARGUMENTS.unpack_from(operation.value)
        prefix = operation.value[opbatch.SCAN_ARGUMENTS.size :]
        assert what == wire.SCAN_KEYS
        assert 1 <= limit <= 65_536
        found = []
        for place, key in self._in_order(operation.shard, keyspace):
            if place + 1 < within or not key.startswith(prefix):
                continue
            if len(found) == limit:
                return opbatch.VALUE, U64.pack(place + 1) + msgpack.packb(found)
            found.append(key)
        return opbatch.VALUE, U64.pack(0) + msgpack.packb(found)

    def _in_order(self, shard: int, keyspace: int) -> Iterator[tuple[int, bytes]]:
        places = sorted((zlib.crc32(key) >> 3, key) for key in self.operations.visible(keyspace))
        return ((place, key) for place, key in places if place % self.shards == shard)
