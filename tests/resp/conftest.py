"""What the tests of the RESP door share: the servers, and one test against each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.resp.servers import Server, kio_server, redis_server


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def kio() -> Iterator[Server]:
    with kio_server() as running:
        yield running


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.stress), "kio"])
def server(request: pytest.FixtureRequest) -> Server:
    """redis-server, which judges the test (in the long run), and kio, which the test judges; empty."""
    running: Server = request.getfixturevalue(request.param)
    running.flush()
    return running
