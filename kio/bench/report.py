"""A report: a measurement as JSON and as tables, and the judgement whether it may be believed.

A run is *void* when its figures say more about the generator than about the server, or when the server was not asked
what was promised. A void run is printed all the same, with every reason and what to do about it; nobody should quote
it.

Pure functions: a measurement in, plain data out.
"""

from __future__ import annotations

from typing import Any, Final

from kio.bench.histogram import Histogram
from kio.bench.measurement import Measurement
from kio.bench.plan import Plan
from kio.client.credentials import redacted

VERSION: Final = 1
#: A rate below this share of what was offered is not the rate that was measured.
ACHIEVED_SHARE_MIN: Final = 0.99
#: A generator that stood still for this long explains latencies that the server did not cause.
STALL_S_MAX: Final = 0.1
#: The generator's own lateness may be this share of what it measured, or this long, whichever is more.
LATENESS_SHARE_MAX: Final = 0.1
LATENESS_US_MAX: Final = 1000
#: A generator process that uses more of its core than this is about to be the bottleneck.
CPU_SHARE_MAX: Final = 0.9
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}

CLOSED_LOOP: Final = (
    "closed loop: each connection waits for its answer before it asks again, so a server that stands still is asked "
    "nothing meanwhile; these latencies hide stalls (--rate gives an open loop)"
)


def void_reasons(run: Measurement) -> list[str]:
    """Why the figures are not to be believed, each with what to do; empty for a good run."""
    reasons = []
    if not run.operations:
        reasons.append("no operation was answered: there is nothing to measure")
    elif is_overloaded(run.plan.rate, run.achieved):
        reasons.append(
            f"achieved {_rate(run.achieved)}/s is below 99 % of the offered {_rate(run.plan.rate)}/s: the server did "
            "not keep up; offer less, or add --connections if it was waiting for them"
        )
    if run.stall_s >= STALL_S_MAX:
        reasons.append(
            f"the generator itself stood still for {run.stall_s:.3f} s at second {run.stall_at_s:.1f}: these "
            "latencies are partly its own; run again, on a machine with an idle core for it"
        )
    reasons += _lateness_reason(run)
    reasons += [f"{what}: what it had outstanding is not in the figures; run again" for what in run.dead]
    return reasons


def is_overloaded(offered: float, achieved: float) -> bool:
    """Whether the server did not keep up; in the closed loop nothing is offered."""
    return achieved < ACHIEVED_SHARE_MIN * offered


def _lateness_reason(run: Measurement) -> list[str]:
    if not run.plan.is_open_loop or not run.lateness.count:
        return []
    late_us = run.lateness.percentile(99)
    allowed_us = max(LATENESS_US_MAX, LATENESS_SHARE_MAX * run.corrected.percentile(99)) if run.corrected.count else 0
    if late_us <= allowed_us:
        return []
    return [
        f"the generator sent its requests late (p99 {late_us:,} us after they were due, with a connection free): it is "
        "the bottleneck; offer less, raise --processes, or give it an idle core"
    ]


def warnings(report: dict[str, Any]) -> list[str]:
    """What a reader should know beside the figures, though they stand."""
    found = []
    if report["loop"] == "closed":
        found.append(CLOSED_LOOP)
    share = report["generator"]["cpu_share"]
    if share > CPU_SHARE_MAX:
        found.append(
            f"the generator used {share:.0%} of a core: it may be the bottleneck, so this rate is a lower bound; "
            "raise --processes"
        )
    if report["missing"]:
        part = report["missing"] / max(1, report["operations"])
        found.append(f"{report['missing']:,} reads ({part:.1%} of the operations) found no key; they count as answered")
    return found


def build(run: Measurement) -> dict[str, Any]:
    """The report as JSON holds it; the URL is without its password."""
    plan = run.plan
    url = redacted(plan.url)
    reasons = void_reasons(run)
    return {
        "version": VERSION,
        "url": url,
        "workload": plan.workload,
        "loop": "open" if plan.is_open_loop else "closed",
        "plan": plan.as_dict() | {"url": url},
        "offered": plan.rate,
        "achieved": round(run.achieved, 1),
        "void": bool(reasons),
        "void_reasons": reasons,
        "interrupted": run.interrupted,
        "seconds": round(run.seconds, 3),
        "operations": run.operations,
        "missing": run.missing,
        "errors": dict(sorted(run.errors.items())),
        "connections_lost": run.connections_lost,
        "corrected_us": summary(run.corrected),
        "uncorrected_us": summary(run.uncorrected),
        "generator": {
            "processes": plan.processes,
            "lateness_us": summary(run.lateness) if plan.is_open_loop else None,
            "stall_ms_max": round(run.stall_s * 1e3, 1),
            "stall_at_s": round(run.stall_at_s, 3),
            "cpu_share": round(run.cpu_share, 3),
        },
        "floor_us": None if run.floor is None else summary(run.floor),
        "server": _server(run),
        "events": [[round(at_s, 3), text] for at_s, text in run.events],
        "histograms": {"corrected": run.corrected.sparse(), "uncorrected": run.uncorrected.sparse()},
    }


def summary(histogram: Histogram) -> dict[str, Any]:
    """p50 p90 p99 p999 max and mean in microseconds; all null where nothing was recorded."""
    if not histogram.count:
        return dict.fromkeys((*PERCENTILES, "max", "mean"))
    figures: dict[str, Any] = histogram.summary()
    return figures | {"mean": round(figures["mean"], 1)}


def _server(run: Measurement) -> dict[str, Any] | None:
    used = run.server
    if used is None:
        return None
    return {
        "pid": used.pid,
        "processes": used.processes,
        "cpu_seconds": round(used.cpu_s, 3),
        "cpu_seconds_per_million": round(used.cpu_s * 1e6 / run.operations, 3) if run.operations else None,
        "rss_mib": round(used.rss_bytes / 2**20, 1),
        "rss_mib_max": round(used.rss_bytes_max / 2**20, 1),
        "disk_written_mib": None if used.written_bytes is None else round(used.written_bytes / 2**20, 1),
    }


def title(report: dict[str, Any], *, with_rate: bool = True) -> str:
    """What was run, in one line; a sweep has no one rate."""
    plan = Plan.from_dict(report["plan"])
    loop = "closed loop"
    if plan.is_open_loop:
        loop = f"open loop, {_rate(plan.rate) + '/s ' if with_rate else ''}{plan.arrivals} arrivals"
    shape = f"{plan.connections} connections"
    for name, value in (("depth", plan.depth), ("pipeline", plan.pipeline), ("batch", plan.batch)):
        shape += f", {name} {value}" if value > 1 else ""
    return f"workload {plan.workload}: {loop}, {shape}, {plan.url}"


def run_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, figure) of everything that is not a latency."""
    generator = report["generator"]
    rows = [
        ("offered_per_s", _rate(report["offered"]) if report["loop"] == "open" else "as fast as answered"),
        ("achieved_per_s", _rate(report["achieved"])),
        ("seconds", f"{report['seconds']:.1f}" + (" (interrupted)" if report["interrupted"] else "")),
        ("operations", f"{report['operations']:,}"),
        ("missing", f"{report['missing']:,}"),
        ("errors", ", ".join(f"{code} {count:,}" for code, count in report["errors"].items()) or "0"),
        ("connections_lost", f"{report['connections_lost']:,}"),
        ("generator_core_share", f"{generator['cpu_share']:.2f} of {generator['processes']}"),
        ("generator_stall_ms_max", f"{generator['stall_ms_max']:,.1f}"),
    ]
    server = report["server"]
    if server is not None:
        per_million = server["cpu_seconds_per_million"]
        rows += [
            ("server_cpu_s_per_million", "" if per_million is None else f"{per_million:,.2f}"),
            ("server_rss_mib", f"{server['rss_mib']:,.1f} (max {server['rss_mib_max']:,.1f})"),
        ]
        if server["disk_written_mib"] is not None:
            rows.append(("server_disk_written_mib", f"{server['disk_written_mib']:,.1f}"))
    return rows


LATENCY_COLUMNS: Final = ("latency_us", "p50", "p90", "p99", "p99.9", "max")


def latency_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of latencies: corrected and uncorrected side by side, and what of it is the generator's own."""
    rows = [_latency_row("corrected", report["corrected_us"]), _latency_row("uncorrected", report["uncorrected_us"])]
    if report["loop"] == "closed":
        rows = [_latency_row("uncorrected", report["uncorrected_us"])]
    if report["floor_us"] is not None:
        rows.append(_latency_row("floor (a server that does nothing)", report["floor_us"]))
    if report["generator"]["lateness_us"] is not None:
        rows.append(_latency_row("generator's lateness", report["generator"]["lateness_us"]))
    return rows


def _latency_row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    cells = (figures.get(column) for column in ("p50", "p90", "p99", "p999", "max"))
    return (name, *("" if us is None else f"{us:,}" for us in cells))


def verdict(report: dict[str, Any]) -> list[str]:
    """VOID and why, in plain sight; empty for a good run."""
    return [f"VOID: {reason}" for reason in report["void_reasons"]]


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:,.1f}"


def is_report(document: Any) -> bool:
    """Whether `document` is a report of this version."""
    return isinstance(document, dict) and document.get("version") == VERSION and "corrected_us" in document
