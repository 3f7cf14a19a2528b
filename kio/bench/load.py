"""The load phase: write the records that a run will ask for.

Loading is a run like any other, a closed loop of inserts in large requests, so that its keys and values are those of
the run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kio.bench import run
from kio.bench.plan import Plan
from kio.bench.sizes import parse_sizes
from kio.errors import Unavailable

CONNECTIONS: Final = 4
#: A request of the load phase is about this large, but has at most so many commands.
REQUEST_BYTES: Final = 256 << 10
PIPELINE_MAX: Final = 100


def load(plan: Plan, watch: run.Watch | None = None) -> None:
    """Write the plan's records, whatever is there.

    Raises:
        KioError: when the server cannot be reached, or did not take every record.
        KeyboardInterrupt: when it was interrupted.
    """
    found = run.measure(load_plan(plan), watch=watch)
    if found.interrupted:
        raise KeyboardInterrupt
    if found.errors or found.dead or found.operations < plan.records:
        told = ", ".join(f"{code} {number:,}" for code, number in found.errors.items()) or "; ".join(found.dead)
        raise Unavailable(f"only {found.operations:,} of {plan.records:,} records were written: {told}")


def load_plan(plan: Plan) -> Plan:
    """The run that writes the records of `plan`: ids 0 to records - 1, each once (and the rest of the last request)."""
    record_bytes = parse_sizes(plan.key_bytes).mean() + parse_sizes(plan.value_bytes).mean()
    pipeline = min(PIPELINE_MAX, max(1, int(REQUEST_BYTES / max(1.0, record_bytes))))
    return replace(
        plan,
        workload="load",
        mix={"insert": 1.0},
        keys="uniform",
        records=0,
        rate=0.0,
        count=-(-plan.records // pipeline) * pipeline,
        connections=CONNECTIONS,
        depth=1,
        pipeline=pipeline,
        batch=1,
        processes=1,
    )
