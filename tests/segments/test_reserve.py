"""The spare: taken, made again, lent, and never shared."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kio.limits import KIB
from kio.segments.reserve import NAME, STEP_BYTES_MIN, Reserve, is_full
from tests.segments.quota_disk import BLOCK, QuotaDisk

SIZE = 1024 * KIB


@pytest.fixture
def disk() -> QuotaDisk:
    return QuotaDisk()


@pytest.fixture
def reserve(tmp_path: Path, disk: QuotaDisk) -> Reserve:
    made = Reserve(disk, tmp_path, SIZE)
    made.make()
    return made


def file_of(disk: QuotaDisk, path: Path, size: int) -> Path:
    fd = disk.create(path)
    disk.allocate(fd, size)
    disk.close(fd)
    return path


def test_it_is_allocated_and_found_again(tmp_path: Path, disk: QuotaDisk, reserve: Reserve) -> None:
    assert reserve.is_whole
    assert disk.used_bytes == SIZE
    again = Reserve(disk, tmp_path, SIZE)
    again.look()
    assert not again.is_whole  # until it is seen to have its blocks
    again.make()
    assert again.is_whole
    assert disk.used_bytes == SIZE
    shorter = Reserve(disk, tmp_path, SIZE // 2)
    shorter.look()
    shorter.make()
    assert disk.used_bytes == (tmp_path / NAME).stat().st_size == SIZE // 2


def test_where_there_is_not_enough_room_it_takes_what_there_is_and_the_rest_later(
    tmp_path: Path, disk: QuotaDisk
) -> None:
    disk.quota_bytes = SIZE // 2 + SIZE // 8 + BLOCK
    made = Reserve(disk, tmp_path, SIZE)
    with pytest.raises(OSError, match="No space left") as raised:
        made.make()
    assert is_full(raised.value)
    assert disk.quota_bytes - STEP_BYTES_MIN < made.size <= disk.quota_bytes
    assert disk.used_bytes == made.size == (tmp_path / NAME).stat().st_size
    disk.quota_bytes = SIZE
    made.make()
    assert made.is_whole


def test_what_is_taken_keeps_its_blocks_and_can_be_given_back(
    tmp_path: Path, disk: QuotaDisk, reserve: Reserve
) -> None:
    disk.fill()
    output = tmp_path / "0000000007.seg"
    fd = reserve.take(output, SIZE)
    disk.write(fd, b"x" * SIZE, 0)
    disk.close(fd)
    assert reserve.size == 0
    assert not (tmp_path / NAME).exists()
    with pytest.raises(OSError, match="the spare has 0 bytes") as raised:
        reserve.take(tmp_path / "another", 1)
    assert raised.value.errno == errno.ENOSPC
    reserve.give_back(output)
    reserve.make()
    assert reserve.is_whole
    assert not output.exists()


def test_a_file_that_is_to_be_removed_becomes_the_spare(tmp_path: Path, disk: QuotaDisk, reserve: Reserve) -> None:
    files = [file_of(disk, tmp_path / f"{number}", number * SIZE // 4) for number in (1, 3, 2)]
    assert reserve.recycle(files) is None
    disk.close(reserve.take(tmp_path / "output", SIZE))
    disk.fill()
    assert reserve.recycle([]) is None
    assert reserve.recycle(files) == files[1]
    assert reserve.size == SIZE * 3 // 4
    assert reserve.recycle(files[::2]) is None  # it is shorter than what there is
    disk.unlink(files[2])
    reserve.make()
    assert reserve.is_whole


def test_a_file_that_has_another_name_is_removed_and_not_written_to_again(
    tmp_path: Path, disk: QuotaDisk, reserve: Reserve
) -> None:
    disk.close(reserve.take(tmp_path / "output", SIZE))
    victim = file_of(disk, tmp_path / "victim", SIZE)
    os.link(victim, tmp_path / "of a backup")
    assert reserve.recycle([victim]) == victim
    assert reserve.size == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of a backup", "output"]


def test_it_gives_room_up_in_pieces_until_it_is_used_up(tmp_path: Path, disk: QuotaDisk, reserve: Reserve) -> None:
    for left in (3, 2, 1, 0):
        reserve.shrink(SIZE // 4)
        assert disk.used_bytes == reserve.size == left * SIZE // 4
    with pytest.raises(OSError, match="used up"):
        reserve.shrink(SIZE // 4)
