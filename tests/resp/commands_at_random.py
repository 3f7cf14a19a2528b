"""Sequences of commands at random: a seed makes the same one again.

A sequence is a list of steps. A step is a pipeline on one of the connections, with the places where its bytes are cut
on their way; all replies of a step are read before the next one, so that what two connections do to one another is the
same each time. A sixteenth of the commands is spoilt on purpose (spoil).
Not here: commands whose answers are the server's own choice (SCAN, KEYS, RANDOMKEY, TIME, INFO), which are compared by
test_server_specific.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.resp.arguments_at_random import ALL_KEYS, BIG, EMPTY_KEY, NO_NUMBERS, NUMBERS, TOO_LONG_KEY, Arguments
from tests.resp.resp_codec import Command, command
from tests.resp.strings_at_random import STRINGS

CONNECTIONS: Final = 2
DATABASES: Final = 16
SPOILT: Final = 1 / 16
#: What may not be spoilt: a small number that moves into the place of a time would expire during the run.
TIMED: Final = frozenset(
    (b"SET", b"SETEX", b"PSETEX", b"GETEX", b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"MSETEX")
)
#: What makes one command of a kind.
Family = Callable[[Arguments], Command]


@dataclass(frozen=True, slots=True)
class Step:
    """A pipeline on one connection.

    Attributes:
        connection: 0 or 1.
        commands: in order.
        cuts: offsets into its bytes where one write ends and the next begins.
    """

    connection: int
    commands: tuple[Command, ...]
    cuts: tuple[int, ...] = ()

    @property
    def wire(self) -> bytes:
        return b"".join(command(*words) for words in self.commands)


def expire(a: Arguments) -> Command:
    name = a.one(b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT")
    time = a.time_of(name.startswith(b"P"), name.endswith(b"AT"))
    if a.maybe(0.15):
        odd = (b"0", b"-1", b"-1000", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775")
        time = a.dice.choice(odd + NO_NUMBERS)
    options = tuple(a.one(b"NX", b"XX", b"GT", b"LT") for _ in range(a.dice.choice((0, 0, 0, 1, 1, 2))))
    return (name, a.key(), time, *options, *((b"ZZ",) if a.maybe(0.02) else ()))


def ttl(a: Arguments) -> Command:
    return a.one(b"TTL", b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME", b"PERSIST"), a.key()


def many_keys(a: Arguments) -> Command:
    return a.one(b"DEL", b"UNLINK", b"EXISTS", b"EXISTS", b"EXISTS", b"TOUCH"), *a.some_keys()


def rename(a: Arguments) -> Command:
    return a.one(b"RENAME", b"RENAMENX"), a.key(), a.key()


def copy(a: Arguments) -> Command:
    options: list[bytes] = []
    if a.maybe(0.4):
        options += [b"DB", a.one(b"0", b"0", b"1", b"15", b"16", b"-1", b"x")]
    if a.maybe(0.4):
        options.append(b"REPLACE")
    if a.maybe(0.05):
        options.append(a.one(b"DB", b"FORCE", b"REPLACE"))
    return b"COPY", a.key(), a.key(), *options


def move(a: Arguments) -> Command:
    return b"MOVE", a.key(), a.one(b"0", b"0", b"1", b"1", b"15", b"16", b"-1", b"x")


def swap(a: Arguments) -> Command:
    """Not within MULTI, where kio refuses it."""
    if a.maybe(0.7):
        return b"SWAPDB", a.one(b"0", b"1"), a.one(b"0", b"1", b"2", b"15")
    return b"SWAPDB", a.one(b"0", b"16", b"x", b""), a.one(b"1", b"-1", b"1.5", b"99999999999")


def describe(a: Arguments) -> Command:
    if a.maybe(0.05):
        return a.dice.choice(((b"OBJECT",), (b"OBJECT", b"NOSUCH", a.key()), (b"OBJECT", b"ENCODING")))
    return (b"TYPE", a.key()) if a.maybe(0.5) else (b"OBJECT", a.cased(b"ENCODING"), a.key())


def talk(a: Arguments) -> Command:
    return a.dice.choice(
        (
            (b"PING",),
            (b"PING", a.value()),
            (b"PING", b"a", b"b"),
            (b"ECHO", a.value()),
            (b"ECHO",),
            (b"CLIENT", a.cased(b"SETNAME"), a.one(b"", b"name", b"two words", b"a\nb", b"x" * 200)),
            (b"CLIENT", a.cased(b"GETNAME")),
            (b"CLIENT", b"GETNAME", b"more"),
            (b"CLIENT", b"SETNAME"),
            (b"CLIENT", b"NOSUCH"),
            (b"CLIENT",),
        )
    )


def select(a: Arguments) -> Command:
    """Mostly back to 0, where the others are."""
    if a.maybe(0.8):
        return b"SELECT", b"0"
    return b"SELECT", a.one(
        b"0", b"1", b"1", b"15", b"%d" % a.dice.randrange(16), b"16", b"-1", b"a", b"", b"99999999999"
    )


def hello(a: Arguments) -> Command:
    if a.maybe(0.8):
        return b"HELLO", a.one(b"2", b"3", b"3")
    return a.dice.choice(
        (
            (b"HELLO",),
            (b"HELLO", b"4"),
            (b"HELLO", b"1"),
            (b"HELLO", b"x"),
            (b"HELLO", b"3", b"SETNAME", b"me"),
            (b"HELLO", b"3", b"SETNAME", b"not me"),
            (b"HELLO", b"3", b"SETNAME"),
            (b"HELLO", b"2", b"AUTH", b"me"),
            (b"HELLO", b"3", b"NONSENSE"),
        )
    )


def unknown(a: Arguments) -> Command:
    """A command that no server has, or that kio has not."""
    name = a.one(b"NOSUCH", b"", b"GETT", b"S\r\nET", b"\xff\0", b"FOO BAR", b"x" * 300)
    return name, *(a.value() for _ in range(a.dice.choice((0, 1, 2, 30))))


def foreign(a: Arguments) -> Command:
    """A command of Redis that kio does not have."""
    return a.dice.choice(
        (
            (b"LPUSH", a.key(), b"x"),
            (b"LRANGE", a.key(), b"0", b"-1"),
            (b"HSET", a.key(), b"f", b"v"),
            (b"SADD", a.key(), b"m"),
            (b"ZADD", a.key(), b"1", b"m"),
            (b"XADD", a.key(), b"1-1", b"f", b"v"),
            (b"EVAL", b"return 1", b"0"),
            (b"PUBLISH", b"channel", b"m"),
            (b"DUMP", a.key()),
        )
    )


def odd_key(a: Arguments) -> Command:
    """A key that kio does not take."""
    key = a.one(EMPTY_KEY, EMPTY_KEY, EMPTY_KEY, TOO_LONG_KEY)
    return a.dice.choice(((b"SET", key, b"v"), (b"GET", key), (b"DEL", key), (b"INCR", key), (b"MGET", b"k0", key)))


def meddle(a: Arguments, key: bytes) -> Command:
    """Something that the other connection does to a key that is watched."""
    return a.dice.choice(
        (
            (b"SET", key, a.value()),
            (b"SET", key, a.value(), b"XX"),
            (b"DEL", key),
            (b"APPEND", key, a.value()),
            (b"EXPIRE", key, a.seconds()),
            (b"PERSIST", key),
            (b"RENAME", key, a.key()),
            (b"COPY", a.key(), key, b"REPLACE"),
            (b"INCR", key),
            (b"SETBIT", key, b"1", b"1"),
            (b"GETEX", key),
            (b"MGET", key),
            (b"EXPIREAT", key, b"1"),
            (b"SWAPDB", b"0", b"1"),
        )
    )


#: What is generated, and how often; strings, bits and numbers are in strings_at_random.
FAMILIES: Final[tuple[tuple[Family, float], ...]] = (
    *STRINGS,
    (expire, 6),
    (ttl, 7),
    (many_keys, 5),
    (rename, 2.5),
    (copy, 2.5),
    (move, 1.5),
    (swap, 0.5),
    (describe, 2),
    (talk, 2),
    (select, 1.5),
    (hello, 0.6),
    (unknown, 0.5),
    (foreign, 0.25),
    (odd_key, 0.25),
)
_CHOICES: Final = tuple(family for family, _ in FAMILIES)
_WEIGHTS: Final = tuple(weight for _, weight in FAMILIES)


def spoil(a: Arguments, words: Command) -> Command:
    """The command with one fault: too short, too long, a word twice, another word in the place of one."""
    kind = a.dice.randrange(5)
    index = a.dice.randrange(len(words))
    if kind == 0 and len(words) > 1:
        return words[:-1]
    if kind == 1:
        return (*words, a.one(b"x", b"NX", b"GET", b"EX"))
    if words[0].upper() in TIMED or index == 0 or BIG in words:
        return words[:1]
    if kind == 2:
        return (*words[: index + 1], *words[index:])
    if kind == 3:
        return (*words[:index], *words[index + 1 :])
    return (*words[:index], a.dice.choice(NUMBERS[:10] + NO_NUMBERS[1:]), *words[index + 1 :])


@dataclass(slots=True)
class _Talk:
    """What the generator remembers of a connection; a guess, since it sees no replies."""

    in_multi: bool = False
    watched: Command = ()


def sequence(seed: int, commands: int) -> Iterator[Step]:
    """About so many commands, as steps; the last ones read all that is stored."""
    dice = random.Random(seed)
    arguments = Arguments(dice)
    talks = [_Talk() for _ in range(CONNECTIONS)]
    made = 0
    while made < commands:
        connection = dice.choices(range(CONNECTIONS), (3, 2))[0]
        watched = talks[connection].watched
        if watched and dice.random() < 0.5:
            talks[connection].watched = ()
            words = meddle(arguments, dice.choice(watched))
            if words[0] == b"SWAPDB" and talks[1 - connection].in_multi:
                words = (b"PING",)
            yield Step(1 - connection, (words,))
        size = dice.choice((1, 1, 1, 2, 3, 5, 12))
        words = tuple(word for _ in range(size) for word in _next(arguments, talks[connection]))
        step = Step(connection, words)
        if dice.random() < 0.15:
            length = len(step.wire)
            step = Step(connection, words, tuple(sorted(dice.randrange(length) for _ in range(dice.randint(1, 4)))))
        made += len(words)
        yield step
    yield Step(0, ((b"RESET",), (b"HELLO", b"3")))
    for database in range(DATABASES):
        expiries = tuple((b"PEXPIRETIME", key) for key in ALL_KEYS)
        yield Step(0, ((b"SELECT", b"%d" % database), (b"MGET", *ALL_KEYS), *expiries, (b"DBSIZE",)))


def _next(a: Arguments, talk: _Talk) -> tuple[Command, ...]:
    """The next command; DBSIZE is two, since keys in the past count in redis-server until somebody looks for them."""
    chance = a.dice.random()
    if talk.in_multi:
        if chance < 0.2:
            talk.in_multi = False
            return ((a.cased(b"EXEC"), *((b"x",) if a.maybe(0.02) else ())),)
        if chance < 0.23:
            talk.in_multi = False
            return ((a.cased(b"DISCARD"),),)
        if chance < 0.25:
            return (a.dice.choice(((b"MULTI",), (b"WATCH", b"k1"), (b"UNWATCH",), (b"EXEC", b"more"))),)
    else:
        if chance < 0.025:
            talk.in_multi = True
            return ((a.cased(b"MULTI"),),)
        if chance < 0.05:
            talk.in_multi = True
            talk.watched = a.some_keys()
            return (b"WATCH", *talk.watched), (a.one(b"GET", b"TTL"), a.key()), (b"MULTI",)
        if chance < 0.06:
            return (a.dice.choice(((b"EXEC",), (b"DISCARD",), (b"UNWATCH",), (b"WATCH",), (b"WATCH", a.key()))),)
    if chance > 0.998:
        return ((a.one(b"FLUSHDB", b"FLUSHDB", b"FLUSHALL"), *((a.one(b"SYNC", b"ASYNC", b"x"),) * a.maybe(0.5))),)
    if chance > 0.988:
        return (b"EXISTS", *ALL_KEYS), (a.cased(b"DBSIZE"),)
    if chance > 0.985:
        talk.in_multi = False
        return ((a.cased(b"RESET"),),)
    family = a.dice.choices(_CHOICES, _WEIGHTS)[0]
    if talk.in_multi and family in (swap, hello, foreign, odd_key):
        return ((b"PING",),)
    words = family(a)
    if a.maybe(SPOILT):
        words = spoil(a, words)
    return ((a.cased(words[0]), *words[1:]),)
