"""Group commit, parked replies, and what a sync that fails leaves."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import ShardReadOnly
from kio.opbatch import Operation
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.support import Driven, delete, get, operation, put, value_of

ALWAYS = StoreOptions(segment_bytes=64 * 1024, sync="always")
INTERVAL = StoreOptions(segment_bytes=64 * 1024)


def exists(key: bytes) -> Operation:
    return operation(wire.OP_EXISTS, key)


def parked_and_not(driven: Driven, *operations: Operation) -> tuple[list[int], list[int]]:
    """Which operations' replies are parked, and which may leave."""
    executed = driven.execute(*operations)
    return tuple(
        [reply[0] for reply in opbatch.decode_replies(message)] if message else []
        for message in (executed.parked, executed.replies)
    )  # type: ignore[return-value]


# ---- group commit ----


def test_a_sync_covers_only_what_was_written_before_it_began(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    first = driven.execute(put(b"a", b"1"))
    job = driven.store.sync_job()
    assert job is not None
    second = driven.execute(put(b"b", b"2"))
    job.run()
    driven.store.finish(job)
    assert first.parked_lsn <= driven.store.durable_lsn < second.parked_lsn
    driven.sync()
    assert driven.store.durable_lsn >= second.parked_lsn
    assert driven.store.unsynced_bytes == 0


def test_one_sync_is_under_way_at_a_time_and_none_when_all_is_durable(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    assert driven.store.sync_job() is None
    driven.put(b"a", b"1")
    job = driven.store.sync_job()
    assert job is not None
    assert driven.store.sync_job() is None
    job.run()
    driven.store.finish(job)
    assert driven.store.sync_job() is None


def test_a_sync_that_is_run_late_or_twice_or_finished_twice_counts_once(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ALWAYS, disk)
    driven.put(b"a", b"1")
    job = driven.store.sync_job()
    assert job is not None
    before = disk.calls["sync_data"]
    job.run()
    job.run()
    assert disk.calls["sync_data"] == before + 1
    driven.store.finish(job)
    driven.put(b"b", b"2")
    driven.store.finish(job)
    assert driven.store.durable_lsn == 1
    assert driven.store.unsynced_bytes > 0


def test_only_always_parks(tmp_path: Path) -> None:
    for i, sync in enumerate(("interval", "os", "always")):
        driven = Driven(tmp_path / sync, StoreOptions(sync=sync))
        executed = driven.execute(put(b"a", b"1"), get(b"a"), get(b"b"))
        assert bool(executed.parked) == (i == 2)
        driven.kill()


# ---- what is parked ----


def test_writes_and_reads_of_fresh_records_are_parked_and_other_reads_are_not(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"old", b"1")
    driven.sync()
    parked, free = parked_and_not(
        driven, get(b"old"), put(b"new", b"2"), get(b"new"), exists(b"new"), exists(b"old"), get(b"none"), get(b"old")
    )
    assert (parked, free) == ([1, 2, 3], [0, 4, 5, 6])
    assert parked_and_not(driven, get(b"new"), get(b"old")) == ([0], [1])
    driven.sync()
    assert parked_and_not(driven, get(b"new"), exists(b"new")) == ([], [0, 1])


def test_a_miss_that_a_fresh_tombstone_caused_is_parked(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"gone", b"1")
    driven.sync()
    assert parked_and_not(driven, delete(b"gone")) == ([0], [])
    assert parked_and_not(driven, get(b"gone"), exists(b"gone"), delete(b"gone")) == ([0, 1, 2], [])
    job = driven.store.sync_job()
    assert job is not None
    job.run()
    assert parked_and_not(driven, get(b"gone")) == ([0], [])
    driven.store.finish(job)
    assert parked_and_not(driven, get(b"gone"), exists(b"gone")) == ([], [0, 1])


def test_a_miss_that_a_fresh_clear_caused_is_parked(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"gone", b"1")
    driven.sync()
    assert driven.clear() == 1
    assert parked_and_not(driven, get(b"gone"), exists(b"gone")) == ([0, 1], [])
    driven.sync()
    assert parked_and_not(driven, get(b"gone"), exists(b"gone")) == ([], [0, 1])


def test_a_tombstone_written_during_a_sync_waits_for_the_next_one(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"a", b"1")
    job = driven.store.sync_job()
    assert job is not None
    driven.delete(b"a")
    job.run()
    driven.store.finish(job)
    assert parked_and_not(driven, get(b"a")) == ([0], [])
    driven.sync()
    assert parked_and_not(driven, get(b"a")) == ([], [0])


def test_count_clear_and_scan_are_parked_while_anything_is_not_durable(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    page = operation(wire.OP_SCAN, value=opbatch.SCAN_ARGUMENTS.pack(0, 10, wire.SCAN_KEYS))
    count = operation(wire.OP_COUNT)
    assert parked_and_not(driven, page, count) == ([], [0, 1])
    driven.put(b"a", b"1")
    assert parked_and_not(driven, page, count, operation(wire.OP_CLEAR)) == ([0, 1, 2], [])
    driven.sync()
    assert parked_and_not(driven, page, count) == ([], [0, 1])


# ---- a sync that fails ----


@pytest.mark.parametrize("options", [ALWAYS, INTERVAL], ids=lambda options: options.sync)
def test_after_a_failed_sync_nothing_that_was_not_durable_is_served(tmp_path: Path, options: StoreOptions) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", options, disk)
    for key in (b"kept", b"overwritten", b"deleted"):
        driven.put(key, b"durable")
    driven.sync()
    durable = driven.store.durable_lsn
    driven.put(b"new", b"lost")
    driven.put(b"overwritten", b"lost")
    driven.delete(b"deleted")
    disk.fail("sync_data")
    driven.sync()
    assert driven.store.is_read_only
    assert driven.store.durable_lsn == durable
    assert driven.store.sync_job() is None
    assert driven.store.background_job() is None
    answers = driven.answers([b"kept", b"overwritten", b"deleted", b"new", b"never there"])
    assert answers.pop(b"never there") in (None, ShardReadOnly)
    assert answers == {
        b"kept": b"durable",
        b"overwritten": ShardReadOnly,
        b"deleted": ShardReadOnly,
        b"new": ShardReadOnly,
    }
    assert driven.execute(get(b"deleted"), get(b"new"), exists(b"deleted")).parked == b""
    with pytest.raises(ShardReadOnly):
        driven.exists(b"overwritten")
    with pytest.raises(ShardReadOnly):
        driven.exists(b"deleted")
    with pytest.raises(ShardReadOnly):
        driven.items()
    with pytest.raises(ShardReadOnly):
        driven.count()
    for refused in (put(b"kept", b"x"), delete(b"kept"), delete(b"never there"), operation(wire.OP_CLEAR)):
        with pytest.raises(ShardReadOnly):
            driven.one(refused)
    assert driven.get(b"kept") == b"durable"
    assert driven.store.stats()["state"] == "read-only"


def test_after_a_failed_sync_behind_a_clear_no_key_is_called_absent(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", INTERVAL, disk)
    driven.put(b"cleared", b"durable")
    driven.sync()
    driven.clear()
    disk.fail("sync_data")
    driven.sync()
    assert driven.answers([b"cleared"]) == {b"cleared": ShardReadOnly}


def test_a_store_whose_sync_failed_closes_and_gives_its_lock_up(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ALWAYS, disk)
    driven.put(b"a", b"1")
    disk.fail("sync_data", error=errno.ENOSPC)
    driven.sync()
    assert driven.store.is_read_only
    driven.store.close()
    driven.open()
    driven.put(b"b", b"2")


def test_a_sync_that_failed_counts_for_the_manifest_of_a_clean_stop_too(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", INTERVAL, disk)
    driven.put(b"a", b"1")
    disk.fail("sync_data")
    driven.store.close()
    epoch = driven.store.stats()["epoch"]
    driven.open()
    assert driven.store.stats()["epoch"] == epoch + 1


def test_replies_of_reads_wait_for_the_record_they_show_and_for_nothing_else(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"a", b"1")
    job = driven.store.sync_job()
    driven.put(b"a", b"2")
    assert job is not None
    job.run()
    driven.store.finish(job)
    executed = driven.execute(get(b"a"))
    assert executed.replies == b""
    (reply,) = opbatch.decode_replies(executed.parked)
    assert value_of(reply) == b"2"
    assert executed.parked_lsn > driven.store.durable_lsn
