"""The asyncio client with the face of the blocking one, so that one suite runs on both."""

from __future__ import annotations

import asyncio
import inspect
from types import TracebackType
from typing import Any

import kio.aio
from kio.client.locks import AsyncLock


class Awaited:
    """An object of kio.aio: coroutines are run to their end, iterators drained, context managers entered."""

    def __init__(self, runner: asyncio.Runner, wrapped: Any) -> None:
        self._runner = runner
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        return self._plain(attribute) if not callable(attribute) else self._method(attribute)

    def __len__(self) -> int:
        return len(self._wrapped)

    def __enter__(self) -> Any:
        entered = self._runner.run(self._wrapped.__aenter__())
        return self if entered is self._wrapped else self._plain(entered)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._wrapped.__aexit__(kind, error, trace))

    def _method(self, method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._plain(method(*arguments, **named))

        return call

    def _plain(self, made: Any) -> Any:
        if inspect.iscoroutine(made):
            return self._plain(self._runner.run(made))
        if hasattr(made, "__aiter__"):
            return iter(self._runner.run(_drained(made)))
        if isinstance(made, kio.aio.Client | kio.aio.Pipeline | AsyncLock):
            return Awaited(self._runner, made)
        return made


async def _drained(iterator: Any) -> list[Any]:
    return [each async for each in iterator]
