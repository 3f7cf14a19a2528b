"""Two reports side by side: each figure of both, and the second over the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from kio.bench import report
from kio.errors import ConfigError

#: Where a run may differ from the one it is compared with, and still be the same run.
_FREE: Final = ("url",)


class Row(NamedTuple):
    """One figure of both reports; `ratio` is the second over the first, None where that means nothing."""

    figure: str
    first: float | None
    second: float | None
    ratio: float | None


def load(path: Path) -> dict[str, Any]:
    """A report that `kio bench --json` wrote.

    Raises:
        ConfigError: when the file holds something else.
        OSError: when it cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if isinstance(document, dict) and "sweep" in document:
        raise ConfigError(f"{path} is a sweep: compare takes single runs")
    if not report.is_report(document):
        raise ConfigError(f"{path} is not a report of kio bench --json, version {report.VERSION}")
    return dict(document)


def rows(first: dict[str, Any], second: dict[str, Any]) -> list[Row]:
    """Every figure that both can have."""
    found = [_row("offered_per_s", first["offered"], second["offered"])]
    found.append(_row("achieved_per_s", first["achieved"], second["achieved"]))
    for kind in ("corrected_us", "uncorrected_us"):
        for name in (*report.PERCENTILES, "max"):
            found.append(_row(f"{kind} {name}", first[kind][name], second[kind][name]))
    found.append(_row("missing", first["missing"], second["missing"]))
    found.append(_row("errors", sum(first["errors"].values()), sum(second["errors"].values())))
    if first["server"] and second["server"]:
        for name in ("cpu_seconds_per_million", "rss_mib_max", "disk_written_mib"):
            found.append(_row(f"server {name}", first["server"][name], second["server"][name]))
    return found


def _row(figure: str, first: float | None, second: float | None) -> Row:
    return Row(figure, first, second, second / first if first and second is not None else None)


def cautions(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Why the comparison may mean nothing: void runs, plans that differ."""
    found = [
        f"the {which} run is void: {reason}"
        for which, one in (("first", first), ("second", second))
        for reason in one["void_reasons"]
    ]
    ours, theirs = first["plan"], second["plan"]
    different = [name for name in ours if name not in _FREE and ours[name] != theirs.get(name)]
    found += [f"the plans differ in {name}: {ours[name]} and {theirs.get(name)}" for name in different]
    return found
