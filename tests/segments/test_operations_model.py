"""All operations with all their flags, alone and in atomic batches, against the plain model.

Time passes meanwhile, keyspaces are cleared, and the walk that follows (_purge.pyx) goes on by a word or two,
compactions are begun, the disk is full, and the store is opened again.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from kio import opbatch, wire
from kio.errors import Aborted, DiskFull, UnknownOperation
from kio.opbatch import (
    EXPIRE_AT,
    IF_ABSENT,
    IF_PRESENT,
    IF_VERSION,
    KEEP_TTL,
    TTL,
    WITH_OLD,
    WITH_VERSION,
    Operation,
    Reply,
)
from kio.segments import purging
from kio.segments.expiry import SWEEP_INTERVAL_S
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.operations_model import I64, OperationsModel
from tests.segments.support import Driven, Timed, hash_of, key_of_hash, operation

START_MS = 1_700_000_000_000
#: Two keys of one hash, one more of their tag, and plain ones.
KEYS = [
    *(key_of_hash(hash_of(5, 77, 9), i) for i in range(2)),
    key_of_hash(hash_of(5, 77, 8)),
    b"k",
    b"n",
    b"a key " * 9,
]
KEYSPACES = (0, 3, 255)
VALUES = [b"", b"v", b"7", b"-9223372036854775808", b"9223372036854775807", b"a value", b"long" * 60]
WRITES = {wire.OP_SET, wire.OP_DELETE, wire.OP_INCR, wire.OP_APPEND, wire.OP_EXPIRE, wire.OP_PERSIST}
TIMES = st.integers(-3, 40)


@st.composite
def operations(draw: st.DrawFn) -> tuple[int, bytes, bytes, int, dict[int, int]]:
    """(op, key, value, keyspace, flag -> a small number that `OperationsMachine` makes an argument of)."""
    op = draw(st.sampled_from([wire.OP_SET] * 4 + list(range(wire.OP_GET, wire.OP_TTL + 1))))
    value = b""
    chosen = {
        wire.OP_GET: [(0, WITH_VERSION)],
        wire.OP_SET: [
            (0, TTL, EXPIRE_AT, KEEP_TTL),
            (0, IF_ABSENT, IF_PRESENT, IF_VERSION),
            (0, WITH_OLD, WITH_VERSION),
        ],
        wire.OP_DELETE: [(0, IF_VERSION), (0, WITH_OLD, WITH_VERSION)],
        wire.OP_EXPIRE: [(TTL, EXPIRE_AT)],
    }.get(op, [])
    flags = {draw(st.sampled_from(group)): draw(TIMES) for group in chosen}
    flags.pop(0, None)
    if op in (wire.OP_SET, wire.OP_APPEND):
        value = draw(st.sampled_from(VALUES))
    elif op == wire.OP_INCR:
        value = I64.pack(draw(st.sampled_from([0, 1, -1, 10, (1 << 63) - 1, -(1 << 63)])))
    return op, draw(st.sampled_from(KEYS)), value, draw(st.sampled_from([0, 0, 0, 3, 255])), flags


class OperationsMachine(RuleBasedStateMachine):
    """See the module. A full disk refuses writes, and they leave no trace."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="kio-operations-"))
        self.disk = FaultyDisk()
        self.model = OperationsModel()

    @initialize(sync=st.sampled_from(["always", "interval"]), segment_bytes=st.sampled_from([400, 2000, 100_000]))
    def start(self, sync: str, segment_bytes: int) -> None:
        options = StoreOptions(segment_bytes=segment_bytes, sync=sync)
        self.driven = Timed(self.root / "shard", options, self.disk)
        self._at(START_MS)
        self.model.epoch = self.driven.store.stats()["epoch"]

    def teardown(self) -> None:
        self.disk.heal()
        if hasattr(self, "driven"):
            self.driven.kill()
        shutil.rmtree(self.root)

    def _at(self, time_ms: int) -> None:
        self.model.now_ms = time_ms
        self.driven.at(time_ms)

    @rule(drawn=st.lists(operations(), min_size=1, max_size=10))
    def execute(self, drawn: list[tuple[int, bytes, bytes, int, dict[int, int]]]) -> None:
        batch = [self._operation(*one) for one in drawn]
        for op, reply in zip(batch, self.driven.replies(*batch), strict=True):
            if reply.status == DiskFull.code:
                assert op.op in WRITES
                continue
            self._compare(op, reply, self.model)
        assert self.driven.store.lsn == self.model.lsn

    @rule(drawn=st.lists(operations(), min_size=1, max_size=8))
    def execute_atomically(self, drawn: list[tuple[int, bytes, bytes, int, dict[int, int]]]) -> None:
        group = [self._operation(*one) for one in drawn]
        batch = opbatch.encode_batch(0, 1, group)
        around = operation(wire.OP_COUNT)
        _, reply, _ = self.driven.replies(around, operation(wire.OP_ATOMIC, b"", batch), around)
        assert reply.status == opbatch.VALUE
        replies = opbatch.decode_replies(reply.payload)
        failed = [reply.index for reply in replies if reply.status >= opbatch.UNMET and reply.status != Aborted.code]
        model = self.model.copy()
        for op, reply in zip(group, replies, strict=True):
            if failed and reply.index != failed[0]:
                assert reply.status == Aborted.code
                status, _ = model.apply(op) if reply.index < failed[0] else (opbatch.DONE, b"")
                assert status < opbatch.UNMET
            elif reply.status == DiskFull.code:
                # It is the group that finds no room, and its first operation that says so.
                assert any(one.op in WRITES for one in group)
            else:
                self._compare(op, reply, model)
        if not failed:
            self.model = model
        assert self.driven.store.lsn == self.model.lsn

    @rule(keyspace=st.sampled_from(KEYSPACES), drawn=st.lists(operations(), max_size=3))
    def clear(self, keyspace: int, drawn: list[tuple[int, bytes, bytes, int, dict[int, int]]]) -> None:
        """In a batch, before other operations."""
        batch = [self._operation(*one) for one in drawn]
        cleared, *replies = self.driven.replies(operation(wire.OP_CLEAR, keyspace=keyspace), *batch)
        if cleared.status != DiskFull.code:
            assert cleared.payload == I64.pack(self.model.clear(keyspace))
        for op, reply in zip(batch, replies, strict=True):
            if reply.status != DiskFull.code:
                self._compare(op, reply, self.model)
        assert self.driven.store.lsn == self.model.lsn

    @rule(slices=st.integers(1, 6))
    def purge(self, slices: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(purging, "WORDS_PER_SLICE", 1)
            for _ in range(slices):
                self.driven.store._purger.slice()

    @rule()
    def sweep(self) -> None:
        """What has expired leaves the KeyDir, and nothing else is done."""
        self.disk.heal()
        self.driven.run_jobs()
        self.driven._clock_s += SWEEP_INTERVAL_S
        while self.driven.store._sweeper.slice(self.driven._clock_s):
            pass
        self.model.sweep()

    @rule(steps=st.integers(1, 12))
    def begin_to_compact(self, steps: int) -> None:
        """All there is, and leave it somewhere in the middle."""
        self.disk.heal()
        maintenance = self.driven.store._maintenance
        if maintenance.name != "compaction":
            self.driven.maintain()
            self.model.sweep()
            self.driven.one(operation(wire.OP_COMPACT))
            self.driven.run_jobs()
        for _ in range(steps):
            self.driven._clock_s += 10
            maintenance.slice(self.driven._clock_s)
            self.driven.run_jobs()

    def _compare(self, op: Operation, reply: Reply, model: OperationsModel) -> None:
        answer = model.apply(op)
        assert (reply.status, b"" if reply.error() else reply.payload) == answer, op

    def _operation(self, op: int, key: bytes, value: bytes, keyspace: int, flags: dict[int, int]) -> Operation:
        held = self.model.records.get((keyspace, key))
        arguments: dict[int, object] = dict(flags)
        if TTL in flags:
            arguments[TTL] = max(flags[TTL], 0)
        if EXPIRE_AT in flags:
            arguments[EXPIRE_AT] = self.model.now_ms + flags[EXPIRE_AT]
        if IF_VERSION in flags:
            # Mostly the version that is there, when the batch begins.
            epoch, lsn = (held.epoch, held.lsn) if held else (1, 1)
            arguments[IF_VERSION] = (epoch, max(lsn + min(flags[IF_VERSION], 0), 0))
        return operation(op, key, value, keyspace, arguments)

    @rule(by_ms=st.integers(1, 30))
    def let_time_pass(self, by_ms: int) -> None:
        self._at(self.model.now_ms + by_ms)

    @rule(nth=st.integers(1, 3), times=st.sampled_from([1, 1, 4]))
    def fill_the_disk(self, nth: int, times: int) -> None:
        self.disk.fail("write", nth, errno.ENOSPC, 0.5, times)

    @rule()
    def free_the_disk(self) -> None:
        self.disk.heal()

    @rule()
    def work(self) -> None:
        self.disk.heal()
        self.driven.run_jobs()

    @rule()
    def maintain(self) -> None:
        """Whatever wants to be done, which takes what has expired out of the KeyDir."""
        self.disk.heal()
        self.driven.maintain()
        self.model.sweep()

    @rule(is_clean=st.booleans())
    def open_again(self, is_clean: bool) -> None:
        self.disk.heal()
        if is_clean:
            self.driven.restart()
        else:
            self.driven.reopen()
        self.model.epoch = self.driven.store.stats()["epoch"]
        assert self.driven.store.lsn == self.model.lsn
        # What had left the KeyDir before may be there again until it is swept.
        self.maintain()

    @invariant()
    def what_is_there_is_what_the_model_holds(self) -> None:
        if not hasattr(self, "driven") or self.driven.store.is_read_only:
            return
        for keyspace in KEYSPACES:
            assert self.driven.count(keyspace) == sum(space == keyspace for space, _ in self.model.records)
            assert self.driven.items(keyspace=keyspace) == self.model.visible(keyspace)

    @invariant()
    def figures_are_those_of_the_records(self) -> None:
        if not hasattr(self, "driven"):
            return
        live = sum(
            (24 + (8 if held.expiry else 0) + len(key) + len(held.value) + 7) // 8 * 8
            for (_, key), held in self.model.records.items()
        )
        stats = self.driven.store.stats()
        assert stats["keys"] == len(self.model.records)
        # What was cleared is live until its word is gone.
        assert stats["live_bytes"] >= live if self.driven.store._engine.has_floors else stats["live_bytes"] == live


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OperationsMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_operations_are_those_of_the_model_whatever_the_disk_does() -> None:
    run(60, 20)


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_operations_are_those_of_the_model_for_long() -> None:
    run(10_000 if os.environ.get("FULL") else 250, 40)


def test_the_model_knows_every_operation_that_the_kernel_executes(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    replies = driven.replies(*(operation(op, b"k") for op in range(32)))
    driven.store.close()
    known = {reply.index for reply in replies if not isinstance(reply.error(), UnknownOperation)}
    assert known == set(range(wire.OP_GET, wire.OP_TTL + 1))
