"""What redis-server 7.0 does not have yet: SET with a condition on the value, DELEX, DIGEST and MSETEX of Redis 8.4.

No server here can be asked, so each answer that is expected stands here as the commands' documentation has it. A digest
is the 64-bit XXH3 of the value as 16 hexadecimal digits in lower case.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.resp.resp_codec import NULL, NULL_BULK, Array, Connection, Error, Reply, Simple
from tests.resp.servers import STANDS_IN, Server

OK = Simple(b"OK")
SYNTAX = Error(b"ERR syntax error")
DIGESTS = {
    b"": b"2d06800538d394c2",
    b"a": b"e6c632b61e964e1f",
    b"Hello world": b"b6acb9d84a38ff74",
    b"0" * 9: b"942685de9516760e",
    bytes(range(256)): b"9408a4433b952d71",
    b"x" * 1000: b"c0a4877b962cba82",
}
HELLO_DIGEST = DIGESTS[b"Hello world"]
OTHER_DIGEST = DIGESTS[b"a"]


pytestmark = pytest.mark.skipif(STANDS_IN, reason="redis-server 7.0 stands in for kio")


@pytest.fixture
def door(kio: Server) -> Iterator[Connection]:
    kio.flush()
    with kio.connect() as connection:
        yield connection


@pytest.fixture(params=[2, 3])
def spoken(request: pytest.FixtureRequest, kio: Server) -> Iterator[tuple[Connection, Reply]]:
    """A connection in RESP2 or RESP3, and its null."""
    kio.flush()
    with kio.connect(request.param) as connection:
        yield connection, NULL if request.param == 3 else NULL_BULK


@pytest.mark.parametrize("value", DIGESTS)
def test_a_digest_is_xxh3_in_sixteen_digits(door: Connection, value: bytes) -> None:
    door.call("SET", "k", value)
    assert door.call("DIGEST", "k") == DIGESTS[value]


def test_the_digest_of_a_number_is_that_of_its_digits(door: Connection) -> None:
    door.call("SET", "k", "000000000")
    written = door.call("DIGEST", "k")
    door.call("SET", "n", 0)
    door.call("INCRBY", "n", 1000)
    door.call("SET", "m", "1000")
    assert door.call("DIGEST", "n") == door.call("DIGEST", "m")
    assert written == DIGESTS[b"0" * 9]


def test_there_is_no_digest_of_no_key(spoken: tuple[Connection, Reply]) -> None:
    connection, null = spoken
    assert connection.call("DIGEST", "none") == null
    for words in (("DIGEST",), ("DIGEST", "a", "b")):
        assert connection.call(*words) == Error(b"ERR wrong number of arguments for 'digest' command")


@pytest.mark.parametrize(
    ("condition", "operand", "is_met"),
    [
        ("IFEQ", b"Hello world", True),
        ("IFEQ", b"hello world", False),
        ("IFEQ", b"", False),
        ("IFNE", b"Hello world", False),
        ("IFNE", b"other", True),
        ("IFDEQ", HELLO_DIGEST, True),
        ("IFDEQ", OTHER_DIGEST, False),
        ("IFDNE", HELLO_DIGEST, False),
        ("IFDNE", OTHER_DIGEST, True),
        ("ifeq", b"Hello world", True),
    ],
)
def test_a_key_is_set_or_deleted_only_where_the_condition_is_met(
    spoken: tuple[Connection, Reply], condition: str, operand: bytes, is_met: bool
) -> None:
    connection, null = spoken
    connection.call("SET", "k", "Hello world", "EX", 1000)
    assert connection.call("SET", "k", "new", condition, operand) == (OK if is_met else null)
    assert connection.call("GET", "k") == (b"new" if is_met else b"Hello world")
    assert (connection.call("TTL", "k") == -1) is is_met, "the time to live goes with the value that had it"
    connection.call("SET", "k", "Hello world")
    assert connection.call("SET", "k", "new", "GET", condition, operand) == b"Hello world"
    assert connection.call("GET", "k") == (b"new" if is_met else b"Hello world")
    connection.call("SET", "k", "Hello world")
    assert connection.call("DELEX", "k", condition, operand) == int(is_met)
    assert connection.call("EXISTS", "k") == int(not is_met)


@pytest.mark.parametrize(
    ("condition", "operand", "is_made"),
    [
        ("IFEQ", b"v", False),
        ("IFEQ", b"", False),
        ("IFNE", b"v", True),
        ("IFDEQ", HELLO_DIGEST, False),
        ("IFDNE", HELLO_DIGEST, True),
    ],
)
def test_a_key_that_is_not_there_is_made_only_where_unlike_is_asked(
    spoken: tuple[Connection, Reply], condition: str, operand: bytes, is_made: bool
) -> None:
    connection, null = spoken
    assert connection.call("DELEX", "k", condition, operand) == 0
    assert connection.call("SET", "k", "new", condition, operand) == (OK if is_made else null)
    assert connection.call("GET", "k") == (b"new" if is_made else null)
    connection.call("DEL", "k")
    assert connection.call("SET", "k", "new", condition, operand, "GET") == null
    assert connection.call("EXISTS", "k") == int(is_made)


def test_a_condition_on_the_value_goes_with_every_expiry(door: Connection) -> None:
    door.call("SET", "k", "a", "EX", 5000)
    assert door.call("SET", "k", "b", "IFEQ", "a", "KEEPTTL") == OK
    assert door.call("TTL", "k") in (4999, 5000)
    assert door.call("SET", "k", "c", "EX", 100, "IFEQ", "b") == OK
    assert door.call("TTL", "k") in (99, 100)
    assert door.call("SET", "k", "d", "IFNE", "x", "PXAT", 4_000_000_000_000) == OK
    assert door.call("PEXPIRETIME", "k") == 4_000_000_000_000
    assert door.call("SET", "k", "e", "IFEQ", "d", "EX", 0) == Error(b"ERR invalid expire time in 'set' command")
    assert door.call("GET", "k") == b"d"


@pytest.mark.parametrize(
    "options",
    [
        ("IFEQ",),
        ("IFDNE",),
        ("NX", "IFEQ", "a"),
        ("IFEQ", "a", "XX"),
        ("IFEQ", "a", "IFNE", "b"),
        ("IFEQ", "a", "IFDEQ", OTHER_DIGEST),
        ("IFEQ", "a", "b"),
    ],
)
def test_conditions_that_clash_are_a_syntax_error_and_change_nothing(
    door: Connection, options: tuple[str | bytes, ...]
) -> None:
    door.call("SET", "k", "a")
    assert door.call("SET", "k", "new", *options) == SYNTAX
    assert door.call("GET", "k") == b"a"


@pytest.mark.parametrize("digest", [b"", b"1", HELLO_DIGEST + b"0", HELLO_DIGEST[:-1]])
def test_what_is_no_digest_is_an_error_and_changes_nothing(door: Connection, digest: bytes) -> None:
    door.call("SET", "k", "a")
    for words in (("SET", "k", "new", "IFDNE", digest), ("DELEX", "k", "IFDNE", digest)):
        answer = door.call(*words)
        assert isinstance(answer, Error)
        assert answer.code == b"ERR"
    assert door.call("GET", "k") == b"a"


def test_a_digest_may_be_in_upper_case(door: Connection) -> None:
    door.call("SET", "k", "Hello world")
    assert door.call("SET", "k", "Hello world", "IFDEQ", HELLO_DIGEST.upper()) == OK
    assert door.call("DELEX", "k", "IFDEQ", HELLO_DIGEST.upper()) == 1


def test_delex_without_a_condition_deletes(door: Connection) -> None:
    door.call("SET", "k", "a")
    assert door.call("DELEX", "k") == 1
    assert door.call("DELEX", "k") == 0
    wrong = Error(b"ERR wrong number of arguments for 'delex' command")
    assert door.call("DELEX") == wrong
    assert door.call("DELEX", "k", "IFEQ") == wrong
    assert door.call("DELEX", "k", "IFEQ", "a", "b") == wrong


def test_delex_with_no_known_condition_is_an_error(door: Connection) -> None:
    door.call("SET", "k", "a")
    answer = door.call("DELEX", "k", "IFXX", "a")
    assert isinstance(answer, Error)
    assert answer.code == b"ERR"
    assert door.call("GET", "k") == b"a"


def test_msetex_sets_all_or_none_with_one_expiry(door: Connection) -> None:
    assert door.call("MSETEX", 2, "a", 1, "b", 2) == 1
    assert door.call("MGET", "a", "b") == Array((b"1", b"2"))
    assert door.call("TTL", "a") == -1
    assert door.call("MSETEX", 2, "a", 3, "c", 4, "NX") == 0
    assert door.call("MGET", "a", "c") == Array((b"1", NULL_BULK))
    assert door.call("MSETEX", 2, "a", 3, "c", 4, "XX") == 0
    assert door.call("MSETEX", 2, "a", 3, "b", 4, "xx", "ex", 1000) == 1
    assert door.call("MGET", "a", "b") == Array((b"3", b"4"))
    assert door.call("TTL", "a") in (999, 1000)
    assert door.call("MSETEX", 1, "a", 5, "KEEPTTL") == 1
    assert door.call("TTL", "a") in (999, 1000)
    assert door.call("MSETEX", 1, "a", 5) == 1
    assert door.call("TTL", "a") == -1
    assert door.call("MSETEX", 2, "d", 1, "e", 2, "PXAT", 4_000_000_000_000, "NX") == 1
    assert door.call("PEXPIRETIME", "e") == 4_000_000_000_000
    assert door.call("MSETEX", 2, "f", 1, "f", 2, "NX") == 1
    assert door.call("GET", "f") == b"2"


@pytest.mark.parametrize(
    "words",
    [
        (0, "a", 1),
        (-1, "a", 1),
        ("x", "a", 1),
        (2, "a", 1),
        (2, "a", 1, "b"),
        (1, "a", 1, "b", 2),
        (1, "a", 1, "NX", "XX"),
        (1, "a", 1, "EX"),
        (1, "a", 1, "EX", 0),
        (1, "a", 1, "EX", "x"),
        (1, "a", 1, "EX", 10, "KEEPTTL"),
        (1, "a", 1, "EX", 10, "PX", 10),
        (1, "a", 1, "GET"),
        (2147483648, "a", 1),
        (9223372036854775807, "a", 1),
        (1, "a"),
        (),
    ],
)
def test_a_wrong_msetex_is_an_error_and_changes_nothing(door: Connection, words: tuple[str | int, ...]) -> None:
    answer = door.call("MSETEX", *words)
    assert isinstance(answer, Error)
    assert answer.code == b"ERR"
    assert door.call("DBSIZE") == 0


def test_the_new_commands_stand_in_transactions_and_are_watched(door: Connection, kio: Server) -> None:
    door.calls(("SET", "k", "a"), ("WATCH", "k"))
    with kio.connect() as other:
        assert other.call("DELEX", "k", "IFEQ", "b") == 0
        door.calls(("MULTI",), ("SET", "k", "b", "IFEQ", "a"), ("DIGEST", "k"), ("DELEX", "k", "IFEQ", "b"))
        first = door.call("EXEC")
        assert isinstance(first, Array), "a condition that was not met changed the key"
        assert first.items[0] == OK
        assert first.items[2] == 1
        door.calls(("SET", "k", "a"), ("WATCH", "k"))
        assert other.call("SET", "k", "b", "IFEQ", "a") == OK
        door.calls(("MULTI",), ("GET", "k"))
        assert not isinstance(door.call("EXEC"), Array)
