"""Random commands on values: strings, numbers and bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.resp.arguments_at_random import BIG, FAR_BELOW, Arguments
from tests.resp.resp_codec import Command


def get(a: Arguments) -> Command:
    return a.one(*(b"GET",) * 8, b"STRLEN", b"STRLEN", b"STRLEN", b"GETDEL"), a.key()


def set_(a: Arguments) -> Command:
    """SET with any of its options, in any order, clashes among them."""
    options: list[tuple[bytes, ...]] = []
    if a.maybe(0.25):
        options.append((a.cased(a.one(b"NX", b"XX")),))
    if a.maybe(0.2):
        options.append((b"GET",))
    if a.maybe(0.4):
        name, time = a.expiry()
        options.append((a.cased(name), time))
    elif a.maybe(0.25):
        options.append((b"KEEPTTL",))
    if a.maybe(0.05):
        options.append(
            a.dice.choice(((b"NX",), (b"XX",), (b"KEEPTTL",), (b"EX",), (b"PERSIST",), (b"GT",), a.expiry()))
        )
    a.dice.shuffle(options)
    return b"SET", a.key(), a.value(), *(word for option in options for word in option)


def set_otherwise(a: Arguments) -> Command:
    match a.dice.randrange(4):
        case 0:
            return b"SETNX", a.key(), a.value()
        case 1:
            return b"GETSET", a.key(), a.value()
        case 2:
            time = a.seconds() if a.maybe(0.8) else a.one(b"0", b"-1", b"x", b"9223372036854775807", b"1.5")
            return b"SETEX", a.key(), time, a.value()
        case _:
            time = a.milliseconds() if a.maybe(0.8) else a.one(b"0", b"-1", b"x", b"9223372036854775807")
            return b"PSETEX", a.key(), time, a.value()


def getex(a: Arguments) -> Command:
    match a.dice.randrange(5):
        case 0:
            return b"GETEX", a.key()
        case 1:
            return b"GETEX", a.key(), a.cased(b"PERSIST")
        case 2:
            return b"GETEX", a.key(), *a.expiry(), *a.dice.choice(((), (b"PERSIST",), (b"KEEPTTL",), (b"NX",)))
        case _:
            return b"GETEX", a.key(), *a.expiry()


def mset(a: Arguments) -> Command:
    pairs = [word for key in a.some_keys() for word in (key, a.value())]
    return a.one(b"MSET", b"MSETNX"), *pairs


def mget(a: Arguments) -> Command:
    return b"MGET", *a.some_keys(6)


def append(a: Arguments) -> Command:
    return b"APPEND", a.key(), a.value()


def getrange(a: Arguments) -> Command:
    return a.one(b"GETRANGE", b"GETRANGE", b"SUBSTR"), a.key(), a.index(), a.index()


def setrange(a: Arguments) -> Command:
    if a.maybe(0.05):
        return b"SETRANGE", BIG, a.big_offset(), a.value()
    return b"SETRANGE", a.key(), a.offset(), a.value()


def count(a: Arguments) -> Command:
    name = a.one(b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"INCRBYFLOAT")
    if name in (b"INCR", b"DECR"):
        return name, a.key()
    return name, a.key(), a.real() if name == b"INCRBYFLOAT" else a.whole()


def lcs(a: Arguments) -> Command:
    options: list[bytes] = []
    if a.maybe(0.5):
        options.append(b"IDX")
    if a.maybe(0.2):
        options.append(b"LEN")
    if a.maybe(0.3):
        options += [b"MINMATCHLEN", a.whole()]
    if a.maybe(0.3):
        options.append(b"WITHMATCHLEN")
    if a.maybe(0.05):
        options.append(b"MINMATCHLEN")
    return b"LCS", a.key(), a.key(), *options


def bit(a: Arguments) -> Command:
    if a.maybe(0.5):
        return b"GETBIT", a.key(), a.offset()
    if a.maybe(0.05):
        return b"SETBIT", BIG, a.big_offset(), a.one(b"0", b"1")
    return b"SETBIT", a.key(), a.offset(), a.one(b"0", b"1", b"1", b"1", b"2", b"-1", b"x")


def bits(a: Arguments) -> Command:
    """BITCOUNT and BITPOS, with none, one or two ends and a unit."""
    key = BIG if a.maybe(0.05) else a.key()
    ends = tuple(a.index() for _ in range(a.dice.choice((0, 1, 2, 2, 2))))
    unit = (a.cased(a.one(b"BYTE", b"BIT", b"BIT", b"NIBBLE")),) if ends and a.maybe(0.4) else ()
    if a.maybe(0.5):
        return b"BITCOUNT", key, *ends, *unit
    return b"BITPOS", key, a.one(b"0", b"1", b"0", b"1", b"2", b"x"), *ends, *unit


def bitop(a: Arguments) -> Command:
    operation = a.cased(a.one(b"AND", b"OR", b"XOR", b"NOT", b"NAND"))
    sources = a.some_keys(1 if operation.upper() == b"NOT" and a.maybe(0.8) else 4)
    if a.maybe(0.05):
        return b"BITOP", operation, BIG, BIG, *sources
    return b"BITOP", operation, a.key(), *sources


def _encoding(a: Arguments) -> bytes:
    if a.maybe(0.08):
        return a.one(b"u64", b"i65", b"u0", b"i0", b"x8", b"u", b"8", b"u08", b"u-1", b"")
    widths = (b"1", b"2", b"4", b"5", b"7", b"8", b"13", b"16", b"31", b"32", b"33", b"63")
    return a.one(b"u", b"i") + a.dice.choice(widths) if a.maybe(0.9) else b"i64"


def _place(a: Arguments) -> bytes:
    if a.maybe(0.1):
        return a.offset()
    at = b"%d" % a.dice.choice((0, 0, 1, 3, 7, 8, 31, 100, a.dice.randrange(500)))
    return b"#" + at if a.maybe(0.4) else at


def _part(a: Arguments) -> Command:
    match a.dice.randrange(8):
        case 0 | 1:
            return a.cased(b"GET"), _encoding(a), _place(a)
        case 2 | 3:
            return a.cased(b"SET"), _encoding(a), _place(a), a.whole()
        case 4 | 5:
            return a.cased(b"INCRBY"), _encoding(a), _place(a), a.whole()
        case _:
            return b"OVERFLOW", a.cased(a.one(b"WRAP", b"SAT", b"FAIL", b"FAIL", b"SAT", b"NONE"))


def bitfield(a: Arguments) -> Command:
    if a.maybe(0.25):
        gets = [(b"GET", _encoding(a), _place(a)) for _ in range(a.dice.choice((1, 2)))]
        return b"BITFIELD_RO", a.key(), *(word for get in gets for word in get)
    parts = [_part(a) for _ in range(a.dice.choice((0, 1, 1, 2, 3)))]
    words = [word for part in parts for word in part]
    if any(word.upper() == b"SAT" for word in words):
        # "far-below" of differences.py: which of the two a server stored would be seen much later.
        words = [b"-2147483649" if word in FAR_BELOW else word for word in words]
    return a.one(*(b"BITFIELD",) * 9, b"BITFIELD_RO"), a.key(), *words


#: The generators, and how often each is asked.
STRINGS: Final[tuple[tuple[Callable[[Arguments], Command], float], ...]] = (
    (get, 12),
    (set_, 12),
    (set_otherwise, 5),
    (getex, 3),
    (mset, 4),
    (mget, 3),
    (append, 3),
    (getrange, 4),
    (setrange, 4),
    (count, 9),
    (lcs, 2.5),
    (bit, 5),
    (bits, 5),
    (bitop, 2.5),
    (bitfield, 5),
)
