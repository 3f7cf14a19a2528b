"""A server that is redis-server but for one lie: it proves that the comparison would catch a kio with that error.

Owns: a listening socket, and for each client a thread and a connection to the redis-server behind it. Commands go
through one by one, so that a lie knows which reply belongs to which command.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

from tests.resp.resp_codec import Array, Command, Connection, Decoder, Reply, encode
from tests.resp.servers import Server

#: (command, the true reply) -> what the client is told.
Lie = Callable[[Command, Reply], Reply]
#: command -> what redis-server is told in its place.
Deed = Callable[[Command], Command]


class Liar:
    """Listens on loopback until it is closed."""

    def __init__(self, behind: Server, lie: Lie, deed: Deed = lambda words: words) -> None:
        self._behind = behind
        self._lie = lie
        self._deed = deed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def server(self) -> Server:
        return Server("liar", self._listener.getsockname()[1], lambda: [os.getpid()])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        decoder = Decoder()
        with client, self._behind.connect() as behind, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                decoder.feed(data)
                answers = [self._answer(behind, words) for words in _commands(decoder)]
                client.sendall(b"".join(answers))

    def _answer(self, behind: Connection, words: Command) -> bytes:
        return encode(self._lie(words, behind.call(*self._deed(words))))


def _commands(decoder: Decoder) -> Iterator[Command]:
    while (request := decoder.take()) is not None:
        assert isinstance(request, Array)
        yield tuple(word for word in request if isinstance(word, bytes))


def honest(words: Command, reply: Reply) -> Reply:
    """No lie at all."""
    return reply


@contextlib.contextmanager
def liar(behind: Server, lie: Lie, deed: Deed = lambda words: words) -> Iterator[Server]:
    """A liar as a server."""
    running = Liar(behind, lie, deed)
    try:
        yield running.server
    finally:
        running.close()
