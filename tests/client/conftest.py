from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import kio
from tests.client.awaited import Awaited
from tests.client.reference import ReferenceServer, reference_server


@pytest.fixture
def server() -> Iterator[ReferenceServer]:
    with reference_server() as server:
        yield server


@pytest.fixture
def url(server: ReferenceServer) -> str:
    return server.url


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`kio.connect`, and `kio.aio.connect` behind the same face; what it connects is closed at the end of the test."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner()) if request.param == "asyncio" else None

        def connect(url: str, **options: Any) -> Any:
            if runner is None:
                return stack.enter_context(kio.connect(url, **options))
            return stack.enter_context(Awaited(runner, kio.aio.connect(url, **options)))

        yield connect


@pytest.fixture
def db(connect: Callable[..., Any], url: str) -> Any:
    return connect(url)
