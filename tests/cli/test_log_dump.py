"""`kio log dump` prints what was written, in its order, and names what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kio.cli import exit_codes
from kio.segments.identity import create_or_load, shard_path
from kio.segments.store import StoreOptions
from tests.segments.support import Driven
from tests.segments.test_recovery import damage, records_of, segment_files

from .conftest import Run

ROOMY = StoreOptions(segment_bytes=64 * 1024)


@pytest.fixture(params=["sealed", "never sealed"])
def segment(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A segment of four records: two puts, a tombstone, a clear."""
    identity, _ = create_or_load(tmp_path / "data", 1)
    driven = Driven(shard_path(tmp_path / "data", 0), ROOMY, identity=identity)
    driven.put(b"plain", b"0ne")
    driven.put(b"\xff\n", b"", keyspace=3)
    driven.delete(b"plain")
    driven.clear(3)
    if request.param == "sealed":
        driven.store.close()
    else:
        driven.kill()
    (file,) = segment_files(driven.path)
    return file


def test_records_are_printed_in_their_order_with_escaped_keys_and_the_lengths_of_values(
    kio: Run, segment: Path
) -> None:
    ran = kio("log", "dump", str(segment))
    assert ran.code == 0
    head, *lines = ran.out.decode().splitlines()
    assert head.startswith(f"# {segment} shard=0 segment=1 epoch=1 salt=")
    assert lines == [
        "offset=64 lsn=1 epoch=1 put keyspace=0 key=plain value_bytes=3",
        "offset=96 lsn=2 epoch=1 put keyspace=3 key=\\xff\\x0a value_bytes=0",
        "offset=128 lsn=3 epoch=1 tombstone keyspace=0 flags=hides key=plain",
        "offset=160 lsn=4 epoch=1 clear keyspace=3",
    ]


def test_values_are_printed_on_demand_only(kio: Run, segment: Path) -> None:
    assert b"0ne" not in kio("log", "dump", str(segment)).out
    assert b" value_bytes=3 value=0ne\n" in kio("log", "dump", "--values", str(segment)).out


def test_json_has_the_same_fields_and_a_directory_stands_for_its_segments(kio: Run, segment: Path) -> None:
    told = json.loads(kio("log", "dump", str(segment.parents[1]), "--json", "--values").out)
    assert told["damaged"] == 0
    assert [record["kind"] for record in told["records"]] == ["put", "put", "tombstone", "clear"]
    first, second, *_ = told["records"]
    assert (first["key"], first["value"], first["value_bytes"], first["lsn"]) == ("plain", "0ne", 3, 1)
    assert (second["key"], second["key_base64"], second["keyspace"]) == (None, "/wo=", 3)
    assert "value" not in json.loads(kio("log", "dump", str(segment), "--json").out)["records"][0]


def test_damage_is_told_with_its_extent_and_what_follows_is_printed(kio: Run, segment: Path) -> None:
    second = records_of(segment)[1][0]
    damage(segment, second + 20)
    ran = kio("log", "dump", str(segment))
    assert ran.code == exit_codes.CORRUPT
    lines = ran.out.decode().splitlines()
    assert lines[2] == f"offset={second} bytes=32 damaged"
    assert len(lines) == 5
    assert json.loads(kio("log", "dump", str(segment), "--json").out)["damaged"] == 1


def test_what_is_no_segment_is_refused(kio: Run, segment: Path, tmp_path: Path) -> None:
    damage(segment, 2)
    assert kio("log", "dump", str(segment)).code == exit_codes.CORRUPT
    (tmp_path / "empty").mkdir()
    assert kio("log", "dump", str(tmp_path / "empty")).code == 78
    assert kio("log", "dump", str(tmp_path / "nowhere.seg")).code == exit_codes.INPUT_OUTPUT
