"""Replies as bytes of both versions, lines as words, and what a reader of a standard library makes of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.commands.replies import NULL_ARRAY, CommandError, SetReply, Verbatim
from kio.frontdoor.resp import inline
from kio.frontdoor.resp.encoding import encode, encode_error

# --- encoding


@pytest.mark.parametrize(
    ("reply", "two", "three"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        ("OK", b"+OK\r\n", b"+OK\r\n"),
        (-(1 << 63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ([1, [None, b"x"]], b"*2\r\n:1\r\n*2\r\n$-1\r\n$1\r\nx\r\n", b"*2\r\n:1\r\n*2\r\n_\r\n$1\r\nx\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (SetReply([1, 2]), b"*2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:2\r\n"),
        (Verbatim(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        ([CommandError("ERR no")], b"*1\r\n-ERR no\r\n", b"*1\r\n-ERR no\r\n"),
    ],
)
def test_a_reply_is_told_in_the_version_of_its_connection(reply: Any, two: bytes, three: bytes) -> None:
    assert encode(reply, 2) == two
    assert encode(reply, 3) == three


@pytest.mark.parametrize("reply", [object(), {1, 2}, [object()]])
def test_what_is_no_reply_is_refused(reply: Any) -> None:
    with pytest.raises(TypeError, match="is no reply"):
        encode(reply, 2)


@given(st.text())
def test_an_error_is_one_line_whatever_is_in_it(text: str) -> None:
    line = encode_error("ERR " + text.encode("utf-8", "replace").decode())
    assert line.startswith(b"-ERR")
    assert line.endswith(b"\r\n")
    assert b"\r" not in line[:-2]
    assert b"\n" not in line[:-2]


# --- lines


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t\r\x0b\x0c ", []),
        (b"PING", [b"PING"]),
        (b"  SET  k\tv  ", [b"SET", b"k", b"v"]),
        (b'""', [b""]),
        (b"''", [b""]),
        (rb'"\x41\x4a\n\r\t\b\a\\\"\q"', [b'AJ\n\r\t\b\a\\"q']),
        (rb'"\x4"', [b"x4"]),
        (rb'"\xzz"', [b"xzz"]),
        (rb"'\x41\n\''", [rb"\x41\n'"]),
        (b'foo"bar"', [b"foobar"]),
        (b'"a"b', None),
        (b"'a'b", None),
        (b'"a" b', [b"a", b"b"]),
        (b'"', None),
        (b"'", None),
        (b'"a', None),
        (b'a"', None),
        (b'"a\\"', None),
        (b'"\\', None),
        (b"a\\b", [b"a\\b"]),
        (b"\xff\xfe \x80", [b"\xff\xfe", b"\x80"]),
    ],
)
def test_a_line_is_words_and_quotes(line: bytes, words: list[bytes] | None) -> None:
    assert inline.split(line) == words


@given(st.binary(max_size=60))
def test_any_bytes_are_words_or_do_not_match(line: bytes) -> None:
    words = inline.split(line)
    if words is not None:
        quoted = b" ".join(b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"' for word in words)
        assert inline.split(quoted) == words


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_words_of_any_bytes_can_be_quoted(words: list[bytes]) -> None:
    assert inline.split(
        b" ".join(b"'" + word.replace(b"'", b"\\'") + b"'" for word in words if word[-1:] != b"\\")
    ) == [word for word in words if word[-1:] != b"\\"]
