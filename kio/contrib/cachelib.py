"""A cache for cachelib, and for Flask-Caching through it.

    cache = KioCache("kio://127.0.0.1:7400/1", default_timeout=300, key_prefix="site:")

    app.config.from_mapping(
        CACHE_TYPE="kio.contrib.cachelib.KioCache",
        CACHE_ARGS=["kio://127.0.0.1:7400/1"],
        CACHE_OPTIONS={"key_prefix": "site:"},
    )

A timeout is in seconds (or a timedelta), 0 is never. `add`, `inc` and `dec` are atomic; `inc` of an absent key begins
at 0 and never expires. `clear` removes what has the prefix, and the whole keyspace where there is none. Errors of the
store are raised; a value that cannot be read is None.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cachelib.base import BaseCache

from kio.client import Client, options
from kio.client.codecs import Space
from kio.contrib.pickled import Pickled
from kio.errors import ConfigError, NotDecodable, PartialFailure

Timeout = int | timedelta | None


class KioCache(BaseCache):
    """cachelib's API on a kio daemon; it connects when it is first used.

    Args:
        url: as `kio.connect` takes it, its path the keyspace.
        default_timeout: seconds, 0 is never.
        key_prefix: what every key begins with.
        ignore_delete_many_errors: cachelib's; what cannot be deleted for an error of the store is raised either way.
        given: further options of `kio.connect`.
    """

    def __init__(
        self,
        url: str = "kio://127.0.0.1:7400",
        default_timeout: int | timedelta = 300,
        key_prefix: str = "",
        ignore_delete_many_errors: bool = True,
        **given: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        if "codec" in given:
            raise ConfigError("the values of this cache are pickles: take codec away")
        self.key_prefix = key_prefix
        self._space = Space(0, Pickled())
        self._db = Client(options.parse(url, **given).raw)

    def get(self, key: str) -> Any:
        """The value, or None."""
        return self._value(key, self._db.get(self._full(key)))

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store `value`; True."""
        return self._db.set(self._full(key), self._space.encoded(value), ttl=self._ttl(timeout))

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store `value` where the key is absent; whether it was."""
        return self._db.set(self._full(key), self._space.encoded(value), ttl=self._ttl(timeout), if_absent=True)

    def delete(self, key: str) -> bool:
        """Remove the key; whether it was there."""
        return self._db.delete(self._full(key))

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self._db.exists(self._full(key))

    def get_many(self, *keys: str) -> list[Any]:
        """The values, None in the place of each that is not there; one request."""
        found = self._db.get_many([self._full(key) for key in keys])
        return [self._value(key, found.get(self._full(key))) for key in keys]

    def set_many(self, mapping: dict[str, Any], timeout: Timeout = None) -> list[Any]:
        """Store all pairs, in one request; the keys that were stored."""
        pairs = {self._full(key): self._space.encoded(value) for key, value in mapping.items()}
        try:
            self._db.set_many(pairs, ttl=self._ttl(timeout))
        except PartialFailure as failure:
            return [key for key in mapping if self._full(key) not in failure.errors]
        return list(mapping)

    def delete_many(self, *keys: str) -> list[Any]:
        """Remove the keys, in one request; all of them, since one that was not there is gone as well."""
        self._db.delete_many([self._full(key) for key in keys])
        return list(keys)

    def clear(self) -> bool:
        """Remove what begins with the prefix, the whole keyspace where there is none; True."""
        self._db.mapping(self.key_prefix).clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int:
        """Add `delta`; the sum."""
        return self._db.incr(self._full(key), delta)

    def dec(self, key: str, delta: int = 1) -> int:
        """Subtract `delta`; what is left."""
        return self._db.incr(self._full(key), -delta)

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

    def _full(self, key: str) -> str:
        return self.key_prefix + key

    def _ttl(self, timeout: Timeout) -> int | None:
        seconds = self._normalize_timeout(timeout)
        return seconds if seconds > 0 else None

    def _value(self, key: str, data: bytes | None) -> Any:
        try:
            return None if data is None else self._space.decoded(key, data)
        except NotDecodable:
            return None
