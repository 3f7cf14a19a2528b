"""The rates of a sweep, when it ends, and which of its rates is the best."""

from __future__ import annotations

import doctest
from itertools import pairwise
from typing import Any

import pytest

from kio.bench import sweep
from kio.bench.plan import Plan
from kio.errors import ConfigError

PLAN = Plan("redis://127.0.0.1:1")


def report(
    rate: float, p99: int | None = 100, *, void: bool = False, interrupted: bool = False, achieved_share: float = 1.0
) -> dict[str, Any]:
    return {
        "offered": rate,
        "achieved": rate * achieved_share,
        "void": void,
        "interrupted": interrupted,
        "operations": 0 if p99 is None else 1000,
        "errors": {},
        "corrected_us": {"p50": p99, "p90": p99, "p99": p99, "p999": p99, "max": p99},
    }


def test_the_examples_in_docstrings_are_right() -> None:
    assert doctest.testmod(sweep) == (0, 1)


def test_rates_rise_by_a_constant_factor_from_the_lowest_to_the_highest() -> None:
    rates = sweep.parse_rates("500:64000:8")
    assert rates[0] == 500
    assert rates[-1] == 64_000
    assert all(later / earlier == pytest.approx(2, rel=0.01) for earlier, later in pairwise(rates))
    assert len(sweep.parse_rates("1:2")) == sweep.POINTS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a sweep is LOW:HIGH or LOW:HIGH:POINTS"),
        ("1000", "a sweep is LOW:HIGH"),
        ("1.2.3:4", "a sweep is LOW:HIGH"),
        ("a:b", "a sweep is LOW:HIGH"),
        ("0:100", "the rates of a sweep rise from above 0"),
        ("200:100", "the rates of a sweep rise"),
        ("1:2:1", "a sweep has 2 to 100 points, not 1"),
        ("1:2:101", "not 101"),
    ],
)
def test_a_sweep_that_means_nothing_is_one_clear_error(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sweep.parse_rates(text)


def test_each_point_is_the_plan_at_another_rate() -> None:
    asked: list[Plan] = []

    def measured(plan: Plan) -> dict[str, Any]:
        asked.append(plan)
        return report(plan.rate)

    found = list(sweep.reports(PLAN, [1.0, 2.0, 3.0], measured))
    assert [plan.rate for plan in asked] == [1.0, 2.0, 3.0]
    assert {plan.url for plan in asked} == {PLAN.url}
    assert len(found) == 3


def test_two_overloaded_points_in_a_row_end_it_but_one_alone_does_not() -> None:
    overloaded = {2.0: 0.9, 4.0: 0.98, 5.0: 0.5}
    found = list(
        sweep.reports(
            PLAN,
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            lambda plan: report(plan.rate, achieved_share=overloaded.get(plan.rate, 1.0)),
        )
    )
    assert [point["offered"] for point in found] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_point_that_is_void_for_the_generators_sake_does_not_end_it() -> None:
    found = list(sweep.reports(PLAN, [1.0, 2.0, 3.0, 4.0], lambda plan: report(plan.rate, void=True)))
    assert len(found) == 4


@pytest.mark.parametrize("last", [{"interrupted": True}, {"p99": None}])
def test_an_interrupt_or_a_server_that_answers_nothing_ends_it(last: dict[str, Any]) -> None:
    found = list(sweep.reports(PLAN, [1.0, 2.0], lambda plan: report(plan.rate, **last)))
    assert len(found) == 1


def test_the_best_rate_is_the_highest_that_was_reached_under_the_target() -> None:
    points = [
        report(1000, 100),
        report(2000, 900),
        report(4000, 1000),
        report(8000, 200, void=True),
        report(9000, 200, interrupted=True),
    ]
    assert sweep.best_rate(points, 1000) == 2000
    assert sweep.best_rate(points, 1001) == 4000
    assert sweep.best_rate(points, 50) is None
    assert sweep.best_rate([], 50) is None


def test_a_row_has_a_cell_for_each_column_also_where_nothing_was_answered() -> None:
    assert sweep.row(report(2000, 1500)) == (*("2,000", "2,000", "1,500", "1,500", "1,500", "1,500", "1,500", "0", ""),)
    empty = sweep.row(report(2000, None, void=True))
    assert len(empty) == len(sweep.COLUMNS)
    assert empty[2:7] == ("",) * 5
    assert empty[-1] == "VOID"
