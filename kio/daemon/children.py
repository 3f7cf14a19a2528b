"""When a child is started again, and when no longer.

Sans-I/O: the supervisor tells what happened and when (monotonic seconds); a `Lifecycle` answers with its state and
`start_at`.

    waiting --started--> starting --ready--> serving --stop--> stopping --exited--> stopped
       ^                    | exited            | exited
       |                    v                   v
       +---- at start_at --- backing-off <-- (or at once) ; after FAILURES_MAX failures: broken, start_at is
       BROKEN_RETRY_S away

The policy:
  * a child that was ready and was told to end (SIGTERM, SIGKILL, exit 0) starts again at once: that is an operator, or
    the kernel's OOM killer, and says nothing against the child;
  * one that crashed after it had been ready for STEADY_S starts at once too;
  * a *failure* is a crash before that, or any end before it was ready. It backs off, BACKOFF_S doubling to
    BACKOFF_MAX_S; FAILURES_MAX of them within FAILURE_WINDOW_S open the breaker. While it is open each retry is one
    chance;
  * a kill before it was ready is a weak failure: it waits BACKOFF_S, it is forgotten as soon as the child is ready, and
    it takes KILLS_MAX of them. A child that is killed once a second while it needs most of one to start must not be
    given up.
A child with `breaks=False` (the router: without it nobody is served) is retried for ever, at most BACKOFF_MAX_S apart.
"""

from __future__ import annotations

import signal
from collections import deque
from typing import Final, Literal

State = Literal["waiting", "starting", "serving", "stopping", "stopped", "backing-off", "broken"]

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
STEADY_S: Final = 5.0
FAILURES_MAX: Final = 5
KILLS_MAX: Final = 20
FAILURE_WINDOW_S: Final = 60.0
BROKEN_RETRY_S: Final = 60.0

#: Ends that somebody outside wanted.
_ORDERED: Final = frozenset({0, -signal.SIGTERM, -signal.SIGKILL})


class Lifecycle:
    """The lives of one child.

    Attributes:
        state: see the module.
        incarnation: how often it was started.
        start_at: when it is to be started next; None while it runs or is not wanted.
        reason: why it ended last, for people; empty while all is well.
    """

    def __init__(self, *, now: float, breaks: bool = True) -> None:
        self.state: State = "waiting"
        self.incarnation = 0
        self.start_at: float | None = now
        self.reason = ""
        self._breaks = breaks
        self._is_broken = False
        self._ready_at: float | None = None
        self._failures: deque[float] = deque()
        self._kills: deque[float] = deque()

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.incarnation - 1)

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.state in ("starting", "serving", "stopping")

    def is_due(self, now: float) -> bool:
        """Whether it is to be started now."""
        return self.start_at is not None and now >= self.start_at

    def started(self) -> None:
        """A process was started."""
        assert not self.is_running
        self.state = "starting"
        self.incarnation += 1
        self.start_at = None
        self._ready_at = None

    def ready(self, now: float) -> None:
        """The process says that it serves."""
        if self.state == "starting":
            self.state = "serving"
            self.reason = ""
            self._ready_at = now
            self._kills.clear()
            self._is_broken = False

    def stop(self) -> None:
        """It is not wanted any more: whatever ends from here on stays ended."""
        self.state = "stopping" if self.is_running else "stopped"
        self.start_at = None

    def exited(self, returncode: int, now: float, why: str = "") -> None:
        """The process ended; `why` is what it said of the cause, where it said something."""
        if self.state == "stopping":
            self.state = "stopped"
            return
        was_ready, is_ordered = self._ready_at is not None, returncode in _ORDERED
        self.reason = why or describe_exit(returncode)
        if was_ready and (is_ordered or now - (self._ready_at or now) >= STEADY_S):
            self._failures.clear()
            self._retry("waiting", now)
        elif is_ordered:
            self._note(self._kills, now)
            self._back_off(len(self._kills) >= KILLS_MAX, BACKOFF_S, now)
        else:
            self._note(self._failures, now)
            failures = len(self._failures)
            self._back_off(failures >= FAILURES_MAX, min(BACKOFF_S * 2 ** (failures - 1), BACKOFF_MAX_S), now)

    def _back_off(self, is_enough: bool, delay_s: float, now: float) -> None:
        if self._breaks and (is_enough or self._is_broken):
            self._is_broken = True
            self._retry("broken", now + BROKEN_RETRY_S)
        else:
            self._retry("backing-off", now + delay_s)

    def _retry(self, state: State, at: float) -> None:
        self.state = state
        self.start_at = at

    @staticmethod
    def _note(times: deque[float], now: float) -> None:
        times.append(now)
        while times[0] < now - FAILURE_WINDOW_S:
            times.popleft()


def describe_exit(returncode: int) -> str:
    """How a process ended, for people.

    >>> describe_exit(-9), describe_exit(1)
    ('killed by SIGKILL', 'exited with 1')
    """
    if returncode >= 0:
        return f"exited with {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


assert BACKOFF_S < BACKOFF_MAX_S < STEADY_S + BACKOFF_MAX_S < FAILURE_WINDOW_S
