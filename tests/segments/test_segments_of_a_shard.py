"""Segments come and go: rotation, sealing, records of every size, descriptors, and what a long run leaves behind."""

from __future__ import annotations

import gc
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from kio import opbatch, wire
from kio.errors import KeyEmpty, ProtocolError, Timeout, UnknownOperation, ValueTooLarge
from kio.opbatch import Operation
from kio.segments import format
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk
from tests.segments.support import IDENTITY, SMALL, Driven, get, open_descriptors, operation, put
from tests.segments.test_recovery import records_of, segment_files


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    model = {b"small": b"1", b"large": bytes(range(256)) * 60, b"after": b"2", b"larger": b"x" * 100_000}
    for key, value in model.items():
        driven.put(key, value)
        driven.run_jobs()
    for again in (driven.reopen, driven.restart, driven.restart):
        assert driven.items() == model
        again()


@pytest.mark.parametrize("short", [0, 1, 8])
def test_a_segment_that_ends_exactly_at_the_limit_is_sealed_in_the_room_it_has(tmp_path: Path, short: int) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    driven.put(b"first", bytes(100))
    driven.run_jobs()
    assert driven.store._chain.supply.prepared is not None  # so puts may take all of it
    key = b"12345678"
    end_bytes = 2 * format.HINT.size + format.FOOTER.size
    driven.put(key, bytes(SMALL.segment_bytes - driven.store._engine.tail - end_bytes - 24 - len(key) - short))
    driven.put(b"next", b"")
    driven.run_jobs()
    assert [len(records_of(file)) for file in segment_files(driven.path)[:2]] == [2, 1]
    assert segment_files(driven.path)[0].stat().st_size == SMALL.segment_bytes - short // 8 * 8
    for again in (driven.reopen, driven.restart):
        again()
        assert set(driven.items()) == {b"first", key, b"next"}


def test_a_key_and_a_value_of_the_longest_length_are_kept(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(value_bytes_max=1 << 20), CarelessDisk())
    driven.put(b"k" * 65_535, b"v" * (1 << 20))
    assert isinstance(driven.replies(put(b"k", b"v" * ((1 << 20) + 1)))[0].error(), ValueTooLarge)
    driven.reopen()
    assert driven.items() == {b"k" * 65_535: b"v" * (1 << 20)}


def test_what_a_client_can_get_wrong_is_answered_and_nothing_is_written(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    late = Operation(wire.OP_SET, b"late", b"v", 1, 0, opbatch.monotonic_ms() - 1000 & 0xFFFFFFFF or 1)
    replies = driven.replies(put(b"", b"v"), Operation(10, b"k"), late, operation(99), operation(wire.OP_SCAN))
    assert [type(reply.error()) for reply in replies[:3]] == [KeyEmpty, UnknownOperation, Timeout]
    assert all(reply.error() for reply in replies)
    assert driven.store.lsn == 0


def test_bytes_that_are_no_whole_batch_are_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    batch = opbatch.encode_batch(0, 1, [put(b"key", b"value"), get(b"key")])
    for message in [batch[:cut] for cut in range(len(batch))] + [b"", b"junk" * 20]:
        with pytest.raises(ProtocolError):
            driven.store.execute(message)
    assert driven.store.lsn == 0
    assert len(driven.replies(put(b"key", b"value"))) == 1
    assert driven.execute() == (b"", b"", 1, False)


@pytest.mark.parametrize("prepares", [True, False])
def test_rotation_with_and_without_a_prepared_segment(tmp_path: Path, prepares: bool) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", SMALL, disk)
    made = []
    for i in range(30):
        before = disk.calls["create"]
        driven.put(b"key %d" % i, bytes(200))
        made.append(disk.calls["create"] - before)
        if prepares:
            driven.run_jobs()
    assert bool(sum(made)) != prepares
    driven.reopen()
    assert driven.count() == 30


def test_the_next_segment_is_made_when_a_quarter_of_the_active_one_is_left(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=16 << 20)
    driven = Driven(tmp_path / "shard", options, CarelessDisk())
    while driven.store._chain.supply.prepared is None:
        driven.put(b"k", bytes(500_000))
        driven.run_jobs()
    part = driven.store._engine.tail / options.segment_bytes
    assert 0.65 < part < 0.8
    driven.kill()


def test_batches_that_fill_several_segments_are_whole(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    model = {b"key %d" % i: b"%d" % i * 30 for i in range(200)}
    replies = driven.replies(*(put(key, value) for key, value in model.items()), *(get(key) for key in model))
    assert [reply.payload for reply in replies[200:]] == list(model.values())
    driven.reopen()
    assert driven.items() == model


def test_a_job_that_runs_late_twice_or_never_changes_nothing_about_the_data(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    model = {}
    jobs = []
    for i in range(60):
        model[b"key %d" % (i % 11)] = b"%d" % i * 40
        driven.put(b"key %d" % (i % 11), model[b"key %d" % (i % 11)])
        job = driven.store.sync_job() or driven.store.background_job()
        if job is not None:
            jobs.append(job)
        if i % 3 == 0 and jobs:
            jobs[0].run()
            jobs[0].run()
            driven.store.finish(jobs[0])
            driven.store.finish(jobs.pop(0))
        assert driven.items() == model
    driven.store.close()
    for job in jobs:
        driven.store.finish(job)
    driven.open()
    assert driven.items() == model


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_clean_stop_seals_everything_and_the_next_start_scans_nothing(tmp_path: Path, sync: str) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1024, sync=sync))
    for i in range(20):
        driven.put(b"key %d" % i, bytes(200))
    driven.store.close()
    state = Manifest.load(driven.path, 0, IDENTITY.directory_id).state
    assert {entry.state for entry in state.segments.values()} == {"sealed"}
    assert state.is_closed
    assert state.lsn == 20
    assert {file.name for file in segment_files(driven.path)} == {f"{number:010d}.seg" for number in state.segments}
    driven.open()
    assert driven.store._chain._sealing == []


def test_with_sync_os_segments_are_made_durable_when_they_are_sealed(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1024, sync="os"))
    for i in range(20):
        driven.put(b"key %d" % i, bytes(200))
    kinds = []
    while (job := driven.store.background_job()) is not None:
        kinds.append(job.kind)
        job.run()
        driven.store.finish(job)
    assert kinds.index("sync") < kinds.index("seal")
    assert driven.store.durable_lsn >= 15


def test_the_manifest_is_written_anew_when_it_is_long_and_says_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "shard"
    directory.mkdir()
    disk = FaultyDisk()
    Manifest.create(directory, 0, IDENTITY.directory_id, disk)
    written = Manifest.load(directory, 0, IDENTITY.directory_id, disk)
    written.start()
    written.append({"t": "open"}, {"t": "epoch", "epoch": 7})
    written.append(
        {"t": "create", "id": 3, "salt": 2**64 - 1, "epoch": 7}, {"t": "create", "id": 5, "salt": 1, "epoch": 7}
    )
    written.append({"t": "sealing", "id": 3, "end": 800, "lsn": 17}, {"t": "drop", "id": 5})
    sizes = []
    for keyspace in range(256):
        written.append(*({"t": "floor", "keyspace": keyspace, "epoch": 1, "lsn": i} for i in range(200)))
        sizes.append((directory / "MANIFEST").stat().st_size)
        if keyspace == 100:
            disk.fail("rename", times=3)
        if keyspace % 5 == 0:
            loaded = Manifest.load(directory, 0, IDENTITY.directory_id)
            assert loaded.state == written.state
            assert loaded.torn_bytes == 0
    assert not written.has_failed
    assert any(after < before for before, after in pairwise(sizes))
    assert max(sizes) < 2 << 20
    written.close()


def test_descriptors_stay_within_the_cache_and_what_is_written(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1024, open_segments=3), CarelessDisk())
    before = open_descriptors()
    for i in range(200):
        driven.put(b"key %d" % i, bytes(200))
        driven.run_jobs()
        # The cache, and the prepared one; the active one, lock and manifest were open before.
        assert open_descriptors() <= before + 3 + 1
    assert driven.store.stats()["segments"] > 40
    assert driven.count() == 200
    driven.reopen()
    assert open_descriptors() <= before + 3 + 1
    for i in range(200):
        assert driven.get(b"key %d" % i) == bytes(200)
    assert open_descriptors() <= before + 3 + 1


def test_opening_and_closing_leaves_no_descriptor_and_no_memory_behind(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1024), CarelessDisk())
    for i in range(40):
        driven.put(b"key %d" % i, bytes(200))
    driven.run_jobs()
    process = psutil.Process()
    for round in range(120):
        if round == 20:
            gc.collect()
            descriptors, memory = open_descriptors(), process.memory_info().rss
        driven.put(b"key", b"%d" % round)
        driven.reopen() if round % 2 else driven.restart()
    gc.collect()
    assert open_descriptors() <= descriptors
    # There are more segments now, and the heap has holes; an engine that stayed would be more.
    assert process.memory_info().rss < memory + (16 << 20)
    assert len(list(driven.path.iterdir())) < 300


def test_opening_that_fails_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    for i in range(20):
        driven.put(b"key %d" % i, bytes(200))
    driven.kill()
    segment_files(driven.path)[-1].unlink()
    (tmp_path / "shard" / "0000000099.seg").write_bytes(b"")
    gc.collect()
    before = open_descriptors()
    for _ in range(50):
        with pytest.raises(Exception, match="missing"):
            driven.open()
    assert open_descriptors() == before
