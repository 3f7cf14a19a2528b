"""`kio bench` against real servers: what it asks is answered, what it counts is true, and it leaves what it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.bench import SERVERS, Bench, Server, bench, redis_server

#: Small and quick: what is measured is not looked at here.
OPERATIONS = 200
QUICK = ("--records", "500", "--rate", "1000", "--seconds", "0.2", "--connections", "4", "--no-floor")


#: kio in every run of the tests, the others in the long ones.
TARGETS = [name if name == "kio" else pytest.param(name, marks=pytest.mark.stress) for name in SERVERS]


@pytest.fixture(scope="module", params=TARGETS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with SERVERS[request.param]() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with redis_server() as running:
        yield running


def assert_whole(report: dict[str, Any]) -> None:
    """Every operation of the schedule was answered, and every latency recorded."""
    assert report["errors"] == {}
    assert report["operations"] == OPERATIONS
    assert report["interrupted"] is False
    assert sum(count for _, count in report["histograms"]["corrected"]) * report["plan"]["batch"] == OPERATIONS


@pytest.mark.parametrize("workload", ["a", "b", "c", "d", "f"])
def test_every_workload_is_answered_without_an_error(server: Server, workload: str) -> None:
    report = bench("--url", server.url, "--workload", workload, *QUICK)
    assert_whole(report)
    assert report["missing"] == 0
    assert report["workload"] == workload
    assert report["offered"] == 1000


@pytest.mark.parametrize("workload", ["small-skewed", "large-expiring", "write-heavy"])
def test_every_preset_is_answered_without_an_error_by_a_server_that_has_all_operations(
    redis: Server, workload: str
) -> None:
    assert_whole(bench("--url", redis.url, "--workload", workload, *QUICK))


def test_the_workloads_are_listed_with_their_sources_and_what_is_refused_with_the_reason() -> None:
    with Bench("workloads", "--json") as run:
        listed = {workload["name"]: workload for workload in run.end().report()["workloads"]}
    assert set(listed) >= {"a", "b", "c", "d", "e", "f", "small-skewed", "large-expiring", "write-heavy"}
    assert "SoCC 2010" in listed["a"]["source"]
    assert "ordered scans" in listed["e"]["refused"]


def test_a_workload_that_nobody_can_do_is_refused_in_one_line_with_the_reason(server: Server) -> None:
    with Bench("--url", server.url, "--workload", "e", *QUICK) as run:
        run.end()
    assert (run.code, run.out) == (78, b"")
    assert run.err.count("\n") == 1
    assert "ordered scans" in run.err


@pytest.mark.stress
def test_pipelines_and_batches_count_single_operations(server: Server) -> None:
    assert_whole(bench("--url", server.url, "--workload", "a", *QUICK, "--pipeline", "5"))
    assert_whole(bench("--url", server.url, "--mix", "read=0.5,update=0.5", *QUICK, "--batch", "10"))
    report = bench("--url", server.url, "--workload", "c", *QUICK, "--depth", "8", "--processes", "2")
    assert_whole(report)
    assert report["generator"]["processes"] == 2


def test_a_closed_loop_ends_after_its_count(server: Server) -> None:
    report = bench("--url", server.url, *QUICK, "--rate", "0", "--count", "3000")
    assert (report["loop"], report["offered"], report["operations"]) == ("closed", 0, 3000)
    assert report["corrected_us"] == report["uncorrected_us"]


def test_keys_that_are_not_there_are_counted_and_are_no_errors(server: Server) -> None:
    nobody = ("--no-load", "--prefix", "nobody:", "--key-bytes", "24")
    report = bench("--url", server.url, "--workload", "c", *QUICK, *nobody)
    assert_whole(report)
    assert report["missing"] == OPERATIONS


@pytest.mark.parametrize("workload", ["a", "d"])
def test_clean_leaves_no_key_behind(server: Server, workload: str) -> None:
    prefix = ("--prefix", f"clean{workload}:", "--processes", "2")
    before = server.keys()
    bench("--url", server.url, "--workload", workload, *QUICK, *prefix)
    assert server.keys() >= before + 500
    bench("--url", server.url, "--workload", workload, *QUICK, *prefix, "--clean")
    assert server.keys() == before


def test_counters_are_cleaned_too(server: Server) -> None:
    before = server.keys()
    told = bench("--url", server.url, "--mix", "incr=1", *QUICK, "--prefix", "count:", "--clean")
    assert told["errors"] == {}
    assert server.keys() == before


def test_the_preset_whose_writes_expire_runs_on_both(server: Server) -> None:
    assert bench("--url", server.url, "--workload", "large-expiring", *QUICK, "--prefix", "brief:")["errors"] == {}


def test_what_the_server_costs_is_told_when_its_pid_is(server: Server) -> None:
    told = bench("--url", server.url, *QUICK, "--rate", "0", "--pid", str(server.pid))["server"]
    assert told["cpu_seconds"] > 0
    assert told["cpu_seconds_per_million"] > 0
    assert told["rss_mib_max"] >= told["rss_mib"] > 1
    assert told["processes"] == len(server.pids())


def test_a_unix_socket_is_measured_as_well(redis: Server) -> None:
    path = redis.redis("CONFIG GET unixsocket")
    assert path == b"*2"
    (home,) = {Path(f"/proc/{redis.pid}/cwd").readlink()}
    report = bench("--url", f"redis+unix://{home}/sock", *QUICK)
    assert_whole(report)


def test_the_floor_is_measured_against_a_server_that_does_nothing(server: Server) -> None:
    report = bench("--url", server.url, *[word for word in QUICK if word != "--no-floor"])
    assert 0 < report["floor_us"]["p50"] <= report["floor_us"]["p99"]


@pytest.mark.stress
def test_a_sweep_has_a_report_for_each_rate_and_names_the_best(server: Server, tmp_path: Path) -> None:
    plot = tmp_path / "sweep.svg"
    sweep = ("--sweep", "200:800:3", "--p99-under-us", "5000000", "--plot", plot)
    answer = bench("--url", server.url, *QUICK, *sweep)
    assert [report["offered"] for report in answer["sweep"]] == [200, 400, 800]
    good = [report["offered"] for report in answer["sweep"] if not report["void"]]
    assert answer["best_rate"] == max(good, default=None)
    assert plot.read_text().startswith("<?xml")


def test_the_table_has_both_latencies_and_stderr_says_that_records_are_written(server: Server) -> None:
    with Bench("--url", server.url, *QUICK) as run:
        run.end()
    assert run.code == 0
    text = run.out.decode()
    for shown in (r"^workload b: open loop, 1,000/s", r"^corrected +\d", r"^uncorrected +\d", r"^offered_per_s +1,000"):
        assert re.search(shown, text, re.MULTILINE), f"{shown} is not in\n{text}"
    assert run.err == f"kio: writing 500 records to {server.url}\n"


@pytest.mark.stress
def test_two_reports_are_compared(server: Server, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(bench("--url", server.url, *QUICK)))
    with Bench("compare", tmp_path / "a.json", tmp_path / "b.json") as run:
        run.end()
    assert run.code == 0
    assert re.search(r"^offered_per_s +1,000 +1,000 +1\.00 *$", run.out.decode(), re.MULTILINE)


@pytest.mark.parametrize("scheme", ["kio", "redis"])
def test_the_wrong_protocol_is_one_line_that_names_the_right_one(server: Server, scheme: str) -> None:
    own, _, where = server.url.partition("://")
    if own == scheme:
        pytest.skip("this is its own protocol")
    with Bench("--url", f"{scheme}://{where}", *QUICK) as run:
        run.end()
    assert (run.code, run.out) == (78, b"")
    assert run.err.count("\n") == 1
    assert f"did you mean {own}://" in run.err


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("redis://127.0.0.1:1", 69, "127.0.0.1:1: connection refused"),
        ("kio://127.0.0.1:1", 69, "127.0.0.1:1: connection refused"),
        ("redis+unix:///nowhere/sock", 69, "no such file or directory"),
        ("http://127.0.0.1", 78, "it begins with kio://"),
        ("redis://", 78, "it names no host"),
    ],
)
def test_a_wrong_url_is_one_clear_line(url: str, code: int, told: str) -> None:
    with Bench("--url", url, *QUICK) as run:
        run.end()
    assert (run.code, run.out) == (code, b"")
    assert run.err.count("\n") == 1
    assert told in run.err


def test_a_pid_that_is_not_there_is_one_clear_line(server: Server) -> None:
    with Bench("--url", server.url, *QUICK, "--pid", str(2**22 + 1)) as run:
        run.end()
    assert (run.code, run.out) == (78, b"")
    assert run.err.startswith("kio: there is no process")
    assert run.err.count("\n") == 1
