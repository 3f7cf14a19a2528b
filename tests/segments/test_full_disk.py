"""A full disk: puts are refused, everything else goes on, and what is deleted makes room for puts again."""

from __future__ import annotations

import gc
import random
import shutil
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import Aborted, DiskFull, KioError, ShardReadOnly
from kio.limits import KIB, MIB
from kio.segments import reserve
from kio.segments.options import StoreOptions
from kio.segments.segment import KEPT_BACK_BYTES, capacity_for, kept_back_bytes
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.quota_disk import FaultyQuotaDisk, QuotaDisk
from tests.segments.support import Driven, delete, get, operation, put, unopened

SEGMENT = 512 * KIB
OPTIONS = StoreOptions(segment_bytes=SEGMENT)
DISK_BYTES = 8 * SEGMENT
VALUE = bytes(range(256)) * 8


@pytest.fixture
def disk() -> QuotaDisk:
    disk = QuotaDisk()
    disk.quota_bytes = DISK_BYTES
    return disk


@pytest.fixture
def driven(tmp_path: Path, disk: QuotaDisk) -> Driven:
    return Driven(tmp_path / "shard", OPTIONS, disk)


def key_of(number: int) -> bytes:
    return b"key %06d" % number


def fill(driven: Driven, value: bytes = VALUE, start: int = 0) -> dict[bytes, bytes]:
    """Put until the disk is full for good; what was acknowledged."""
    model: dict[bytes, bytes] = {}
    number = start
    while True:
        replies = driven.replies(*[put(key_of(i), value) for i in range(number, number + 20)])
        for i, reply in enumerate(replies, number):
            error = reply.error()
            if error is None:
                model[key_of(i)] = value
            else:
                assert type(error) is DiskFull
        number += 20
        if replies[-1].error():
            return model
        driven.run_jobs()


def delete_some(driven: Driven, model: dict[bytes, bytes], keys: list[bytes]) -> None:
    for key in keys:
        assert driven.delete(key)
        del model[key]


def settle(driven: Driven) -> None:
    """What a worker would do by itself in some seconds."""
    for _ in range(4):
        driven.look_for_room()
        driven.maintain()
    driven.look_for_room()


def can_put(driven: Driven, value: bytes = VALUE) -> bool:
    (reply,) = driven.replies(put(b"can put", value))
    assert type(reply.error()) in (type(None), DiskFull)
    return reply.error() is None


# ---- what a segment keeps back ----


def test_a_segment_made_for_a_record_has_room_for_it_beside_what_it_keeps_back() -> None:
    for room in range(100, 300 * MIB, 77_777):
        capacity = capacity_for(room)
        assert room <= capacity - kept_back_bytes(capacity)
        assert capacity <= room * 4 / 3 + 16
    for capacity in (256, 64 * KIB, MIB, 128 * MIB):
        assert kept_back_bytes(capacity) <= capacity / 4
    assert kept_back_bytes(MIB) == KEPT_BACK_BYTES


def test_puts_are_refused_and_reads_and_deletes_go_on(driven: Driven) -> None:
    model = fill(driven)
    assert len(model) * len(VALUE) > DISK_BYTES // 2
    assert driven.store.stats()["state"] == "full"
    chosen = random.Random(1).sample(sorted(model), 200)
    for key in chosen[:100]:
        assert driven.get(key) == VALUE
        with pytest.raises(DiskFull):
            driven.put(key, VALUE)
    delete_some(driven, model, chosen)
    replies = driven.replies(put(b"a", VALUE), delete(b"none"), get(b"a"), put(b"a", b""))
    assert [type(reply.error()) for reply in replies] == [DiskFull, type(None), type(None), DiskFull]
    for again in (driven.reopen, driven.restart):
        assert driven.items(limit=1000) == model
        again()


def test_the_part_kept_back_is_for_puts_too_when_the_next_segment_stands_ready(driven: Driven) -> None:
    disk = driven.disk
    assert isinstance(disk, QuotaDisk)
    while driven.store._chain.supply.prepared is None:
        driven.put(b"key", VALUE)
        driven.run_jobs()
    slot = driven.store._chain.active.slot
    while driven.store._chain.active.slot == slot:
        end = driven.store._engine.tail
        driven.put(b"key", VALUE)
    assert end > SEGMENT - kept_back_bytes(SEGMENT)


def test_tombstones_and_clears_use_up_what_was_kept_back_and_are_refused_then(driven: Driven, disk: QuotaDisk) -> None:
    model = fill(driven, bytes(30))
    tail = driven.store._engine.tail
    deleted = 0
    for key in list(model):
        try:
            assert driven.delete(key)
        except DiskFull:
            break
        del model[key]
        deleted += 1
    assert deleted * 72 > kept_back_bytes(SEGMENT) - 200
    assert driven.store._engine.tail > tail
    with pytest.raises(DiskFull):
        driven.clear()
    assert driven.count() == len(model)
    settle(driven)
    assert driven.clear() == len(model)
    driven.reopen()
    assert driven.count() == 0


def test_an_atomic_batch_is_refused_as_a_whole_or_deletes(driven: Driven) -> None:
    model = fill(driven)
    some = sorted(model)[:3]

    def run(*operations: opbatch.Operation) -> list[type[KioError] | None]:
        reply = driven.one(operation(wire.OP_ATOMIC, b"", opbatch.encode_batch(0, 1, operations)))
        errors = [inner.error() for inner in opbatch.decode_replies(reply.payload)]
        return [None if error is None else type(error) for error in errors]

    assert run(delete(some[0]), put(some[1], VALUE)) == [DiskFull, Aborted]
    assert driven.get(some[0]) == VALUE
    assert run(delete(some[0]), delete(some[1])) == [None, None]
    with pytest.raises(DiskFull):
        driven.put(some[2], VALUE)
    assert driven.get(some[0]) is None


# ---- room comes back ----


def test_writes_come_back_when_somebody_else_frees_room(driven: Driven, disk: QuotaDisk) -> None:
    disk.fill(SEGMENT)
    model = fill(driven)
    assert not can_put(driven)
    disk.quota_bytes = DISK_BYTES
    driven.look_for_room()
    assert driven.store.stats()["state"] == "serving"
    driven.put(b"back", VALUE)
    driven.reopen()
    assert driven.items(limit=1000) == model | {b"back": VALUE}


@pytest.mark.parametrize("which", ["every fifth", "the oldest", "the newest", "at random"])
def test_writes_come_back_when_keys_are_deleted(driven: Driven, disk: QuotaDisk, which: str) -> None:
    value = VALUE * 4
    model = fill(driven, value)
    keys = sorted(model)
    goal = len(keys) // 5
    chosen = {
        "every fifth": keys[::5],
        "the oldest": keys[:goal],
        "the newest": keys[-goal:],
        "at random": random.Random(2).sample(keys, goal),
    }[which]
    for round_ in range(1, 4):
        assert not can_put(driven, value)
        delete_some(driven, model, chosen)
        settle(driven)
        assert driven.store._chain.supply.reserve.is_whole
        more = fill(driven, value, start=len(keys) + 10_000)
        assert more, "writes do not come back"
        delete_some(driven, more, list(more))
        settle(driven)
        chosen = random.Random(3).sample(sorted(model), goal // 3)
        model |= fill(driven, value)
        assert driven.items(limit=1000) == model
        assert disk.used_bytes <= DISK_BYTES
        driven.reopen()
        assert driven.items(limit=1000) == model
        model |= fill(driven, value, start=20_000 * round_)


def test_a_full_disk_with_nothing_to_give_back_is_left_alone(driven: Driven, disk: QuotaDisk) -> None:
    fill(driven)
    settle(driven)
    edits = driven.store._manifest._sequence
    for _ in range(5):
        settle(driven)
    assert driven.store._manifest._sequence == edits
    assert driven.store.stats()["compactions"] == 0


def test_a_segment_is_sealed_on_a_full_disk(driven: Driven, disk: QuotaDisk) -> None:
    fill(driven, bytes(20))
    disk.fill()
    driven.store._chain.rotate(0, is_short=True)
    driven.run_jobs()
    assert not driven.store._chain._sealing
    assert disk.refused > 0


# ---- the spare ----


def test_the_spare_is_no_fault_no_stray_and_no_part_of_the_state(
    driven: Driven, caplog: pytest.LogCaptureFixture
) -> None:
    path = driven.path / reserve.NAME
    assert path.stat().st_size == SEGMENT
    driven.put(b"key", b"v")
    driven.restart()
    assert path.stat().st_size == SEGMENT
    path.unlink()
    driven.reopen()
    assert path.stat().st_size == SEGMENT
    assert driven.items() == {b"key": b"v"}
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


def test_a_compaction_that_took_the_spare_and_was_killed_leaves_it_to_the_next_open(
    driven: Driven, disk: QuotaDisk
) -> None:
    model = fill(driven)
    delete_some(driven, model, sorted(model)[:200:2])
    driven.run_jobs()
    disk.fill()
    now_s = 1e9
    while driven.store._chain.supply.output is None:
        now_s += 1
        driven.store.maintain(now_s)
        job = driven.store.sync_job() or driven.store.background_job()
        if job is not None:
            job.run()
            driven.store.finish(job)
    assert not (driven.path / reserve.NAME).exists()
    driven.reopen()
    assert driven.items(limit=1000) == model
    settle(driven)  # the active segment is a short one, which came out of the spare
    assert (driven.path / reserve.NAME).stat().st_size == SEGMENT


# ---- starts ----


@pytest.mark.parametrize("free", [0, 70 * KIB, 300 * KIB])
@pytest.mark.parametrize("end", ["kill", "restart"])
def test_a_shard_opens_on_a_full_disk_and_deletes_make_room(
    driven: Driven, disk: QuotaDisk, free: int, end: str
) -> None:
    model = fill(driven)
    for _ in range(5):
        disk.fill(free)
        if end == "kill":
            driven.reopen()
        else:
            driven.restart()
        assert driven.get(sorted(model)[0]) == VALUE
    assert driven.items(limit=1000) == model
    delete_some(driven, model, sorted(model)[:250])
    settle(driven)
    assert can_put(driven)
    driven.reopen()
    assert driven.items(limit=1000) == model | {b"can put": VALUE}


def test_a_shard_whose_spare_is_gone_opens_for_its_readers(driven: Driven, disk: QuotaDisk) -> None:
    model = fill(driven)
    for _ in range(2):
        driven.kill()
        # Somebody has removed it, and taken its room.
        disk.unlink(driven.path / reserve.NAME)
        disk.fill()
        driven.open()
        assert driven.items(limit=1000) == model
        assert driven.store.stats()["state"] == "read-only"
        assert "free some space" in driven.store.stats()["reason"]
        with pytest.raises(ShardReadOnly):
            driven.put(b"key", b"")
    disk.quota_bytes = 2 * DISK_BYTES
    driven.reopen()
    assert driven.store.stats()["state"] == "serving"
    driven.put(b"key", b"")
    driven.restart()
    assert driven.items(limit=1000) == model | {b"key": b""}


# ---- a file system that cannot allocate ahead ----


def test_where_nothing_can_be_allocated_ahead_writes_are_refused_and_come_back(driven: Driven, disk: QuotaDisk) -> None:
    disk.allocates = False
    model = fill(driven)
    assert driven.items(limit=1000) == model
    assert not can_put(driven, bytes(64 * KIB))
    settle(driven)
    assert driven.items(limit=1000) == model
    driven.reopen()
    assert driven.items(limit=1000) == model
    disk.quota_bytes = 2 * DISK_BYTES
    settle(driven)
    model |= fill(driven, start=100_000)
    driven.reopen()
    assert driven.items(limit=1000) == model


# ---- blocks ----


def test_what_a_compaction_removes_gives_its_blocks_back_at_once(driven: Driven) -> None:
    """A file that is mapped keeps its blocks: nothing may hold one until a collection of cycles."""
    model = fill(driven)
    gc.collect()
    gc.disable()
    try:
        delete_some(driven, model, sorted(model)[::4])
        driven.maintain()
        assert driven.store.stats()["segments_dropped"] > 3
        maps = Path("/proc/self/maps").read_text()
    finally:
        gc.enable()
    assert [line for line in maps.splitlines() if str(driven.path) in line and "(deleted)" in line] == []


def test_a_shard_with_room_gives_dead_bytes_back_when_the_disk_is_tight(tmp_path: Path, disk: QuotaDisk) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS, disk)
    for number in range(600):
        driven.put(key_of(number), VALUE)
        driven.run_jobs()
    for number in range(0, 600, 8):
        driven.delete(key_of(number))
    driven.maintain()
    assert driven.store.stats()["compactions"] == 0
    dead = driven.store.stats()["dead_bytes"]
    disk.fill(SEGMENT)
    driven._clock_s += 10
    driven.maintain()
    stats = driven.store.stats()
    assert stats["state"] == "serving"
    assert stats["compactions"] > 0
    assert stats["dead_bytes"] < dead / 4  # what is in the active segment


def test_kio_compact_on_a_full_disk_keeps_nothing_else_waiting(driven: Driven) -> None:
    model = fill(driven)
    delete_some(driven, model, sorted(model)[:250])
    assert driven.compact() > 0
    settle(driven)
    assert can_put(driven)
    assert driven.items(limit=1000) == model | {b"can put": VALUE}


@pytest.mark.parametrize("kind", ["create", "allocate", "write", "sync", "rename", "sync_directory", "truncate"])
def test_a_full_disk_that_fails_too_costs_nothing_but_time(tmp_path: Path, kind: str) -> None:
    disk = FaultyQuotaDisk()
    disk.quota_bytes = DISK_BYTES
    driven = Driven(tmp_path / "shard", OPTIONS, disk)
    model = fill(driven)
    delete_some(driven, model, sorted(model)[:250:2])
    driven.run_jobs()
    disk.fill()
    disk.fail(kind, times=2)
    driven.maintain()
    disk.heal()
    if driven.store.is_read_only:
        driven.reopen()
    settle(driven)
    assert driven.items(limit=1000) == model
    assert driven.store._chain.supply.reserve.is_whole


# ---- crashes ----


@pytest.mark.parametrize("seed", range(2))
def test_a_compaction_through_the_spare_can_be_cut_off_at_every_moment(tmp_path: Path, seed: int) -> None:
    disk = FaultyQuotaDisk(forgets=False)
    options = StoreOptions(segment_bytes=64 * KIB)
    disk.quota_bytes = 8 * options.segment_bytes
    driven = Driven(tmp_path / "0" / "shard", options, disk)
    model = fill(driven, bytes(1000))
    delete_some(driven, model, sorted(model)[:200:3])
    driven.run_jobs()
    driven.sync()
    disk.fill()
    chance = random.Random(seed)
    moments: list[str] = []

    def look(kind: str) -> None:
        moments.append(kind)
        target = tmp_path / f"{len(moments)}"
        if len(moments) % 2:
            shutil.copytree(driven.path, target / "shard")
        else:
            disk.power_cut(tmp_path / "0", target, chance)
        after = unopened(target / "shard", options, CarelessDisk()).open()
        assert after.items(limit=1000) == model, f"before {kind}, call {disk.calls['any']}"
        assert (target / "shard" / reserve.NAME).stat().st_size == options.segment_bytes
        after.kill()
        shutil.rmtree(target)

    disk.on_change = look
    driven.maintain()
    disk.on_change = None
    assert driven.store.stats()["compactions"] > 0
    assert {"rename", "unlink", "sync_directory", "truncate"} <= set(moments)
    driven.reopen()
    assert driven.items(limit=1000) == model
