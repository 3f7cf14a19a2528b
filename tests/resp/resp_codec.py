"""RESP2 and RESP3 for tests: a strict reader that keeps every difference, a writer, and a blocking connection.

Each type on the wire has its own Python type, so that `==` between two replies is equality on the wire: a simple
string is no bulk string, the null of RESP3 is neither the null bulk string nor the null array of RESP2, a number keeps
its text where the text can differ. Only a bulk string (bytes) and an integer (int) are Python's own.

    +  Simple       -  Error        :  int          $  bytes        *  Array        $-1  NULL_BULK    *-1  NULL_ARRAY
    _  NULL         #  Boolean      ,  Double       (  BigNumber    !  BulkError    =  Verbatim
    %  Map          ~  Set          >  Push         |  Attributed

Strict: what no server may send raises Malformed, be it a bare LF, a number in another form than the shortest, a length
that lies, or a type that does not exist. Streamed types are refused: no server here sends them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

LIMIT_S: Final = 20.0
#: A bulk string longer than this is taken for a lie.
BULK_MAX: Final = 1 << 29
ITEMS_MAX: Final = 1 << 24
DEPTH_MAX: Final = 32

_WHOLE: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)\Z")
_DOUBLE: Final = re.compile(rb"(?:-?inf|nan|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\Z")


class Malformed(AssertionError):
    """Raised when a peer sent what RESP does not have."""


@dataclass(frozen=True, slots=True)
class Simple:
    text: bytes


@dataclass(frozen=True, slots=True)
class Error:
    """`code` is its first word: programs decide by it."""

    text: bytes

    @property
    def code(self) -> bytes:
        return self.text.partition(b" ")[0]


@dataclass(frozen=True, slots=True)
class BulkError(Error):
    pass


@dataclass(frozen=True, slots=True)
class Nothing:
    """One of the three nulls."""

    wire: bytes


NULL: Final = Nothing(b"_\r\n")
NULL_BULK: Final = Nothing(b"$-1\r\n")
NULL_ARRAY: Final = Nothing(b"*-1\r\n")


@dataclass(frozen=True, slots=True)
class Boolean:
    is_true: bool


@dataclass(frozen=True, slots=True)
class Double:
    text: bytes


@dataclass(frozen=True, slots=True)
class BigNumber:
    number: int


@dataclass(frozen=True, slots=True)
class Verbatim:
    kind: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class Array:
    items: tuple[Reply, ...]

    def __iter__(self) -> Iterator[Reply]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Set:
    items: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Push:
    items: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """Pairs in the order of the wire."""

    pairs: tuple[tuple[Reply, Reply], ...]


@dataclass(frozen=True, slots=True)
class Attributed:
    attributes: Map
    reply: Reply


Reply = (
    bytes
    | int
    | Simple
    | Error
    | Nothing
    | Boolean
    | Double
    | BigNumber
    | Verbatim
    | Array
    | Set
    | Push
    | Map
    | Attributed
)
#: The words of a command, its name first.
Command = tuple[bytes, ...]


class _Incomplete(Exception):
    pass


class Decoder:
    """Bytes in, replies out; holds what is not yet complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        #: Below this many bytes the reply that was begun cannot be complete.
        self._needed = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> Reply | None:
        """The next reply, or None while it is not complete.

        Raises:
            Malformed: when it is none.
        """
        if len(self._buffer) < self._needed:
            return None
        self._at = self._needed = 0
        try:
            reply = self._value(0)
        except _Incomplete:
            return None
        del self._buffer[: self._at]
        return reply

    @property
    def rest(self) -> bytes:
        """What came and was not taken."""
        return bytes(self._buffer)

    def _line(self) -> bytes:
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            raise _Incomplete
        line = bytes(self._buffer[self._at : end + 1])
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise Malformed(f"a line that does not end with CRLF: {line[:200]!r}")
        self._at = end + 1
        return line[:-2]

    def _block(self, size: int) -> bytes:
        end = self._at + size
        if len(self._buffer) < end + 2:
            self._needed = end + 2
            raise _Incomplete
        if self._buffer[end : end + 2] != b"\r\n":
            raise Malformed(f"a block of {size} bytes is followed by {bytes(self._buffer[end : end + 2])!r}")
        block = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return block

    def _value(self, depth: int) -> Reply:
        if depth > DEPTH_MAX:
            raise Malformed(f"nested deeper than {DEPTH_MAX}")
        line = self._line()
        kind, text = line[:1], line[1:]
        match kind:
            case b"+":
                return Simple(text)
            case b"-":
                return Error(text)
            case b":":
                number = _whole(text)
                if not -(2**63) <= number < 2**63:
                    raise Malformed(f"an integer beyond 64 bits: {text!r}")
                return number
            case b"$" | b"!" | b"=":
                return self._bulk(kind, text)
            case b"*" if text == b"-1":
                return NULL_ARRAY
            case b"*":
                return Array(self._items(text, depth))
            case b"~":
                return Set(self._items(text, depth))
            case b">":
                return Push(self._items(text, depth))
            case b"%":
                return self._map(text, depth)
            case b"|":
                attributes = self._map(text, depth)
                return Attributed(attributes, self._value(depth + 1))
            case b"_" if not text:
                return NULL
            case b"#" if text in (b"t", b"f"):
                return Boolean(text == b"t")
            case b"," if _DOUBLE.match(text):
                return Double(text)
            case b"(":
                return BigNumber(_whole(text))
        raise Malformed(f"no type of RESP: {line[:200]!r}")

    def _bulk(self, kind: bytes, text: bytes) -> Reply:
        if kind == b"$" and text == b"-1":
            return NULL_BULK
        block = self._block(_count(text, BULK_MAX))
        if kind == b"$":
            return block
        if kind == b"!":
            return BulkError(block)
        if block[3:4] != b":":
            raise Malformed(f"a verbatim string without its kind: {block[:20]!r}")
        return Verbatim(block[:3], block[4:])

    def _items(self, text: bytes, depth: int) -> tuple[Reply, ...]:
        return tuple(self._value(depth + 1) for _ in range(_count(text, ITEMS_MAX)))

    def _map(self, text: bytes, depth: int) -> Map:
        count = _count(text, ITEMS_MAX)
        return Map(tuple((self._value(depth + 1), self._value(depth + 1)) for _ in range(count)))


def _whole(text: bytes) -> int:
    if not _WHOLE.match(text) or text == b"-0":
        raise Malformed(f"no whole number in its shortest form: {text[:80]!r}")
    return int(text)


def _count(text: bytes, most: int) -> int:
    count = _whole(text)
    if not 0 <= count <= most:
        raise Malformed(f"a length out of 0..{most}: {count}")
    return count


def command(*words: bytes | str | int) -> bytes:
    """A command as clients send it: an array of bulk strings."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


def encode(reply: Reply) -> bytes:
    """The bytes of a reply; the inverse of Decoder."""
    match reply:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case Simple(text):
            return b"+%b\r\n" % text
        case BulkError(text):
            return b"!%d\r\n%b\r\n" % (len(text), text)
        case Error(text):
            return b"-%b\r\n" % text
        case Nothing(wire):
            return wire
        case Boolean(is_true):
            return b"#t\r\n" if is_true else b"#f\r\n"
        case Double(text):
            return b",%b\r\n" % text
        case BigNumber(number):
            return b"(%d\r\n" % number
        case Verbatim(kind, text):
            return b"=%d\r\n%b:%b\r\n" % (len(text) + 4, kind, text)
        case Array(items):
            return b"*%d\r\n" % len(items) + b"".join(map(encode, items))
        case Set(items):
            return b"~%d\r\n" % len(items) + b"".join(map(encode, items))
        case Push(items):
            return b">%d\r\n" % len(items) + b"".join(map(encode, items))
        case Map(pairs):
            return b"%%%d\r\n" % len(pairs) + b"".join(encode(key) + encode(value) for key, value in pairs)
        case Attributed(attributes, inner):
            return b"|" + encode(attributes)[1:] + encode(inner)


class Connection:
    """A blocking connection; every wait ends after `limit_s` with TimeoutError.

    Args:
        port: on loopback.
        protocol: 3 greets with HELLO 3.
    """

    def __init__(self, port: int, *, protocol: int = 2, limit_s: float = LIMIT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), limit_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = Decoder()
        if protocol == 3:
            assert isinstance(self.call("HELLO", "3"), Map)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Reply:
        """The next reply or push.

        Raises:
            ConnectionError: when the peer has closed; the message holds what came of a reply.
        """
        while (reply := self._decoder.take()) is None:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError(f"the peer closed; unread is {self._decoder.rest[:200]!r}")
            self._decoder.feed(data)
        return reply

    def receive_bytes(self) -> bytes:
        """The next reply as it came over the wire; for parsers under test."""
        return encode(self.receive())

    def call(self, *words: bytes | str | int) -> Reply:
        """One command, one reply."""
        self.send(command(*words))
        return self.receive()

    def calls(self, *commands: tuple[bytes | str | int, ...]) -> list[Reply]:
        """A pipeline."""
        self.send(b"".join(command(*words) for words in commands))
        return [self.receive() for _ in commands]
