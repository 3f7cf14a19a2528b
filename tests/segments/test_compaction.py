"""Compaction: what survives, what asks for it, and what clients may do while it is under way."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kio import wire
from kio.errors import Corrupt
from kio.segments import chain, copying, rewrite, store
from kio.segments.compaction import IDLE_S
from kio.segments.format import Record
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from kio.segments.segment import segment_name
from kio.wire import EXPIRE_AT
from tests.measure.processes import bare_bytes
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk
from tests.segments.support import Driven, operation, put
from tests.segments.test_recovery import damage, manifest_of, records_of

#: Nothing is compacted unless it is asked for, or has nothing live at all.
QUIET = StoreOptions(segment_bytes=64 * 1024, space_amplification=1000.0)


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    return Driven(tmp_path / "shard", QUIET, CarelessDisk())


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction of a few records takes many slices and jobs."""
    monkeypatch.setattr(rewrite, "HINTS_PER_SLICE", 2)
    monkeypatch.setattr(copying, "CHUNK_BYTES", 100)
    monkeypatch.setattr(copying, "HINTS_PER_JOB", 2)


def in_log(driven: Driven) -> list[Record]:
    """Every record in the files of the shard, by version."""
    found = [record for path in driven.path.glob("*.seg") for _, record in records_of(path)]
    return sorted(found, key=lambda record: (record.epoch, record.lsn))


def kinds_of(driven: Driven, key: bytes) -> list[int]:
    return [record.kind for record in in_log(driven) if record.key == key]


def dead_bytes(driven: Driven) -> int:
    return int(driven.store.stats()["dead_bytes"])


def fill(driven: Driven, keys: int, size: int = 100, start: int = 0) -> dict[bytes, bytes]:
    """Some keys, a sealed segment of them."""
    items = {b"key %03d" % i: b"%03d." % i * (size // 4) for i in range(start, start + keys)}
    driven.execute(*(put(key, value) for key, value in items.items()))
    driven.seal()
    return items


def each_slice(driven: Driven) -> Callable[[], bool]:
    """What runs the next slice, job or sync of maintenance each time it is called; False when nothing is left."""
    clock = itertools.count(driven._clock_s + 10, 10)
    idle = 0

    def step() -> bool:
        nonlocal idle
        if driven.store.maintain(next(clock)):
            return True
        job = driven.store.sync_job() or driven.store.background_job()
        idle = 0 if job is not None else idle + 1
        if job is not None:
            job.run()
            driven.store.finish(job)
        return idle < 3

    return step


# ---- what survives ----


def test_what_is_live_survives_and_what_is_dead_is_gone(driven: Driven) -> None:
    items = fill(driven, 40)
    items |= fill(driven, 20, size=60)
    first, second = driven.sealed_ids()
    assert driven.compact() == 20 * 136
    assert dead_bytes(driven) == 0
    assert driven.items() == items
    assert not (driven.path / segment_name(first)).exists()
    assert second in driven.sealed_ids()
    assert driven.reopen().items() == items
    assert driven.restart().items() == items


def test_a_copy_keeps_version_kind_and_flags(driven: Driven) -> None:
    fill(driven, 5)
    driven.reopen()
    fill(driven, 2)
    before = {(r.epoch, r.lsn): r for r in in_log(driven)}
    driven.compact()
    after = {(r.epoch, r.lsn): r for r in in_log(driven)}
    assert len(after) == 5
    assert {epoch for epoch, _ in after} == {1, 2}
    assert after.items() <= before.items()


def test_a_compacted_copy_in_a_later_file_never_beats_a_newer_record(driven: Driven, in_small_pieces: None) -> None:
    """Rule 1: the highest (epoch, LSN) wins, never the file id."""
    fill(driven, 8)
    fill(driven, 1)
    driven.store._compaction._asked = set(driven.sealed_ids())
    step = each_slice(driven)
    while driven.store._chain.supply.output is None:
        assert step()
    output = driven.store._chain.supply.output.id
    while not any(r.key == b"key 005" for _, r in records_of(driven.store._chain.supply.output.path)):
        assert step()
    driven.put(b"key 005", b"newer")
    assert driven.store._chain.active.id < output
    while step():
        pass
    assert output in driven.sealed_ids()
    assert driven.get(b"key 005") == b"newer"
    assert driven.reopen().get(b"key 005") == b"newer"


def test_a_segment_without_a_live_record_is_dropped_at_once_and_copies_nothing(driven: Driven) -> None:
    fill(driven, 10)
    items = fill(driven, 10)
    assert len(driven.sealed_ids()) == 2
    driven.maintain()
    assert len(driven.sealed_ids()) == 1
    assert driven.store.stats()["compacted_bytes_written"] == 0
    assert driven.store.stats()["segments_dropped"] == 1
    assert driven.reopen().items() == items


def test_what_was_cleared_leaves_nothing_behind(driven: Driven) -> None:
    fill(driven, 10)
    driven.delete(b"key 003")
    driven.put(b"other", b"keyspace", 7)
    driven.clear()
    driven.seal()
    driven.compact()
    assert [(r.key, r.keyspace) for r in in_log(driven)] == [(b"other", 7)]
    driven.reopen()
    assert driven.count() == 0
    assert driven.get(b"other", 7) == b"keyspace"


def test_a_record_larger_than_a_segment_survives(driven: Driven) -> None:
    large = random.Random(1).randbytes(200_000)
    driven.execute(put(b"large", large), put(b"small", b"1"))
    driven.seal()
    driven.put(b"small", b"2")
    driven.seal()
    driven.compact()
    assert dead_bytes(driven) == 0
    assert driven.reopen().items() == {b"large": large, b"small": b"2"}


# ---- with clients at work ----


@pytest.mark.parametrize("change", ["overwrite", "delete", "delete and put", "clear"])
def test_what_a_client_does_between_any_two_slices_stands(tmp_path: Path, in_small_pieces: None, change: str) -> None:
    """The words of a compaction's copies replace only the words of what was copied."""
    moment = 0
    while True:
        moment += 1
        driven = Driven(tmp_path / f"{moment}", QUIET, CarelessDisk())
        items = fill(driven, 6, size=40)
        items |= fill(driven, 2, size=20)
        driven.store._compaction._asked = set(driven.sealed_ids())
        step = each_slice(driven)
        is_over = not all(step() for _ in range(moment))
        for key in (b"key 000", b"key 003", b"key 005"):
            if change == "overwrite":
                driven.put(key, b"changed")
                items[key] = b"changed"
            elif change != "clear":
                driven.delete(key)
                del items[key]
                if change == "delete and put":
                    driven.put(key, b"again")
                    items[key] = b"again"
        if change == "clear":
            driven.clear()
            items = {}
        while step():
            pass
        assert driven.items() == items
        assert driven.count() == len(items)
        live = sum((24 + len(key) + len(value) + 7) // 8 * 8 for key, value in items.items())
        assert driven.store.stats()["live_bytes"] == live
        assert driven.reopen().items() == items
        driven.compact()
        assert driven.reopen().items() == items
        driven.store.close()
        if is_over:
            break
    assert moment > 15


# ---- what asks for it ----


def test_records_take_no_more_than_their_part_of_the_disk(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=16 * 1024, space_amplification=1.4)
    driven = Driven(tmp_path / "shard", options, CarelessDisk())
    chance = random.Random(7)
    model: dict[bytes, bytes] = {}
    for i in range(400):
        changes = {b"key %d" % chance.randrange(600): chance.randbytes(300) for _ in range(20)}
        model |= changes
        driven.execute(*(put(key, value) for key, value in changes.items()))
        driven.run_jobs()
        driven.maintain()
        stats = driven.store.stats()
        assert stats["live_bytes"] + stats["dead_bytes"] <= 1.4 * stats["live_bytes"] + options.segment_bytes, i
    assert driven.items() == model
    stats = driven.store.stats()
    assert stats["compactions"] > 10
    assert stats["amplification"] == pytest.approx(1 + stats["dead_bytes"] / stats["live_bytes"], abs=0.001)
    assert 1 + stats["compacted_bytes_written"] / stats["bytes_written"] < 2.6
    assert driven.reopen().items() == model


@pytest.mark.parametrize("skew", [1, pytest.param(3, marks=pytest.mark.stress)])
def test_files_take_no_more_than_two_segments_beyond_what_records_may_and_not_much_less(
    skew: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_s = 0.001  # so slow that the interval of planning would let four segments be written
    size = 64 * 1024
    monkeypatch.setattr(store, "LOOK_BYTES", size // 8)
    monkeypatch.setattr(chain, "PREPARE_ROOM_BYTES", size // 4)  # as of a segment of 8 MiB
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=size, space_amplification=1.4), CarelessDisk())
    chance = random.Random(skew)
    shard, keys = driven.store, 2600
    for i in range(keys):
        driven.put(b"key %d" % i, bytes(1000))
    driven.maintain()
    excess, dead = [], []

    def run_one(has_time: bool) -> bool:
        """What a worker's helper would do meanwhile."""
        job = shard.background_job() or (shard.sync_job() if has_time or shard.wants_sync else None)
        if job is None:
            return False
        job.run()
        shard.finish(job)
        if job.kind in ("output", "grow", "prepare"):
            excess.append((bare_bytes(driven.path) - 1.4 * shard.stats()["live_bytes"]) / size)
        return True

    for i in range(3 * keys):
        driven.put(b"key %d" % int(keys * chance.random() ** skew), bytes(1000))
        now_s = driven._clock_s + i * write_s
        while shard.maintain(now_s) or run_one(i % 8 == 0):
            if i % 2:
                break
        if i > 2 * keys and i % 16 == 0:
            stats = shard.stats()
            dead.append((0.4 * stats["live_bytes"] - stats["dead_bytes"]) / size)
    assert shard.stats()["compactions"] > 30
    assert max(excess) <= 2.0
    assert sum(dead) / len(dead) < 0.75


def test_compaction_begins_behind_the_write_that_passes_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_BYTES", 1)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=16 * 1024), CarelessDisk())
    now_s = driven._clock_s + 1
    driven.store.maintain(now_s)
    while not driven.store.wants_slice:
        driven.store.maintain(now_s)
        assert driven.store._maintenance.name != "compaction"
        driven.execute(*(put(b"key %d" % k, bytes(200)) for k in range(60)))
        driven.run_jobs()
    driven.store.maintain(now_s)
    assert driven.store._maintenance.name == "compaction"


def test_compaction_that_is_behind_says_so_until_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_BYTES", 1)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=16 * 1024), CarelessDisk())

    def overwrite(rounds: int) -> None:
        for _ in range(rounds):
            driven.execute(*(put(b"key %d" % k, bytes(200)) for k in range(60)))
            driven.run_jobs()

    overwrite(1)
    driven.maintain()
    assert driven.store.arrears == 0.0
    overwrite(2)
    while not driven.store._maintenance.name:
        driven._clock_s += 1
        driven.store.maintain(driven._clock_s)
    overwrite(4)
    behind = driven.store.arrears
    assert 0 < behind <= 1
    overwrite(4)
    assert behind <= driven.store.arrears == driven.store.stats()["compaction_arrears"] == 1
    driven.maintain()
    driven.put(b"key 1", b"")
    assert driven.store.arrears == 0.0


@pytest.mark.parametrize("expiry_ms", [0, 1 << 42])
@pytest.mark.parametrize("reopens", [False, True])
def test_what_was_compacted_is_unmapped_by_the_job_that_removes_it(
    tmp_path: Path, expiry_ms: int, reopens: bool
) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=4096, space_amplification=1000.0), CarelessDisk())
    flags = {EXPIRE_AT: expiry_ms} if expiry_ms else {}
    for keys in (10, 5, 3):  # the second compaction takes what the first one wrote
        for _ in range(2):
            driven.execute(*(operation(wire.OP_SET, b"%d" % i, bytes(100), flags=flags) for i in range(keys)))
            driven.seal()
        if reopens:
            driven.reopen()
        held = {segment.id: segment.mapping for segment, _ in driven.store._chain.sealed()}
        driven.compact()
        gone = held.keys() - set(driven.sealed_ids())
        assert gone
        assert {len(held[number]) for number in gone} == {0}
    driven.kill()


def test_a_dead_active_segment_is_sealed_early_when_it_is_most_of_the_shard(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * 1024), CarelessDisk())
    for i in range(60):
        driven.execute(*(put(b"key %d" % k, b"%d" % i * 50) for k in range(4)))
        driven.maintain()
    stats = driven.store.stats()
    assert stats["live_bytes"] + stats["dead_bytes"] < 16 * 1024
    assert driven.reopen().count() == 4


def test_a_segment_is_compacted_for_its_dead_part_only_where_that_is_set(tmp_path: Path) -> None:
    for ratio, left in ((0.0, 2), (0.5, 2), (0.2, 1)):
        options = StoreOptions(segment_bytes=64 * 1024, space_amplification=1000.0, dead_ratio=ratio)
        driven = Driven(tmp_path / str(ratio), options, CarelessDisk())
        fill(driven, 10)
        fill(driven, 4)
        first = driven.sealed_ids()[0]
        driven.maintain()
        assert (first in driven.sealed_ids()) == (left == 2)
        driven.store.close()


def test_nothing_is_compacted_while_the_limit_is_kept(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * 1024, space_amplification=1.5), CarelessDisk())
    fill(driven, 100)
    fill(driven, 30)
    driven.maintain()
    assert driven.store.stats()["compactions"] == 0
    fill(driven, 40)
    driven.maintain()
    assert driven.store.stats()["compactions"] > 0


def test_the_figures_tell_what_the_last_compaction_did(driven: Driven) -> None:
    fill(driven, 20)
    fill(driven, 10)
    before = driven.store.stats()
    assert (before["compactions"], before["compaction_at_ms"], before["compaction_ms_last"]) == (0, 0, 0.0)
    driven.compact()
    stats = driven.store.stats()
    assert stats["compactions"] == 1
    assert stats["segments_dropped"] == 1
    assert stats["compacted_bytes_read"] == 10 * 136
    assert stats["compacted_bytes_written"] > 10 * 136
    assert stats["compaction_ms_last"] > 0
    assert stats["compaction_at_ms"] > 1_700_000_000_000


# ---- with everything else ----


def test_a_segment_prepared_at_the_same_time_and_an_output_get_different_ids(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=4096, space_amplification=1000.0)
    driven = Driven(tmp_path / "shard", options, CarelessDisk())
    fill(driven, 10)
    fill(driven, 5)
    driven.store._compaction._asked = set(driven.sealed_ids())
    driven.execute(*(put(b"new %d" % i, b"x" * 100) for i in range(10)))
    preparing = driven.store.background_job()
    assert preparing is not None and preparing.kind == "prepare"
    driven.maintain()
    preparing.run()
    driven.store.finish(preparing)
    driven.maintain()
    assert driven.store.stats()["compactions"] == 1
    driven.execute(*(put(b"more %d" % i, b"x" * 100) for i in range(60)))
    assert driven.reopen().count() == 10 + 10 + 60


def test_a_rotation_waits_for_the_output_that_is_being_made(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=4096, space_amplification=1000.0)
    driven = Driven(tmp_path / "shard", options, CarelessDisk())
    fill(driven, 10)
    fill(driven, 5)
    driven.store._compaction._asked = set(driven.sealed_ids())
    step = each_slice(driven)
    while (making := driven.store._chain.supply.making) is None or making.kind != "output":
        if not driven.store.maintain(driven._clock_s + 10):
            job = driven.store.background_job()
            assert job is not None
            if job.kind == "output":
                break
            job.run()
            driven.store.finish(job)
    driven.execute(*(put(b"new %d" % i, b"x" * 200) for i in range(40)))
    while step():
        pass
    assert driven.reopen().count() == 10 + 40


def test_a_clean_stop_in_the_middle_leaves_no_output_behind(driven: Driven, in_small_pieces: None) -> None:
    moment = 0
    items = fill(driven, 6)
    while True:
        moment += 1
        items |= fill(driven, 3)
        driven.store._compaction._asked = set(driven.sealed_ids())
        step = each_slice(driven)
        is_over = not all(step() for _ in range(moment))
        driven.store.close()
        assert not manifest_of(driven).state.outputs
        driven.open()
        named = manifest_of(driven).state.segments
        assert {path.name for path in driven.path.glob("*.seg")} == {segment_name(number) for number in named}
        assert driven.items() == items
        if is_over:
            break


def test_a_damaged_record_ends_the_compaction_and_is_never_dropped(
    driven: Driven, caplog: pytest.LogCaptureFixture
) -> None:
    items = fill(driven, 10)
    fill(driven, 1, start=100)
    first = driven.sealed_ids()[0]
    path = driven.path / segment_name(first)
    offset = next(offset for offset, record in records_of(path) if record.key == b"key 004")
    driven.put(b"key 009", b"")
    damage(path, offset + 40)
    driven.compact()
    driven.maintain()
    assert first in driven.sealed_ids()
    assert path.exists()
    assert "compaction given up" in caplog.text
    assert caplog.text.count("compaction given up") == 1
    assert driven.store._chain.supply.output is None
    with pytest.raises(Corrupt):
        driven.get(b"key 004")
    assert driven.get(b"key 003") == items[b"key 003"]


def test_nothing_is_compacted_while_records_are_missing(driven: Driven) -> None:
    fill(driven, 10)
    fill(driven, 10)
    driven.store._engine.suspect_lsn = 5
    driven.maintain(driven._clock_s + 10 * IDLE_S)
    assert len(driven.sealed_ids()) == 2


def test_files_go_only_after_the_manifest_has_dropped_them_durably(tmp_path: Path) -> None:
    """Rule 4."""
    removed: list[str] = []

    class Watching(FaultyDisk):
        def unlink(self, path: Path) -> None:
            if path.suffix == ".seg":
                durable = tmp_path / "durable"
                durable.mkdir(exist_ok=True)
                (durable / "MANIFEST").write_bytes(self._durable_names[path.parent / "MANIFEST"].durable)
                state = Manifest.load(durable, 0, driven.identity.directory_id).state
                assert path.name not in {segment_name(number) for number in state.segments}
                removed.append(path.name)
            super().unlink(path)

    disk = Watching()
    driven = Driven(tmp_path / "shard", QUIET, disk)
    fill(driven, 10)
    fill(driven, 5)
    fill(driven, 10)
    driven.compact()
    assert len(removed) == 2
