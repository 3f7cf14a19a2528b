"""The README's figures: written between two marks, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kio.bench import report
from kio.bench.measurement import Measurement
from kio.bench.plan import Plan
from tests.measure import readme

FIGURES = {figure: 1234.5 for _, figure, _ in readme.ROWS}


def measured(rate: float, us: int) -> dict[str, Any]:
    run = Measurement(Plan("kio://127.0.0.1:7400", rate=rate, seconds=1.0), seconds=1.0, operations=round(rate))
    run.corrected.record(us, round(rate))
    return report.build(run)


def result(*names: str) -> dict[str, Any]:
    return {
        "machine": "m68k, 1 cores, Python 3.11.2",
        "rounds": 3,
        "records": 500_000,
        "batch": 100,
        "open_rate": 4000.0,
        "took_s": 300,
        "figures": {name: dict(FIGURES) for name in names},
        "open": {name: measured(4000.0, 100) for name in names},
        "sweep": {name: [measured(1000.0, 100), measured(2000.0, 5000)] for name in names},
    }


BOTH = result("kio", "redis")


def test_only_what_stands_between_the_marks_changes() -> None:
    text = readme.README.read_text(encoding="utf-8")
    changed = readme.written(text, BOTH)
    assert changed != text
    assert changed.partition(readme.BEGIN)[0] == text.partition(readme.BEGIN)[0]
    assert changed.partition(readme.END)[2] == text.partition(readme.END)[2] != ""
    assert readme.written(changed, BOTH) == changed


def test_the_table_has_a_column_for_each_server_and_a_row_for_each_figure() -> None:
    table = readme.table(BOTH).splitlines()
    assert table[0] == "|  | kio | redis | ratio |"
    assert table[2] == "| load, records/s | 1,234 | 1,234 | 1.00 |"
    assert any(line.startswith("| 95 % reads at 4,000/s, open loop: p50, µs | 1,234 |") for line in table)
    assert len(table) == 2 + len(readme.ROWS)


def test_without_redis_kio_stands_alone_and_that_is_said() -> None:
    section = readme.section(result("kio"))
    assert readme.NO_REDIS in section
    assert "|  | kio |\n" in section
    assert "redis |" not in section
    assert readme.NO_REDIS not in readme.section(BOTH)


def test_a_figure_of_void_runs_only_is_void_and_has_no_ratio() -> None:
    partial = result("kio", "redis")
    del partial["figures"]["kio"]["open_p99"]
    assert "| the same: p99, µs | void | 1,234 |  |" in readme.table(partial).splitlines()


def test_the_best_rate_of_each_sweep_is_told() -> None:
    assert "kio: 1,000/s with p99 under 2,000 µs." in readme.section(BOTH)


def test_the_plots_that_the_section_shows_are_those_that_are_written(tmp_path: Path) -> None:
    readme.plot(BOTH, tmp_path)
    for path in tmp_path.iterdir():
        assert f"({readme.FIGURES.relative_to(readme.ROOT)}/{path.name})" in readme.section(BOTH)
        assert path.stat().st_size < 64 << 10
    assert len(list(tmp_path.iterdir())) == 2


def test_the_readme_holds_figures_and_its_plots_are_there() -> None:
    text = readme.README.read_text(encoding="utf-8")
    shown = text.partition(readme.BEGIN)[2].partition(readme.END)[0]
    assert all(row.partition("{")[0] in shown for row, _, _ in readme.ROWS)
    assert (readme.FIGURES / "latency.svg").exists()
