"""Patterns, against a matcher that is slow and plain, and against a real server."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.glob import Glob
from tests.commands.real_server import RealServer

ALPHABET = b"ab-]^*"
PATTERNS = st.lists(st.sampled_from([b"a", b"b", b"*", b"?", b"[", b"]", b"^", b"-", b"\\"]), max_size=8).map(b"".join)
KEYS = st.lists(st.sampled_from([bytes((byte,)) for byte in ALPHABET]), min_size=1, max_size=6).map(b"".join)


def naive(pattern: bytes, key: bytes) -> bool:
    """A byte at a time, trying every length of a star."""
    if not pattern:
        return not key
    head, rest = pattern[:1], pattern[1:]
    if head == b"*":
        return any(naive(rest, key[at:]) for at in range(len(key) + 1))
    if not key:
        return False
    if head == b"[":
        is_not = rest[:1] == b"^"
        rest = rest[is_not:]
        is_member = False
        while rest and rest[:1] != b"]":
            if rest[:1] == b"\\" and len(rest) > 1:
                is_member |= rest[1] == key[0]
                rest = rest[2:]
            elif rest[1:2] == b"-" and len(rest) > 2:
                is_member |= min(rest[0], rest[2]) <= key[0] <= max(rest[0], rest[2])
                rest = rest[3:]
            else:
                is_member |= rest[0] == key[0]
                rest = rest[1:]
        return is_member != is_not and naive(rest[1:], key[1:])
    if head == b"\\" and rest:
        head, rest = rest[:1], rest[1:]
        return head == key[:1] and naive(rest, key[1:])
    return head in (b"?", key[:1]) and naive(rest, key[1:])


@given(PATTERNS, KEYS)
def test_a_pattern_matches_what_it_says(pattern: bytes, key: bytes) -> None:
    glob = Glob(pattern)
    assert glob.matches(key) == naive(pattern, key)
    assert not glob.matches(key) or key.startswith(glob.prefix)
    assert not glob.is_all or glob.matches(key)


def test_patterns_match_what_they_match_on_a_real_server(redis: RealServer) -> None:
    chance = random.Random(3)
    keys = {bytes(chance.choices(ALPHABET, k=chance.randrange(1, 6))) for _ in range(300)}
    redis("MSET", *(word for key in keys for word in (key, b"")))
    for _ in range(2000):
        pattern = bytes(chance.choices(b"ab*?[]^-\\", k=chance.randrange(1, 9)))
        glob = Glob(pattern)
        assert {key for key in keys if glob.matches(key)} == set(redis("KEYS", pattern)), pattern


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [(b"user:*", b"user:"), (b"a[b]c?d", b"abc"), (b"\\*x*", b"*x"), (b"*a", b""), (b"[ab]", b"")],
)
def test_the_prefix_is_what_all_matches_begin_with(pattern: bytes, prefix: bytes) -> None:
    assert Glob(pattern).prefix == prefix


def test_many_stars_take_no_longer_than_the_key_is_long() -> None:
    key = b"a" * 65_535
    began = time.monotonic()
    for pattern in (
        b"a*" * 1000 + b"b",
        b"*a" * 30 + b"*b",
        b"?*" * 30 + b"[^a]",
        b"[" * 70_000,
        b"*" * 100_000 + b"b",
        b"x*?" * 2_000_000,
    ):
        assert not Glob(pattern).matches(key)
    assert time.monotonic() - began < 5
