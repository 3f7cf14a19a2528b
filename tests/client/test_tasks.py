from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import kio
from kio import wire
from kio.client import multiplexer
from kio.client.multiplexer import REQUESTS_MAX
from kio.errors import ConnectionLost, KioError, RequestError, Timeout
from tests.client.reference import Drop, Fail, Hold, ReferenceServer


async def wait_until(condition: Callable[[], bool], limit_s: float = 10) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 -- the server is another thread, no event of this loop
            await asyncio.sleep(0.005)


def hold_key(server: ReferenceServer, key: bytes) -> Hold:
    """From now on a request about `key` waits, and with it what follows on its connection."""
    hold = Hold()
    server.script = lambda op, arguments: hold if len(arguments) > 1 and arguments[1] == key else None
    return hold


def test_many_tasks_share_one_connection(server: ReferenceServer) -> None:
    async def work(db: kio.aio.Client, i: int) -> None:
        key = str(i)
        await db.set(key, key.encode())
        assert await db.get(key) == key.encode()
        assert await db.get_many([key, "absent"]) == {key: key.encode()}

    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            await asyncio.gather(*(work(db, i) for i in range(2 * REQUESTS_MAX)))
            assert await db.count() == 2 * REQUESTS_MAX

    asyncio.run(main())
    assert server.connections == 1


def test_a_cancelled_task_takes_nothing_from_the_others(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            await db.set_many({"slow": b"slow", "fast": b"fast"})
            hold = hold_key(server, b"slow")
            slow = asyncio.create_task(db.get("slow"))
            fast = asyncio.create_task(db.get("fast"))
            await wait_until(lambda: len(server.requests) == 2)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            hold.until.set()
            assert await fast == b"fast"
            assert await db.get_many(["fast", "slow"]) == {"fast": b"fast", "slow": b"slow"}

    asyncio.run(main())
    assert server.connections == 1


def test_cancelling_in_a_batch_leaves_the_connection_in_order(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            pairs = {b"%d" % i: b"%d" % i for i in range(60_000)}
            await db.set_many(pairs)
            for pause_s in (0, 0.001, 0.003, 0.01):
                task = asyncio.create_task(db.get_many(pairs))
                await asyncio.sleep(pause_s)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            assert await db.get_many(pairs) == pairs

    asyncio.run(main())
    assert server.connections == 1


def test_slots_of_cancelled_requests_come_back_with_their_replies(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            hold = hold_key(server, b"slow")
            for _ in range(3):
                hold.until.clear()
                tasks = [asyncio.create_task(db.get("slow")) for _ in range(REQUESTS_MAX + 50)]
                await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                hold.until.set()
                assert await db.get("fast") is None

    asyncio.run(main())


def test_a_deadline_of_one_task_is_no_concern_of_another(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            hold = hold_key(server, b"slow")
            hasty = asyncio.create_task(db.with_options(timeout=0.5).set("slow", b"v"))
            patient = asyncio.create_task(db.get("other"))
            with pytest.raises(Timeout) as caught:
                await hasty
            assert caught.value.maybe_applied
            hold.until.set()
            assert await patient is None
            assert await db.get("other") is None

    asyncio.run(main())
    assert server.connections == 1


def test_a_silent_connection_is_given_up_and_made_again(
    server: ReferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplexer, "SILENT_S_MAX", 0.1)

    async def main() -> None:
        async with kio.aio.connect(server.url, timeout=0.5) as db:
            hold = hold_key(server, b"slow")
            with pytest.raises(Timeout):
                await db.get("slow")
            assert await db.get("other") is None
            hold.until.set()

    asyncio.run(main())
    assert server.connections == 2


def test_a_broken_connection_is_made_again_once_for_all_tasks(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            answers: list[Any] = [Drop(2, executes=True)]
            server.script = lambda op, arguments: answers.pop() if answers else None
            results = await asyncio.gather(*(db.set(str(i), b"v") for i in range(50)))
            assert results == [True] * 50
            assert await db.count() == 50

    asyncio.run(main())
    assert server.connections == 2


def test_each_task_gets_an_error_of_its_own(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url, retries=False) as db:
            server.script = lambda op, arguments: Drop()
            errors = await asyncio.gather(*(db.get(str(i)) for i in range(5)), return_exceptions=True)
            assert {type(error) for error in errors} == {ConnectionLost}
            assert len(set(map(id, errors))) == 5

    asyncio.run(main())


def test_cancelling_the_task_that_connects_does_not_cancel_the_others(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            server.drop_connections()
            await wait_until(lambda: not server._open)
            server.greeting = Hold()
            first = asyncio.create_task(db.get("k"))
            await wait_until(lambda: server.connections == 2)
            second = asyncio.create_task(db.get("k"))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            server.greeting.until.set()
            assert await second is None

    asyncio.run(main())
    assert server.connections == 2


def test_closing_while_tasks_wait_ends_them_all(server: ReferenceServer) -> None:
    async def main() -> None:
        db = await kio.aio.connect(server.url)
        hold = hold_key(server, b"slow")
        tasks = [asyncio.create_task(db.get("slow")) for _ in range(3)]
        await wait_until(lambda: len(server.requests) == 1)
        await db.close()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, KioError) for error in errors)
        with pytest.raises(RequestError, match="this client is closed"):
            await db.get("k")
        hold.until.set()

    asyncio.run(main())


def test_closing_while_the_connection_is_made_ends_that_too(server: ReferenceServer) -> None:
    async def main() -> None:
        server.greeting = Hold()
        db = kio.aio.connect(server.url)
        opening = asyncio.create_task(db.open())
        await wait_until(lambda: server.connections == 1)
        await db.close()
        with pytest.raises(RequestError):
            await opening
        server.greeting.until.set()

    asyncio.run(main())


def test_what_is_under_way_when_the_loop_ends_leaves_no_warning(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            hold = hold_key(server, b"slow")
            task = asyncio.create_task(db.get("slow"))
            await wait_until(lambda: len(server.requests) == 1)
            task.cancel()
        hold.until.set()

    asyncio.run(main())


def test_a_slow_reader_at_the_other_end_makes_senders_wait(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url, timeout=20) as db:
            hold = hold_key(server, b"slow")
            slow = asyncio.create_task(db.get("slow"))
            await wait_until(lambda: len(server.requests) == 1)
            writes = [asyncio.create_task(db.set(str(i), bytes(1 << 20))) for i in range(40)]
            await asyncio.sleep(0.1)
            current = db._link._current
            assert current is not None
            assert current._transport is not None
            assert current._transport.get_write_buffer_size() < 8 << 20
            assert not current._writable.is_set()
            hold.until.set()
            await asyncio.gather(slow, *writes)
            assert await db.count() == 40

    asyncio.run(main())


def test_iterators_can_be_left_early(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            await db.set_many({f"{i:04}": b"v" for i in range(5_000)})
            seen = 0
            async for _ in db.keys():
                seen += 1
                if seen == 10:
                    break
            assert server.operations().count(wire.OP_SCAN) == 1
            assert len([key async for key in db.scan(values=False)]) == 5_000
            assert [value async for value in db.values("0001")] == [b"v"]

    asyncio.run(main())


def test_two_clients_in_two_loops_do_not_meet(server: ReferenceServer) -> None:
    async def main(name: str) -> None:
        async with kio.aio.connect(server.url) as db:
            for i in range(100):
                await db.set(name, b"%d" % i)
                assert await db.get(name) == b"%d" % i

    threads = [threading.Thread(target=asyncio.run, args=(main(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.connections == 2


def test_an_overloaded_daemon_refuses_the_hello_and_every_task_waits(server: ReferenceServer) -> None:
    async def main() -> None:
        async with kio.aio.connect(server.url) as db:
            server.drop_connections()
            server.greeting = Fail(33)
            asyncio.get_running_loop().call_later(0.1, setattr, server, "greeting", None)
            assert await asyncio.gather(*(db.get("k") for _ in range(5))) == [None] * 5

    asyncio.run(main())
