"""Repairs: for each damage that check names, the way out it names ends with a shard that is whole and answers all."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from kio.segments import format
from kio.segments.check import check_directory
from kio.segments.manifest import Manifest
from kio.segments.repair import open_shard
from kio.segments.repair_segments import plan_record, plan_segment
from kio.segments.segment import segment_id
from tests.segments.damaged import WOUNDS, History, Wound, content, linked, make_history, plan_for, repair_all, spoiled
from tests.segments.faulty_disk import CarelessDisk, Died, FaultyDisk
from tests.segments.support import IDENTITY
from tests.segments.test_recovery import records_of, segment_files


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(tmp_path_factory.mktemp("repair") / "data")


FULL = bool(os.environ.get("FULL"))
#: What is killed in the default run; the stress run takes all.
MOMENTS = ("value of a record",)


@pytest.mark.parametrize("wound", WOUNDS, ids=lambda wound: wound.name)
def test_the_way_out_that_check_names_ends_with_a_whole_shard(history: History, tmp_path: Path, wound: Wound) -> None:
    damaged = history.copied(tmp_path / "data")
    lost = wound.inflict(damaged)
    backup = linked(damaged.data, tmp_path / "backup")
    before = content(backup)
    plans = repair_all(damaged.data, CarelessDisk())
    assert len(plans) == 1
    assert content(backup) == before
    affected = damaged.keys_in(lost)
    told = {(lost.keyspace, lost.key) for plan in plans for lost in plan.lost if lost.key is not None}
    assert told <= affected
    assert told == affected or not wound.is_known
    if affected - told:
        assert any(plan.may_return for plan in plans)
    assert bool(affected) == any(plan.loses for plan in plans if plan.records_lost != 0)
    damaged.judge(affected, stale=affected - told)


def crash_at_calls(history: History, tmp_path: Path, wound: Wound, step: int) -> None:
    """Kill the repair, and cut its power, at calls of the disk: it was not begun, or a second run completes it."""
    wounded = history.copied(tmp_path / "wounded")
    lost = wounded.keys_in(wound.inflict(wounded))
    before = content(history.data).values()
    hurt = {digest for name, digest in content(wounded.data).items() if name.endswith(".seg") and digest not in before}
    for nth in range(1, 1000, step):
        data = Path(shutil.copytree(wounded.data, tmp_path / "data"))
        disk = FaultyDisk()
        disk.die("any", nth, part=(nth % 3) / 2)
        try:
            repair_all(data, disk)
            break
        except Died:
            pass
        disk.heal()
        cut = tmp_path / "cut"
        disk.power_cut(data, cut, random.Random(nth))
        for path in (data, cut):
            repair_all(path, CarelessDisk())
            after = History(path, wounded.records, wounded.values, wounded.model)
            after.judge(lost, lost)
            assert hurt <= set(content(path).values()), "a damaged file is gone"
            shutil.rmtree(path)
    else:
        raise AssertionError("a repair takes more than 1,000 calls of the disk")
    assert nth > 5


@pytest.mark.parametrize("wound", [wound for wound in WOUNDS if wound.name in MOMENTS], ids=lambda wound: wound.name)
def test_crash_at_many_calls_of_a_repair(history: History, tmp_path: Path, wound: Wound) -> None:
    crash_at_calls(history, tmp_path, wound, step=11)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wound", WOUNDS, ids=lambda wound: wound.name)
def test_crash_at_more_calls_of_any_repair(history: History, tmp_path: Path, wound: Wound) -> None:
    crash_at_calls(history, tmp_path, wound, step=1 if FULL else 5)


def test_what_is_set_aside_is_the_damaged_file_as_it_was(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    file = damaged.sealed[0]
    file.write_bytes(bytes(byte ^ (at == 100) for at, byte in enumerate(file.read_bytes())))
    before = file.read_bytes()
    (plan,) = repair_all(damaged.data, CarelessDisk())
    assert plan.aside == [f"{file.name}.aside"]
    assert not file.exists()
    assert file.with_name(plan.aside[0]).read_bytes() == before
    assert any(note.file == plan.aside[0] for note in check_directory(damaged.data).notes)


def test_the_records_that_are_kept_keep_their_versions(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    file = damaged.sealed[1]
    records = records_of(file)
    file.write_bytes(bytes(byte ^ (at == 20) for at, byte in enumerate(file.read_bytes())))
    repair_all(damaged.data, CarelessDisk())
    (new,) = {path.name for path in segment_files(damaged.path)} - {path.name for path in segment_files(history.path)}
    mark = format.BATCH_OPEN
    assert [record._replace(flags=record.flags & ~mark) for _, record in records_of(damaged.path / new)] == [
        record._replace(flags=record.flags & ~mark) for _, record in records
    ]


def test_a_clear_that_is_copied_is_in_the_manifest_from_then_on(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    (clear,) = (record for _, record in records_of(damaged.unsealed[0]) if record.kind == format.CLEAR)
    spoiled(damaged.unsealed[0], 41)
    repair_all(damaged.data, CarelessDisk())
    floors = Manifest.load(damaged.path, 0, IDENTITY.directory_id).state.floors
    assert floors[clear.keyspace] == (clear.epoch, clear.lsn)


def test_a_whole_segment_and_one_that_is_not_there_are_left_alone(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    before = content(damaged.data)
    with open_shard(damaged.data, 0) as files:
        for plan in (plan_record, plan_segment):
            for number in (segment_id(damaged.sealed[0].name) or 0, 4711):
                made = plan(files, number)
                assert made.does == []
                assert made.notes
                made.carry_out()
    assert content(damaged.data) == before


def test_of_a_segment_that_is_gone_no_record_is_kept_and_the_plan_says_so(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    file = damaged.sealed[0]
    records = len(records_of(file))
    file.unlink()
    (fault,) = check_directory(damaged.data).faults
    with open_shard(damaged.data, 0) as files:
        assert plan_record(files, fault.segment).does == []
        plan = plan_for(files, fault)
        assert plan.records_lost == records
        assert f"{records}, LSN 1 to " in plan.loses[0]
        assert plan.may_return


def test_a_file_system_without_links_sets_aside_by_renaming(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CarelessDisk, source: Path, target: Path) -> None:
        raise PermissionError(1, "no links here", str(target))

    monkeypatch.setattr(CarelessDisk, "link", refuse)
    damaged = history.copied(tmp_path / "data")
    file = damaged.sealed[0]
    file.write_bytes(bytes(byte ^ (at == 20) for at, byte in enumerate(file.read_bytes())))
    (plan,) = repair_all(damaged.data, CarelessDisk())
    assert file.with_name(plan.aside[0]).exists()
    damaged.judge(set(), set())


def test_what_the_disk_does_not_deliver_is_given_up_by_pages(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    file = damaged.sealed[0]
    number = segment_id(file.name)

    class BadSector(CarelessDisk):
        """A disk that does not give the bytes of that file from 0 to 4095, a page of it."""

        def __init__(self) -> None:
            self.bad: set[int] = set()

        def open(self, path: Path, *, writable: bool = False) -> int:
            fd = super().open(path, writable=writable)
            self.bad.discard(fd)
            if path == file:
                self.bad.add(fd)
            return fd

        def read(self, fd: int, size: int, offset: int) -> bytes:
            if fd in self.bad and offset < 4096:
                raise OSError(5, "Input/output error")
            return super().read(fd, size, offset)

    disk = BadSector()
    assert number is not None
    faults = check_directory(damaged.data, disk=disk).faults
    assert [(fault.file, fault.repair) for fault in faults] == [(file.name, "record")]
    with open_shard(damaged.data, 0, disk) as files:
        plan = plan_record(files, number)
        assert f"{file.stat().st_size} bytes of segment {number} that the disk does not deliver" in plan.loses
        plan.carry_out()
    assert check_directory(damaged.data).faults == []
    lost = damaged.keys_in(lambda segment, _, __: segment == number)
    damaged.judge(lost, lost)


def test_a_shard_of_a_backup_or_of_a_daemon_is_not_repaired(history: History, tmp_path: Path) -> None:
    from kio.errors import DirectoryInUse, DirectoryInvalid
    from kio.segments.disk import lock_file

    damaged = history.copied(tmp_path / "data")
    lock = lock_file(damaged.path / "LOCK")
    with pytest.raises(DirectoryInUse), open_shard(damaged.data, 0):
        pass
    lock.release()
    with pytest.raises(DirectoryInvalid, match="no shard 1"), open_shard(damaged.data, 1):
        pass
    with open_shard(damaged.data, 0):
        pass
    shutil.rmtree(damaged.data)
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "BACKUP").touch()
    with pytest.raises(DirectoryInvalid, match="is a backup"), open_shard(tmp_path / "backup", 0):
        pass
