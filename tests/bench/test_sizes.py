"""Sizes of keys and values."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kio.bench.sizes import PARETO_BYTES_MAX, parse_sizes
from kio.errors import ConfigError
from tests.bench.goodness import fits

ETC = "pareto:214.476:0.348238"


def drawn(text: str, count: int = 100_000) -> list[int]:
    return list(parse_sizes(text).sample(random.Random(1), count))


def test_a_number_is_always_that_size() -> None:
    sizes = parse_sizes("100")
    assert set(drawn("100", 10)) == {100}
    assert sizes.of(0) == sizes.of(2**64 - 1) == 100
    assert (sizes.bytes_min, sizes.bytes_max, sizes.mean(), sizes.is_fixed) == (100, 100, 100.0, True)


def test_a_range_is_uniform_with_both_ends() -> None:
    counts = Counter(drawn("10-19"))
    assert fits([counts[size] for size in range(10, 20)], [0.1] * 10)
    assert sum(counts.values()) == sum(counts[size] for size in range(10, 20))
    sizes = parse_sizes("10-19")
    assert (sizes.bytes_min, sizes.bytes_max, sizes.mean(), sizes.is_fixed) == (10, 19, 14.5, False)
    assert (sizes.of(0), sizes.of(2**64 - 1)) == (10, 19)


def test_weights_are_shares_whatever_they_add_up_to() -> None:
    counts = Counter(drawn("64:9,4096:1,10:2"))
    assert set(counts) == {10, 64, 4096}
    assert fits([counts[64], counts[4096], counts[10]], [9 / 12, 1 / 12, 2 / 12])
    sizes = parse_sizes("64:9,4096:1,10:2")
    assert (sizes.bytes_min, sizes.bytes_max) == (10, 4096)
    assert sizes.mean() == pytest.approx((64 * 9 + 4096 + 20) / 12)
    assert sizes.of(2**64 - 1) == 10


def test_pareto_is_the_distribution_of_its_formula() -> None:
    """P(size <= s) = 1 - (1 + shape * s / scale) ** (-1 / shape)."""
    scale, shape = 214.476, 0.348238
    counts = Counter(drawn(ETC))
    ends = [1 - (1 + shape * size / scale) ** (-1 / shape) for size in range(5001)]
    probabilities = [ends[size] - ends[size - 1] for size in range(1, 5001)]
    found = [counts[size] for size in range(1, 5001)]
    assert fits([*found, sum(counts.values()) - sum(found)], [*probabilities, 1 - ends[-1]])


@pytest.mark.parametrize("text", [ETC, "pareto:1000:0.1", "10-200", "64:9,4096:1"])
def test_the_mean_is_that_of_the_draws(text: str) -> None:
    found = drawn(text, 200_000)
    assert parse_sizes(text).mean() == pytest.approx(sum(found) / len(found), rel=0.02)


def test_pareto_is_cut_at_a_mebibyte_and_its_mean_says_so() -> None:
    heavy = drawn("pareto:50000:0.9")
    assert max(heavy) == PARETO_BYTES_MAX
    assert parse_sizes("pareto:50000:0.9").mean() == pytest.approx(sum(heavy) / len(heavy), rel=0.02)
    assert parse_sizes(ETC).of(0) == 1
    assert parse_sizes("pareto:50000:0.9").of(2**64 - 1) == PARETO_BYTES_MAX


def test_sizes_of_hashes_are_distributed_as_draws_are() -> None:
    of = parse_sizes("64:3,128:1").of
    source = random.Random(3)
    counts = Counter(of(source.getrandbits(64)) for _ in range(20_000))
    assert fits([counts[64], counts[128]], [0.75, 0.25])
    assert of(12345) == of(12345)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "say"),
        ("0", "the least is 1 byte"),
        ("-5", "say"),
        ("1.5", "say"),
        ("ten", "say"),
        ("20-10", "lower end comes first"),
        ("0-10", "the least is 1 byte"),
        ("10-20-30", "say"),
        ("64:1,", "say"),
        ("64:0", "weights are above 0"),
        ("64:-1", "weights are above 0"),
        ("64:nan", "weights are above 0"),
        ("64:1,x:2", "say"),
        ("pareto:10", "say"),
        ("pareto:10:1", "the shape above 0 and below 1"),
        ("pareto:-1:0.5", "the scale is above 0"),
        ("pareto:nan:0.5", "the scale is above 0"),
        ("pareto:a:b", "say"),
    ],
)
def test_what_is_no_size_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_sizes(text)
    assert f'"{text}"' in str(caught.value)
    assert "\n" not in str(caught.value)
