"""The canonical run behind `make bench`: kio and redis-server, started here, measured by `kio bench` in turns.

    python -m tests.measure.canonical [--rounds 3] [--records 500000] [--seconds 4] [--out DIR]

Takes no arguments and less than 10 minutes. Keys of 16 bytes, values of 100. Client and server share the cores, so the
server's CPU seconds stand beside the rates. Who goes first changes from round to round; a figure is the median of the
rounds, a ratio is kio's figure over redis's. Table and plots become the section "Figures" of README.md (readme.py), or
go to DIR. Without redis-server kio is measured alone, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from kio.bench import load, report, run, sweep, validation
from kio.bench.plan import Plan
from kio.bench.usage import Meter
from tests.measure import readme, servers

BATCH = 100
#: Rates that both servers can keep on two cores, beside the generator.
OPEN_RATE = 4_000.0
OPEN_SHARE = 2.5
SWEEP = "1000:32000:6"


class Closed(NamedTuple):
    """A closed loop: its rate is a figure, and what it costs the server is another."""

    figure: str
    kind: str
    pipeline: int = 1
    batch: int = 1


CLOSED = (
    Closed("read", "read"),
    Closed("update", "update"),
    Closed("read_p16", "read", pipeline=16),
    Closed("update_p16", "update", pipeline=16),
    Closed("read_many", "read", batch=BATCH),
    Closed("update_many", "update", batch=BATCH),
)
Figures = dict[str, float]


class Bench:
    """The figures of one server, round by round."""

    def __init__(self, server: servers.Server, records: int, seconds: float) -> None:
        self.server = server
        self.rounds: list[Figures] = []
        #: The open loops' reports, one a round.
        self.open: list[dict[str, Any]] = []
        self.sweep: list[dict[str, Any]] = []
        self._plan = Plan(server.url, keys="uniform", records=records, rate=0.0, seconds=seconds)
        self._open_plan = replace(
            self._plan,
            workload="b",
            mix={"read": 0.95, "update": 0.05},
            keys="zipf:0.99",
            rate=OPEN_RATE,
            seconds=seconds * OPEN_SHARE,
        )

    def round(self) -> None:
        """Every figure once."""
        figures = self._loaded()
        for one in CLOSED:
            plan = replace(self._plan, workload=one.kind, mix={one.kind: 1.0}, pipeline=one.pipeline, batch=one.batch)
            told = self._report(plan)
            figures[f"{one.figure}_per_s"] = told["achieved"]
            figures[f"{one.figure}_cpu"] = told["server"]["cpu_seconds_per_million"]
        told = self._report(self._open_plan)
        self.open.append(told)
        if not told["void"]:
            figures |= {f"open_{name}": told["corrected_us"][name] for name in ("p50", "p99", "p999")}
        figures["open_cpu"] = told["server"]["cpu_seconds_per_million"]
        self.rounds.append(figures)

    def sweep_once(self) -> None:
        """The open loop at rising rates."""
        plan = replace(self._open_plan, seconds=self._plan.seconds)
        self.sweep = list(sweep.reports(plan, sweep.parse_rates(SWEEP), self._report))

    def medians(self) -> Figures:
        """Of each figure, over the rounds that have it."""
        names = dict.fromkeys(name for figures in self.rounds for name in figures)
        return {name: statistics.median(one[name] for one in self.rounds if name in one) for name in names}

    def _loaded(self) -> Figures:
        meter = Meter(self.server.pid)
        before = meter.usage().rss_bytes
        found = run.measure(load.load_plan(self._plan))
        figures = {"load_per_s": found.achieved}
        if not self.rounds:
            # Only the first load adds keys.
            figures["memory_per_key"] = (meter.usage().rss_bytes - before) / self._plan.records
        return figures

    def _report(self, plan: Plan) -> dict[str, Any]:
        validation.check(plan)
        told = report.build(run.measure(plan, pid=self.server.pid))
        if told["interrupted"]:
            raise KeyboardInterrupt
        if told["errors"] and not plan.is_open_loop:
            raise RuntimeError(f"{self.server.name}, {report.title(told)}: {told['errors']}")
        return told


def measure(rounds: int, records: int, seconds: float) -> dict[str, Any]:
    """Everything that readme.py shows."""
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kio-bench.")))
        benches: dict[str, Bench] = {}
        for name, start in servers.available().items():
            (home / name).mkdir()
            benches[name] = Bench(stack.enter_context(start(home / name)), records, seconds)
        for number in range(rounds):
            for name in sorted(benches, reverse=bool(number % 2)):
                say(f"round {number + 1} of {rounds}: {name}")
                benches[name].round()
        for name, bench in benches.items():
            say(f"sweep: {name}")
            bench.sweep_once()
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rounds": rounds,
        "records": records,
        "batch": BATCH,
        "open_rate": OPEN_RATE,
        "took_s": round(time.monotonic() - began),
        "figures": {name: bench.medians() for name, bench in benches.items()},
        "open": {name: middle(bench.open) for name, bench in benches.items()},
        "sweep": {name: bench.sweep for name, bench in benches.items()},
    }


def middle(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The report whose p99 is the median one."""
    return sorted(reports, key=lambda told: told["corrected_us"]["p99"] or 0)[len(reports) // 2]


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"canonical: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each closed loop")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write result.json and the plots there, not the README")
    args = parser.parse_args()
    if "redis" not in servers.available():
        say("redis-server is not installed: kio is measured alone")
    result = measure(args.rounds, args.records, args.seconds)
    print(readme.section(result), end="")
    if args.out is None:
        readme.write(result)
        say(f"wrote {readme.README.name} and {readme.FIGURES.relative_to(readme.ROOT)}/ in {result['took_s']} s")
    else:
        readme.plot(result, args.out)
        (args.out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
