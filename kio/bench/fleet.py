"""The connections of one generator process: which are up, which are coming up again, and what became of them.

A connection that ended is opened anew without blocking, again and again, while the loop goes on with those that are
up. When none could be had for NO_CONNECTION_NS the server is taken for dead.
"""

from __future__ import annotations

import select
from typing import Final

from kio.bench.connection import Connection, Slot, why
from kio.errors import KioError

#: How often it is tried, and for how long when there is no connection at all.
RECONNECT_NS: Final = 100_000_000
NO_CONNECTION_NS: Final = 5_000_000_000
EVENTS_MAX: Final = 200


class Fleet:
    """All connections, and the epoll that watches them."""

    def __init__(self, connections: list[Connection]) -> None:
        """`connections` are up."""
        self.connections = connections
        self.epoll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        #: (CLOCK_MONOTONIC, what happened), in order.
        self.events: list[tuple[int, str]] = []
        self.lost = 0
        self._down: list[Connection] = []
        #: What ended connections since the last look, and how many.
        self._reasons: dict[str, int] = {}
        self._tried_ns = 0
        self._lost_ns = 0
        for connection in connections:
            self._watch(connection)
            self.epoll.register(self._fd(connection), select.EPOLLIN)

    def close(self) -> None:
        """Close everything."""
        for connection in self.connections:
            if connection.socket is not None:
                connection.end()
        self.epoll.close()

    def event(self, at_ns: int, text: str) -> None:
        """Note what happened, for the report."""
        if len(self.events) < EVENTS_MAX:
            self.events.append((at_ns, text))

    def watch_unsent(self, connection: Connection, is_unsent: bool) -> None:
        """Be told when the socket takes more, or no longer."""
        self.epoll.modify(self._fd(connection), select.EPOLLIN | (select.EPOLLOUT if is_unsent else 0))

    def lose(self, connection: Connection, error: OSError | KioError, now: int) -> list[Slot]:
        """A connection that was up has ended; the slots whose requests were outstanding."""
        assert connection.is_up
        self.lost += 1
        self._lost_ns = now
        text = why(error)
        self._reasons[text] = self._reasons.get(text, 0) + 1
        return self._end(connection)

    def advance(self, connection: Connection, mask: int, now: int) -> bool:
        """Something happened to a connection that is coming up; whether it is up now."""
        try:
            connection.advance(self.epoll, mask)
        except BlockingIOError:
            return False
        except (OSError, KioError):
            self._end(connection)
            return False
        if not connection.is_up:
            return False
        self._down.remove(connection)
        if not self._down:
            self._tell_reasons(now)
            self.event(now, "all connections are up again")
        return True

    def look(self, now: int) -> bool:
        """Try again where it is time to; whether the server is to be taken for dead."""
        self._tell_reasons(now)
        if not self._down:
            return False
        if now - self._tried_ns >= RECONNECT_NS:
            self._tried_ns = now
            for connection in self._down:
                if connection.socket is None:
                    self._begin(connection)
        if any(connection.is_up for connection in self.connections) or now - self._lost_ns < NO_CONNECTION_NS:
            return False
        self.event(now, f"no connection for {NO_CONNECTION_NS / 1e9:g} s: the run ended early")
        return True

    def _begin(self, connection: Connection) -> None:
        try:
            connection.begin(self.epoll)
        except (OSError, KioError):
            return
        self._watch(connection)

    def _tell_reasons(self, now: int) -> None:
        for text, count in self._reasons.items():
            self.event(now, f"{count} {'connection' if count == 1 else 'connections'} lost: {text}")
        self._reasons.clear()

    def _watch(self, connection: Connection) -> None:
        self.by_fd[self._fd(connection)] = connection

    def _end(self, connection: Connection) -> list[Slot]:
        del self.by_fd[self._fd(connection)]
        if connection not in self._down:
            self._down.append(connection)
        return connection.end()

    @staticmethod
    def _fd(connection: Connection) -> int:
        assert connection.socket is not None
        return connection.socket.fileno()
