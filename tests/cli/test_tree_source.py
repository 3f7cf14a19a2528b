"""A directory tree becomes records: names, sizes, links, and a tree that changes meanwhile."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kio.cli.transfer import Tally
from kio.cli.tree_source import TreeSource

MAX = 1 << 20


def read(root: Path, tally: Tally, *, follow: bool = False, value_bytes_max: int = MAX) -> dict[bytes, bytes]:
    source = TreeSource(root, follow=follow, value_bytes_max=value_bytes_max, tally=tally)
    return {record.key: record.value for record in source}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tally(told: list[str]) -> Tally:
    return Tally(tell=told.append)


def test_each_regular_file_is_a_record_with_its_relative_path_as_key(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "empty").write_bytes(b"")
    (tmp_path / "a" / "big").write_bytes(b"\0\xff" * 300_000)
    (tmp_path / "top").write_bytes(b"x")
    assert read(tmp_path, tally) == {b"a/b/empty": b"", b"a/big": b"\0\xff" * 300_000, b"top": b"x"}
    assert (tally.failed, tally.skipped) == (0, 0)


def test_file_names_need_not_be_utf8(tmp_path: Path, tally: Tally) -> None:
    name = b"caf\xe9\n"
    (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    assert read(tmp_path, tally) == {name: b"1"}


def test_a_slash_at_the_end_of_the_root_changes_no_key(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "f").write_bytes(b"1")
    root = Path("/") / tmp_path
    assert read(Path(f"{root}/."), tally) == {b"f": b"1"}


def test_empty_directories_are_not_data(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "empty").mkdir()
    assert read(tmp_path, tally) == {}


def test_links_sockets_and_pipes_are_skipped_and_counted(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "to_directory").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert read(tmp_path, tally) == {b"file": b"1"}
    assert (tally.failed, tally.skipped) == (0, 5)


def test_follow_reads_what_links_lead_to(tmp_path: Path, tally: Tally, told: list[str]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").symlink_to(outside / "f")
    (root / "directory").symlink_to(outside)
    (root / "broken").symlink_to("nowhere")
    assert read(root, tally, follow=True) == {b"file": b"1", b"directory/f": b"1"}
    assert tally.failed == 1
    assert told == [f"{root}/broken: No such file or directory"]


def test_follow_does_not_run_in_circles(tmp_path: Path, tally: Tally, told: list[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"1")
    (tmp_path / "d" / "up").symlink_to(tmp_path)
    assert read(tmp_path, tally, follow=True) == {b"d/f": b"1"}
    assert told == [f"{tmp_path}/d/up: the link leads back to a directory above it"]


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_a_fault(
    tmp_path: Path, tally: Tally, told: list[str]
) -> None:
    (tmp_path / "at").write_bytes(b"x" * 100)
    (tmp_path / "over").write_bytes(b"x" * 101)
    assert read(tmp_path, tally, value_bytes_max=100) == {b"at": b"x" * 100}
    assert told == [f"{tmp_path}/over: the file is longer than max_value_bytes, which is 100"]


def test_a_file_whose_size_is_not_told_is_read_to_its_end(tally: Tally) -> None:
    source = TreeSource(Path("/proc/self/net"), follow=False, value_bytes_max=MAX, tally=tally)
    assert b"" not in {record.value for record in source if record.key in (b"dev", b"protocols")}


def test_a_file_that_vanishes_is_told_and_the_rest_is_read(tmp_path: Path, tally: Tally, told: list[str]) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    source = iter(TreeSource(tmp_path, follow=False, value_bytes_max=MAX, tally=tally))
    assert next(source).key == b"a"
    (tmp_path / "b").unlink()
    assert [record.key for record in source] == [b"c"]
    assert told == [f"{tmp_path}/b: No such file or directory"]


def test_a_pipe_that_took_a_files_place_neither_blocks_nor_is_data(tmp_path: Path, tally: Tally) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"1")
    source = iter(TreeSource(tmp_path, follow=False, value_bytes_max=MAX, tally=tally))
    next(source)
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "b")
    assert list(source) == []
    assert tally.skipped == 1


def test_the_total_is_the_bytes_that_are_there(tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 32)
    source = TreeSource(tmp_path, follow=False, value_bytes_max=MAX, tally=tally)
    assert source.total() == 42
    list(source)
    assert source.done == 42
