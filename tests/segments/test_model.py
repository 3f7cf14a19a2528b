"""A shard against a plain model: operations, time, maintenance, backups, disk faults, restarts, kills and power cuts in
any order.

The model is the list of states after each record, by LSN. What a restart finds must be one of them:
    clean stop, kill           the last one
    power cut, sync = always   one at or behind every acknowledged write
    power cut, otherwise       any, so there is no hole: a prefix of the order
A power cut may leave later writes of an active segment without earlier ones. Such a hole cannot be told from rot: it is
answered Corrupt where it may matter, and otherwise with the state at the last LSN that survived, never with another.
A backup is the state at the moment when it was asked for.
A key whose time has come is not there; until the sweeper has taken it, it may still be counted.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kio import opbatch, wire
from kio.errors import Corrupt, DiskFull, KioError, ShardReadOnly
from kio.opbatch import Operation
from kio.segments import purging
from kio.segments.backup import take_backup
from kio.segments.identity import NAME, shard_path, write
from kio.segments.options import StoreOptions
from kio.segments.restore import restore
from tests.segments.quota_disk import UNBOUNDED, FaultyQuotaDisk
from tests.segments.support import (
    IDENTITY,
    Driven,
    Time,
    delete,
    get,
    hash_of,
    key_of_hash,
    operation,
    put,
    replies_of,
    unopened,
)

#: (keyspace, key) -> value and expiry; 0 is none.
State = dict[tuple[int, bytes], tuple[bytes, int]]

#: Four keys of one hash, three of one tag, some of a page, some with hash tags.
KEYS = [
    *(key_of_hash(hash_of(5, 77, 9), i) for i in range(4)),
    *(key_of_hash(hash_of(5, 1 << 19, i), 7) for i in range(3)),
    *(b"{same}%d" % i for i in range(3)),
    b"k",
    b"a longer key " * 20,
]
KEYSPACES = [0, 0, 0, 1, 255]
SIZES = [0, 1, 7, 8, 60, 300, 1000, 6000]
#: 0 is over at once; a put takes it for a second.
TTLS_MS = [0, 1000, 1000, 60_000]
NAMES = ["put", "put", "put", "put for", "expire", "delete", "get", "exists", "count", "clear", "scan"]


class ShardMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="kio-model-"))
        self.disk = FaultyQuotaDisk(forgets=False)
        self.time = Time()
        self.states: list[State] = [{}]
        self.written = 0
        self.acknowledged = 0
        self.parked: list[tuple[int, int]] = []
        self.cuts = 0
        self.clock_s = 1e9
        self.backed_up = Path()
        self.patch = pytest.MonkeyPatch()

    @initialize(
        sync=st.sampled_from(["always", "interval", "os"]), segment_bytes=st.sampled_from([400, 1024, 4096]),
        words=st.sampled_from([1, 3, 4096]),
    )  # fmt: skip
    def start(self, sync: str, segment_bytes: int, words: int) -> None:
        self.patch.setattr(purging, "WORDS_PER_SLICE", words)
        self.options = StoreOptions(segment_bytes=segment_bytes, open_segments=3, sync=sync, checkpoint_interval_s=1.0)
        self.driven = Driven(shard_path(self.root / "0", 0), self.options, self.disk, clock=self.time.clock)

    def teardown(self) -> None:
        self.patch.undo()
        self.disk.heal()
        if hasattr(self, "driven") and hasattr(self.driven, "store"):
            self.driven.kill()
        shutil.rmtree(self.root)

    @property
    def state(self) -> State:
        return self.states[-1]

    def _visible(self, state: State, keyspace: int | None = None) -> dict[tuple[int, bytes], bytes]:
        """What has not expired, of one keyspace or of all."""
        return {
            here: value
            for here, (value, expiry) in state.items()
            if (expiry == 0 or expiry > self.time.wall_ms) and keyspace in (None, here[0])
        }

    # ---- operations ----

    @rule(
        batch=st.lists(
            st.tuples(
                st.sampled_from(NAMES),
                st.sampled_from(KEYS),
                st.sampled_from(KEYSPACES),
                st.sampled_from(SIZES),
                st.sampled_from(TTLS_MS),
            ),
            min_size=1,
            max_size=12,
        )
    )
    def execute(self, batch: list[tuple[str, bytes, int, int, int]]) -> None:
        operations = [self._operation(*step) for step in batch]
        executed = self.driven.execute(*operations)
        replies = replies_of(executed)
        assert [reply[0] for reply in replies] == list(range(len(batch)))
        for (name, key, keyspace, _, ttl_ms), op, reply in zip(batch, operations, replies, strict=True):
            error = reply.error()
            if error is None:
                self._expect(name, (keyspace, key), ttl_ms, op, reply)
            elif self.driven.store.is_read_only:
                # Full first, and then a fault, is possible in one batch.
                assert isinstance(error, ShardReadOnly | DiskFull)
            else:
                assert isinstance(error, DiskFull)
                assert name in ("put", "put for", "expire", "delete", "clear")
        assert self.driven.store.lsn == len(self.states) - 1
        if executed.parked:
            assert self.options.sync == "always"
            self.parked.append((executed.parked_lsn, len(self.states) - 1))

    def _operation(self, name: str, key: bytes, keyspace: int, size: int, ttl_ms: int) -> Operation:
        if name in ("put", "put for"):
            self.written += 1
            value = (b"%d." % self.written * size)[:size]
            return put(key, value, keyspace, {opbatch.TTL: ttl_ms or 1000} if name == "put for" else {})
        if name == "scan":
            value = opbatch.SCAN_ARGUMENTS.pack(0, 1000, wire.SCAN_ITEMS)
            return operation(wire.OP_SCAN, b"", value, keyspace)
        return {
            "expire": operation(wire.OP_EXPIRE, key, b"", keyspace, {opbatch.TTL: ttl_ms}),
            "delete": delete(key, keyspace),
            "get": get(key, keyspace),
            "exists": operation(wire.OP_EXISTS, key, b"", keyspace),
            "count": operation(wire.OP_COUNT, b"", b"", keyspace),
            "clear": operation(wire.OP_CLEAR, b"", b"", keyspace),
        }[name]

    def _expect(self, name: str, here: tuple[int, bytes], ttl_ms: int, op: Operation, reply: opbatch.Reply) -> None:
        held = self._visible(self.state)
        others = {there: found for there, found in self.state.items() if there != here}
        if name == "put":
            self.states.append(self.state | {here: (op.value, 0)})
        elif name == "put for":
            self.states.append(self.state | {here: (op.value[8:], self.time.wall_ms + (ttl_ms or 1000))})
        elif name in ("expire", "delete"):
            assert (reply.status == opbatch.DONE) == (here in held)
            if here in held:
                is_kept = name == "expire" and ttl_ms > 0
                self.states.append(others | ({here: (held[here], self.time.wall_ms + ttl_ms)} if is_kept else {}))
        elif name == "get":
            assert (reply.payload if reply.status == opbatch.VALUE else None) == held.get(here)
        elif name == "exists":
            assert (reply.status == opbatch.DONE) == (here in held)
        elif name in ("count", "clear"):
            self._expect_number(int.from_bytes(reply.payload, "little"), here[0])
            if name == "clear":
                self.states.append({k: v for k, v in self.state.items() if k[0] != here[0]})

    def _expect_number(self, number: int, keyspace: int) -> None:
        assert len(self._visible(self.state, keyspace)) <= number <= sum(space == keyspace for space, _ in self.state)

    # ---- jobs ----

    @rule()
    def sync(self) -> None:
        self.driven.sync()
        self._acknowledge()

    @rule(count=st.integers(1, 4))
    def work(self, count: int) -> None:
        for _ in range(count):
            job = self.driven.store.background_job()
            if job is None:
                break
            job.run()
            self.driven.store.finish(job)
        self._acknowledge()

    @rule(slices=st.integers(1, 12))
    def maintain(self, slices: int) -> None:
        """Some slices and jobs of maintenance, which may be under way afterwards."""
        for _ in range(slices):
            self.clock_s += 10
            self.driven.store.maintain(self.clock_s)
            self.work(1)
            self.sync()

    @rule()
    def compact(self) -> None:
        """Ask for it; maintenance does it."""
        (reply,) = self.driven.replies(operation(wire.OP_COMPACT))
        assert reply.status == opbatch.NUMBER or self.driven.store.is_read_only

    @precondition(lambda self: not self.driven.store.is_read_only)
    @rule()
    def back_up(self) -> None:
        """What is restored from it is the state as it is now, and the shard goes on as if nothing had been."""
        data, target, new = self.driven.path.parent, self.root / "backup", self.root / "restored"
        if not (data / NAME).exists():
            write(data, IDENTITY)
        if target.exists() and self.driven.path.parent != self.backed_up:
            shutil.rmtree(target)  # it was of a directory that a power cut has ended
        self.backed_up = data
        take_backup(data, target, lambda: [msgpack.unpackb(self.driven.one(operation(wire.OP_SEAL)).payload)])
        restore(target, new)
        restored = Driven(shard_path(new, 0), self.options, clock=self.time.clock)
        for keyspace in set(KEYSPACES):
            held = {key: value for (_, key), value in self._visible(self.state, keyspace).items()}
            assert restored.items(keyspace=keyspace) == held
        restored.kill()
        shutil.rmtree(new)

    @rule(ms=st.sampled_from([1, 999, 1000, 60_000]))
    def pass_time(self, ms: int) -> None:
        self.time.pass_by(ms)

    @rule()
    def leave_a_job_under_way(self) -> None:
        """Its outcome is taken over later, by whoever needs it, or never."""
        self.driven.store.background_job()

    def _acknowledge(self) -> None:
        """What a worker would let go by now."""
        if self.options.sync != "always":
            return
        for lsn, state in self.parked:
            if lsn <= self.driven.store.durable_lsn:
                self.acknowledged = max(self.acknowledged, state)
        self.parked = [entry for entry in self.parked if entry[0] > self.driven.store.durable_lsn]

    # ---- failures ----

    @rule(
        kind=st.sampled_from(["write", "sync_data", "sync", "sync_directory", "allocate", "create", "unlink", "any"]),
        nth=st.integers(1, 4),
        error=st.sampled_from([errno.EIO, errno.ENOSPC]),
        part=st.sampled_from([0.0, 0.5, 1.0]),
        times=st.sampled_from([1, 1, 5]),
    )
    def break_the_disk(self, kind: str, nth: int, error: int, part: float, times: int) -> None:
        if kind != "any":
            # One fault a time may be taken back; a write and its truncation that both fail may leave the write.
            self.disk.fail(kind, nth, error, part, times if kind != "write" else 1)

    @rule()
    def mend_the_disk(self) -> None:
        self.disk.heal()

    @rule(left=st.sampled_from([0, 4096, 20_000]))
    def fill_the_disk(self, left: int) -> None:
        """Another program leaves so little."""
        self.disk.fill(left)

    @rule()
    def free_the_disk(self) -> None:
        self.disk.quota_bytes = UNBOUNDED
        self.driven.look_for_room()
        self._acknowledge()

    # ---- ends and beginnings ----

    @precondition(lambda self: not self.driven.store.is_read_only)
    @rule()
    def restart(self) -> None:
        self.disk.heal()
        self.driven.restart()
        self._acknowledge()
        self._begin_again()

    @rule()
    def kill(self) -> None:
        self.disk.heal()
        self.driven.kill()
        self._open()
        self._begin_again()

    @rule(nth=st.integers(1, 30))
    def kill_and_fail_to_open(self, nth: int) -> None:
        self.disk.heal()
        self.driven.kill()
        self.disk.fail("any", nth)
        self._open()
        self._begin_again()

    def _open(self) -> None:
        try:
            self.driven.open()
        except (OSError, KioError):
            self.disk.heal()
            self.disk.quota_bytes = UNBOUNDED
            self.driven.open()
        self.disk.heal()

    @rule(seed=st.integers(0, 2**32), in_order=st.booleans())
    def cut_the_power(self, seed: int, in_order: bool) -> None:
        self._acknowledge()
        self.cuts += 1
        self.disk.heal()
        self.driven.kill()
        before, after = self.driven.path.parent, self.root / str(self.cuts)
        self.disk.power_cut(before, after, random.Random(seed), in_order=in_order)
        shutil.rmtree(before)
        self.disk = FaultyQuotaDisk(forgets=False)
        self.driven = unopened(shard_path(after, 0), self.options, self.disk)
        self.driven.clock = self.time.clock
        self.driven.open()
        if self.driven.store._engine.suspect_lsn:
            self._look_behind_a_hole()
        else:
            assert self.driven.store.lsn >= self.acknowledged
            del self.states[self.driven.store.lsn + 1 :]
            self._begin_again()

    def _look_behind_a_hole(self) -> None:
        """What is answered is the state at the last LSN that survived; then the example begins anew."""
        state = self._visible(self.states[self.driven.store.lsn])
        assert self.driven.store.lsn >= self.acknowledged
        for keyspace in set(KEYSPACES):
            for key, answer in self.driven.answers(KEYS, keyspace).items():
                assert answer in (Corrupt, state.get((keyspace, key)))
        self.driven.kill()
        self.states, self.acknowledged, self.parked = [{}], 0, []
        self.cuts += 1
        self.driven = Driven(shard_path(self.root / str(self.cuts), 0), self.options, self.disk, clock=self.time.clock)

    def _begin_again(self) -> None:
        self.parked = []
        self.acknowledged = self.driven.store.lsn
        assert self.driven.store.durable_lsn == self.driven.store.lsn == len(self.states) - 1
        for keyspace in set(KEYSPACES):
            held = {key: value for (_, key), value in self._visible(self.state, keyspace).items()}
            assert self.driven.items(keyspace=keyspace) == held
            self._expect_number(self.driven.count(keyspace), keyspace)

    @invariant()
    def figures_are_those_of_the_records(self) -> None:
        if not hasattr(self, "driven"):
            return
        stats = self.driven.store.stats()
        if not self.driven.store.is_read_only and stats["keys"] == len(self.state):
            live = sum(
                (24 + 8 * (expiry > 0) + len(key) + len(value) + 7) // 8 * 8
                for (_, key), (value, expiry) in self.state.items()
            )
            # What was cleared is live until its word is gone.
            is_purging = self.driven.store._engine.has_floors
            assert stats["live_bytes"] >= live if is_purging else stats["live_bytes"] == live
        assert len(self._visible(self.state)) <= stats["keys"] <= len(self.state)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ShardMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_shard_is_its_model_through_failures_kills_and_power_cuts() -> None:
    run(40, 30)


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_a_shard_is_its_model_for_long() -> None:
    run(10_000 if os.environ.get("FULL") else 400, 60)
