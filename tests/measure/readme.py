"""The section "Figures" of README.md: what stands there was measured by `make bench`, never typed.

    python -m tests.measure.readme RESULT.json

writes the section again from what `python -m tests.measure.canonical --out DIR` left. Only the text between the two
marks and the plots change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kio.bench import plots, sweep

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
#: Where the plots stand.
FIGURES = ROOT / "tests" / "measure" / "figures"
BEGIN, END = "<!-- figures: written by make bench -->\n", "<!-- end of figures -->\n"
NO_REDIS = "redis-server was not installed where this was measured, so kio stands alone.\n"
P99_US = 2_000

#: What each line of the table says, its figure, and its digits.
ROWS = (
    ("load, records/s", "load_per_s", 0),
    ("read, 50 connections, keys/s", "read_per_s", 0),
    ("update, 50 connections, keys/s", "update_per_s", 0),
    ("read, pipeline 16, keys/s", "read_p16_per_s", 0),
    ("update, pipeline 16, keys/s", "update_p16_per_s", 0),
    ("get_many / MGET of {batch}, keys/s", "read_many_per_s", 0),
    ("set_many / MSET of {batch}, keys/s", "update_many_per_s", 0),
    ("server CPU, read, s per million keys", "read_cpu", 2),
    ("server CPU, read, pipeline 16", "read_p16_cpu", 2),
    ("server CPU, update, pipeline 16", "update_p16_cpu", 2),
    ("server CPU, get_many / MGET", "read_many_cpu", 2),
    ("server CPU, set_many / MSET", "update_many_cpu", 2),
    ("95 % reads at {open_rate:,.0f}/s, open loop: p50, µs", "open_p50", 0),
    ("the same: p99, µs", "open_p99", 0),
    ("the same: p99.9, µs", "open_p999", 0),
    ("the same: server CPU, s per million keys", "open_cpu", 2),
    ("resident memory, bytes a record", "memory_per_key", 0),
)


def section(result: dict[str, Any]) -> str:
    """What stands between the marks: the machine, the table, the plots."""
    figures = result["figures"]
    parts = [f"Measured on {result['machine']}, {result['records']:,} records, medians of {result['rounds']} rounds.\n"]
    if "redis" not in figures:
        parts.append(NO_REDIS)
    parts.append(table(result))
    best = {name: sweep.best_rate(reports, P99_US) for name, reports in result["sweep"].items()}
    parts.append(
        "\n".join(
            f"{name}: {'no rate of the sweep' if rate is None else f'{rate:,.0f}/s'} with p99 under {P99_US:,} µs."
            for name, rate in best.items()
        )
        + "\n"
    )
    where = FIGURES.relative_to(ROOT)
    parts.append(f"![latency by percentile, {result['open_rate']:,.0f} operations a second]({where}/latency.svg)\n")
    parts.append(f"![latency over rate]({where}/sweep.svg)\n")
    return "\n".join(parts)


def table(result: dict[str, Any]) -> str:
    """A column for each server, and the ratio where both were there; a figure of void runs only is none."""
    figures = result["figures"]
    names = list(figures)
    head = ["", *names, *(["ratio"] if "redis" in names else [])]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for text, figure, digits in ROWS:
        values = [figures[name].get(figure) for name in names]
        cells = ["void" if value is None else f"{value:,.{digits}f}" for value in values]
        if "redis" in names:
            ours, theirs = figures["kio"].get(figure), figures["redis"].get(figure)
            cells.append(f"{ours / theirs:,.2f}" if ours is not None and theirs else "")
        lines.append([text.format(**result), *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def plot(result: dict[str, Any], directory: Path) -> None:
    """latency.svg and sweep.svg."""
    directory.mkdir(parents=True, exist_ok=True)
    curves = {
        name + (" (VOID)" if told["void"] else ""): told["histograms"]["corrected"]
        for name, told in result["open"].items()
    }
    heading = f"95 % reads, 5 % updates, 50 connections, open loop at {result['open_rate']:,.0f}/s: corrected latency"
    plots.plot_percentiles(curves, heading, directory / "latency.svg")
    heading = "95 % reads, 5 % updates, 50 connections, open loop (hollow: void)"
    plots.plot_sweep(result["sweep"], heading, directory / "sweep.svg", P99_US)


def written(text: str, result: dict[str, Any]) -> str:
    """`text` with new figures between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + section(result) + "\n" + END + after


def write(result: dict[str, Any]) -> None:
    """Plots first, then the README that shows them."""
    plot(result, FIGURES)
    README.write_text(written(README.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_bytes()))
