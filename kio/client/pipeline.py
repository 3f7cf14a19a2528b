"""Operations that are queued, sent together and answered together, in their order."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from kio import wire
from kio.client import arguments
from kio.client.arguments import Key, Value
from kio.client.protocol import Request
from kio.errors import KioError

Send = Callable[[list[Request], list[Key]], list[Any]]


class Queue:
    """The operations of a pipeline; each method queues one and returns nothing: its result is in `results` later.

    Attributes:
        results: one result for each operation, in order; an error stands in the place of an operation that failed.
    """

    def __init__(self, keyspace: int, raise_on_error: bool) -> None:
        self._keyspace = keyspace
        self._raise_on_error = raise_on_error
        self._requests: list[Request] = []
        self._keys: list[Key] = []
        self.results: list[Any] = []

    def __len__(self) -> int:
        """Operations that are queued now."""
        return len(self._requests)

    def get(self, key: Key) -> None:
        """Queue `get`: the value, or None."""
        self._add(wire.OP_GET, key)

    def set(self, key: Key, value: Value) -> None:
        """Queue `set`: True."""
        self._add(wire.OP_SET, key, arguments.value(value))

    def delete(self, key: Key) -> None:
        """Queue `delete`: whether the key was there."""
        self._add(wire.OP_DELETE, key)

    def exists(self, key: Key) -> None:
        """Queue `exists`: whether the key is there."""
        self._add(wire.OP_EXISTS, key)

    def _add(self, op: int, key: Key, *rest: Any) -> None:
        self._requests.append(Request(op, (self._keyspace, arguments.key(key), *rest)))
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

    def __init__(self, send: Send, keyspace: int, raise_on_error: bool) -> None:
        super().__init__(keyspace, raise_on_error)
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
