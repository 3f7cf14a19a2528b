"""Who a connection is, and what that lets it do."""

from __future__ import annotations

from typing import Protocol

from kio.commands.table import Command


class Guest(Protocol):
    """Whoever stands behind a connection."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def is_free(self) -> bool:
        """Whether it may do everything, so that nothing has to be checked."""

    def check(self, command: Command, arguments: list[bytes]) -> None:
        """Raise CommandError (NOPERM) when it may not run this."""


class Everybody:
    """Anybody, where no password is set."""

    name = "default"
    is_free = True

    def check(self, command: Command, arguments: list[bytes]) -> None:
        """All is allowed."""
