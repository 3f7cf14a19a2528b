"""The coordinator: processes that begin together, figures that add up, errors that cross over as what they are."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from kio.bench import run
from kio.bench.floor import measure_floor, noop_server
from kio.bench.load import load, load_plan
from kio.bench.plan import Plan
from kio.cli.bench_progress import line
from kio.errors import ConfigError, ConnectionLost, Unavailable


@pytest.fixture(scope="module")
def noop() -> Iterator[str]:
    with noop_server("resp", 100) as url:
        yield url


def plan(url: str, **fields: object) -> Plan:
    quick = Plan(url, keys="uniform", records=100, rate=1000.0, seconds=0.3, connections=4)
    return replace(quick, **fields)  # type: ignore[arg-type]


def children() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children() if "bench.generator" in str(child)]


def test_every_operation_of_the_schedule_is_counted_once(noop: str) -> None:
    found = run.measure(plan(noop))
    assert (found.operations, found.errors, found.interrupted, found.dead) == (300, {}, False, [])
    assert found.corrected.count == found.uncorrected.count == found.lateness.count == 300
    assert found.seconds >= 0.29


def test_the_figures_of_several_processes_are_added_up(noop: str) -> None:
    found = run.measure(plan(noop, processes=3, count=301))
    assert found.operations == 301
    assert found.corrected.count == 301


def test_a_server_can_be_watched_while_it_is_measured(noop: str) -> None:
    found = run.measure(plan(noop, rate=0.0), pid=os.getpid())
    assert found.server is not None
    assert found.server.pid == os.getpid()
    assert found.server.processes > 1
    assert found.server.cpu_s > 0


def test_the_watcher_is_told_how_far_the_run_is(noop: str) -> None:
    told: list[run.Progress] = []
    found = run.measure(plan(noop, seconds=1.5), watch=told.append)
    assert found.operations == 1500
    assert len(told) >= 2
    last = told[-1]
    assert last.elapsed_s > 0
    assert last.remaining_s is not None
    assert 0 < last.operations <= 1500
    assert last.errors == 0
    assert [one.operations for one in told] == sorted(one.operations for one in told)


def test_the_first_interrupt_ends_the_run_with_what_there_is(noop: str) -> None:
    """The signal comes from the watcher, which is called only while the run is under way."""
    found = run.measure(plan(noop, seconds=60.0), watch=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert found.interrupted
    assert 0 < found.operations < 60_000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupt_is_not_waited_with(noop: str) -> None:
    def interrupt_twice(_: run.Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run.measure(plan(noop, seconds=60.0), watch=interrupt_twice)
    assert children() == []


def test_a_run_outside_the_main_thread_leaves_signals_alone(noop: str) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(run.measure(plan(noop))))
    thread.start()
    thread.join(30)
    assert found[0].operations == 300


def test_what_a_generator_refuses_is_raised_as_the_same_error(noop: str) -> None:
    with pytest.raises(ConnectionLost, match="127.0.0.1:1: connection refused"):
        run.measure(plan("redis://127.0.0.1:1", processes=2))
    with pytest.raises(ConfigError, match="did you mean redis://"):
        run.measure(plan(noop.replace("redis://", "kio://")))
    assert children() == []


def test_a_process_that_is_not_there_is_refused_before_the_start(noop: str) -> None:
    with pytest.raises(ConfigError, match="there is no process"):
        run.measure(plan(noop), pid=2**22 + 1)
    assert children() == []


@pytest.mark.parametrize("protocol", ["resp", "native"])
def test_the_floor_is_the_same_plan_against_a_server_that_does_nothing(protocol: str) -> None:
    url = "redis://192.0.2.1" if protocol == "resp" else "kio://192.0.2.1"
    found = measure_floor(plan(url, seconds=60.0), seconds=0.3)
    assert found is not None
    assert found.count == 300


@pytest.mark.parametrize(("value_bytes", "pipeline"), [("10", 100), ("10000", 26), ("1000000", 1)])
def test_the_load_phase_writes_every_record_in_requests_of_a_sane_size(value_bytes: str, pipeline: int) -> None:
    loading = load_plan(plan("redis://127.0.0.1", value_bytes=value_bytes, records=1001, processes=2, connections=2))
    assert loading.pipeline == pipeline
    assert loading.count % pipeline == 0
    assert 1001 <= loading.count < 1001 + pipeline
    assert (loading.mix, loading.records, loading.rate, loading.processes) == ({"insert": 1.0}, 0, 0.0, 1)


def test_records_that_were_not_taken_end_the_load_phase_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(loading: Plan, **_: object) -> run.Measurement:
        return run.Measurement(loading, operations=60, errors={"OOM": 40})

    monkeypatch.setattr(run, "measure", refused)
    with pytest.raises(Unavailable, match="only 60 of 100 records were written: OOM 40"):
        load(plan("redis://127.0.0.1"))


def test_the_load_phase_writes_to_a_server(noop: str) -> None:
    load(plan(noop))


def test_the_progress_line_has_the_rate_p99_and_what_remains() -> None:
    progress = run.Progress(elapsed_s=3.2, remaining_s=6.8, operations=3200, rate=999.6, p99_us=1234, errors=0)
    assert line("b", progress) == "b: 1,000/s, p99 1,234 us, 3,200 operations in 3 s, 7 s to go"
    assert line("b", replace(progress, remaining_s=None, errors=2)).endswith("in 3 s, 2 errors")
