"""A server that speaks kio.wire, written from its text, with a dict for a store and every fault on demand.

Each connection has a thread that answers its requests one by one. Before it executes a request it asks `script`, a
function of (operation, arguments), what to do instead; None is the right thing. `greeting` is what it does instead of
answering a hello.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgpack

from kio import wire
from kio.errors import BadRequest, FrameTooLarge, ReplyTooLarge
from tests.client.reference_store import ReferenceStore


@dataclass
class Fail:
    """Answer with this error; execute the request first if `executes`."""

    code: int
    message: str = ""
    maybe_applied: bool = False
    executes: bool = False


@dataclass
class FailKeys:
    """Answer a batch partially: index -> code of the keys that fail; the others are executed."""

    codes: dict[int, int]
    maybe_applied: bool = False


@dataclass
class Drop:
    """Close the connection after `reply_bytes` of the reply; execute the request first if `executes`."""

    reply_bytes: int = 0
    executes: bool = False


@dataclass
class Hold:
    """Answer only when the event is set."""

    until: threading.Event = field(default_factory=threading.Event)


@dataclass
class Send:
    """Send these bytes instead of a reply."""

    data: bytes


Script = Callable[[int, list[Any]], Any]


class ReferenceServer:
    HELLO: ClassVar[dict[str, Any]] = {
        "protocol": wire.PROTOCOL_VERSION,
        "server": "reference",
        "shards": 2,
        "frame_bytes_max": 8 << 20,
        "key_bytes_max": 65_535,
        "value_bytes_max": 1 << 20,
        "frame_keys_max": 65_536,
    }

    def __init__(self, path: Path | None = None) -> None:
        self.script: Script = lambda op, arguments: None
        self.greeting: Any = None
        #: Where set, connections speak TLS.
        self.context: ssl.SSLContext | None = None
        #: The map of each hello.
        self.hellos: list[dict[bytes, Any]] = []
        self.hello: dict[str, Any] = dict(self.HELLO)
        self.store = ReferenceStore(self.hello)
        #: Value bytes of one reply to get_many; keys beyond it are answered ReplyTooLarge.
        self.reply_bytes_max = 64 << 20
        #: Send replies in pieces of this many bytes.
        self.piece_bytes = 0
        #: (connection's number, operation, arguments, deadline_ms) of every request, hello apart.
        self.requests: list[tuple[int, int, list[Any], int]] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._is_stopping = False
        self._path = path
        self.port = 0
        self.start()

    @property
    def keyspaces(self) -> dict[int, dict[bytes, bytes]]:
        return self.store.keyspaces

    @property
    def url(self) -> str:
        return f"kio+unix://{self._path}" if self._path else f"kio://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        self._is_stopping = False
        if self._path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
        else:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
        self._listener.listen(64)
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Close everything; the data stays."""
        self._is_stopping = True
        with socket.socket(socket.AF_UNIX if self._path else socket.AF_INET) as waker:
            waker.connect(str(self._path) if self._path else ("127.0.0.1", self.port))
        self.drop_connections()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads.clear()
        if self._path:
            self._path.unlink()

    def drop_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the other side was faster
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # also below TLS

    def operations(self) -> list[int]:
        return [op for _, op, _, _ in self.requests]

    def _spawn(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                connection, _ = listener.accept()
                if self._is_stopping:
                    connection.close()
                    return
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._open.add(connection)
                    self.connections += 1
                self._spawn(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection:
                if isinstance(connection, ssl.SSLSocket):
                    connection.do_handshake()
                for message in self._messages(connection):
                    if not self._answer(connection, number, message):
                        return
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(connection)

    def _messages(self, connection: socket.socket) -> Iterator[list[Any]]:
        with connection.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                (length,) = struct.unpack(">I", head)
                body = stream.read(length)
                if len(body) < length:
                    return
                message = msgpack.unpackb(body, raw=True, use_list=True)
                if length > self.hello["frame_bytes_max"]:
                    self._send(connection, [message[0], FrameTooLarge.code, "too long", False])
                    continue
                yield message

    def _answer(self, connection: socket.socket, number: int, message: list[Any]) -> bool:
        id_, op, deadline_ms, *arguments = message
        if op == wire.OP_HELLO:
            self.hellos.append(arguments[0])
            if isinstance(self.greeting, Hold):
                self.greeting.until.wait(10)
            elif self.greeting is not None:
                return self._act(connection, id_, op, arguments, self.greeting)
            self._send(connection, [id_, 0, self.hello])
            return True
        with self._lock:
            self.requests.append((number, op, arguments, deadline_ms))
        todo = self.script(op, arguments)
        if todo is None:
            self._send(connection, [id_, *self._execute(op, arguments)])
            return True
        return self._act(connection, id_, op, arguments, todo)

    def _act(self, connection: socket.socket, id_: int, op: int, arguments: list[Any], todo: Any) -> bool:
        if isinstance(todo, Send):
            connection.sendall(todo.data)
            return True
        if isinstance(todo, Hold):
            todo.until.wait(10)
        if isinstance(todo, Fail):
            if todo.executes:
                self._execute(op, arguments)
            self._send(connection, [id_, todo.code, todo.message, todo.maybe_applied])
            return True
        if isinstance(todo, Drop):
            reply = wire.encode_frame([id_, *self._execute(op, arguments)] if todo.executes else [id_, 0, None])
            connection.sendall(reply[: todo.reply_bytes])
            return False
        reply = self._execute(op, arguments, todo.codes if isinstance(todo, FailKeys) else {})
        if isinstance(todo, FailKeys):
            result = reply[1]
            errors = [[i, code, "", todo.maybe_applied] for i, code in todo.codes.items()]
            reply = [wire.STATUS_PARTIAL, result, errors]
        self._send(connection, [id_, *reply])
        return True

    def _send(self, connection: socket.socket, message: list[Any]) -> None:
        data = wire.encode_frame(message)
        piece = self.piece_bytes or len(data)
        for at in range(0, len(data), piece):
            connection.sendall(data[at : at + piece])

    def _execute(self, op: int, arguments: list[Any], without: Any = ()) -> list[Any]:
        """What follows the id in the reply; `without` holds the indexes of a batch that are left out."""
        with self._lock:
            if op == wire.OP_STATS:
                return [0, {"shards": {0: {"keys": 1}}}]
            if op == wire.OP_COMPACT:
                return [0, 7]
            if op == wire.OP_PING:
                return [0, arguments[0]]
            keyspace, *rest = arguments
            if op == wire.OP_ATOMIC:
                return self.store.atomic(keyspace, *rest)
            if op <= wire.OP_TTL:
                return self.store.execute(op, keyspace, *rest)
            if op == wire.OP_GET_MANY:
                return self._get_many([self.store.get(keyspace, key) for key in rest[0]], without)
            if op == wire.OP_SET_MANY:
                items = [[k, v, *rest[1:]] for k, v in zip(rest[0][0::2], rest[0][1::2], strict=True)]
                return self._many(wire.OP_SET, keyspace, items, without)
            if op in (wire.OP_DELETE_MANY, wire.OP_EXISTS_MANY):
                return self._many(op - wire.OP_MANY, keyspace, [[key] for key in rest[0]], without)
            data = self.store.present(keyspace)
            if op == wire.OP_COUNT:
                return [0, len(data)]
            if op == wire.OP_CLEAR:
                count = len(data)
                data.clear()
                return [0, count]
            if op == wire.OP_SCAN:
                return [0, self._scan(keyspace, data, *rest)]
        return [BadRequest.code, f"operation {op}", False]

    def _many(self, op: int, keyspace: int, items: list[list[Any]], without: Any) -> list[Any]:
        results: list[Any] = []
        errors = []
        for i, item in enumerate(items):
            status, *answer = (0, None) if i in without else self.store.execute(op, keyspace, *item)
            if status >= wire.STATUS_ERROR:
                errors.append([i, status, "", False])
            results.append(None if status >= wire.STATUS_ERROR else False if status else answer[0])
        return [wire.STATUS_PARTIAL, results, errors] if errors else [0, results]

    def _get_many(self, found: list[bytes | None], without: Any) -> list[Any]:
        room = self.reply_bytes_max
        values: list[bytes | None] = []
        errors = []
        for i, value in enumerate(found):
            value = None if i in without else value
            room -= len(value or b"")
            if room < 0:
                errors.append([i, ReplyTooLarge.code, "", False])
                value = None
            values.append(value)
        return [wire.STATUS_PARTIAL, values, errors] if errors else [0, values]

    def _scan(
        self, keyspace: int, data: dict[bytes, bytes], cursor: bytes, prefix: bytes, limit: int, what: int
    ) -> list[Any]:
        keys = sorted(key for key in data if key.startswith(prefix) and key > cursor)
        page = keys[:limit]
        found = [part for key in page for part in (key, data[key], self.store.expire_at(keyspace, key))[: what + 1]]
        return [page[-1] if len(keys) > limit else b"", found]


@contextmanager
def reference_server(path: Path | None = None) -> Iterator[ReferenceServer]:
    server = ReferenceServer(path)
    try:
        yield server
    finally:
        server.stop()
