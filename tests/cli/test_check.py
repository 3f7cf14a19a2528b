"""`kio check` on a data directory as a daemon leaves it, and as it should not be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.cli import exit_codes
from tests.cluster.daemon import Daemon

from .conftest import Run

RECORDS = 500


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a daemon that was stopped, two shards."""
    directory = tmp_path_factory.mktemp("check") / "data"
    lines = directory.parent / "lines"
    lines.write_text("".join(f'{{"id": "key-{n}"}}\n' for n in range(RECORDS)))
    with Daemon(data=directory) as daemon:
        daemon.cli("import", "--jsonl", lines, "--key", "id")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def a_segment(data: Path) -> Path:
    return max(data.glob("shard-0000/*.seg"), key=lambda path: path.stat().st_size)


def test_a_sound_directory_is_ok_with_its_totals(kio: Run, data: Path) -> None:
    ran = kio("check", str(data))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].startswith(f"OK: shards=2 segments=2 records={RECORDS} bytes=".encode())
    told = json.loads(kio("check", "--data", str(data), "--json").out)
    assert (told["ok"], told["records"], told["faults"]) == (True, RECORDS, [])


def test_the_directory_is_that_of_the_settings_where_none_is_given(
    kio: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIO_DATA", str(data))
    assert kio("check").code == 0


def test_one_shard_can_be_checked_alone(kio: Run, data: Path) -> None:
    told = [json.loads(kio("check", str(data), "--shard", shard, "--json").out) for shard in ("0", "1")]
    assert [each["shards"] for each in told] == [1, 1]
    assert sum(each["records"] for each in told) == RECORDS
    assert kio("check", str(data), "--shard", "2").code == 78


def test_a_flipped_byte_is_told_with_segment_and_offset_and_exit_code_65(kio: Run, data: Path) -> None:
    segment = a_segment(data)
    spoilt = bytearray(segment.read_bytes())
    spoilt[300] ^= 1
    segment.write_bytes(spoilt)
    ran = kio("check", str(data))
    assert ran.code == exit_codes.CORRUPT
    faults = [line for line in ran.out.decode().splitlines() if line.startswith("fault: ")]
    assert any(line.startswith(f"fault: shard=0 segment={segment.name} offset=") for line in faults)
    assert ran.out.splitlines()[-1].startswith(f"{len(faults)} faults: shards=2 ".encode())
    told = json.loads(kio("check", str(data), "--json").out)
    assert told["ok"] is False
    assert {"shard", "file", "offset", "kind", "message", "run"} == told["faults"][0].keys()
    repair = f"kio repair record {data} --shard 0 --segment 1"
    assert all(line.endswith(f'; run "{repair}"') for line in faults)
    assert {fault["run"] for fault in told["faults"]} == {repair}
    assert "kio: restore a backup where there is one; kio repair " in ran.err


def test_a_directory_in_use_is_left_alone(kio: Run) -> None:
    with Daemon() as daemon:
        ran = kio("check", str(daemon.data))
    assert ran.code == 73
    assert ran.out == b""


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_what_is_no_data_directory_has_its_own_exit_code(kio: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    ran = kio("check", str(tmp_path / name))
    assert ran.code == 78
    assert ran.err.startswith("kio: ")
