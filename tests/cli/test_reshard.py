"""`kio reshard` on a directory that a daemon has made, and on what it refuses."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kio.segments.identity import create_or_load, load
from tests.cluster.daemon import ROOT, Daemon, environment

from .conftest import Run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two empty shards."""
    create_or_load(tmp_path / "data", 2)
    return tmp_path / "data"


def test_it_tells_what_it_did(kio: Run, data: Path) -> None:
    ran = kio("reshard", str(data), "--shards", "3")
    assert ran.code == 0
    assert ran.out.startswith(b"resharded from 2 to 3 shards: records=0 mib=0.0 expired=0 took_ms=")
    told = json.loads(kio("reshard", "--data", str(data), "--shards", "1", "--json").out)
    took_ms = told.pop("took_ms")
    assert took_ms > 0
    assert told == {"shards_before": 3, "shards": 1, "records": 0, "record_bytes": 0, "expired": 0, "left": []}
    assert load(data).shards == 1


def test_the_same_number_is_nothing_to_do(kio: Run, data: Path) -> None:
    ran = kio("reshard", str(data), "--shards", "2")
    assert (ran.code, ran.out) == (0, b"nothing to do: there are 2 shards\n")
    assert load(data).generation == 0


def test_the_directory_is_that_of_the_settings_where_none_is_given(kio: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "kio.toml").write_text(f'data = "{data}"\n')
    assert kio("reshard", "--shards", "5", "--config", str(tmp_path / "kio.toml")).code == 0
    assert load(data).shards == 5


def test_many_shards_are_made_under_a_low_limit_of_descriptors(data: Path) -> None:
    command = f"ulimit -Sn 64; exec {shlex.quote(sys.executable)} -m kio reshard {shlex.quote(str(data))} --shards 20"
    ran = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert load(data).shards == 20


def test_a_directory_in_use_is_refused(kio: Run) -> None:
    with Daemon(workers=1, shards=1) as daemon:
        ran = kio("reshard", str(daemon.data), "--shards", "2")
        assert ran.code == 73
        assert f"in use by process {daemon.supervisor}" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["."], 2, "missing option '--shards'"),
        ([".", "--shards", "0"], 2, "greater than or equal to 1"),
        ([".", "--shards", "1025"], 2, "less than or equal to 1024"),
        ([".", "--data", ".", "--shards", "2"], 2, "give the directory once"),
        (["/nowhere/at/all", "--shards", "2"], 78, "is not a kio data directory"),
    ],
)
def test_wrong_usage_is_refused(kio: Run, arguments: list[str], code: int, said: str) -> None:
    ran = kio("reshard", *arguments)
    assert (ran.code, ran.out) == (code, b"")
    assert said in ran.err
