"""What is known of each RESP connection, beyond what the kernel needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kio.clock import monotonic_s
from kio.commands.ops import Plan

#: (epoch, LSN) of a record; of an absent key (0, what changes when it comes), or None.
Version = tuple[int, int] | None


class Watched(dict[tuple[int, bytes], Version]):
    """(keyspace, key) -> the version of its record when it was watched.

    Attributes:
        is_void: one of them is another than it was, whatever its version is: EXEC does nothing.
    """

    is_void = False


class Queued(NamedTuple):
    """A command that waits for EXEC."""

    arguments: list[bytes]
    #: How long they are.
    size: int


class Held:
    """What the queues and the watches of all connections take, in bytes, about."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


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
        held: what its queue and its watches are counted in, too.
    Invariant: `queued_bytes` and `watched_bytes` are a part of `held.bytes`, until the session is removed.
    """

    __slots__ = (
        "connection", "fd", "held", "keyspace", "last", "last_s", "library", "library_version", "local", "name",
        "opened_s", "peer", "queue_error", "queued", "queued_bytes", "reply_mode", "stranger_s", "user", "version",
        "watched", "watched_bytes",
    )  # fmt: skip

    def __init__(self, connection: int, fd: int, peer: str, local: str) -> None:
        self.connection = connection
        self.fd = fd
        self.peer = peer
        self.local = local
        self.opened_s = self.last_s = self.stranger_s = monotonic_s()
        self.last = "NULL"
        self.user: Any = None
        self.held = Held()
        self.queued_bytes = 0
        #: What `watched` takes, about.
        self.watched_bytes = 0
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
        self.watched = Watched()
        self.held.bytes -= self.watched_bytes
        self.watched_bytes = 0

    def begin_queue(self) -> None:
        """MULTI."""
        self.queued: list[Queued] | None = []
        self.queue_error = False

    def queue(self, arguments: list[bytes], size: int) -> None:
        """A command waits for EXEC."""
        assert self.queued is not None
        self.queued.append(Queued(arguments, size))
        self.queued_bytes += size
        self.held.bytes += size

    def watch(self, watched: Mapping[tuple[int, bytes], Version], size: int) -> None:
        """EXEC depends on these, too."""
        self.watched |= watched
        self.watched_bytes += size
        self.held.bytes += size

    def end_queue(self) -> None:
        """After EXEC or DISCARD."""
        self.queued = None
        self.held.bytes -= self.queued_bytes
        self.queued_bytes = 0
        self.queue_error = False


class Sessions:
    """All of them, by connection."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self.held = Held()
        #: What transactions under way depend on, by its id().
        self._executing: dict[int, Watched] = {}

    def add(self, session: Session) -> None:
        """It came, and holds nothing yet."""
        session.held = self.held
        self._sessions[session.connection] = session

    def remove(self, connection: int) -> None:
        """It went."""
        session = self._sessions.pop(connection, None)
        if session is not None:
            session.end_queue()
            session.unwatch()

    def get(self, connection: int) -> Session | None:
        """That of a connection."""
        return self._sessions.get(connection)

    def executing(self, plan: Plan, watched: Watched) -> Plan:
        """The plan of a transaction; what it depends on is among `watches` until it ends."""
        self._executing[id(watched)] = watched
        try:
            return (yield from plan)
        finally:
            del self._executing[id(watched)]

    def watches(self) -> list[Watched]:
        """What transactions depend on, those to come and those under way."""
        return [session.watched for session in self] + list(self._executing.values())

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)
