"""Sizes of keys and values: fixed, or drawn from a distribution.

    "100"                  always 100 bytes
    "10-200"               uniform, both ends included
    "64:9,4096:1"          nine in ten of 64 bytes, one of 4,096
    "pareto:SCALE:SHAPE"   generalised Pareto from 0, rounded up, cut at 1 MiB

Source of the last: Atikoglu et al., "Workload Analysis of a Large-Scale Key-Value Store" (SIGMETRICS 2012), which
fits values of 15 bytes and more of the general-purpose pool ETC with pareto:214.476:0.348238.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from kio.errors import ConfigError
from kio.limits import MIB

PARETO_BYTES_MAX: Final = MIB
_FORMS: Final = '"N", "LOW-HIGH", "N:WEIGHT,N:WEIGHT,..." or "pareto:SCALE:SHAPE"'


@dataclass(frozen=True)
class Sizes:
    """A distribution of sizes in bytes."""

    bytes_min: int
    bytes_max: int
    _mean: float
    #: The size below which a share (0 to less than 1) of all sizes lies: the inverse of the distribution.
    _quantile: Callable[[float], int]

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one size."""
        return self.bytes_min == self.bytes_max

    def of(self, id_hash: int) -> int:
        """The size that belongs to a 64-bit hash, always the same."""
        return self._quantile((id_hash >> 11) * 2**-53)

    def sample(self, source: random.Random, count: int) -> array[int]:
        """`count` sizes."""
        if self.is_fixed:
            return array("I", [self.bytes_min]) * count
        quantile, uniform = self._quantile, source.random
        return array("I", [quantile(uniform()) for _ in range(count)])

    def mean(self) -> float:
        """The mean size."""
        return self._mean


def parse_sizes(text: str) -> Sizes:
    """The distribution that `text` describes.

    Raises:
        ConfigError: when it is none of the forms, or a number is out of range.
    """
    try:
        return _parsed(text)
    except ValueError as error:
        why = f": {error}" if isinstance(error, _OutOfRange) else ""
        raise ConfigError(f'"{text}" is no size{why}; say {_FORMS}') from None


class _OutOfRange(ValueError):
    """Raised when numbers are well-formed but make no distribution."""


def _parsed(text: str) -> Sizes:
    if text.startswith("pareto:"):
        _, scale, shape = text.split(":")
        return _pareto(float(scale), float(shape))
    if ":" in text:
        return _weighted(
            [(_size(size), float(weight)) for size, weight in (part.split(":") for part in text.split(","))]
        )
    low, dash, high = text.partition("-")
    return _uniform(_size(low), _size(high if dash else low))


def _size(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    if int(text) < 1:
        raise _OutOfRange("the least is 1 byte")
    return int(text)


def _uniform(low: int, high: int) -> Sizes:
    if low > high:
        raise _OutOfRange("the lower end comes first")
    span = high - low + 1
    return Sizes(low, high, (low + high) / 2, lambda share: low + int(share * span))


def _weighted(parts: list[tuple[int, float]]) -> Sizes:
    if not all(0 < weight < math.inf for _, weight in parts):
        raise _OutOfRange("weights are above 0")
    sizes = [size for size, _ in parts]
    ends = list(accumulate(weight for _, weight in parts))
    total = ends.pop()
    mean = sum(size * weight for size, weight in parts) / total
    return Sizes(min(sizes), max(sizes), mean, lambda share: sizes[bisect_right(ends, share * total)])


def _pareto(scale: float, shape: float) -> Sizes:
    if not (0 < scale <= PARETO_BYTES_MAX and 0 < shape < 1):
        raise _OutOfRange(f"the scale is above 0 and at most {PARETO_BYTES_MAX}, the shape above 0 and below 1")
    factor = scale / shape

    def quantile(share: float) -> int:
        size = math.ceil(factor * (math.pow(1 - share, -shape) - 1))
        return min(max(size, 1), PARETO_BYTES_MAX)

    # Of the part below the cut; rounding up adds half a byte.
    mean = scale / (1 - shape) * (1 - math.pow(1 + PARETO_BYTES_MAX / factor, 1 - 1 / shape))
    return Sizes(1, PARETO_BYTES_MAX, mean + 0.5, quantile)
