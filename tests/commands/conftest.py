"""What tests of commands share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.real_server import RealServer, real_server
from tests.commands.shard_model import ShardModel


@pytest.fixture
def kio() -> ShardModel:
    """Empty shards, to be called with the words of a command."""
    return ShardModel()


@pytest.fixture(scope="session")
def _server() -> Iterator[RealServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: there is nothing to compare with")
    with tempfile.TemporaryDirectory(prefix="kio-") as directory, real_server(Path(directory)) as server:
        yield server


@pytest.fixture
def redis(_server: RealServer) -> RealServer:
    """A real server, empty, to be called with the words of a command."""
    _server("FLUSHALL")
    _server("SELECT", 0)
    return _server
