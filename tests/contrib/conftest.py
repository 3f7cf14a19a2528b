from __future__ import annotations

from collections.abc import Iterator

import pytest

import kio
from tests.cluster.daemon import Daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as daemon:
        yield daemon


@pytest.fixture
def url(daemon: Daemon) -> str:
    """The URL of an empty keyspace; keyspace 0 holds a key that is nobody's business."""
    with kio.connect(daemon.url) as db:
        db.with_options(keyspace=1).clear()
        db.set("other", b"data")
    return f"{daemon.url}/1"
