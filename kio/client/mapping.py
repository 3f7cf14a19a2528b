"""A part of the store as a MutableMapping, for code that expects a dict."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kio.client.arguments import Key, key_bytes
from kio.client.codecs import Space

if TYPE_CHECKING:
    from kio.client.blocking import Client

#: Keys that `clear` removes at once.
CLEAR_KEYS: Final = 8_192
#: Defaults that no caller has: for a key that is absent, for a caller that gave none.
_MISSING: Final = object()
_REFUSED: Final = object()


class MappingView(MutableMapping[Any, Any]):
    """The keys under one prefix: they go in as bytes or str and come out as bytes, without the prefix.

    Each operation is one request: what `pop` returns no other client got, and `setdefault` never overwrites. Only
    `popitem` looks for a key first. `len` counts in the daemon without a prefix, and scans the keys with one.
    """

    def __init__(self, client: Client, prefix: bytes, space: Space) -> None:
        """`client` has no codec: what is absent and what decodes to None are told apart here, with `space`."""
        self._client = client
        self._prefix = prefix
        self._space = space

    def __repr__(self) -> str:
        return f"<mapping of {self._prefix!r} in {self._client!r}>"

    def __getitem__(self, key: Key) -> Any:
        full = self._full(key)
        data = self._client.get(full)
        if data is None:
            raise KeyError(key)
        return self._space.decoded(full, data)

    def __setitem__(self, key: Key, value: Any) -> None:
        self._client.set(self._full(key), self._space.encoded(value))

    def __delitem__(self, key: Key) -> None:
        if not self._client.delete(self._full(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        full = self._full(key) if isinstance(key, bytes | str) else b""
        return bool(full) and self._client.exists(full)

    def __iter__(self) -> Iterator[bytes]:
        skip = len(self._prefix)
        return (key[skip:] for key in self._client.keys(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self) if self._prefix else self._client.count()

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def pop(self, key: Key, default: Any = _REFUSED) -> Any:
        """Remove `key`; its value, or `default` where it is absent, or a KeyError where no default is given."""
        full = self._full(key)
        data = self._client.get_and_delete(full)
        if data is not None:
            return self._space.decoded(full, data, is_applied=True)
        if default is _REFUSED:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, Any]:
        """Remove some key; its (key, value) pair, or a KeyError where there is none."""
        for key in self:
            value = self.pop(key, _MISSING)
            if value is not _MISSING:
                return key, value
        raise KeyError("the mapping is empty")

    def setdefault(self, key: Key, default: Any = b"") -> Any:
        """The value of `key`; `default` where it is absent, which is stored there then."""
        full, encoded = self._full(key), self._space.encoded(default)
        while True:
            data = self._client.get(full)
            if data is None and self._client.set(full, encoded, if_absent=True):
                data = bytes(encoded)
            if data is not None:
                return self._space.decoded(full, data)

    def values(self) -> ValuesView[Any]:
        """A view of the values; iterating reads them with the keys, page by page."""
        return _Values(self)

    def items(self) -> ItemsView[bytes, Any]:
        """A view of the (key, value) pairs; iterating reads them page by page."""
        return _Items(self)

    def scan(self) -> Iterator[tuple[bytes, Any]]:
        """Iterate over the (key, value) pairs; see `Client.scan`."""
        skip = len(self._prefix)
        return ((key[skip:], self._space.decoded(key, data)) for key, data in self._client.items(self._prefix))

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any) -> None:  # type: ignore[override]
        """Store all pairs in one batch."""
        pairs = [*(other.items() if isinstance(other, Mapping) else other), *more.items()]
        self._client.set_many([(self._full(key), self._space.encoded(value)) for key, value in pairs])

    def clear(self) -> None:
        """Remove all keys under the prefix; the whole keyspace where the prefix is empty."""
        if not self._prefix:
            self._client.clear()
            return
        keys = self._client.keys(self._prefix)
        while batch := list(islice(keys, CLEAR_KEYS)):
            self._client.delete_many(batch)

    def _full(self, key: Key) -> Key:
        return self._prefix + key_bytes(key) if self._prefix else key


class _Values(ValuesView[Any]):
    _mapping: MappingView

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.scan())


class _Items(ItemsView[bytes, Any]):
    _mapping: MappingView

    def __iter__(self) -> Iterator[tuple[bytes, Any]]:
        return self._mapping.scan()
