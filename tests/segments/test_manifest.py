"""The manifest: a defined outcome for whatever can stand in the file."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kio.errors import Corrupt
from kio.segments._hints import crc32c
from kio.segments.disk import DISK
from kio.segments.manifest import AHEAD_BYTES, EDIT, HEADER, REWRITE_BYTES, VERSION, Manifest, State, _edit_crc
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk
from tests.segments.support import IDENTITY

START = HEADER.size + 4


def encoded(sequence: int, edit: dict[str, Any]) -> bytes:
    payload = msgpack.packb(edit)
    return EDIT.pack(len(payload), _edit_crc(sequence, payload), sequence) + payload


def trimmed(content: bytes) -> bytes:
    """Without the zeros behind the last edit; no edit of these tests ends in one."""
    return content.rstrip(b"\0")


def create(number: int) -> dict[str, Any]:
    return {"t": "create", "id": number, "salt": number, "epoch": 1}


class FullDisk(CarelessDisk):
    """No file gets longer than `size_max`."""

    size_max = 1 << 30

    def allocate(self, fd: int, size: int) -> None:
        self._check(size)
        super().allocate(fd, size)

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._check(offset + len(data))
        super().write(fd, data, offset)

    def _check(self, size: int) -> None:
        if size > self.size_max:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A manifest with three segments."""
    Manifest.create(tmp_path, 0, IDENTITY.directory_id)
    made = Manifest.load(tmp_path, 0, IDENTITY.directory_id)
    made.start()
    for number in (1, 2, 3):
        made.append(create(number))
    made.close()
    path = tmp_path / "MANIFEST"
    path.write_bytes(trimmed(path.read_bytes()))
    return path


def load(path: Path, shard: int = 0, directory_id: bytes = IDENTITY.directory_id) -> Manifest:
    return Manifest.load(path.parent, shard, directory_id)


def test_it_is_read_back_as_it_was_written(path: Path) -> None:
    loaded = load(path)
    assert sorted(loaded.state.segments) == [1, 2, 3]
    assert loaded.state.next_id == 4
    assert loaded.torn_bytes == 0


def test_a_manifest_that_is_missing_empty_or_has_half_a_header_is_corrupt(path: Path) -> None:
    content = path.read_bytes()
    for cut in range(START):
        path.write_bytes(content[:cut])
        with pytest.raises(Corrupt, match="offset 0"):
            load(path)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        load(path)


def test_a_manifest_cut_anywhere_behind_its_header_has_the_edits_before_the_cut(path: Path) -> None:
    content = path.read_bytes()
    counts = []
    for cut in range(START, len(content)):
        path.write_bytes(content[:cut])
        loaded = load(path)
        counts.append(len(loaded.state.segments))
        loaded.start()
        loaded.append(create(9))
        loaded.close()
        assert sorted(load(path).state.segments) == [*range(1, counts[-1] + 1), 9]
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize("block_bytes", [1, 8, 64])
def test_of_edits_made_at_once_a_power_cut_keeps_all_or_none(path: Path, block_bytes: int) -> None:
    before = path.read_bytes()
    made = load(path)
    made.start()
    made.append({"t": "drop", "id": 1}, {"t": "drop", "id": 2}, create(4))
    made.close()
    after = trimmed(path.read_bytes())
    for at in range(len(before), len(after), block_bytes):
        lost = len(after[at : at + block_bytes])
        path.write_bytes(after[:at] + bytes(lost) + after[at + lost :])
        assert sorted(load(path).state.segments) == ([3, 4] if path.read_bytes() == after else [1, 2, 3])
    path.write_bytes(after)
    assert sorted(load(path).state.segments) == [3, 4]


def test_damage_before_the_last_edit_is_corruption_and_in_the_last_one_a_torn_tail(path: Path) -> None:
    content = path.read_bytes()
    last = len(content) - len(encoded(5, create(3)))
    for offset in range(len(content)):
        damaged = bytearray(content)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        if offset < last:
            with pytest.raises(Corrupt):
                load(path)
        else:
            loaded = load(path)
            assert sorted(loaded.state.segments) == [1, 2]
            assert loaded.torn_bytes == len(content) - last


@pytest.mark.parametrize(
    "behind",
    [
        b"\xff" * 100,
        b"\xff" * 100 + bytes(5000),
        bytes(5000) + b"\xff",
        encoded(1, create(4)),
        encoded(5, create(3)),
        struct.pack("<IIQ", 0xFFFFFFFF, 0, 6),
        struct.pack("<IIQ", 64 * 1024 + 1, 0, 6) + bytes(70_000),
    ],
    ids=[
        "ones",
        "ones before zeros",
        "a one behind zeros",
        "an old number",
        "the last edit again",
        "4 GiB",
        "overlong",
    ],
)
def test_what_stands_behind_the_last_edit_and_is_none_is_cut(path: Path, behind: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content + behind)
    loaded = load(path)
    assert sorted(loaded.state.segments) == [1, 2, 3]
    assert loaded.torn_bytes == len(trimmed(behind))
    assert path.read_bytes() == content + behind
    loaded.start()
    loaded.close()
    assert trimmed(path.read_bytes()) == content


@pytest.mark.parametrize("zeros", [1, 5000, AHEAD_BYTES, 1 << 20])
def test_zeros_behind_the_last_edit_are_room_for_the_next_ones(path: Path, zeros: int) -> None:
    path.write_bytes(path.read_bytes() + bytes(zeros))
    loaded = load(path)
    assert loaded.torn_bytes == 0
    loaded.start()
    size = path.stat().st_size
    assert size >= len(trimmed(path.read_bytes())) + AHEAD_BYTES // 2
    loaded.append(create(4))
    loaded.close()
    assert path.stat().st_size == size
    assert sorted(load(path).state.segments) == [1, 2, 3, 4]


def test_edits_of_a_full_disk_go_into_the_blocks_that_were_allocated_ahead(path: Path) -> None:
    disk = FullDisk()
    opened = Manifest.load(path.parent, 0, IDENTITY.directory_id, disk)
    opened.start()
    disk.size_max = path.stat().st_size
    made = 0
    with pytest.raises(OSError, match="No space left"):
        for number in range(4, 10_000):
            opened.append(create(number))
            made += 1
    assert made * len(encoded(1, create(4000))) >= AHEAD_BYTES // 2 - 100
    assert not opened.has_failed
    assert sorted(load(path).state.segments) == [*range(1, made + 4)]
    disk.size_max = 1 << 30
    opened.append(create(made + 4))
    opened.close()
    assert sorted(load(path).state.segments) == [*range(1, made + 5)]


def test_a_manifest_that_cannot_be_written_anew_for_want_of_room_goes_on_and_tries_again_later(path: Path) -> None:
    disk = FaultyDisk()
    opened = Manifest.load(path.parent, 0, IDENTITY.directory_id, disk)
    opened.start()
    while opened._end < REWRITE_BYTES - (60 << 10):
        opened.append(*({"t": "floor", "keyspace": i % 256, "epoch": 1, "lsn": i} for i in range(1000)))
    disk.fail("create", error=errno.ENOSPC, times=1000)
    while not disk.calls["create"]:
        opened.append(*({"t": "floor", "keyspace": i % 256, "epoch": 1, "lsn": i} for i in range(1000)))
    for _ in range(10):
        opened.append(create(opened.state.next_id))
    assert disk.calls["create"] == 1
    disk.heal()
    before = disk.calls["create"]
    while disk.calls["create"] == before:
        opened.append(*({"t": "floor", "keyspace": i % 256, "epoch": 1, "lsn": i} for i in range(1000)))
    assert opened._end < AHEAD_BYTES
    opened.close()
    assert load(path).state == opened.state


def test_a_number_left_out_is_corruption(path: Path) -> None:
    edits = load(path)._sequence
    with path.open("ab") as file:
        file.write(encoded(edits + 2, create(5)))
    with pytest.raises(Corrupt, match="valid edits follow"):
        load(path)


@pytest.mark.parametrize(
    "edit",
    [
        create(2), {"t": "drop", "id": 9}, {"t": "unheard of"}, {"id": 4}, {"t": "sealed", "id": 1}, [], 7,
        {"t": "create", "id": "4", "salt": 1, "epoch": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_edit_that_contradicts_what_is_known_is_corruption(path: Path, edit: Any) -> None:
    edits = load(path)._sequence
    with path.open("ab") as file:
        file.write(encoded(edits + 1, edit))
    with pytest.raises(Corrupt, match="contradicts"):
        load(path)


def test_the_manifest_of_another_shard_or_directory_is_refused(path: Path) -> None:
    with pytest.raises(Corrupt, match="that of shard 0"):
        load(path, shard=1)
    with pytest.raises(Corrupt, match="that of shard 0"):
        load(path, directory_id=bytes(16))


def test_an_edit_that_found_no_room_is_taken_back_and_one_that_was_not_synced_is_the_last(path: Path) -> None:
    disk = FaultyDisk()
    opened = Manifest.load(path.parent, 0, IDENTITY.directory_id, disk)
    opened.start()
    disk.fail("write", part=0.7)
    with pytest.raises(OSError, match="error"):
        opened.append(create(4))
    assert not opened.has_failed
    opened.append(create(4))
    disk.fail("sync_data")
    with pytest.raises(OSError, match="error"):
        opened.append(create(5))
    assert opened.has_failed
    with pytest.raises(OSError, match="no more edits"):
        opened.append(create(6))
    assert sorted(opened.state.segments) == [1, 2, 3, 4]
    opened.close()


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_directory", "open"])
def test_a_manifest_that_could_not_be_written_anew_is_the_old_or_the_new_one(path: Path, kind: str) -> None:
    disk = FaultyDisk()
    opened = Manifest.load(path.parent, 0, IDENTITY.directory_id, disk)
    opened.start()
    floors = [{"t": "floor", "keyspace": i % 256, "epoch": 1, "lsn": i} for i in range(1000)]
    for _ in range(80):
        disk.fail(kind, nth=2 if kind == "write" else 1)
        opened.append(*floors)
        if disk.calls["create"]:
            break
    disk.heal()
    assert opened.has_failed == (kind in ("sync_directory", "open"))
    if not opened.has_failed:
        opened.append(create(4))
    opened.close()
    assert load(path).state == opened.state
    assert Manifest.load(path.parent, 0, IDENTITY.directory_id, DISK).torn_bytes == 0


def test_the_clock_never_goes_back_and_outlives_a_rewrite() -> None:
    state = State()
    for ms in (5, 17, 3):
        state.apply({"t": "clock", "ms": ms})
    assert state.clock_ms == 17
    again = State()
    for edit in state.edits():
        again.apply(edit)
    assert again == state


def test_a_manifest_of_an_older_version_is_written_anew_when_it_is_opened_for_appending(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:10] = struct.pack("<H", 1)
    content[32:36] = struct.pack("<I", crc32c(bytes(content[:32])))
    path.write_bytes(content)
    loaded = load(path)
    before = list(loaded.state.segments)
    assert path.read_bytes() == content
    loaded.start()
    loaded.append({"t": "clock", "ms": 9})
    loaded.close()
    assert path.read_bytes()[8:10] == struct.pack("<H", VERSION)
    assert (load(path).state.clock_ms, list(load(path).state.segments)) == (9, before)
