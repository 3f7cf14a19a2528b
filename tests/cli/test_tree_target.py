"""Export into a tree writes arbitrary keys as paths: most of these tests try to make it write somewhere else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.cli import tree_target
from kio.cli.transfer import Record, Tally
from kio.cli.tree_source import TreeSource
from kio.cli.tree_target import TEMPORARY, TreeTarget, components
from kio.errors import DirectoryInUse


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tally(told: list[str]) -> Tally:
    return Tally(tell=told.append)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def open_descriptors() -> int:
    return len(names(Path("/proc/self/fd")))


def write(root: Path, tally: Tally, records: dict[bytes, bytes]) -> None:
    with TreeTarget(root, tally) as target:
        for key, value in records.items():
            target.put(Record(key, value, ""))


def test_keys_become_files_with_their_bytes(tmp_path: Path, tally: Tally) -> None:
    root = tmp_path / "made" / "root"
    write(root, tally, {b"a/b/c": b"1", b"a/empty": b"", b"top": b"\0" * 3_000_000})
    assert (root / "a/b/c").read_bytes() == b"1"
    assert (root / "a/empty").read_bytes() == b""
    assert (root / "top").read_bytes() == b"\0" * 3_000_000
    assert (tally.records, tally.bytes, tally.failed) == (3, 3_000_001, 0)
    assert names(root) == ["a", "top"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"/etc/passwd", "the key is an absolute path"),
        (b"..", 'the key holds the component ".."'),
        (b"../outside", 'the key holds the component ".."'),
        (b"a/../../outside", 'the key holds the component ".."'),
        (b"a/..", 'the key holds the component ".."'),
        (b"./a", 'the key holds the component "."'),
        (b"a//b", "the key is empty or holds an empty component"),
        (b"a/", "the key is empty or holds an empty component"),
        (b"", "the key is empty or holds an empty component"),
        (b"a\0b", "the key holds a NUL byte"),
        (b"a/" * 2047 + b"ab", "the key is longer than a path may be, 4095 bytes"),
        (b".kio-export.tmp", "the key begins with the name of the export's temporary file"),
        (b".kio-export.tmp/x", "the key begins with the name of the export's temporary file"),
    ],
)
def test_a_key_that_is_no_path_below_the_root_is_refused_and_told(
    tmp_path: Path, tally: Tally, told: list[str], key: bytes, why: str
) -> None:
    root = tmp_path / "root"
    write(root, tally, {key: b"evil", b"good": b"1"})
    assert len(told) == 1
    assert told[0].endswith(f": {why}")
    assert (tally.records, tally.failed) == (1, 1)
    assert names(tmp_path) == ["root"]
    assert names(root) == ["good"]


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"..", b".", b"", b"a", b"\0"]), max_size=6).map(b"/".join))
def test_every_path_that_is_accepted_stays_below_the_root(key: bytes) -> None:
    path = components(key)
    if isinstance(path, tuple):
        joined = os.path.normpath(b"/".join((b"/root", *path)))
        assert joined == b"/root/" + key


def test_a_link_in_the_tree_leads_nowhere(tmp_path: Path, tally: Tally, told: list[str]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    root = tmp_path / "root"
    root.mkdir()
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "kept")
    write(root, tally, {b"directory/evil": b"1", b"directory/deep/evil": b"1", b"file": b"2"})
    assert names(outside) == ["kept"]
    assert (outside / "kept").read_bytes() == b"kept"
    assert (root / "file").read_bytes() == b"2"
    assert not (root / "file").is_symlink()
    assert told == [
        "directory/evil: a part of the path is a file or a link, not a directory",
        "directory/deep/evil: a part of the path is a file or a link, not a directory",
    ]


@pytest.mark.parametrize("keys", [(b"a", b"a/b"), (b"a/b", b"a")])
def test_a_key_that_is_also_a_directory_of_another_is_told(
    tmp_path: Path, tally: Tally, told: list[str], keys: tuple[bytes, bytes]
) -> None:
    write(tmp_path, tally, dict.fromkeys(keys, b"1"))
    assert (tally.records, tally.failed) == (1, 1)
    assert told[0].startswith(f"{keys[1].decode()}: ")


def test_a_name_that_is_too_long_is_told_and_the_rest_is_written(tmp_path: Path, tally: Tally) -> None:
    write(tmp_path, tally, {b"x" * 256: b"1", b"y" * 255: b"2"})
    assert (tally.records, tally.failed) == (1, 1)
    assert (tmp_path / ("y" * 255)).read_bytes() == b"2"


def test_a_deep_path_is_written_with_few_open_directories(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_target, "_DIRECTORIES_OPEN_MAX", 8)
    deep = b"/".join([b"d"] * 200)
    before = open_descriptors()
    with TreeTarget(tmp_path, tally) as target:
        for key in (deep, deep[:-1] + b"e", b"d/e", deep[:-1] + b"f"):
            target.put(Record(key, key, ""))
        assert open_descriptors() - before <= 8 + 1
    assert open_descriptors() == before
    assert tally.records == 4
    assert names((tmp_path / os.fsdecode(deep)).parent) == ["d", "e", "f"]
    assert (tmp_path / "d" / "e").read_bytes() == b"d/e"


def test_an_export_again_replaces_what_is_there_and_leaves_the_rest(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    write(tmp_path, tally, {b"a/b": b"a long value"})
    write(tmp_path, tally, {b"a/b": b"short"})
    assert (tmp_path / "a/b").read_bytes() == b"short"
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_what_a_killed_export_left_is_removed(tmp_path: Path, tally: Tally) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / os.fsdecode(TEMPORARY)).symlink_to(precious)
    write(root, tally, {b"a": b"1"})
    assert names(root) == ["a"]
    assert precious.read_bytes() == b"precious"


def test_two_exports_do_not_write_into_one_tree(tmp_path: Path, tally: Tally) -> None:
    with TreeTarget(tmp_path, tally), pytest.raises(DirectoryInUse, match="another export writes into"):
        TreeTarget(tmp_path, tally)
    TreeTarget(tmp_path, tally).__exit__(None, None, None)


def test_a_full_disk_ends_the_export_and_leaves_no_half_file(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*names: bytes, **directories: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with TreeTarget(tmp_path, tally) as target:
        monkeypatch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="No space left"):
            target.put(Record(b"a", b"1", ""))
    assert names(tmp_path) == []


def test_a_tree_comes_back_as_it_went_in(tmp_path: Path, tally: Tally) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    names = [b"\xff\xfe", b"a b/c\nd", b"-rf", b"d/\xc3\xa9", b"e/f/g"]
    records = {name: os.urandom(n * 1000) for n, name in enumerate(names)}
    write(source, tally, records)
    read = list(TreeSource(source, follow=False, value_bytes_max=1 << 20, tally=tally))
    assert {record.key: record.value for record in read} == records
    write(target, tally, {record.key: record.value for record in read})
    again = TreeSource(target, follow=False, value_bytes_max=1 << 20, tally=tally)
    assert {record.key: record.value for record in again} == records
    assert tally.failed == 0
