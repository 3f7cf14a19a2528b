"""What random commands are made of: few keys, so that commands meet, and the values and numbers at which code breaks.

Invariants, which make two servers comparable that are not asked at the same microsecond:
  * a time to live that is given relative to now is used once in a sequence, and lies between 1,000 s and 10 years, a
    hundred seconds from every other: which of two is longer never depends on the moment;
  * an absolute time is long past or beyond the year 2090;
  * what can make a value long (an offset beyond a few KiB) is said to `big` alone, which no quadratic command reads.
"""

from __future__ import annotations

import random
from typing import Final

KEYS: Final = (
    *(b"k%d" % number for number in range(7)),
    *(b"{tag}a", b"{tag}b"),
    *(b"\r\n", b"\0", b" a b ", b"\xff\xfe\x80", "ключ".encode()),
    b"long" * 250,
)
BIG: Final = b"big"
ALL_KEYS: Final = (*KEYS, BIG)
EMPTY_KEY: Final = b""
TOO_LONG_KEY: Final = b"K" * 65_536

NUMBERS: Final = (
    *(b"0", b"1", b"-1", b"2", b"10", b"-7", b"41", b"255", b"256", b"1000"),
    *(b"2147483647", b"2147483648", b"-2147483648", b"-2147483649"),
    *(b"4294967295", b"4294967296", b"9007199254740993"),
    *(b"9223372036854775807", b"9223372036854775806", b"-9223372036854775808", b"-9223372036854775807"),
)
#: So low that the distance to a field's highest number does not fit into 64 bits.
FAR_BELOW: Final = (b"-9223372036854775808", b"-9223372036854775807")
NO_NUMBERS: Final = (
    *(b"", b" ", b"a", b"1a", b"0x10", b"+1", b"-0", b"00", b"01", b" 1", b"1 ", b"1.0", b"1e3", b"--1", b"-"),
    *(b"9223372036854775808", b"-9223372036854775809", b"18446744073709551615", b"1" * 40, b"1\0", b"1_000"),
    "٣".encode(),
)
FLOATS: Final = (
    *(b"0", b"1", b"-1", b"3.0", b"0.1", b"-0.1", b".5", b"5.", b"1e5", b"1E-5", b"-1.5e+3", b"3.14159265358979"),
    *(b"0.30000000000000004", b"1e17", b"123456789.123456789", b"1e-17", b"-0", b"-0.0", b"00.5", b"0x10", b"+2.5"),
    *(b"9007199254740993", b"1e15", b"5.0e3"),
)
NO_FLOATS: Final = (
    *(b"", b" 1", b"1 ", b"nan", b"NaN", b"inf", b"-inf", b"infinity", b"1e400", b"1e", b"1.5.5", b"1,5", b"abc"),
    *(b"0x", b"1\0", b"--1", b"1_0"),
)
TEXTS: Final = (
    *(b"", b"a", b"abc", b"hello world", b"\r\n", b"$3\r\nabc\r\n", b"\0", b"\0\0\0\0", b"\xff", b"\xff\xff\xff"),
    *(b"\x80\x01", b"OK", b"QUEUED", b"*1\r\n", b"-ERR x", "наше".encode(), b"ohmytext", b"mynewtext"),
    *(b"x" * 43, b"x" * 44, b"x" * 45, bytes(range(256))),
)
#: Given as an expiry: refused, past, or so far that nothing will happen.
ODD_SECONDS: Final = (
    *(b"0", b"-1", b"-1000000000", b"-9223372036854775808", b"9223372036854775807", b"9223372036854775"),
    *(b"9223372036854776", b"99999999999", b"2147483648", b"4294967296"),
)
PAST_S: Final = (b"1", b"1000000000")
FUTURE_S: Final = (b"4000000000", b"4000000001", b"4102444800", b"9999999999")


class Arguments:
    """Random arguments of one sequence.

    Args:
        dice: where all chance comes from.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self._used: set[int] = set()

    def one(self, *choices: bytes) -> bytes:
        return self.dice.choice(choices)

    def maybe(self, chance: float) -> bool:
        return self.dice.random() < chance

    def key(self) -> bytes:
        """Mostly one of the first few."""
        return self.dice.choice(KEYS[:6] if self.maybe(0.75) else KEYS)

    def some_keys(self, most: int = 4) -> tuple[bytes, ...]:
        """One or more, the same one twice at times."""
        return tuple(self.key() for _ in range(self.dice.randint(1, most)))

    def value(self) -> bytes:
        chance = self.dice.random()
        if chance < 0.06:
            return b""
        if chance < 0.35:
            return self.dice.choice(NUMBERS)
        if chance < 0.4:
            return self.dice.choice(FLOATS)
        if chance < 0.45:
            return self.dice.choice(NO_NUMBERS + NO_FLOATS)
        if chance < 0.9:
            return self.dice.choice(TEXTS)
        return self.dice.randbytes(self.dice.randint(1, 2000 if self.maybe(0.1) else 40))

    def whole(self) -> bytes:
        """An integer at an edge, a small one, or none at all."""
        chance = self.dice.random()
        if chance < 0.5:
            return b"%d" % self.dice.randint(-20, 20)
        return self.dice.choice(NUMBERS if chance < 0.88 else NO_NUMBERS)

    def real(self) -> bytes:
        chance = self.dice.random()
        if chance < 0.45:
            return b"%.*f" % (self.dice.randint(0, 12), self.dice.uniform(-1000, 1000))
        return self.dice.choice(FLOATS if chance < 0.85 else NO_FLOATS)

    def index(self) -> bytes:
        """An offset into a value, which may be negative, for commands that only read."""
        return b"%d" % self.dice.randint(-60, 60) if self.maybe(0.85) else self.whole()

    def offset(self) -> bytes:
        """An offset to write at: small, or refused since it is negative, no number, or beyond the longest value."""
        if self.maybe(0.85):
            return b"%d" % self.dice.choice((0, 1, 2, 3, 7, 8, 9, 15, 63, 64, 100, 1000, self.dice.randrange(4000)))
        refused = (b"-1", b"-9223372036854775808", b"4294967296", b"9223372036854775807", b"536870912", b"4294967295")
        return self.dice.choice(refused + NO_NUMBERS)

    def big_offset(self) -> bytes:
        return b"%d" % self.dice.choice((65_535, 65_536, 1 << 20, self.dice.randrange(1 << 20)))

    def seconds(self) -> bytes:
        """A time to live that is unlike every other of this sequence."""
        return b"%d" % self._unique()

    def milliseconds(self) -> bytes:
        return b"%d" % (self._unique() * 1000)

    def _unique(self) -> int:
        while True:
            hundreds = self.dice.randint(10, 3_000_000)
            if hundreds not in self._used:
                self._used.add(hundreds)
                return hundreds * 100

    def expiry(self) -> tuple[bytes, bytes]:
        """An option of SET and GETEX with its time, good or not."""
        name = self.one(b"EX", b"PX", b"EXAT", b"PXAT")
        if self.maybe(0.12):
            return name, self.dice.choice(ODD_SECONDS + NO_NUMBERS)
        return name, self.time_of(name.startswith(b"P"), name.endswith(b"AT"))

    def time_of(self, is_ms: bool, is_absolute: bool) -> bytes:
        """A good time of this kind; an absolute one is past at times."""
        if not is_absolute:
            return self.milliseconds() if is_ms else self.seconds()
        time = self.dice.choice(PAST_S if self.maybe(0.25) else FUTURE_S)
        return time + b"000" if is_ms else time

    def cased(self, word: bytes) -> bytes:
        """The word in upper, lower or mixed case."""
        chance = self.dice.random()
        if chance < 0.7:
            return word
        if chance < 0.85:
            return word.lower()
        return bytes(byte ^ 0x20 if chr(byte).isalpha() and self.maybe(0.5) else byte for byte in word)
