"""The rare operations of a batch: those that go through Python, still in their order between the others (opbatch.py).

Each is answered once, or left: where the disk has refused what it wrote, the batch has gone back to its last commit,
and the operation is met again, now with writes refused. What has changed the store commits at once, so that a later
write of the batch that fails does not execute it a second time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgpack

from kio import opbatch, wire
from kio.commands.functions import REGISTER
from kio.commands.state import Removed, State
from kio.errors import BadRequest, Corrupt, DiskFull, KioError, Overloaded, ShardReadOnly, from_wire
from kio.segments import _scan
from kio.segments._atomic import Group
from kio.segments._engine import NEEDS_ROTATION, ROTATE_MISFITS, Engine
from kio.segments.chain import SegmentChain

_U64: Final = struct.Struct("<Q")
_I64: Final = struct.Struct("<q")


class RareOperations:
    """The rare operations of one store.

    Args:
        write_staged: writes what was appended; False: it was taken back, and writes are refused from now on.
        make_room: finds room for a record that takes so many bytes; where there is none, what does not fit is refused.
        ask_compaction: asks for a compaction; the bytes that are dead.
        ask_checkpoint: asks for a checkpoint.
        ask_sync: asks for a sync of all that was written.
        take_point: seals, and tells what a backup has to copy (point.py).
        stats: the store's figures.
    """

    def __init__(
        self,
        engine: Engine,
        chain: SegmentChain,
        shard: int,
        write_staged: Callable[[], bool],
        make_room: Callable[[int], None],
        ask_compaction: Callable[[], int],
        ask_checkpoint: Callable[[], None],
        ask_sync: Callable[[], None],
        take_point: Callable[[], bytes],
        stats: Callable[[], dict[str, Any]],
    ) -> None:
        self._engine = engine
        self._chain = chain
        self._shard = shard
        self._write_staged = write_staged
        self._make_room = make_room
        self._ask_compaction = ask_compaction
        self._ask_checkpoint = ask_checkpoint
        self._ask_sync = ask_sync
        self._take_point = take_point
        self._stats = stats

    def execute(self, now_ms: int) -> None:
        """Execute the operation that the engine has stopped at.

        Args:
            now_ms: the clock of deadlines.
        """
        op, keyspace, value = self._engine.rare()
        try:
            if op == wire.OP_COUNT:
                self._refuse_incomplete()
                self._engine.reply(opbatch.NUMBER, _I64.pack(self._engine.count_keys(keyspace)))
            elif op == wire.OP_CLEAR:
                self._clear(keyspace)
            elif op == wire.OP_SCAN:
                self._refuse_incomplete()
                self._scan(keyspace, value)
            elif op == wire.OP_STATS:
                self._engine.reply(opbatch.VALUE, msgpack.packb(self._stats()))
            elif op == wire.OP_APPLY:
                while not self._apply():
                    self._make_room(self._engine.needed_room)
            elif op == wire.OP_ATOMIC:
                self._atomic(value, now_ms)
            elif op == wire.OP_CHECKPOINT:
                self._ask_checkpoint()
                self._engine.reply(opbatch.NUMBER, _I64.pack(0))
            elif op == wire.OP_SYNC:
                self._sync()
            elif op == wire.OP_COMPACT:
                self._compact()
            elif op == wire.OP_SEAL:
                self._engine.reply(opbatch.VALUE, self._take_point())
            else:
                raise BadRequest(f"a shard does not know operation {op}")
        except MemoryError as error:
            self._engine.reply(Overloaded.code, str(error).encode())
        except KioError as error:
            self._engine.reply(error.code, str(error).encode())

    def _refuse_incomplete(self) -> None:
        """Count and scan speak of all keys, and cannot while some of them are lost."""
        if self._engine.served_lsn_max < self._engine.lsn:
            raise ShardReadOnly("keys were lost by a failed sync; restart kio")
        if self._engine.suspect_lsn:
            raise Corrupt(f'shard {self._shard} lost records; run "kio check --shard {self._shard}"')

    def _why_not(self) -> KioError:
        """Why writes are refused."""
        code = self._engine.refusal
        return from_wire(code & ~opbatch.MAYBE_APPLIED, self._engine.refusal_message.decode())

    def _scan(self, keyspace: int, value: bytes) -> None:
        if len(value) < opbatch.SCAN_ARGUMENTS.size:
            raise BadRequest("a scan needs cursor, limit and what")
        cursor, limit, what = opbatch.SCAN_ARGUMENTS.unpack_from(value)
        prefix = value[opbatch.SCAN_ARGUMENTS.size :]
        following, page = _scan.scan(self._engine, cursor, limit, what, prefix, keyspace)
        self._engine.reply(opbatch.VALUE, _U64.pack(following) + page)

    def _clear(self, keyspace: int) -> None:
        engine = self._engine
        if engine.refusal:
            raise self._why_not()
        while not engine.stage_clear(keyspace):
            if engine.refusal:
                raise self._why_not()
            if engine.misfits != ROTATE_MISFITS:
                raise DiskFull(f"no room for shard {self._shard} on the disk; nothing was applied")
            self._make_room(engine.needed_room)
        if not self._write_staged():
            return
        removed = engine.count_keys(keyspace)
        engine.cleared(keyspace)
        engine.reply(opbatch.NUMBER, _I64.pack(removed))
        engine.wrote()

    def _apply(self) -> bool:
        """Run a function on a key; False, and nothing was done, where its record does not fit the active segment.

        What it appends is staged as that of any other operation.
        """
        engine = self._engine
        _, _, value = engine.rare()
        try:
            name, *arguments = msgpack.unpackb(value, strict_map_key=False)
            found = engine.look_at()
            if found is False:
                return True
            outcome = REGISTER.call(name, None if found is None else State(*found), engine.now_ms, arguments)
            reply = msgpack.packb(outcome.reply)
            change = outcome.change
            if change is not None:
                if isinstance(change, Removed) or 0 < change.expire_at_ms <= engine.now_ms:
                    stopped = engine.change(None)
                else:
                    stopped = engine.change(change.value, change.expire_at_ms)
                if stopped is None:
                    return True
                if stopped == NEEDS_ROTATION:
                    return False
            engine.reply(opbatch.VALUE, reply)
        except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
            engine.reply(BadRequest.code, str(error).encode())
        except KioError as error:
            engine.reply(error.code, str(error).encode())
        return True

    def _atomic(self, batch: bytes, now_ms: int) -> None:
        """All of it is staged, then written by one write into one segment; what is refused is refused as a whole."""
        group = Group(self._engine, batch, self._engine.rare_flags(), self._apply)
        try:
            while True:
                if group.run(now_ms) == NEEDS_ROTATION:
                    self._make_room(self._engine.needed_room)
                elif self._write_staged():
                    break
            replies = group.replies()
        finally:
            group.close()
        self._engine.reply(opbatch.VALUE, replies)
        self._engine.wrote()

    def _sync(self) -> None:
        """Answered when all that was written before is on the disk."""
        engine = self._engine
        if engine.refusal & ~opbatch.MAYBE_APPLIED == ShardReadOnly.code:
            raise self._why_not()
        engine.reply_durable(opbatch.NUMBER, _I64.pack(0))
        self._ask_sync()

    def _compact(self) -> None:
        if self._engine.refusal & ~opbatch.MAYBE_APPLIED == ShardReadOnly.code:
            raise self._why_not()
        _, records, live = self._engine.usage(self._chain.active.slot)
        if records > live:
            with suppress(OSError):  # then the others are compacted
                self._chain.rotate(0)
        self._engine.reply(opbatch.NUMBER, _I64.pack(self._ask_compaction()))
