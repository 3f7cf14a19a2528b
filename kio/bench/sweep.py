"""A sweep: the same workload at rising rates, and the highest of them at which the latency is still good.

Rates rise by a constant factor, since a server's knee is found by its order of magnitude. Behind the knee a point says
only that the server is overloaded, so the sweep ends after two such points in a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from kio.bench.plan import Plan
from kio.bench.report import is_overloaded
from kio.errors import ConfigError

POINTS: Final = 8
POINTS_MAX: Final = 100
#: Overloaded points in a row that end a sweep.
OVERLOADED_MAX: Final = 2
P99_US: Final = 1000.0
_RATES: Final = re.compile(r"([0-9.]+):([0-9.]+)(?::([0-9]+))?")


def parse_rates(text: str) -> list[float]:
    """The rates that `LOW:HIGH[:POINTS]` stands for, rising by a constant factor.

    Raises:
        ConfigError: when it is malformed or out of range.

    >>> parse_rates("1000:8000:4")
    [1000.0, 2000.0, 4000.0, 8000.0]
    """
    matched = _RATES.fullmatch(text)
    try:
        if matched is None:
            raise ValueError
        low, high = float(matched[1]), float(matched[2])
    except ValueError:
        raise ConfigError(f"a sweep is LOW:HIGH or LOW:HIGH:POINTS, as in 1000:64000:7, not {text!r}") from None
    points = int(matched[3] or POINTS)
    if not 0 < low < high or not math.isfinite(high):
        raise ConfigError(f"the rates of a sweep rise from above 0, as in 1000:64000, not {text!r}")
    if not 2 <= points <= POINTS_MAX:
        raise ConfigError(f"a sweep has 2 to {POINTS_MAX} points, not {points}")
    factor = (high / low) ** (1 / (points - 1))
    return [_rounded(low * factor**i) for i in range(points)]


def _rounded(rate: float) -> float:
    """Three digits are enough for a person: 1520 rather than 1519.911."""
    digits = 2 - math.floor(math.log10(rate))
    return float(round(rate, digits))


def reports(plan: Plan, rates: Sequence[float], measured: Callable[[Plan], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A report for each rate, as they come; ends early once overloaded, interrupted, or when the server is gone."""
    in_a_row = 0
    for rate in rates:
        report = measured(replace(plan, rate=rate))
        yield report
        in_a_row = in_a_row + 1 if is_overloaded(rate, report["achieved"]) else 0
        if report["interrupted"] or not report["operations"] or in_a_row == OVERLOADED_MAX:
            return


def best_rate(found: Sequence[dict[str, Any]], p99_under_us: float) -> float | None:
    """The highest rate that was achieved with its corrected p99 under the target; None when none was."""
    good = [
        report["offered"]
        for report in found
        if not report["void"] and not report["interrupted"] and report["corrected_us"]["p99"] < p99_under_us
    ]
    return max(good, default=None)


COLUMNS: Final = ("offered_per_s", "achieved_per_s", "p50_us", "p90_us", "p99_us", "p99.9_us", "max_us", "errors", "")


def row(report: dict[str, Any]) -> tuple[str, ...]:
    """One rate of the table."""
    latency = report["corrected_us"]
    cells = [latency[name] for name in ("p50", "p90", "p99", "p999", "max")]
    return (
        f"{report['offered']:,.0f}",
        f"{report['achieved']:,.0f}",
        *("" if us is None else f"{us:,}" for us in cells),
        f"{sum(report['errors'].values()):,}",
        "VOID" if report["void"] else "",
    )
