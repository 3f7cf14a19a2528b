"""A client that means harm: valid requests with faults put into them, and bytes that were never a request.

    python -m tests.resp.attacker PROTOCOL PORT SEED SECONDS

A process of its own, so that its work does not slow whoever measures beside it. At the end it prints as JSON how often
each kind of attack was made. PROTOCOL is resp or native. It never empties a database or swaps two, and never touches
a key that begins with "innocent".
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from tests.cluster.rawwire import (
    CLEAR,
    COUNT,
    DELETE,
    DELETE_MANY,
    EXISTS,
    GET,
    GET_MANY,
    HELLO,
    LENGTH,
    PING,
    SCAN,
    SET,
    SET_MANY,
    STATS,
    frame,
)
from tests.resp.commands_at_random import Step, sequence
from tests.resp.resp_codec import command

#: Connections that are left open in the middle of a request.
OPEN_MOST: Final = 60
READ_S: Final = 0.004
#: What would take the innocent client its keys.
SPARED: Final = (b"FLUSHALL", b"FLUSHDB", b"SWAPDB")
LENGTHS: Final = (
    *(b"-1", b"0", b"-2", b"1", b"16777216", b"16777217", b"536870912", b"2147483647", b"2147483648"),
    *(b"4294967296", b"9223372036854775807", b"9223372036854775808", b"9" * 40, b"", b"x", b"+3", b"03", b" 3"),
)
NEVER_A_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\0" * 4096,
    b"\n" * 1000,
    b"\r" * 1000,
    b"$5\r\nhello\r\n",
    b"+OK\r\n:1\r\n-ERR\r\n",
    b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*1\r\n%1\r\n",
    b"*2\r\n*1\r\n$4\r\nPING\r\n$1\r\nx\r\n",
    b"SET k '" + b"x" * 500 + b"\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*1\n$4\nPING\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\n" + b"x" * 1000,
)


class Attacker:
    """Makes hostile bytes and sends them.

    Args:
        port: of the server under attack, on loopback.
        seed: of all its choices but the moments.
    """

    kinds: tuple[Callable[[], bytes], ...]

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.dice = random.Random(seed)
        self.made: Counter[str] = Counter()
        self._open: deque[socket.socket] = deque()

    def opening(self) -> bytes:
        """What a connection begins with."""
        return b""

    def valid(self) -> bytes:
        """Requests as they should be."""
        raise NotImplementedError

    def flipped(self) -> bytes:
        """A few bits or bytes are others."""
        wire = bytearray(self.valid())
        for _ in range(self.dice.randint(1, 6)):
            at = self.dice.randrange(len(wire))
            wire[at] = (
                wire[at] ^ (1 << self.dice.randrange(8)) if self.dice.random() < 0.7 else self.dice.randrange(256)
            )
        return bytes(wire)

    def truncated(self) -> bytes:
        wire = self.valid()
        return wire[: self.dice.randrange(1, len(wire))]

    def random_bytes(self) -> bytes:
        return self.dice.randbytes(self.dice.choice((1, 20, 1000, 70_000)))

    def spliced(self) -> bytes:
        one, other = self.valid(), self.valid()
        return one[: self.dice.randrange(len(one))] + other[self.dice.randrange(len(other)) :]

    def never_a_request(self) -> bytes:
        return self.dice.choice(NEVER_A_REQUEST)

    def made_by(self, kind: Callable[[], bytes]) -> bytes:
        """The bytes of an attack of that kind, which is counted."""
        self.made[f"{type(self).__name__}.{kind.__name__}"] += 1
        return kind()

    def attack(self) -> None:
        """One connection, one to three kinds of bytes; then it is closed, reset, or left open."""
        with contextlib.suppress(OSError):
            sock = socket.create_connection(("127.0.0.1", self.port), 5)
            sock.settimeout(READ_S)
            self._open.append(sock)
            sock.sendall(self.opening())
            for _ in range(self.dice.randint(1, 3)):
                kind = self.dice.choice(self.kinds)
                with contextlib.suppress(TimeoutError):
                    sock.sendall(self.made_by(kind))
                with contextlib.suppress(TimeoutError):
                    while self.dice.random() < 0.7 and sock.recv(1 << 16):
                        pass
        while len(self._open) > OPEN_MOST or (self._open and self.dice.random() < 0.7):
            self._open.popleft().close()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.attack()
        while self._open:
            self._open.pop().close()


class RespAttacker(Attacker):
    """At the door for Redis clients."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port, seed)
        self._steps = self._valid()
        self.kinds = (
            self.flipped,
            self.truncated,
            self.wrong_length,
            self.wrong_count,
            self.nested,
            self.random_bytes,
            self.random_lines,
            self.spliced,
            self.never_a_request,
            self.many_at_once,
        )

    def _valid(self) -> Callable[[], Step]:
        steps = sequence(self.dice.randrange(1 << 30), 1 << 60)

        def following() -> Step:
            while True:
                step = next(steps)
                if not any(words[0].upper() in SPARED for words in step.commands):
                    return step

        return following

    def valid(self) -> bytes:
        return self._steps().wire

    def wrong_length(self) -> bytes:
        return self._replaced(rb"\$\d+\r\n", b"$")

    def wrong_count(self) -> bytes:
        return self._replaced(rb"\*\d+\r\n", b"*")

    def _replaced(self, pattern: bytes, sign: bytes) -> bytes:
        wire = self.valid()
        found = self.dice.choice(list(re.finditer(pattern, wire)))
        number = int(found[0][1:-2])
        lie = self.dice.choice((*LENGTHS, b"%d" % (number + 1), b"%d" % (number - 1), b"%d" % (number * 10)))
        return wire[: found.start()] + sign + lie + b"\r\n" + wire[found.end() :]

    def nested(self) -> bytes:
        return b"*%d\r\n" % self.dice.choice((1, 2, 1000)) * self.dice.choice((2, 100, 20_000))

    def random_lines(self) -> bytes:
        words = (b"GET", b"SET", b"k1", b'"', b"'", b"\\x", b"\\xff", b'"a', b"\t", b"\0", b"*", b"$1", b"PING", b"")
        lines = [b" ".join(self.dice.choices(words, k=self.dice.randrange(8))) for _ in range(self.dice.randint(1, 30))]
        return self.dice.choice((b"\r\n", b"\n")).join(lines) + b"\r\n"

    def many_at_once(self) -> bytes:
        """A long pipeline that ends in a fault."""
        return command("GET", "k1") * self.dice.choice((10, 1000, 5000)) + self.flipped()


class NativeAttacker(Attacker):
    """At the door of kio's own protocol."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port, seed)
        self._number = 0
        self.kinds = (
            self.flipped,
            self.truncated,
            self.wrong_length,
            self.wrong_arguments,
            self.lying_counts,
            self.nested,
            self.random_bytes,
            self.spliced,
            self.never_a_request,
            self.many_at_once,
        )

    def made_by(self, kind: Callable[[], bytes]) -> bytes:
        """No byte may be read as the number of the operation that empties a keyspace."""
        return super().made_by(kind).replace(b"%c" % CLEAR, b"%c" % COUNT)

    def opening(self) -> bytes:
        """Mostly a hello."""
        hello = [1, HELLO, 0, {"protocol": self.dice.choice((1, 2)), "client": "attacker"}]
        return frame(hello) if self.dice.random() < 0.9 else b""

    def arguments(self) -> list[Any]:
        """An operation with its arguments, as they should be."""
        dice = self.dice
        keys = [b"n%d" % dice.randrange(100) for _ in range(dice.randint(1, 8))]
        value = dice.randbytes(dice.choice((0, 1, 100, 5000)))
        return dice.choice(
            (
                [GET, 0, keys[0]],
                [SET, 0, keys[0], value],
                [SET, 3, keys[0], value, {1: dice.randrange(1 << 40)}],
                [DELETE, 0, keys[0]],
                [EXISTS, 15, keys[0]],
                [5, 0, keys[0], dice.choice((1, -1, 1 << 62, -(1 << 63)))],
                [6, 0, keys[0], value[:100]],
                [7, 0, keys[0], {1: 1000}],
                [9, 0, keys[0]],
                [GET_MANY, 0, keys],
                [SET_MANY, 0, [word for key in keys for word in (key, value)]],
                [DELETE_MANY, 0, keys],
                [COUNT, 0],
                [SCAN, 0, 0, b"n", dice.randint(1, 100), dice.randrange(3)],
                [STATS],
                [PING, value],
                [37, 0, [[SET, b"{n}%d" % number, value[:10]] for number in range(3)]],
            )
        )

    def message(self) -> list[Any]:
        op, *rest = self.arguments()
        self._number += 1
        return [self._number, op, self.dice.choice((0, 1, 1000)), *rest]

    def valid(self) -> bytes:
        return b"".join(frame(self.message()) for _ in range(self.dice.randint(1, 20)))

    def wrong_length(self) -> bytes:
        wire = self.valid()
        lie = self.dice.choice((0, 1, 3, len(wire), 4096, 1 << 20, 256 << 20, (1 << 31) - 1, (1 << 32) - 1))
        return lie.to_bytes(4, "big") + wire[4:]

    def wrong_arguments(self) -> bytes:
        """A place of a request holds something else, or there are more or fewer of them."""
        dice = self.dice
        message = self.message()
        other = dice.choice(
            (None, True, -1, 1 << 63, 1.5, "text", b"", [], {}, [[]], {1: {2: 3}}, b"k" * 70_000, [b"k"] * 3, {b"": 0})
        )
        if dice.random() < 0.7:
            message[dice.randrange(len(message))] = other
        elif dice.random() < 0.5:
            message.append(other)
        else:
            message.pop()
        return frame(message)

    def lying_counts(self) -> bytes:
        """A head of msgpack that announces more than there is."""
        head = self.dice.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"))
        body = b"\x95\x01\x11\x00\x00" + head + self.dice.choice((1, 1 << 16, (1 << 32) - 1)).to_bytes(4, "big")
        return LENGTH.pack(len(body)) + body

    def nested(self) -> bytes:
        body = b"\x94\x01\x01\x00" + b"\x91" * self.dice.choice((2, 100, 100_000)) + b"\xc0"
        return LENGTH.pack(len(body)) + body

    def many_at_once(self) -> bytes:
        """Many frames that end in a fault."""
        return frame([1, GET_MANY, 0, 0, [b"n1"] * 10]) * self.dice.choice((10, 1000)) + self.flipped()


#: By the name of the protocol.
ATTACKERS: Final[dict[str, type[Attacker]]] = {"resp": RespAttacker, "native": NativeAttacker}


def main() -> None:
    protocol, port, seed, seconds = sys.argv[1:]
    attacker = ATTACKERS[protocol](int(port), int(seed))
    attacker.run(float(seconds))
    print(json.dumps(attacker.made))


if __name__ == "__main__":
    main()
