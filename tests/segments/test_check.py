"""`check_directory`: a whole directory is OK, each planted damage is named, and a directory in use is left alone."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from kio.errors import DirectoryInUse, DirectoryInvalid
from kio.segments import format
from kio.segments.check import Report, check_directory
from kio.segments.disk import lock_file
from kio.segments.identity import create_or_load, shard_path
from kio.segments.manifest import Manifest
from tests.segments.support import IDENTITY, SMALL, Driven
from tests.segments.test_recovery import damage, records_of, segment_files


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards, each with sealed segments, cleanly closed."""
    with monkeypatch.context() as patch:
        patch.setattr(secrets, "randbits", lambda bits: IDENTITY.seed)
        identity, _ = create_or_load(tmp_path / "data", 2)
    for shard in range(2):
        path = shard_path(tmp_path / "data", shard)
        driven = Driven(path, SMALL, identity=identity, shard=shard)
        for i in range(12):
            driven.put(b"key %d" % i, bytes([i]) * 150)
        driven.delete(b"key 3")
        driven.run_jobs()
        driven.store.close()
    return tmp_path / "data"


def named(report: Report) -> set[tuple[int, str, int, str]]:
    return {(fault.shard, fault.file, fault.offset, fault.kind) for fault in report.faults}


def test_a_whole_directory_is_ok_and_is_not_changed(data: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "LOCK"}
    seen: list[tuple[int, int]] = []
    report = check_directory(data, progress=lambda done, total: seen.append((done, total)))
    assert (report.faults, report.notes) == ([], [])
    assert (report.shards, report.records) == (2, 26)
    assert report.segments == len(list(data.rglob("*.seg"))) == len(seen)
    assert seen[-1][0] == seen[-1][1] == report.bytes
    after = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "LOCK"}
    assert after == before


def test_each_kind_of_damage_is_named_with_segment_and_offset(data: Path) -> None:
    first, second, third = segment_files(data / "shard-0001")[:3]
    damage(first, 20)
    offset = records_of(second)[1][0]
    damage(second, offset + 50)
    footer = format.decode_footer(third.read_bytes())
    damage(third, footer.hints_offset + 8)
    assert named(check_directory(data)) == {
        (1, first.name, 0, "header"),
        (1, second.name, offset, "record"),
        (1, third.name, footer.hints_offset, "hints"),
    }
    assert check_directory(data, 0).faults == []
    damage(third, third.stat().st_size - 50)
    third_size = third.stat().st_size
    assert (1, third.name, third_size - 136, "footer") in named(check_directory(data, 1))
    third.unlink()
    assert (1, third.name, 0, "missing") in named(check_directory(data, 1))


def test_a_manifest_that_is_damaged_or_gone_is_named(data: Path) -> None:
    manifest = data / "shard-0000" / "MANIFEST"
    content = manifest.read_bytes()
    damage(manifest, 60)
    assert {fault[:2] + fault[3:] for fault in named(check_directory(data))} == {(0, "MANIFEST", "manifest")}
    manifest.write_bytes(content[:100])
    assert {fault[3] for fault in named(check_directory(data))} == {"manifest"}
    manifest.unlink()
    assert {fault[:2] + fault[3:] for fault in named(check_directory(data))} == {(0, "MANIFEST", "manifest")}


def test_stray_files_are_told_and_are_no_fault(data: Path) -> None:
    (data / "shard-0000" / "0000000001.seg.aside").write_bytes(b"set aside")
    (data / "shard-0000" / "0000000099.seg").write_bytes(bytes(500))
    report = check_directory(data)
    assert report.faults == []
    assert {(note.file, note.kind) for note in report.notes} == {
        ("0000000001.seg.aside", "stray"), ("0000000099.seg", "stray"),
    }  # fmt: skip


def test_a_directory_in_use_is_not_looked_at(data: Path) -> None:
    lock = lock_file(data / "LOCK")
    with pytest.raises(DirectoryInUse, match="in use by process"):
        check_directory(data)
    lock.release()
    lock = lock_file(data / "shard-0001" / "LOCK")
    with pytest.raises(DirectoryInUse, match="in use by process"):
        check_directory(data)
    assert check_directory(data, 0).faults == []
    lock.release()
    assert check_directory(data).faults == []


def test_a_shard_or_a_directory_that_does_not_exist_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInvalid, match="no shard 2"):
        check_directory(data, 2)
    with pytest.raises(DirectoryInvalid, match="not a kio data directory"):
        check_directory(tmp_path)
    with pytest.raises(DirectoryInvalid):
        check_directory(tmp_path / "nowhere")


def test_the_manifest_that_check_reads_is_the_one_that_was_written(data: Path) -> None:
    identity, _ = create_or_load(data, None)
    state = Manifest.load(data / "shard-0000", 0, identity.directory_id).state
    assert check_directory(data, 0).segments == len(state.segments)
