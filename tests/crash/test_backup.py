"""A backup under writes at full speed: what is restored is, shard by shard, exactly what had been written at its LSN.

One thread per shard pipelines numbered writes; nobody else writes, so an LSN tells how many of them there were. Backups
are taken meanwhile, into the same directory, one on the other; the command is also killed in the middle of one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, ROOT, Daemon, environment, run_cli, scaled, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import Wire
from tests.crash.numbered import Numbered, count_prefix

ROUNDS = 20 if FULL else 1
KILLS = 50 if FULL else 5
#: A file system of its own, on most machines.
ELSEWHERE = Path("/dev/shm")


@pytest.fixture(params=["one file system", pytest.param("two file systems", marks=pytest.mark.stress)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where backups go."""
    if request.param == "one file system":
        yield tmp_path / "backup"
        return
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{ELSEWHERE} is no file system of its own")
    directory = Path(tempfile.mkdtemp(prefix="kio-test-", dir=ELSEWHERE))
    yield directory / "backup"
    shutil.rmtree(directory)


@contextlib.contextmanager
def writing(daemon: Daemon, tags: dict[int, bytes], round_: int, pause_s: float = 0.0) -> Iterator[dict[int, Numbered]]:
    """A writer for each shard as long as the block runs, at full speed unless told otherwise."""
    writers = {shard: Numbered(daemon.url, tag, round_, pause_s) for shard, tag in tags.items()}
    for writer in writers.values():
        writer.start()
    try:
        for writer in writers.values():
            wait_until(lambda w=writer: w.acked >= 200 or w.fault, 20, "acknowledged writes")  # type: ignore[misc]
        yield writers
    finally:
        for writer in writers.values():
            writer.stop()
        for writer in writers.values():
            writer.join(20)
    for writer in writers.values():
        assert not writer.is_alive()
        assert not writer.fault, writer.fault


@scaled
@pytest.mark.timeout(1200 if FULL else 120)
@pytest.mark.parametrize("sync", ["interval", *(pytest.param(s, marks=pytest.mark.stress) for s in ("os", "always"))])
def test_what_is_restored_is_exactly_what_each_shard_had_at_its_lsn(
    sync: str, chance: Chance, target: Path, tmp_path: Path
) -> None:
    with Daemon(workers=2, sync=sync, flags=["--segment-mib", "1"]) as daemon:
        tags = shard_tags(daemon)
        base = {shard: int(stats["lsn"]) for shard, stats in daemon.shard_stats().items()}
        for round_ in range(ROUNDS):
            with writing(daemon, tags, round_) as writers:
                acked = {shard: writer.acked for shard, writer in writers.items()}
                told = json.loads(daemon.cli("backup", target, "--json", limit_s=60).stdout)
            at = {each["shard"]: each["lsn"] - base[each["shard"]] for each in told["shards"]}
            restore_and_judge(target, tmp_path / "new", round_, writers, at, acked, sum(base.values()), chance.repeat)
            base = {shard: int(stats["lsn"]) for shard, stats in daemon.shard_stats().items()}
        daemon.stop()
        run_cli("check", target)
        run_cli("check", daemon.data)


def restore_and_judge(
    target: Path,
    new: Path,
    round_: int,
    writers: dict[int, Numbered],
    writes: dict[int, int],
    acked: dict[int, int],
    before: int,
    repeat: str,
) -> None:
    """What was restored holds so many `writes` of this round in each shard, and nothing else of it."""
    run_cli("check", target)
    run_cli("restore", target, "--data", new)
    with Daemon(new, workers=2) as copy, Wire(copy.url) as wire:
        for shard, writer in writers.items():
            found = count_prefix(wire, writer.tag, round_, writer.sent, acked[shard], repeat)
            assert found == writes[shard], f"shard {shard}: {found} of {writes[shard]} writes\nrepeat with: {repeat}"
        lsns = sum(int(stats["lsn"]) for stats in copy.shard_stats().values())
        assert lsns == before + sum(writes.values())
        copy.stop()
    run_cli("check", new)
    shutil.rmtree(new)


@pytest.mark.stress
@pytest.mark.timeout(1200 if FULL else 120)
def test_a_backup_that_is_killed_leaves_the_earlier_one_and_the_next_one_cleans_up(
    chance: Chance, target: Path, tmp_path: Path
) -> None:
    with Daemon(workers=2, flags=["--segment-mib", "1"]) as daemon:
        tags = shard_tags(daemon)
        names = {path.name for path in daemon.data.iterdir()}
        with writing(daemon, tags, 0, pause_s=0.005) as writers:
            acked = dict.fromkeys(writers, 0)
            for _ in range(KILLS):
                before = {shard: writer.acked for shard, writer in writers.items()}
                if kill_in_the_middle(daemon, target, chance.dice.uniform(0.2, 0.7)):
                    acked = before
                elif not (target / "BACKUP").exists():
                    continue
                run_cli("check", target)
            before = {shard: writer.acked for shard, writer in writers.items()}
            assert all(before[shard] >= acked[shard] for shard in before)
            daemon.cli("backup", target, limit_s=60)
        assert {path.name for path in daemon.data.iterdir()} == names
        assert len([path for path in target.iterdir() if path.is_dir()]) == 1
        run_cli("restore", target, "--data", tmp_path / "new")
        with Daemon(tmp_path / "new", workers=2) as copy, Wire(copy.url) as wire:
            for shard, writer in writers.items():
                count_prefix(wire, tags[shard], 0, writer.sent, before[shard], chance.repeat)


def kill_in_the_middle(daemon: Daemon, target: Path, after_s: float) -> bool:
    """SIGKILL of `kio backup` so long after its start; whether it had ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kio", "backup", str(target)],
        cwd=ROOT,
        env=environment(KIO_URL=daemon.url),
        stdout=subprocess.DEVNULL,
    )
    try:
        return process.wait(after_s) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
