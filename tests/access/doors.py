"""Clients of both protocols for tests of who may do what: plain or TLS, by what the daemon announced."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kio.access import Right, User, users_file
from kio.access.passwords import Cost, hashed
from kio.tls import client_context
from tests.cluster.daemon import Daemon, wait_until
from tests.cluster.rawwire import HELLO, Wire
from tests.resp.resp_codec import Connection
from tests.tls import AUTHORITY, private

#: The cheapest that a users file may hold: these tests are not about guessing.
CHEAP = Cost(10, 1, 1)


def user(name: str, right: Right, *prefixes: bytes, password: bytes | None = None) -> User:
    """A user whose password is its name and "-word", unless told."""
    return User(name, right, prefixes, hashed(password or name.encode() + b"-word", CHEAP))


def write_users(path: Path, *users: User) -> None:
    """Write them as the users file."""
    users_file.write(path, {each.name: each for each in users})


def tls_flags(folder: Path, name: str = "server.pem") -> list[str]:
    """The flags for TLS with a certificate that AUTHORITY has signed."""
    path = str(private(name, folder))
    return ["--tls-cert-file", path, "--tls-key-file", path]


def resp_url(daemon: Daemon) -> str:
    """The RESP door of the last start."""
    found: list[bytes] = re.findall(rb"\bresp=(rediss?://[^\s\"]+)", daemon.log.read_bytes())
    return found[-1].decode()


def secured(sock: socket.socket) -> ssl.SSLSocket:
    """A TLS client's end of a connected socket."""
    return client_context(AUTHORITY).wrap_socket(sock, server_hostname="127.0.0.1")


class Native(Wire):
    """A connection of kio's own protocol, over TLS where the URL says so; greeted as `name` if one is given."""

    def __init__(self, daemon: Daemon, name: str | None = None, password: str | bytes | None = None) -> None:
        super().__init__(daemon.url, hello=False)
        if daemon.url.startswith("kios:"):
            self.sock = secured(self.sock)
        if name is not None:
            reply = self.hello(user=name, password=f"{name}-word" if password is None else password)
            assert reply[1] == 0, reply

    def hello(self, **credentials: Any) -> list[Any]:
        self.send(HELLO, {"protocol": 2, "client": "tests"} | credentials)
        return self.receive()

    def ask(self, op: int, *arguments: Any) -> Any:
        """The code of a reply, 0 where it is good."""
        self.send(op, *arguments)
        return self.receive()[1]

    def is_closed(self) -> bool:
        return is_closed(self.sock)


class Resp(Connection):
    """The same of RESP."""

    def __init__(self, daemon: Daemon, name: str | None = None) -> None:
        parts = urlsplit(resp_url(daemon))
        assert parts.port is not None
        super().__init__(parts.port)
        if parts.scheme == "rediss":
            self._socket = secured(self._socket)
        if name is not None:
            assert self.ask("AUTH", name, f"{name}-word") == "OK"

    def ask(self, *words: bytes | str | int) -> str:
        """The first word of an error or of a simple string; "" for any other reply."""
        text: bytes = getattr(self.call(*words), "text", b"")
        return text.decode().partition(" ")[0]

    def is_closed(self) -> bool:
        return is_closed(self._socket)


def is_closed(sock: socket.socket) -> bool:
    """Whether the peer closes within the limit; what comes before is thrown away."""
    try:
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def logged(daemon: Daemon, text: str) -> None:
    """Wait for a log line."""
    wait_until(lambda: text in daemon.log_tail(200), 5, f"{text!r} in the log")
