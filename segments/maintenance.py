"""Maintenance: what keeps a shard small on disk and quick to open, done while it serves.

An activity (a compaction, a checkpoint) is a generator that the store's thread resumes for a slice at a time. It yields

    SLICE         after SLICE_US of work at the most: requests go first
    a Job         run by a helper thread; the activity goes on when it has run, and reads its `error`
    Durable(lsn)  the activity goes on when every record up to that LSN is on disk

Planners are asked in turn whether there is anything to do: every PLAN_INTERVAL_S, at once when an activity has come to
its end, and when somebody knows that one of them wants something (`hurry`). The first activity that one of them gives
is run to its end before any is asked again; then its planner is the last in the row, so that none keeps the others
waiting. An activity returns whether it did something: if not, its planner is not asked again for PLAN_INTERVAL_S.
Invariants:
  * one activity at a time: so a compaction and a checkpoint never see each other half done (checkpoint.py needs that);
  * an activity that is given up (a clean stop, an error of the disk) cleans up in its own `finally`.
Crash: nothing is kept here; what an activity leaves on disk is its own business, and recovery's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from kio.log import Log
from kio.segments.jobs import Job
from kio.segments.reserve import is_full

#: Requests wait at most about this long for a slice, in microseconds.
SLICE_US: Final = 200
PLAN_INTERVAL_S: Final = 0.25
#: After an activity failed its planners are asked again so much later.
RETRY_S: Final = 5.0
#: The same where the disk has no room.
FULL_RETRY_S: Final = 1.0


class Pause(Enum):
    """The type of SLICE."""

    SLICE = "slice"


SLICE: Final = Pause.SLICE


class Durable(NamedTuple):
    """Go on when everything up to `lsn` is on disk."""

    lsn: int


Steps = Generator[Pause | Job | Durable, None, bool]


class Activity(NamedTuple):
    """A piece of maintenance: what the log calls it, and its steps."""

    name: str
    steps: Steps


#: Given the monotonic clock in seconds: an activity that should run now, or None.
Planner = Callable[[float], Activity | None]


@dataclass(eq=False)
class _Turn:
    """A planner in the row, and when it may be asked again."""

    planner: Planner
    not_before_s: float = 0.0


class Maintenance:
    """The maintenance of one shard. Used by the store's thread only.

    Args:
        planners: asked in turn.
        durable_lsn: tells the shard's durable LSN.
    """

    def __init__(self, log: Log, planners: list[Planner], durable_lsn: Callable[[], int]) -> None:
        # Set once.
        self._log = log
        self._planners = deque(_Turn(planner) for planner in planners)
        self._durable_lsn = durable_lsn
        # The activity under way, and what it waits for.
        self._activity: Activity | None = None
        self._waits_for: Pause | Job | Durable = SLICE
        self._is_job_taken = False
        self._plan_at_s = 0.0
        self._retry_at_s = 0.0

    @property
    def name(self) -> str:
        """The activity under way; empty when there is none."""
        return self._activity.name if self._activity is not None else ""

    @property
    def lsn_wanted(self) -> int:
        """The LSN whose durability the activity waits for, or 0."""
        return self._waits_for.lsn if self._activity is not None and isinstance(self._waits_for, Durable) else 0

    def hurry(self) -> None:
        """Ask the planners at the next slice already, unless they wait because the disk refused something."""
        self._plan_at_s = self._retry_at_s

    def slice(self, now_s: float) -> bool:
        """Run one slice of what is under way, or plan; True when another slice could run at once."""
        if self._activity is None:
            self._plan(now_s)
        if not self._is_ready():
            return False
        self._resume(now_s)
        if self._activity is None:
            self._plan(now_s)
        return self._is_ready()

    def _is_ready(self) -> bool:
        """Whether there is an activity that could go on now."""
        if self._activity is None or isinstance(self._waits_for, Job):
            return False
        return not isinstance(self._waits_for, Durable) or self._waits_for.lsn <= self._durable_lsn()

    def job(self) -> Job | None:
        """The job that the activity waits for, once."""
        if self._activity is None or not isinstance(self._waits_for, Job) or self._is_job_taken:
            return None
        self._is_job_taken = True
        return self._waits_for

    def finish(self, job: Job) -> None:
        """A job has run: if it is the activity's, the next slice goes on behind it."""
        if self._activity is not None and self._waits_for is job:
            self._waits_for = SLICE

    def stop(self) -> None:
        """Give the activity up."""
        if self._activity is not None:
            self._activity.steps.close()
            self._activity = None

    def _plan(self, now_s: float) -> None:
        if now_s < self._plan_at_s:
            return
        self._plan_at_s = now_s + PLAN_INTERVAL_S
        for turn in tuple(self._planners):
            if now_s < turn.not_before_s:
                continue
            self._activity = turn.planner(now_s)
            if self._activity is not None:
                self._planners.remove(turn)
                self._planners.append(turn)
                self._waits_for = SLICE
                return

    def _resume(self, now_s: float) -> None:
        assert self._activity is not None
        try:
            self._waits_for = next(self._activity.steps)
            self._is_job_taken = False
        except StopIteration as end:
            self._activity = None
            self._plan_at_s = now_s
            if not end.value:
                self._planners[-1].not_before_s = now_s + PLAN_INTERVAL_S
        except OSError as error:
            self._log.warning(f"{self._activity.name} failed", reason=str(error))
            self._activity = None
            self._plan_at_s = self._retry_at_s = now_s + (FULL_RETRY_S if is_full(error) else RETRY_S)
