"""Targets: which server a URL means, how it is spoken to, and what it can be asked.

kio://HOST:PORT   kio+unix:///PATH                                       kio's own protocol
redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]   redis+unix:///PATH   unix:///PATH       RESP2
"""

from __future__ import annotations

import socket
import time
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kio.bench.frames import Encoder, Greeting, Replies, Tally
from kio.bench.native import NativeGreeting, NativeReplies, NativeShape
from kio.bench.plan import Plan
from kio.bench.resp import RespGreeting, RespReplies, RespShape
from kio.client.credentials import redacted
from kio.client.options import UNIX_PATH_BYTES_MAX, reason
from kio.client.options import parse as parse_native
from kio.errors import ConfigError, ConnectionLost, KioError

REDIS_PORT: Final = 6379
#: Databases that a RESP server may have; it says itself which it has.
DATABASES_MAX: Final = 1 << 16
#: For a connection to stand and be greeted.
CONNECT_S: Final = 5.0
#: A server that says nothing for this long may be waiting for the rest of what it takes for something else.
_SILENCE_S: Final = 1.0
_RECEIVE_BYTES: Final = 64 << 10
_SCHEMES: Final = "kio://, kio+unix://, redis://, redis+unix:// or unix://"


class Target(NamedTuple):
    """A server, and how to speak to it."""

    url: str
    #: "native" or "resp".
    protocol: str
    #: (host, port), or the path of a Unix socket.
    address: tuple[str, int] | str
    user: str | None = None
    password: str | None = None
    database: int = 0

    @property
    def where(self) -> str:
        """The address for messages."""
        return self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"

    def greeting(self) -> Greeting:
        """What opens one connection to it."""
        if self.protocol == "native":
            return NativeGreeting(self.where)
        return RespGreeting(self.where, self.user, self.password, self.database)

    def replies(self, tally: Tally, batch: int) -> Replies:
        """What reads one connection to it."""
        return NativeReplies(tally, batch) if self.protocol == "native" else RespReplies(tally, batch)

    def encoder(self, plan: Plan) -> Encoder:
        """What makes a plan's requests to it."""
        return Encoder(plan, NativeShape(plan) if self.protocol == "native" else RespShape(plan))

    def socket(self) -> socket.socket:
        """A socket of the right family that is not connected."""
        if isinstance(self.address, str):
            return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        family, kind, protocol, *_ = _resolved(self.address)
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def sockaddr(self) -> tuple[str | int, ...] | str | bytes:
        """What `socket` connects to."""
        return self.address if isinstance(self.address, str) else _resolved(self.address)[4]


def parse_target(url: str) -> Target:
    """The server that `url` means.

    Raises:
        ConfigError: when the URL is malformed, or of a scheme that nobody here speaks.
    """
    scheme = url.partition(":")[0]
    shown = redacted(url)
    if scheme in ("kio", "kios", "kio+unix"):
        options = parse_native(url)
        if options.is_tls or options.user is not None:
            raise ConfigError(f"bad URL {shown!r}: a run speaks no TLS and names no user of kio; use the Unix socket")
        if options.keyspace:
            raise ConfigError(f"bad URL {shown!r}: a run writes to keyspace 0, where its prefix keeps it apart")
        return Target(url, "native", options.address)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        why = error if shown == url else "what stands around its password is no host and port"
        raise ConfigError(f"bad URL {shown!r}: {why}") from None
    if parts.fragment:
        raise ConfigError(f"bad URL {shown!r}: it has no fragment")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password is not None else None
    if user and password is None:
        raise ConfigError(f"bad URL {shown!r}: a user needs a password, as in redis://{user}:PASSWORD@HOST")
    if scheme == "redis":
        if not parts.hostname:
            raise ConfigError(f"bad URL {shown!r}: it names no host, as in redis://127.0.0.1:{REDIS_PORT}")
        if port == 0:
            raise ConfigError(f"bad URL {shown!r}: a port is 1 to 65535")
        database = _database(shown, parts.path.removeprefix("/"))
        address: tuple[str, int] | str = (parts.hostname, REDIS_PORT if port is None else port)
        if parts.query:
            raise ConfigError(f"bad URL {shown!r}: it has no options")
    elif scheme in ("redis+unix", "unix"):
        address = _unix_path(shown, parts)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        database = _database(shown, query.pop("db", ""))
        if query:
            raise ConfigError(f"bad URL {shown!r}: unknown option {next(iter(query))!r}; it has db")
    else:
        raise ConfigError(f"bad URL {shown!r}: it begins with {_SCHEMES}")
    return Target(url, "resp", address, user, password, database)


def connect(target: Target, timeout_s: float = CONNECT_S) -> socket.socket:
    """A blocking socket to `target`, greeted; no bytes of the other side are left unread.

    Raises:
        ConfigError: when what listens there does not speak the URL's protocol, or wants another password.
        ConnectionLost: when nobody listens there, or takes no connection now, or does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    connected = target.socket()
    try:
        try:
            connected.settimeout(timeout_s)
            connected.connect(target.sockaddr())
            _greet(connected, target, deadline)
        except TimeoutError:
            raise ConnectionLost(f"{target.where} did not answer within {timeout_s:g} s") from None
        except OSError as error:
            if isinstance(error, KioError):
                raise
            raise ConnectionLost(f"cannot reach {target.where}: {reason(error)}") from None
        connected.settimeout(None)
    except BaseException:
        connected.close()
        raise
    return connected


def _greet(connected: socket.socket, target: Target, deadline: float) -> None:
    greeting = target.greeting()
    connected.sendall(greeting.opening)
    has_asked = False
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connected.settimeout(left_s if has_asked else min(left_s, _SILENCE_S))
        try:
            data = connected.recv(_RECEIVE_BYTES)
        except TimeoutError:
            if not has_asked:
                _blame_the_url(target)
            has_asked = True
            continue
        if not data:
            _blame_the_url(target)
            raise ConnectionLost(f"{target.where} closed the connection before it answered")
        if greeting.take(data):
            return
        has_asked = True


def _blame_the_url(target: Target) -> None:
    """Raise ConfigError when the other protocol is answered there.

    To a server of RESP a hello is half a line, for whose end it waits; a daemon may close what it cannot read.
    """
    is_native = target.protocol == "native"
    other = target._replace(protocol="resp" if is_native else "native", password=None, database=0)
    greeting = other.greeting()
    try:
        with other.socket() as asked:
            asked.settimeout(_SILENCE_S)
            asked.connect(other.sockaddr())
            asked.sendall(greeting.opening)
            data = asked.recv(_RECEIVE_BYTES)
            # Whatever it says in RESP, it speaks it: it may want a password first.
            if not (data.startswith((b"+", b"-")) if is_native else greeting.take(data)):
                return
    except (OSError, KioError):
        return
    meant, spoken = ("redis", "kio's protocol") if is_native else ("kio", "RESP")
    raise ConfigError(f"{target.where} does not speak {spoken}: did you mean {meant}://?")


@cache
def _resolved(address: tuple[str, int]) -> tuple[int, int, int, str, tuple[str | int, ...]]:
    """The first of a name's addresses; asked once, so that every connection of a run goes to the same machine."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ConfigError(f"cannot find the host {address[0]}: {(error.strerror or str(error)).lower()}") from None
    return found[0]  # type: ignore[return-value]


def _database(shown: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and int(text) < DATABASES_MAX):
        raise ConfigError(f"bad URL {shown!r}: a database is a number, not {text!r}")
    return int(text)


def _unix_path(shown: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    host = parts.netloc.rpartition("@")[2]
    if host or not path.startswith("/"):
        raise ConfigError(
            f"bad URL {shown!r}: a Unix socket is named by its whole path, as in {parts.scheme}:///run/redis.sock"
        )
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES_MAX or "\0" in path:
        raise ConfigError(
            f"bad URL {shown!r}: a Unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, none of them 0"
        )
    return path
