"""A run of one generator process, driven as the coordinator drives it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from kio.bench.ledger import Ledger
from kio.bench.plan import Plan

HEAD_START_NS = 20_000_000


@dataclass
class Generator:
    """A process that has been given its task."""

    process: subprocess.Popen[bytes]
    ledger: Ledger

    def tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}"
        message: dict[str, Any] = json.loads(line)
        return message

    def start(self) -> int:
        """Let it begin; when that is."""
        assert self.line() == {"ready": True}
        start_ns = time.monotonic_ns() + HEAD_START_NS
        self.tell({"start_ns": start_ns})
        return start_ns

    def end(self) -> dict[str, Any]:
        """Its last line; it ends with code 0."""
        message = self.line()
        assert self.process.wait() == 0
        return message


@contextmanager
def generator(plan: Plan, process: int = 0) -> Iterator[Generator]:
    """One process of `plan`."""
    ledger = Ledger.create()
    started = subprocess.Popen(
        [sys.executable, "-m", "kio.bench.generator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[ledger.fd],
    )
    assert started.stdin is not None
    assert started.stdout is not None
    made = Generator(started, ledger)
    try:
        made.tell({"plan": plan.as_dict(), "process": process, "ledger_fd": ledger.fd, "start_ns": None})
        yield made
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        with suppress(BrokenPipeError):
            started.stdin.close()
        started.stdout.close()
        ledger.close()


@dataclass
class Figures:
    """What a run left, after its ledger is gone."""

    done: int
    failed: int
    missing: int
    sent: int
    due: int
    unsent: int
    connections_lost: int
    elapsed_s: float
    stall_s: float
    cpu_s: float
    errors: dict[str, int]
    events: list[str]
    corrected: dict[str, float]
    uncorrected: dict[str, float]
    lateness: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)


def figures(made: Generator, told: dict[str, Any]) -> Figures:
    """What stands in the ledger and in the last line."""
    ledger = made.ledger
    return Figures(
        done=ledger.operations_done,
        failed=ledger.operations_failed,
        missing=ledger.operations_missing,
        sent=ledger.operations_sent,
        due=ledger.operations_due,
        unsent=ledger.operations_unsent,
        connections_lost=ledger.connections_lost,
        elapsed_s=(ledger.finished_ns - ledger.started_ns) / 1e9,
        stall_s=ledger.stall_ns_max / 1e9,
        cpu_s=ledger.cpu_ns / 1e9,
        errors=told["errors"],
        events=[text for _, text in told["events"]],
        corrected=ledger.corrected.summary(),
        uncorrected=ledger.uncorrected.summary(),
        lateness=ledger.lateness.summary(),
        counts={
            "corrected": ledger.corrected.count,
            "uncorrected": ledger.uncorrected.count,
            "lateness": ledger.lateness.count,
        },
    )


def run(plan: Plan) -> Figures:
    """A whole run of one process."""
    with generator(plan) as made:
        made.start()
        return figures(made, made.end())
