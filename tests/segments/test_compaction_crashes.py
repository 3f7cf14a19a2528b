"""A compaction that dies, or that the disk fails, at each of its calls: the same live set, and nothing comes back."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.errors import ShardReadOnly
from kio.segments import copying, rewrite
from kio.segments.check import check_directory
from kio.segments.format import TOMBSTONE
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from kio.segments.segment import segment_name
from tests.segments.faulty_disk import CarelessDisk, Died, FaultyDisk
from tests.segments.support import IDENTITY, Driven, put, unopened
from tests.segments.test_recovery import manifest_of, records_of

OPTIONS = StoreOptions(segment_bytes=8 * 1024, space_amplification=1000.0)
State = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(copying, "SYNC_BYTES", 1000)
    monkeypatch.setattr(rewrite, "HINTS_PER_SLICE", 8)


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, State]:
    """A data directory of three sealed segments, and what is in it: overwritten, deleted, and hidden in each other."""
    data = tmp_path / "before"
    driven = Driven(data / "shard-0000", OPTIONS, CarelessDisk())
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    state: State = {}
    for part in range(3):
        items = {b"key %d" % i: b"%d of %d" % (i, part) * 20 for i in range(part * 4, part * 4 + 12)}
        items |= {b"gone %d.%d" % (part, i): b"" for i in range(4)}
        driven.execute(*(put(key, value) for key, value in items.items()))
        state |= items
        for name in (b"gone %d.0" % part, b"gone %d.1" % (part - 1), b"gone 0.2" if part == 2 else b""):
            if state.pop(name, None) is not None:
                assert driven.delete(name)
        driven.seal()
    driven.store.close()
    return data, state


def copies(before: tuple[Path, State], tmp_path: Path) -> Iterator[Path]:
    """The directory again and again, each time a fresh copy."""
    number = 0
    while True:
        number += 1
        yield Path(shutil.copytree(before[0], tmp_path / str(number)))


def ask(driven: Driven, victims: int) -> None:
    """Ask for a compaction of the oldest `victims` segments."""
    driven.store._compaction._asked = set(driven.sealed_ids()[:victims])


def proves(data: Path, state: State) -> None:
    """The directory holds this state, opens to it again and again, and is whole when it was compacted to its end."""
    driven = unopened(data / "shard-0000", OPTIONS, CarelessDisk()).open()
    assert driven.items() == state
    named = manifest_of(driven).state
    assert not named.outputs
    assert {path.name for path in driven.path.glob("*.seg")} == {segment_name(number) for number in named.segments}
    assert driven.reopen().items() == state
    driven.compact()
    assert driven.items() == state
    driven.store.close()
    assert check_directory(data).faults == []
    driven.open()
    assert driven.items() == state
    assert driven.count() == len(state)
    driven.store.close()


@pytest.mark.parametrize("victims", [2, 3])
def test_crash_at_every_call_of_a_compaction(before: tuple[Path, State], tmp_path: Path, victims: int) -> None:
    survived = 0
    for nth, data in enumerate(copies(before, tmp_path), 1):
        disk = FaultyDisk()
        driven = unopened(data / "shard-0000", OPTIONS, disk).open()
        ask(driven, victims)
        disk.die("any", nth, part=(nth % 3) / 2)
        try:
            driven.maintain()
            survived = 1
        except Died:
            pass
        disk.heal()
        driven.kill()
        proves(data, before[1])
        shutil.rmtree(data)
        if survived:
            break
    assert nth > 30


@pytest.mark.parametrize("victims", [2, pytest.param(3, marks=pytest.mark.stress)])
def test_power_cut_at_every_call_of_a_compaction(before: tuple[Path, State], tmp_path: Path, victims: int) -> None:
    for nth, data in enumerate(copies(before, tmp_path), 1):
        disk = FaultyDisk()
        driven = unopened(data / "shard-0000", OPTIONS, disk).open()
        ask(driven, victims)
        disk.die("any", nth, part=(nth % 3) / 2)
        is_over = False
        try:
            driven.maintain()
            is_over = True
        except Died:
            pass
        disk.heal()
        driven.kill()
        for seed in range(3):
            cut = tmp_path / "cut"
            disk.power_cut(data, cut, random.Random(nth * 100 + seed), in_order=seed == 0)
            proves(cut, before[1])
            shutil.rmtree(cut)
        shutil.rmtree(data)
        if is_over:
            break


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_any_one_call_costs_nothing_but_the_compaction(
    before: tuple[Path, State], tmp_path: Path, error: int
) -> None:
    for nth, data in enumerate(copies(before, tmp_path), 1):
        disk = FaultyDisk()
        driven = unopened(data / "shard-0000", OPTIONS, disk).open()
        ask(driven, 2)
        calls = disk.calls["any"]
        disk.fail("any", nth, error, part=(nth % 3) / 2)
        driven.maintain()
        is_over = disk.calls["any"] - calls < nth
        disk.heal()
        assert driven.items() == before[1], nth
        if driven.store._manifest.has_failed:
            with pytest.raises(ShardReadOnly, match="the manifest could not be written"):
                driven.put(b"new", b"1")
            driven.reopen()
        driven.put(b"new", b"1")
        driven.compact()
        assert driven.items() == before[1] | {b"new": b"1"}, nth
        driven.kill()
        proves(data, before[1] | {b"new": b"1"})
        shutil.rmtree(data)
        if is_over:
            break


def test_what_replaced_a_record_is_durable_before_the_record_is_dropped(tmp_path: Path) -> None:
    """A power cut may take an overwrite that was never synced; then the value before it must still be there."""
    disk = FaultyDisk()
    data = tmp_path / "data"
    driven = Driven(data / "shard-0000", OPTIONS, disk)
    driven.execute(*(put(b"key %d" % i, b"old") for i in range(20)))
    driven.seal()
    driven.execute(*(put(b"key %d" % i, b"new") for i in range(19)))
    driven.store._compaction._asked = set(driven.sealed_ids())
    # Everything but a sync is done.
    for _ in range(200):
        driven._clock_s += 10
        driven.store.maintain(driven._clock_s)
        job = driven.store.background_job()
        if job is not None:
            job.run()
            driven.store.finish(job)
    driven.kill()
    for seed in range(10):
        cut = tmp_path / str(seed)
        disk.power_cut(data, cut, random.Random(seed), in_order=True)
        found = unopened(cut / "shard-0000", OPTIONS, CarelessDisk()).open()
        assert len(found.items()) == 20
        found.kill()
    driven.open()
    driven.compact()
    assert driven.store.stats()["compactions"] == 1
    assert driven.items() == {b"key %d" % i: b"new" if i < 19 else b"old" for i in range(20)}


def test_a_compaction_syncs_for_itself_where_nobody_else_does(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=8 * 1024, space_amplification=1000.0, sync="os")
    driven = Driven(tmp_path / "shard", options)
    driven.execute(*(put(b"key %d" % i, b"old") for i in range(20)))
    driven.seal()
    driven.put(b"key 1", b"new")
    driven.store._compaction._asked = set(driven.sealed_ids())
    for _ in range(200):
        driven._clock_s += 10
        driven.store.maintain(driven._clock_s)
        job = driven.store.background_job()
        if job is not None:
            job.run()
            driven.store.finish(job)
    assert driven.store.stats()["compactions"] == 1


def test_leftovers_are_removed_and_foreign_files_are_not(before: tuple[Path, State]) -> None:
    data, state = before
    path = data / "shard-0000"
    first = sorted(path.glob("*.seg"))[0]
    kept = first.read_bytes()
    driven = unopened(path, OPTIONS, CarelessDisk()).open()
    driven.compact()
    assert not first.exists()
    driven.store.close()
    first.write_bytes(kept)
    foreign = path / segment_name(2)
    foreign.write_bytes(b"somebody's")
    driven.open()
    assert not first.exists()
    assert foreign.read_bytes() == b"somebody's"
    assert driven.items() == state


def test_the_manifest_written_anew_still_knows_outputs_and_what_is_compacted(before: tuple[Path, State]) -> None:
    data, state = before
    driven = unopened(data / "shard-0000", OPTIONS, CarelessDisk()).open()
    driven.compact()
    manifest = driven.store._manifest
    manifest.append({"t": "output", "id": manifest.state.next_id, "salt": 5, "epoch": 2})
    known = (manifest.state.segments.copy(), manifest.state.outputs.copy(), manifest.state.next_id)
    assert any(entry.compacted for entry in manifest.state.segments.values())
    manifest._shorten()
    again = Manifest.load(driven.path, 0, IDENTITY.directory_id).state
    assert (again.segments, again.outputs, again.next_id) == known
    assert driven.reopen().items() == state
    assert not driven.store._manifest.state.outputs


def test_an_output_with_old_lsns_between_unsealed_segments_is_no_gap(tmp_path: Path) -> None:
    """Recovery holds the LSNs of segments that were never sealed against each other; outputs stand outside of that."""
    driven = Driven(tmp_path / "shard", OPTIONS, CarelessDisk())
    driven.execute(*(put(b"key %d" % i, b"a" * 100) for i in range(20)))
    driven.seal()
    driven.execute(*(put(b"key %d" % i, b"b" * 100) for i in range(10)))
    driven.store._chain.rotate(0)
    driven.sync()
    driven.execute(*(put(b"key %d" % i, b"c" * 100) for i in range(5)))
    driven.sync()
    driven.store._compaction._asked = set(driven.sealed_ids())
    for _ in range(100):
        driven._clock_s += 10
        driven.store.maintain(driven._clock_s)
        job = driven.store._maintenance.job()
        if job is not None:
            job.run()
            driven.store.finish(job)
    assert driven.store.stats()["compactions"] == 1
    items = driven.items()
    assert driven.reopen().items() == items
    assert driven.store._engine.suspect_lsn == 0
    assert TOMBSTONE not in {r.kind for p in driven.path.glob("*.seg") for _, r in records_of(p)}
