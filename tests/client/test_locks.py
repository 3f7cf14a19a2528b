"""Locks on the reference server: the suite, what a lost reply does to them, and many who want one."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kio
from kio import wire
from kio.errors import ConnectionLost, LockLost, LockTimeout
from tests.client.lock_suite import LockSuite
from tests.client.reference import Drop, ReferenceServer


class TestLocks(LockSuite):
    """Every test of the suite, asked of the reference server."""


def lose_the_next(server: ReferenceServer, op: int, *, executes: bool) -> None:
    left = [Drop(executes=executes)]
    server.script = lambda asked, arguments: left.pop() if asked == op and left else None


def test_a_lock_whose_reply_was_lost_is_held_when_it_was_set(db: Any, server: ReferenceServer) -> None:
    lose_the_next(server, wire.OP_SET, executes=True)
    with db.lock("l", 30) as lock:
        assert lock.token == db.entry("l").version
    assert not db.exists("l")


def test_a_lock_whose_reply_was_lost_is_tried_again_when_it_was_not_set(db: Any, server: ReferenceServer) -> None:
    lose_the_next(server, wire.OP_SET, executes=False)
    with db.lock("l", 30, timeout=5) as lock:
        assert lock.token == db.entry("l").version


def test_a_lost_reply_to_a_release_is_no_lost_lock(db: Any, server: ReferenceServer) -> None:
    lock = db.lock("l", 30)
    lock.acquire()
    lose_the_next(server, wire.OP_DELETE, executes=True)
    lock.release()
    assert not db.exists("l")
    lock.acquire(timeout=0)
    lose_the_next(server, wire.OP_DELETE, executes=False)
    with pytest.raises(ConnectionLost):
        lock.release()
    lock.release()
    assert not db.exists("l")


def test_a_lost_reply_to_an_extension_leaves_the_lock_held(db: Any, server: ReferenceServer) -> None:
    lock = db.lock("l", 30)
    token = lock.acquire()
    lose_the_next(server, wire.OP_SET, executes=True)
    lock.extend(100)
    assert lock.token == token
    assert db.ttl("l") > 90
    lose_the_next(server, wire.OP_SET, executes=False)
    with pytest.raises(ConnectionLost):
        lock.extend(200)
    lock.release()


def test_a_lock_that_expired_and_went_to_another_is_lost_to_the_first(db: Any, server: ReferenceServer) -> None:
    first, second = db.lock("l", 30), db.lock("l", 30)
    first.acquire()
    server.store.skipped_ms += 30_000
    second.acquire(timeout=0)
    with pytest.raises(LockLost):
        first.extend()
    second.release()


def test_of_many_threads_one_at_a_time_holds_it(url: str) -> None:
    inside: list[int] = []
    tokens = []

    def work(_: int) -> None:
        with db.lock("l", 30, timeout=30) as lock:
            inside.append(1)
            assert len(inside) == 1
            tokens.append(lock.token)
            inside.pop()

    with kio.connect(url) as db, ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(40)))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 40


def test_of_many_tasks_one_at_a_time_holds_it_and_a_cancelled_one_takes_nothing(url: str) -> None:
    async def main() -> None:
        async with kio.aio.connect(url) as db:
            inside: list[int] = []

            async def work() -> None:
                async with db.lock("l", 30, timeout=30):
                    inside.append(1)
                    assert len(inside) == 1
                    await asyncio.sleep(0)
                    inside.pop()

            await asyncio.gather(*(work() for _ in range(20)))
            async with db.lock("l", 30):
                waiting = asyncio.create_task(db.lock("l", 30).acquire())
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await db.lock("l", 30).acquire(timeout=0)
            with pytest.raises(LockTimeout):
                await db.lock("l", 30).acquire(timeout=0)

    asyncio.run(main())
