"""The checkpoint file: what the kernel writes is what the reference encoders write, and no damage goes unseen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kio.errors import Corrupt, FormatTooNew
from kio.segments import checkpoint
from kio.segments._keydir import KeyDir
from kio.segments.check import check_directory
from kio.segments.checkpoint import CheckpointFile, Named, Page
from kio.segments.disk import DISK
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode
from kio.segments.opening import _loader
from kio.segments.options import StoreOptions
from kio.segments.recovery import Recovered
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.opened import checkpoints_in, held_by
from tests.segments.support import IDENTITY, Driven, hash_of, key_of_hash, unopened
from tests.segments.test_recovery import manifest_of

OPTIONS = StoreOptions(segment_bytes=4096)
KEYS = [
    *(key_of_hash(hash_of(page, tag)) for page in (0, 255, 511) for tag in (0, 77, (1 << 20) - 1)),
    *(key_of_hash(hash_of(3, 5, i)) for i in range(3)),
    *(b"key %d" % i for i in range(40)),
]


@pytest.fixture
def stopped(tmp_path: Path) -> Driven:
    """A shard of a few segments and keyspaces, stopped cleanly: everything in it stands in its checkpoint."""
    driven = Driven(tmp_path / "data" / "shard-0000", OPTIONS, CarelessDisk())
    (tmp_path / "data" / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    for i, key in enumerate(KEYS):
        driven.put(key, b"v" * (i * 7), keyspace=9 if i % 5 == 0 else 0)
        driven.run_jobs()
    driven.delete(b"key 4")
    driven.store.close()
    return driven


def named(driven: Driven) -> Named:
    found = manifest_of(driven).state.checkpoint
    assert found is not None
    return found


def open_file(path: Path, name: Named) -> CheckpointFile:
    return CheckpointFile(DISK, path, 0, IDENTITY.directory_id, name)


def read(path: Path, name: Named) -> None:
    """Read all of a checkpoint, as a start does, without any segment."""
    file = open_file(path, name)
    try:
        loader = _loader(Recovered(), file, KeyDir())
        for pages in file.chunks():
            loader.load(pages)
    finally:
        file.close()


def test_the_kernel_writes_what_the_reference_encoders_write(stopped: Driven) -> None:
    (path,) = checkpoints_in(stopped.path)
    content = path.read_bytes()
    file = open_file(path, named(stopped))
    again = checkpoint.encode_header(0, 1, IDENTITY.directory_id)
    words = 0
    data = b"".join(file.chunks())
    at = 0
    while at < len(data):
        lsn, number, count, _, _ = checkpoint.PAGE.unpack_from(data, at)
        at += checkpoint.PAGE.size
        page = Page(lsn, number, [int.from_bytes(data[i : i + 8], "little") for i in range(at, at + 8 * count, 8)])
        again += checkpoint.encode_page(file.seed, page)
        at += 8 * count
        words += count
    again += checkpoint.encode_end(file.seed, len(again), file.contents)
    file.close()
    assert again == content
    assert words == file.contents.words == len(KEYS) - 1
    assert file.contents.keys == {0: 40, 9: 11}


def test_a_flipped_byte_is_noticed(stopped: Driven) -> None:
    (path,) = checkpoints_in(stopped.path)
    content, name = path.read_bytes(), named(stopped)
    read(path, name)
    with path.open("r+b", buffering=0) as file:
        for at in [*range(200), *range(200, len(content) - 200, 7), *range(len(content) - 200, len(content))]:
            byte = content[at]
            file.seek(at)
            file.write(bytes([byte ^ (1 << at % 8)]))
            with pytest.raises(Corrupt):
                read(path, name)
            file.seek(at)
            file.write(bytes([byte]))
    read(path, name)


def test_every_shorter_file_is_noticed(stopped: Driven) -> None:
    (path,) = checkpoints_in(stopped.path)
    content, name = path.read_bytes(), named(stopped)
    for size in [*range(200), *range(200, len(content), 61), *range(len(content) - 200, len(content))]:
        path.write_bytes(content[:size])
        with pytest.raises(Corrupt):
            read(path, name)


def damaged_copies(content: bytes) -> list[bytes]:
    """Flipped in each part of the file, cut, empty, and longer than it was."""
    places = [0, 9, 60, 64, 72, 84, len(content) // 2, len(content) - 150, len(content) - 60, len(content) - 1]
    flipped = [content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :] for at in places]
    return [*flipped, b"", content[:64], content[:-1], content[:-64], content + bytes(8), bytes(len(content))]


def test_a_damaged_checkpoint_is_not_used_and_the_shard_opens_as_ever(stopped: Driven, tmp_path: Path) -> None:
    (path,) = checkpoints_in(stopped.path)
    content = path.read_bytes()
    expected = held_by(stopped.open())
    assert stopped.store.stats()["checkpoint_fallbacks"] == 0
    stopped.kill()
    shutil.copytree(stopped.path, tmp_path / "whole")
    for number, damaged in enumerate(damaged_copies(content)):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        (copy / path.name).write_bytes(damaged)
        driven = unopened(copy, OPTIONS, CarelessDisk()).open()
        assert driven.store.stats()["checkpoint_fallbacks"] == 1
        assert held_by(driven) == expected
        driven.maintain()
        assert driven.store.stats()["checkpoints"] == 1
        driven.reopen()
        assert driven.store.stats()["checkpoint_fallbacks"] == 0
        assert held_by(driven) == expected
        driven.kill()


def test_another_checkpoint_under_its_name_is_not_used(stopped: Driven, tmp_path: Path) -> None:
    (path,) = checkpoints_in(stopped.path)
    other = Driven(tmp_path / "other", OPTIONS, CarelessDisk())
    other.put(b"key of another shard", b"v")
    other.store.close()
    shutil.copy(checkpoints_in(other.path)[0], path)
    stopped.open()
    assert stopped.store.stats()["checkpoint_fallbacks"] == 1
    assert stopped.get(b"key of another shard") is None
    stopped.kill()


def test_a_newer_version_is_refused_and_nothing_is_touched(stopped: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped.open()
    stopped.put(b"written by a newer one", b"v")
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "VERSION", 2)
        stopped.store.close()
    before = {path: path.read_bytes() for path in stopped.path.iterdir() if path.name != "LOCK"}
    with pytest.raises(FormatTooNew, match="checkpoint has format version 2"):
        stopped.open()
    assert {path: path.read_bytes() for path in stopped.path.iterdir() if path.name != "LOCK"} == before


def test_check_verifies_a_checkpoint_and_its_words(stopped: Driven) -> None:
    data = stopped.path.parent
    (path,) = checkpoints_in(stopped.path)
    content = path.read_bytes()
    assert check_directory(data).faults == []
    for damaged in damaged_copies(content):
        path.write_bytes(damaged)
        (fault,) = check_directory(data).faults
        assert (fault.file, fault.kind) == (path.name, "checkpoint")
    path.unlink()
    (fault,) = check_directory(data).faults
    assert (fault.file, fault.kind) == (path.name, "checkpoint")
    path.write_bytes(content)
    (stopped.path / "checkpoint-99.ckpt").write_bytes(content)
    report = check_directory(data)
    assert report.faults == []
    assert [(note.file, note.kind) for note in report.notes] == [("checkpoint-99.ckpt", "stray")]
    stopped.open()
    assert checkpoints_in(stopped.path) == [path]
    stopped.kill()


def test_check_and_recovery_notice_that_durable_records_at_the_end_of_the_log_are_gone(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=1 << 16, checkpoint_interval_s=1.0)
    driven = Driven(tmp_path / "data" / "shard-0000", options, CarelessDisk())
    (tmp_path / "data" / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    driven.put(b"k", b"old")
    driven.put(b"l", b"other")
    driven.maintain()
    driven.put(b"k", b"new")
    driven.maintain()
    assert driven.store.stats()["checkpoint_lsn"] == 3
    driven.kill()
    (segment,) = (path for path in driven.path.glob("*.seg") if b"new" in path.read_bytes())
    segment.write_bytes(segment.read_bytes().replace(b"new", b"nex"))
    (fault,) = check_directory(tmp_path / "data").faults
    assert (fault.kind, "durable records are missing" in fault.message) == ("checkpoint", True)
    for open_again in (driven.open, driven.reopen, driven.restart):
        open_again()
        # Without the checkpoint this would be a torn tail, and the old value would be back.
        assert driven.answers([b"k", b"l", b"m"]) == {b"k": Corrupt, b"l": Corrupt, b"m": Corrupt}
    driven.put(b"k", b"newer")
    assert driven.get(b"k") == b"newer"
    driven.kill()
