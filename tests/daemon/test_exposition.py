"""/metrics prints the catalogue: all of it and nothing else."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kio.daemon.exposition import render
from kio.daemon.topology import Snapshot
from kio.metrics import CATALOGUE, SHARD_STATES
from tests.daemon.snapshots import a_snapshot


def page(snapshot: Snapshot, now: float = 100.5) -> str:
    return render(snapshot, now).decode()


def samples(snapshot: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page(snapshot))
        for sample in family.samples
    }


def test_the_page_holds_exactly_the_catalogue_with_its_kinds_and_sentences():
    lines = page(a_snapshot()).splitlines()
    kinds = [tuple(line.split()[2:4]) for line in lines if line.startswith("# TYPE")]
    assert kinds == [(metric.name, metric.kind) for metric in CATALOGUE]
    sentences = [line.split(" ", 3)[2:] for line in lines if line.startswith("# HELP")]
    assert sentences == [[metric.name, metric.text] for metric in CATALOGUE]


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_has_a_value_and_the_labels_of_the_catalogue(metric: object):
    found = [labels for name, labels in samples(a_snapshot()) if name == metric.name]  # type: ignore[attr-defined]
    assert found, "nothing fills it"
    for labels in found:
        assert {name for name, _ in labels} == set(metric.labels)  # type: ignore[attr-defined]


def test_the_figures_are_those_of_the_snapshot():
    values = samples(a_snapshot(state="read-only", reason="disk", keys=99))

    def value(name: str, **labels: str) -> float:
        return values[name, frozenset(labels.items())]

    assert value("kio_keys", shard="0") == 11
    assert value("kio_keys", shard="2") == 99
    assert value("kio_operations_total", shard="1", operation="set") == 13
    assert value("kio_sync_last_seconds", shard="1") == 0.0025
    assert value("kio_requests_total", operation="set_many") == 8
    assert value("kio_errors_total", error="KeyEmpty") == 2
    assert value("kio_errors_total", error="99") == 1
    assert value("kio_restarts_total", child="worker 1") == 2
    assert value("kio_resident_bytes", process="supervisor") == 2 << 20
    assert value("kio_figures_age_seconds") == 0.5
    assert value("kio_ready") == 0
    assert {state: value("kio_shard_state", shard="2", state=state) for state in SHARD_STATES} == dict.fromkeys(
        SHARD_STATES, 0
    ) | {"read-only": 1}


def test_what_is_not_known_yet_is_left_out():
    shards = {0: {"worker": 0, "state": "recovering", "reason": ""}}
    child = {"pid": None, "restarts": 0, "state": "starting", "reason": "", "rss_bytes": None, "cpu_s": None}
    supervisor = {"pid": 1, "uptime_s": 0.1, "rss_bytes": 1, "cpu_s": 0.1}
    early = Snapshot(
        {"version": "1", "supervisor": supervisor, "router": child, "workers": [child | {"worker": 0}]},
        shards,
        {},
        None,
    )
    names = {name for name, _ in samples(early)}
    assert "kio_shard_state" in names
    assert not names & {"kio_keys", "kio_connections", "kio_figures_age_seconds"}
