"""Operations that are queued, sent together and answered together, in their order: a pipeline, or an atomic batch."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from kio.client import operations
from kio.client.arguments import Key, Value
from kio.client.codecs import Space
from kio.client.operations import Moment, Seconds, SetOptions
from kio.client.protocol import Request
from kio.client.records import Version
from kio.errors import KioError

Send = Callable[[list[Request], list[Key]], list[Any]]


class Queue:
    """The operations of a pipeline or an atomic batch.

    Each method queues one and returns nothing: its result is in `results` later.

    Attributes:
        results: one result for each operation, in order; an error stands in the place of an operation that failed.
    """

    def __init__(self, space: Space, raise_on_error: bool) -> None:
        self._space = space
        self._raise_on_error = raise_on_error
        self._requests: list[Request] = []
        self._keys: list[Key] = []
        self.results: list[Any] = []

    def __len__(self) -> int:
        """Operations that are queued now."""
        return len(self._requests)

    def get(self, key: Key) -> None:
        """Queue `get`: the value, or None."""
        self._add(key, operations.get)

    def entry(self, key: Key) -> None:
        """Queue `entry`: the Entry, or None."""
        self._add(key, operations.entry)

    def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: Version | None = None,
    ) -> None:
        """Queue `set`: True, or False where its condition did not hold."""
        options = SetOptions(ttl, expire_at, keep_ttl, if_absent, if_present, if_version)
        self._add(key, operations.set, value, options)

    def set_with_version(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: Version | None = None,
    ) -> None:
        """Queue `set_with_version`: the version that it made, or None where its condition did not hold."""
        options = SetOptions(ttl, expire_at, keep_ttl, if_absent, if_present, if_version)
        self._add(key, operations.set_with_version, value, options)

    def get_and_set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Seconds | None = None,
        expire_at: Moment | None = None,
        keep_ttl: bool = False,
    ) -> None:
        """Queue `get_and_set`: the value that was there, or None."""
        self._add(key, operations.get_and_set, value, SetOptions(ttl, expire_at, keep_ttl))

    def delete(self, key: Key, *, if_version: Version | None = None) -> None:
        """Queue `delete`: whether the key was there."""
        self._add(key, operations.delete, if_version)

    def get_and_delete(self, key: Key) -> None:
        """Queue `get_and_delete`: the value that was there, or None."""
        self._add(key, operations.get_and_delete)

    def exists(self, key: Key) -> None:
        """Queue `exists`: whether the key is there."""
        self._add(key, operations.exists)

    def incr(self, key: Key, by: int = 1) -> None:
        """Queue `incr`: the sum."""
        self._add(key, operations.incr, by)

    def append(self, key: Key, value: Value) -> None:
        """Queue `append`: the length of the value."""
        self._add(key, operations.append, value)

    def touch(self, key: Key, ttl: Seconds | None = None, *, expire_at: Moment | None = None) -> None:
        """Queue `touch`: whether the key is there."""
        self._add(key, operations.touch, ttl, expire_at)

    def persist(self, key: Key) -> None:
        """Queue `persist`: whether an expiry was taken away."""
        self._add(key, operations.persist)

    def ttl(self, key: Key) -> None:
        """Queue `ttl`: the seconds left, None where the key is absent, infinity where it never expires."""
        self._add(key, operations.ttl)

    def _add(self, key: Key, operation: Callable[..., Request], *rest: Any) -> None:
        self._requests.append(operation(self._space, key, *rest))
        self._keys.append(key)

    def _taken(self) -> tuple[list[Request], list[Key]]:
        """What was queued; the queue is empty afterwards."""
        taken = self._requests, self._keys
        self._requests, self._keys = [], []
        return taken

    def _finish(self, results: list[Any]) -> list[Any]:
        self.results = results
        if self._raise_on_error:
            for result in results:
                if isinstance(result, KioError):
                    raise result
        return results


class Pipeline(Queue):
    """The pipeline of a blocking client; leaving its `with` block sends what is queued, unless by an exception."""

    def __init__(self, send: Send, space: Space, raise_on_error: bool) -> None:
        super().__init__(space, raise_on_error)
        self._send = send

    def execute(self) -> list[Any]:
        """Send all that is queued, in order, over one connection; the results in the same order.

        Raises:
            KioError: the first error among the results, unless the pipeline was made with `raise_on_error=False`;
                `results` holds all of them either way.
        """
        return self._finish(self._send(*self._taken()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._requests:
            self.execute()
