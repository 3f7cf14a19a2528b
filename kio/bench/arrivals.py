"""The schedule: when each request of a generator process is due, made before the run and never changed by it.

Constant arrivals stand on one evenly spaced grid of the whole run, of which process p of P has every P-th moment. With
Poisson arrivals every process draws its own moments; together they are one Poisson stream again.
"""

from __future__ import annotations

import math
import random
from array import array
from typing import Final

from kio.bench.plan import Plan

_SECOND_NS: Final = 10**9


def schedule(plan: Plan, process: int) -> array[int]:
    """Nanoseconds after the start at which each request of this process is due, in order."""
    assert plan.is_open_loop
    gap_ns = plan.operations_per_request * _SECOND_NS / plan.rate
    if plan.arrivals == "constant":
        return array("q", [int(place * gap_ns) for place in _places(plan, process)])
    assert plan.arrivals == "poisson", plan.arrivals
    # Given how many there are, the arrivals of a Poisson process are as many uniform moments, sorted. Summing up
    # exponential gaps would be the same stream, but would end early or late and so miss the rate that was asked for.
    moment = random.Random(f"{plan.seed} arrivals {process}").random  # noqa: S311
    window_ns = _requests(plan) * gap_ns
    return array("q", sorted([int(moment() * window_ns) for _ in _places(plan, process)]))


def _places(plan: Plan, process: int) -> range:
    return range(process, _requests(plan), plan.processes)


def _requests(plan: Plan) -> int:
    """Requests of the whole run: what the rate and the time, or the count, come to, rounded up."""
    operations = plan.count or plan.rate * plan.seconds
    # Rounded first, as 0.1 times 30 is a little more than 3.
    return math.ceil(round(operations / plan.operations_per_request, 6))
