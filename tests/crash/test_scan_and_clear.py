"""Scans and clears across crashes: a scan finds what stays exactly once, what was cleared never comes back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import kio
from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, scaled
from tests.cluster.load import Load
from tests.cluster.rawwire import CLEAR, COUNT, GET, SET, SET_MANY, Wire

STABLE = 5_000
KILLS = 40 if FULL else 4


@pytest.mark.stress
@scaled
@pytest.mark.timeout(600 if FULL else 60)
def test_a_scan_across_killed_workers_returns_what_stays_exactly_once(chance: Chance) -> None:
    stable = {b"stable:%d" % n: b"%d" % n for n in range(STABLE)}
    with Daemon(workers=2, shards=4) as daemon, kio.connect(daemon.url, timeout=10) as db:
        db.set_many(stable)
        killing = threading.Event()
        with Load(daemon, clients=2, seed=chance.seed) as load:
            killer = threading.Thread(target=kill_workers, args=(daemon, killing, load), daemon=True)
            killer.start()
            scans = 0
            while killer.is_alive() or scans < 2:
                found = [(key, value) for key, value in db.scan(b"stable:", limit=200)]
                assert len(found) == len(stable), f"{len(found)} of {len(stable)}; {chance.repeat}"
                assert dict(found) == stable, f"a wrong value or a key twice; {chance.repeat}"
                scans += 1
            killer.join(20)
            assert killing.is_set(), "the killing failed"
        print(f"{scans} scans across {KILLS} kills")
        assert db.delete_many(stable) == STABLE
        load.assert_nothing_lost(daemon, chance.repeat)


def kill_workers(daemon: Daemon, done: threading.Event, load: Load) -> None:
    for number in range(KILLS):
        load.await_acks(30)
        os.kill(daemon.worker_pid(number % 2), signal.SIGKILL)
    done.set()


@pytest.mark.stress
def test_what_was_cleared_does_not_come_back_after_any_crash(chance: Chance) -> None:
    with Daemon(workers=2, shards=4, flags=["--segment-mib", "1"]) as daemon:
        for round_ in range(3):
            with Wire(daemon.url) as wire:
                for keyspace in (0, 1):
                    pairs = [part for n in range(600) for part in (b"k%d" % n, b"before" * 500)]
                    wire.call(SET_MANY, keyspace, pairs)
                assert wire.call(CLEAR, 0) == 600
                for n in range(100):
                    wire.call(SET, 0, b"k%d" % n, b"after")
            daemon.kill_everything() if round_ % 2 == 0 else daemon.stop()
            daemon.restart()
            with Wire(daemon.url) as wire:
                assert [wire.call(COUNT, keyspace) for keyspace in (0, 1)] == [100, 600], f"round {round_}"
                for n in range(600):
                    assert wire.call(GET, 0, b"k%d" % n) == (b"after" if n < 100 else None)
                assert wire.call(GET, 1, b"k599") == b"before" * 500
                assert wire.call(CLEAR, 0) == 100
