"""One connection of a generator, and the slots for requests that it has.

A connection is up, coming up (connecting, then greeting), or down. The loop (loop.py) sends and receives over those
that are up itself; this file is what happens around that: it opens, comes up without blocking, and ends.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from array import array
from collections import deque
from typing import Final

from kio.bench.frames import Greeting, Tally
from kio.bench.plan import Plan
from kio.bench.targets import Target, connect
from kio.client.options import reason
from kio.errors import KioError, ProtocolError

_RECEIVE_BYTES: Final = 64 << 10


class Slot:
    """Room for one request on a connection, and the request that is in it."""

    __slots__ = ("connection", "due_ns", "follow", "free_ns", "ids", "kinds", "left", "number", "sent_ns", "sizes")

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        #: 0 to depth - 1.
        self.number = number
        #: When it became free, when its request was due, when that was sent.
        self.free_ns = 0
        self.due_ns = 0
        self.sent_ns = 0
        #: Commands without a reply.
        self.left = 0
        #: The request's operations, where some are to be written back; empty otherwise.
        self.kinds = b""
        self.ids = array("Q")
        self.sizes = array("I")
        #: Which of them were read and are to be written when every reply is there.
        self.follow: list[int] = []


class Connection:
    """A connection to the target; `is_up` when it can be used."""

    __slots__ = ("_greeting", "_plan", "_tally", "_target", "is_up", "replies", "slots", "socket", "unsent", "waiting")

    def __init__(self, target: Target, plan: Plan, tally: Tally) -> None:
        self._target = target
        self._plan = plan
        self._tally = tally
        self._greeting: Greeting | None = None
        self.socket: socket.socket | None = None
        self.is_up = False
        self.slots = [Slot(self, number) for number in range(plan.depth)]
        #: Slots whose requests are outstanding, in the order in which they were sent.
        self.waiting: deque[Slot] = deque()
        self.replies = target.replies(tally, plan.batch)
        #: What the socket did not take yet.
        self.unsent: deque[memoryview] = deque()

    def open(self) -> None:
        """Come up, blocking; raises as targets.connect does."""
        self.socket = connect(self._target)
        self.socket.setblocking(False)
        self.is_up = True

    def begin(self, epoll: select.epoll) -> None:
        """Begin to come up without blocking; raises OSError or KioError when that is hopeless now."""
        assert self.socket is None
        made = self._target.socket()
        try:
            made.setblocking(False)
            code = made.connect_ex(self._target.sockaddr())
            if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
                raise OSError(code, os.strerror(code))
            if code == errno.EAGAIN:
                raise OSError(errno.ECONNREFUSED, "its backlog is full")
            epoll.register(made, select.EPOLLOUT)
        except BaseException:
            made.close()
            raise
        self.socket = made

    def advance(self, epoll: select.epoll, mask: int) -> None:
        """Go on coming up with what epoll told; raises OSError or KioError when it cannot."""
        assert self.socket is not None
        if self._greeting is None:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self._greeting = self._target.greeting()
            self.socket.send(self._greeting.opening)
            epoll.modify(self.socket, select.EPOLLIN)
            return
        if not mask & ~select.EPOLLOUT:
            return
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if self._greeting.take(data):
            self._greeting = None
            self.is_up = True

    def end(self) -> list[Slot]:
        """Close it; the slots whose requests were outstanding."""
        assert self.socket is not None
        self.socket.close()
        self.socket = None
        self.is_up = False
        self._greeting = None
        self.unsent.clear()
        self.replies = self._target.replies(self._tally, self._plan.batch)
        outstanding = list(self.waiting)
        self.waiting.clear()
        return outstanding

    def keep(self, data: bytes, sent: int) -> bool:
        """Remember what the socket did not take of `data`; whether the socket must be watched from now on."""
        self.unsent.append(memoryview(data)[sent:])
        return len(self.unsent) == 1

    def send_unsent(self) -> bool:
        """Send what the socket takes of what is left; whether all of it went. Raises OSError when it is broken."""
        assert self.socket is not None
        while self.unsent:
            part = self.unsent[0]
            try:
                sent = self.socket.send(part)
            except BlockingIOError:
                return False
            if sent < len(part):
                self.unsent[0] = part[sent:]
                return False
            self.unsent.popleft()
        return True


def why(error: OSError | KioError) -> str:
    """What became of a connection, for an event."""
    return str(error) if isinstance(error, KioError) else reason(error)


def code_of(error: OSError | KioError) -> str:
    """As what the operations count that were outstanding when a connection ended so."""
    return "ProtocolError" if isinstance(error, ProtocolError) else "ConnectionLost"
