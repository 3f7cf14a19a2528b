"""The same suite, and what only real processes show, on `kio serve` with two workers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kio
from kio.errors import ConnectionLost, KeyTooLarge, ValueTooLarge
from kio.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from tests.client.suite import MethodSuite
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


class TestMethodsOnARealDaemon(MethodSuite):
    pass


def test_the_longest_key_and_the_longest_value_are_stored_and_one_byte_more_is_told(db: Any) -> None:
    key, value = b"k" * KEY_BYTES_MAX, os.urandom(VALUE_BYTES_MAX)
    db.set(key, value)
    assert db.get(key) == value
    with pytest.raises(KeyTooLarge):
        db.set(key + b"k", b"v")
    with pytest.raises(ValueTooLarge):
        db.set(b"k", value + b"v")
    assert db.get_many([key]) == {key: value}
    assert list(db.keys()) == [key]


def test_more_bytes_than_one_reply_holds_come_back_from_one_get_many(connect: Callable[..., Any], url: str) -> None:
    db = connect(url, timeout=60)
    pairs = {f"key:{i}": bytes([i]) * (4 << 20) for i in range(40)}
    assert db.set_many(pairs) == 40
    assert db.get_many(pairs) == pairs


def test_sixteen_threads_and_as_many_tasks_write_at_once(url: str) -> None:
    def write(name: str) -> None:
        for i in range(50):
            db.set_many({f"{name}:{i}:{j}": b"v" for j in range(20)})

    async def write_tasks() -> None:
        async with kio.aio.connect(url) as aio_db:

            async def write_one(name: str) -> None:
                for i in range(50):
                    await aio_db.set(f"{name}:{i}", b"v")

            await asyncio.gather(*(write_one(f"task{n}") for n in range(16)))

    with kio.connect(url) as db, ThreadPoolExecutor(16) as threads:
        done = [threads.submit(write, f"thread{n}") for n in range(16)]
        asyncio.run(write_tasks())
        for future in done:
            future.result()
        assert db.count() == 16 * 50 * 20 + 16 * 50


def test_calls_outlive_a_killed_worker(connect: Callable[..., Any], url: str, daemon: Daemon) -> None:
    db = connect(url, timeout=30)
    pairs = {f"key:{i}": b"%d" % i for i in range(2_000)}
    for worker in daemon.status()["workers"]:
        assert db.set_many(pairs) == len(pairs)
        os.kill(worker["pid"], signal.SIGKILL)
        assert db.set_many(pairs) == len(pairs)
        assert db.get_many(pairs) == pairs
        with db.pipeline() as p:
            for key in pairs:
                p.get(key)
        assert p.results == list(pairs.values())


def test_calls_outlive_a_daemon_that_restarts(connect: Callable[..., Any]) -> None:
    with Daemon(workers=1) as daemon:
        db = connect(daemon.url, timeout=30)
        db.set("k", b"v")
        daemon.stop()
        with pytest.raises(ConnectionLost):
            db.with_options(retries=False).get("k")
        restart = threading.Timer(0.2, daemon.restart)
        restart.start()
        assert db.get("k") == b"v"
        restart.join()
