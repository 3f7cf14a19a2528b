"""What the supervisor promises when children misbehave: they end with it, are given up, and never hold up the stop."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, ORPHAN_S, Daemon, wait_until
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import GET, OK, PING, SET, SHARD_DOWN, Wire

STOP_S = 5.0
#: Crashes after which a worker is given up, within a minute.
CRASHES = 5
RESTARTS = 40 if FULL else 6


def test_children_that_stand_still_end_with_the_supervisor_too(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        for pid in (daemon.worker_pid(0), daemon.router_pid()):
            os.kill(pid, signal.SIGSTOP)
        daemon.kill_supervisor()
        daemon.assert_nothing_left(ORPHAN_S)


def test_a_worker_that_stands_still_does_not_hold_up_the_stop(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        with Wire(daemon.url) as wire:
            for n in range(100):
                wire.call(SET, 0, b"k%d" % n, b"v")
        os.kill(daemon.worker_pid(0), signal.SIGSTOP)
        took = daemon.stop(STOP_S + 1)
        assert took <= STOP_S, f"the stop took {took:.2f} s"
        daemon.restart()
        with Wire(daemon.url) as wire:
            for n in range(100):
                assert wire.call(GET, 0, b"k%d" % n) == b"v"


def test_a_worker_that_crashes_again_and_again_is_given_up_and_the_rest_serves(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        (broken,), (whole,) = daemon.shards_of(0), daemon.shards_of(1)
        with Probe(daemon.url, tags[whole]) as probe:
            crash_until_given_up(daemon)
            with Wire(daemon.url) as wire:
                assert wire.request(GET, 0, b"{%s}k" % tags[broken])[0] == SHARD_DOWN
        assert not probe.failures(), f"another worker's shard failed: {probe.failures()[:3]}"
        worker = daemon.status()["workers"][0]
        assert worker["reason"], "the status does not say why"
        status, body = daemon.http_get("/readyz")
        assert status == 503
        assert b"shard" in body


def crash_until_given_up(daemon: Daemon) -> None:
    """SIGSEGV the first worker each time it serves; it must be given up after CRASHES."""
    for crash in range(1, CRASHES + 1):
        pid = daemon.worker_pid(0)
        wait_until(lambda: daemon.status()["workers"][0]["state"] == "serving", 15, "the worker to serve")
        os.kill(daemon.worker_pid(0), signal.SIGSEGV)
        wait_until(lambda p=pid: daemon.status()["workers"][0]["pid"] != p, 5, "the crash to be seen")  # type: ignore[misc]
        if daemon.status()["workers"][0]["state"] == "broken":
            assert crash == CRASHES, f"given up after {crash} crashes"
    wait_until(lambda: daemon.status()["workers"][0]["state"] == "broken", 5, "the worker to be given up")


def test_nothing_piles_up_over_restarts_of_the_children(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        with Wire(daemon.url) as wire:
            wire.call(SET, 0, b"k", b"v")
        kill_in_turn(daemon, 4)
        before = footprint(daemon)
        kill_in_turn(daemon, RESTARTS)

        def is_back() -> bool:
            """What leaks with every restart is more than what happens to be open at one moment and not at another."""
            return all(now < then + RESTARTS // 2 for now, then in zip(footprint(daemon), before, strict=True))

        wait_until(is_back, 5, lambda: f"the {before} of before, now it is {footprint(daemon)}", 0.1)
        with Wire(daemon.url) as wire:
            assert wire.call(GET, 0, b"k") == b"v"


def kill_in_turn(daemon: Daemon, kills: int) -> None:
    """SIGKILL workers and router in turn, each time when all are ready."""
    for number in range(kills):

        def pid(number: int = number) -> int:
            return daemon.router_pid() if number % 2 else daemon.worker_pid(number // 2 % 2)

        killed = pid()
        os.kill(killed, signal.SIGKILL)
        # Ready is also what it was before anybody had noticed.
        wait_until(lambda k=killed, now=pid: now() != k, 10, "another process")  # type: ignore[misc]
        wait_until(daemon.is_ready, 10, "the daemon to be ready again", 0.02)


def footprint(daemon: Daemon) -> tuple[int, int, int, int]:
    """(processes, descriptors of all, threads of all, files beside the segments)."""
    pids = daemon.pids()
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
    files = sum(len(names) for _, _, names in os.walk(daemon.data / "run"))
    return len(pids), sum(daemon.descriptors().values()), threads, files


def test_a_router_without_descriptors_serves_who_is_connected_and_accepts_again_later(chance: Chance) -> None:
    with Daemon(workers=2) as daemon, Wire(daemon.url) as wire:
        router = daemon.router_pid()
        used = daemon.descriptors()[router]
        resource.prlimit(
            router, resource.RLIMIT_NOFILE, (used + 10, resource.prlimit(router, resource.RLIMIT_NOFILE)[1])
        )
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(Wire(daemon.url, hello=False))
            began = time.monotonic()
            for n in range(50):
                assert wire.request(SET, 0, b"k%d" % n, b"v") == [OK, True]
            assert time.monotonic() - began < 2.0, "a router without descriptors is too busy to answer"
        with Wire(daemon.url) as late:
            assert late.call(PING, b"accepted") == b"accepted"
        assert daemon.router_pid() == router
