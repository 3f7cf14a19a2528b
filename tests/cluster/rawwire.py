"""The client protocol by hand, over a plain socket: for bytes that a well-behaved client never sends, and for exact
times.

Written from the docstring of kio/wire.py alone. One `Wire` is one connection, used by one thread; every wait has a
limit.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgpack

HELLO, GET, SET, DELETE, EXISTS = 0, 1, 2, 3, 4
GET_MANY, SET_MANY, DELETE_MANY, EXISTS_MANY = 17, 18, 19, 20
COUNT, CLEAR, SCAN, STATS, PING = 32, 33, 34, 35, 36

OK, PARTIAL = 0, 1
KEY_EMPTY, KEY_TOO_LARGE, VALUE_TOO_LARGE, FRAME_TOO_LARGE, BAD_REQUEST, UNKNOWN_OPERATION = 16, 17, 18, 19, 20, 21
SHARD_DOWN, OVERLOADED, DRAINING, REPLY_TOO_LARGE, TIMEOUT = 32, 33, 34, 35, 36
CORRUPT, SHARD_READ_ONLY, DISK_FULL, DIRECTORY_INVALID, PROTOCOL_ERROR = 48, 49, 50, 53, 64

LENGTH: Final = struct.Struct(">I")
LIMIT_S: Final = 15.0


class Wire:
    """One connection to the daemon.

    Args:
        url: `kio://HOST:PORT`.
        hello: False leaves out the handshake, for tests of what comes before it.
        limit_s: the longest wait of any one call.
    """

    def __init__(self, url: str, *, hello: bool = True, limit_s: float = LIMIT_S) -> None:
        parts = urlsplit(url)
        self.sock = socket.create_connection((parts.hostname, parts.port), timeout=limit_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self.last_id = 0
        self.welcome: dict[str, Any] = {}
        if hello:
            try:
                self.welcome = self.call(HELLO, {"protocol": 1, "client": "tests"})
            except BaseException:
                self.sock.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, op: int, *arguments: Any, deadline_ms: int = 0) -> int:
        """Send one request, wait for nothing; its id."""
        self.last_id += 1
        self.sock.sendall(frame([self.last_id, op, deadline_ms, *arguments]))
        return self.last_id

    def send_all(self, requests: Sequence[tuple[Any, ...]], deadline_ms: int = 0) -> list[int]:
        """Send (op, *arguments) many times in one piece; their ids."""
        first = self.last_id + 1
        self.last_id += len(requests)
        ids = list(range(first, self.last_id + 1))
        self.sock.sendall(
            b"".join(frame([i, op, deadline_ms, *rest]) for i, (op, *rest) in zip(ids, requests, strict=True))
        )
        return ids

    def receive(self) -> list[Any]:
        """The next reply, whole.

        Raises:
            ConnectionError: when the daemon closed. TimeoutError: when nothing came within the limit.
        """
        while True:
            if len(self._received) >= LENGTH.size:
                (length,) = LENGTH.unpack_from(self._received)
                end = LENGTH.size + length
                if len(self._received) >= end:
                    reply: list[Any] = msgpack.unpackb(bytes(self._received[LENGTH.size : end]), strict_map_key=False)
                    del self._received[:end]
                    return reply
            data = self.sock.recv(1 << 18)
            if not data:
                raise ConnectionError(
                    f"the daemon closed the connection; {len(self._received)} bytes of a reply had come"
                )
            self._received += data

    def request(self, op: int, *arguments: Any, deadline_ms: int = 0) -> list[Any]:
        """One request and its reply: [status, ...], without the id, which is checked."""
        sent = self.send(op, *arguments, deadline_ms=deadline_ms)
        reply = self.receive()
        assert reply[0] == sent, f"the reply to request {sent} carries id {reply[0]}: {reply!r:.200}"
        return reply[1:]

    def call(self, op: int, *arguments: Any, deadline_ms: int = 0) -> Any:
        """The result of a request that must succeed."""
        status, *rest = self.request(op, *arguments, deadline_ms=deadline_ms)
        assert status == OK, f"operation {op} failed with {status}: {rest!r:.300}"
        return rest[0]

    def is_closed_by_peer(self) -> bool:
        """Whether the daemon closes within the limit, whatever it sends before."""
        try:
            while self.sock.recv(1 << 18):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


def frame(message: Any) -> bytes:
    """`message` as one frame."""
    body = msgpack.packb(message, use_bin_type=True)
    return LENGTH.pack(len(body)) + bytes(body)
