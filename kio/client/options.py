"""What a client was asked for: the URL and the options, parsed once, checked once.

Whatever is wrong with either is one ConfigError that names the part and says what it should be. A keyword argument wins
over the same option in the URL's query.
"""

from __future__ import annotations

import math
import os
from enum import Enum
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kio.client.codecs import CODECS, Codec, Space
from kio.errors import ConfigError, ConnectionLost
from kio.limits import CONNECTIONS_MAX, KEYSPACES
from kio.wire import DEFAULT_PORT

#: sun_path of a Unix socket address, without its closing NUL.
UNIX_PATH_BYTES_MAX: Final = 107


class Unset(Enum):
    """The type of UNSET: an option that was not given, where None has a meaning of its own."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


class Options(NamedTuple):
    """A daemon's address and how to talk to it."""

    #: As the caller gave it, for messages.
    url: str
    #: (host, port), or the path of a Unix socket.
    address: tuple[str, int] | str
    #: 0 to 255: every key of this client lives there.
    keyspace: int = 0
    #: Seconds that one call may take with all its retries; None is for ever.
    timeout: float | None = 5.0
    #: Seconds until one connection must stand, hello included.
    connect_timeout: float = 2.0
    #: Whether failures that may heal are asked again until the deadline.
    retries: bool = True
    #: Connections of the blocking client: one for each call that is under way.
    max_connections: int = 16
    #: What values are; None is bytes.
    codec: Codec | None = None

    @property
    def space(self) -> Space:
        """Where the keys live, and what the values are."""
        return Space(self.keyspace, self.codec)

    @property
    def raw(self) -> Options:
        """The same without a codec."""
        return self._replace(codec=None)


def parse(url: str, **given: Any) -> Options:
    """The options that `url` and the keyword arguments stand for; an argument that is UNSET was not given.

    Raises:
        ConfigError: when the URL or an option is malformed, unknown or out of range.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a URL is a str such as kio://127.0.0.1:{DEFAULT_PORT}, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"bad URL {url!r}: {error}") from None
    if parts.fragment or parts.username is not None or parts.password is not None:
        raise ConfigError(f"bad URL {url!r}: it has neither a user nor a fragment")
    options: dict[str, Any] = {}
    address: tuple[str, int] | str
    if parts.scheme == "kio":
        address = _tcp_address(url, parts, port)
        if parts.path not in ("", "/"):
            options["keyspace"] = parts.path[1:]
    elif parts.scheme == "kio+unix":
        address = _unix_address(url, parts)
    else:
        raise ConfigError(f"bad URL {url!r}: it begins with kio:// or kio+unix://")
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in options:
            raise ConfigError(f"bad URL {url!r}: {name} is given twice")
        options[name] = text
    options = {name: _from_text(name, text) for name, text in options.items()}
    options.update((name, value) for name, value in given.items() if value is not UNSET)
    return Options(url, address, **{name: _checked(name, value) for name, value in options.items()})


def changed(options: Options, **given: Any) -> Options:
    """`options` with those of the keyword arguments that are not UNSET; ConfigError as in parse."""
    return options._replace(**{name: _checked(name, value) for name, value in given.items() if value is not UNSET})


def reason(error: OSError) -> str:
    """What the operating system said, in the same words for a blocking socket and an event loop's."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


def unreachable(options: Options, error: OSError) -> ConnectionLost:
    """The error for an address where no connection could be made."""
    return ConnectionLost(f'cannot reach {options.url}: {reason(error)}; is "kio serve" running there?')


def _tcp_address(url: str, parts: SplitResult, port: int | None) -> tuple[str, int]:
    if not parts.hostname:
        raise ConfigError(f"bad URL {url!r}: it names no host, as in kio://127.0.0.1:{DEFAULT_PORT}")
    if port == 0:
        raise ConfigError(f"bad URL {url!r}: a port is 1 to 65535")
    return parts.hostname, DEFAULT_PORT if port is None else port


def _unix_address(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/"):
        raise ConfigError(
            f"bad URL {url!r}: a Unix socket is named by its whole path, as in kio+unix:///run/kio/kio.sock"
        )
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES_MAX or "\0" in path:
        raise ConfigError(
            f"bad URL {url!r}: a Unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, none of them 0"
        )
    return path


def _from_text(name: str, text: str) -> Any:
    """An option of the query; text that no type fits stays text, and _checked refuses it."""
    if text in ("true", "false"):
        return text == "true"
    if text == "none":
        return None
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 10 else text
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    return text


def _checked(name: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_seconds = is_number and math.isfinite(value) and value > 0
    is_integer = is_number and isinstance(value, int)
    if name == "timeout":
        wanted, is_right = "a number of seconds above 0, or None for no limit", is_seconds or value is None
    elif name == "connect_timeout":
        wanted, is_right = "a number of seconds above 0", is_seconds
    elif name == "retries":
        wanted, is_right = "true or false", isinstance(value, bool)
    elif name == "keyspace":
        wanted, is_right = f"an integer from 0 to {KEYSPACES - 1}", is_integer and 0 <= value < KEYSPACES
    elif name == "max_connections":
        wanted, is_right = f"an integer from 1 to {CONNECTIONS_MAX}", is_integer and 1 <= value <= CONNECTIONS_MAX
    elif name == "codec":
        wanted = f"{', '.join(CODECS)} or an object with encode and decode"
        if isinstance(value, str) and value in CODECS:
            return CODECS[value]
        is_right = isinstance(value, Codec) and not isinstance(value, str | bytes | type)
    else:
        known = ", ".join(Options._fields[2:])
        raise ConfigError(f"unknown option {name!r}: a client has {known}")
    if not is_right:
        raise ConfigError(f"{name} is {wanted}, not {value!r}")
    return value
