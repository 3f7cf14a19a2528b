"""A connection as the door sees it: its socket, its TLS, who stands behind it, and when it last did what.

Not here: what its bytes mean (Dispatch) and when it ends (door.py).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from kio.access import User
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.poller import READABLE
from kio.frontdoor.tls import TlsStream

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Connection:
    """One connection.

    Attributes:
        peer, host: its address as a log line shows it; without the port, "unix" where it has none.
        tls: None where it is plain.
        user: who it is, of the native protocol; None until its hello is answered.
        read_at: when bytes came last.
        sent_at: when output last became smaller, or began to wait.
        taken, active_at: its requests, as last counted, and when there were fewer or some were under way.
        parted_at: when it was told that no more comes.
    """

    __slots__ = (
        "active_at", "fd", "host", "id", "is_resp", "mask", "opened_at", "parted_at", "peer", "read_at", "sent_at",
        "sock", "taken", "tls", "user",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, id: int, peer: str, now: float, *, is_resp: bool, context: ssl.SSLContext | None
    ) -> None:
        self.sock = sock
        self.tls = None if context is None else TlsStream(context)
        self.is_resp = is_resp
        self.fd = sock.fileno()
        self.id = id
        self.peer = peer
        self.host = host_of(peer)
        self.mask = READABLE
        self.user: User | None = None
        self.taken = 0
        self.opened_at = self.read_at = self.sent_at = self.active_at = now
        self.parted_at: float | None = None

    def send(self, dispatch: Dispatch) -> tuple[int, int]:
        """Send what the socket takes of the output; (bytes that left, 0 when nothing is left).

        Raises:
            OSError: when the connection is broken.
        """
        if self.tls is None:
            sent = self._push(dispatch.output(self.id))
            return sent, dispatch.consumed(self.id, sent)
        sent = 0
        while True:
            left = dispatch.consumed(self.id, self.tls.send(dispatch.output(self.id)))
            ciphertext = self.tls.output()
            if not ciphertext:
                return sent, left
            size = len(ciphertext)
            n = self._push(ciphertext)
            waiting = self.tls.consumed(n)
            sent += n
            if n < size:
                return sent, left + waiting

    def part(self) -> None:
        """Say that nothing more comes; what was not sent by now never is, where it is TLS.

        Raises:
            OSError: when the connection is broken.
        """
        if self.tls is not None:
            self.tls.close()
            self._push(self.tls.output())
        self.sock.shutdown(socket.SHUT_WR)

    def _push(self, data: Buffer) -> int:
        try:
            return self.sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0


def tune(listener: socket.socket) -> None:
    """Options that every connection inherits from its listener: no delay, and two minutes to notice a dead peer."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def peer_of(sock: socket.socket, address: object) -> str:
    """An address as a log line shows it: host:port, or "unix"."""
    if sock.family == socket.AF_UNIX:
        return "unix"
    host, port = address[:2] if isinstance(address, tuple) else (address, 0)
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def host_of(peer: str) -> str:
    """What `peer_of` gave, without the port.

    >>> host_of("10.1.2.3:77"), host_of("[::1]:77"), host_of("unix")
    ('10.1.2.3', '::1', 'unix')
    """
    return peer.rpartition(":")[0].strip("[]") or peer


def send_last(sock: socket.socket, frame: bytes) -> None:
    """Send a farewell, as much as fits."""
    try:
        sock.send(frame, socket.MSG_NOSIGNAL)
    except OSError:
        return
