"""Who a RESP connection is, and what that lets it do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from kio.access import Access, Right, User
from kio.commands.keys import keys_of
from kio.commands.plans_keyspace import scan_options
from kio.commands.replies import CommandError
from kio.commands.table import Command
from kio.glob import Glob

_RIGHTS: Final[Mapping[str, Right]] = {"read": Right.READ, "write": Right.WRITE, "admin": Right.ADMIN}
#: Commands without keys that are not about keys: who has prefixes may run them, as it may ask for `stats`.
_ABOUT_THE_DAEMON: Final = frozenset(("info", "lastsave"))


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

    def current(self) -> Guest | None:
        """It, by the users as they are now; None when it is none of them any more."""


class Everybody:
    """Anybody, where no password is set."""

    name = "default"
    is_free = True

    def check(self, command: Command, arguments: list[bytes]) -> None:
        """All is allowed."""

    def current(self) -> Guest | None:
        """It stays."""
        return self


class Known:
    """One of the users.

    Args:
        user: which.
        access: where it stands.
    """

    def __init__(self, user: User, access: Access) -> None:
        self._user = user
        self._access = access
        self.name = user.name
        self.is_free = user.may(Right.ADMIN) and user.may_touch_all

    def check(self, command: Command, arguments: list[bytes]) -> None:
        """See Guest. A command with keys needs all of them; one that is about all keys needs a user without prefixes.

        KEYS and SCAN with a pattern are about the keys that begin as it does.
        """
        if command.right != "connection" and not self._user.may(_RIGHTS[command.right]):
            raise self._refusal(command)
        if self._user.may_touch_all:
            return
        keys = keys_of(command, arguments)
        if not all(map(self._user.may_touch, keys)):
            raise CommandError("NOPERM No permissions to access a key")
        if keys or command.right == "connection" or command.name in _ABOUT_THE_DAEMON:
            return
        if command.name in ("keys", "scan"):
            pattern = arguments[1] if command.name == "keys" else scan_options(arguments[2:])[0]
            if self._user.may_touch(Glob(pattern).prefix):
                return
        raise self._refusal(command)

    def current(self) -> Guest | None:
        """See Guest."""
        now = self._access.current(self._user)
        return None if now is None else Known(now, self._access)

    def _refusal(self, command: Command) -> CommandError:
        return CommandError(f"NOPERM User {self.name} has no permissions to run the '{command.name}' command")
