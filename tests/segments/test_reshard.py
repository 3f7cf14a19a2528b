"""Resharding: every key is where it belongs with what it had, and whatever happens, one generation is whole."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest

from kio import wire
from kio.errors import Corrupt, DirectoryInUse, DirectoryInvalid, DiskFull
from kio.hashing import routed_hash, shard_of
from kio.opbatch import Operation, decode_batch
from kio.segments import backup_file, identity
from kio.segments import reshard as resharding
from kio.segments._reshard import Dealer
from kio.segments.backup import take_backup
from kio.segments.check import check_directory
from kio.segments.disk import lock_file
from kio.segments.identity import load, shard_path, shards_root
from kio.segments.reading import ShardReader
from kio.segments.repair import open_shard
from kio.segments.repair_segments import plan_record
from kio.segments.reshard import reshard
from kio.segments.restore import restore
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk
from tests.segments.resharded import Data, digests, names
from tests.segments.support import hash_of, key_of_hash, open_descriptors, operation
from tests.segments.test_recovery import damage, segment_files


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Two shards, one of them killed."""
    made = Data(tmp_path / "data", 2)
    made.run(random.Random(1), 150)
    made.shards[0].kill()
    made.shards[1].store.close()
    return made


# ---- what it does ----


@pytest.mark.parametrize("seed", range(3))
def test_all_keys_survive_any_change_of_the_number_of_shards(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = Data(tmp_path / "data", 2)
    epochs = []
    for shards in (3, 1, 8, 2):
        data.run(chance, 150)
        data.stop(chance)
        before = data.identity
        done = data.reshard(shards)
        assert (done.shards_before, done.shards, done.records) == (before.shards, shards, len(data.alive()))
        assert check_directory(data.path).faults == []
        data.open()
        assert data.identity.shards == shards
        assert data.identity.seed == before.seed
        assert data.identity.directory_id != before.directory_id
        for driven in data.shards:
            assert driven.store.stats()["epoch"] > data.epoch, "a version would be given out again"
        data.compare()
        epochs.append(data.epoch)
        assert names(data.path) == {"IDENTITY", "LOCK", f"shards-{len(epochs):04d}"}
    assert epochs == sorted(set(epochs))
    data.kill()


def test_keys_of_one_tag_that_meet_in_a_shard_are_told_apart(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", 4)
    keys = [key_of_hash(hash_of(3, 5, bits << 30), nth, 0, data.identity.seed) for bits in range(4) for nth in range(2)]
    for key in keys:
        data.put(key, b"value of " + key)
    assert len({data.driven(key, 0).shard for key in keys}) == 4
    data.stop(random.Random(0))
    for shards in (1, 3):
        data.reshard(shards)
        data.open()
        data.compare()
        data.delete(keys.pop())
        data.kill()
        data.open()
        data.compare()
        data.kill()


def test_what_has_expired_never_comes_back(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", 2)
    for i in range(20):
        data.put(b"lasting %d" % i, b"")
        data.put(b"short %d" % i, b"", 0, data.time.wall_ms + 1000)
        data.put(b"long %d" % i, b"", 0, data.time.wall_ms + 5000)
    data.time.pass_by(2000)
    for driven in data.shards:
        driven.store.close()
    data.time.wall_ms -= 100_000  # the wall clock is set back while nobody looks
    assert (data.reshard(3).records, data.reshard(1).expired) == (40, 0)
    data.open()
    assert data.shards[0].count() == 40
    assert set(data.shards[0].items()) == {key for _, key in data.model if not key.startswith(b"short")}
    data.time.pass_by(3000)
    assert set(data.shards[0].items()) == {key for _, key in data.model if key.startswith(b"lasting")}
    data.kill()


def test_expired_records_are_left_out_and_counted(data: Data) -> None:
    expired = sum(held.expiry != 0 for held in data.alive().values())
    data.time.pass_by(20_000_000)
    done = data.reshard(3)
    assert done.records == len(data.alive())
    assert done.expired >= expired > 0
    data.open()
    data.compare()
    data.kill()


def test_progress_rises_to_the_end(data: Data) -> None:
    seen: list[tuple[int, int]] = []
    reshard(data.path, 3, progress=lambda done, total: seen.append((done, total)), disk=CarelessDisk())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_helpers_seal_and_verify_beside_the_copying(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", 2)
    for i in range(400):
        data.put(b"key %d" % i, b"value %d " % i * 100)
    data.stop(random.Random(5))
    seen: list[int] = []
    with ThreadPoolExecutor(2) as helper:
        done = reshard(
            data.path, 3, segment_bytes=4096, progress=lambda done, _: seen.append(done), helper=helper,
            disk=CarelessDisk(), clock=data.time.clock,
        )  # fmt: skip
    assert done.records == 400
    assert seen == sorted(seen)
    assert check_directory(data.path).notes == []
    data.open()
    data.compare()
    data.kill()


def test_a_large_value_and_the_longest_key_survive(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", 1)
    data.put(b"k" * 65535, random.Random(1).randbytes(9 << 20), 3)
    data.put(b"{" + b"t" * 65533 + b"}", b"", 3, data.time.wall_ms + 1)
    data.stop(random.Random(1))
    assert data.reshard(2).records == 2
    data.open()
    data.compare()
    data.kill()


@pytest.mark.parametrize("window_bytes", [1, 10_000, 1 << 30])
def test_each_live_record_is_dealt_once_whatever_the_window(data: Data, window_bytes: int) -> None:
    dealt: dict[tuple[int, bytes], Operation] = {}
    for shard in range(2):
        with ShardReader(shard_path(data.path, shard), data.identity, shard) as reader:
            dealer = Dealer(reader.engine, 5, data.time.wall_ms, window_bytes=window_bytes)
            while batches := dealer.deal(1000):
                for target, batch in batches:
                    for op in decode_batch(batch):
                        assert op.hash == routed_hash(op.key, data.identity.seed, op.keyspace)
                        assert shard_of(op.hash, 5) == target
                        assert (op.keyspace, op.key) not in dealt
                        dealt[op.keyspace, op.key] = op
            assert dealer.record_bytes == reader.live_bytes
    assert dealt.keys() == data.alive().keys()


def test_nothing_is_done_where_the_number_is_right_already(data: Data) -> None:
    before = digests(data.path)
    done = data.reshard(2)
    assert (done.shards_before, done.shards, done.records) == (2, 2, 0)
    assert digests(data.path) == before


def test_what_an_earlier_run_left_is_removed(data: Data) -> None:
    (data.path / "shards-0001" / "shard-0000").mkdir(parents=True)
    data.reshard(2)
    assert names(data.path) == {"IDENTITY", "LOCK", "shard-0000", "shard-0001"}


# ---- what it refuses ----


def refused(data: Data, error: type[Exception], match: str, shards: int = 3) -> None:
    before = digests(data.path)
    with pytest.raises(error, match=match):
        data.reshard(shards)
    assert digests(data.path) == before


def test_a_directory_or_a_shard_in_use_is_refused(data: Data) -> None:
    lock = lock_file(data.path / "LOCK")
    refused(data, DirectoryInUse, "in use by process")
    lock.release()
    lock = lock_file(data.path / "shard-0001" / "LOCK")
    refused(data, DirectoryInUse, "in use by process")
    lock.release()


@pytest.mark.parametrize("shards", [0, 1025])
def test_a_number_out_of_range_is_refused(data: Data, shards: int) -> None:
    refused(data, DirectoryInvalid, "has 1 to 1024 shards", shards)


def test_a_backup_is_refused(data: Data) -> None:
    backup_file.write_backup(data.path, backup_file.Backup(data.identity, 1, 0, []))
    (data.path / identity.NAME).unlink()
    refused(data, DirectoryInvalid, 'is a backup, not a data directory; run "kio restore"')


def test_a_damaged_record_is_refused(data: Data) -> None:
    data.open()
    key, held = next((key, held) for (_, key), held in data.alive().items() if len(held.value) == 5000)
    data.stop(random.Random(3))
    for path in segment_files(data.path / "shard-0000") + segment_files(data.path / "shard-0001"):
        at = path.read_bytes().find(key + held.value)
        if at >= 0:
            damage(path, at + 2000)
    refused(data, Corrupt, 'run "kio check')


@pytest.mark.parametrize("name", ["MANIFEST", "0000000001.seg"])
def test_a_missing_file_is_refused(data: Data, name: str) -> None:
    victim = min(segment_files(data.path / "shard-0001")) if name.endswith(".seg") else data.path / "shard-0001" / name
    victim.unlink()
    refused(data, Corrupt, "is missing")


def test_a_disk_that_is_too_small_is_told_beforehand(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=1024))
    refused(data, DiskFull, r"needs \d+ MiB more while it is rewritten, and the disk has 0; nothing was changed")


def test_a_number_of_keys_that_does_not_agree_is_not_swapped_in(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[..., None] = resharding._Filled.write
    monkeypatch.setattr(resharding._Filled, "write", lambda filled, batch: None)
    refused(data, Corrupt, "keys in the old shards and 0 in the new ones; nothing was changed")
    monkeypatch.setattr(resharding._Filled, "write", write)
    data.reshard(3)


def test_what_does_not_read_back_is_not_swapped_in(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    check: Callable[..., object] = resharding.check_shards

    def rots(root: Path, *arguments: object, **more: object) -> object:
        damage(segment_files(root / "shard-0001")[0], 200)
        return check(root, *arguments, **more)

    monkeypatch.setattr(resharding, "check_shards", rots)
    refused(data, Corrupt, "shard 1 of the new ones: 000000000[0-9].seg: .*; nothing was changed")


# ---- what goes wrong in the middle ----


def test_a_full_disk_in_the_middle_leaves_nothing_behind(data: Data) -> None:
    before = digests(data.path)
    disk = FaultyDisk()
    disk.fail("allocate", 6, errno.ENOSPC, times=1000)
    with pytest.raises((DiskFull, OSError)):
        data.reshard(3, disk)
    assert digests(data.path) == before
    assert names(data.path) == {"IDENTITY", "LOCK", "shard-0000", "shard-0001"}


def test_ctrl_c_in_the_middle_leaves_nothing_behind(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resharding._Filled, "write", interrupted)
    before = digests(data.path)
    descriptors = open_descriptors()
    with pytest.raises(KeyboardInterrupt):
        data.reshard(3)
    assert digests(data.path) == before
    assert open_descriptors() == descriptors


# ---- whoever reads a directory that was resharded ----


def test_a_repair_finds_the_shards_where_they_are(data: Data) -> None:
    data.reshard(3)
    victim = segment_files(data.path / "shards-0001" / "shard-0001")[0]
    damage(victim, 200)
    with open_shard(data.path, 1) as files:
        assert files.path == victim.parent
        plan = plan_record(files, int(victim.stem))
        # Whether the damaged record counted depends on where the directory's seed has put the keys.
        assert plan.aside == [f"{victim.name}.aside"]
        plan.carry_out()
    assert check_directory(data.path).faults == []


def test_a_backup_of_a_resharded_directory_is_restored_and_goes_on(data: Data, tmp_path: Path) -> None:
    data.reshard(3)
    data.open()
    points = lambda: [msgpack.unpackb(each.one(operation(wire.OP_SEAL)).payload) for each in data.shards]  # noqa: E731
    take_backup(data.path, tmp_path / "backup", points)
    restore(tmp_path / "backup", tmp_path / "restored")
    assert check_directory(tmp_path / "backup").faults == []
    data.kill()
    data.path = tmp_path / "restored"
    assert not (data.path / "shards-0001").exists()
    data.open()
    data.compare()
    taken = take_backup(data.path, tmp_path / "backup", points)
    assert taken.kept > 0
    data.kill()


def test_a_backup_of_the_old_shards_is_not_mixed_with_the_new_ones(data: Data, tmp_path: Path) -> None:
    data.open()
    points = lambda: [msgpack.unpackb(each.one(operation(wire.OP_SEAL)).payload) for each in data.shards]  # noqa: E731
    take_backup(data.path, tmp_path / "backup", points)
    data.kill()
    data.reshard(3)
    data.reshard(2)
    data.open()
    with pytest.raises(DirectoryInvalid, match="a backup of another data directory"):
        take_backup(data.path, tmp_path / "backup", points)
    data.kill()


def test_shards_of_two_generations_are_never_mixed(data: Data, tmp_path: Path) -> None:
    shutil.copytree(data.path / "shard-0001", tmp_path / "old")
    data.reshard(3)
    data.reshard(2)
    path = shard_path(shards_root(data.path, load(data.path)), 1)
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "old", path)
    with pytest.raises(Corrupt, match="the manifest of shard 1 is that of shard 1 of directory"):
        data.open()
    data.shards[0].kill()
