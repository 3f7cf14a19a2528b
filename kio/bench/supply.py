"""The supply: operations drawn before the run begins, so that drawing them costs the run nothing."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from kio.bench.plan import Plan

#: The closed loop does not know how many it will need. Past what these rates come to, it draws while it runs: the first
#: is for requests of one operation, which cost two system calls each, the second for any others.
_RATE_EXPECTED: Final = 150_000
_RATE_EXPECTED_MANY: Final = 1_250_000
_BEFOREHAND_MAX: Final = 1 << 22
#: Operations in one draw, before the run and during it.
_DRAW: Final = 1 << 15
_DRAW_RUNNING: Final = 1 << 9


class Source(Protocol):
    """An endless stream of operations; see operations.py."""

    def take(self, count: int) -> tuple[bytes, array[int], array[int]]:
        """The kinds, ids and sizes of the next `count` operations."""


class Supply:
    """A process's operations, a request's worth after the other. The loop takes them from the arrays itself."""

    def __init__(self, plan: Plan, process: int, source: Source, requests: int) -> None:
        """`requests` of the schedule; not looked at in the closed loop."""
        self._source = source
        #: Operations of one request.
        self.step = plan.operations_per_request
        #: Requests that the run may send: the closed loop's own bound, or -1 where the clock bounds it.
        self.requests_max = requests if plan.is_open_loop else _closed_requests(plan, process)
        self._beforehand = self.requests_max * self.step
        if self.requests_max < 0:
            rate = _RATE_EXPECTED if self.step == 1 else _RATE_EXPECTED_MANY
            self._beforehand = round(min(_BEFOREHAND_MAX, plan.seconds * rate / plan.processes))
            self._beforehand = max(1, self._beforehand // self.step) * self.step
        elif not plan.is_open_loop:
            self._beforehand = min(self._beforehand, max(1, _BEFOREHAND_MAX // self.step) * self.step)
        self.kinds = b""
        self.ids = array("Q")
        self.sizes = array("I")
        #: The next operation, and where those in the arrays end.
        self.at = 0
        self.end = 0
        #: Whether operations had to be drawn during the run.
        self.ran_dry = False

    def prepare(self, between: Callable[[], None]) -> None:
        """Draw what is drawn beforehand; `between` is called now and then."""
        kinds = bytearray()
        for count in _portions(self._beforehand, max(1, _DRAW // self.step) * self.step):
            drawn = self._source.take(count)
            kinds += drawn[0]
            self.ids += drawn[1]
            self.sizes += drawn[2]
            between()
        self.kinds = bytes(kinds)
        self.end = len(kinds)

    def draw(self) -> None:
        """More, in place of those that were used up; the first of them are taken."""
        self.ran_dry = True
        self.kinds, self.ids, self.sizes = self._source.take(max(1, _DRAW_RUNNING // self.step) * self.step)
        self.end = len(self.kinds)
        self.at = self.step


def _portions(total: int, most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, most)
        total -= most


def _closed_requests(plan: Plan, process: int) -> int:
    """The process's share of `count`, in whole requests; -1 where there is no count."""
    if not plan.count:
        return -1
    requests = -(-plan.count // plan.operations_per_request)
    return requests // plan.processes + (process < requests % plan.processes)
