"""The report: what it holds, when a run is void and what a person is told about it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from kio.bench import report
from kio.bench.histogram import Histogram
from kio.bench.measurement import Measurement, shortened, window_s
from kio.bench.plan import Plan
from kio.bench.usage import ServerUsage

OPEN = Plan("kio://127.0.0.1:7400", workload="c", rate=1000.0, seconds=10.0)
CLOSED = replace(OPEN, rate=0.0)


def histogram(*latencies: tuple[int, int]) -> Histogram:
    made = Histogram()
    for us, count in latencies:
        made.record(us, count)
    return made


def good(plan: Plan = OPEN) -> Measurement:
    """A run of which nothing bad can be said."""
    return Measurement(
        plan,
        seconds=10.0,
        operations=10_000,
        corrected=histogram((100, 9_900), (5_000, 100)),
        uncorrected=histogram((90, 10_000)),
        lateness=histogram((5, 10_000)) if plan.is_open_loop else Histogram(),
        cpu_share=0.3,
    )


def test_the_json_has_every_promised_field() -> None:
    made = report.build(good())
    assert json.loads(json.dumps(made)) == made
    assert made["version"] == 1
    assert (made["url"], made["workload"], made["loop"]) == (OPEN.url, "c", "open")
    assert (made["offered"], made["achieved"], made["operations"]) == (1000.0, 1000.0, 10_000)
    assert (made["void"], made["void_reasons"], made["interrupted"]) == (False, [], False)
    for kind in ("corrected_us", "uncorrected_us"):
        assert set(made[kind]) == {"p50", "p90", "p99", "p999", "max", "mean"}
    assert made["corrected_us"]["p50"] == 100
    assert made["corrected_us"]["p999"] == made["corrected_us"]["max"] == 5000
    assert made["uncorrected_us"]["max"] == 90
    assert made["errors"] == {}
    assert made["floor_us"] is None
    assert made["server"] is None
    assert Plan.from_dict(made["plan"]) == OPEN
    assert sum(count for _, count in made["histograms"]["corrected"]) == 10_000
    assert report.is_report(made)


def test_no_report_holds_the_password_of_its_url() -> None:
    made = report.build(good(replace(OPEN, url="redis://ada:hunter2@127.0.0.1:6379")))
    assert made["url"] == "redis://ada:***@127.0.0.1:6379"
    assert "hunter2" not in json.dumps(made) + report.title(made)


def test_a_good_run_is_not_void() -> None:
    assert report.void_reasons(good()) == []
    assert report.void_reasons(good(CLOSED)) == []


@pytest.mark.parametrize(("operations", "is_void"), [(9_901, False), (9_900, False), (9_899, True)])
def test_less_than_99_percent_of_the_offered_rate_is_void(operations: int, is_void: bool) -> None:
    run = good()
    run.operations = operations
    assert bool(report.void_reasons(run)) == is_void


def test_a_run_that_needed_longer_than_its_schedule_is_counted_to_its_end() -> None:
    run = good()
    run.seconds = 12.0
    assert run.achieved == pytest.approx(833.3, abs=0.1)
    (reason,) = report.void_reasons(run)
    assert reason.startswith("achieved 833/s is below 99 % of the offered 1,000/s")


def test_a_run_that_ended_early_earns_nothing_by_it() -> None:
    run = good()
    run.seconds, run.operations = 5.0, 5_000
    assert run.achieved == 500
    assert report.void_reasons(run)


def test_an_interrupted_run_is_measured_over_the_time_that_it_had() -> None:
    run = good()
    run.seconds, run.operations, run.interrupted = 3.0, 3_000, True
    assert run.achieved == 1000
    assert report.void_reasons(run) == []
    assert dict(report.run_rows(report.build(run)))["seconds"] == "3.0 (interrupted)"


def test_a_closed_loop_offers_nothing_and_so_cannot_miss_it() -> None:
    run = good(CLOSED)
    run.operations = 5
    assert report.void_reasons(run) == []


@pytest.mark.parametrize(("stall_s", "is_void"), [(0.099, False), (0.1, True), (1.002, True)])
def test_a_generator_that_stood_still_voids_its_run(stall_s: float, is_void: bool) -> None:
    for plan in (OPEN, CLOSED):
        run = good(plan)
        run.stall_s, run.stall_at_s = stall_s, 8.12
        reasons = report.void_reasons(run)
        assert bool(reasons) == is_void
        if is_void:
            assert reasons[0].startswith(f"the generator itself stood still for {stall_s:.3f} s at second 8.1: ")


@pytest.mark.parametrize(
    ("late_us", "p99_us", "is_void"),
    [(900, 100, False), (1100, 100, True), (1100, 20_000, False), (2100, 20_000, True)],
)
def test_a_late_generator_voids_its_run_when_that_matters(late_us: int, p99_us: int, is_void: bool) -> None:
    run = good()
    run.lateness = histogram((5, 9_000), (late_us, 1_000))
    run.corrected = histogram((90, 9_000), (p99_us, 1_000))
    reasons = report.void_reasons(run)
    assert bool(reasons) == is_void
    if is_void:
        assert re.search(r"sent its requests late \(p99 [0-9,]+ us .*raise --processes", reasons[0])


def test_a_run_without_an_answer_is_void_and_has_no_latencies() -> None:
    run = Measurement(OPEN, seconds=10.0, errors={"ConnectionLost": 10_000})
    made = report.build(run)
    assert made["void_reasons"] == ["no operation was answered: there is nothing to measure"]
    assert set(made["corrected_us"].values()) == {None}
    assert report.latency_rows(made)[0] == ("corrected", "", "", "", "", "")
    assert dict(report.run_rows(made))["errors"] == "ConnectionLost 10,000"


def test_a_generator_process_that_died_voids_the_run() -> None:
    run = good()
    run.dead.append("generator process 1 was ended by SIGKILL")
    assert report.void_reasons(run)[0].startswith("generator process 1 was ended by SIGKILL: ")


def test_every_reason_of_a_run_is_told_and_shown_as_void() -> None:
    run = good()
    run.operations, run.stall_s = 5_000, 1.0
    made = report.build(run)
    assert len(made["void_reasons"]) == 2
    assert all(line.startswith("VOID: ") for line in report.verdict(made))
    assert len(report.verdict(made)) == 2
    assert report.verdict(report.build(good())) == []


def test_corrected_and_uncorrected_stand_side_by_side_above_the_generators_own_share() -> None:
    run = good()
    run.floor = histogram((60, 1000))
    rows = report.latency_rows(report.build(run))
    assert [row[0] for row in rows] == [
        "corrected",
        "uncorrected",
        "floor (a server that does nothing)",
        "generator's lateness",
    ]
    assert rows[0][1:] == ("100", "100", "100", "5,000", "5,000")
    assert rows[2][1:] == ("60",) * 5
    assert {len(row) for row in rows} == {len(report.LATENCY_COLUMNS)}


def test_a_closed_loop_says_that_it_hides_stalls_and_shows_one_latency() -> None:
    made = report.build(good(CLOSED))
    assert made["loop"] == "closed"
    assert made["generator"]["lateness_us"] is None
    assert [row[0] for row in report.latency_rows(made)] == ["uncorrected"]
    assert report.warnings(made) == [report.CLOSED_LOOP]
    assert "closed loop" in report.title(made)


def test_a_busy_generator_and_missing_keys_are_told() -> None:
    run = good()
    run.cpu_share, run.missing = 0.95, 500
    busy, missing = report.warnings(report.build(run))
    assert busy.startswith("the generator used 95% of a core")
    assert missing.startswith("500 reads (5.0% of the operations) found no key")


def test_the_server_costs_are_shown_per_million_operations() -> None:
    run = good()
    run.server = ServerUsage(42, 3, cpu_s=0.5, rss_bytes=10 << 20, rss_bytes_max=20 << 20, written_bytes=3 << 20)
    made = report.build(run)
    assert made["server"] == {
        "pid": 42,
        "processes": 3,
        "cpu_seconds": 0.5,
        "cpu_seconds_per_million": 50.0,
        "rss_mib": 10.0,
        "rss_mib_max": 20.0,
        "disk_written_mib": 3.0,
    }
    rows = dict(report.run_rows(made))
    assert rows["server_cpu_s_per_million"] == "50.00"
    assert rows["server_rss_mib"] == "10.0 (max 20.0)"
    run.server = replace(run.server, written_bytes=None)
    assert "server_disk_written_mib" not in dict(report.run_rows(report.build(run)))


def test_the_title_says_what_was_run() -> None:
    made = report.build(good(replace(OPEN, pipeline=16, batch=4, depth=2, arrivals="poisson")))
    told = "workload c: open loop, 1,000/s poisson arrivals, 50 connections, depth 2, pipeline 16, batch 4, kio://"
    assert report.title(made).startswith(told)
    assert "1,000/s" not in report.title(made, with_rate=False)


def test_the_window_of_a_plan_is_its_seconds_or_its_count_at_its_rate() -> None:
    assert window_s(OPEN) == 10
    assert window_s(replace(OPEN, count=500)) == 0.5
    assert window_s(CLOSED) == 10
    assert window_s(replace(CLOSED, count=500)) == 0
    assert shortened(OPEN, 2.0).seconds == 2
    assert shortened(replace(OPEN, count=500), 2.0) == replace(OPEN, seconds=0.5)
    assert shortened(replace(CLOSED, count=500), 2.0).seconds == 2
