"""Workloads by name."""

from __future__ import annotations

import pytest

from kio.bench.plan import KINDS, Plan
from kio.bench.validation import check
from kio.bench.workload import CATALOGUE, REFUSED, parse_mix, plan
from kio.errors import ConfigError

URL = "redis://127.0.0.1"
YCSB = {
    "a": {"read": 0.5, "update": 0.5},
    "b": {"read": 0.95, "update": 0.05},
    "c": {"read": 1.0},
    "d": {"read": 0.95, "insert": 0.05},
    "f": {"read": 0.5, "rmw": 0.5},
}


@pytest.mark.parametrize("name", YCSB)
def test_ycsb_workloads_have_their_mix_and_their_keys(name: str) -> None:
    found = plan(URL, name, {})
    assert (found.url, found.workload, found.mix) == (URL, name, YCSB[name])
    assert found.keys == ("latest:0.99" if name == "d" else "zipf:0.99")
    assert found.value_bytes == "1000"
    assert plan(URL, name.upper(), {}) == found


def test_workload_e_is_refused_until_there_are_ordered_scans() -> None:
    with pytest.raises(ConfigError, match="no ordered scans yet"):
        plan(URL, "E", {})
    assert not set(REFUSED) & set(CATALOGUE)


def test_an_unknown_workload_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r'no workload "g"; say one of a, b, c, d, f, small-skewed') as caught:
        plan(URL, "g", {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_workload_can_be_carried_out(name: str) -> None:
    check(plan(URL, name, {}))
    check(plan(URL, name, {"rate": 0.0, "count": 1000}))


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "custom"])
def test_every_workload_names_its_source_and_what_was_chosen(name: str) -> None:
    workload = CATALOGUE[name]
    assert workload.summary
    assert "YCSB" in workload.source or "OSDI 2020" in workload.source
    assert workload.choices


@pytest.mark.parametrize("name", ["small-skewed", "large-expiring", "write-heavy"])
def test_a_preset_holds_the_figures_that_its_source_text_says(name: str) -> None:
    workload = CATALOGUE[name]
    fields = workload.fields
    said = workload.source.replace(",", "")
    assert f"keys of {fields['key_bytes']} bytes" in said
    assert f"values of {fields['value_bytes']}" in said
    assert fields["keys"].replace(":", " ") in said
    assert f"get {fields['mix']['read']:.2f}" in said


def test_what_is_chosen_wins_and_is_told_in_the_name() -> None:
    found = plan(URL, "a", {"keys": "uniform", "value_bytes": "64", "rate": 5.0})
    assert (found.keys, found.value_bytes, found.rate) == ("uniform", "64", 5.0)
    assert found.mix == YCSB["a"]
    assert found.workload == "a, other keys and value_bytes"


def test_choosing_what_the_workload_says_anyway_or_leaves_open_changes_no_name() -> None:
    assert plan(URL, "a", {"keys": "zipf:0.99", "records": 10, "mix": "update=0.5,read=0.5"}).workload == "a"


def test_custom_is_what_was_chosen() -> None:
    found = plan(URL, "custom", {"mix": "read=0.25,delete=0.75"})
    assert found == Plan(url=URL, workload="custom", mix={"read": 0.25, "delete": 0.75})


def test_a_mix_is_read_kind_by_kind() -> None:
    assert parse_mix("read=0.5, update=.25,rmw=0.25") == {"read": 0.5, "update": 0.25, "rmw": 0.25}
    every = ",".join(f"{kind}={1 / len(KINDS)}" for kind in KINDS)
    assert list(parse_mix(every)) == list(KINDS)


@pytest.mark.parametrize("text", ["", "write=1", "read", "read=", "read=x", "read=0.5,read=0.5", "read=1,", "read:1"])
def test_what_is_no_mix_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="mix") as caught:
        parse_mix(text)
    assert "\n" not in str(caught.value)
