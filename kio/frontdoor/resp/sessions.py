"""What is known of each RESP connection, beyond what the kernel needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kio.clock import monotonic_s

#: (keyspace, key) -> (epoch, LSN) of its record when it was watched, None where it was absent.
Watched = dict[tuple[int, bytes], tuple[int, int] | None]


class Queued(NamedTuple):
    """A command that waits for EXEC."""

    arguments: list[bytes]
    #: How long they are.
    size: int


class Session:
    """One connection.

    Attributes:
        connection, fd, peer, local: the kernel's name of it, the descriptor, both addresses.
        queued: the commands since MULTI; None outside of it.
        queue_error: one of them was refused, so EXEC will be.
        watched: what EXEC depends on.
        version: of RESP.
        user: who it is; None while it is a stranger.
        stranger_s: since when it is one, if it is.
    """

    __slots__ = (
        "connection", "fd", "keyspace", "last", "last_s", "library", "library_version", "local", "name", "opened_s",
        "peer", "queue_error", "queued", "queued_bytes", "reply_mode", "stranger_s", "user", "version", "watched",
        "watched_bytes",
    )  # fmt: skip

    def __init__(self, connection: int, fd: int, peer: str, local: str) -> None:
        self.connection = connection
        self.fd = fd
        self.peer = peer
        self.local = local
        self.opened_s = self.last_s = self.stranger_s = monotonic_s()
        self.last = "NULL"
        self.user: Any = None
        self.forget()

    def forget(self) -> None:
        """What RESET does: as it was in the beginning, but for who it is."""
        self.keyspace = 0
        self.version = 2
        self.name = b""
        self.library = b""
        self.library_version = b""
        self.reply_mode = "on"
        self.unwatch()
        self.end_queue()

    def unwatch(self) -> None:
        """EXEC depends on nothing."""
        self.watched: Watched = {}
        #: What they take, about.
        self.watched_bytes = 0

    def begin_queue(self) -> None:
        """MULTI."""
        self.queued: list[Queued] | None = []
        self.queued_bytes = 0
        self.queue_error = False

    def end_queue(self) -> None:
        """After EXEC or DISCARD."""
        self.queued = None
        self.queued_bytes = 0
        self.queue_error = False


class Sessions:
    """All of them, by connection."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}

    def add(self, session: Session) -> None:
        """It came."""
        self._sessions[session.connection] = session

    def remove(self, connection: int) -> None:
        """It went."""
        self._sessions.pop(connection, None)

    def get(self, connection: int) -> Session | None:
        """That of a connection."""
        return self._sessions.get(connection)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)
