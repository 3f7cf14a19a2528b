"""Crashes of recovery itself, and torn tails: however often it is cut short, the next start finds everything."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon
from tests.cluster.load import Load

ROUNDS = 30 if FULL else 1
KILLS_EACH = 3
#: By then a start of this small directory is over; the kill falls anywhere before.
START_S = 0.6


@pytest.mark.stress
@pytest.mark.timeout(900 if FULL else 60)
@pytest.mark.parametrize("sync", ["always", "os"] if FULL else ["os"])
def test_a_recovery_killed_at_any_moment_loses_nothing(sync: str, chance: Chance) -> None:
    with (
        Daemon(workers=2, shards=4, sync=sync, flags=["--segment-mib", "1"]) as daemon,
        Load(daemon, clients=3, seed=chance.seed) as load,
    ):
        for _ in range(ROUNDS):
            load.await_acks(300)
            daemon.kill_everything()
            for kill in range(KILLS_EACH):
                if kill != 1:
                    tear_tails(daemon.data, chance.dice)
                daemon.restart(await_ready=False)
                time.sleep(chance.dice.uniform(0, START_S))  # the random moment of the kill, nothing is awaited
                daemon.kill_everything()
            daemon.restart(await_ready=True)
        load.await_acks(100)
        load.stop()
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=300 * ROUNDS)


def tear_tails(data: Path, dice: random.Random) -> None:
    """Junk behind the last byte of each segment that still has room: what a write that was cut in the middle leaves."""
    for path in data.glob("shard-*/*.seg"):
        content = path.read_bytes()
        tail = (len(content.rstrip(b"\0")) + 64) // 8 * 8
        if tail + 128 < len(content):
            with path.open("r+b") as file:
                file.seek(tail)
                file.write(dice.randbytes(dice.randint(1, 100)))
