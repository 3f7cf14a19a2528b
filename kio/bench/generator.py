"""A generator process: lines of JSON with the coordinator, everything prepared before the start, then the loop.

    python -m kio.bench.generator

    <- {"plan": ..., "process": 0, "ledger_fd": 3, "start_ns": null}
    -> {"ready": true}                          or {"error": {"code": "ConfigError", "message": ...}} and exit code 2
    <- {"start_ns": N}                          CLOCK_MONOTONIC, the same for all processes
    -> {"errors": {"Overloaded": 3}, "events": [[at_ns, text], ...]}

It ends at once when stdin does: then the coordinator is gone. It ignores SIGINT, which a terminal sends to the whole
group; the coordinator asks it to stop through the ledger.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from array import array
from typing import Any, Final

from kio.bench.arrivals import schedule
from kio.bench.connection import Connection
from kio.bench.fleet import Fleet
from kio.bench.frames import Tally
from kio.bench.ledger import Ledger
from kio.bench.loop import CoordinatorGone, Loop
from kio.bench.operations import Operations
from kio.bench.plan import Plan
from kio.bench.precision import wake_on_time
from kio.bench.supply import Supply
from kio.bench.targets import parse_target
from kio.errors import KioError

#: Exit codes.
DONE: Final = 0
GONE: Final = 1
REFUSED: Final = 2
_READ_BYTES: Final = 64 << 10


class Control:
    """The coordinator's end of stdin and stdout."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self._stdout = stdout
        self._got = b""

    def line(self) -> dict[str, Any]:
        """The next line; waits for it. Raises CoordinatorGone when there is none."""
        while b"\n" not in self._got:
            data = os.read(self.stdin, _READ_BYTES)
            if not data:
                raise CoordinatorGone
            self._got += data
        line, _, self._got = self._got.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def look(self) -> None:
        """Raise CoordinatorGone when stdin has ended; what has come is kept for `line`."""
        if select.select([self.stdin], [], [], 0)[0]:
            data = os.read(self.stdin, _READ_BYTES)
            if not data:
                raise CoordinatorGone
            self._got += data

    def tell(self, message: dict[str, Any]) -> None:
        """Write one line."""
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._stdout, data) :]
        except BrokenPipeError:
            raise CoordinatorGone from None


def prepare(task: dict[str, Any], control: Control) -> tuple[Loop, Fleet, Tally]:
    """Everything that can be done before the start."""
    plan = Plan.from_dict(task["plan"])
    process = task["process"]
    ledger = Ledger.attach(task["ledger_fd"])
    ledger.is_closed_loop = int(not plan.is_open_loop)
    target = parse_target(plan.url)
    tally = Tally()
    # Connections first: a wrong URL is told at once.
    connections = [Connection(target, plan, tally) for _ in range(_share(plan.connections, plan.processes, process))]
    for connection in connections:
        connection.open()
        control.look()
    due = schedule(plan, process) if plan.is_open_loop else array("q")
    supply = Supply(plan, process, Operations(plan, process), len(due))
    supply.prepare(control.look)
    fleet = Fleet(connections)
    return Loop(plan, ledger, fleet, target.encoder(plan), supply, due, tally, control.stdin), fleet, tally


def work(control: Control) -> int:
    """One run; the exit code."""
    task = control.line()
    try:
        loop, fleet, tally = prepare(task, control)
    except KioError as error:
        control.tell({"error": {"code": type(error).__name__, "message": str(error)}})
        return REFUSED
    wake_on_time()
    gc.collect()
    gc.freeze()
    gc.disable()
    start_ns = task["start_ns"]
    control.tell({"ready": True})
    if start_ns is None:
        start_ns = control.line()["start_ns"]
    loop.run(start_ns)
    fleet.close()
    control.tell({"errors": tally.errors, "events": fleet.events})
    return DONE


def main() -> int:
    """Work for the coordinator at stdin and stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return work(Control(sys.stdin.fileno(), sys.stdout.fileno()))
    except CoordinatorGone:
        return GONE


def _share(total: int, processes: int, process: int) -> int:
    """A process's part of `total` things, at least one."""
    return max(1, total // processes + (process < total % processes))


if __name__ == "__main__":
    sys.exit(main())
