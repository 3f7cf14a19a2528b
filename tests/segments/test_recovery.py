"""Recovery: what a crash leaves is mended, what is damage is told, and nothing that was acknowledged goes away."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from kio.errors import Corrupt, DirectoryInUse, KioError
from kio.segments import format
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from kio.segments.segment import RECORDS_START, segment_name
from tests.segments.faulty_disk import Died, FaultyDisk
from tests.segments.support import IDENTITY, SMALL, Driven, put, replies_of, unopened

ROOMY = StoreOptions(segment_bytes=64 * 1024)


def segment_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.seg"))


def damage(path: Path, offset: int, data: bytes = b"\xa5" * 8) -> None:
    """Overwrite some bytes."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def records_of(path: Path) -> list[tuple[int, format.Record]]:
    """(offset, record) of a segment's records up to the first that is none."""
    data = path.read_bytes()
    header = format.decode_header(data)
    seed = format.crc_seed(header.shard, header.segment, header.salt)
    found = []
    at = RECORDS_START
    while True:
        try:
            record, size = format.decode_record(data[at:], seed)
        except Corrupt:
            return found
        found.append((at, record))
        at += size


def manifest_of(driven: Driven) -> Manifest:
    return Manifest.load(driven.path, 0, driven.identity.directory_id)


# ---- crashes ----


def test_a_killed_store_comes_back_with_everything_it_had_written(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    model = {b"key %d" % (i % 17): b"value %d " % i * (i % 9) for i in range(200)}
    for i in range(200):
        driven.put(b"key %d" % (i % 17), b"value %d " % i * (i % 9))
    driven.delete(b"key 3")
    del model[b"key 3"]
    for _ in range(3):
        driven.reopen()
        assert driven.items() == model
        assert driven.count() == len(model)
        assert driven.get(b"key 3") is None


def test_an_unclean_open_raises_the_epoch_and_a_clean_one_does_not(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    epochs = []
    for again in (driven.restart, driven.reopen, driven.restart, driven.reopen, driven.reopen):
        driven.put(b"k", b"v")
        again()
        epochs.append(driven.store.stats()["epoch"])
    first = epochs[0]
    assert epochs == [first, first + 1, first + 1, first + 2, first + 3]
    assert driven.store.lsn == 5


@pytest.mark.parametrize(
    "behind", [b"", b"\xff" * 100, bytes(40) + b"\x01junk" * 9], ids=["zeros", "junk", "zeros and junk"]
)
def test_a_tail_torn_at_any_byte_is_cut_and_what_is_before_it_stays(tmp_path: Path, behind: bytes) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    for i in range(5):
        driven.put(b"key %d" % i, b"value %d" % i * (i + 1))
    driven.kill()
    (file,) = segment_files(driven.path)
    whole = file.read_bytes()
    records = records_of(file)
    ends = [offset for offset, _ in records[1:]] + [len(whole.rstrip(b"\0"))]
    for cut in range(records[2][0], ends[-1], 3):
        copy = tmp_path / f"cut {cut}"
        shutil.copytree(driven.path, copy)
        (copy / file.name).write_bytes((whole[:cut] + behind).ljust(len(whole), b"\0"))
        torn = Driven(copy, ROOMY)
        # A record of which only the padding is missing is whole when zeros follow.
        whole_at = [end if behind[:1] == b"\xff" else len(whole[:end].rstrip(b"\0")) for end in ends]
        kept = {record.key: record.value for (_, record), end in zip(records, ends, strict=True) if end <= cut}
        more = {record.key: record.value for (_, record), end in zip(records, whole_at, strict=True) if end <= cut}
        found = torn.items()
        assert found in (kept, more)
        torn.put(b"new", b"written behind a torn tail")
        torn.reopen()
        assert torn.items() == found | {b"new": b"written behind a torn tail"}
        torn.kill()
        shutil.rmtree(copy)


def test_the_second_start_after_a_torn_tail_finds_nothing_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    driven.put(b"a", b"1")
    driven.put(b"b", b"2")
    driven.kill()
    damage(segment_files(driven.path)[0], records_of(segment_files(driven.path)[0])[1][0])
    with caplog.at_level(logging.WARNING):
        driven.open()
        assert "torn tail cut" in caplog.text
        caplog.clear()
        driven.reopen()
        driven.restart()
        assert caplog.text == ""
    assert driven.items() == {b"a": b"1"}


def test_a_hole_between_two_unsealed_segments_ends_the_log_and_what_is_behind_is_set_aside(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    for i in range(12):
        driven.put(b"key %d" % i, bytes(200))
    driven.kill()
    files = [file for file in segment_files(driven.path) if records_of(file)]
    assert len(files) >= 3
    last = records_of(files[0])[-1]
    damage(files[0], last[0], bytes(1024 - last[0]))
    driven.open()
    kept = [record.key for _, record in records_of(files[0])]
    assert set(driven.items()) == set(kept)
    asides = sorted(driven.path.glob("*.aside"))
    assert [aside.name.removesuffix(".aside") for aside in asides] == [file.name for file in files[1:]]
    driven.put(b"new", b"value")
    driven.reopen()
    assert set(driven.items()) == {*kept, b"new"}


@pytest.mark.parametrize("left", ["a torn tail", "a torn first record", "a hole"])
@pytest.mark.parametrize("kind", ["error", "death"])
def test_recovery_that_fails_at_any_call_of_the_disk_is_met_by_running_it_again(
    tmp_path: Path, kind: str, left: str
) -> None:
    origin = Driven(tmp_path / "origin")
    model = {}
    for i in range(14):
        model[b"key %d" % (i % 9)] = b"value %d" % i * 20
        origin.put(b"key %d" % (i % 9), b"value %d" % i * 20)
        if i == 6:
            origin.run_jobs()
    origin.delete(b"key 1")
    del model[b"key 1"]
    origin.put(b"torn", b"never acknowledged")
    if left == "a torn first record":
        origin.run_jobs()  # the next segment stands ready, and the junk is all there is in it
    origin.kill()
    last = [file for file in segment_files(origin.path) if records_of(file)][-1]
    damage(last, records_of(last)[-1][0] + 30)
    if left == "a hole":
        origin.open()
        for i in range(9):
            origin.put(b"lost %d" % i, bytes(200))
        origin.kill()
        unsealed = [file for file in segment_files(origin.path) if any(r.lsn > 15 for _, r in records_of(file))]
        damage(unsealed[0], RECORDS_START, bytes(900))
        assert len(unsealed) > 2
    if left == "a torn first record":
        damage([file for file in segment_files(origin.path) if not records_of(file)][-1], RECORDS_START, b"junk" * 9)
    call = 0
    while True:
        call += 1
        copy = tmp_path / f"copy {call}"
        shutil.copytree(origin.path, copy)
        disk = FaultyDisk()
        driven = unopened(copy, SMALL, disk)
        if kind == "error":
            disk.fail("any", call)
        else:
            disk.die("any", call)
        try:
            driven.open()
        except (OSError, KioError, Died):
            disk.heal()
            driven.open()
        is_struck = disk.calls["any"] >= call
        disk.heal()
        assert driven.items() == model, call
        driven.put(b"new", b"value")
        driven.reopen()
        assert driven.items() == model | {b"new": b"value"}, call
        driven.kill()
        shutil.rmtree(copy)
        if not is_struck:
            assert call > 20
            break


def test_recovering_twice_gives_the_same_files_and_the_same_state(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    for i in range(20):
        driven.put(b"key %d" % (i % 7), bytes(i * 11))
    driven.reopen()
    first = (driven.items(), driven.store.lsn, driven.count())
    driven.reopen()
    assert (driven.items(), driven.store.lsn, driven.count()) == first


# ---- acknowledged writes that later damage or failures must not take along ----


def test_a_seal_that_failed_once_does_not_cost_the_segments_behind_it(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", SMALL, disk)
    model = {b"key %d" % i: b"%d" % i * 100 for i in range(40)}
    keys = iter(model)
    while not driven.store._chain._sealing:
        key = next(keys)
        driven.put(key, model[key])
    driven.sync()
    job = driven.store.background_job()
    while job is not None and job.kind != "seal":
        job.run()
        driven.store.finish(job)
        job = driven.store.background_job()
    assert job is not None
    disk.fail("truncate")
    job.run()
    driven.store.finish(job)
    disk.heal()
    assert isinstance(job.error, OSError)
    for key in keys:
        driven.put(key, model[key])
        driven.run_jobs()
    assert driven.items() == model
    driven.reopen()
    assert driven.items() == model
    assert not list(driven.path.glob("*.aside"))
    driven.restart()
    assert driven.items() == model


def test_damage_at_the_end_of_a_segment_that_was_being_sealed_does_not_cost_what_was_written_since(
    tmp_path: Path,
) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", SMALL, disk)
    while not driven.store._chain._sealing:
        driven.put(b"key %d" % driven.store.lsn, bytes(100))
    driven.sync()
    while (job := driven.store.background_job()) is not None and job.kind != "seal":
        job.run()
        driven.store.finish(job)
    assert job is not None
    disk.die("sync")
    with pytest.raises(Died):
        job.run()
    disk.heal()
    driven.kill()
    first = segment_files(driven.path)[0]
    damage(first, records_of(first)[-1][0] + 40)
    driven.open()
    driven.put(b"new", b"acknowledged")
    driven.sync()
    driven.reopen()
    assert driven.get(b"new") == b"acknowledged"
    assert not list(driven.path.glob("*.aside"))


def test_two_damaged_records_at_the_start_of_an_unsealed_segment_do_not_cost_the_rest_of_it(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    keys = [b"key %d" % i for i in range(12)]
    for key in keys:
        driven.put(key, key * 20)
    driven.sync()
    driven.kill()
    second = segment_files(driven.path)[1]
    records = records_of(second)
    assert len(records) > 2
    for offset, _ in records[:2]:
        damage(second, offset)
    driven.open()
    lost = {record.key for _, record in records[:2]}
    for key, answer in driven.answers(keys).items():
        assert answer in (Corrupt, *([] if key in lost else [key * 20]))
    assert not list(driven.path.glob("*.aside"))
    assert driven.answers([records[-1][1].key]) == {records[-1][1].key: records[-1][1].value}


# ---- missing, stray and shared ----


def test_a_missing_segment_is_an_error_and_nothing_is_touched(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    for i in range(12):
        driven.put(b"key %d" % i, bytes(200))
    driven.run_jobs()
    driven.store.close()
    for file in segment_files(driven.path):
        kept = file.read_bytes()
        file.unlink()
        before = {path: path.read_bytes() for path in driven.path.iterdir() if path.name != "LOCK"}
        with pytest.raises(Corrupt, match="missing"):
            driven.open()
        assert {path: path.read_bytes() for path in driven.path.iterdir() if path.name != "LOCK"} == before
        file.write_bytes(kept)
    assert driven.open().count() == 12


def test_a_stray_file_of_an_old_segment_changes_nothing(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    driven.restart()
    stray = driven.path / segment_name(1)
    assert not stray.exists()
    driven.put(b"k", b"old")
    content = (driven.path / segment_name(2)).read_bytes()
    driven.put(b"k", b"new")
    driven.store.close()
    stray.write_bytes(content)
    driven.open()
    assert driven.items() == {b"k": b"new"}
    assert stray.read_bytes() == content


def test_a_stray_segment_with_records_that_was_never_named_shows_that_the_manifest_lost_its_end(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    manifest_before = (driven.path / "MANIFEST").read_bytes()
    for i in range(12):
        driven.put(b"key %d" % i, bytes(200))
    driven.kill()
    (driven.path / "MANIFEST").write_bytes(manifest_before)
    with pytest.raises(Corrupt, match="lost its end"):
        driven.open()


def test_a_stray_segment_without_records_is_removed(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    driven.put(b"k", b"v")
    driven.store.close()
    stray = driven.path / segment_name(99)
    header = format.Header(0, 99, IDENTITY.directory_id, 1, 1)
    stray.write_bytes(format.encode_header(header).ljust(4096, b"\0"))
    (driven.path / "MANIFEST.tmp").write_bytes(b"half a manifest")
    driven.open()
    assert not stray.exists()
    assert not (driven.path / "MANIFEST.tmp").exists()
    assert driven.items() == {b"k": b"v"}


def test_a_shard_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard")
    with pytest.raises(DirectoryInUse):
        Driven(tmp_path / "shard")
    driven.kill()
    Driven(tmp_path / "shard").store.close()


def test_a_batch_that_was_killed_with_its_replies_unsent_is_there_in_order(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    batch = [put(b"same key", b"%d" % i) for i in range(100)]
    assert len(replies_of(driven.execute(*batch))) == 100
    driven.reopen()
    assert driven.items() == {b"same key": b"99"}
