"""Format version 1: the committed directory is read as it was meant; the reference encoders still give its bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

from kio.segments.check import check_directory
from kio.segments.identity import load, shard_path
from kio.segments.options import StoreOptions
from tests.golden.make_v1 import CONTENT, IDENTITY, make
from tests.segments.support import Driven

GOLDEN = Path(__file__).parent / "v1"


def contents(data: Path) -> dict[str, bytes]:
    """Every file but the locks, by its path."""
    files = (path for path in data.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(data)): path.read_bytes() for path in files}


def test_the_reference_encoders_still_give_the_golden_bytes(tmp_path: Path) -> None:
    make(tmp_path / "v1")
    assert contents(tmp_path / "v1") == contents(GOLDEN)
    assert sum(map(len, contents(GOLDEN).values())) < 100_000


def test_the_golden_directory_is_read_as_it_was_meant(tmp_path: Path) -> None:
    data = tmp_path / "v1"
    shutil.copytree(GOLDEN, data)
    assert load(data) == IDENTITY
    for shard in range(2):
        driven = Driven(shard_path(data, shard), StoreOptions(), identity=IDENTITY, shard=shard)
        for again in (driven.reopen, driven.restart):
            for (number, keyspace), content in CONTENT.items():
                if number == shard:
                    assert driven.items(keyspace=keyspace) == content
                    assert driven.count(keyspace) == len(content)
            again()
        assert driven.store.lsn == (10, 4)[shard]
        driven.store.close()


def test_check_finds_the_golden_directory_whole_but_for_its_torn_tail(tmp_path: Path) -> None:
    data = tmp_path / "v1"
    shutil.copytree(GOLDEN, data)
    report = check_directory(data)
    assert report.faults == []
    assert {(note.shard, note.file, note.kind) for note in report.notes} == {
        (1, "0000000002.seg", "torn tail"), (1, "0000000002.seg", "unsealed"),
    }  # fmt: skip
    assert report.records == 14
    assert contents(data) == contents(GOLDEN)
