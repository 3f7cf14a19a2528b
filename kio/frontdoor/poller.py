"""The epoll table of a plain loop: each descriptor has one handler, called with the events that came for it.

Owns the epoll descriptor, none of the registered ones. A handler may register and unregister whatever it likes; an
event that was already fetched for a descriptor whose number is in use again meets the new handler, so handlers never
trust an event: they try, and take EAGAIN for an answer.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
EDGE: Final = select.EPOLLET

Handler = Callable[[int], None]


class Poller:
    """Descriptors and their handlers; used by one thread."""

    __slots__ = ("_epoll", "_handlers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def register(self, fd: int, mask: int, handler: Handler) -> None:
        """Call `handler` with the events of `mask` (and always BROKEN) from the next `poll` on."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Watch for other events."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor; to be called before it is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def poll(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for events, and call the handlers of those that came. Cost: one epoll_wait."""
        handlers = self._handlers
        for fd, events in self._epoll.poll(timeout_s):
            handler = handlers.get(fd)
            if handler is not None:
                handler(events)

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()
