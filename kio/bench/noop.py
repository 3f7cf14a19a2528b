"""The server that does nothing: it answers every command with the smallest right reply, at once or after a fixed time.

    python -m kio.bench.noop --protocol resp|native [--unix PATH] [--delay-us N] [--value-bytes N]

It prints its port (or its path) and ends when its stdin does. A generator that is measured against it shows its own
floor; with `--delay-us` the right figures of a run are known by arithmetic. It reads commands by the dozen: a run of
commands that are shaped alike is one match of a pattern that was made from the first of them.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Any, Final, Protocol

import msgpack

from kio import wire
from kio.bench.frames import values_of
from kio.bench.plan import Plan
from kio.bench.precision import sleep_precisely, wake_on_time
from kio.errors import ProtocolError, UnknownOperation
from kio.limits import FRAME_KEYS_MAX, FRAME_SKIP_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_CEILING

_RECEIVE_BYTES: Final = 64 << 10
_CRLF: Final = b"\r\n"
#: Patterns of command shapes that are remembered.
_SHAPES_MAX: Final = 64

#: A delayed reply is waited for awake for longer than the generator waits: a late one would be read as its error.
_SPIN_NS: Final = 300_000


class Responder(Protocol):
    """The server's end of one connection, without the connection."""

    def take(self, data: bytes) -> list[bytes]:
        """A reply for each command that `data` completes; those of a run of commands stand in one piece.

        Raises:
            ProtocolError: when the bytes are not the protocol.
        """


class RespResponder:
    """RESP2: GET and MGET find a value, whatever writes succeeds, anything else is an unknown command."""

    def __init__(self, value: bytes) -> None:
        self._bulk = b"$%d\r\n%b\r\n" % (len(value), value)
        self._buffer = bytearray()
        #: The buffer is not looked at before it has so many bytes.
        self._wanted = 1
        self._shape: tuple[re.Pattern[bytes], int, bytes] | None = None
        self._shapes: dict[bytes, tuple[re.Pattern[bytes], int, bytes]] = {}

    def take(self, data: bytes) -> list[bytes]:
        """See Responder."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        replies: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            if self._shape is not None:
                pattern, size, reply = self._shape
                if (found := pattern.match(data, at)) is not None:
                    replies.append(reply * ((found.end() - at) // size))
                    at = found.end()
                    continue
            after = self._one(data, at, replies)
            if after > end or after < 0:
                self._buffer += data[at:]
                self._wanted = after - at if after > 0 else 0
                break
            at = after
        return replies

    def _one(self, data: bytes, at: int, replies: list[bytes]) -> int:
        """Answer the command at `at`; where it ends, which is past the end where it is not whole (-1: not known)."""
        line_end = data.find(_CRLF, at)
        if line_end < 0:
            return -1
        if data[at : at + 1] != b"*":
            raise ProtocolError("a command is an array")
        next_at = line_end + 2
        spans = []
        for _ in range(_number(data[at + 1 : line_end])):
            line_end = data.find(_CRLF, next_at)
            if line_end < 0:
                return -1
            if data[next_at : next_at + 1] != b"$":
                raise ProtocolError("a command's argument is a bulk string")
            length = _number(data[next_at + 1 : line_end])
            spans.append((line_end + 2, line_end + 2 + length))
            next_at = line_end + 2 + length + 2
            if next_at > len(data):
                return next_at
        if not spans:
            return next_at
        name = data[spans[0][0] : spans[0][1]].upper()
        reply = self._reply(name, len(spans) - 1)
        replies.append(reply)
        if not reply.startswith(b"-"):
            self._remember(data[at:next_at], [(low - at, high - at) for low, high in spans[1:]], reply)
        return next_at

    def _reply(self, name: bytes, arguments: int) -> bytes:
        if name == b"GET":
            return self._bulk
        if name == b"MGET":
            return b"*%d\r\n" % arguments + self._bulk * arguments
        if name in (b"SET", b"MSET", b"AUTH", b"SELECT"):
            return b"+OK\r\n"
        if name in (b"DEL", b"INCR", b"EXISTS", b"EXPIRE"):
            return b":1\r\n"
        return b"+PONG\r\n" if name == b"PING" else b"-ERR unknown command\r\n"

    def _remember(self, command: bytes, spans: list[tuple[int, int]], reply: bytes) -> None:
        """Make commands that differ from this one in the bytes of their arguments only the ones to look for first."""
        shape = b""
        at = 0
        for low, high in spans:
            shape += re.escape(command[at:low]) + b".{%d}" % (high - low)
            at = high
        shape += re.escape(command[at:])
        known = self._shapes.get(shape)
        if known is None:
            known = (re.compile(b"(?:%b)+" % shape, re.DOTALL), len(command), reply)
            if len(self._shapes) < _SHAPES_MAX:
                self._shapes[shape] = known
        self._shape = known


class NativeResponder:
    """kio's protocol, version 1, as a daemon with room for everything speaks it."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._buffer = bytearray()
        self._wanted = wire.LENGTH.size

    def take(self, data: bytes) -> list[bytes]:
        """See Responder."""
        buffer = self._buffer
        buffer += data
        replies = []
        at = 0
        while len(buffer) - at >= self._wanted:
            (length,) = wire.LENGTH.unpack_from(buffer, at)
            if length > FRAME_SKIP_BYTES_MAX:
                raise ProtocolError("a frame is that long")
            past = at + wire.LENGTH.size + length
            if past > len(buffer):
                self._wanted = past - at
                break
            self._wanted = wire.LENGTH.size
            replies.append(self._reply(bytes(buffer[at + wire.LENGTH.size : past])))
            at = past
        del buffer[:at]
        return replies

    def _reply(self, frame: bytes) -> bytes:
        try:
            id_, op, _, *arguments = msgpack.unpackb(frame)
            result = self._result(op, arguments)
        except UnknownOperation as error:
            return wire.encode_frame([id_, error.code, str(error), False])
        except (ValueError, TypeError, IndexError, msgpack.UnpackException):
            raise ProtocolError("a frame is no request") from None
        return wire.encode_frame([id_, wire.STATUS_OK, result])

    def _result(self, op: int, arguments: list[Any]) -> Any:
        if op == wire.OP_GET:
            return self._value
        if op in (wire.OP_SET, wire.OP_DELETE, wire.OP_EXISTS):
            return True
        if op == wire.OP_GET_MANY:
            return [self._value] * len(arguments[1])
        if op == wire.OP_SET_MANY:
            return [True] * (len(arguments[1]) // 2)
        if op in (wire.OP_DELETE_MANY, wire.OP_EXISTS_MANY):
            return [True] * len(arguments[1])
        if op == wire.OP_INCR:
            return 1
        if op == wire.OP_PING:
            return arguments[0]
        if op == wire.OP_HELLO:
            return {
                "protocol": wire.PROTOCOL_VERSION,
                "server": "noop",
                "shards": 1,
                "frame_bytes_max": FRAME_SKIP_BYTES_MAX,
                "key_bytes_max": KEY_BYTES_MAX,
                "value_bytes_max": VALUE_BYTES_CEILING,
                "frame_keys_max": FRAME_KEYS_MAX,
            }
        raise UnknownOperation


class _Connection:
    """One client."""

    __slots__ = ("is_closed", "responder", "socket", "unsent")

    def __init__(self, accepted: socket.socket, responder: Responder) -> None:
        self.socket = accepted
        self.responder = responder
        self.unsent = b""
        self.is_closed = False


class NoopServer:
    """One loop over all clients."""

    def __init__(self, listening: socket.socket, protocol: str, value: bytes, delay_ns: int) -> None:
        self._listening = listening
        self._make = NativeResponder if protocol == "native" else RespResponder
        self._value = value
        self._delay_ns = delay_ns
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        #: (due, whose, reply), in the order in which they are due: the delay is the same for all.
        self._waiting: deque[tuple[int, _Connection, bytes]] = deque()

    def serve(self, stdin: int) -> None:
        """Answer until `stdin` ends."""
        epoll = self._epoll
        listening = self._listening.fileno()
        epoll.register(listening, select.EPOLLIN)
        epoll.register(stdin, select.EPOLLIN)
        while True:
            for fd, mask in self._events():
                if fd == listening:
                    self._accept()
                elif fd == stdin:
                    if not os.read(stdin, 4096):
                        return
                else:
                    self._handle(self._connections[fd], mask)

    def _events(self) -> list[tuple[int, int]]:
        """Send what is due, then what there is to do; waits no longer than until the next reply is due."""
        waiting = self._waiting
        while waiting:
            left_ns = waiting[0][0] - time.monotonic_ns()
            if left_ns <= 0:
                _, connection, reply = waiting.popleft()
                if not connection.is_closed:
                    self._send(connection, reply)
                continue
            events = self._epoll.poll(0)
            if events:
                return events
            sleep_precisely(self._epoll, left_ns, _SPIN_NS)
        return self._epoll.poll()

    def _accept(self) -> None:
        accepted, _ = self._listening.accept()
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[accepted.fileno()] = _Connection(accepted, self._make(self._value))
        self._epoll.register(accepted.fileno(), select.EPOLLIN)

    def _handle(self, connection: _Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            rest, connection.unsent = connection.unsent, b""
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            self._send(connection, rest)
        if connection.is_closed or not mask & ~select.EPOLLOUT:
            return
        try:
            data = connection.socket.recv(_RECEIVE_BYTES)
            replies = connection.responder.take(data) if data else None
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            replies = None
        if replies is None:
            self._close(connection)
        elif self._delay_ns:
            due_ns = time.monotonic_ns() + self._delay_ns
            self._waiting.extend((due_ns, connection, reply) for reply in replies)
        elif replies:
            self._send(connection, replies[0] if len(replies) == 1 else b"".join(replies))

    def _send(self, connection: _Connection, data: bytes) -> None:
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
        connection.is_closed = True


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m kio.bench.noop", description="a server that does nothing")
    parser.add_argument("--protocol", choices=("resp", "native"), required=True)
    parser.add_argument("--unix", help="listen at this path instead of a port of 127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-us", type=int, default=0)
    parser.add_argument("--value-bytes", type=int, default=100)
    chosen = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if chosen.unix:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(chosen.unix)
    else:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", chosen.port))
    listening.listen(1024)
    value = values_of(Plan(url="", value_bytes=str(chosen.value_bytes)))
    sys.stdout.write(f"{chosen.unix or listening.getsockname()[1]}\n")
    sys.stdout.flush()
    wake_on_time()
    gc.freeze()
    gc.disable()
    NoopServer(listening, chosen.protocol, value, chosen.delay_us * 1000).serve(sys.stdin.fileno())


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10:
        raise ProtocolError("a length is a number")
    return int(text)


if __name__ == "__main__":
    main()
