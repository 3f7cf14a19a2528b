"""Plots are small files of the right kind that say what they show; what cannot be plotted is refused before the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from kio.bench import plots
from kio.bench.plan import Plan
from kio.errors import ConfigError

CORRECTED = [[100, 900], [200, 90], [1000, 9], [900_000, 1]]
UNCORRECTED = [[100, 990], [300, 10]]


def report(rate: float = 2000.0, *, void: bool = False) -> dict[str, Any]:
    return {
        "plan": Plan("redis://127.0.0.1:6379", workload="c", rate=rate).as_dict(),
        "loop": "open" if rate else "closed",
        "offered": rate,
        "void": void,
        "operations": 1000,
        "achieved": rate or 54_321.0,
        "corrected_us": {"p50": 100, "p99": 1000},
        "histograms": {"corrected": CORRECTED, "uncorrected": UNCORRECTED},
    }


def test_an_svg_of_a_run_shows_both_latencies_and_says_what_was_run(tmp_path: Path) -> None:
    plots.plot_report(report(), tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    for shown in ("corrected: since the request was due", "uncorrected: since it was sent", "workload c", "99.9"):
        assert shown in text, shown
    assert "VOID" not in text
    assert len(text) < 64 << 10


def test_a_void_run_says_so_in_its_plot(tmp_path: Path) -> None:
    plots.plot_report(report(void=True), tmp_path / "run.svg")
    assert "VOID: workload c" in (tmp_path / "run.svg").read_text()


def test_a_closed_loop_has_one_curve_and_is_named_as_such(tmp_path: Path) -> None:
    plots.plot_report(report(rate=0.0), tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    assert "closed loop (hides stalls)" in text
    assert "since the request was due" not in text


def test_the_same_report_gives_the_same_svg(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plots.plot_report(report(), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_is_a_png(tmp_path: Path) -> None:
    plots.plot_report(report(), tmp_path / "run.PNG")
    assert (tmp_path / "run.PNG").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_run_without_an_answer_has_an_empty_plot_and_no_error(tmp_path: Path) -> None:
    empty = report() | {"histograms": {"corrected": [], "uncorrected": []}}
    plots.plot_report(empty, tmp_path / "run.svg")
    assert (tmp_path / "run.svg").exists()


def test_a_sweep_shows_a_curve_for_each_server_and_the_target(tmp_path: Path) -> None:
    points = [report(1000.0), report(2000.0, void=True)]
    points.append(report(4000.0) | {"operations": 0, "corrected_us": {"p50": None, "p99": None}})
    plots.plot_sweep({"kio": points, "redis": points}, "a sweep", tmp_path / "sweep.svg", 1000)
    text = (tmp_path / "sweep.svg").read_text()
    for shown in ("kio p50", "kio p99", "redis p99", "target 1,000 us", "a sweep"):
        assert shown in text, shown


def test_a_curve_holds_each_latency_for_every_share_that_was_as_quick() -> None:
    xs, ys = plots._curve(CORRECTED)
    assert ys == [100, 200, 1000, 900_000]
    assert xs == pytest.approx([10, 100, 1000, 1000])


def test_a_long_tail_is_thinned_but_its_end_stays() -> None:
    xs, ys = plots._curve([[us, 1] for us in range(1, 100_001)])
    assert len(xs) < 400
    assert ys[-1] == 100_000
    assert xs == sorted(xs)


@pytest.mark.parametrize(("name", "told"), [("run.pdf", "written as .svg or .png"), ("no/run.svg", "no directory")])
def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plots.check(tmp_path / name)


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r'pip install "kio\[plot\]"'):
        plots.check(tmp_path / "run.svg")
