"""The schedule: when each request of a generator process is due, made before the run and never changed by it.

Constant arrivals stand on one evenly spaced grid of the whole run, of which process p of P has every P-th moment. With
Poisson arrivals every process draws its own moments; together they are one Poisson stream again.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from kio.bench.plan import Plan

_SECOND_NS: Final = 10**9


def schedule(plan: Plan, process: int) -> array[int]:
    """Nanoseconds after the start at which each request of this process is due, in order."""
    assert plan.is_open_loop
    gap_ns = plan.operations_per_request * _SECOND_NS / plan.rate
    places = _places(plan, process)
    if plan.arrivals == "constant":
        return array("q", (int(place * gap_ns) for place in places))
    assert plan.arrivals == "poisson", plan.arrivals
    # As many exponential gaps as there are requests, and one to the end, scaled to fill the window: what a Poisson
    # process looks like whose arrivals are counted. Unscaled, it would end early or late and so miss the rate.
    scale = _requests(plan) * gap_ns / sum(_exponentials(plan, process, len(places) + 1))
    return array("q", (int(at * scale) for at in accumulate(_exponentials(plan, process, len(places)))))


def _exponentials(plan: Plan, process: int, count: int) -> Iterator[float]:
    """The first `count` gaps of a process, of mean 1; drawn again rather than kept, as there may be many."""
    draw = random.Random(f"{plan.seed} arrivals {process}").expovariate  # noqa: S311
    return (draw(1.0) for _ in range(count))


def _places(plan: Plan, process: int) -> range:
    return range(process, _requests(plan), plan.processes)


def _requests(plan: Plan) -> int:
    """Requests of the whole run: what the rate and the time, or the count, come to, rounded up."""
    operations = plan.count or plan.rate * plan.seconds
    # Rounded first, as 0.1 times 30 is a little more than 3.
    return math.ceil(round(operations / plan.operations_per_request, 6))
