"""SCAN through a large key space while it changes: what is there throughout is returned, also by a daemon that was
restarted meanwhile.

In the long runs there are two million keys; KEYS=n says otherwise.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.resp.resp_codec import Array, Connection, Error, Reply, Simple
from tests.resp.servers import STANDS_IN, Server, kio_server, resp_port

KEYS = int(os.environ.get("KEYS", "20000"))
STRESS_KEYS = int(os.environ.get("KEYS", "2000000"))
COUNT = 100
STRESS_COUNT = 1000
BATCH = 1000


def stays(number: int) -> bytes:
    return b"stays:%d" % number


def goes(number: int) -> bytes:
    """Deleted, expired or made while the scan goes on."""
    return b"goes:%d" % number


def load(server: Server, keys: int) -> None:
    """The keys that stay, and a tenth as many that do not."""
    with server.connect() as connection:
        for name, total in ((stays, keys), (goes, keys // 10)):
            for began in range(0, total, BATCH):
                pairs = [word for number in range(began, min(began + BATCH, total)) for word in (name(number), b"v")]
                assert connection.call("MSET", *pairs) == Simple(b"OK")


class Unrest:
    """Clients that insert, delete and let expire what goes, until told to stop."""

    def __init__(self, server: Server, keys: int) -> None:
        self.server = server
        self.keys = keys
        self.done = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
        assert self.wrong == []

    def _work(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            with self.server.connect() as connection:
                while not self._over.is_set():
                    replies = connection.calls(*(self._change(dice) for _ in range(20)))
                    self.wrong += [repr(reply) for reply in replies if isinstance(reply, Error)]
                    self.done += len(replies)
        except OSError as error:
            self.wrong.append(repr(error))

    def _change(self, dice: random.Random) -> tuple[str | bytes | int, ...]:
        key = goes(dice.randrange(self.keys // 5))
        there = stays(dice.randrange(self.keys))
        changes: tuple[tuple[str | bytes | int, ...], ...] = (
            ("SET", key, "v"),
            ("SET", key, "v", "PX", dice.randint(1, 50)),
            ("DEL", key),
            ("PEXPIRE", key, dice.randint(1, 50)),
            ("SET", there, b"w" * dice.randrange(100)),
            ("APPEND", there, "x"),
        )
        return dice.choice(changes)


@contextmanager
def unrest(server: Server, keys: int) -> Iterator[Unrest]:
    clients = Unrest(server, keys)
    clients.start()
    try:
        yield clients
    finally:
        clients.stop()


def pages(connection: Connection, count: int, cursor: bytes = b"0") -> Iterator[tuple[bytes, list[bytes]]]:
    """(the cursor of the next page, the keys of this one), to the last."""
    while True:
        page = connection.call("SCAN", cursor, "COUNT", count)
        assert isinstance(page, Array), page
        following, keys = page.items
        assert isinstance(following, bytes)
        assert isinstance(keys, Array)
        cursor = following
        yield cursor, [key for key in keys if isinstance(key, bytes)]
        if cursor == b"0":
            return


def missing(seen: set[bytes], keys: int) -> list[bytes]:
    return [stays(number) for number in range(keys) if stays(number) not in seen]


def check_seen(seen: set[bytes], returned: int, keys: int) -> None:
    lost = missing(seen, keys)
    assert lost == [], f"{len(lost)} keys were there throughout and not returned, such as {lost[:3]}"
    assert all(key.startswith((b"stays:", b"goes:")) for key in seen)
    assert returned <= 3 * (keys + keys // 5), "keys come again and again"


def scan_through(server: Server, keys: int, count: int) -> None:
    load(server, keys)
    with unrest(server, keys) as clients, server.connect() as connection:
        seen: set[bytes] = set()
        returned = 0
        for _, page in pages(connection, count):
            seen.update(page)
            returned += len(page)
    check_seen(seen, returned, keys)
    assert clients.done > 0


def scan_with_a_restart(server: Server, keys: int, count: int, restart: Callable[[], Server]) -> None:
    load(server, keys)
    seen: set[bytes] = set()
    returned = 0
    cursor = b"0"
    with unrest(server, keys), server.connect() as connection:
        for following, page in pages(connection, count):
            cursor = following
            seen.update(page)
            returned += len(page)
            if len(seen) > keys // 2:
                break
    assert cursor != b"0"
    before = len(seen)
    server = restart()
    with unrest(server, keys), server.connect() as connection:
        for _, page in pages(connection, count, cursor):
            seen.update(page)
            returned += len(page)
    check_seen(seen, returned, keys)
    assert returned < before * 4, "the scan began anew"
    assert len(seen) > before


def test_a_scan_while_keys_come_and_go_returns_all_that_stay(server: Server) -> None:
    scan_through(server, KEYS, COUNT)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_a_long_scan_while_keys_come_and_go_returns_all_that_stay(server: Server) -> None:
    scan_through(server, STRESS_KEYS if server.name == "kio" else STRESS_KEYS // 20, STRESS_COUNT)


@pytest.fixture
def restarting() -> Iterator[tuple[Server, Callable[[], Server]]]:
    """A daemon of its own, and what restarts it with all it has."""
    if STANDS_IN:
        pytest.skip("a redis-server that stands in for kio keeps nothing")
    with kio_server() as running:
        daemon = running.daemon
        assert daemon is not None

        def restart() -> Server:
            daemon.stop()
            daemon.restart()
            return replace(running, port=resp_port(daemon))

        yield running, restart


def test_a_cursor_goes_on_after_a_restart(restarting: tuple[Server, Callable[[], Server]]) -> None:
    scan_with_a_restart(restarting[0], KEYS, COUNT, restarting[1])


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_a_cursor_of_a_long_scan_goes_on_after_a_restart(restarting: tuple[Server, Callable[[], Server]]) -> None:
    scan_with_a_restart(restarting[0], STRESS_KEYS, STRESS_COUNT, restarting[1])


def test_a_lost_key_would_be_named(server: Server) -> None:
    load(server, 300)
    with server.connect() as connection:
        seen = {key for _, page in pages(connection, 10) for key in page}
    check_seen(seen, len(seen), 300)
    seen.remove(stays(7))
    with pytest.raises(AssertionError, match="stays:7"):
        check_seen(seen, len(seen), 300)


@pytest.mark.parametrize("cursor", [b"x", b"1x", b"1.5", b"18446744073709551616", b" 1"])
def test_what_is_no_cursor_is_an_error(redis: Server, kio: Server, cursor: bytes) -> None:
    answers: list[Reply] = []
    for server in (redis, kio):
        with server.connect() as connection:
            answers.append(connection.call("SCAN", cursor))
    assert answers[0] == answers[1] == Error(b"ERR invalid cursor")


@pytest.mark.parametrize(
    "options",
    [("COUNT", 0), ("COUNT", -1), ("COUNT", "x"), ("COUNT",), ("MATCH",), ("NONSENSE", 1), ("COUNT", 10, "MATCH")],
)
def test_wrong_options_are_refused_as_redis_does(redis: Server, kio: Server, options: tuple[str | int, ...]) -> None:
    answers: list[Reply] = []
    for server in (redis, kio):
        with server.connect() as connection:
            answers.append(connection.call("SCAN", 0, *options))
    assert isinstance(answers[0], Error)
    assert answers[0] == answers[1]
