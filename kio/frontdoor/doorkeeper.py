"""Who stands behind a connection: names and passwords to users, without ever making the loop wait.

Owns: the questions that the verifier's thread has under way, and who waits for each answer.
Invariants:
  * each proof ends once: in the user, or in the error that its client is told;
  * the same name and password, asked again while they are under way, are one question and one try: a pool of
    connections that come at once are no hundred guesses;
  * a user that was taken out of the file meanwhile does not come in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kio import log
from kio.access import Access, Guard, User, Verifier, network
from kio.clock import monotonic_s
from kio.errors import KioError, NotAuthenticated, Overloaded

#: What a proof ends in.
Outcome = User | KioError

_log = log.Log(__name__)
_WRONG: Final = "the name or the password is wrong"


@dataclass(slots=True)
class _Question:
    name: str
    password: bytes = field(repr=False)
    peer: str
    waiting: list[Callable[[Outcome], None]]


class Doorkeeper:
    """Proves who comes; for all connections of one loop.

    Args:
        access: the users.
        verifier: checks their passwords; None where nobody has one, so that each password is wrong.

    Attributes:
        failures: how many proofs failed.
    """

    def __init__(self, access: Access, verifier: Verifier | None = None) -> None:
        self.access = access
        self._verifier = verifier
        self._guard = Guard()
        self._tickets = itertools.count(1)
        self._by_ticket: dict[int, _Question] = {}
        self._by_words: dict[tuple[str, bytes], _Question] = {}
        self._repeats = log.Repeats(_log)
        self.failures = 0

    def prove(self, host: str, name: str, password: bytes, proven: Callable[[Outcome], None]) -> None:
        """Find out whether `password` is that of the user `name`; `proven` is told, now or later.

        Args:
            host: where the question comes from, for the pauses between failed tries.
        """
        user = self.access.recall(name, password)
        if user is not None:
            proven(user)
            return
        if self._verifier is None:
            proven(self._failed(host, NotAuthenticated(_WRONG)))
            return
        question = self._by_words.get((name, password))
        if question is not None:
            question.waiting.append(proven)
            return
        peer = network(host)
        pause_s = self._guard.attempt(peer, monotonic_s())
        if pause_s:
            fault = f"too many failed tries from this address; the next one is taken in {pause_s:.1f} s"
            proven(self._failed(host, NotAuthenticated(fault)))
            return
        ticket = next(self._tickets)
        if not self._verifier.ask(ticket, name, password):
            proven(Overloaded("too many passwords wait to be checked"))
            return
        self._by_ticket[ticket] = self._by_words[name, password] = _Question(name, password, peer, [proven])

    def look(self) -> None:
        """Take what the verifier has found; to be called when its descriptor is readable."""
        if self._verifier is None:
            return
        for ticket, found in self._verifier.answers():
            question = self._by_ticket.pop(ticket)
            del self._by_words[question.name, question.password]
            user = None if found is None else self.access.current(found)
            if user is not None:
                self._guard.succeeded(question.peer)
            for proven in question.waiting:
                proven(self._failed(question.peer, NotAuthenticated(_WRONG)) if user is None else user)

    def tick(self) -> None:
        """Write what the log was spared; to be called some times a second."""
        self._repeats.tick()

    def _failed(self, host: str, error: NotAuthenticated) -> NotAuthenticated:
        self.failures += 1
        self._repeats.warning("not authenticated", fault=_WRONG, host=host)
        return error
