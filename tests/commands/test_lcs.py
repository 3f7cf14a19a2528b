"""The longest common subsequence, against a table of all cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.commands import lcs
from tests.commands.real_server import RealServer
from tests.commands.shard_model import Refused, ShardModel

VALUES = st.binary(max_size=12) | st.text("abc", max_size=12).map(str.encode)


def length_by_table(first: bytes, second: bytes) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(VALUES, VALUES)
def test_the_ranges_are_a_longest_common_subsequence(first: bytes, second: bytes) -> None:
    length = length_by_table(first, second)
    assert lcs.length_of(first, second) == length
    ranges = lcs.ranges_of(first, second)
    assert sum(found.length for found in ranges) == length
    ends = [(len(first), len(second)), *((found.first_start, found.second_start) for found in ranges)]
    for found, (first_end, second_end) in zip(ranges, ends, strict=False):
        assert found.first_end < first_end
        assert found.second_end < second_end
        assert (
            first[found.first_start : found.first_end + 1] == second[found.second_start : found.second_end + 1] != b""
        )


def test_ties_go_the_way_they_go_on_a_real_server(redis: RealServer, kio: ShardModel) -> None:
    for first, second in (("abcabba", "cbabac"), ("aab", "azb" * 5), ("xyxyxy", "yxyxyx"), ("ab" * 300, "ba" * 300)):
        for server in (redis, kio):
            server("MSET", "a", first, "b", second)
        assert kio("LCS", "a", "b") == redis("LCS", "a", "b")
        found = kio("LCS", "a", "b", "IDX", "WITHMATCHLEN")
        assert [b"matches", found[b"matches"], b"len", found[b"len"]] == redis("LCS", "a", "b", "IDX", "WITHMATCHLEN")


def test_values_that_would_take_too_long_are_refused(kio: ShardModel) -> None:
    kio("SET", "a", "x" * 20_000)
    kio("SET", "b", "y" * 20_000)
    with pytest.raises(Refused, match=r"^ERR Insufficient memory, transient memory for LCS exceeds"):
        kio("LCS", "a", "b")
    kio("SET", "a", "x" * (lcs.BYTES_MAX + 1))
    kio("SET", "b", "y")
    with pytest.raises(Refused, match=r"^ERR LCS compares values of at most 262144 bytes, unless asked for LEN$"):
        kio("LCS", "a", "b")
    assert kio("LCS", "a", "b", "LEN") == 0


def test_values_as_long_as_may_be_are_compared(kio: ShardModel) -> None:
    kio("SET", "a", b"ab" * 5_000)
    kio("SET", "b", b"ba" * 5_000)
    assert kio("LCS", "a", "b", "LEN") == 9_999
    kio("SET", "b", b"a")
    kio("SET", "a", b"b" * (lcs.BYTES_MAX - 1) + b"a")
    assert kio("LCS", "a", "b") == b"a"
