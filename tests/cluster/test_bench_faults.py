"""What becomes of a run that is interrupted, whose server dies, or whose own processes stand still or die.

Every run inserts keys, so that the server itself tells when it is under way.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.cluster.bench import SERVERS, START_S, Bench, Server, redis_server
from tests.cluster.daemon import wait_until

RATE = 500
LONG = ("--mix", "insert=1", "--records", "100", "--rate", str(RATE), "--seconds", "60", "--connections", "8")
UNDER_WAY_KEYS = 300
GAP_S = 0.8


@pytest.fixture(params=[name if name == "kio" else pytest.param(name, marks=pytest.mark.stress) for name in SERVERS])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with SERVERS[request.param]() as running:
        yield running


@pytest.fixture
def redis() -> Iterator[Server]:
    with redis_server() as running:
        yield running


def arguments(server: Server, *more: str) -> tuple[str, ...]:
    return ("--url", server.url, *LONG, "--no-floor", "--json", *more)


def await_under_way(server: Server, keys: int = UNDER_WAY_KEYS) -> None:
    wait_until(lambda: server.keys() >= keys, START_S, f"{keys} keys")


def test_ctrl_c_prints_what_there_is(server: Server) -> None:
    with Bench(*arguments(server)) as run:
        await_under_way(server)
        generators = run.generators()
        run.interrupt()
        run.end()
        assert run.code == 130
        report = run.report()
    assert report["interrupted"] is True
    assert report["errors"] == {}
    assert UNDER_WAY_KEYS - 100 <= report["operations"] < 60 * RATE
    assert 0.1 < report["seconds"] < 60
    assert report["corrected_us"]["p50"] > 0
    assert not any(process.is_running() for process in generators)


def test_ctrl_c_prints_the_table_as_well(redis: Server) -> None:
    with Bench(*(word for word in arguments(redis) if word != "--json")) as run:
        await_under_way(redis)
        run.interrupt()
        run.end()
    assert run.code == 130
    assert "(interrupted)" in run.out.decode()


def test_ctrl_c_while_the_records_are_written_ends_it_without_a_report(redis: Server) -> None:
    with Bench(*arguments(redis, "--records", "50000000")) as run:
        await_under_way(redis)
        generators = run.generators()
        run.interrupt()
        run.end()
    assert (run.code, run.out) == (130, b"")
    assert run.err == f"kio: writing 50,000,000 records to {redis.url}\n"
    assert not any(process.is_running() for process in generators)


@pytest.mark.stress
def test_a_server_that_dies_is_reported_with_counts(server: Server) -> None:
    with Bench(*arguments(server)) as run:
        await_under_way(server)
        server.kill()
        run.end()
    assert run.code == 69
    assert f"{server.url} went away" in run.err
    report = run.report()
    assert report["operations"] >= UNDER_WAY_KEYS - 100
    assert report["connections_lost"] == 8
    assert report["void"] is True
    failed = report["errors"]
    assert set(failed) <= {"ConnectionLost", "Unsent"}
    # All that fell due until the run was given up is accounted for: answered, lost or never sent.
    assert report["operations"] + sum(failed.values()) == pytest.approx(report["seconds"] * RATE, abs=RATE * 0.1)
    told = [text for _, text in report["events"]]
    assert any("lost" in text for text in told)
    assert any("ended early" in text for text in told)


@pytest.mark.stress
def test_a_server_that_comes_back_is_asked_again_and_the_gap_is_in_the_corrected_latencies(redis: Server) -> None:
    with Bench(*arguments(redis, "--seconds", "4")) as run:
        await_under_way(redis)
        redis.kill()
        time.sleep(GAP_S)
        redis.restart()
        run.end()
    assert run.code == 0
    report = run.report()
    assert report["connections_lost"] >= 8
    assert report["errors"].get("ConnectionLost", 0) <= 8
    assert report["operations"] + sum(report["errors"].values()) == 4 * RATE
    assert report["corrected_us"]["max"] >= GAP_S * 0.9e6
    assert report["uncorrected_us"]["max"] < report["corrected_us"]["max"]
    assert any("up again" in text for _, text in report["events"])


@pytest.mark.stress
def test_a_generator_that_stood_still_voids_its_run_and_says_so(redis: Server) -> None:
    with Bench(*arguments(redis, "--seconds", "4")) as run:
        await_under_way(redis)
        (generator,) = run.generators()
        generator.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        generator.send_signal(signal.SIGCONT)
        report = run.end().report()
    assert run.code == 0
    assert report["void"] is True
    (reason,) = [reason for reason in report["void_reasons"] if "stood still" in reason]
    assert 0.9 < report["generator"]["stall_ms_max"] / 1000 < 2
    assert 0 < report["generator"]["stall_at_s"] < 4
    assert f"stood still for {report['generator']['stall_ms_max'] / 1000:.1f}" in reason


def test_a_generator_that_dies_voids_its_run_and_what_it_measured_is_kept(redis: Server) -> None:
    with Bench(*arguments(redis)) as run:
        await_under_way(redis)
        (generator,) = run.generators()
        generator.kill()
        report = run.end().report()
    assert report["void"] is True
    assert any("was ended by SIGKILL" in reason for reason in report["void_reasons"])
    assert report["operations"] >= UNDER_WAY_KEYS - 200
    assert report["corrected_us"]["p50"] > 0


def test_no_generator_outlives_a_coordinator_that_is_killed(redis: Server) -> None:
    with Bench(*arguments(redis, "--processes", "2")) as run:
        await_under_way(redis)
        generators = run.generators()
        assert len(generators) == 2
        run.kill()
        wait_until(lambda: not any(is_alive(process) for process in generators), START_S, "the generators' end")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
