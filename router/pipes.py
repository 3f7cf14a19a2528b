"""The connecting ends of the pipes to one worker.

Owns: a PUSH socket that batches leave by, a PULL socket that replies come in by.
Invariants:
  * a name belongs to one life of the worker and one of the router, so what was sent to a dead worker is never executed;
  * nothing blocks and nothing is dropped at a high-water mark: there is none, what is in flight is bounded by Dispatch;
  * closing drops at once what the worker has not taken.
ZeroMQ's descriptor only says that something changed: after it was readable, `receive` is to be called until it gives
None.
"""

from __future__ import annotations

from typing import Final

import zmq

from kio import control

#: From this size on, handing a message over costs less than copying it.
NO_COPY_BYTES: Final = 65_536


class Pipes:
    """A connected pair.

    Args:
        context: the process's.
        pipes_dir: where the worker has bound its ends.
        name: of the pair.

    Raises:
        zmq.ZMQError: when ZeroMQ has no more sockets.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pipes_dir: str, name: str) -> None:
        self.name = name
        operations, replies = control.pipe_endpoints(pipes_dir, name)
        self._push = context.socket(zmq.PUSH)
        self._pull = context.socket(zmq.PULL)
        for sock, endpoint in ((self._push, operations), (self._pull, replies)):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.SNDHWM, 0)
            sock.setsockopt(zmq.RCVHWM, 0)
            sock.connect(endpoint)
        #: Readable when replies may have come.
        self.fd = int(self._pull.getsockopt(zmq.FD))

    def send(self, batch: bytes) -> None:
        """Hand over one batch; ZeroMQ keeps it until the worker takes it."""
        self._push.send(batch, zmq.NOBLOCK, copy=len(batch) < NO_COPY_BYTES)

    def receive(self) -> memoryview | None:
        """The next replies message, None when there is none now; in ZeroMQ's memory, since a copy would cost more."""
        try:
            return self._pull.recv(zmq.NOBLOCK, copy=False).buffer
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close both ends."""
        self._push.close(linger=0)
        self._pull.close(linger=0)
