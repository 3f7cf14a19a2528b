"""Processes that stand still (SIGSTOP) instead of dying: the deadline is kept, the others go on, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import Daemon
from tests.cluster.load import Load
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import DELETE, GET, OK, PING, SET, TIMEOUT, Wire

STANDSTILL_S = 3.0
DEADLINE_MS = 300
#: How much later than its deadline an answer may come.
LATE_S = 1.0
LIVENESS_S = 10.0


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.stress
def test_requests_to_a_worker_that_stands_still_time_out_and_other_shards_answer(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        (still,), (other,) = daemon.shards_of(0), daemon.shards_of(1)
        key = b"{%s}key" % tags[still]
        with Wire(daemon.url) as wire, Probe(daemon.url, tags[other]) as probe:
            wire.call(SET, 0, key, b"before")
            pid = daemon.worker_pid(0)
            with standing_still(pid):
                began = time.monotonic()
                while time.monotonic() < began + STANDSTILL_S:
                    asked = time.monotonic()
                    status, *rest = wire.request(GET, 0, key, deadline_ms=DEADLINE_MS)
                    took = time.monotonic() - asked
                    assert status == TIMEOUT, f"answered {status} {rest!r} after {took:.2f} s"
                    assert DEADLINE_MS / 1000 <= took <= DEADLINE_MS / 1000 + LATE_S, f"timed out after {took:.3f} s"
                    assert wire.call(PING, b"alive") == b"alive", "the connection did not survive the time-out"
                status, _, maybe_applied = wire.request(SET, 0, key, b"during", deadline_ms=DEADLINE_MS)
                assert (status, maybe_applied) == (TIMEOUT, True)
            assert wire.call(GET, 0, key, deadline_ms=5_000) in (b"before", b"during")
            assert daemon.worker_pid(0) == pid, "a worker that stood still for 3 s was replaced"
            assert not probe.failures(), f"another shard failed: {probe.failures()[:3]}"
            assert max(a.took_s for a in probe.answers) < 1.0


@pytest.mark.stress
def test_a_router_that_stands_still_loses_nothing_and_goes_on(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with Load(daemon, clients=4, seed=chance.seed) as load:
            load.await_acks(200)
            pid = daemon.router_pid()
            with standing_still(pid):
                time.sleep(2.0)
            load.await_acks(200)
            assert_all_writable(daemon, tags)
        assert daemon.router_pid() == pid, "a router that stood still for 2 s was replaced"
        forget(daemon, tags)
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=400)


@pytest.mark.stress
def test_a_worker_that_stands_still_under_load_loses_nothing(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with Load(daemon, clients=4, seed=chance.seed) as load:
            load.await_acks(200)
            with standing_still(daemon.worker_pid(chance.dice.randrange(2))):
                time.sleep(2.0)
            load.await_acks(200)
            assert_all_writable(daemon, tags)
        forget(daemon, tags)
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=400)


def test_a_supervisor_that_stands_still_is_not_in_the_way_of_requests(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(Probe(daemon.url, tag)) for tag in tags.values()]
            with standing_still(daemon.supervisor):
                time.sleep(2.0)
                with Wire(daemon.url) as wire:
                    assert wire.call(PING, b"new connection") == b"new connection"
        for probe in probes:
            assert len(probe.answers) > 20
            assert not probe.failures(), probe.failures()[:3]


def test_the_admin_door_answers_while_every_worker_and_the_router_stand_still(chance: Chance) -> None:
    with Daemon(workers=2) as daemon, contextlib.ExitStack() as stack:
        for pid in (daemon.worker_pid(0), daemon.worker_pid(1), daemon.router_pid()):
            stack.enter_context(standing_still(pid))
        for path in ("/healthz", "/metrics", "/readyz"):
            began = time.monotonic()
            status, body = daemon.http_get(path, limit_s=2)
            took = time.monotonic() - began
            assert status in (200, 503), f"{path} was answered {status} {body[:200]!r}"
            assert took < 1.0, f"{path} took {took:.2f} s"
        assert daemon.http_get("/healthz")[0] == 200


def assert_all_writable(daemon: Daemon, tags: dict[int, bytes]) -> None:
    """Every shard takes a write soon after the last fault."""
    end = time.monotonic() + LIVENESS_S
    with Wire(daemon.url) as wire:
        for shard, tag in tags.items():
            while (answer := wire.request(SET, 0, b"{%s}live" % tag, b"", deadline_ms=1_000))[0] != OK:
                assert time.monotonic() < end, (
                    f"shard {shard} still answers {answer} {LIVENESS_S:g} s after the last fault"
                )


def forget(daemon: Daemon, tags: dict[int, bytes]) -> None:
    """Delete what was written beside the journals."""
    with Wire(daemon.url) as wire:
        for tag in tags.values():
            wire.call(DELETE, 0, b"{%s}live" % tag)
