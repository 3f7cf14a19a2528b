"""Resharding and the disk: whatever call of it fails, or is the last before a crash, one generation is whole."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.errors import KioError
from kio.segments import identity
from kio.segments.check import check_directory
from kio.segments.identity import DirectoryIdentity, leftovers, load
from tests.cluster.daemon import FULL, scaled
from tests.segments.faulty_disk import CarelessDisk, Died, FaultyDisk
from tests.segments.resharded import Data, digests, names
from tests.segments.support import open_descriptors


@pytest.fixture
def little(tmp_path: Path) -> Data:
    """A directory that is rewritten with few calls of the disk."""
    made = Data(tmp_path / "data", 2)
    made.keyspaces = range(2)
    for i in range(6):
        made.put(b"key %d" % i, b"value %d" % i * 99, i % 2)
    made.shards[0].kill()
    made.shards[1].store.close()
    return made


def opened(little: Data, path: Path) -> DirectoryIdentity:
    """Open what is in `path` as a start does, and compare; the identity that counts."""
    little.path = path
    identity.remove_leftovers(path, load(path), CarelessDisk())
    little.open()
    little.compare()
    little.kill()
    assert check_directory(path).faults == []
    return little.identity


def moments(little: Data, path: Path) -> Iterator[int]:
    """Which calls of the disk to strike: in the stress run all, else some, and all from the swap on."""
    little.path, original = path, little.path
    shutil.copytree(original, path)
    disk = FaultyDisk()
    swaps: list[int] = []
    disk.on_change = lambda kind: swaps.append(disk.calls["any"]) if kind == "rename" else None
    little.reshard(3, disk)
    little.path = original
    shutil.rmtree(path)
    assert disk.calls["any"] > 100
    for nth in range(1, disk.calls["any"] + 1):
        if FULL or nth > swaps[-2] - 4 or nth % 50 == 0:
            yield nth


@scaled
@pytest.mark.timeout(600 if FULL else 60)
@pytest.mark.parametrize("in_order", [False, True] if FULL else [False])
def test_at_every_moment_of_a_crash_one_generation_is_whole(little: Data, tmp_path: Path, in_order: bool) -> None:
    """The process dies at a call of the disk, or the power is cut there."""
    old, original = little.identity, little.path
    found = set()
    for nth in moments(little, tmp_path / "all"):
        little.path = path = tmp_path / f"copy {nth}"
        shutil.copytree(original, path)
        disk = FaultyDisk()
        disk.die("any", nth)
        with pytest.raises(Died):
            little.reshard(3, disk)
        cut = tmp_path / f"cut {nth}"
        disk.power_cut(path, cut, random.Random(nth), in_order=in_order)
        for state in (path, cut):
            counts = opened(little, state)
            assert counts == old or (counts.shards, counts.generation) == (3, 1)
            found.add(counts.shards)
            if FULL or nth % 10 == 0:
                little.path = state
                little.reshard(3)
                assert opened(little, state).shards == 3
                assert names(state) == {"IDENTITY", "LOCK", "shards-0001"}
            shutil.rmtree(state)
    assert found == {2, 3}


@scaled
@pytest.mark.timeout(600 if FULL else 60)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO] if FULL else [errno.EIO])
def test_whatever_call_of_the_disk_fails_the_old_shards_are_untouched_or_the_new_ones_count(
    little: Data, tmp_path: Path, error: int
) -> None:
    original, before = little.path, digests(little.path)
    for nth in moments(little, tmp_path / "all"):
        little.path = path = tmp_path / f"copy {nth}"
        shutil.copytree(original, path)
        disk = FaultyDisk()
        disk.fail("any", nth, error)
        descriptors = open_descriptors()
        try:
            done = little.reshard(3, disk)
            assert bool(done.left) == bool(leftovers(path, load(path)))
        except (OSError, KioError):
            if load(path).shards == 2:
                assert {name: digest for name, digest in digests(path).items() if name != "IDENTITY.tmp"} == before
        assert open_descriptors() == descriptors, nth
        little.reshard(3)
        assert opened(little, path).shards == 3
        shutil.rmtree(path)


@pytest.mark.parametrize("seed", range(6))
def test_a_swap_that_a_kill_left_undurable_is_made_durable_before_the_old_shards_go(
    little: Data, tmp_path: Path, seed: int
) -> None:
    """Else a power cut at the next start could bring back what names shards that are half removed."""
    path, disk = little.path, FaultyDisk()

    def die_behind_the_rename(kind: str) -> None:
        if kind == "sync_directory" and load(path).shards == 3:
            raise Died

    disk.on_change = die_behind_the_rename
    with pytest.raises(Died):
        little.reshard(3, disk)
    disk.on_change = None
    disk.die("remove_tree", 2)
    with pytest.raises(Died):
        identity.remove_leftovers(path, load(path), disk)
    disk.power_cut(path, tmp_path / "cut", random.Random(seed))
    assert opened(little, tmp_path / "cut").shards == 3
