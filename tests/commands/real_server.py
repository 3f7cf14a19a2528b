"""A redis-server of one's own, and the least client that hides nothing of its answers."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kio.limits import KEYSPACES
from tests.commands.shard_model import Refused


class RealServer:
    """One connection; called like a ShardModel."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._file: BinaryIO = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __call__(self, *words: bytes | str | int) -> Any:
        args = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in args))
        return self._reply()

    def _reply(self) -> Any:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), "the server closed the connection"
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b":":
            return int(rest)
        count = int(rest)
        if count < 0:
            return None
        if kind == b"$":
            return self._file.read(count + 2)[:-2]
        assert kind == b"*", line
        replies = []
        for _ in range(count):
            try:
                replies.append(self._reply())
            except Refused as error:
                replies.append(error)
        return replies


@contextmanager
def real_server(directory: Path) -> Iterator[RealServer]:
    """A server that listens on a socket in `directory` (its path must be short) and keeps nothing."""
    path = directory / "r.sock"
    options = {"port": "0", "unixsocket": str(path), "save": "", "appendonly": "no", "databases": str(KEYSPACES)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with subprocess.Popen(["redis-server", *words], cwd=directory, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(500):
                if path.exists():
                    break
                assert process.poll() is None, "redis-server did not start"
                time.sleep(0.01)
            server = RealServer(path)
            try:
                yield server
            finally:
                server.close()
        finally:
            process.terminate()
