"""Whether draws fit a distribution: Pearson's chi-square test."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Of a right sampler one test in 10,000 fails; seeds are fixed, so that one which passed passes always.
_Z: float = 3.72
_EXPECTED_MIN: float = 20.0


def fits(counts: Sequence[int], probabilities: Sequence[float]) -> bool:
    """Whether `counts` of a place each may have come from these probabilities, which add up to 1.

    Neighbours are taken together until each group expects enough draws.
    """
    assert len(counts) == len(probabilities)
    assert math.isclose(math.fsum(probabilities), 1, rel_tol=1e-9)
    draws = sum(counts)
    groups = _grouped([probability * draws for probability in probabilities], counts)
    assert groups, "too few draws to tell anything"
    chi_square = math.fsum((found - expected) ** 2 / expected for expected, found in groups)
    return chi_square <= _critical(len(groups) - 1)


def _grouped(expected: Sequence[float], counts: Sequence[int]) -> list[tuple[float, int]]:
    groups: list[tuple[float, int]] = []
    expected_sum, count_sum = 0.0, 0
    for one, count in zip(expected, counts, strict=True):
        expected_sum += one
        count_sum += count
        if expected_sum >= _EXPECTED_MIN:
            groups.append((expected_sum, count_sum))
            expected_sum, count_sum = 0.0, 0
    if groups:
        last_expected, last_count = groups.pop()
        groups.append((last_expected + expected_sum, last_count + count_sum))
    return groups


def _critical(freedom: int) -> float:
    """The chi-square that is not exceeded (Wilson and Hilferty's approximation)."""
    if not freedom:
        return 1e-9
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + _Z * math.sqrt(spread)) ** 3
