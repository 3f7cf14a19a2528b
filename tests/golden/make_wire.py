"""What a client of each protocol version says in the golden transcripts, and how a transcript is made.

A transcript is a text: for each exchange the request's frame in hexadecimal after "> ", the reply's after "< ". Run as
a program it writes them anew; a transcript that was released is never written again: clients out there speak it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgpack

from kio import wire
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Gathered
from kio.frontdoor.greeting import Greeting
from kio.router.rare import RareOperations
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import SEED

GOLDEN: Final = Path(__file__).parent
SHARDS: Final = 2
#: By version: (operation, arguments) of each request, the hello apart.
SESSIONS: Final[dict[int, list[tuple[int, list[Any]]]]] = {
    1: [
        (wire.OP_GET, [0, b"k"]),
        (wire.OP_SET, [0, b"k", b"value"]),
        (wire.OP_GET, [0, "k"]),
        (wire.OP_EXISTS, [0, b"k"]),
        (wire.OP_EXISTS, [7, b"k"]),
        (wire.OP_SET_MANY, [0, [b"a", b"1", b"b", b"", b"", b"no key", b"a", b"2"]]),
        (wire.OP_GET_MANY, [0, [b"b", b"absent", b"a"]]),
        (wire.OP_EXISTS_MANY, [0, [b"a", b"absent"]]),
        (wire.OP_DELETE_MANY, [0, [b"a", b"absent"]]),
        (wire.OP_DELETE, [0, b"b"]),
        (wire.OP_DELETE, [0, b"b"]),
        (wire.OP_COUNT, [0]),
        (wire.OP_SCAN, [0, b"", b"", 10, 0]),
        (wire.OP_SCAN, [0, b"", b"k", 10, 1]),
        (wire.OP_CLEAR, [0]),
        (wire.OP_PING, [b"payload"]),
        (wire.OP_GET, [0, b""]),
        (wire.OP_SET, [0, b"k", bytes(1_001)]),
        (wire.OP_GET, [0]),
        (5, [0, b"k", 1]),
        (99, []),
    ],
    2: [
        (wire.OP_SET, [0, b"k", b"value", wire.TTL, 60_000]),
        (wire.OP_TTL, [0, b"k"]),
        (wire.OP_SET, [0, b"k", b"other", wire.KEEP_TTL | wire.WITH_OLD]),
        (wire.OP_GET, [0, b"k", wire.WITH_VERSION]),
        (wire.OP_SET, [0, b"k", b"third", wire.IF_VERSION | wire.WITH_VERSION, 1, 2]),
        (wire.OP_SET, [0, b"k", b"late", wire.IF_VERSION, 1, 2]),
        (wire.OP_SET, [0, b"absent", b"", wire.IF_PRESENT]),
        (wire.OP_SET_MANY, [0, [b"k", b"no", b"l", b"yes"], wire.IF_ABSENT | wire.EXPIRE_AT, 2**41]),
        (wire.OP_EXPIRE, [0, b"k", wire.EXPIRE_AT, 2**42]),
        (wire.OP_SCAN, [0, b"", b"k", 10, wire.SCAN_RECORDS]),
        (wire.OP_PERSIST, [0, b"k"]),
        (wire.OP_PERSIST, [0, b"k"]),
        (wire.OP_TTL, [0, b"k"]),
        (wire.OP_TTL, [0, b"absent"]),
        (wire.OP_INCR, [0, b"n", -40]),
        (wire.OP_APPEND, [0, b"n", b"2"]),
        (wire.OP_INCR, [0, b"n", -(2**63)]),
        (wire.OP_INCR, [0, b"k", 1]),
        (wire.OP_DELETE, [0, b"n", wire.WITH_OLD]),
        (wire.OP_DELETE, [0, b"n", wire.WITH_VERSION]),
        (wire.OP_ATOMIC, [0, [[wire.OP_SET, b"{t}a", b"1"], [wire.OP_INCR, b"{t}a", 1], [wire.OP_GET, b"{t}b"]]]),
        (wire.OP_ATOMIC, [0, [[wire.OP_SET, b"{t}a", b"9"], [wire.OP_SET, b"{t}a", b"", wire.IF_ABSENT]]]),
        (wire.OP_ATOMIC, [0, [[wire.OP_SET, b"{t}a", b"x"], [wire.OP_INCR, b"{t}a", 1]]]),
        (wire.OP_ATOMIC, [0, [[wire.OP_SET, b"%d" % i, b""] for i in range(8)]]),
        (wire.OP_SET, [0, b"k", b"v", wire.TTL]),
    ],
}


class Daemon:
    """A front door and a router over shards in a dict, whose connection says and hears bytes."""

    def __init__(self) -> None:
        self._dispatch = Dispatch(SHARDS, SEED, value_bytes_max=1_000)
        self._rare = RareOperations(self._dispatch, SHARDS, dict)
        self._greeting = Greeting("kio/golden", SHARDS, 1_000)
        self._shards = Shards(SHARDS)
        self._connection = self._dispatch.open()

    def ask(self, request: bytes) -> bytes:
        """The reply to one frame."""
        self._dispatch.feed(self._connection, request, 1_000)
        while self._dispatch.has_news:
            for event in self._dispatch.take_events():
                if isinstance(event, Gathered):
                    self._rare.gathered(event)
                elif isinstance(event, Asked) and event.op == wire.OP_HELLO:
                    hello = self._greeting.answer(event.arguments[0])
                    self._dispatch.greet(event.handle, hello.answer, hello.version)
                elif isinstance(event, Asked) and event.op == wire.OP_PING:
                    self._dispatch.answer(event.handle, msgpack.packb(event.arguments[0]))
                elif isinstance(event, Asked):
                    self._rare.asked(event)
            for _, batch in self._dispatch.take_batches():
                self._dispatch.deliver(self._shards.execute(batch))
            self._dispatch.outputs()
        reply = bytes(self._dispatch.output(self._connection))
        self._dispatch.consumed(self._connection, len(reply))
        return reply


def requests(version: int) -> list[bytes]:
    """The frames of a version's session."""
    hello = wire.encode_frame([1, wire.OP_HELLO, 0, {"protocol": version, "client": "golden"}])
    session = SESSIONS[version]
    return [hello, *(wire.encode_frame([n, op, 0, *rest]) for n, (op, rest) in enumerate(session, start=2))]


def transcript(version: int) -> str:
    """What is said and answered."""
    daemon = Daemon()
    return "".join(f"> {request.hex()}\n< {daemon.ask(request).hex()}\n" for request in requests(version))


if __name__ == "__main__":
    for version in SESSIONS:
        (GOLDEN / f"wire_v{version}.txt").write_text(transcript(version))
