"""Two reports side by side, and what makes that doubtful."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kio.bench import compare, report
from kio.bench.measurement import Measurement
from kio.bench.plan import Plan
from kio.bench.usage import ServerUsage
from kio.errors import ConfigError

PLAN = Plan("redis://127.0.0.1:6379", rate=100.0, seconds=10.0)
KIO = replace(PLAN, url="kio://127.0.0.1:7400")


def made(plan: Plan = PLAN, *, us: int = 100, operations: int = 1000, cpu_s: float | None = None) -> dict[str, Any]:
    run = Measurement(plan, seconds=10.0, operations=operations)
    run.corrected.record(us, operations)
    run.uncorrected.record(us, operations)
    if cpu_s is not None:
        run.server = ServerUsage(1, 1, cpu_s, 1 << 20, 1 << 20, None)
    return report.build(run)


def test_a_ratio_is_the_second_over_the_first() -> None:
    rows = {row.figure: row for row in compare.rows(made(us=100), made(KIO, us=250))}
    assert rows["corrected_us p99"] == ("corrected_us p99", 100, 250, 2.5)
    assert rows["achieved_per_s"].ratio == 1.0
    assert rows["errors"].ratio is None
    assert set(rows) >= {f"{kind} {name}" for kind in ("corrected_us", "uncorrected_us") for name in report.PERCENTILES}


def test_the_server_is_compared_only_where_both_were_watched() -> None:
    both = {row.figure: row for row in compare.rows(made(cpu_s=0.1), made(KIO, cpu_s=0.4))}
    assert both["server cpu_seconds_per_million"].ratio == pytest.approx(4)
    assert both["server disk_written_mib"].ratio is None
    assert not any(row.figure.startswith("server") for row in compare.rows(made(cpu_s=0.1), made(KIO)))


def test_a_run_without_an_answer_compares_to_nothing() -> None:
    rows = {row.figure: row for row in compare.rows(made(), report.build(Measurement(KIO, seconds=10.0)))}
    assert rows["corrected_us p99"] == ("corrected_us p99", 100, None, None)


def test_runs_of_one_plan_against_two_servers_need_no_caution() -> None:
    assert compare.cautions(made(), made(KIO)) == []


def test_a_void_run_and_a_different_plan_are_cautions() -> None:
    told = compare.cautions(made(), made(replace(KIO, connections=10), operations=500))
    assert told[0].startswith("the second run is void: achieved 50.0/s")
    assert told[1:] == ["the plans differ in connections: 50 and 10"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is not a report of kio bench"),
        ('{"version": 99, "corrected_us": {}}', "is not a report of kio bench"),
        ('{"sweep": [], "best_rate": null}', "is a sweep"),
    ],
)
def test_another_file_is_one_clear_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=f"a.json {told}"):
        compare.load(tmp_path / "a.json")


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(made()))
    assert compare.load(tmp_path / "a.json") == made()
