"""Which core a worker runs on, and which shard a key goes to."""

from __future__ import annotations

import os

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, scaled
from tests.cluster.probe import tag_owners
from tests.cluster.rawwire import SET_MANY, Wire

KEYS = 1_000_000 if FULL else 50_000
SHARDS = 8
#: The value that chi-square with 7 degrees of freedom exceeds once in a million fair draws.
CHI_SQUARE_MAX = 40.5


def test_each_worker_has_one_core_of_its_own_while_cores_last(chance: Chance) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with Daemon(workers=len(cores)) as daemon:
        status = daemon.status()
        pinned = [os.sched_getaffinity(worker["pid"]) for worker in status["workers"]]
        assert all(len(cpus) == 1 for cpus in pinned), pinned
        assert sorted(cpu for cpus in pinned for cpu in cpus) == cores
        for pid in (status["router"]["pid"], daemon.supervisor):
            assert sorted(os.sched_getaffinity(pid)) == cores, "the router and the supervisor float"


def test_more_workers_than_cores_share_them_evenly(chance: Chance) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with Daemon(workers=2 * len(cores)) as daemon:
        pinned = [os.sched_getaffinity(worker["pid"]) for worker in daemon.status()["workers"]]
        assert sorted(cpu for cpus in pinned for cpu in cpus) == sorted(cores * 2)


def test_the_daemon_stays_within_the_cores_it_was_given(chance: Chance) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("this machine gives us one core only")
    os.sched_setaffinity(0, {cores[-1]})
    try:
        with Daemon(workers=2) as daemon:
            for worker in daemon.status()["workers"]:
                assert os.sched_getaffinity(worker["pid"]) == {cores[-1]}
    finally:
        os.sched_setaffinity(0, set(cores))


@pytest.mark.stress
def test_a_key_goes_to_the_same_shard_before_and_after_any_restart(chance: Chance) -> None:
    tags = [b"tag%d" % n for n in range(10)]
    with Daemon(workers=2, shards=4) as daemon:
        owners = []
        for workers in (2, 1, 4):
            with Wire(daemon.url) as wire:
                owners.append(tag_owners(daemon, wire, tags))
            daemon.stop()
            daemon.workers = workers
            daemon.shards = None
            daemon.restart()
        assert owners == [owners[0]] * len(owners), owners
        assert len(set(owners[0].values())) > 1


@scaled
@pytest.mark.timeout(300 if FULL else 60)
def test_keys_spread_evenly_over_shards(chance: Chance) -> None:
    with Daemon(workers=2, shards=SHARDS) as daemon:
        with Wire(daemon.url) as wire:
            for start in range(0, KEYS, 10_000):
                wire.call(SET_MANY, 0, [p for n in range(start, start + 10_000) for p in (b"user:%07d" % n, b"")])
        daemon.stop()
        daemon.restart()
        counts = [shard["keys"] for shard in daemon.cli_status()["shards"]]
        assert (len(counts), sum(counts)) == (SHARDS, KEYS), counts
        expected = KEYS / SHARDS
        chi_square = sum((count - expected) ** 2 / expected for count in counts)
        print(f"{KEYS} keys over {SHARDS} shards: {counts}, chi-square {chi_square:.1f}")
        assert chi_square < CHI_SQUARE_MAX, f"{counts} is not an even spread: chi-square {chi_square:.1f}"
