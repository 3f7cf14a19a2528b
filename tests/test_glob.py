"""Glob patterns: by examples, and against a matcher that tries everything."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kio.glob import Glob


def naive(pattern: bytes, key: bytes) -> bool:
    """The grammar again, by recursion: a star is every number of bytes."""
    if not pattern:
        return not key
    head, rest = pattern[:1], pattern[1:]
    if head == b"*":
        return any(naive(rest, key[taken:]) for taken in range(len(key) + 1))
    if not key:
        return False
    if head == b"?":
        return naive(rest, key[1:])
    if head == b"[":
        is_in, rest = naive_brackets(rest, key[:1])
        return is_in and naive(rest, key[1:])
    if head == b"\\" and rest:
        head, rest = rest[:1], rest[1:]
    return head == key[:1] and naive(rest, key[1:])


def naive_brackets(text: bytes, byte: bytes) -> tuple[bool, bytes]:
    is_negated = text.startswith(b"^")
    text = text[is_negated:]
    is_in = False
    while text and not text.startswith(b"]"):
        if text[:1] == b"\\" and len(text) > 1:
            is_in |= text[1:2] == byte
            text = text[2:]
        elif len(text) > 2 and text[1:2] == b"-":
            is_in |= min(text[:1], text[2:3]) <= byte <= max(text[:1], text[2:3])
            text = text[3:]
        else:
            is_in |= text[:1] == byte
            text = text[1:]
    return is_in != is_negated, text[1:]


PATTERNS = st.one_of(
    st.lists(
        st.sampled_from([b"a", b"b", b"-", b"*", b"*", b"?", b"[ab]", b"[^a]", b"[", b"]", b"^", b"\\", b"\xff"]),
        max_size=9,
    ).map(b"".join),
    st.binary(max_size=8),
)
KEYS = st.one_of(
    st.lists(st.sampled_from([b"a", b"b", b"-", b"*", b"\\", b"]", b"\xff", b"\n"]), max_size=9).map(b"".join),
    st.binary(max_size=8),
)


@given(PATTERNS, KEYS)
@example(b"[a-", b"a")
@example(b"[a-]", b"_")
@example(b"a*b*a", b"aba")
def test_it_matches_what_a_matcher_that_tries_everything_matches(pattern: bytes, key: bytes) -> None:
    assert Glob(pattern).matches(key) == naive(pattern, key)


@given(PATTERNS, KEYS)
def test_every_key_that_matches_begins_with_the_plain_prefix(pattern: bytes, key: bytes) -> None:
    glob = Glob(pattern)
    if glob.matches(key):
        assert key.startswith(glob.prefix)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"", [b""], [b"a"]),
        (b"*", [b"", b"a", b"\n\xff"], []),
        (b"user:?", [b"user:1", b"user:\n"], [b"user:", b"user:12", b"Xuser:1"]),
        (b"*.css", [b".css", b"a.css.css"], [b"a.css ", b"css"]),
        (b"a*a", [b"aa", b"aba"], [b"a", b"ab"]),
        (b"h[ae]llo", [b"hallo", b"hello"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo", b"h-llo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (rb"h\*llo", [b"h*llo"], [b"hello"]),
        (rb"[\]\-]", [b"]", b"-"], [b"\\", b"x"]),
        (b"[abc", [b"a", b"c"], [b"[", b"abc"]),
        (b"[]", [], [b"", b"]", b"a"]),
        (b"[^]", [b"a", b"]"], [b"", b"ab"]),
        (b"[!a]", [b"!", b"a"], [b"b"]),
        (b"a\\", [b"a\\"], [b"a"]),
        ("schlüssel:*".encode(), ["schlüssel:ä".encode()], [b"schl"]),
    ],
)
def test_the_grammar(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    glob = Glob(pattern)
    assert [key for key in matching if not glob.matches(key)] == []
    assert [key for key in others if glob.matches(key)] == []


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        (b"user:*", b"user:"),
        (b"", b""),
        (b"*a", b""),
        (rb"a\*b?c", b"a*b"),
        (b"a[b]c[de]", b"abc"),
        (b"plain", b"plain"),
    ],
)
def test_the_plain_prefix_ends_at_the_first_wildcard(pattern: bytes, prefix: bytes) -> None:
    assert Glob(pattern).prefix == prefix


@pytest.mark.parametrize("pattern", [b"*a" * 200 + b"*b", b"a*" * 500 + b"b", b"*?a" * 200 + b"b", b"*" * 5_000 + b"b"])
def test_many_stars_over_a_long_key_take_no_time(pattern: bytes) -> None:
    glob, started_s = Glob(pattern), time.process_time()
    assert glob.matches(b"a" * 60_000) is False
    assert time.process_time() - started_s < 1
