"""Plans that cannot be carried out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from kio.bench.plan import Plan
from kio.bench.validation import OPERATIONS_PER_PROCESS_MAX, RANGES, check
from kio.errors import ConfigError

PLAN = Plan(url="kio://127.0.0.1")
INSERTS = {"insert": 1.0}


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(replace(PLAN, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_plan_is_right() -> None:
    check(PLAN)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.0},
        {"rate": 0.0, "count": 10},
        {"records": 0, "mix": INSERTS, "keys": "uniform", "rate": 0.0, "count": 100},
        {"mix": {"read": 0.1, "update": 0.9}, "batch": 100, "pipeline": 10},
        {"mix": {"read": 1 / 3, "rmw": 1 / 3, "incr": 1 / 3}},
        {"mix": {"read": 1.0, "insert": 0.0}, "batch": 2},
        {"arrivals": "poisson", "processes": 50},
        {"rate": 2.0, "seconds": 1.0, "pipeline": 2},
        {"rate": 1.0, "count": 1, "pipeline": 2},
    ],
)
def test_unusual_plans_are_right_too(changes: dict[str, Any]) -> None:
    check(replace(PLAN, **changes))


@pytest.mark.parametrize("field", RANGES)
def test_a_number_out_of_its_range_is_named_as_its_option(field: str) -> None:
    least, most = RANGES[field]
    flag = "--" + {"ttl_s": "ttl", "drain_s": "drain"}.get(field, field)
    for wrong in (least - 1, most + 1):
        assert refusal(**{field: type(getattr(PLAN, field))(wrong)}).startswith(f"{flag} is ")
    if isinstance(getattr(PLAN, field), float):
        assert refusal(**{field: float("nan")}).startswith(f"{flag} is nan")


def test_every_number_of_a_plan_has_a_range() -> None:
    numbers = {field.name for field in fields(Plan) if isinstance(getattr(PLAN, field.name), int | float)}
    assert numbers - set(RANGES) == {"seed"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mix": {"write": 1.0}}, 'mix names "write"'),
        ({"mix": {}}, "add up to 0, not to 1"),
        ({"mix": {"read": 0.5, "update": 0.4}}, "add up to 0.9, not to 1"),
        ({"mix": {"read": 1.5, "update": -0.5}}, "share of read in the mix is 1.5"),
        ({"mix": {"read": float("nan")}}, "share of read in the mix is nan"),
        ({"keys": "zipf"}, "no chooser of keys"),
        ({"key_bytes": "ten"}, '"ten" is no size'),
        ({"value_bytes": "0"}, '"0" is no size'),
        ({"value_bytes": "1000000000"}, "too large"),
        ({"key_bytes": "8"}, "say at least --key-bytes"),
        ({"prefix": "a\nb"}, "prefix"),
        ({"records": 0}, "without --records"),
        ({"mix": {"read": 0.5, "insert": 0.5}, "batch": 2}, "--batch is for reads and updates, the mix has insert"),
        ({"mix": {"rmw": 1.0}, "batch": 2}, "the mix has rmw"),
        ({"value_bytes": "1000000", "pipeline": 1000}, "lower --pipeline or --batch"),
        ({"arrivals": "bursts"}, '--arrivals is "bursts"'),
        ({"processes": 3, "connections": 2}, "--processes 3 need a connection each"),
        ({"rate": 1.0, "seconds": 1.0, "pipeline": 2}, "not one request of 2 operations"),
        ({"rate": 1e6, "seconds": 3600.0}, "too many to prepare"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_more_processes_prepare_more_operations() -> None:
    check(replace(PLAN, rate=1e6, seconds=2 * OPERATIONS_PER_PROCESS_MAX / 1e6, processes=2))
