"""The pair of ZeroMQ pipes between this worker and one router.

Owns: a PULL socket that operations come in by, a PUSH socket that replies leave by, and the replies that could not
leave yet.
Invariants:
  * nothing here blocks: sends do not wait, and high-water marks are off, since the router bounds what is in flight;
  * a pair serves one incarnation of the worker and one of the router and is then closed with all it holds, so that no
    request made of a dead worker is executed late and no reply reaches the wrong router.
ZeroMQ's descriptors only say "look at me": a reader must `receive` until there is nothing, and a writer must look again
(`flush`) when the peer has come. Before the router has connected its end, replies wait in `_unsent`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import zmq

from kio import control

#: How long a clean stop waits for the router to take the last replies.
LINGER_MS: Final = 500


class Pipes:
    """A bound pair of pipes.

    Raises:
        zmq.ZMQError: from the constructor, when an endpoint cannot be bound.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pipes_dir: str, name: str) -> None:
        self.name = name
        operations, replies = control.pipe_endpoints(pipes_dir, name)
        self._unsent: deque[bytes] = deque()
        self._pull = context.socket(zmq.PULL)
        self._push = context.socket(zmq.PUSH)
        for sock in (self._pull, self._push):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVHWM, 0)
            sock.setsockopt(zmq.SNDHWM, 0)
        try:
            self._pull.bind(operations)
            self._push.bind(replies)
        except zmq.ZMQError:
            self.close()
            raise
        #: To be watched for reading: operations may have come, or the router's end may have.
        self.pull_fd = int(self._pull.getsockopt(zmq.FD))
        self.push_fd = int(self._push.getsockopt(zmq.FD))

    @property
    def is_flushed(self) -> bool:
        """Whether every reply is with ZeroMQ."""
        return not self._unsent

    def receive(self) -> bytes | None:
        """The next message of operations, or None when there is none now."""
        try:
            return self._pull.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, replies: bytes) -> None:
        """Hand over one message of replies, in order."""
        if self._unsent:
            self._unsent.append(replies)
            return
        try:
            self._push.send(replies, zmq.NOBLOCK)
        except zmq.Again:
            self._unsent.append(replies)

    def flush(self) -> None:
        """Send what waits, as far as the router takes it; to be called when `push_fd` is readable."""
        # Reading the events is what makes ZeroMQ look at its descriptor and quieten it.
        while int(self._push.getsockopt(zmq.EVENTS)) & zmq.POLLOUT and self._unsent:
            self._push.send(self._unsent.popleft(), zmq.NOBLOCK)

    def close(self, linger_ms: int = 0) -> None:
        """Close both ends and remove their names; with `linger_ms`, what was sent may still leave that long."""
        self._pull.close(linger=0)
        self._push.close(linger=linger_ms)
