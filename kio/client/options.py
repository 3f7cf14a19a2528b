"""What a client was asked for: the URL and the options, parsed once, checked once.

Whatever is wrong with either is one ConfigError that names the part and says what it should be. A keyword argument wins
over the same option in the URL's query. A password is in no message and in no repr (credentials.py).
"""

from __future__ import annotations

import math
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kio.client import credentials
from kio.client.codecs import CODECS, Codec, Space
from kio.client.credentials import Secret
from kio.errors import ConfigError, ConnectionLost, KioError, ProtocolError
from kio.limits import CONNECTIONS_MAX, KEYSPACES
from kio.wire import DEFAULT_PORT

if TYPE_CHECKING:
    import ssl

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

    #: As the caller gave it, without the password, for messages.
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
    #: Who to authenticate as, and with what; None and None do not.
    user: str | None = None
    password: Secret | None = None
    #: Whether the connection speaks TLS: kios://.
    is_tls: bool = False
    #: Files in PEM: whom to trust instead of those the system trusts, and what to show to a server that asks.
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    #: Whether the server's certificate must be right; without, whoever is on the way can be the server.
    tls_verify: bool = True

    @property
    def space(self) -> Space:
        """Where the keys live, and what the values are."""
        return Space(self.keyspace, self.codec)

    @property
    def raw(self) -> Options:
        """The same without a codec."""
        return self._replace(codec=None)

    def tls_context(self) -> ssl.SSLContext | None:
        """What one connection's TLS needs, made of the files as they are now; None where there is none.

        Raises:
            ConfigError: when a file cannot be read or holds something else.
        """
        if not self.is_tls:
            return None
        from kio.tls import client_context  # few clients need it, and ssl takes its time

        return client_context(self.tls_ca_file, self.tls_cert_file, self.tls_key_file, verify=self.tls_verify)


#: Options that a URL's query or an argument may give.
_NAMES: Final = (*(name for name in Options._fields[2:] if name != "is_tls"), "password_file")
#: Of these, what stands before the host in a URL and nowhere else.
_BEFORE_HOST: Final = ("user", "password")
_FILES: Final = ("tls_ca_file", "tls_cert_file", "tls_key_file", "password_file")


def parse(url: str, **given: Any) -> Options:
    """The options that `url` and the keyword arguments stand for; an argument that is UNSET was not given.

    Raises:
        ConfigError: when the URL or an option is malformed, unknown or out of range.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a URL is a str such as kio://127.0.0.1:{DEFAULT_PORT}, not {type(url).__name__}")
    shown = credentials.redacted(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        why = error if shown == url else "what stands around its password is no host and port"
        raise ConfigError(f"bad URL {shown!r}: {why}") from None
    if parts.fragment:
        raise ConfigError(f"bad URL {shown!r}: it has no fragment; a # in a password is written %23")
    options: dict[str, Any] = {}
    address: tuple[str, int] | str
    if parts.scheme in ("kio", "kios"):
        address = _tcp_address(shown, parts, port)
        if parts.path not in ("", "/"):
            options["keyspace"] = parts.path[1:]
    elif parts.scheme == "kio+unix":
        address = _unix_address(shown, parts)
    else:
        raise ConfigError(f"bad URL {shown!r}: it begins with kio://, kios:// or kio+unix://")
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in options:
            raise ConfigError(f"bad URL {shown!r}: {name} is given twice")
        if name in _BEFORE_HOST:
            raise ConfigError(f"bad URL {shown!r}: {name} stands before the host, as in kio://USER:PASSWORD@HOST")
        options[name] = text
    options = {name: _from_text(name, text) for name, text in options.items()}
    if parts.username is not None:
        options["user"] = unquote(parts.username)
    if parts.password is not None:
        options["password"] = unquote(parts.password)
    options.update((name, value) for name, value in given.items() if value is not UNSET)
    options = _with_secret({name: _checked(name, value) for name, value in options.items()})
    is_tls = parts.scheme == "kios"
    for name in options:
        if name.startswith("tls_") and not is_tls:
            raise ConfigError(f"{name} goes with kios:// only; {shown!r} speaks no TLS")
    if options.get("tls_key_file") and not options.get("tls_cert_file"):
        raise ConfigError("tls_key_file goes with tls_cert_file")
    return Options(shown, address, is_tls=is_tls, **options)


def _with_secret(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with user and password, or with neither."""
    user, password, file = (options.pop(name, None) for name in (*_BEFORE_HOST, "password_file"))
    if file is not None:
        if password is not None:
            raise ConfigError("give either a password or password_file")
        password = credentials.from_file(file)
    if isinstance(password, str):
        password = password.encode("utf-8", "surrogateescape")
    if password is None:
        if user is not None:
            raise ConfigError(f"the user {user!r} needs a password, as in kio://{user}:PASSWORD@HOST, or password_file")
        return options
    user = user or "default"
    return options | {"user": user, "password": credentials.checked(user, password)}


def changed(options: Options, **given: Any) -> Options:
    """`options` with those of the keyword arguments that are not UNSET; ConfigError as in parse."""
    return options._replace(**{name: _checked(name, value) for name, value in given.items() if value is not UNSET})


def is_of_tls(error: OSError) -> bool:
    """Whether it is what the other side's TLS is not, rather than a connection that broke."""
    return hasattr(error, "library") and getattr(error, "reason", None) not in (None, "UNEXPECTED_EOF_WHILE_READING")


def reason(error: OSError) -> str:
    """What the operating system said, in the same words for a blocking socket and an event loop's."""
    if hasattr(error, "library"):
        from kio.tls import explain  # it is loaded: this is an ssl.SSLError

        return explain(error)  # type: ignore[arg-type]
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


def unreachable(options: Options, error: OSError) -> KioError:
    """The error for an address where no connection could be made; ProtocolError where TLS did not come about."""
    if is_of_tls(error):
        return ProtocolError(f"no TLS with {options.url}: {reason(error)}")
    return ConnectionLost(f'cannot reach {options.url}: {reason(error)}; is "kio serve" running there?')


def _tcp_address(shown: str, parts: SplitResult, port: int | None) -> tuple[str, int]:
    if not parts.hostname:
        raise ConfigError(f"bad URL {shown!r}: it names no host, as in kio://127.0.0.1:{DEFAULT_PORT}")
    if port == 0:
        raise ConfigError(f"bad URL {shown!r}: a port is 1 to 65535")
    return parts.hostname, DEFAULT_PORT if port is None else port


def _unix_address(shown: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.startswith("/"):
        raise ConfigError(
            f"bad URL {shown!r}: a Unix socket is named by its whole path, as in kio+unix:///run/kio/kio.sock"
        )
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES_MAX or "\0" in path:
        raise ConfigError(
            f"bad URL {shown!r}: a Unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, none of them 0"
        )
    return path


def _from_text(name: str, text: str) -> Any:
    """An option of the query; text that no type fits stays text, and _checked refuses it."""
    if name in _FILES:
        return text
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
    elif name in ("retries", "tls_verify"):
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
    elif name in _FILES:
        wanted, is_right = "a path", isinstance(value, str | os.PathLike) and bool(os.fspath(value))
        value = Path(value) if is_right else value
    elif name == "user":
        wanted, is_right = "a text", isinstance(value, str)
    elif name == "password":
        # Whatever it is, it is not to be shown.
        if not isinstance(value, str | bytes):
            raise ConfigError(f"password is a text or bytes, not {type(value).__name__}")
        return value
    else:
        known = ", ".join(_NAMES)
        raise ConfigError(f"unknown option {name!r}: a client has {known}")
    if not is_right:
        raise ConfigError(f"{name} is {wanted}, not {value!r}")
    return value
