"""`kio bench`: measure a server, kio or one that speaks RESP, from outside.

The generator is kio.bench; here is what a person says to it and sees of it. The report goes to stdout, as tables or as
one JSON document; steps and progress go to stderr.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kio.cli import bench_options, exit_codes, options, output
from kio.errors import ConnectionLost

EXAMPLE: Final = """\
kio bench --workload b --rate 5000 --seconds 20
kio bench --url redis://127.0.0.1:6379 --workload c --rate 0 --pipeline 16
kio bench --workload a --sweep 1000:64000:7 --plot sweep.svg"""

DEFAULT_WORKLOAD: Final = "b"
DEFAULT_P99_US: Final = 1000.0


def command(
    context: typer.Context,
    workload: str | None,
    url: str,
    load: bool,
    clean: bool,
    floor: bool,
    pid: int | None,
    sweep: str | None,
    p99_under_us: float,
    plot: list[Path] | None,
    json: bool,
    **chosen: Any,
) -> None:
    """Measure what a server does to the latency of programs that do not wait for it.

    The loop is open: a schedule says when each request is due, whatever the server does. Corrected latency counts from
    that moment, uncorrected from the moment of sending; a server that stands still shows in the first. A run whose
    figures cannot be believed is VOID and says why. --rate 0 is the closed loop, for the highest rate.

    A target is kio://HOST:PORT, redis://USER:PASSWORD@HOST:PORT/DATABASE (all but the host may be left out), or a Unix
    socket: kio+unix:///PATH, redis+unix:///PATH. The keys are written first (--no-load leaves that out) and stay there
    unless --clean. "kio bench workloads" lists the workloads.
    """
    if context.invoked_subcommand is not None:
        return
    from kio.bench import plots
    from kio.bench import sweep as sweeps
    from kio.bench import workload as workloads
    from kio.bench.session import Session
    from kio.cli import bench_progress
    from kio.client.credentials import redacted

    given = {field: value for field, value in chosen.items() if value is not None}
    plan = workloads.plan(url, workload or ("custom" if "mix" in given else DEFAULT_WORKLOAD), given)
    rates = None if sweep is None else sweeps.parse_rates(sweep)
    for path in plot or []:
        plots.check(path)
    session = Session(pid=pid, with_floor=floor, shown=bench_progress.shown)
    session.check(plan if rates is None else replace(plan, rate=rates[-1]))
    try:
        if load:
            output.message(f"writing {plan.records:,} records to {redacted(url)}")
            session.load(plan)
        if rates is None:
            reports = [session.measured(plan)]
            _show_run(reports[0], plot or [], json=json)
        else:
            reports = list(sweeps.reports(plan, rates, session.measured))
            _show_sweep(reports, p99_under_us, plot or [], json=json)
    finally:
        if clean:
            session.clean(plan)
    raise typer.Exit(_code(reports[-1], url))


def _code(last: dict[str, Any], url: str) -> int:
    """A run that was measured is done, void or not; unless it was cut short, or the server is gone."""
    from kio.bench.session import is_reachable

    if last["interrupted"]:
        return exit_codes.INTERRUPTED
    if last["connections_lost"] and not is_reachable(url):
        output.message(f"{last['url']} went away during the run and did not come back")
        return ConnectionLost.exit_code
    return exit_codes.DONE


def _show_run(report: dict[str, Any], plots: list[Path], *, json: bool) -> None:
    from kio.bench.plots import plot_report

    if json:
        output.as_json(report)
    else:
        show_report(report)
    for path in plots:
        plot_report(report, path)
        output.message(f"wrote {path}")


def show_report(report: dict[str, Any]) -> None:
    """A report as a person reads it: what was run, the verdict, the latencies, everything else."""
    from kio.bench import report as reports

    output.line(reports.title(report))
    for text in (*reports.verdict(report), *reports.warnings(report)):
        output.line(text)
    output.line("")
    output.table("", reports.LATENCY_COLUMNS, reports.latency_rows(report))
    output.line("")
    output.table("", ("figure", "value"), reports.run_rows(report))
    for at_s, text in report["events"]:
        output.line(f"second {at_s:.1f}: {text}")


def _show_sweep(found: list[dict[str, Any]], p99_under_us: float, plots: list[Path], *, json: bool) -> None:
    from kio.bench import report as reports
    from kio.bench import sweep as sweeps
    from kio.bench.plots import plot_sweep

    title = reports.title(found[0], with_rate=False)
    best = sweeps.best_rate(found, p99_under_us)
    if json:
        output.as_json({"sweep": found, "p99_under_us": p99_under_us, "best_rate": best})
    else:
        output.line(title)
        output.line("")
        output.table("", sweeps.COLUMNS, map(sweeps.row, found))
        output.line("")
        for report in found:
            for text in reports.verdict(report):
                output.line(f"{report['offered']:,.0f}/s {text}")
        highest = "no rate was" if best is None else f"the highest rate is {best:,.0f}/s"
        output.line(f"{highest} with p99 under {p99_under_us:,.0f} us")
    for path in plots:
        plot_sweep({"": found}, title, path, p99_under_us)
        output.message(f"wrote {path}")


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_PARAMETERS: Final = [
    _parameter("context", inspect.Parameter.empty, typer.Context),
    _parameter(
        "url",
        options.DEFAULT_URL,
        Annotated[
            str,
            typer.Option(
                "--url", envvar="KIO_URL", metavar="URL", help="What to measure: kio://, redis://, or their +unix."
            ),
        ],
    ),
    _parameter(
        "workload",
        None,
        Annotated[
            str | None,
            typer.Option(
                "--workload",
                metavar="NAME",
                help=f'YCSB a b c d f, or a preset; see "kio bench workloads". Default: {DEFAULT_WORKLOAD}, '
                "or custom where --mix says it all.",
            ),
        ],
    ),
    *bench_options.parameters(),
    _parameter(
        "load",
        True,
        Annotated[bool, typer.Option("--load/--no-load", help="Write the records before the run.")],
    ),
    _parameter(
        "clean",
        False,
        Annotated[bool, typer.Option("--clean", help="Delete the keys at the end.")],
    ),
    _parameter(
        "floor",
        True,
        Annotated[
            bool,
            typer.Option("--floor/--no-floor", help="Measure the generator itself against a server that does nothing."),
        ],
    ),
    _parameter(
        "pid",
        None,
        Annotated[
            int | None,
            typer.Option(
                "--pid", metavar="PID", help="The server's first process: adds its CPU, memory and written bytes."
            ),
        ],
    ),
    _parameter(
        "sweep",
        None,
        Annotated[
            str | None,
            typer.Option("--sweep", metavar="LOW:HIGH[:POINTS]", help="A run at each of rising rates, instead of one."),
        ],
    ),
    _parameter(
        "p99_under_us",
        DEFAULT_P99_US,
        Annotated[
            float,
            typer.Option("--p99-under-us", metavar="US", min=1, help="What the best rate of a sweep must keep to."),
        ],
    ),
    _parameter(
        "plot",
        None,
        Annotated[
            list[Path] | None,
            typer.Option("--plot", metavar="FILE", help="Write a plot, .svg or .png; may be given again."),
        ],
    ),
    _parameter("json", False, options.Json),
]
# typer reads a function's arguments from these two.
command.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]
command.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS}
