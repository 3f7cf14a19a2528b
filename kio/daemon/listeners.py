"""Sockets to listen on, and the directory of the pipes.

The supervisor binds everything and keeps it open as long as it lives, so that connections made while the router
restarts wait in the backlog and are not refused. A descriptor is inherited by the child that serves it, under the same
number.

A port or path may still be held for a moment by the children of a supervisor that was killed: binding is tried for
BIND_WAIT_S before it is an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kio import control
from kio.config import SOCKET_PATH_BYTES_MAX, Settings
from kio.errors import ConfigError

BACKLOG: Final = 4096
BIND_WAIT_S: Final = 2.0
_BIND_STEP_S: Final = 0.02

#: The longest file name of a pipe in its directory.
PIPE_NAME_BYTES_MAX: Final = 40


def listen_tcp(host: str, port: int, setting: str) -> socket.socket:
    """A non-blocking listening socket on `host`:`port`; port 0 is any free one. It is not inherited unless passed on.

    Raises:
        ConfigError: when the address cannot be bound; it names `setting`.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

    def bind() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

    return _bound(bind, f"{setting} {port} on {host}")


def listen_unix(path: Path) -> socket.socket:
    """A non-blocking listening Unix socket at `path`, mode 0600. One that nobody listens on any more is replaced.

    Raises:
        ConfigError: when somebody listens there, or it is something else than a socket.
    """

    def bind() -> socket.socket:
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(os.fspath(path))
            path.chmod(0o600)  # before listen: until then nobody can connect
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

    return _bound(bind, f"socket {path}")


def _bound(bind: Callable[[], socket.socket], what: str) -> socket.socket:
    deadline = time.monotonic() + BIND_WAIT_S
    while True:
        try:
            sock = bind()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(_BIND_STEP_S)
                continue
            raise ConfigError(f"cannot listen on {what}: {error.strerror or error}") from error
        sock.setblocking(False)
        return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"socket {path} exists and is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, "another process listens there")


@dataclass(frozen=True, slots=True)
class Doors:
    """Every socket that the daemon listens on.

    Attributes:
        native, unix: for clients, served by the router; `unix` is None where no path is set.
        resp, resp_unix: the same, for those of Redis.
        http: for the operator, served by the supervisor.
        ports: which TCP ports they are, and the path.
        url, resp_url, http_url: how to name them to a client.
    """

    native: socket.socket
    http: socket.socket
    unix: socket.socket | None
    resp: socket.socket
    resp_unix: socket.socket | None
    ports: Mapping[str, int | str | None]
    url: str
    resp_url: str
    http_url: str

    @classmethod
    @contextlib.contextmanager
    def opened(cls, settings: Settings) -> Iterator[Doors]:
        """All of them, until the end of the context; the Unix socket's path is removed then.

        Raises:
            ConfigError: when one of them cannot be bound.
        """
        with contextlib.ExitStack() as stack:
            native = stack.enter_context(listen_tcp(settings.host, settings.port, "port"))
            http = stack.enter_context(listen_tcp(_admin_host(settings), settings.http_port, "http_port"))
            resp = stack.enter_context(listen_tcp(settings.host, settings.resp_port, "resp_port"))
            unix, resp_unix = (cls._unix(stack, path) for path in (settings.socket, settings.resp_socket))
            native_port, http_port = native.getsockname()[1], http.getsockname()[1]
            scheme = "kios" if settings.tls_cert_file else "kio"
            host, admin_host = (f"[{each}]" if ":" in each else each for each in (settings.host, _admin_host(settings)))
            ports = {
                "native": native_port,
                "http": http_port,
                "resp": resp.getsockname()[1],
                "socket": settings.socket or None,
                "resp_socket": settings.resp_socket or None,
            }
            url, http_url = f"{scheme}://{host}:{native_port}", f"http://{admin_host}:{http_port}"
            resp_url = f"{'rediss' if scheme == 'kios' else 'redis'}://{host}:{ports['resp']}"
            yield cls(native, http, unix, resp, resp_unix, ports, url, resp_url, http_url)

    @property
    def inherited(self) -> list[dict[str, Any]]:
        """What the router serves: the descriptors' numbers and kinds."""
        doors = (
            (self.native, "tcp", "native"),
            (self.unix, "unix", "native"),
            (self.resp, "tcp", "resp"),
            (self.resp_unix, "unix", "resp"),
        )
        return [
            {"fd": sock.fileno(), "kind": kind, "protocol": protocol}
            for sock, kind, protocol in doors
            if sock is not None
        ]

    @staticmethod
    def _unix(stack: contextlib.ExitStack, name: str) -> socket.socket | None:
        if not name:
            return None
        path = Path(name).absolute()
        sock = stack.enter_context(listen_unix(path))
        stack.callback(path.unlink, missing_ok=True)
        return sock


def _admin_host(settings: Settings) -> str:
    """Where the admin door listens: on loopback, whatever the host is, since it asks nobody who he is."""
    if not settings.is_exposed:
        return settings.host
    return "::1" if ":" in settings.host else "127.0.0.1"


class PipesDirectory:
    """DATA/run: where pipes are bound, mode 0700, empty at start.

    Attributes:
        address: the path to name it by. Where the real one is too long for a Unix socket, it goes through a descriptor
            that every child inherits.
        inherited_fds: that descriptor, if there is one.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
        self.path = path
        self.empty()
        self.address = os.fspath(path.resolve())
        self.inherited_fds: tuple[int, ...] = ()
        if len(os.fsencode(self.address)) + 1 + PIPE_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.inherited_fds = (fd,)
            self.address = f"/proc/self/fd/{fd}"

    def empty(self) -> None:
        """Remove what is in it."""
        for file in self.path.iterdir():
            file.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget the files of one pair of pipes, which a killed worker left behind."""
        for endpoint in control.pipe_endpoints(os.fspath(self.path), name):
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    def close(self) -> None:
        """Empty it; nobody uses it any more."""
        self.empty()
        for fd in self.inherited_fds:
            os.close(fd)
