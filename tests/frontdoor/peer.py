"""A client without a socket: it speaks to a Dispatch, by the msgpack package."""

from __future__ import annotations

from typing import Any

import msgpack

from kio import hashing, wire
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Event
from tests.frontdoor.backend import Shards

SEED = 0x1234_5678_9ABC_DEF0
HELLO = wire.encode_frame([1, wire.OP_HELLO, 0, {"protocol": wire.PROTOCOL_VERSION, "client": "test"}])


def frame(id: int, op: int, *arguments: Any, deadline_ms: int = 0) -> bytes:
    """One request's frame."""
    return wire.encode_frame([id, op, deadline_ms, *arguments])


def unpack(stream: bytes) -> list[list[Any]]:
    """The reply frames of a stream, which must end with a whole one."""
    replies = []
    at = 0
    while at < len(stream):
        (length,) = wire.LENGTH.unpack_from(stream, at)
        assert at + 4 + length <= len(stream)
        replies.append(msgpack.unpackb(stream[at + 4 : at + 4 + length]))
        at += 4 + length
    return replies


def key_of(shard: int, shards: int) -> bytes:
    """Some key that this one of `shards` shards owns."""
    keys = (b"key %d" % i for i in range(10_000))
    return next(key for key in keys if hashing.shard_of(hashing.routed_hash(key, SEED), shards) == shard)


def codes(replies: list[list[Any]]) -> list[tuple[int, int, bool]]:
    """(id, code, maybe_applied) of error replies."""
    return [(reply[0], reply[1], reply[3]) for reply in replies]


class Peer:
    """One connection of `dispatch`.

    Args:
        greet: say hello at once, and take the answer.
        version: of the protocol that the answer tells.
    """

    def __init__(self, dispatch: Dispatch, *, greet: bool = True, version: int = wire.PROTOCOL_VERSION) -> None:
        self.dispatch = dispatch
        self.version = version
        self.id = dispatch.open()
        self.now_ms = 1_000
        self.events: list[Event] = []
        if greet:
            self.feed(HELLO)
            self.greet()
            assert self.replies() == [[1, 0, "hello"]]

    def feed(self, data: bytes) -> None:
        """Bytes that the client sent."""
        self.dispatch.feed(self.id, data, self.now_ms)

    def send(self, id: int, op: int, *arguments: Any, deadline_ms: int = 0) -> None:
        """One request."""
        self.feed(frame(id, op, *arguments, deadline_ms=deadline_ms))

    def greet(self) -> None:
        """Answer the hello that waits."""
        (event,) = self.take_events()
        assert isinstance(event, Asked)
        assert event.op == wire.OP_HELLO
        self.dispatch.greet(event.handle, msgpack.packb("hello"), self.version)

    def take_events(self) -> list[Event]:
        """What Dispatch has to tell."""
        return self.dispatch.take_events()

    def output(self) -> bytes:
        """All bytes for this client since the last call."""
        self.dispatch.outputs()
        data = bytes(self.dispatch.output(self.id))
        self.dispatch.consumed(self.id, len(data))
        return data

    def replies(self) -> list[list[Any]]:
        """All replies to this client since the last call."""
        return unpack(self.output())


def turn(dispatch: Dispatch, shards: Shards, now_ms: int = 1_000) -> None:
    """Let the shards answer until nothing is in flight and nothing is paused that could go on."""
    while True:
        dispatch.resume(now_ms)
        batches = dispatch.take_batches()
        if not batches:
            return
        for _, batch in batches:
            dispatch.deliver(shards.execute(batch))
