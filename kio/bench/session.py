"""A session: what `kio bench` does in order. Load the records, measure the floor, measure, clean up.

Each step is a run of generator processes of its own; a SIGINT in a step that is not the measurement ends the session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kio.bench import clean, floor, load, report, run, validation
from kio.bench.plan import Plan
from kio.bench.targets import connect, parse_target
from kio.bench.usage import Meter
from kio.errors import KioError

#: Opens a place where one step's progress is shown: what the step is called -> the watcher of its run.
Shown = Callable[[str], AbstractContextManager[run.Watch | None]]


def _unseen(_step: str) -> AbstractContextManager[run.Watch | None]:
    return nullcontext()


class Session:
    """The steps for one plan, or for a sweep of plans that differ in their rate."""

    def __init__(self, *, pid: int | None = None, with_floor: bool = True, shown: Shown = _unseen) -> None:
        self._pid = pid
        self._with_floor = with_floor
        self._shown = shown

    def check(self, plan: Plan) -> None:
        """Find out before anything is written what would end the run: another protocol, nobody there, no such process.

        Raises:
            KioError: the first thing that is wrong.
        """
        validation.check(plan)
        connect(parse_target(plan.url)).close()
        if self._pid is not None:
            Meter(self._pid)

    def load(self, plan: Plan) -> None:
        """Write the plan's records."""
        with self._shown("load") as watch:
            load.load(plan, watch)

    def measured(self, plan: Plan) -> dict[str, Any]:
        """The report of one run, its floor measured before it."""
        found_floor = None
        if self._with_floor:
            with self._shown("floor") as watch:
                found_floor = floor.measure_floor(plan, watch=watch)
        with self._shown(plan.workload) as watch:
            found = run.measure(plan, pid=self._pid, watch=watch)
        found.floor = found_floor
        return report.build(found)

    def clean(self, plan: Plan) -> None:
        """Delete the keys that load and runs of `plan` may have left."""
        with self._shown("clean"):
            clean.clean(plan)


def is_reachable(url: str) -> bool:
    """Whether the server takes a connection now."""
    try:
        connect(parse_target(url)).close()
    except KioError:
        return False
    return True
