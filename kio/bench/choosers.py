"""Choosers: which record an operation is about.

    "uniform"                              every record alike
    "zipf:THETA"                           the record of rank k as often as 1 / k**THETA
    "latest:THETA"                         the same, ranked by age: the newest record has rank 1
    "hotset:KEYS_SHARE:OPERATIONS_SHARE"   that share of the operations goes to that share of the records

The zipf distribution is exact for every theta and number of records, and costs no set-up. Source: Hoermann and
Derflinger, "Rejection-Inversion to Generate Variates from Monotone Discrete Distributions" (ACM TOMACS 6:3, 1996).
Ranks are scattered over the ids by a bijection that all processes share, so that hot records are no neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import exp, expm1, gcd, log, log1p
from typing import Final

from kio.errors import ConfigError

THETA_MAX: Final = 10.0
_GOLDEN: Final = 0.6180339887498949
_FORMS: Final = '"uniform", "zipf:THETA", "latest:THETA" or "hotset:KEYS_SHARE:OPERATIONS_SHARE"'


class Chooser:
    """Ids of records that exist."""

    def take(self, count: int) -> list[int]:
        """The next `count` ids."""
        raise NotImplementedError

    def grow(self, newest: int) -> None:
        """A record was inserted. Only `latest` asks for such; the others keep to what was there before the run."""


#: (records before the run, seed that all processes share, this process's own source) -> chooser
Recipe = Callable[[int, int, random.Random], Chooser]


def parse_chooser(text: str) -> Recipe:
    """What makes the choosers that `text` describes.

    Raises:
        ConfigError: when it is none of the forms, or a number is out of range.
    """
    name, *fields = text.split(":")
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = []
    match name, numbers:
        case "uniform", [] if not fields:
            return lambda records, seed, source: _Uniform(records, source)
        case "zipf", [theta] if 0 < theta <= THETA_MAX:
            return lambda records, seed, source: _Zipf(records, seed, source, theta)
        case "latest", [theta] if 0 < theta <= THETA_MAX:
            return lambda records, seed, source: _Latest(records, source, theta)
        case "hotset", [keys, operations] if 0 < keys < 1 and 0 <= operations <= 1:
            return lambda records, seed, source: _HotSet(records, seed, source, keys, operations)
    raise ConfigError(f'"{text}" is no chooser of keys; say {_FORMS}, theta up to {THETA_MAX:g}, shares below 1')


class _Uniform(Chooser):
    """Every record alike."""

    def __init__(self, records: int, source: random.Random) -> None:
        self._records = records
        self._uniform = source.random

    def take(self, count: int) -> list[int]:
        uniform, records = self._uniform, self._records
        return [int(uniform() * records) for _ in range(count)]


class _Zipf(Chooser):
    """Zipf's law over scattered ranks."""

    def __init__(self, records: int, seed: int, source: random.Random, theta: float) -> None:
        self._records = records
        self._factor, self._offset = scatter(records, seed)
        self._ranks = ZipfRanks(records, theta, source)

    def take(self, count: int) -> list[int]:
        factor, offset, records = self._factor, self._offset, self._records
        return [(rank * factor + offset) % records for rank in self._ranks.take(count)]


class _Latest(Chooser):
    """Zipf's law over age.

    The newest is the last that this process inserted: what others have inserted meanwhile is theirs to know, and the
    ids between two inserts of one process belong to them.
    """

    def __init__(self, records: int, source: random.Random, theta: float) -> None:
        self._newest = records - 1
        self._ranks = ZipfRanks(records, theta, source)

    def take(self, count: int) -> list[int]:
        newest = self._newest + 1
        return [newest - rank for rank in self._ranks.take(count)]

    def grow(self, newest: int) -> None:
        self._newest = newest
        self._ranks.resize(newest + 1)


class _HotSet(Chooser):
    """Two kinds of records, hot and cold, each uniform."""

    def __init__(self, records: int, seed: int, source: random.Random, keys: float, operations: float) -> None:
        self._records = records
        self._hot = max(1, round(records * keys))
        self._share = operations if self._hot < records else 1.0
        self._factor, self._offset = scatter(records, seed)
        self._uniform = source.random

    def take(self, count: int) -> list[int]:
        uniform, share, hot, records = self._uniform, self._share, self._hot, self._records
        cold = records - hot
        factor, offset = self._factor, self._offset
        ranks = [int(uniform() * hot) if uniform() < share else hot + int(uniform() * cold) for _ in range(count)]
        return [(rank * factor + offset) % records for rank in ranks]


class ZipfRanks:
    """Ranks 1 to n, of which k comes with a probability proportional to 1 / k**theta.

    Under the curve x**-theta a point is drawn by inverting its integral, and its x is rounded to a rank. The strip of a
    rank under the curve is a little larger than the rank's probability, so a point in the surplus is drawn again: at
    most every few draws.
    """

    def __init__(self, n: int, theta: float, source: random.Random) -> None:
        self._theta = theta
        self._exponent = 1 - theta
        self._uniform = source.random
        #: A rank that is this little above its x is in no surplus, which saves looking closer.
        self._surely = 2 - self._inverse(self._integral(2.5) - 2**-theta)
        self._lowest = self._integral(1.5) - 1
        self.resize(n)

    def resize(self, n: int) -> None:
        """Draw from ranks 1 to `n` from now on."""
        self._n = n
        self._highest = self._integral(n + 0.5)
        if self._theta > 1:
            # The integral's limit, which float precision would reach, has no inverse.
            self._highest = min(self._highest, (1 - 2**-50) / -self._exponent)

    def take(self, count: int) -> list[int]:
        """The next `count` ranks."""
        uniform, exponent, theta = self._uniform, self._exponent, self._theta
        surely, n, lowest = self._surely, self._n, self._lowest
        span = self._highest - lowest
        ranks = []
        for _ in range(count):
            while True:
                area = lowest + uniform() * span
                # _inverse, written out: this is the generator's own speed.
                x = exp(log1p(area * exponent) / exponent) if exponent else exp(area)
                rank = min(int(x + 0.5), n) or 1
                if rank - x <= surely or area >= self._integral(rank + 0.5) - rank**-theta:
                    break
            ranks.append(rank)
        return ranks

    def _integral(self, x: float) -> float:
        """Of x**-theta from 1 to `x`, precise however close theta is to 1."""
        return expm1(self._exponent * log(x)) / self._exponent if self._exponent else log(x)

    def _inverse(self, area: float) -> float:
        return exp(log1p(area * self._exponent) / self._exponent) if self._exponent else exp(area)


def scatter(records: int, seed: int) -> tuple[int, int]:
    """A factor and an offset: `(rank * factor + offset) % records` gives every rank an id of its own."""
    factor = max(1, round(records * _GOLDEN))
    while gcd(factor, records) > 1:
        factor += 1
    return factor, random.Random(f"{seed} scatter").randrange(records)  # noqa: S311
