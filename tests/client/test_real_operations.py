"""Expiry, versions, conditions and atomic batches on `kio serve` with two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kio
from tests.client.operation_suite import OperationSuite, ShardedSuite
from tests.cluster.daemon import Daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as daemon:
        yield daemon


@pytest.fixture
def url(daemon: Daemon) -> str:
    with kio.connect(daemon.url) as db:
        db.clear()
    return daemon.url


class TestOperationsOnARealDaemon(OperationSuite, ShardedSuite):
    # The shards do not execute atomic batches yet.
    test_an_atomic_batch_is_applied_whole = None
    test_an_atomic_batch_whose_condition_does_not_hold_is_not_applied_at_all = None
    test_an_atomic_batch_with_an_error_is_not_applied_at_all = None
