"""The proof that `kio bench` tells the truth: a server that stands still for a second, and what the figures make of it.

Constant arrivals for 20 s, far below what the server can do. While it stands still for 1 s, 5 % of all requests fall
due, and the latency of each is what was left of that second. So among all requests the slowest 1 % waited longer than
0.8 s, and the slowest 0.1 % longer than 0.98 s: p99 and p99.9, by arithmetic. What waited has to be worked off, which
adds to it as much of 0.2 s as the load is of what the server can do: the reason for a low rate. Only the few requests
that were under way when it stopped saw any of this in their uncorrected latency; in a closed loop nobody else asked.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.bench import SERVERS, Bench, Server, bench

pytestmark = [pytest.mark.stress, pytest.mark.alone, pytest.mark.timeout(600)]

SECONDS = 20.0
STOP_AT_S = 8.0
STOP_S = 1.0
#: A tenth of what kio answers in a closed loop on a busy machine of two cores, and less of what redis-server does.
RATE = 1_000
LOAD_SHARE_MAX = 0.3
CONNECTIONS = 20
TOLERANCE = 0.10
#: How much longer than it should a stop may have been, by the fault of whoever runs this.
STOP_LATE_S = 0.02
#: What a figure may be that has nothing of the stop in it.
QUIET_US = 50_000
TRIES = 3
RUN = ("--workload", "c", "--value-bytes", "100", "--records", "10000", "--connections", str(CONNECTIONS), "--no-floor")


def stopped_run(server: Server, *arguments: str) -> tuple[dict[str, Any], float]:
    """The report of a run during which the server stood still for a second; and the seconds that it really was."""
    with Bench("--url", server.url, *RUN, *arguments, "--json", "--no-load") as run:
        run.generators()
        time.sleep(STOP_AT_S)
        with server.standing_still():
            began = time.monotonic()
            time.sleep(STOP_S)
        stopped_s = time.monotonic() - began
        run.end(SECONDS + 60)
    assert run.code == 0, run.err
    return run.report(), stopped_s


@pytest.mark.parametrize("name", SERVERS)
def test_an_open_loop_shows_a_server_that_stood_still_and_a_closed_loop_hides_it(name: str) -> None:
    with SERVERS[name]() as server:
        bench("--url", server.url, *RUN, "--rate", "100", "--seconds", "1")
        capacity = bench("--url", server.url, *RUN, "--no-load", "--rate", "0", "--seconds", "3")["achieved"]
        assert capacity * LOAD_SHARE_MAX > RATE, f"{RATE}/s is too much for {capacity:,.0f}/s"
        report = undisturbed(server)
        closed, _ = stopped_run(server, "--rate", "0", "--seconds", str(SECONDS))
    print(f"{name}: capacity {capacity:,.0f}/s, corrected {report['corrected_us']}, {report['uncorrected_us']}")
    print(f"{name}: closed loop {closed['achieved']:,.0f}/s {closed['uncorrected_us']}")

    assert report["operations"] == RATE * SECONDS
    assert report["errors"] == {}
    assert report["corrected_us"]["p99"] == pytest.approx(800_000, rel=TOLERANCE)
    assert report["corrected_us"]["p999"] == pytest.approx(980_000, rel=TOLERANCE)
    assert report["corrected_us"]["max"] >= 0.95 * STOP_S * 1e6
    assert report["corrected_us"]["p50"] < QUIET_US
    assert report["uncorrected_us"]["p99"] < QUIET_US
    # The stop is there, but only in the requests that were under way: one a connection.
    assert report["uncorrected_us"]["max"] >= 0.9 * STOP_S * 1e6

    assert closed["loop"] == "closed"
    assert closed["uncorrected_us"]["p99"] < QUIET_US
    assert closed["uncorrected_us"]["p999"] < QUIET_US


def undisturbed(server: Server) -> dict[str, Any]:
    """A run that is not void, with a stop as long as it should be: nothing else on the machine was in the way."""
    for _ in range(TRIES):
        report, stopped_s = stopped_run(server, "--rate", str(RATE), "--seconds", str(SECONDS))
        if not report["void"] and stopped_s < STOP_S + STOP_LATE_S:
            return report
        print(f"again: stopped for {stopped_s:.3f} s, {report['void_reasons']}")
    pytest.fail(f"the machine was too busy for {TRIES} runs")
