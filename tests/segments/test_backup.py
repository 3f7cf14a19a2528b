"""Backup and restore: what is restored is the state at the point, whatever happens to the store meanwhile and after."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kio import wire
from kio.errors import DirectoryInvalid, Overloaded, ShardReadOnly
from kio.segments import backup_file, keyspaces, sealed_json
from kio.segments.backup import STAGING, Taken, take_backup
from kio.segments.check import check_directory
from kio.segments.disk import Disk
from kio.segments.identity import create_or_load, load, shard_path
from kio.segments.keyspaces import KeyspaceMap
from kio.segments.restore import MARKER, restore
from kio.segments.store import StoreOptions
from tests.segments.faulty_disk import Died, FaultyDisk
from tests.segments.support import Driven, operation
from tests.segments.test_recovery import damage, segment_files

SMALL = StoreOptions(segment_bytes=2048)
SHARDS = 2

Model = dict[tuple[int, int, bytes], bytes]


class OtherFileSystem(Disk):
    """A disk on which nothing outside `home` can be a link to a file inside."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def link(self, source: Path, target: Path) -> None:
        if source.is_relative_to(self.home) != target.is_relative_to(self.home):
            raise OSError(errno.EXDEV, "another file system", str(target))
        super().link(source, target)


class Data:
    """A data directory of two shards that are open, and the model of what they hold."""

    def __init__(self, home: Path) -> None:
        self.path = home / "data"
        self.identity, _ = create_or_load(self.path, SHARDS)
        self.shards = [
            Driven(shard_path(self.path, shard), SMALL, identity=self.identity, shard=shard) for shard in range(SHARDS)
        ]
        self.model: Model = {}
        self.asked = 0

    def put(self, shard: int, key: bytes, value: bytes, keyspace: int = 0) -> None:
        self.shards[shard].put(key, value, keyspace)
        self.model[shard, keyspace, key] = value

    def delete(self, shard: int, key: bytes) -> None:
        self.shards[shard].delete(key)
        del self.model[shard, 0, key]

    def fill(self, start: int = 0, count: int = 60) -> None:
        """Some segments in each shard, overwrites and deletions among them, and an active one."""
        for i in range(start, start + count):
            self.put(i % SHARDS, b"key %d" % (i % 40), b"value %d " % i * 10)
            self.put(i % SHARDS, b"key %d" % (i % 7), b"other %d" % i, keyspace=5)
            if i % 9 == 8:
                self.delete(i % SHARDS, b"key %d" % (i % 40))
        for driven in self.shards:
            driven.run_jobs()

    def points(self) -> list[dict[str, Any]]:
        self.asked += 1
        return [msgpack.unpackb(driven.one(operation(wire.OP_SEAL)).payload) for driven in self.shards]

    def back_up(self, target: Path, disk: Disk | None = None) -> Taken:
        return take_backup(self.path, target, self.points, disk=disk or Disk())

    def close(self) -> None:
        for driven in self.shards:
            driven.store.close()


@pytest.fixture
def data(tmp_path: Path) -> Data:
    made = Data(tmp_path)
    made.fill()
    return made


def held(path: Path) -> Model:
    """What a data directory holds."""
    identity = load(path)
    found: Model = {}
    for shard in range(identity.shards):
        driven = Driven(shard_path(path, shard), SMALL, identity=identity, shard=shard)
        for keyspace in (0, 5):
            found |= {(shard, keyspace, key): value for key, value in driven.items(keyspace=keyspace).items()}
            assert driven.count(keyspace) == len(driven.items(keyspace=keyspace))
        driven.kill()
    return found


def restored(target: Path, new: Path) -> Model:
    assert check_directory(target).faults == []
    restore(target, new)
    assert check_directory(new).faults == []
    return held(new)


def test_what_is_restored_is_the_state_at_the_point(data: Data, tmp_path: Path) -> None:
    model = dict(data.model)
    taken = data.back_up(tmp_path / "backup")
    assert (taken.linked, taken.copied, taken.attempts) == (taken.segments, 0, 1)
    assert [at.lsn for at in taken.backup.shards] == [driven.store.lsn for driven in data.shards]
    assert restored(tmp_path / "backup", tmp_path / "new") == model


def test_what_is_written_sealed_and_cleared_after_the_point_is_not_in_the_backup(data: Data, tmp_path: Path) -> None:
    model = dict(data.model)
    data.back_up(tmp_path / "backup")
    data.shards[0].clear(5)
    data.fill(100)
    data.close()
    assert restored(tmp_path / "backup", tmp_path / "new") == model


def test_what_was_cleared_before_the_point_does_not_come_back(data: Data, tmp_path: Path) -> None:
    data.shards[1].clear(5)
    model = {key: value for key, value in data.model.items() if key[:2] != (1, 5)}
    data.back_up(tmp_path / "backup")
    assert restored(tmp_path / "backup", tmp_path / "new") == model


def test_the_daemons_files_are_as_before_when_a_restored_directory_is_written_to(data: Data, tmp_path: Path) -> None:
    data.back_up(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    identity = load(tmp_path / "new")
    for shard in range(SHARDS):
        driven = Driven(shard_path(tmp_path / "new", shard), SMALL, identity=identity, shard=shard)
        for i in range(50):
            driven.put(b"key %d" % i, b"in the copy" * 10)
        driven.run_jobs()
        driven.store.close()
    assert check_directory(tmp_path / "backup").faults == []
    assert {key: data.shards[key[0]].get(key[2], key[1]) for key in data.model} == data.model
    data.close()
    assert check_directory(data.path).faults == []


def test_versions_are_not_given_out_twice_by_the_daemon_and_by_what_was_restored(data: Data, tmp_path: Path) -> None:
    epoch = data.back_up(tmp_path / "backup").backup.shards[0].epoch
    restore(tmp_path / "backup", tmp_path / "new")
    driven = Driven(shard_path(tmp_path / "new", 0), SMALL, identity=data.identity)
    assert driven.store.stats()["epoch"] > epoch


def test_an_empty_shard_and_an_empty_directory_can_be_backed_up(tmp_path: Path) -> None:
    data = Data(tmp_path)
    data.put(1, b"the only key", b"v")
    data.back_up(tmp_path / "backup")
    assert restored(tmp_path / "backup", tmp_path / "new") == data.model


# ---- another file system, increments ----


def test_across_file_systems_segments_are_copied_up_to_their_ends_and_nothing_is_left_in_the_data_directory(
    data: Data, tmp_path: Path
) -> None:
    names = set(data.path.rglob("*"))
    model = dict(data.model)
    taken = data.back_up(tmp_path / "backup", OtherFileSystem(data.path))
    assert (taken.copied, taken.linked, taken.damaged) == (taken.segments, 0, [])
    assert set(data.path.rglob("*")) >= names
    assert not (data.path / STAGING).exists()
    shutil.rmtree(data.path)
    assert restored(tmp_path / "backup", tmp_path / "new") == model


@pytest.mark.parametrize("is_far", [False, True], ids=["one file system", "two file systems"])
def test_a_second_backup_copies_only_what_is_new_and_leaves_one_generation(
    data: Data, tmp_path: Path, is_far: bool
) -> None:
    disk = OtherFileSystem(data.path) if is_far else Disk()
    first = data.back_up(tmp_path / "backup", disk)
    data.fill(100, 20)
    second = data.back_up(tmp_path / "backup", disk)
    sealed_before = len([1 for driven in data.shards for path in segment_files(driven.path)]) - SHARDS
    assert 0 < second.kept <= sealed_before
    assert second.kept + second.copied + second.linked == second.segments
    assert (second.copied_bytes < first.copied_bytes) is is_far
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["000002", "BACKUP", "LOCK"]
    assert restored(tmp_path / "backup", tmp_path / "new") == data.model


def test_a_rotten_segment_is_told_when_it_is_copied(data: Data, tmp_path: Path) -> None:
    rotten = segment_files(data.shards[1].path)[0]
    damage(rotten, 200)
    taken = data.back_up(tmp_path / "backup", OtherFileSystem(data.path))
    assert taken.damaged == [f"shard-0001/{rotten.name}"]
    assert {fault.file for fault in check_directory(tmp_path / "backup").faults} == {rotten.name}


# ---- what happens meanwhile ----


class Vanishing(Disk):
    """A disk on which something happens before a link of a segment is made."""

    def __init__(self, happens: Callable[[Path], None]) -> None:
        self._happens = happens

    def link(self, source: Path, target: Path) -> None:
        if source.suffix == ".seg":
            self._happens(source)
        super().link(source, target)


def test_where_a_segment_vanishes_all_shards_are_asked_again(data: Data, tmp_path: Path) -> None:
    struck: list[Path] = []

    def happens(source: Path) -> None:
        if len(struck) < 3:
            struck.append(source)
            data.put(0, b"between", b"%d" % len(struck))
            raise FileNotFoundError(errno.ENOENT, "compacted", str(source))

    taken = data.back_up(tmp_path / "backup", Vanishing(happens))
    assert taken.attempts == data.asked == 4
    assert restored(tmp_path / "backup", tmp_path / "new") == data.model


def test_where_segments_vanish_for_ever_the_backup_gives_up_and_the_earlier_one_stays(
    data: Data, tmp_path: Path
) -> None:
    model = dict(data.model)
    data.back_up(tmp_path / "backup")
    data.fill(200, 10)

    def happens(source: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "compacted", str(source))

    with pytest.raises(Overloaded, match="vanished"):
        data.back_up(tmp_path / "backup", Vanishing(happens))
    assert restored(tmp_path / "backup", tmp_path / "new") == model


@pytest.mark.parametrize("is_far", [False, True], ids=["one file system", "two file systems"])
def test_a_crash_at_any_call_leaves_the_earlier_backup_or_the_new_one(data: Data, tmp_path: Path, is_far: bool) -> None:
    class Dying(FaultyDisk):
        def link(self, source: Path, target: Path) -> None:
            self._strike("link", target)
            if is_far and source.is_relative_to(data.path) != target.is_relative_to(data.path):
                raise OSError(errno.EXDEV, "another file system", str(target))
            Disk.link(self, source, target)

        def remove_tree(self, path: Path) -> None:
            self._strike("remove_tree", path)
            super().remove_tree(path)

    target = tmp_path / "backup"
    data.back_up(target, OtherFileSystem(data.path) if is_far else Disk())
    models = [dict(data.model)]
    data.fill(100, 12)
    models.append(dict(data.model))
    seen = set()
    for nth in range(1, 1000):
        work = tmp_path / "work"
        shutil.copytree(target, work)
        disk = Dying()
        disk.die("any", nth)
        try:
            data.back_up(work, disk)
        except Died:
            is_over = False
        else:
            is_over = True
        seen.add(backup_file.load_backup(work).generation)
        if nth % 7 == 0 or is_over:
            found = restored(work, tmp_path / "new")
            assert found == models[backup_file.load_backup(work).generation - 1]
            shutil.rmtree(tmp_path / "new")
            data.back_up(work)
            assert len([path for path in work.iterdir() if path.is_dir()]) == 1
        shutil.rmtree(work)
        if is_over:
            break
    assert seen == {1, 2}
    assert is_over


# ---- what is refused ----


def test_a_daemon_does_not_start_on_a_backup(data: Data, tmp_path: Path) -> None:
    data.back_up(tmp_path / "backup")
    with pytest.raises(DirectoryInvalid, match="is a backup"):
        create_or_load(tmp_path / "backup", None)
    with pytest.raises(DirectoryInvalid, match="no IDENTITY"):
        create_or_load(tmp_path / "backup" / "000001", None)


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(data: Data, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").write_text("dear")
    with pytest.raises(DirectoryInvalid, match="holds no backup"):
        data.back_up(tmp_path / "other")
    with pytest.raises(DirectoryInvalid, match="not empty"):
        data.back_up(tmp_path / "backup")
        restore(tmp_path / "backup", tmp_path / "other")
    assert (tmp_path / "other" / "letter").read_text() == "dear"
    another = Data(tmp_path / "another")
    with pytest.raises(DirectoryInvalid, match="another data directory"):
        another.back_up(tmp_path / "backup")
    with pytest.raises(DirectoryInvalid, match="not empty"):
        restore(tmp_path / "backup", another.path)
    with pytest.raises(DirectoryInvalid, match="not a backup"):
        restore(tmp_path / "other", tmp_path / "new")


def test_a_damaged_backup_file_is_refused(data: Data, tmp_path: Path) -> None:
    data.back_up(tmp_path / "backup")
    damage(tmp_path / "backup" / "BACKUP", 30)
    with pytest.raises(DirectoryInvalid, match="damaged"):
        restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(DirectoryInvalid, match="damaged"):
        check_directory(tmp_path / "backup")


def test_a_shard_that_the_disk_failed_gives_no_point(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", SMALL, disk)
    driven.put(b"k", b"v")
    disk.fail("sync_data")
    driven.sync()
    with pytest.raises(ShardReadOnly, match="export instead"):
        driven.one(operation(wire.OP_SEAL))


def test_a_restore_that_died_is_run_again_and_a_finished_one_is_never_emptied(data: Data, tmp_path: Path) -> None:
    data.back_up(tmp_path / "backup")
    new = tmp_path / "new"
    for nth in range(1, 1000):
        disk = FaultyDisk()
        disk.die("any", nth)
        try:
            restore(tmp_path / "backup", new, disk=disk)
        except Died:
            if (new / "IDENTITY").exists():
                with pytest.raises(DirectoryInvalid):
                    restore(tmp_path / "backup", new)
                shutil.rmtree(new)
            continue
        break
    assert not (new / MARKER).exists()
    assert held(new) == data.model


# --- the map of keyspaces


def test_the_map_of_keyspaces_is_restored_as_it_was_at_the_point(data: Data, tmp_path: Path) -> None:
    mapped = KeyspaceMap().swapped(0, 5).swapped(5, 7)
    keyspaces.write(data.path, mapped)
    taken = data.back_up(tmp_path / "backup")
    keyspaces.write(data.path, mapped.swapped(0, 9))
    assert taken.backup.keyspaces == backup_file.load_backup(tmp_path / "backup").keyspaces == mapped
    assert restored(tmp_path / "backup", tmp_path / "new") == data.model
    assert keyspaces.load(tmp_path / "new") == mapped
    data.back_up(tmp_path / "backup")
    assert backup_file.load_backup(tmp_path / "backup").keyspaces == mapped.swapped(0, 9)


def test_a_backup_without_swaps_is_of_version_1_and_one_with_a_map_of_version_2(data: Data, tmp_path: Path) -> None:
    data.back_up(tmp_path / "backup")
    plain = json.loads((tmp_path / "backup" / "BACKUP").read_bytes())
    assert plain["version"] == 1
    assert "keyspaces" not in plain
    restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / keyspaces.NAME).exists()
    keyspaces.write(data.path, KeyspaceMap().swapped(1, 2))
    data.back_up(tmp_path / "backup")
    assert json.loads((tmp_path / "backup" / "BACKUP").read_bytes())["version"] == 2


@pytest.mark.parametrize("undone", [False, True])
def test_points_are_taken_anew_where_keyspaces_were_swapped_meanwhile(data: Data, tmp_path: Path, undone: bool) -> None:
    wanted = KeyspaceMap()

    def points() -> list[dict[str, Any]]:
        nonlocal wanted
        told = data.points()
        if data.asked == 1:
            wanted = wanted.swapped(0, 5)
            wanted = wanted.swapped(0, 5) if undone else wanted
            keyspaces.write(data.path, wanted)
        return told

    taken = take_backup(data.path, tmp_path / "backup", points)
    assert (taken.attempts, taken.backup.keyspaces) == (2, wanted)


def test_keyspaces_that_are_swapped_all_the_time_are_told(data: Data, tmp_path: Path) -> None:
    def points() -> list[dict[str, Any]]:
        keyspaces.write(data.path, keyspaces.load(data.path).swapped(0, 1))
        return data.points()

    with pytest.raises(Overloaded, match="keyspaces were swapped, 20 times in a row"):
        take_backup(data.path, tmp_path / "backup", points)


@pytest.mark.parametrize("moved", [{"0": 1}, {"0": 1, "1": 1}, [0]])
def test_a_backup_whose_map_cannot_be_is_damaged(data: Data, tmp_path: Path, moved: Any) -> None:
    keyspaces.write(data.path, KeyspaceMap().swapped(1, 2))
    data.back_up(tmp_path / "backup")
    path = tmp_path / "backup" / "BACKUP"
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    fields["keyspaces"]["moved"] = moved
    path.write_text(json.dumps(fields | {"checksum": sealed_json.checksum_of(fields)}))
    with pytest.raises(DirectoryInvalid, match="BACKUP is damaged"):
        restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(DirectoryInvalid, match="BACKUP is damaged"):
        check_directory(tmp_path / "backup")


def test_a_damaged_map_is_told_by_check_and_by_backup(data: Data, tmp_path: Path) -> None:
    (data.path / keyspaces.NAME).write_text("{")
    with pytest.raises(DirectoryInvalid, match="KEYSPACES is damaged"):
        data.back_up(tmp_path / "backup")
    data.close()
    with pytest.raises(DirectoryInvalid, match="KEYSPACES is damaged"):
        check_directory(data.path)
