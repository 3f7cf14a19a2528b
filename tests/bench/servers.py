"""Servers for the generator to meet: the no-op server as a process, and scripted ones that misbehave, as threads."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: What a scripted server does with one connection; when it returns the connection is closed.
Script = Callable[[socket.socket], None]

TEXT_OK = b"+OK\r\n"
PONG = b"+PONG\r\n"


@contextmanager
def noop_process(protocol: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """(process, URL) of a no-op server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kio.bench.noop", "--protocol", protocol, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = process.stdout.readline().decode().strip()
        scheme = "kio" if protocol == "native" else "redis"
        yield process, f"{scheme}+unix://{told}" if told.startswith("/") else f"{scheme}://127.0.0.1:{told}"
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """The address (HOST:PORT) of a server that plays `script` on each connection, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    threads: list[threading.Thread] = []
    accepted: list[socket.socket] = []

    def play(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            script(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            accepted.append(connection)
            thread = threading.Thread(target=play, args=(connection,))
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def answer_each(connection: socket.socket, reply: bytes, most: int | None = None, mark: bytes = b"*") -> None:
    """Answer each of the first `most` commands with `reply`; `mark` stands once in each command."""
    while most is None or most > 0:
        data = connection.recv(65536)
        if not data:
            return
        count = data.count(mark) if most is None else min(most, data.count(mark))
        if most is not None:
            most -= count
        connection.sendall(reply * count)
