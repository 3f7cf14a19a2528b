"""Which records operations are about, against the distributions that were asked for."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import pytest

from kio.bench.choosers import ZipfRanks, parse_chooser, scatter
from kio.errors import ConfigError
from tests.bench.goodness import fits

DRAWS = 200_000
THETAS = [0.2, 0.5, 0.99, 1 - 1e-9, 1.0, 1.0001, 1.41, 2.68, 10.0]


def zipf_law(n: int, theta: float) -> list[float]:
    weights = [rank**-theta for rank in range(1, n + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def counted(drawn: list[int], places: range) -> list[int]:
    counts = Counter(drawn)
    assert set(counts) <= set(places)
    return [counts[place] for place in places]


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 1_000, 300_000])
def test_zipf_ranks_fit_zipfs_law(theta: float, n: int) -> None:
    drawn = ZipfRanks(n, theta, random.Random(n)).take(DRAWS)
    assert fits(counted(drawn, range(1, n + 1)), zipf_law(n, theta))


def test_the_test_of_fit_notices_a_theta_that_is_off_by_two_hundredths() -> None:
    drawn = ZipfRanks(1000, 0.99, random.Random(1)).take(DRAWS)
    assert not fits(counted(drawn, range(1, 1001)), zipf_law(1000, 0.97))
    assert not fits(counted(drawn, range(1, 1001)), zipf_law(1000, 1.01))


def test_the_test_of_fit_notices_a_single_rank_that_never_comes() -> None:
    drawn = [rank for rank in ZipfRanks(1000, 0.99, random.Random(1)).take(DRAWS) if rank != 100]
    assert not fits(counted(drawn, range(1, 1001)), zipf_law(1000, 0.99))


@pytest.mark.parametrize("theta", [theta for theta in THETAS if theta >= 0.5])
def test_zipf_over_more_records_than_could_be_listed(theta: float) -> None:
    """The first 1,000 ranks of a billion, given that it was one of them, follow the law of a thousand."""
    drawn = [rank for rank in ZipfRanks(10**9, theta, random.Random(2)).take(DRAWS) if rank <= 1000]
    assert fits(counted(drawn, range(1, 1001)), zipf_law(1000, theta))


def test_zipf_spreads_its_ranks_over_all_ids_alike_in_every_process() -> None:
    n = 5000
    recipe = parse_chooser("zipf:0.99")
    law = zipf_law(n, 0.99)
    factor, offset = scatter(n, 7)
    expected = [0.0] * n
    for rank, probability in enumerate(law, 1):
        expected[(rank * factor + offset) % n] = probability
    for process in range(2):
        drawn = recipe(n, 7, random.Random(process)).take(DRAWS)
        assert fits(counted(drawn, range(n)), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 30, 89, 1000, 2310, 30_030])
def test_scattered_ranks_are_a_permutation_of_the_ids(n: int) -> None:
    factor, offset = scatter(n, 3)
    assert sorted((rank * factor + offset) % n for rank in range(1, n + 1)) == list(range(n))


@pytest.mark.parametrize("n", [1000, 65_536, 100_000])
def test_hot_records_are_no_neighbours(n: int) -> None:
    factor, offset = scatter(n, 3)
    hottest = sorted((rank * factor + offset) % n for rank in range(1, 11))
    around = [*hottest, hottest[0] + n]
    assert min(after - before for before, after in pairwise(around)) > n / 50


def test_uniform_chooses_every_record_alike() -> None:
    drawn = parse_chooser("uniform")(1000, 1, random.Random(1)).take(DRAWS)
    assert fits(counted(drawn, range(1000)), [1 / 1000] * 1000)


@pytest.mark.parametrize("theta", [0.5, 0.99, 1.0, 1.5])
def test_latest_fits_zipfs_law_of_age(theta: float) -> None:
    drawn = parse_chooser(f"latest:{theta}")(1000, 1, random.Random(1)).take(DRAWS)
    assert fits(counted([1000 - id for id in drawn], range(1, 1001)), zipf_law(1000, theta))


@pytest.mark.parametrize("theta", [0.5, 0.99, 1.5])
def test_latest_follows_the_newest_record(theta: float) -> None:
    """While the records double: rank k is expected in as many draws as the sum of its probabilities says."""
    before, draws_each = 1000, 100
    chooser = parse_chooser(f"latest:{theta}")(before, 1, random.Random(1))
    total = math.fsum(rank**-theta for rank in range(1, before + 1))
    ranks: list[int] = []
    chances = 0.0
    for newest in range(before, 2 * before):
        chooser.grow(newest)
        total += (newest + 1) ** -theta
        ranks += [newest + 1 - id for id in chooser.take(draws_each)]
        chances += draws_each / total
    probabilities = [rank**-theta * chances / len(ranks) for rank in range(1, before + 1)]
    counts = Counter(ranks)
    assert min(ranks) == 1
    assert max(ranks) <= 2 * before
    found = [counts[rank] for rank in range(1, before + 1)]
    assert fits([*found, len(ranks) - sum(found)], [*probabilities, 1 - math.fsum(probabilities)])


def test_only_latest_asks_for_what_was_inserted() -> None:
    for text in ("uniform", "zipf:0.99", "hotset:0.1:0.9"):
        chooser = parse_chooser(text)(10, 1, random.Random(1))
        chooser.grow(10)
        assert max(chooser.take(1000)) < 10


def test_a_hot_set_gets_its_share_and_is_uniform_within() -> None:
    n = 1000
    drawn = parse_chooser("hotset:0.1:0.8")(n, 5, random.Random(1)).take(DRAWS)
    factor, offset = scatter(n, 5)
    hot = [(place * factor + offset) % n for place in range(100)]
    expected = [0.2 / 900] * n
    for id in hot:
        expected[id] = 0.8 / 100
    assert fits(counted(drawn, range(n)), expected)


@pytest.mark.parametrize("records", [1, 2])
@pytest.mark.parametrize("text", ["uniform", "zipf:0.99", "latest:2", "hotset:0.9:0.1"])
def test_very_few_records_are_enough(text: str, records: int) -> None:
    assert set(parse_chooser(text)(records, 1, random.Random(1)).take(1000)) == set(range(records))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zipf",
        "zipf:",
        "zipf:0",
        "zipf:-1",
        "zipf:11",
        "zipf:nan",
        "zipf:0.9:1",
        "latest",
        "uniform:1",
        "uniform:x",
        "hotset:0.1",
        "hotset:0:0.9",
        "hotset:1:0.9",
        "hotset:0.1:1.1",
        "gauss:1",
    ],
)
def test_what_is_no_chooser_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="no chooser of keys; say") as caught:
        parse_chooser(text)
    assert "\n" not in str(caught.value)
