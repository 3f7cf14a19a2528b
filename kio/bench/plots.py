"""Plots of reports, SVG or PNG by the file's name: latency by percentile, and the curve of a sweep.

matplotlib is imported only here and only when a plot is asked for; it comes with the extra kio[plot]. Figures are small
and hold no date and no random name, so that the same report gives the same file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kio.bench.report import title
from kio.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SUFFIXES: Final = (".svg", ".png")
_INCHES: Final = (7.5, 4.2)
_COLOURS: Final = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d6a9f", "#b8860b", "#555555")
#: Text stays text, and ids are made from the figure alone.
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kio",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
#: Shares of operations at which the axis of percentiles has its marks.
_MARKS: Final = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
#: A curve takes its next point where the share of rarer operations has shrunk by this factor: about 60 for each nine.
_STEP: Final = 10 ** (1 / 60)

#: [[latency in us, how many], ...], rising: a histogram as a report holds it.
Sparse = Sequence[Sequence[int]]


def check(path: Path) -> None:
    """Refuse before the run what would fail after it.

    Raises:
        ConfigError: when the file is neither SVG nor PNG, its folder is not there, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a plot is written as {' or '.join(SUFFIXES)}, not {path.name}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no directory {path.parent} for the plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError('plots need matplotlib: pip install "kio[plot]"')


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Latency by percentile of one run: corrected, and in the open loop uncorrected beside it."""
    histograms = report["histograms"]
    if report["loop"] == "closed":
        curves = {"closed loop (hides stalls)": histograms["uncorrected"]}
    else:
        curves = {
            "corrected: since the request was due": histograms["corrected"],
            "uncorrected: since it was sent": histograms["uncorrected"],
        }
    plot_percentiles(curves, ("VOID: " if report["void"] else "") + title(report), path)


def plot_percentiles(curves: Mapping[str, Sparse], heading: str, path: Path) -> None:
    """Latency by percentile, each curve a histogram; the rarer, the farther to the right."""
    with _axes(heading, path) as axes:
        rarest = 10.0
        for colour, (name, histogram) in zip(_COLOURS, curves.items(), strict=False):
            xs, ys = _curve(histogram)
            axes.plot(xs, ys, color=colour, label=name, linewidth=1.6)
            rarest = max(rarest, xs[-1] if xs else 0)
        axes.set_xscale("log")
        marks = [mark for mark in _MARKS if 1 / (1 - mark) <= rarest * 1.01]
        axes.set_xticks([1 / (1 - mark) for mark in marks], [f"{100 * mark:.7g}" for mark in marks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(1, rarest)
        axes.set_xlabel("percentile")
        axes.set_ylabel("latency, us")
        if any(curves.values()):
            axes.set_yscale("log")
            _mark_like_a_person(axes.yaxis)
        _legend(axes)


def plot_sweep(
    sweeps: Mapping[str, Sequence[Mapping[str, Any]]], heading: str, path: Path, p99_under_us: float = 0.0
) -> None:
    """Latency over rate, p50 dashed and p99 whole, for each named sweep; a hollow mark is a void point."""
    with _axes(heading, path) as axes:
        for colour, (name, reports) in zip(_COLOURS, sweeps.items(), strict=False):
            points = [report for report in reports if report["corrected_us"]["p99"] is not None]
            rates = [report["offered"] for report in points]
            for percentile, line in (("p50", "--"), ("p99", "-")):
                latencies = [report["corrected_us"][percentile] for report in points]
                axes.plot(rates, latencies, line, color=colour, label=f"{name} {percentile}".strip())
                for report, rate, latency in zip(points, rates, latencies, strict=True):
                    axes.plot(rate, latency, "o", color=colour, fillstyle="none" if report["void"] else "full")
        if p99_under_us:
            axes.axhline(p99_under_us, color="#888888", linestyle=":", label=f"target {p99_under_us:,.0f} us")
        axes.set_xlabel("offered rate, operations a second")
        axes.set_ylabel("corrected latency, us")
        if any(report["operations"] for reports in sweeps.values() for report in reports):
            axes.set_xscale("log")
            axes.set_yscale("log")
            _mark_like_a_person(axes.xaxis)
            _mark_like_a_person(axes.yaxis)
        _legend(axes)


@contextmanager
def _axes(heading: str, path: Path) -> Iterator[Axes]:
    """Axes to draw on; written to `path` when the block ends well."""
    check(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(heading, loc="left", fontsize=10)
        yield axes
        is_svg = path.suffix.lower() == ".svg"
        figure.savefig(path, dpi=144, facecolor="white", metadata={"Date": None} if is_svg else None)


def _legend(axes: Axes) -> None:
    """Beside the axes, where it hides no curve."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside right upper")


def _mark_like_a_person(axis: Axis) -> None:
    """Marks at 1, 2, 5, 10, 20, 50 and so on, written out; the axis is logarithmic."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,.0f}")


def _curve(histogram: Sparse) -> tuple[list[float], list[float]]:
    """(1 / (1 - share), latency): a latency holds for every share up to that of all that were as quick."""
    total = sum(count for _, count in histogram)
    xs: list[float] = []
    ys: list[float] = []
    seen = 0
    for us, count in histogram:
        seen += count
        x = total / (total - seen) if seen < total else float(total)
        if not xs or x >= xs[-1] * _STEP or seen == total:
            xs.append(max(1.0, x))
            ys.append(max(1, us))
    return xs, ys
