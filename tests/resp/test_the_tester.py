"""The comparison itself: it finds nothing between two honest servers, and every kind of error in one that is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.resp import differences
from tests.resp.commands_at_random import Step, sequence
from tests.resp.comparison import same
from tests.resp.differential import Tally, check, report, run, shrink
from tests.resp.liar import Deed, Lie, honest, liar
from tests.resp.resp_codec import (
    NULL,
    NULL_ARRAY,
    NULL_BULK,
    Array,
    Command,
    Double,
    Error,
    Map,
    Reply,
    Simple,
)
from tests.resp.servers import Server, redis_server

pytestmark = pytest.mark.stress

COMMANDS = 3000
SEED = int(os.environ.get("SEED", "7"))
#: All that the random sequences must reach, on its good and on its bad side.
COVERED = frozenset(
    b"GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX APPEND STRLEN GETRANGE SUBSTR SETRANGE INCR DECR "
    b"INCRBY DECRBY INCRBYFLOAT LCS SETBIT GETBIT BITCOUNT BITPOS BITOP BITFIELD BITFIELD_RO DEL UNLINK EXISTS TYPE "
    b"TOUCH EXPIRE PEXPIRE EXPIREAT PEXPIREAT EXPIRETIME PEXPIRETIME TTL PTTL PERSIST RENAME RENAMENX COPY MOVE DBSIZE "
    b"FLUSHDB PING ECHO SELECT CLIENT OBJECT MULTI EXEC DISCARD WATCH UNWATCH RESET HELLO".split()
)
#: Which the generator makes right, or nearly always.
NEVER_WRONG = frozenset(b"DBSIZE RESET UNWATCH DISCARD".split())


@pytest.fixture(scope="module")
def behind() -> Iterator[Server]:
    with redis_server() as running:
        yield running


def on(*names: str, when: Callable[[Any], bool] = lambda _: True, told: Callable[[Any], Reply]) -> Lie:
    """A lie about the replies to these commands (to all where none is named) that `when` is true of."""
    wanted = {name.encode() for name in names}

    def lie(words: Command, reply: Reply) -> Reply:
        return told(reply) if (not wanted or words[0].upper() in wanted) and when(reply) else reply

    return lie


def is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda reply: isinstance(reply, kinds)


def without(name: str, *options: bytes) -> Deed:
    """A server that forgets the option, wherever it stands in this command."""

    def deed(words: Command) -> Command:
        if words[0].upper() != name.encode():
            return words
        return (*words[:2], *(word for word in words[2:] if word.upper() not in options))

    return deed


def never(name: str) -> Deed:
    """A server that does something harmless in the place of this command."""
    return lambda words: (b"PING",) if words[0].upper() == name.encode() else words


def _reversed(reply: Reply) -> Reply:
    assert isinstance(reply, Array)
    return Array(reply.items[::-1])


def _in_exec(told: Callable[[Reply], Reply], when: Callable[[Reply], bool]) -> Lie:
    def change(reply: Reply) -> Reply:
        assert isinstance(reply, Array)
        return Array(tuple(told(item) if when(item) else item for item in reply.items))

    return on("EXEC", when=is_a(Array), told=change)


OK = Simple(b"OK")
LIES: dict[str, tuple[Lie, Deed | None]] = {
    "a bulk string for a simple one": (on("SET", when=is_a(Simple), told=lambda _: b"OK"), None),
    "a simple string for a bulk one": (
        on("GET", when=lambda r: isinstance(r, bytes) and r.isalnum(), told=Simple),
        None,
    ),
    "a bulk string for an integer": (on("STRLEN", when=is_a(int), told=lambda reply: b"%d" % reply), None),
    "another code": (on(when=is_a(Error), told=lambda reply: Error(b"WRONG" + getattr(reply, "text", b""))), None),
    "another text": (on("INCR", when=is_a(Error), told=lambda _: Error(b"ERR value is no integer")), None),
    "a success for an error": (on("RENAME", when=is_a(Error), told=lambda _: OK), None),
    "the wrong order": (on("MGET", when=is_a(Array), told=_reversed), None),
    "off by one": (on("STRLEN", when=is_a(int), told=lambda reply: reply + 1), None),
    "off by one in a bit": (on("BITPOS", when=is_a(int), told=lambda reply: max(reply, 0)), None),
    "an empty string for null": (on("GET", when=lambda reply: reply in (NULL, NULL_BULK), told=lambda _: b""), None),
    "null for an empty string": (on("GET", when=lambda reply: reply == b"", told=lambda _: NULL_BULK), None),
    "the null of RESP2 in RESP3": (on(when=lambda reply: reply == NULL, told=lambda _: NULL_BULK), None),
    "the null of RESP3 in RESP2": (on(when=lambda reply: reply == NULL_BULK, told=lambda _: NULL), None),
    "a null bulk for a null array": (
        on("EXEC", when=lambda reply: reply == NULL_ARRAY, told=lambda _: NULL_BULK),
        None,
    ),
    "an array for a map": (
        on("LCS", when=is_a(Map), told=lambda reply: Array(tuple(x for pair in reply.pairs for x in pair))),
        None,
    ),
    "a double for a string": (on("INCRBYFLOAT", when=is_a(bytes), told=Double), None),
    "a time of day": (on("TTL", when=lambda reply: isinstance(reply, int) and reply > 0, told=lambda r: r - 10), None),
    "a time in another unit": (on("PTTL", when=lambda r: isinstance(r, int) and r > 0, told=lambda r: r // 1000), None),
    "no expiry at all": (on("EXPIRETIME", when=lambda r: isinstance(r, int) and r > 0, told=lambda _: -1), None),
    "no reply queued": (on(when=lambda reply: reply == Simple(b"QUEUED"), told=lambda _: OK), None),
    "an error that EXEC leaves out": (_in_exec(lambda _: OK, is_a(Error)), None),
    "a null that EXEC leaves out": (_in_exec(lambda _: b"", lambda reply: reply == NULL_BULK), None),
    "a value that is cut at CRLF": (on("GET", when=is_a(bytes), told=lambda reply: reply.partition(b"\r\n")[0]), None),
    "a GETRANGE that ends early": (
        on("GETRANGE", when=bool, told=lambda r: r[:-1] if isinstance(r, bytes) else r),
        None,
    ),
    "KEEPTTL forgotten": (honest, without("SET", b"KEEPTTL")),
    "NX forgotten": (honest, without("SET", b"NX")),
    "GT forgotten": (honest, without("EXPIRE", b"GT")),
    "REPLACE forgotten": (honest, without("COPY", b"REPLACE")),
    "a write that is lost": (on("SETNX", when=lambda r: r == Simple(b"PONG"), told=lambda _: 1), never("SETNX")),
    "a watch that sees nothing": (on("WATCH", when=lambda r: r == Simple(b"PONG"), told=lambda _: OK), never("WATCH")),
    "a select that does nothing": (
        lambda words, reply: OK if words == (b"SELECT", b"1") else reply,
        lambda words: (b"PING",) if words == (b"SELECT", b"1") else words,
    ),
    "a discard that runs": (
        on("DISCARD", when=is_a(Array), told=lambda _: OK),
        lambda words: (b"EXEC",) if words[0].upper() == b"DISCARD" else words,
    ),
    "a key that is counted once": (
        honest,
        lambda words: (words[0], *dict.fromkeys(words[1:])) if words[0].upper() == b"EXISTS" else words,
    ),
    "lower case that is unknown": (
        lambda words, reply: Error(b"ERR unknown") if words[0] == b"setrange" else reply,
        None,
    ),
}


@pytest.mark.parametrize("what", LIES)
def test_an_error_of_the_server_is_found_and_shrunk(redis: Server, behind: Server, what: str) -> None:
    lie, deed = LIES[what]
    with liar(behind, lie, deed or (lambda words: words)) as lying:
        # Not every sequence comes across every error.
        failures = (run(redis, lying, sequence(seed, COMMANDS)) for seed in range(SEED, SEED + 4))
        failure = next((failure for failure in failures if failure is not None), None)
        assert failure is not None, "the error was not found"
        assert failure.steps is not None
        assert run(redis, lying, failure.steps) is not None, "the same steps do not fail again"
        short = shrink(failure, lambda fewer: run(redis, lying, fewer))
        assert short.steps is not None
        assert sum(len(step.commands) for step in short.steps) <= 8, report(short, "")


def test_an_honest_server_in_between_is_not_accused(redis: Server, behind: Server) -> None:
    with liar(behind, honest) as between:
        tally = check(redis, between, sequence(SEED, COMMANDS), "")
    assert not tally.excused
    assert tally.commands >= COMMANDS


def test_a_server_that_closes_instead_of_answering_is_found(redis: Server, behind: Server) -> None:
    def broken(words: Command, reply: Reply) -> Reply:
        if words[0].upper() == b"ECHO":
            raise OSError("the connection ends here")
        return reply

    steps = [Step(0, ((b"PING",), (b"ECHO", b"x"), (b"PING",)))]
    with liar(behind, broken) as lying:
        failure = run(redis, lying, steps)
    assert failure is not None
    assert failure.words == (b"ECHO", b"x") or failure.words == (b"PING",)
    assert isinstance(failure.kio, str)


def test_the_random_commands_reach_both_sides_of_every_command(redis: Server, behind: Server) -> None:
    tally = Tally()
    assert run(redis, behind, sequence(SEED, 20_000), tally) is None
    assert {name for name in COVERED if not tally.answers[name]} == set(), "never answered"
    assert {name for name in COVERED - NEVER_WRONG if not tally.errors[name]} == set(), "never refused"
    for name in (b"SET", b"GETRANGE", b"BITFIELD", b"LCS", b"EXPIRE", b"EXEC"):
        assert tally.answers[name] > tally.errors[name], f"{name!r} is mostly refused"


def test_a_seed_makes_the_same_sequence_again() -> None:
    assert list(sequence(SEED, 500)) == list(sequence(SEED, 500))
    assert list(sequence(SEED, 500)) != list(sequence(SEED + 1, 500))


def test_times_may_differ_by_little_and_nothing_else_may() -> None:
    assert same((b"ttl", b"k"), 100, 99)
    assert not same((b"TTL", b"k"), 100, 98)
    assert not same((b"TTL", b"k"), -1, -2)
    assert same((b"PTTL", b"k"), 100_000, 98_000)
    assert not same((b"PTTL", b"k"), 100_000, 97_999)
    assert not same((b"STRLEN", b"k"), 100, 99)
    greeting = Map(((b"server", b"redis"), (b"proto", 3), (b"id", 7)))
    assert same((b"HELLO", b"3"), greeting, Map(((b"server", b"kio"), (b"id", 1), (b"proto", 3))))
    assert not same((b"HELLO", b"3"), greeting, Map(((b"server", b"kio"), (b"id", 1), (b"proto", 2))))
    assert not same((b"HELLO", b"3"), greeting, Map(((b"server", b"kio"), (b"proto", 3))))


@pytest.mark.parametrize(
    ("id", "words", "redis_reply", "kio_reply"),
    [
        ("empty-key", (b"GET", b""), NULL_BULK, Error(b"ERR a key has 1 to 65535 bytes")),
        ("long-key", (b"GET", b"x" * 65_536), NULL_BULK, Error(b"ERR a key has 1 to 65535 bytes")),
        ("absent-command", (b"lpush", b"k", b"v"), 1, Error(b"ERR unknown command 'lpush'")),
        ("dump-payload", (b"DUMP", b"k"), b"\0\1a", b"kio"),
        ("unknown-text", (b"GETT",), Error(b"ERR unknown command 'GETT'"), Error(b"ERR unknown command `GETT`")),
        ("encoding-by-history", (b"OBJECT", b"encoding", b"k"), b"raw", b"int"),
    ],
)
def test_an_intended_difference_is_recognised(id: str, words: Command, redis_reply: Reply, kio_reply: Reply) -> None:
    found = differences.excuse(words, redis_reply, kio_reply)
    assert found is not None
    assert found.id == id


@pytest.mark.parametrize(
    ("words", "redis_reply", "kio_reply"),
    [
        ((b"GET", b"k"), b"a", b"b"),
        ((b"GET", b"k"), b"a", Error(b"ERR unknown command 'GET'")),
        ((b"GET", b""), NULL_BULK, Error(b"WRONGTYPE no")),
        ((b"GET", b""), NULL_BULK, b"value"),
        ((b"OBJECT", b"ENCODING", b"k"), b"int", b"raw"),
        ((b"OBJECT", b"ENCODING", b"k"), b"raw", NULL_BULK),
        ((b"LPUSH", b"k", b"v"), 1, 2),
        ((b"LCS", b"k", b"l"), b"a", b"b"),
        ((b"SETRANGE", b"k", b"1", b"v"), 2, Error(b"ERR value too long")),
    ],
)
def test_an_error_is_no_intended_difference(words: Command, redis_reply: Reply, kio_reply: Reply) -> None:
    assert differences.excuse(words, redis_reply, kio_reply) is None


def test_a_report_names_the_commands_both_replies_and_how_to_repeat_it(redis: Server, behind: Server) -> None:
    lie, _ = LIES["off by one"]
    with liar(behind, lie) as lying, pytest.raises(AssertionError) as caught:
        check(redis, lying, sequence(SEED, COMMANDS), f"SEED={SEED} pytest here")
    text = str(caught.value)
    assert f"repeat with: SEED={SEED} pytest here" in text
    assert "b'STRLEN'" in text or "b'strlen'" in text.lower()
    assert "redis:   0" in text
    assert "kio:     1" in text
    assert len(text.splitlines()) < 15
