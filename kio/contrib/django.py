"""A cache backend for Django.

    CACHES = {
        "default": {
            "BACKEND": "kio.contrib.django.KioCache",
            "LOCATION": "kio://127.0.0.1:7400/1",
            "TIMEOUT": 300,
            "OPTIONS": {"timeout": 0.5, "retries": False},
        }
    }

LOCATION is a URL of `kio.connect`, its path the keyspace; OPTIONS are the options of `kio.connect` but for the codec.
What Django wants of a cache holds, and beyond that:

  * `add`, `incr`, `decr` and `get_or_set` are atomic; `incr` and `decr` leave the expiry as it is, and so does
    `incr_version`, which moves a value in two steps;
  * a timeout may be a fraction of a second;
  * `clear` empties the keyspace, whatever the prefix and the version: give the cache one of its own;
  * MAX_ENTRIES and CULL_FREQUENCY mean nothing: nothing is evicted.

Errors of the store are raised. The caches of all threads with the same LOCATION and OPTIONS share their connections,
which outlive a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from kio.client import Client, options
from kio.client.codecs import Space
from kio.client.retry import Poll
from kio.contrib.pickled import Pickled
from kio.errors import ConfigError, PartialFailure
from kio.limits import TTL_MS_MAX

#: What Django puts among the options for caches that evict.
_EVICTION: Final = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})


@cache
def _client(url: str, given: tuple[tuple[str, Any], ...]) -> Client:
    return Client(options.parse(url, **dict(given)).raw)


class KioCache(BaseCache):
    """Django's cache API on a kio daemon; it connects when it is first used."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        given = {name: value for name, value in params.get("OPTIONS", {}).items() if name not in _EVICTION}
        self._space = Space(
            0, Pickled(**({"protocol": given.pop("pickle_protocol")} if "pickle_protocol" in given else {}))
        )
        if "codec" in given:
            raise ConfigError("the values of a Django cache are pickles: take codec out of OPTIONS")
        self._db = _client(location, tuple(sorted(given.items())))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store `value` where the key is absent; whether it was."""
        made, seconds = self.make_and_validate_key(key, version), self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return not self._db.exists(made)
        return self._db.set(made, self._space.encoded(value), ttl=seconds, if_absent=True)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """The value, or `default`."""
        made = self.make_and_validate_key(key, version)
        data = self._db.get(made)
        return default if data is None else self._space.decoded(made, data)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store `value`; a timeout of 0 or less removes the key."""
        made, seconds = self.make_and_validate_key(key, version), self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            self._db.delete(made)
        else:
            self._db.set(made, self._space.encoded(value), ttl=seconds)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give the key another timeout; whether it is there."""
        made, seconds = self.make_and_validate_key(key, version), self._seconds(timeout)
        if seconds is None:
            return self._db.persist(made) or self._db.exists(made)
        return self._db.touch(made, seconds) if seconds > 0 else self._db.delete(made)

    def delete(self, key: str, version: int | None = None) -> bool:
        """Remove the key; whether it was there."""
        return self._db.delete(self.make_and_validate_key(key, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Whether the key is there."""
        return self._db.exists(self.make_and_validate_key(key, version))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        """Add `delta` to the value; the sum. A key that is not there is a ValueError, and stays so."""
        made, poll = self.make_and_validate_key(key, version), Poll()
        while True:
            entry = self._db.entry(made)
            if entry is None:
                raise ValueError(f"Key '{key}' not found")
            total = self._space.decoded(made, entry.value) + delta
            if self._db.set(made, self._space.encoded(total), keep_ttl=True, if_version=entry.version):
                return total
            poll.sleep()

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """The values of those keys that are there, in one request."""
        made = {self.make_and_validate_key(key, version): key for key in keys}
        return {made[name]: self._space.decoded(name, data) for name, data in self._db.get_many(made).items()}

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """Store all pairs, in one request; the keys that failed."""
        made, seconds = {self.make_and_validate_key(key, version): key for key in data}, self._seconds(timeout)
        try:
            if seconds is not None and seconds <= 0:
                self._db.delete_many(made)
            else:
                self._db.set_many({name: self._space.encoded(data[key]) for name, key in made.items()}, ttl=seconds)
        except PartialFailure as failure:
            return [made[name] for name in failure.errors]
        return []

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Remove the keys, in one request."""
        self._db.delete_many([self.make_and_validate_key(key, version) for key in keys])

    def clear(self) -> None:
        """Remove every key of the keyspace."""
        self._db.clear()

    def incr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Move the value, and its expiry, to another version; that version."""
        before = self.version if version is None else version
        made = self.make_and_validate_key(key, before)
        entry = self._db.entry(made)
        if entry is None:
            raise ValueError(f"Key '{key}' not found")
        if delta:
            moved = self.make_and_validate_key(key, before + delta)
            self._db.set(moved, entry.value, expire_at=entry.expire_at)
            self._db.delete(made)
        after: int = before + delta
        return after

    # Django makes these of several awaited steps; here they are what their blocking forms are, at once.

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        """As `has_key`."""
        return await sync_to_async(self.has_key)(key, version)

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        """As `incr`."""
        return await sync_to_async(self.incr)(key, delta, version)

    async def adecr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        """As `decr`."""
        return await sync_to_async(self.incr)(key, -delta, version)

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """As `get_many`."""
        return await sync_to_async(self.get_many)(keys, version)

    async def aset_many(
        self,
        data: Mapping[str, Any],
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - Django's: how long a value lives
        version: int | None = None,
    ) -> list[str]:
        """As `set_many`."""
        return await sync_to_async(self.set_many)(data, timeout, version)

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """As `delete_many`."""
        await sync_to_async(self.delete_many)(keys, version)

    async def aincr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """As `incr_version`."""
        return await sync_to_async(self.incr_version)(key, delta, version)

    def _seconds(self, timeout: Any) -> float | None:
        """The seconds until a value expires; None is never, 0 or less at once."""
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if seconds is None else min(seconds, TTL_MS_MAX / 1000)
