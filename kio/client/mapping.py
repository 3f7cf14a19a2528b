"""A part of the store as a MutableMapping, for code that expects a dict."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kio.client.arguments import Key, Value, key_bytes

if TYPE_CHECKING:
    from kio.client.blocking import Client

#: Keys that `clear` removes at once.
CLEAR_KEYS: Final = 8_192
_MISSING: Final = object()


class MappingView(MutableMapping[Any, Any]):
    """The keys under one prefix: they go in as bytes or str and come out as bytes, without the prefix.

    Each operation is one request: what `pop` returns no other client got, and `setdefault` never overwrites. Only
    `popitem` looks for a key first. `len` counts in the daemon without a prefix, and scans the keys with one.
    """

    def __init__(self, client: Client, prefix: bytes) -> None:
        self._client = client
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"<mapping of {self._prefix!r} in {self._client!r}>"

    def __getitem__(self, key: Key) -> bytes:
        value = self._client.get(self._full(key))
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Value) -> None:
        self._client.set(self._full(key), value)

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

    def pop(self, key: Key, default: Any = _MISSING) -> Any:
        """Remove `key`; its value, or `default` where it is absent, or a KeyError where no default is given."""
        value = self._client.get_and_delete(self._full(key))
        if value is not None:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove some key; its (key, value) pair, or a KeyError where there is none."""
        for key in self:
            value = self.pop(key, None)
            if value is not None:
                return key, value
        raise KeyError("the mapping is empty")

    def setdefault(self, key: Key, default: Value = b"") -> bytes:  # type: ignore[override]
        """The value of `key`; `default` where it is absent, which is stored there then."""
        full = self._full(key)
        while True:
            value = self._client.get(full)
            if value is not None:
                return value
            if self._client.set(full, default, if_absent=True):
                return bytes(default)

    def values(self) -> ValuesView[bytes]:
        """A view of the values; iterating reads them with the keys, page by page."""
        return _Values(self)

    def items(self) -> ItemsView[bytes, bytes]:
        """A view of the (key, value) pairs; iterating reads them page by page."""
        return _Items(self)

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the (key, value) pairs; see `Client.scan`."""
        skip = len(self._prefix)
        return ((key[skip:], value) for key, value in self._client.items(self._prefix))

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Value) -> None:  # type: ignore[override]
        """Store all pairs in one batch."""
        pairs = [*(other.items() if isinstance(other, Mapping) else other), *more.items()]
        self._client.set_many([(self._full(key), value) for key, value in pairs])

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


class _Values(ValuesView[bytes]):
    _mapping: MappingView

    def __iter__(self) -> Iterator[bytes]:
        return (value for _, value in self._mapping.scan())


class _Items(ItemsView[bytes, bytes]):
    _mapping: MappingView

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._mapping.scan()
