"""Resharding a directory whose daemon was stopped or killed, and `kio reshard` itself killed at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kio import client
from kio.segments.identity import load
from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, ROOT, Daemon, environment, run_cli, scaled

KEYS = 200_000 if FULL else 5_000
KILLS = 100 if FULL else 5
TTL_S = 1_000.0

Model = dict[bytes, bytes]


def fill(daemon: Daemon, chance: Chance) -> Model:
    """Keys with tags, with a time to live, overwritten, deleted, of all sizes."""
    model: Model = {}
    with client.connect(daemon.url) as db:
        for start in range(0, KEYS, 5_000):
            part = {b"{user:%d}:%d" % (n % 500, n): chance.dice.randbytes(n % 300) for n in range(start, start + 5_000)}
            db.set_many(part)
            model |= part
        for key in [b"{user:%d}:%d" % (n % 500, n) for n in range(0, KEYS, 7)]:
            db.delete(key)
            del model[key]
        for n in range(20):
            model[b"long %d" % n] = value = chance.dice.randbytes(n * 100_000)
            db.set(b"long %d" % n, value)
            model[b"lasting %d" % n] = b"ttl"
            db.set(b"lasting %d" % n, b"ttl", ttl=TTL_S)
            db.set(b"short %d" % n, b"ttl", ttl=0.001)
    return model


def compare(daemon: Daemon, model: Model, shards: int) -> None:
    """Every key, and no other, through the front door; each shard has its part of them."""
    with client.connect(daemon.url) as db:
        assert dict(db.items()) == model
        assert db.count() == len(model)
        found = db.get_many(list(model))
        assert found == model
        left = [db.ttl(b"lasting %d" % n) for n in range(20)]
        assert all(each is not None and TTL_S - 300 < each <= TTL_S for each in left), left
    stats = daemon.shard_stats()
    assert len(stats) == shards
    assert min(each["keys"] for each in stats.values()) > len(model) / shards / 2


@scaled
@pytest.mark.timeout(600 if FULL else 60)
def test_a_daemon_with_other_workers_serves_the_same_after_a_reshard(chance: Chance) -> None:
    with Daemon(workers=2, shards=2, flags=["--segment-mib", "1"]) as daemon:
        model = fill(daemon, chance)
        for shards, workers in ((3, 2), (1, 4), (4, 3)) if FULL else ((4, 3),):
            if chance.dice.random() < 0.5:
                daemon.stop()
            else:
                daemon.kill_everything()
            told = json.loads(run_cli("reshard", daemon.data, "--shards", str(shards), "--json", limit_s=300).stdout)
            assert (told["shards"], told["records"], told["left"]) == (shards, len(model), []), chance.repeat
            run_cli("check", daemon.data)
            daemon.workers, daemon.shards = workers, shards
            daemon.restart()
            compare(daemon, model, shards)
            with client.connect(daemon.url) as db:
                db.set(b"since", b"%d" % shards)
                model[b"since"] = b"%d" % shards


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_a_reshard_that_is_killed_leaves_a_directory_that_serves_all(chance: Chance) -> None:
    with Daemon(workers=2, shards=2, flags=["--segment-mib", "1"]) as daemon:
        model = fill(daemon, chance)
        daemon.stop()
        began = time.monotonic()
        run_cli("reshard", daemon.data, "--shards", "3", limit_s=300)
        took_s = time.monotonic() - began
        killed = 0
        for round_ in range(KILLS):
            before = load(daemon.data).shards
            killed += kill_in_the_middle(daemon.data, before % 5 + 1, chance.dice.uniform(0.1, 1.5) * took_s)
            after = load(daemon.data).shards
            assert after in (before, before % 5 + 1), chance.repeat
            if round_ % 4 == 0 or not FULL:
                daemon.shards = None
                daemon.restart()
                compare(daemon, model, after)
                assert len([path for path in daemon.data.iterdir() if path.name.startswith("shard")]) == 1
                daemon.stop()
        print(f"{killed} of {KILLS} were killed before their end")
        assert killed > 0, chance.repeat


def kill_in_the_middle(data: Path, shards: int, after_s: float) -> bool:
    """SIGKILL of `kio reshard` so long after its start; whether that was before its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kio", "reshard", str(data), "--shards", str(shards)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        assert process.wait(after_s) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False
