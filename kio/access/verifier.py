"""The thread that checks passwords, so that a loop never waits for one.

    verifier.ask(ticket, name, password)       at most WAITING_MAX wait; False: answer Overloaded
    poller.register(verifier.fileno(), ...)    readable when answers have come
    for ticket, user in verifier.answers(): ...

Owns: one thread, begun by `start` and ended by `close`, and an eventfd. One thread, so that whoever tries passwords
gets one core at most, however many connections it opens.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from contextlib import suppress
from typing import Final

from kio import log
from kio.access.authentication import Access
from kio.access.users import User

WAITING_MAX: Final = 64

_log = log.Log(__name__)


class Verifier:
    """Checks passwords, one after the other, in the order in which they were asked.

    Args:
        access: whom to ask.
        waiting_max: past this many that wait, no more is taken.
    """

    def __init__(self, access: Access, waiting_max: int = WAITING_MAX) -> None:
        self._access = access
        self._asked: queue.Queue[tuple[int, str, bytes] | None] = queue.Queue(waiting_max)
        self._answered: deque[tuple[int, User | None]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._thread.start()

    def fileno(self) -> int:
        """A descriptor that is readable while there are answers."""
        return self._event

    def ask(self, ticket: int, name: str, password: bytes) -> bool:
        """Check a password; `answers` will tell under `ticket`. False when too many wait: nothing was taken."""
        try:
            self._asked.put_nowait((ticket, name, password))
        except queue.Full:
            return False
        return True

    def answers(self) -> list[tuple[int, User | None]]:
        """(ticket, the user, or None where the password is wrong) of what was checked since the last call."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        found = []
        while self._answered:
            found.append(self._answered.popleft())
        return found

    def close(self) -> None:
        """End the thread; what was asked and is not answered by now never is. Cost: one check, at most."""
        if self._thread.is_alive():
            with suppress(queue.Empty):
                while True:
                    self._asked.get_nowait()
            self._asked.put(None)
            self._thread.join()
        os.close(self._event)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            ticket, name, password = asked
            try:
                user = self._access.authenticate(name, password)
            except (MemoryError, ValueError):  # a check takes memory, and OpenSSL says so in its own way
                _log.exception("password not checked", user=name)
                user = None
            self._answered.append((ticket, user))
            os.eventfd_write(self._event, 1)
