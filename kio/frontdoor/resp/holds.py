"""Shards that one command has to itself, from its first moment to its last.

A command that needs answers before it can say what else is to be done (RENAME, MSETNX, EXEC after WATCH) holds the
shards of its keys meanwhile: what comes for them from others is queued behind it. All shards of a command are taken at
once, and whoever came first gets them first: nobody waits for ever, and nobody waits for somebody who waits for him.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Shards(Protocol):
    """What is held: the Dispatch."""

    def hold(self, shards: frozenset[int]) -> None:
        """Let only express operations through."""

    def release(self, shards: frozenset[int]) -> None:
        """Let all operations through."""


class _Waiting(NamedTuple):
    shards: frozenset[int]
    granted: Callable[[], None]


class Holds:
    """Who holds which shards of a front door, and who waits for them."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._held: set[int] = set()
        self._waiting: deque[_Waiting] = deque()

    def acquire(self, shards: frozenset[int], granted: Callable[[], None]) -> None:
        """Call `granted` when the shards are held: now, or when those who hold them have released them."""
        self._waiting.append(_Waiting(shards, granted))
        self._grant()

    def release(self, shards: frozenset[int]) -> None:
        """Give back what was granted."""
        self._shards.release(shards)
        self._held -= shards
        self._grant()

    @property
    def held(self) -> frozenset[int]:
        """The shards that are held."""
        return frozenset(self._held)

    def _grant(self) -> None:
        taken = set(self._held)
        ready: list[_Waiting] = []
        still: deque[_Waiting] = deque()
        for each in self._waiting:
            if taken.isdisjoint(each.shards):
                ready.append(each)
            else:
                still.append(each)
            taken |= each.shards
        self._waiting = still
        for each in ready:
            self._held |= each.shards
            self._shards.hold(each.shards)
        for each in ready:
            each.granted()
