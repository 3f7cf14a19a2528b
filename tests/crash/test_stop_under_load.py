"""SIGTERM under load: it stops taking, finishes what it holds, exits 0 within 5 s, and the next start has all of it."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, SYNC_MODES, Daemon, scaled
from tests.cluster.load import Load

ROUNDS = 17 if FULL else 1
STOP_S = 5.0


@scaled
@pytest.mark.timeout(600 if FULL else 60)
@pytest.mark.parametrize("sync", SYNC_MODES)
def test_sigterm_under_load_exits_0_in_time_and_loses_nothing(sync: str, chance: Chance) -> None:
    with Daemon(workers=2, sync=sync) as daemon, Load(daemon, clients=4, seed=chance.seed) as load:
        for _ in range(ROUNDS):
            load.await_acks(chance.dice.randint(50, 500))
            took = daemon.stop(STOP_S)
            print(f"stopped in {took:.2f} s")
            daemon.restart()
        load.await_acks(50)
        load.stop()
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=100)


def test_what_a_clean_stop_left_needs_no_repair_at_the_next_start(chance: Chance) -> None:
    with Daemon(workers=2, sync="os") as daemon:
        with Load(daemon, clients=2, seed=chance.seed) as load:
            load.await_acks(300)
        daemon.stop(STOP_S)
        written = len(daemon.log_tail(100_000))
        daemon.restart()
        since = daemon.log_tail(100_000)[written:]
        assert "torn" not in since, since
        assert "WARNING" not in since.upper(), since
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=300)
