"""The canonical run, small: every figure of the table is measured, from both servers where both are there."""

from __future__ import annotations

import pytest

from tests.measure import canonical, readme, servers

#: Absent where every open loop was void, as on a machine that is busy.
MAYBE_VOID = {"open_p50", "open_p99", "open_p999"}


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_the_canonical_run_measures_every_figure_of_the_readme() -> None:
    result = canonical.measure(rounds=1, records=5_000, seconds=0.5)
    assert set(result["figures"]) == set(result["sweep"]) == set(servers.available())
    for figures in result["figures"].values():
        assert {figure for _, figure, _ in readme.ROWS} - MAYBE_VOID <= set(figures)
        assert all(value > 0 for name, value in figures.items() if name != "memory_per_key")
    assert readme.section(result).startswith("Measured on ")


def test_the_report_that_is_plotted_has_the_median_p99() -> None:
    reports = [{"corrected_us": {"p99": p99}} for p99 in (30, 10, None)]
    assert canonical.middle(reports)["corrected_us"]["p99"] == 10
