"""A histogram of latencies: 1 us to 60 s, three significant digits, in memory that another process may share.

    +--------------------------------------------------+--------+------------+
    | how many latencies fell into slot 0, slot 1, ... | max_us | over_range |    64-bit words
    +--------------------------------------------------+--------+------------+

Below 2,048 us every microsecond has a slot; above, each doubling of the latency has 1,024 slots, so that a slot is
never wider than a thousandth of what stands in it. Merging adds slot to slot and loses nothing: percentiles of the
merged histogram are those of one that had recorded everything.

A latency above 60 s counts in the last slot and in `over_range`; `max_us` is always the true one.
Source: Gil Tene, HdrHistogram (its layout at three digits).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

#: The longest latency that has a slot of its own.
US_MAX: Final = 60_000_000
#: A power of two: slots per doubling, and half of the latencies that have a slot each.
_SLOTS_PER_DOUBLING: Final = 1024
_SINGLE_US: Final = 2 * _SLOTS_PER_DOUBLING
_INDEX_BITS: Final = _SINGLE_US.bit_length() - 1


def index(us: int) -> int:
    """The slot in which `us` counts."""
    if us < _SINGLE_US:
        return us
    shift = us.bit_length() - _INDEX_BITS
    return shift * _SLOTS_PER_DOUBLING + (us >> shift)


def lowest(slot: int) -> int:
    """The shortest latency that counts in `slot`."""
    if slot < _SINGLE_US:
        return slot
    shift = slot // _SLOTS_PER_DOUBLING - 1
    return (slot - shift * _SLOTS_PER_DOUBLING) << shift


SLOTS: Final = index(US_MAX) + 1
_MAX_US: Final = SLOTS
_OVER_RANGE: Final = SLOTS + 1
WORDS: Final = SLOTS + 2
#: What a histogram in shared memory needs.
SIZE_BYTES: Final = WORDS * 8

assert index(_SINGLE_US - 1) + 1 == index(_SINGLE_US)
assert index(2 * _SINGLE_US - 1) + 1 == index(2 * _SINGLE_US)
assert lowest(SLOTS - 1) <= US_MAX


class Histogram:
    """Latencies in microseconds. One writer; who reads beside it may see a latency before it is the maximum."""

    __slots__ = ("_words",)

    def __init__(self, slots: memoryview | None = None) -> None:
        """In memory of its own, or in `slots`: 64-bit words as `memoryview.cast("Q")` gives them, WORDS of them."""
        self._words = memoryview(bytearray(SIZE_BYTES)).cast("Q") if slots is None else slots
        assert len(self._words) == WORDS and self._words.format == "Q"

    def record(self, us: int, n: int = 1) -> None:
        """Count a latency `n` times."""
        words = self._words
        if us < _SINGLE_US:
            assert us >= 0, us
            words[us] += n
        elif us <= US_MAX:
            shift = us.bit_length() - _INDEX_BITS
            words[shift * _SLOTS_PER_DOUBLING + (us >> shift)] += n
        else:
            words[SLOTS - 1] += n
            words[_OVER_RANGE] += n
        if us > words[_MAX_US]:
            words[_MAX_US] = us

    def merge(self, other: Histogram) -> None:
        """Add what `other` has counted."""
        mine, theirs = self._words, other._words
        for slot, n in other._filled():
            mine[slot] += n
        mine[_OVER_RANGE] += theirs[_OVER_RANGE]
        mine[_MAX_US] = max(mine[_MAX_US], theirs[_MAX_US])

    @property
    def count(self) -> int:
        """Latencies recorded. Cost: it adds up the slots, so that recording need not."""
        return sum(self._words[:SLOTS])

    @property
    def max_us(self) -> int:
        """The longest latency, also when it was above 60 s; 0 while there is none."""
        return self._words[_MAX_US]

    @property
    def over_range(self) -> int:
        """Latencies above 60 s."""
        return self._words[_OVER_RANGE]

    def percentile(self, p: float) -> int:
        """The latency that at least `p` percent did not exceed; 0 while there is none."""
        return self._percentiles((p,))[0]

    def mean(self) -> float:
        """The mean, to the precision of the slots; 0 while there is none."""
        count = total = 0
        for slot, n in self._filled():
            count += n
            total += n * (lowest(slot) + self._highest(slot))
        return total / 2 / count if count else 0.0

    def summary(self) -> dict[str, float]:
        """What a report shows: p50, p90, p99, p999 and max as whole microseconds, and the mean."""
        p50, p90, p99, p999 = self._percentiles((50, 90, 99, 99.9))
        return {"p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": self.max_us, "mean": self.mean()}

    def sparse(self) -> list[list[int]]:
        """The slots that are not empty, as [their shortest latency, their count]."""
        return [[lowest(slot), n] for slot, n in self._filled()]

    def _percentiles(self, wanted: Iterable[float]) -> list[int]:
        so_far = list(accumulate(self._words[:SLOTS]))
        total = so_far[-1]
        if not total:
            return [0 for _ in wanted]
        # Rounded, as 99.9 percent of 1,000 would otherwise be a little more than 999.
        ranks = [max(1, math.ceil(round(p * total / 100, 6))) for p in wanted]
        return [self._highest(bisect_left(so_far, rank)) for rank in ranks]

    def _highest(self, slot: int) -> int:
        """The longest latency that `slot` stands for, as far as any was that long."""
        return min(lowest(slot + 1) - 1, self.max_us)

    def _filled(self) -> Iterator[tuple[int, int]]:
        return ((slot, n) for slot, n in enumerate(self._words[:SLOTS]) if n)
