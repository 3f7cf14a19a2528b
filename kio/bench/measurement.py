"""A measurement: what one run found, all its generator processes together, before anybody judges it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from kio.bench.histogram import Histogram
from kio.bench.ledger import Ledger
from kio.bench.plan import Plan
from kio.bench.usage import ServerUsage

#: The error code of operations whose generator process died before it could say what became of them.
GENERATOR_LOST = "GeneratorLost"


@dataclass
class Measurement:
    """One run's figures. Percentiles come from the histograms, in microseconds."""

    plan: Plan
    #: From the start that all processes were given to the end of the last of them.
    seconds: float = 0.0
    #: Answered without an error, a read that found nothing among them.
    operations: int = 0
    missing: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    connections_lost: int = 0
    interrupted: bool = False
    #: (seconds after the start, what happened), in order.
    events: list[tuple[float, str]] = field(default_factory=list)

    corrected: Histogram = field(default_factory=Histogram)
    uncorrected: Histogram = field(default_factory=Histogram)

    #: How late the generator itself was, where a connection was free.
    lateness: Histogram = field(default_factory=Histogram)
    #: The longest time that a generator process stood still, and when that was.
    stall_s: float = 0.0
    stall_at_s: float = 0.0
    #: Share of one core that the busiest generator process used.
    cpu_share: float = 0.0
    #: What the generator processes that died were last known to do; empty unless something is very wrong.
    dead: list[str] = field(default_factory=list)

    server: ServerUsage | None = None
    #: The same plan, shorter, against a server that does nothing.
    floor: Histogram | None = None

    @property
    def achieved(self) -> float:
        """Operations a second; a run that needed longer than its schedule is counted to its real end."""
        return self.operations / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def elapsed_s(self) -> float:
        """What `achieved` is divided by: never less than the schedule, so that a quick end earns nothing."""
        return max(self.seconds, 0.0 if self.interrupted else window_s(self.plan))

    def add(self, ledger: Ledger, start_ns: int) -> None:
        """Take in what one generator process left in its ledger."""
        self.operations += ledger.operations_done
        self.missing += ledger.operations_missing
        self.connections_lost += ledger.connections_lost
        for mine, theirs in (
            (self.corrected, ledger.corrected),
            (self.uncorrected, ledger.uncorrected),
            (self.lateness, ledger.lateness),
        ):
            mine.merge(theirs)
        # A process that died left no end.
        took_s = max(0, (ledger.finished_ns or time.monotonic_ns()) - start_ns) / 1e9
        self.seconds = max(self.seconds, took_s)
        if took_s:
            self.cpu_share = max(self.cpu_share, ledger.cpu_ns / 1e9 / took_s)
        if ledger.stall_ns_max / 1e9 > self.stall_s:
            self.stall_s = ledger.stall_ns_max / 1e9
            self.stall_at_s = max(0.0, (ledger.stall_at_ns - start_ns) / 1e9)


def window_s(plan: Plan) -> float:
    """Seconds that the schedule of an open loop lasts, and a closed loop that ends by the clock; else 0."""
    if not plan.count:
        return plan.seconds
    return plan.count / plan.rate if plan.is_open_loop else 0.0


def shortened(plan: Plan, seconds: float) -> Plan:
    """The same plan for a shorter time."""
    return replace(plan, count=0, seconds=min(seconds, window_s(plan) or seconds))
