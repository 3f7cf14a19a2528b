"""Format version 2: the committed directory is read as it was meant; the reference encoders still give its bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

from kio.segments.check import check_directory
from kio.segments.identity import load, shard_path
from kio.segments.options import StoreOptions
from tests.golden.make_v2 import CLOCK, CONTENT, FUTURE, IDENTITY, make
from tests.golden.test_v1 import contents
from tests.segments.support import Driven, Time
from tests.segments.test_recovery import manifest_of

GOLDEN = Path(__file__).parent / "v2"


def test_the_reference_encoders_still_give_the_golden_bytes(tmp_path: Path) -> None:
    make(tmp_path / "v2")
    assert contents(tmp_path / "v2") == contents(GOLDEN)
    assert sum(map(len, contents(GOLDEN).values())) < 100_000


def test_the_golden_directory_is_read_as_it_was_meant(tmp_path: Path) -> None:
    data = tmp_path / "v2"
    shutil.copytree(GOLDEN, data)
    assert load(data) == IDENTITY
    for shard in range(2):
        driven = Driven(shard_path(data, shard), StoreOptions(), identity=IDENTITY, shard=shard)
        for again in (driven.reopen, driven.restart, driven.restart):
            driven.maintain()
            for (number, keyspace), content in CONTENT.items():
                if number == shard:
                    assert driven.items(keyspace=keyspace) == content
                    assert driven.count(keyspace) == len(content)
            again()
        assert driven.store.lsn == (13, 6)[shard]
        driven.store.close()


def test_what_had_expired_stays_so_although_the_clock_stands_before_that(tmp_path: Path) -> None:
    data = tmp_path / "v2"
    shutil.copytree(GOLDEN, data)
    time = Time(wall_ms=1)
    driven = Driven(shard_path(data, 0), StoreOptions(), identity=IDENTITY, clock=time.clock)
    assert manifest_of(driven).state.clock_ms == CLOCK
    driven.maintain()
    assert driven.items() == CONTENT[0, 0]
    time.wall_ms = FUTURE
    driven.maintain()
    assert driven.items() == {key: value for key, value in CONTENT[0, 0].items() if key != b"lasting"}
    driven.store.close()


def test_check_finds_the_golden_directory_whole_but_for_its_torn_tail(tmp_path: Path) -> None:
    data = tmp_path / "v2"
    shutil.copytree(GOLDEN, data)
    report = check_directory(data)
    assert report.faults == []
    assert {(note.shard, note.file, note.kind) for note in report.notes} == {
        (1, "0000000003.seg", "torn tail"), (1, "0000000003.seg", "unsealed"),
    }  # fmt: skip
    assert report.records == 19
    assert contents(data) == contents(GOLDEN)
