"""Expiry: a key is absent from its time on, in every life of the shard, and what it took is given back."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kio.errors import Corrupt, DiskFull, ShardReadOnly
from kio.opbatch import DONE, TTL
from kio.segments import format
from kio.segments.format import HIDES, PUT, TOMBSTONE, Record
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk
from tests.segments.support import SMALL, Driven, Time, hash_of, key_of_hash, put
from tests.segments.test_recovery import damage, manifest_of, segment_files
from tests.segments.test_sealing import append_records, expiring

ROOMY = StoreOptions(segment_bytes=1 << 20)
DAY_MS = 86_400_000


def plain(key: bytes, value: bytes, flags: int = 0) -> Record:
    return Record(0, 0, PUT, 0, key, value, flags)


def sweep(driven: Driven, time: Time, ms: int = 0) -> None:
    """Let time pass, then all that the sweeper wants to do."""
    time.pass_by(ms)
    driven.maintain()


def live_bytes(driven: Driven) -> int:
    live: int = driven.store.stats()["live_bytes"]
    return live


def reopen_unsealed(driven: Driven) -> None:
    driven.reopen()


def reopen_sealed(driven: Driven) -> None:
    driven.run_jobs()
    driven.restart()


WAYS = [reopen_unsealed, reopen_sealed]


@pytest.mark.parametrize("reopen", WAYS)
def test_what_has_expired_leaves_count_and_live_bytes_without_being_read(
    tmp_path: Path, reopen: Callable[[Driven], None]
) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    driven.put(b"stays", b"1")
    base = live_bytes(driven)
    at = time.wall_ms + 5000
    append_records(driven, [expiring(0, b"key %d" % i, at + i, b"value") for i in range(3000)])
    driven.open()
    reopen(driven)
    assert driven.count() == 3001
    sweep(driven, time, 4999)
    assert driven.count() == 3001
    sweep(driven, time, 1001)
    assert (driven.count(), driven.store.stats()["expired"]) == (2000, 1001)
    assert driven.items() == {b"stays": b"1"} | {b"key %d" % i: b"value" for i in range(1001, 3000)}
    sweep(driven, time, 10_000)
    assert driven.items() == {b"stays": b"1"}
    assert (driven.count(), live_bytes(driven), driven.store.stats()["expired"]) == (1, base, 3000)
    reopen(driven)
    sweep(driven, time)
    assert (driven.items(), driven.count(), live_bytes(driven)) == ({b"stays": b"1"}, 1, base)


@pytest.mark.parametrize("reopen", WAYS)
def test_only_the_newest_record_of_a_key_can_expire_it(tmp_path: Path, reopen: Callable[[Driven], None]) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", SMALL, clock=time.clock)
    now = time.wall_ms
    append_records(driven, [
        expiring(0, b"overwritten", now + 10), plain(b"overwritten", b"for ever", HIDES),
        expiring(0, b"prolonged", now + 10, b"old"), expiring(0, b"prolonged", now + 1000, b"new", flags=HIDES),
        expiring(0, b"shortened", now + 1000, b"old"), expiring(0, b"shortened", now + 10, b"new", flags=HIDES),
        plain(b"given a time", b"old"), expiring(0, b"given a time", now + 10, b"new", flags=HIDES),
        expiring(0, b"deleted", now + 10), Record(0, 0, TOMBSTONE, 0, b"deleted", b"", HIDES),
        expiring(0, b"elsewhere", now + 10, b"1", keyspace=4), plain(b"elsewhere", b"2"),
    ])  # fmt: skip
    driven.open()
    reopen(driven)
    sweep(driven, time, 500)
    for _ in range(3):
        assert driven.items() == {b"overwritten": b"for ever", b"prolonged": b"new", b"elsewhere": b"2"}
        assert (driven.count(), driven.count(4)) == (3, 0)
        assert set(driven.answers([b"shortened", b"given a time", b"deleted"]).values()) == {None}
        reopen(driven)
        sweep(driven, time)
    sweep(driven, time, 1000)
    assert driven.items() == {b"overwritten": b"for ever", b"elsewhere": b"2"}


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_is_the_model_whatever_the_order_of_times(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    time = Time()
    driven = Driven(tmp_path / "shard", SMALL, clock=time.clock)
    model: dict[bytes, tuple[int, bytes]] = {}
    for _ in range(12):
        records = []
        for _ in range(60):
            key, value = b"key %d" % chance.randrange(200), chance.randbytes(chance.randrange(9))
            at = time.wall_ms + chance.choice([1, 100, 100, chance.randrange(400)])
            flags = HIDES if key in model else 0
            records.append(expiring(0, key, at, value, flags=flags))
            model[key] = (at, value)
        append_records(driven, records)
        driven.open()
        sweep(driven, time, chance.randrange(60))
        model = {key: (at, value) for key, (at, value) in model.items() if at > time.wall_ms}
        assert driven.items() == {key: value for key, (_, value) in model.items()}
        assert driven.count() == len(model)
        live = sum((24 + 8 + len(key) + len(value) + 7) // 8 * 8 for key, (_, value) in model.items())
        assert live_bytes(driven) == live


def test_a_scan_passes_over_what_has_expired_before_any_sweep_and_tells_damage(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    active, end = driven.store._chain.active.path, driven.store._engine.tail
    append_records(driven, [expiring(0, b"a", time.wall_ms + 10, b"1"), expiring(0, b"b", time.wall_ms + 20, b"2")])
    driven.open()
    assert driven.items() == {b"a": b"1", b"b": b"2"}
    time.pass_by(10)
    assert driven.items() == {b"b": b"2"}
    assert driven.items(b"a") == {}
    # A time that was changed by damage hides nothing.
    damage(active, end + 24, (1).to_bytes(8, "little"))
    with pytest.raises(Corrupt):
        driven.items()


def test_an_expired_record_hides_the_older_one_after_any_number_of_starts(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", SMALL, clock=time.clock)
    driven.put(b"k", b"v1")
    driven.run_jobs()
    driven.restart()
    append_records(driven, [expiring(0, b"k", time.wall_ms + 1000, b"v2", flags=HIDES)])
    driven.open()
    sweep(driven, time, 1000)
    for reopen in (*WAYS, *WAYS):
        assert (driven.get(b"k"), driven.items(), driven.count()) == (None, {}, 0)
        reopen(driven)
        sweep(driven, time)
    driven.put(b"k", b"v3")
    sweep(driven, time, DAY_MS)
    for reopen in WAYS:
        reopen(driven)
        assert driven.items() == {b"k": b"v3"}


# ---- while it serves ----


def set_for(driven: Driven, key: bytes, value: bytes, ttl_ms: int) -> None:
    assert driven.one(put(key, value, flags={TTL: ttl_ms})).status == DONE


@pytest.mark.parametrize("seed", range(4))
def test_keys_expire_in_any_order_while_segments_fill_and_are_sealed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    time = Time()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=8192), CarelessDisk(), clock=time.clock)
    model: dict[bytes, tuple[int, bytes]] = {}
    for _ in range(60):
        batch = []
        for _ in range(chance.randrange(40)):
            key, value = b"key %d" % chance.randrange(300), chance.randbytes(chance.randrange(20))
            # A few times to live, and any: some stand in line, some do not.
            ttl_ms = chance.choice([0, 500, 500, 5000, chance.randrange(1, 3000)])
            batch.append(put(key, value, flags={TTL: ttl_ms} if ttl_ms else {}))
            model[key] = (time.wall_ms + ttl_ms if ttl_ms else 1 << 62, value)
        assert {reply.status for reply in driven.replies(*batch)} <= {DONE}
        if chance.random() < 0.3:
            driven.run_jobs()
        sweep(driven, time, chance.randrange(200))
        model = {key: (at, value) for key, (at, value) in model.items() if at > time.wall_ms}
        assert (driven.items(), driven.count()) == ({key: value for key, (_, value) in model.items()}, len(model))
        assert live_bytes(driven) == sum(
            (24 + 8 * (at < 1 << 62) + len(key) + len(value) + 7) // 8 * 8 for key, (at, value) in model.items()
        )
        if chance.random() < 0.1:
            chance.choice(WAYS)(driven)
    assert driven.store.stats()["segments"] > 2


def test_the_keydir_gives_back_what_keys_that_expired_together_took(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=16 << 20), CarelessDisk(), clock=time.clock)
    engine = driven.store._engine

    # All in two pages of the KeyDir, so that a few thousand keys are many.
    keys = [key_of_hash(hash_of(page, tag * 100)) for page in (0, 300) for tag in range(9000)]
    stays, goes = keys[::2], keys[1::2]
    driven.execute(*[put(key, b"") for key in stays])
    base = engine.keydir.allocated_bytes
    driven.execute(*[put(key, b"", flags={TTL: 1000}) for key in goes])
    assert engine.keydir.allocated_bytes > 1.8 * base
    sweep(driven, time, 1000)
    assert driven.count() == len(stays)
    assert engine.keydir.allocated_bytes < 1.1 * base
    assert set(driven.answers(stays[::7]).values()) == {b""}
    assert set(driven.answers(goes[::7]).values()) == {None}
    driven.kill()


def test_a_write_that_was_taken_back_expires_nothing_that_took_its_place(tmp_path: Path) -> None:
    time = Time()
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk, clock=time.clock)
    disk.fail("write", 1, errno.ENOSPC)
    with pytest.raises(DiskFull):
        driven.one(put(b"k", b"12345678", flags={TTL: 10}))
    # A record of the same key at the same offset.
    driven.put(b"k", b"for ever")
    sweep(driven, time, 1000)
    assert (driven.items(), driven.count()) == ({b"k": b"for ever"}, 1)
    set_for(driven, b"l", b"", 10)
    sweep(driven, time, 10)
    assert (driven.items(), driven.count()) == ({b"k": b"for ever"}, 1)


def test_with_sync_always_a_key_counts_until_the_record_that_expired_is_durable(tmp_path: Path) -> None:
    time = Time()
    options = StoreOptions(segment_bytes=1 << 20, sync="always")
    driven = Driven(tmp_path / "shard", options, clock=time.clock)
    set_for(driven, b"durable", b"", 10)
    driven.run_jobs()
    set_for(driven, b"fresh", b"", 10)
    time.pass_by(10)
    store = driven.store
    for now_s in (1e6, 2e6):
        slices = 0
        while store.maintain(now_s):
            slices += 1
            assert slices < 100
        assert driven.count() == 1
    driven.run_jobs()
    while store.maintain(3e6):
        pass
    assert driven.count() == 0


def test_sweeping_does_not_wait_for_an_activity_that_waits_for_its_job(tmp_path: Path) -> None:
    time = Time()
    options = StoreOptions(segment_bytes=1 << 20, checkpoint_interval_s=1.0)
    driven = Driven(tmp_path / "shard", options, clock=time.clock)
    set_for(driven, b"k", b"", 5000)
    driven.sync()
    for now_s in range(1_000_000, 1_000_010):
        while driven.store.maintain(now_s):
            pass
    assert driven.store._maintenance.name == "checkpoint"
    time.pass_by(5000)
    while driven.store.maintain(1_000_011):
        pass
    assert driven.store._maintenance.name == "checkpoint"
    assert driven.count() == 0
    driven.maintain()
    driven.restart()


# ---- the clock ----


@pytest.mark.parametrize("reopen", [None, *WAYS])
@pytest.mark.parametrize("step_ms", [-3_600_000, -5 * DAY_MS])
def test_what_has_expired_stays_so_when_the_clock_is_set_back(
    tmp_path: Path, reopen: Callable[[Driven], None] | None, step_ms: int
) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    append_records(driven, [expiring(0, b"key %d" % i, time.wall_ms + DAY_MS) for i in range(100)])
    driven.open()
    time.wall_ms += 10 * DAY_MS
    sweep(driven, time)
    assert driven.count() == 0
    time.wall_ms += step_ms - 10 * DAY_MS
    for _ in range(2):
        if reopen:
            reopen(driven)
        assert driven.items() == {}
        sweep(driven, time, 1000)
        assert (driven.count(), driven.items()) == (0, {})


def test_the_clock_is_durable_within_a_second_of_the_first_key_that_expires_and_only_then(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    append_records(driven, [expiring(0, b"a", time.wall_ms + 10_000), expiring(0, b"b", time.wall_ms + 20_000)])
    driven.open()
    driven.run_jobs()
    now_s = 1e6
    kept = []
    for _ in range(30):
        time.pass_by(1000)
        now_s += 1
        # What the worker's loop does: it asks four times a second.
        for quarter in range(4):
            while driven.store.maintain(now_s + quarter / 4):
                pass
            driven.run_jobs()
        kept.append(manifest_of(driven).state.clock_ms)
    began = time.wall_ms - 30_000
    assert kept == [0] * 9 + [began + 10_000] * 10 + [began + 20_000] * 11


def test_a_clock_that_cannot_be_kept_is_kept_later(tmp_path: Path) -> None:
    time = Time()
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk, clock=time.clock)
    append_records(driven, [expiring(0, b"a", time.wall_ms + 10)])
    driven.open()
    driven.run_jobs()
    time.pass_by(10)
    disk.fail("write", 1, errno.ENOSPC)
    while driven.store.maintain(1e6):
        pass
    driven.run_jobs()
    assert manifest_of(driven).state.clock_ms == 0
    sweep(driven, time, 1000)
    assert manifest_of(driven).state.clock_ms == time.wall_ms


def test_a_clean_stop_keeps_the_clock(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", clock=time.clock)
    time.pass_by(12_345)
    driven.store.close()
    assert manifest_of(driven).state.clock_ms == time.wall_ms


# ---- a shard that must not write ----


def test_a_read_only_shard_sweeps_and_writes_nothing(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    append_records(driven, [expiring(0, b"a", time.wall_ms + 10), plain(b"b", b"")])
    driven.options = StoreOptions(segment_bytes=1 << 20, read_only_reason="the disk failed")
    driven.open()
    manifest = (driven.path / "MANIFEST").read_bytes()
    sweep(driven, time, 10)
    assert driven.count() == 1
    with pytest.raises(ShardReadOnly):
        driven.put(b"c", b"")
    assert (driven.path / "MANIFEST").read_bytes() == manifest
    driven.kill()


def test_a_list_that_the_disk_does_not_deliver_ends_the_sweep_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    append_records(driven, [expiring(0, b"key %d" % i, time.wall_ms + 10, bytes(100)) for i in range(300)])
    driven.open()
    driven.run_jobs()
    driven.restart()
    (path,) = segment_files(driven.path)[:1]
    os.truncate(path, format.decode_footer(path.read_bytes()).expiries_offset)
    sweep(driven, time, 10)
    assert "sweep failed" in caplog.text
    assert driven.items() == {}
    assert driven.count() > 0
    driven.put(b"key 1", b"1")
    assert driven.get(b"key 1") == b"1"
    sweep(driven, time, 1000)
    assert caplog.text.count("sweep failed") == 1
    driven.kill()
