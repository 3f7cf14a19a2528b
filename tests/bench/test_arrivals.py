"""The schedule of an open loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from kio.bench.arrivals import schedule
from kio.bench.plan import Plan

PLAN = Plan(url="kio://127.0.0.1", rate=1000, seconds=3)


def together(plan: Plan) -> list[int]:
    return sorted(due for process in range(plan.processes) for due in schedule(plan, process))


def gaps(moments: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(moments)]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_constant_arrivals_of_all_processes_are_evenly_spaced(processes: int) -> None:
    moments = together(replace(PLAN, processes=processes))
    assert len(moments) == 3000
    assert moments[0] == 0
    assert set(gaps(moments)) == {1_000_000}


def test_rates_that_do_not_divide_a_second_do_not_drift() -> None:
    moments = together(replace(PLAN, rate=7_777, seconds=60))
    assert len(moments) == 7_777 * 60
    assert moments[7_777 * 59] == pytest.approx(59e9, abs=2)
    assert max(gaps(moments)) - min(gaps(moments)) <= 1


def test_a_request_of_many_operations_is_due_as_many_times_less_often() -> None:
    plan = replace(PLAN, pipeline=5, batch=2)
    assert set(gaps(together(plan))) == {10_000_000}
    assert len(together(plan)) == 300


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_a_count_ends_the_schedule(arrivals: str) -> None:
    plan = replace(PLAN, arrivals=arrivals, count=501, pipeline=2, processes=2)
    assert len(together(plan)) == 251
    assert max(together(plan)) < 502_000_000


def test_rounding_of_products_adds_no_request() -> None:
    assert len(schedule(replace(PLAN, rate=0.1, seconds=30), 0)) == 3


def test_a_process_without_a_request_has_an_empty_schedule() -> None:
    assert list(schedule(replace(PLAN, count=2, processes=3), 2)) == []


def test_poisson_gaps_are_exponential_over_all_processes() -> None:
    """Kolmogorov-Smirnov against the exponential distribution of the whole rate, at the 0.1 % level."""
    plan = replace(PLAN, arrivals="poisson", rate=20_000, seconds=5, processes=3)
    found = sorted(gaps(together(plan)))
    mean_ns = 1e9 / plan.rate
    distance = max(abs(1 - math.exp(-gap / mean_ns) - i / len(found)) for i, gap in enumerate(found))
    assert distance < 1.95 / math.sqrt(len(found))


def test_poisson_arrivals_keep_the_rate_and_the_window() -> None:
    plan = replace(PLAN, arrivals="poisson", processes=2)
    moments = together(plan)
    assert len(moments) == 3000
    assert moments[0] >= 0
    assert moments[-1] < 3_000_000_000
    counts = [sum(1 for due in moments if second <= due / 1e9 < second + 1) for second in range(3)]
    assert all(abs(count - 1000) < 150 for count in counts)


def test_the_same_seed_gives_the_same_schedule_and_every_process_its_own() -> None:
    plan = replace(PLAN, arrivals="poisson", processes=2)
    assert schedule(plan, 0) == schedule(plan, 0)
    assert schedule(plan, 0) != schedule(plan, 1)
    assert schedule(plan, 0) != schedule(replace(plan, seed=2), 0)
