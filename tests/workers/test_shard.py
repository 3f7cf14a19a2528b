"""The shard without sockets, threads or a clock: what leaves at once, what waits, when a sync is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from kio import opbatch, wire
from kio.errors import Corrupt, Overloaded, ProtocolError, ShardReadOnly
from kio.opbatch import Operation, Reply
from kio.workers.shard import (
    PACED_BYTES_PER_S,
    SYNC_BYTES_MAX,
    UNSYNCED_BYTES_MAX,
    FailedShard,
    Shard,
    SyncPolicy,
    refuse,
)

RECORD_BYTES = 100
ALWAYS = SyncPolicy("always")
INTERVAL = SyncPolicy("interval", 0.1)
OS = SyncPolicy("os")


class ScriptedJob(NamedTuple):
    kind: str
    lsn: int

    def run(self) -> None:
        """What a helper thread would do."""


class Executed(NamedTuple):
    replies: bytes
    parked: bytes
    parked_lsn: int
    is_cut: bool = False


class ScriptedStore:
    """As much of a store as a shard sees: a dict, LSNs, and a disk that the test decides about."""

    def __init__(self, sync: str) -> None:
        self.sync = sync
        self.values: dict[bytes, bytes] = {}
        self.lsn = self.durable_lsn = 0
        self.unsynced_bytes = 0
        self.is_read_only = False
        self.wants_sync = False
        self.arrears = 0.0
        self.wants_slice = False
        self.sync_fails = False
        self.executed: list[list[int]] = []

    def execute(self, batch: bytes) -> Executed:
        shard, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
        now: list[Reply] = []
        parked: list[Reply] = []
        operations = opbatch.decode_batch(batch)
        self.executed.append([operation.op for operation in operations])
        for index, operation in enumerate(operations):
            if operation.op == wire.OP_SET:
                self.values[operation.key] = operation.value
                self.lsn += 1
                self.unsynced_bytes += RECORD_BYTES
                (parked if self.sync == "always" else now).append(Reply(index, opbatch.DONE, b""))
            else:
                now.append(Reply(index, opbatch.VALUE, self.values.get(operation.key, b"")))
        return Executed(
            opbatch.encode_replies(shard, batch_id, now) if now else b"",
            opbatch.encode_replies(shard, batch_id, parked) if parked else b"",
            self.lsn if parked else 0,
        )

    @property
    def state(self):
        return "read-only" if self.is_read_only else "serving"

    def sync_job(self) -> ScriptedJob | None:
        if not self.unsynced_bytes:
            return None
        self.unsynced_bytes = 0
        return ScriptedJob("sync", self.lsn)

    def background_job(self) -> None:
        return None

    def finish(self, job: ScriptedJob) -> None:
        if self.sync_fails:
            self.is_read_only = True
        else:
            self.durable_lsn = max(self.durable_lsn, job.lsn)

    def stats(self) -> dict[str, Any]:
        return {"keys": len(self.values), "unsynced_bytes": self.unsynced_bytes, "reason": ""}

    def close(self) -> None:
        self.durable_lsn = self.lsn


def make(policy: SyncPolicy) -> tuple[Shard, Any]:
    store: Any = ScriptedStore(policy.mode)
    return Shard(3, store, policy), store


def batch_of(*operations: Operation, batch_id: int = 1) -> bytes:
    return opbatch.encode_batch(3, batch_id, operations)


def a_set(key: bytes = b"k") -> Operation:
    return Operation(wire.OP_SET, key, b"v")


def a_get(key: bytes = b"k") -> Operation:
    return Operation(wire.OP_GET, key)


def batch_ids(messages: Iterator[bytes]) -> list[int]:
    return [opbatch.decode_header(message, opbatch.REPLIES_MAGIC)[1] for message in messages]


def statuses(replies: bytes) -> dict[int, int]:
    return {reply.index: reply.status for reply in opbatch.decode_replies(replies)}


def test_with_always_a_write_waits_for_its_sync_and_a_read_beside_it_does_not():
    shard, _ = make(ALWAYS)
    assert statuses(shard.execute(batch_of(a_set(), a_get(b"other"), batch_id=7), 0.0)) == {1: opbatch.VALUE}
    assert not shard.is_idle
    job = shard.pick_sync(0.0)
    assert job is not None
    released = list(shard.finish(job))
    assert [statuses(replies) for replies in released] == [{0: opbatch.DONE}]
    assert shard.is_idle


def test_with_always_a_write_made_during_a_sync_waits_for_the_next_one():
    shard, _ = make(ALWAYS)
    shard.execute(batch_of(a_set(), batch_id=1), 0.0)
    first = shard.pick_sync(0.0)
    assert first is not None
    shard.execute(batch_of(a_set(), batch_id=2), 0.0)
    shard.execute(batch_of(a_set(), batch_id=3), 0.0)
    assert shard.pick_sync(0.0) is None, "one sync at a time"
    assert batch_ids(shard.finish(first)) == [1]
    second = shard.pick_sync(0.0)
    assert second is not None
    assert batch_ids(shard.finish(second)) == [2, 3], "one sync answers every write that waits"
    assert shard.pick_sync(0.0) is None


def test_with_interval_a_sync_is_wanted_one_interval_after_the_first_unsynced_write():
    shard, _ = make(INTERVAL)
    assert shard.wake_at() is None, "an idle shard needs no timer"
    assert statuses(shard.execute(batch_of(a_set()), 10.0)) == {0: opbatch.DONE}
    shard.execute(batch_of(a_set()), 10.05)
    assert shard.wake_at() == pytest.approx(10.1)
    assert shard.pick_sync(10.09) is None
    job = shard.pick_sync(10.1)
    assert job is not None
    assert list(shard.finish(job)) == []
    assert shard.wake_at() is None


def test_with_interval_a_write_during_a_sync_starts_the_next_interval():
    shard, _ = make(INTERVAL)
    shard.execute(batch_of(a_set()), 1.0)
    job = shard.pick_sync(1.1)
    assert job is not None
    shard.execute(batch_of(a_set()), 1.15)
    assert shard.wake_at() is None, "no timer while a sync is under way"
    assert shard.pick_sync(5.0) is None
    list(shard.finish(job))
    assert shard.wake_at() == pytest.approx(1.25)


def test_with_interval_many_unsynced_bytes_are_synced_without_waiting():
    shard, store = make(INTERVAL)
    shard.execute(batch_of(a_set()), 1.0)
    store.unsynced_bytes = SYNC_BYTES_MAX
    assert shard.pick_sync(1.0) is not None


def test_with_interval_maintenance_does_not_wait_for_the_interval():
    shard, store = make(INTERVAL)
    shard.execute(batch_of(a_set()), 0.0)
    assert shard.pick_sync(0.01) is None
    store.wants_sync = True
    assert shard.pick_sync(0.02) is not None
    assert shard.pick_sync(0.03) is None


def test_behind_writes_that_compaction_does_not_keep_up_with_the_next_batch_waits():
    shard, store = make(OS)
    shard.execute(batch_of(a_set()), 0.0)
    assert shard.pause_s == 0.0
    store.arrears = 0.5
    batch = batch_of(*(a_set() for _ in range(100)))
    shard.execute(batch, 0.0)
    assert shard.pause_s == pytest.approx(0.5 * len(batch) / PACED_BYTES_PER_S)
    shard.execute(batch_of(a_get()), 0.0)
    assert shard.pause_s == 0.0, "reads wait for nothing"


def test_a_shard_that_has_passed_its_limit_wants_a_slice_of_maintenance():
    shard, store = make(OS)
    shard.execute(batch_of(a_set()), 0.0)
    assert not shard.wants_slice
    store.wants_slice = True
    assert shard.wants_slice


def test_with_os_no_sync_is_ever_wanted():
    shard, store = make(OS)
    shard.execute(batch_of(a_set()), 1.0)
    store.unsynced_bytes = 4 * UNSYNCED_BYTES_MAX
    assert shard.pick_sync(1e6) is None
    assert shard.wake_at() is None
    assert statuses(shard.execute(batch_of(a_set()), 1e6)) == {0: opbatch.DONE}


def test_when_a_sync_fails_the_writes_that_waited_for_it_get_an_error_that_says_they_may_be_applied():
    shard, store = make(ALWAYS)
    shard.execute(batch_of(a_set(), a_set(b"other"), batch_id=4), 0.0)
    job = shard.pick_sync(0.0)
    assert job is not None
    shard.execute(batch_of(a_set(), batch_id=5), 0.0)
    store.sync_fails = True
    refused = list(shard.finish(job))
    assert batch_ids(iter(refused)) == [4, 5]
    read_only = ShardReadOnly.code | opbatch.MAYBE_APPLIED
    assert statuses(refused[0]) == {0: read_only, 1: read_only}
    error = opbatch.decode_replies(refused[0])[0].error()
    assert isinstance(error, ShardReadOnly)
    assert error.maybe_applied
    assert shard.state == "read-only"
    assert shard.stats(0.0)["state"] == "read-only"


def test_what_is_parked_by_a_shard_that_is_read_only_waits_for_no_sync():
    shard, store = make(ALWAYS)
    shard.execute(batch_of(a_set(), batch_id=4), 0.0)
    job = shard.pick_sync(0.0)
    assert job is not None
    store.is_read_only = True  # a write failed, and an earlier one is being synced
    shard.execute(batch_of(a_set(), batch_id=5), 0.0)
    assert not shard.gives_up
    assert batch_ids(shard.finish(job)) == [4, 5]
    shard.execute(batch_of(a_set(), batch_id=6), 0.0)
    assert shard.gives_up
    (refused,) = shard.release()
    assert statuses(refused) == {0: ShardReadOnly.code | opbatch.MAYBE_APPLIED}
    assert not shard.gives_up


def test_an_overdue_sync_is_told_and_logged_once(caplog: pytest.LogCaptureFixture):
    shard, _ = make(INTERVAL)
    shard.execute(batch_of(a_set()), 0.0)
    assert shard.pick_sync(0.1) is not None
    assert shard.stats(5.9)["reason"] == ""
    for now in (6.1, 6.6, 7.1):
        assert "overdue" in shard.stats(now)["reason"]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["shard=3 sync overdue"]


def test_behind_an_overdue_sync_reads_go_on_and_writes_are_refused_without_being_executed():
    shard, store = make(INTERVAL)
    shard.execute(batch_of(a_set(b"old")), 0.0)
    assert shard.pick_sync(0.1) is not None
    store.unsynced_bytes = UNSYNCED_BYTES_MAX + 1
    assert statuses(shard.execute(batch_of(a_set()), 1.0)) == {0: opbatch.DONE}, "late is not yet overdue"
    replies = shard.execute(batch_of(a_set(b"new"), a_get(b"old"), a_set(b"new"), a_get(b"new")), 10.0)
    assert statuses(replies) == {0: Overloaded.code, 1: opbatch.VALUE, 2: Overloaded.code, 3: opbatch.VALUE}
    assert {r.index: r.payload for r in opbatch.decode_replies(replies)}[1] == b"v"
    assert b"new" not in store.values


def test_replies_that_a_dead_router_waited_for_are_dropped():
    shard, _ = make(ALWAYS)
    shard.execute(batch_of(a_set()), 0.0)
    job = shard.pick_sync(0.0)
    assert job is not None
    shard.forget_parked()
    assert list(shard.finish(job)) == []
    assert shard.is_idle


def test_closing_answers_what_was_parked():
    shard, _ = make(ALWAYS)
    shard.execute(batch_of(a_set(), batch_id=9), 0.0)
    assert batch_ids(shard.close()) == [9]


def test_a_failed_shard_answers_every_operation_with_what_kept_it_from_opening():
    shard = FailedShard(3, Corrupt("manifest of shard 3 is corrupt at offset 24"))
    replies = opbatch.decode_replies(shard.execute(batch_of(a_set(), a_get()), 0.0))
    assert [(reply.index, reply.status) for reply in replies] == [(0, Corrupt.code), (1, Corrupt.code)]
    error = replies[0].error()
    assert error is not None
    assert "offset 24" in str(error)
    assert shard.stats(0.0)["state"] == "failed"
    assert "offset 24" in shard.stats(0.0)["reason"]


def test_refusing_bounds_what_a_header_claims():
    header = opbatch.HEADER.pack(opbatch.BATCH_MAGIC, 3, 1, 0xFFFFFFFF, 0)
    with pytest.raises(ProtocolError, match="cannot hold"):
        refuse(header, Corrupt())
