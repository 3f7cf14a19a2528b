"""The histogram, by arithmetic and against the hdrhistogram package."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Callable

import pytest
from hdrh.histogram import HdrHistogram

from kio.bench.histogram import SIZE_BYTES, SLOTS, US_MAX, WORDS, Histogram, index, lowest

PERCENTILES = (50, 90, 99, 99.9, 100)
PRINTED = ("p50", "p90", "p99", "p999", "max")


def recorded(latencies: list[int]) -> Histogram:
    made = Histogram()
    for us in latencies:
        made.record(us)
    return made


def exact_percentile(ordered: list[int], p: float) -> int:
    return ordered[max(1, math.ceil(round(p * len(ordered) / 100, 6))) - 1]


def test_slots_cover_every_latency_once_and_are_never_wider_than_a_thousandth() -> None:
    assert lowest(0) == 0
    for slot in range(SLOTS):
        first, past = lowest(slot), lowest(slot + 1)
        assert index(first) == index(past - 1) == slot
        assert past - first <= max(1, first / 1000)
    assert lowest(SLOTS - 1) <= US_MAX < lowest(SLOTS)


def lognormal(source: random.Random) -> float:
    return source.lognormvariate(6, 1.2)


def stalled(source: random.Random) -> float:
    """A quick server that stood still for a second."""
    return source.uniform(0, 1_000_000) if source.random() < 0.05 else source.gauss(150, 20)


def heavy(source: random.Random) -> float:
    return 100 * source.paretovariate(0.7)


@pytest.mark.parametrize("draw", [lognormal, stalled, heavy])
def test_a_million_latencies_read_as_in_hdrhistogram(draw: Callable[[random.Random], float]) -> None:
    """And no percentile is more than a thousandth off the exact one."""
    source = random.Random(draw.__name__)
    latencies = [min(US_MAX, max(1, int(draw(source)))) for _ in range(1_000_000)]
    ours = recorded(latencies)
    theirs = HdrHistogram(1, US_MAX, 3)
    for us, n in Counter(latencies).items():
        theirs.record_value(us, n)
    ordered = sorted(latencies)
    summary = ours.summary()
    for p, name in zip(PERCENTILES, PRINTED, strict=True):
        assert summary[name] == pytest.approx(theirs.get_value_at_percentile(p), rel=0.01)
        assert summary[name] == pytest.approx(exact_percentile(ordered, p), rel=0.001, abs=1)
        assert ours.percentile(p) == summary[name]
    assert summary["mean"] == pytest.approx(theirs.get_mean_value(), rel=0.01)
    assert summary["mean"] == pytest.approx(sum(ordered) / len(ordered), rel=0.001)


def test_small_counts_have_the_nearest_rank() -> None:
    assert [recorded([7]).percentile(p) for p in (0, 50, 100)] == [7, 7, 7]
    hundred = recorded(list(range(1, 101)))
    assert [hundred.percentile(p) for p in (0, 1, 50, 50.1, 99, 99.9, 100)] == [1, 1, 50, 51, 99, 100, 100]
    assert recorded(list(range(1, 1001))).percentile(99.9) == 999


def test_an_empty_histogram_is_all_zeros() -> None:
    empty = Histogram()
    assert set(empty.summary().values()) == {0}
    assert empty.sparse() == []


def test_merging_is_exact() -> None:
    source = random.Random(4)
    parts = [[int(source.lognormvariate(7, 2)) for _ in range(n)] for n in (1, 700, 30_000)]
    parts.append([US_MAX + 5, 2 * US_MAX])
    merged = Histogram()
    for part in parts:
        merged.merge(recorded(part))
    whole = recorded([us for part in parts for us in part])
    assert merged.sparse() == whole.sparse()
    assert merged.summary() == whole.summary()
    assert (merged.count, merged.max_us, merged.over_range) == (whole.count, whole.max_us, whole.over_range)


def test_merging_an_empty_histogram_changes_nothing() -> None:
    one = recorded([5, 6, 7])
    before = one.summary()
    one.merge(Histogram())
    assert one.summary() == before


def test_recording_n_times_is_recording_n_times() -> None:
    at_once = Histogram()
    at_once.record(3_333, 5)
    assert at_once.sparse() == recorded([3_333] * 5).sparse()
    assert at_once.count == 5


def test_a_latency_above_the_range_is_clamped_counted_and_still_the_maximum() -> None:
    histogram = recorded([10, US_MAX, US_MAX + 10**6])
    assert histogram.over_range == 1
    assert histogram.max_us == histogram.summary()["max"] == US_MAX + 10**6
    assert histogram.sparse() == [[10, 1], [lowest(SLOTS - 1), 2]]
    assert US_MAX <= histogram.percentile(100) < US_MAX * 1.001


def test_no_percentile_exceeds_the_maximum() -> None:
    assert recorded([1_000_001]).percentile(50) == 1_000_001


def test_a_negative_latency_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError):
        Histogram().record(-1)


def test_figures_stand_in_the_memory_that_was_given() -> None:
    memory = bytearray(SIZE_BYTES)
    histogram = Histogram(memoryview(memory).cast("Q"))
    histogram.record(42, 3)
    seen_elsewhere = Histogram(memoryview(memory).cast("Q"))
    assert seen_elsewhere.sparse() == [[42, 3]]
    assert seen_elsewhere.count == 3
    assert len(array("Q", memory)) == WORDS


def test_memory_of_another_size_or_form_is_refused() -> None:
    with pytest.raises(AssertionError):
        Histogram(memoryview(bytearray(SIZE_BYTES - 8)).cast("Q"))
    with pytest.raises(AssertionError):
        Histogram(memoryview(bytearray(SIZE_BYTES)).cast("d"))


def test_given_memory_can_be_released_after_use() -> None:
    """A ledger unmaps what its histograms stood in."""
    memory = bytearray(SIZE_BYTES)
    words = memoryview(memory).cast("Q")
    histogram = Histogram(words)
    histogram.record(1)
    histogram.summary()
    histogram.sparse()
    words.release()
    memory.clear()
