"""Verbs are run as a person runs them, through kio.cli.main, with a client that keeps its keys in a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import pytest

from kio import cli
from kio.cli import options
from kio.glob import Glob


class FakeClient:
    """What the CLI uses of kio.client.Client, over a dict.

    Attributes:
        data: what is stored.
        outcomes: what the next set_many calls do instead of storing: an exception to raise, or None to store.
        batches: the size of each set_many call.
        told: what stats answers.
        asked: the url and timeout of each connection.
        pages: how many keys each scan asked for at once.
    """

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.outcomes: list[BaseException | None] = []
        self.batches: list[int] = []
        self.told: dict[str, Any] = {}
        self.asked: list[tuple[str, float]] = []
        self.pages: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def with_options(self, *, timeout: float) -> FakeClient:
        return self

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def set(self, key: bytes, value: bytes, **options: Any) -> bool:
        self.data[key] = value
        return True

    def set_many(self, pairs: Mapping[bytes, bytes]) -> int:
        self.batches.append(len(pairs))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.data.update(pairs)
        return len(pairs)

    @contextmanager
    def pipeline(self) -> Iterator[Any]:
        queued: list[bytes] = []
        batch = SimpleNamespace(delete=queued.append, results=[])
        yield batch
        batch.results = [self.data.pop(key, None) is not None for key in queued]

    def count(self) -> int:
        return len(self.data)

    def scan(
        self, prefix: bytes = b"", *, match: bytes | None = None, values: bool = True, limit: int = 1000
    ) -> Iterator[Any]:
        self.pages.append(limit)
        found = [key for key in self.data if key.startswith(prefix) and (match is None or Glob(match).matches(key))]
        return ((key, self.data[key]) if values else key for key in found)

    def records(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes, float | None]]:
        return ((key, value, None) for key, value in self.scan(prefix))

    def stats(self) -> dict[str, Any]:
        return self.told


@dataclass(frozen=True)
class Ran:
    """What a run of `kio` left."""

    code: int
    out: bytes
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def db(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The daemon that every verb meets, whatever --url says."""
    client = FakeClient()

    def connect(url: str, timeout_s: float) -> FakeClient:
        client.asked.append((url, timeout_s))
        return client

    monkeypatch.setattr(options, "connect", connect)
    return client


@pytest.fixture
def kio(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `kio` with these arguments in this process."""
    for name in ("KIO_URL", "KIO_CONFIG", "KIO_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Ran:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main(arguments)
        out, err = capfdbinary.readouterr()
        assert isinstance(exited.value.code, int)
        return Ran(exited.value.code, out, err.decode())

    return run
