"""The coordinator: starts the generator processes, lets them begin at one moment, watches, and adds up their figures.

The figures stand in the processes' ledgers all the time, so an interrupt, a generator that dies or a server that goes
away costs nothing that was measured before.

    spawn --> every process prepares --> "ready" --> one start for all --> watch --> "errors, events" --> added up
"""

from __future__ import annotations

import math
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, cast

from kio import errors
from kio.bench.child import Generator
from kio.bench.histogram import Histogram
from kio.bench.measurement import GENERATOR_LOST, Measurement, window_s
from kio.bench.plan import Plan
from kio.bench.usage import Meter
from kio.errors import InternalError, KioError

#: From the word to start until the first request is due: every process must have read it.
HEAD_START_NS: Final = 50_000_000
TICK_S: Final = 0.25
#: How long a run may go on after its schedule and its drain; the processes end by themselves long before.
GRACE_S: Final = 30.0


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    elapsed_s: float
    #: None where the run ends by a count of operations that nothing paces.
    remaining_s: float | None
    operations: int
    #: Operations a second since the last time.
    rate: float
    #: Corrected, of the whole run so far.
    p99_us: int
    errors: int


Watch = Callable[[Progress], None]


def measure(plan: Plan, *, pid: int | None = None, watch: Watch | None = None) -> Measurement:
    """Carry out `plan`; what was found, also when it was cut short by SIGINT or the server's end.

    Args:
        plan: valid, see validation.py.
        pid: the server's first process, to count what it spends.
        watch: called a few times a second.

    Raises:
        KioError: when the run could not begin: nobody listens at the URL, or speaks another protocol.
        KeyboardInterrupt: for a SIGINT before the start, and for a second one after it.
    """
    with ExitStack() as stack:
        generators = []
        for number in range(plan.processes):
            generator = Generator(plan, number)
            stack.callback(generator.close)
            generators.append(generator)
        for generator in generators:
            _await_ready(generator)
        meter = None if pid is None else Meter(pid)
        return _Run(plan, generators, meter, watch).carry_out()


def _await_ready(generator: Generator) -> None:
    while True:
        for line in generator.lines():
            if "error" in line:
                raise _error(line["error"])
            if line.get("ready"):
                return
        if generator.is_ended:
            raise InternalError(f"{generator.died()} before it was ready; what it wrote stands above")


def _error(told: dict[str, Any]) -> KioError:
    """The error that a generator process told by its class's name."""
    cls = getattr(errors, str(told["code"]), InternalError)
    if not (isinstance(cls, type) and issubclass(cls, KioError)):
        cls = InternalError
    return cls(told["message"])


class _Run:
    """A run from its start to its figures."""

    def __init__(self, plan: Plan, generators: list[Generator], meter: Meter | None, watch: Watch | None) -> None:
        self._plan = plan
        self._generators = generators
        self._meter = meter
        self._watch = watch
        self._interrupts = 0
        self._start_ns = 0
        #: Elapsed seconds and operations when the watcher was told last.
        self._told = (0.0, 0)

    def carry_out(self) -> Measurement:
        with _interrupts_to(self._interrupt):
            self._start_ns = time.monotonic_ns() + HEAD_START_NS
            for generator in self._generators:
                generator.tell({"start_ns": self._start_ns})
            self._await_end()
        return self._added_up()

    def _interrupt(self) -> None:
        """The first SIGINT asks the processes to stop; the second is an ordinary KeyboardInterrupt."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        for generator in self._generators:
            generator.ledger.stop_requested = 1

    def _await_end(self) -> None:
        """Until every process has told its last line, or died, or is stuck."""
        looked_at = time.monotonic()
        limit_s = self._limit_s()
        with selectors.DefaultSelector() as selector:
            for generator in self._generators:
                selector.register(generator, selectors.EVENT_READ)
            while selector.get_map() and self._elapsed_s() < limit_s:
                for key, _ in selector.select(TICK_S):
                    generator = cast(Generator, key.fileobj)
                    generator.lines()
                    if generator.is_ended:
                        selector.unregister(generator)
                if time.monotonic() - looked_at >= TICK_S:
                    looked_at = time.monotonic()
                    self._look()

    def _limit_s(self) -> float:
        """When a process that has not ended must be stuck; never where nothing but a count ends the run."""
        window = window_s(self._plan)
        return window + self._plan.drain_s + GRACE_S if window else math.inf

    def _elapsed_s(self) -> float:
        return max(0, time.monotonic_ns() - self._start_ns) / 1e9

    def _look(self) -> None:
        """Sample what the server uses, and tell the watcher."""
        if self._meter is not None:
            self._meter.sample()
        if self._watch is None:
            return
        elapsed_s = self._elapsed_s()
        operations = sum(generator.ledger.operations_done for generator in self._generators)
        corrected = Histogram()
        for generator in self._generators:
            corrected.merge(generator.ledger.corrected)
        (before_s, before), self._told = self._told, (elapsed_s, operations)
        self._watch(
            Progress(
                elapsed_s=elapsed_s,
                remaining_s=self._remaining_s(elapsed_s, operations),
                operations=operations,
                rate=(operations - before) / (elapsed_s - before_s) if elapsed_s > before_s else 0.0,
                p99_us=corrected.percentile(99) if corrected.count else 0,
                errors=sum(generator.ledger.operations_failed for generator in self._generators),
            )
        )

    def _remaining_s(self, elapsed_s: float, operations: int) -> float | None:
        window = window_s(self._plan)
        if window:
            return max(0.0, window - elapsed_s)
        return (self._plan.count - operations) * elapsed_s / operations if operations else None

    def _added_up(self) -> Measurement:
        found = Measurement(self._plan, interrupted=self._interrupts > 0)
        if self._meter is not None:
            found.server = self._meter.usage()
        failed = 0
        for generator in self._generators:
            found.add(generator.ledger, self._start_ns)
            failed += generator.ledger.operations_failed
            if generator.ending is None:
                found.dead.append(generator.died())
                continue
            for code, count in generator.ending["errors"].items():
                found.errors[code] = found.errors.get(code, 0) + count
            found.events += [((at_ns - self._start_ns) / 1e9, text) for at_ns, text in generator.ending["events"]]
        found.events.sort()
        unexplained = failed - sum(found.errors.values())
        if found.dead and unexplained > 0:
            found.errors[GENERATOR_LOST] = unexplained
        return found


@contextmanager
def _interrupts_to(act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGINT calls `act`; outside the main thread signals are somebody else's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
