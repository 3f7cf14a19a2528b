"""A manifest that is damaged or gone is written anew from what reads of it and from the segments."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from kio.errors import FormatTooNew
from kio.segments import format
from kio.segments.check import check_directory
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode
from kio.segments.manifest import NAME as MANIFEST_NAME
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from kio.segments.repair import open_shard
from kio.segments.repair_manifest import plan_manifest
from kio.segments.repair_segments import plan_checkpoint, plan_segment
from kio.segments.segment import segment_name
from tests.segments.damaged import (
    MANIFEST_WOUNDS,
    OPTIONS,
    History,
    Wound,
    content,
    linked,
    make_history,
    repair_all,
    spoiled,
)
from tests.segments.faulty_disk import CarelessDisk, Died, FaultyDisk
from tests.segments.support import IDENTITY, Driven, unopened
from tests.segments.test_recovery import damage, records_of, segment_files

FULL = bool(os.environ.get("FULL"))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(tmp_path_factory.mktemp("repair") / "data")


@pytest.mark.parametrize("wound", MANIFEST_WOUNDS, ids=lambda wound: wound.name)
def test_a_manifest_is_rebuilt_without_a_loss(history: History, tmp_path: Path, wound: Wound) -> None:
    damaged = history.copied(tmp_path / "data")
    before = Manifest.load(damaged.path, 0, IDENTITY.directory_id).state
    wound.inflict(damaged)
    kept = (damaged.path / MANIFEST_NAME).read_bytes() if wound.name != "missing" else None
    backup = linked(damaged.data, tmp_path / "backup")
    hashes = content(backup)
    (plan,) = repair_all(damaged.data, CarelessDisk())
    assert content(backup) == hashes
    state = Manifest.load(damaged.path, 0, IDENTITY.directory_id).state
    assert state.next_id >= before.next_id
    assert state.lsn >= max(record.lsn for _, _, record in history.records) or not plan.may_return
    assert state.epoch > before.epoch or not plan.may_return
    assert bool(plan.may_return) == (wound.name != "header")
    copies = [path.read_bytes() for path in damaged.path.glob(f"{MANIFEST_NAME}.damaged-*")]
    assert copies == ([] if kept is None else [kept])
    damaged.judge(set(), set())


def test_a_manifest_whose_edits_all_read_is_what_it_was(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    before = Manifest.load(damaged.path, 0, IDENTITY.directory_id).state
    spoiled(damaged.path / MANIFEST_NAME, 20)
    (plan,) = repair_all(damaged.data, CarelessDisk())
    assert plan.loses == ["nothing"]
    assert Manifest.load(damaged.path, 0, IDENTITY.directory_id).state == before
    assert before.checkpoint is not None


def test_a_whole_manifest_is_left_alone(history: History) -> None:
    with open_shard(history.data, 0) as files:
        plan = plan_manifest(files)
    assert plan.does == []


def test_damage_of_records_stays_what_it_was_until_it_is_repaired_too(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    (damaged.path / MANIFEST_NAME).unlink()
    sealed, unsealed = segment_files(damaged.path)[0], history.unsealed[0].name
    for file in (sealed, damaged.path / unsealed):
        spoiled(file, records_of(file)[1][0] + 26)
    with open_shard(damaged.data, 0, CarelessDisk()) as files:
        plan_manifest(files).carry_out()
    faults = check_directory(damaged.data).faults
    assert {fault.repair for fault in faults} == {"record"}
    assert len({fault.segment for fault in faults}) == 2
    driven = unopened(Path(shutil.copytree(damaged.data, tmp_path / "opened")) / "shard-0000", OPTIONS, CarelessDisk())
    assert "kio check" in driven.open().store.stats()["reason"]
    driven.store.close()
    lost = {file.name: records_of(history.path / file.name)[1][0] for file in (sealed, damaged.path / unsealed)}
    affected = history.keys_in(lambda segment, offset, _: lost.get(segment_name(segment)) == offset)
    repair_all(damaged.data, CarelessDisk())
    damaged.judge(affected, affected)


# ---- compaction ----


def whose(data: Path) -> tuple[Path, int, bytes]:
    return data / "shard-0000", 0, IDENTITY.directory_id


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, dict[str, bytes]]:
    """A shard after a compaction that dropped tombstones with what they hid; and the files that it removed."""
    data = tmp_path_factory.mktemp("compacted") / "data"
    driven = Driven(data / "shard-0000", StoreOptions(segment_bytes=2048, space_amplification=1000.0), CarelessDisk())
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    history = History(data)
    for number in range(24):
        key = b"key %d" % number
        driven.put(key, key * 15)
        history.model[0, key] = key * 15
        history.values[0, key] = {key * 15, None}
    driven.seal()
    for number in range(0, 24, 2):
        driven.delete(b"key %d" % number)
        del history.model[0, b"key %d" % number]
    driven.seal()
    removed = {path.name: path.read_bytes() for path in segment_files(driven.path)}
    driven.compact()
    driven.put(b"key 1", b"newer")
    history.model[0, b"key 1"] = b"newer"
    history.values[0, b"key 1"].add(b"newer")
    driven.kill()
    named = {path.name for path in segment_files(driven.path)}
    victims = {name: content for name, content in removed.items() if name not in named}
    assert len(victims) > 2
    kinds = {record.kind for name in named for _, record in records_of(driven.path / name)}
    assert kinds == {format.PUT}
    return history, victims


@pytest.mark.parametrize("wound", MANIFEST_WOUNDS, ids=lambda wound: wound.name)
@pytest.mark.parametrize("standing", ["none", "all", "one"])
def test_what_a_compaction_has_dropped_does_not_come_back(
    compacted: tuple[History, dict[str, bytes]], tmp_path: Path, wound: Wound, standing: str
) -> None:
    history, victims = compacted
    damaged = history.copied(tmp_path / "data")
    names = {"none": [], "all": list(victims), "one": list(victims)[:1]}[standing]
    for name in names:
        (damaged.path / name).write_bytes(victims[name])
    wound.inflict(damaged)
    repair_all(damaged.data, CarelessDisk())
    damaged.judge(set(), set())


@pytest.mark.parametrize("is_told", [True, False])
def test_a_dropped_segment_comes_back_only_where_no_edit_tells_of_it_and_that_is_said(
    tmp_path: Path, is_told: bool
) -> None:
    data = tmp_path / "data"
    driven = Driven(data / "shard-0000", OPTIONS, CarelessDisk())
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    dead = [b"dead %d" % number for number in range(6)]
    for key in dead:
        driven.put(key, b"value")
    driven.seal()
    (file,) = (path for path in segment_files(driven.path) if records_of(path))
    before = file.read_bytes()
    for key in dead:
        driven.delete(key)
    driven.put(b"live", b"value")
    driven.seal()
    driven.compact()
    driven.kill()
    assert not file.exists()
    file.write_bytes(before)
    manifest = driven.path / MANIFEST_NAME
    if is_told:
        spoiled(manifest, 60)
    else:
        manifest.unlink()
    (plan,) = repair_all(data, CarelessDisk())
    assert any("deleted keys" in told for told in plan.may_return)
    back = dict.fromkeys([] if is_told else dead, b"value")
    assert driven.open().items() == {b"live": b"value"} | back
    driven.store.close()


def test_an_install_that_is_lost_at_the_end_of_the_manifest_is_found_by_its_output(tmp_path: Path) -> None:
    data = tmp_path / "data"
    driven = Driven(data / "shard-0000", StoreOptions(segment_bytes=2048, space_amplification=1000.0), CarelessDisk())
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    history = History(data)
    for number in range(24):
        key = b"key %d" % number
        driven.put(key, key * 15)
        history.model[0, key] = key * 15
        history.values[0, key] = {key * 15, None}
    for number in range(0, 24, 2):
        driven.delete(b"key %d" % number)
        del history.model[0, b"key %d" % number]
    driven.store.close()
    driven.open()
    driven.compact()
    driven.kill()
    manifest = driven.path / MANIFEST_NAME
    text = manifest.read_bytes()
    at = text.index(b"install")
    damage(manifest, at, b"1nstall")
    manifest.write_bytes(manifest.read_bytes()[: at + 100])
    assert {fault.repair for fault in check_directory(data).faults} == {"manifest"}
    with open_shard(data, 0) as files:
        for plan in (plan_checkpoint(files), plan_segment(files, min(Manifest.load(*whose(data)).state.segments))):
            assert plan.does == []
            assert "repair manifest first" in plan.notes[0]
    repair_all(data, CarelessDisk())
    history.judge(set(), set())


# ---- crashes, and what is newer ----


def test_crash_at_many_calls_of_a_rebuild(history: History, tmp_path: Path) -> None:
    crash_at_calls(history, tmp_path, "every other edit", step=17)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [wound.name for wound in MANIFEST_WOUNDS])
def test_crash_at_more_calls_of_any_rebuild(history: History, tmp_path: Path, name: str) -> None:
    crash_at_calls(history, tmp_path, name, step=1 if FULL else 7)


def crash_at_calls(history: History, tmp_path: Path, name: str, step: int) -> None:
    wounded = history.copied(tmp_path / "wounded")
    next(wound for wound in MANIFEST_WOUNDS if wound.name == name).inflict(wounded)
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
            History(path, wounded.records, wounded.values, wounded.model).judge(set(), set())
            shutil.rmtree(path)
    assert 10 < nth < 999


def test_what_a_newer_version_wrote_is_not_touched(history: History, tmp_path: Path) -> None:
    damaged = history.copied(tmp_path / "data")
    (damaged.path / MANIFEST_NAME).unlink()
    file = segment_files(damaged.path)[0]
    header = format.decode_header(file.read_bytes())
    damage(file, 0, format.encode_header(header, version=99))
    before = content(damaged.data)
    with open_shard(damaged.data, 0) as files, pytest.raises(FormatTooNew):
        plan_manifest(files)
    assert content(damaged.data) == before
