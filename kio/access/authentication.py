"""Access: names and passwords to users, and who comes in without either.

Owns: the users, as the file had them when it was last read, and which passwords were found right since then.
Invariants:
  * a name that nobody has costs the same time as a wrong password: a decoy is checked in its place;
  * hashes are compared in constant time;
  * what was found right is kept as a keyed digest in memory only, one for each user, so that a client that comes again
    does not pay again; reading the file anew forgets all of them;
  * a file that cannot be used changes nothing: the users are those of before.
Any thread may call: what belongs together is replaced as one.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from kio.access import passwords, users_file
from kio.access.passwords import PASSWORD_BYTES_MAX
from kio.access.users import DEFAULT_NAME, EVERYBODY, User
from kio.errors import ConfigError


class _Users:
    """One reading of the file."""

    def __init__(self, by_name: Mapping[str, User], costs: passwords.Cost) -> None:
        self.by_name = dict(by_name)
        hashes = [user.password for user in by_name.values() if user.password is not None]
        cost = max((hash.cost for hash in hashes), key=lambda cost: cost.work, default=costs)
        #: What is checked for a name that nobody has: as costly as the costliest, and right for no password.
        self.decoy = passwords.Hashed(cost, os.urandom(passwords.SALT_BYTES), os.urandom(passwords.HASH_BYTES))
        self.key = os.urandom(32)
        #: Name -> digest of the password that was last found right.
        self.verified: dict[str, bytes] = {}

    @property
    def default(self) -> User | None:
        """Who connects and does not authenticate."""
        user = self.by_name.get(DEFAULT_NAME)
        return user if user is not None and user.password is None else None

    def digest(self, name: str, password: bytes) -> bytes:
        """What is kept of a name and its password: it means nothing without the key, which never leaves the process."""
        return hmac.digest(self.key, name.encode("utf-8") + b"\0" + password, "sha256")


def _protect(users: _Users) -> None:
    if users.default is not None:
        raise ConfigError(
            "other machines can reach this address, and the user default has no password; give it one "
            f'("kio user password {DEFAULT_NAME}") or remove it, or set protected_mode to false'
        )


class Access:
    """Who may come in; made by `load`, or of users for tests.

    Args:
        users: by name; None lets everybody in as one who may do everything.
        path: where `reload` reads them anew; None where there is no file.
    """

    def __init__(self, users: Mapping[str, User] | None = None, path: Path | None = None) -> None:
        self._path = path
        self._users = _Users({DEFAULT_NAME: EVERYBODY} if users is None else users, passwords.COST)
        #: How often the users were read anew; a door that sees it rise asks `current` for each connection.
        self.generation = 0
        self._is_protected = False

    @classmethod
    def load(cls, path: Path | None) -> Access:
        """The users of a file, or everybody where there is none (the setting users_file is empty).

        Raises:
            ConfigError: when the file cannot be read, others can read it, or anything in it is wrong.
        """
        return cls(None if path is None else users_file.read(path), path)

    def reload(self) -> None:
        """Read the file anew; connections that stand keep what they have until `current` is asked.

        Raises:
            ConfigError: as `load` does, or as `protect` did not; the users stay as they were.
        """
        if self._path is not None:
            users = _Users(users_file.read(self._path), passwords.COST)
            if self._is_protected:
                _protect(users)
            self._users = users
            self.generation += 1

    @property
    def default(self) -> User | None:
        """Who connects and does not authenticate; None where everybody has to."""
        return self._users.default

    @property
    def is_open(self) -> bool:
        """Whether somebody without a password comes in."""
        return self.default is not None

    def protect(self, *, is_exposed: bool, is_protected: bool) -> None:
        """Refuse to let others in without a password where other machines can reach the door; `reload` does then, too.

        Args:
            is_exposed: whether the address that is listened on is none of loopback.
            is_protected: the setting protected_mode.

        Raises:
            ConfigError: when they could come in, and protected_mode is on.
        """
        self._is_protected = is_exposed and is_protected
        if self._is_protected:
            _protect(self._users)

    def recall(self, name: str, password: bytes) -> User | None:
        """The user, where this password was found right since the file was read; else None, which says nothing.

        Cost: one HMAC: a loop may ask this for each connection, and `authenticate` (or a Verifier) where it gets None.
        """
        users = self._users
        name = name or DEFAULT_NAME
        known = users.verified.get(name)
        if known is None or len(password) > PASSWORD_BYTES_MAX:
            return None
        return users.by_name[name] if hmac.compare_digest(known, users.digest(name, password)) else None

    def authenticate(self, name: str, password: bytes) -> User | None:
        """The user of this name, where the password is its own; else None. An empty name is the default user.

        Cost: 0.15 s of one core and 32 MiB (passwords.py), a name that nobody has included, unless `recall` knows the
        answer: call it from a thread that may wait. The interpreter's lock is free meanwhile.
        """
        name = name or DEFAULT_NAME
        if len(password) > PASSWORD_BYTES_MAX:
            return None
        recalled = self.recall(name, password)
        if recalled is not None:
            return recalled
        users = self._users
        user = users.by_name.get(name)
        stored = users.decoy if user is None or user.password is None else user.password
        is_right = stored.is_of(password)
        if user is None or user.password is None or not is_right:
            return None
        users.verified[name] = users.digest(name, password)
        return user

    def current(self, user: User) -> User | None:
        """`user` as the file has it now: with the rights of today, or None where it is gone or has another password."""
        now = self._users.by_name.get(user.name)
        return now if now is not None and now.password == user.password else None
