"""The connections of a blocking client: one for each call that is under way, idle ones kept for the next.

Owns: the channels and the lock around them. Any thread may call; a channel belongs to whoever took it until it is put
back.
Invariants:
  * at most `max_connections` channels exist; who finds none free waits until its deadline;
  * the one used last is taken first, and one that the daemon has closed meanwhile is thrown away, not handed out.
Fork: the child starts with an empty pool. It closes its copies of the descriptors, which the parent's connections do
not notice, and never uses the parent's lock, which some thread may have held.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from typing import Final

from kio.client.channel import Channel
from kio.client.options import Options
from kio.client.protocol import Limits
from kio.client.retry import Deadline
from kio.errors import RequestError, Timeout


class Pool:
    """The channels to one daemon."""

    def __init__(self, options: Options) -> None:
        self._options = options
        #: What the daemon told last.
        self.limits = Limits()
        self.is_closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[Channel] = []
        self._taken: set[Channel] = set()
        #: Being connected right now; they count against the bound.
        self._opening = 0

    def take(self, deadline: Deadline) -> Channel:
        """A channel that nobody else uses; give it back with `put`.

        Raises:
            Timeout: when all were busy until `deadline`, or the daemon did not answer the new one.
            ConnectionLost, ProtocolError: as Channel does.
            RequestError: when the pool is closed.
        """
        with self._changed:
            while True:
                if self.is_closed:
                    raise RequestError("this client is closed")
                while self._idle:
                    channel = self._idle.pop()
                    if not channel.is_stale():
                        self._taken.add(channel)
                        return channel
                    channel.close()
                if len(self._taken) + self._opening < self._options.max_connections:
                    self._opening += 1
                    break
                left_s = deadline.left_s()
                if not self._changed.wait(None if left_s == math.inf else max(0.0, left_s)) and deadline.left_s() <= 0:
                    raise Timeout(f"all {self._options.max_connections} connections of this client were busy")
        try:
            channel = Channel(self._options, deadline)
        except BaseException:
            with self._changed:
                self._opening -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._opening -= 1
            self._taken.add(channel)
            self.limits = channel.limits
        return channel

    def put(self, channel: Channel) -> None:
        """Give a channel back, broken or not."""
        with self._changed:
            self._taken.discard(channel)
            if self.is_closed:
                channel.close()
            elif not channel.is_broken:
                self._idle.append(channel)
            self._changed.notify()

    def close(self) -> None:
        """Close what is idle now and the rest when its call ends; whoever calls later gets a RequestError."""
        with self._changed:
            self.is_closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for channel in idle:
            channel.close()

    def after_fork(self) -> None:
        """In the child: let go of all that is the parent's."""
        for channel in [*self._idle, *self._taken]:
            channel.close()
        self._begin()


_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
