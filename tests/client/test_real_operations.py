"""Expiry, versions, conditions, batches, codecs, locks and kept results on `kio serve` with two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kio
from tests.client.caching_suite import CachingSuite
from tests.client.codec_suite import CodecSuite
from tests.client.lock_suite import LockSuite
from tests.client.operation_suite import OperationSuite, ShardedSuite
from tests.cluster.daemon import Daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as daemon:
        yield daemon


@pytest.fixture
def url(daemon: Daemon) -> str:
    with kio.connect(daemon.url) as db:
        for keyspace in (0, 7):
            db.with_options(keyspace=keyspace).clear()
    return daemon.url


class TestOperationsOnARealDaemon(OperationSuite, ShardedSuite):
    """Every operation of the suites, asked of a daemon of two workers."""


class TestCodecsOnARealDaemon(CodecSuite):
    """Every test of the suite, asked of the same."""


class TestLocksOnARealDaemon(LockSuite):
    """Every test of the suite, asked of the same."""


class TestCachingOnARealDaemon(CachingSuite):
    """Every test of the suite, asked of the same."""
