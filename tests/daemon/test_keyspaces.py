"""The supervisor's map of keyspaces: what it answers is what a start would find, whatever the disk does."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest

from kio.daemon.keyspaces import KeyspaceKeeper
from kio.errors import DirectoryInvalid
from kio.segments.keyspaces import KeyspaceMap, load
from tests.segments.faulty_disk import Died, FaultyDisk

SWAP = {"type": "swap", "id": 5, "first": 0, "second": 3}
SAME, SWAPPED = KeyspaceMap(), KeyspaceMap().swapped(0, 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


def answer(places: bytes, error: str = "") -> dict[str, Any]:
    return {"type": "keyspaces", "id": 5, "places": places, "error": error}


def test_a_swap_is_on_disk_when_it_is_answered(data: Path, tmp_path: Path, disk: FaultyDisk) -> None:
    keeper = KeyspaceKeeper(data, disk)
    assert keeper.places == SAME.places
    assert keeper.swap(SWAP) == answer(SWAPPED.places)
    disk.power_cut(data, tmp_path / "cut", random.Random(1))
    assert KeyspaceKeeper(tmp_path / "cut").places == keeper.places == SWAPPED.places


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename"])
def test_where_the_disk_refuses_nothing_is_swapped(data: Path, disk: FaultyDisk, kind: str, code: int) -> None:
    keeper = KeyspaceKeeper(data, disk)
    disk.fail(kind, error=code)
    told = keeper.swap(SWAP)
    assert told["places"] == keeper.places == load(data).places == SAME.places
    assert told["error"].startswith("ERR " if code == errno.EIO else "MISCONF ")
    assert "the keyspaces are as before: " in told["error"]
    assert str(data / "KEYSPACES") in told["error"]
    assert keeper.swap(SWAP) == answer(SWAPPED.places)
    assert load(data) == SWAPPED


def test_where_only_the_name_may_not_be_durable_the_swap_holds_and_the_error_says_so(
    data: Path, disk: FaultyDisk
) -> None:
    keeper = KeyspaceKeeper(data, disk)
    disk.fail("sync_directory")
    told = keeper.swap(SWAP)
    assert told["places"] == keeper.places == load(data).places == SWAPPED.places
    assert told["error"].startswith("ERR the keyspaces are swapped, but a power cut may undo it: ")


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_directory"])
def test_a_crash_leaves_the_map_of_before_or_the_one_behind_it(
    data: Path, tmp_path: Path, disk: FaultyDisk, kind: str
) -> None:
    KeyspaceKeeper(data, disk).swap(SWAP)
    disk.die(kind)
    with pytest.raises(Died):
        KeyspaceKeeper(data, disk).swap({**SWAP, "second": 4})
    for cut in range(20):
        disk.power_cut(data, tmp_path / f"cut {cut}", random.Random(cut))
        assert load(tmp_path / f"cut {cut}") in (SWAPPED, SWAPPED.swapped(0, 4))


def test_a_damaged_file_keeps_the_daemon_from_starting(data: Path) -> None:
    (data / "KEYSPACES").write_text("{}")
    with pytest.raises(DirectoryInvalid, match="KEYSPACES is damaged: .*; take it from a restored backup"):
        KeyspaceKeeper(data)
