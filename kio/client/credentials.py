"""Who a client says it is: taken from the URL or a file, kept out of every text.

A URL with a password is shown without it: in messages, in reprs, in logs.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Final

from kio.errors import ConfigError

#: The daemon takes no longer ones.
PASSWORD_BYTES_MAX: Final = 1_024
USER_CHARACTERS_MAX: Final = 64

#: From "//" to the last "@": what stands there may be a password, however odd its characters.
_IN_URL: Final = re.compile(r"(?<=://)([^/?#:@]*):.*@", re.DOTALL)
_IN_QUERY: Final = re.compile(r"(?<=[?&]password=)[^&#]*")


class Secret:
    """Bytes that nobody sees by accident: repr and text are stars; it is not to be pickled, nor a key of a dict."""

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        self._bytes = value

    def reveal(self) -> bytes:
        """The bytes."""
        return self._bytes

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> str:
        raise TypeError("a password is not to be pickled")


def redacted(url: str) -> str:
    """`url` as it may be shown.

    >>> redacted("kios://ada:p/w@d@db:7400/3"), redacted("kio://db?timeout=2"), redacted("kio://ada@db")
    ('kios://ada:***@db:7400/3', 'kio://db?timeout=2', 'kio://ada@db')
    """
    return _IN_QUERY.sub("***", _IN_URL.sub(r"\1:***@", url))


def checked(user: str, password: bytes) -> Secret:
    """`password` as a Secret, when the daemon could know such a user.

    Raises:
        ConfigError: when either is too short or too long.
    """
    if not 1 <= len(user) <= USER_CHARACTERS_MAX:
        raise ConfigError(f"a user's name has 1 to {USER_CHARACTERS_MAX} characters")
    if not 1 <= len(password) <= PASSWORD_BYTES_MAX:
        raise ConfigError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes")
    return Secret(password)


def from_file(path: Path) -> bytes:
    """The password that a file holds: its first line.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.readline(PASSWORD_BYTES_MAX + 2).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"password_file {path} cannot be read: {error.strerror}") from error
