"""Records from a live Redis, or any server that speaks RESP: its string keys, with the time that each has left.

The keys come page by page from SCAN, so memory stays flat and the server never stands still for long. Of a page the
types and lengths are asked first, then the values, at most `GROUP_BYTES_MAX` of them at once; a value and its time to
live come out of one transaction, so they belong together. A key that is gone by then is left out, one of another type
is counted. A key that is there from the beginning of the run to its end is met; what comes, changes or goes meanwhile
may be or not, and one may be met twice. Times count from before they were asked for: no key lives longer in kio.
A cursor means nothing to a server that was started anew, so a lost connection ends the run instead of going on; to run
it again is safe.
redis-py is imported here only, and when it is needed; it comes with the extra kio[redis].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from kio import clock
from kio.cli import output, progress
from kio.cli.transfer import Record, Tally
from kio.errors import (
    ConfigError,
    ConnectionLost,
    NotAuthenticated,
    NotPermitted,
    ProtocolError,
    Timeout,
)
from kio.limits import EXPIRE_AT_MS_MAX, KEY_BYTES_MAX, KEYSPACES

#: Keys that one SCAN looks at.
PAGE_KEYS: Final = 1000
GROUP_BYTES_MAX: Final = 4 << 20
_STRING: Final = "string"
#: What TYPE says of a key that is gone.
_NONE: Final = "none"
_NO_KEY_MS: Final = -2


class _Found(NamedTuple):
    key: bytes
    value_bytes: int


class RedisSource:
    """The string keys of one database.

    Args:
        url: redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, unix://PATH[?db=DATABASE].
        timeout_s: how long one request may take.
        value_bytes_max: longer values are told and left out, unread.
        tally: counts what is skipped and is told what is left out.

    Raises:
        ConfigError: when redis-py is not installed, or the URL is malformed.
        KioError: when the server cannot be reached, or refuses; as each step of the iteration does.
    """

    unit = progress.RECORDS

    def __init__(self, url: str, *, timeout_s: float, value_bytes_max: int, tally: Tally) -> None:
        self._value_bytes_max = value_bytes_max
        self._tally = tally
        self._server = _opened(url, timeout_s)
        told = self._server.connection_pool.connection_kwargs
        #: The number of the database.
        self.database = int(told.get("db") or 0)
        place = told.get("path") or f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"
        #: Where the records come from, for messages: no password is in it.
        self.where = f"redis {place} database {self.database}"
        #: Keys looked at so far.
        self.done = 0
        try:
            with self._errors():
                self._server.execute_command("PING")
        except TypeError as error:  # an option in the URL that no connection has
            raise ConfigError(f"bad URL of a Redis: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.close()
        self._server.connection_pool.disconnect()

    def total(self) -> int:
        """The keys that are there now."""
        with self._errors():
            return int(self._server.execute_command("DBSIZE"))

    def __iter__(self) -> Iterator[Record]:
        cursor: Any = b"0"
        while True:
            with self._errors():
                cursor, page = self._server.execute_command("SCAN", cursor, "COUNT", PAGE_KEYS)
            keys = list(dict.fromkeys(page))
            for group in _groups(self._strings(keys)):
                yield from self._values(group)
            self.done += len(keys)
            if int(cursor) == 0:
                return

    def _strings(self, keys: Sequence[bytes]) -> list[_Found]:
        """Those of the keys that are to be read, with the lengths of their values."""
        asked = [command for key in keys for command in (("TYPE", key), ("STRLEN", key))]
        replies = self._pipelined(asked, is_transaction=False)
        found = []
        for key, kind, length in zip(keys, replies[::2], replies[1::2], strict=True):
            # Some versions of redis-py decode what TYPE answers.
            name = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
            if name == _STRING and length is not None:
                if self._is_within_limits(key, length):
                    found.append(_Found(key, length))
            elif name not in (_STRING, _NONE):
                self._tally.skip(name)
        return found

    def _is_within_limits(self, key: bytes, value_bytes: int) -> bool:
        """Whether kio takes it; told where it does not."""
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            why = f"it has {len(key):,} bytes, a key of kio has 1 to {KEY_BYTES_MAX:,}"
        elif value_bytes > self._value_bytes_max:
            why = f"its value has {value_bytes:,} bytes, more than max_value_bytes, which is {self._value_bytes_max:,}"
        else:
            return True
        self._tally.fault(self.where, f"key {output.escape(key[:200])}: {why}")
        return False

    def _values(self, group: Sequence[_Found]) -> Iterator[Record]:
        asked = [command for found in group for command in (("GET", found.key), ("PTTL", found.key))]
        now_ms = clock.wall_ms()
        replies = self._pipelined(asked, is_transaction=True)
        for found, value, left_ms in zip(group, replies[::2], replies[1::2], strict=True):
            if value is not None and left_ms != _NO_KEY_MS:
                expire_at = min(now_ms + left_ms, EXPIRE_AT_MS_MAX) / 1000 if left_ms >= 0 else None
                yield Record(found.key, value, self.where, expire_at)

    def _pipelined(self, commands: Sequence[tuple[str, bytes]], *, is_transaction: bool) -> list[Any]:
        """The replies; None stands for that of a command which is not for a key of this type."""
        if not commands:
            return []
        with self._errors(), self._server.pipeline(transaction=is_transaction) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            for at, reply in enumerate(replies):
                if isinstance(reply, Exception):
                    if not str(reply).startswith("WRONGTYPE"):
                        raise reply
                    replies[at] = None
            return replies

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What goes wrong with redis-py, as an error of kio's."""
        from redis import exceptions

        try:
            yield
        except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
            raise NotAuthenticated(
                f"{self.where} does not let us in: {error}; put USER:PASSWORD@ into its URL"
            ) from None
        except exceptions.NoPermissionError as error:
            raise NotPermitted(f"{self.where} does not permit it: {error}") from None
        except exceptions.TimeoutError as error:
            raise Timeout(f"{self.where} did not answer in time: {error}") from None
        except exceptions.ConnectionError as error:
            raise ConnectionLost(f"{self.where} cannot be reached: {error}; to run the import again is safe") from None
        except exceptions.RedisError as error:
            raise ProtocolError(f"{self.where} does not do what a Redis does: {error}") from None


def check_database(database: int) -> int:
    """The keyspace that stands for a database.

    Raises:
        ConfigError: when there is none of this number.
    """
    if database >= KEYSPACES:
        raise ConfigError(f"there is no keyspace {database}, the highest is {KEYSPACES - 1}; name one with --keyspace")
    return database


def _opened(url: str, timeout_s: float) -> Any:
    """A client of redis-py with one connection, which is never opened a second time."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ConfigError('to read from a Redis needs redis-py: pip install "kio[redis]"') from None
    connected: list[Any] = []

    def connect_once(connection: Any) -> None:
        if connected:
            raise redis.ConnectionError("the connection was lost")
        connection.on_connect()
        connected.append(connection)

    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and not re.fullmatch("/?|/[0-9]+", parts.path):
            raise ConfigError(f"bad URL of a Redis: its database is a number, not {parts.path[1:]!r}")
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=connect_once,
        )
    except ValueError as error:
        raise ConfigError(f"bad URL of a Redis: {error}") from None
    # Whatever the URL says: keys and values are bytes.
    pool.connection_kwargs["decode_responses"] = False
    return redis.Redis(connection_pool=pool)


def _groups(found: Sequence[_Found]) -> Iterator[list[_Found]]:
    """In parts whose values are not too many bytes together."""
    group: list[_Found] = []
    size = 0
    for each in found:
        if group and size + each.value_bytes > GROUP_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append(each)
        size += each.value_bytes
    if group:
        yield group
