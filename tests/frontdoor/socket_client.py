"""A blocking client on a real socket, by the msgpack package; every wait has a limit."""

from __future__ import annotations

import socket
from typing import Any, Self

import msgpack

from kio import wire

LIMIT_S = 10.0


class SocketClient:
    """One connection, greeted unless `greet` is False."""

    def __init__(self, address: Any, family: int = socket.AF_INET, *, greet: bool = True) -> None:
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(LIMIT_S)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self._received = bytearray()
        self.hello: Any = None
        if greet:
            self.send(0, wire.OP_HELLO, {"protocol": wire.PROTOCOL_VERSION, "client": "test"})
            self.hello = self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def send(self, id: int, op: int, *arguments: Any, deadline_ms: int = 0) -> None:
        """Send one request."""
        self.sock.sendall(wire.encode_frame([id, op, deadline_ms, *arguments]))

    def reply(self) -> list[Any]:
        """The next reply.

        Raises:
            ConnectionError: at end of file.
        """
        while True:
            if len(self._received) >= 4:
                (length,) = wire.LENGTH.unpack_from(self._received)
                if len(self._received) >= 4 + length:
                    body = bytes(self._received[4 : 4 + length])
                    del self._received[: 4 + length]
                    message: list[Any] = msgpack.unpackb(body, strict_map_key=False)
                    return message
            data = self.sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the door closed the connection")
            self._received += data

    def ask(self, op: int, *arguments: Any, deadline_ms: int = 0) -> list[Any]:
        """The reply to one request, without its id."""
        self.send(7, op, *arguments, deadline_ms=deadline_ms)
        id, *rest = self.reply()
        assert id == 7
        return rest

    def is_closed(self) -> bool:
        """Wait for the end of the stream, whatever comes before it."""
        try:
            while self.sock.recv(1 << 20):
                pass
        except ConnectionError:
            return True
        return True
