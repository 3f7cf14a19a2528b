"""Transactions are whole: nobody sees half of one, and one that watched a key runs only if the key is as it was.

Amounts move between accounts that lie on different shards, as long as readers add them up. In the long runs (stress)
this goes on for a minute; RUN_S=n says otherwise.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.resp.resp_codec import NULL, NULL_ARRAY, NULL_BULK, Array, Connection, Error, Reply, Simple
from tests.resp.servers import Server

OK = Simple(b"OK")
QUEUED = Simple(b"QUEUED")
#: Keys without a tag in braces lie wherever their hash puts them: on every shard, with so many.
ACCOUNTS = tuple(b"account:%d" % number for number in range(24))
START = 1000
MOVERS = 8
READERS = 3
SECONDS = float(os.environ.get("RUN_S", "2"))
STRESS_SECONDS = float(os.environ.get("RUN_S", "60"))


class Bank:
    """Clients that move and clients that read, each with a connection and a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._over = threading.Event()

    def run(self, seconds: float, seed: int) -> None:
        with self.server.connect() as connection:
            assert connection.call("MSET", *(word for key in ACCOUNTS for word in (key, START))) == OK
        jobs: list[Callable[[Connection, random.Random], None]] = [self.move, self.watched_move] * (MOVERS // 2)
        jobs += [self.read] * READERS
        threads = [threading.Thread(target=self._work, args=(job, seed + at)) for at, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads), "a client hangs"

    def _work(self, job: Callable[[Connection, random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        try:
            with self.server.connect(dice.choice((2, 3))) as connection:
                while not self._over.is_set():
                    job(connection, dice)
        except (OSError, AssertionError, ValueError) as error:
            self.wrong.append(f"{job.__name__}: {error!r}")
            self._over.set()

    def _note(self, what: str, is_right: bool, found: object) -> None:
        self.counts[what] += 1
        if not is_right:
            self.wrong.append(f"{what}: {found!r}")
            self._over.set()

    def move(self, connection: Connection, dice: random.Random) -> None:
        """Blindly, in one pipeline: an account may go below zero."""
        giver, taker = dice.sample(ACCOUNTS, 2)
        amount = dice.randint(1, 50)
        replies = connection.calls(("MULTI",), ("DECRBY", giver, amount), ("INCRBY", taker, amount), ("EXEC",))
        result = replies[-1]
        self._note("moves", isinstance(result, Array) and all(isinstance(item, int) for item in result), replies)

    def watched_move(self, connection: Connection, dice: random.Random) -> None:
        """Read, decide, write; again when somebody was faster. Never takes what is not there."""
        giver, taker = dice.sample(ACCOUNTS, 2)
        for _ in range(50):
            _, held, had = connection.calls(("WATCH", giver, taker), ("GET", giver), ("GET", taker))
            assert isinstance(held, bytes)
            assert isinstance(had, bytes)
            amount = max(0, int(held)) // 3
            replies = connection.calls(
                ("MULTI",), ("SET", giver, int(held) - amount), ("SET", taker, int(had) + amount), ("EXEC",)
            )
            if replies[-1] not in (NULL, NULL_ARRAY):
                self._note("watched moves", replies[-1] == Array((OK, OK)), replies)
                return
            self.counts["conflicts"] += 1
            if self._over.is_set():
                return

    def read(self, connection: Connection, _: random.Random) -> None:
        """All accounts add up to what they did at the start."""
        told = [("MULTI",), *(("GET", key) for key in ACCOUNTS), ("EXEC",)]
        result = connection.calls(*told)[-1]
        assert isinstance(result, Array), result
        amounts = [int(item) for item in result if isinstance(item, bytes)]
        self._note("reads", len(amounts) == len(ACCOUNTS) and sum(amounts) == START * len(ACCOUNTS), amounts)


def money_is_kept(server: Server, seconds: float) -> None:
    bank = Bank(server)
    bank.run(seconds, seed=int(os.environ.get("SEED", "1")))
    print(server.name, dict(bank.counts))
    assert bank.wrong == [], f"{bank.wrong[:3]} after {dict(bank.counts)}"
    assert min(bank.counts[what] for what in ("moves", "watched moves", "reads")) > 10 * seconds, dict(bank.counts)
    assert bank.counts["conflicts"] > 0, "nobody was in anybody's way: this proves nothing"
    bank._over.clear()
    with server.connect() as connection:
        bank.read(connection, random.Random())
    assert bank.wrong == []


def test_every_read_adds_up_while_amounts_move_between_shards(server: Server) -> None:
    money_is_kept(server, SECONDS)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_every_read_adds_up_for_long(server: Server) -> None:
    money_is_kept(server, STRESS_SECONDS if server.name == "kio" else SECONDS)


def test_a_bank_that_is_robbed_is_found_out(redis: Server) -> None:
    redis.flush()
    bank = Bank(redis)
    thief = threading.Timer(0.2, lambda: rob(redis))
    thief.start()
    bank.run(2, seed=1)
    thief.join()
    assert any(wrong.startswith("reads") for wrong in bank.wrong)


def rob(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(100):
            connection.call("DECRBY", ACCOUNTS[0], 1)


#: What happens between WATCH k and EXEC, by which client, and whether EXEC does nothing then.
#: k is "v" with no expiry at WATCH, `gone` is not there, `n` is text.
EVENTS: dict[str, tuple[str, tuple[tuple[str | bytes | int, ...], ...], bool]] = {
    "nothing": ("other", (), False),
    "set": ("other", (("SET", "k", "w"),), True),
    "set to the same value": ("other", (("SET", "k", "v"),), True),
    "set by itself": ("self", (("SET", "k", "w"),), True),
    "read": ("other", (("GET", "k"), ("STRLEN", "k"), ("TTL", "k"), ("EXISTS", "k")), False),
    "another key set": ("other", (("SET", "other", "w"),), False),
    "deleted": ("other", (("DEL", "k"),), True),
    "deleted and made again": ("other", (("DEL", "k"), ("SET", "k", "v")), True),
    "expiry given": ("other", (("EXPIRE", "k", 1000),), True),
    "no expiry to take away": ("other", (("PERSIST", "k"),), False),
    "set refused by NX": ("other", (("SET", "k", "w", "NX"),), False),
    "setnx refused": ("other", (("SETNX", "k", "w"),), False),
    "a failed increment": ("other", (("INCR", "k"),), False),
    "a syntax error": ("other", (("SET", "k", "w", "NX", "XX"),), False),
    "renamed away": ("other", (("RENAME", "k", "l"),), True),
    "renamed onto": ("other", (("SET", "l", 1), ("RENAME", "l", "k")), True),
    "copied from": ("other", (("COPY", "k", "l"),), False),
    "copied onto": ("other", (("SET", "l", 1), ("COPY", "l", "k", "REPLACE")), True),
    "moved": ("other", (("MOVE", "k", 3),), True),
    "set in another database": ("other", (("SELECT", 1), ("SET", "k", "w")), False),
    "flushed": ("other", (("FLUSHDB",),), True),
    "everything flushed": ("other", (("FLUSHALL",),), True),
    "another database flushed": ("other", (("SELECT", 1), ("FLUSHDB",)), False),
    "set in a transaction": ("other", (("MULTI",), ("SET", "k", "w"), ("EXEC",)), True),
    "set in a discarded one": ("other", (("MULTI",), ("SET", "k", "w"), ("DISCARD",)), False),
    "the missing one made": ("other", (("SET", "gone", 1),), True),
    "the missing one deleted": ("other", (("DEL", "gone"),), False),
    "the missing one made and deleted": ("other", (("SET", "gone", 1), ("DEL", "gone")), True),
    "appended nothing": ("other", (("SETRANGE", "k", 0, ""),), False),
    "msetnx refused": ("other", (("MSETNX", "x", 1, "k", 1),), False),
    "mset": ("other", (("MSET", "x", 1, "k", 1),), True),
    "getdel": ("other", (("GETDEL", "k"),), True),
    "getex with nothing": ("other", (("GETEX", "k"),), False),
    "getex with an expiry": ("other", (("GETEX", "k", "EX", 1000),), True),
    "a bit read": ("other", (("GETBIT", "k", 1), ("BITFIELD", "k", "GET", "u8", 0)), False),
    "a bit set": ("other", (("SETBIT", "k", 0, 1),), True),
    "a bit set to what it was": ("other", (("SETBIT", "k", 1, 1),), False),
    "expired": ("other", (("PEXPIRE", "k", 1), ("GET", "k")), True),
    "unwatched": ("self", (("UNWATCH",), ("SET", "k", "w")), False),
    "forgotten by EXEC": ("self", (("MULTI",), ("EXEC",), ("SET", "k", "w")), False),
    "forgotten by DISCARD": ("self", (("MULTI",), ("DISCARD",), ("SET", "k", "w")), False),
    "watched twice": ("self", (("WATCH", "k", "k"), ("GET", "k")), False),
    "selected away": ("self", (("SELECT", 2),), False),
    "set, then watched again": ("self", (("SET", "k", "w"), ("WATCH", "k")), True),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_watched_key_that_changed_stops_the_transaction(server: Server, event: str) -> None:
    who, words, is_stopped = EVENTS[event]
    with server.connect() as connection, server.connect() as other:
        connection.call("SET", "k", "v")
        assert connection.call("WATCH", "k", "gone") == OK
        (connection if who == "self" else other).calls(*words)
        assert connection.calls(("MULTI",), ("SET", "mark", 1)) == [OK, QUEUED]
        assert connection.call("EXEC") == (NULL_ARRAY if is_stopped else Array((OK,)))
        mark: Reply = NULL_BULK if is_stopped else b"1"
        assert connection.call("GET", "mark") == mark
        assert connection.calls(("MULTI",), ("PING",), ("EXEC",))[-1] == Array((Simple(b"PONG"),)), "still watched"


def test_a_change_between_multi_and_exec_stops_it_too(server: Server) -> None:
    with server.connect(3) as connection, server.connect() as other:
        connection.calls(("WATCH", "k"), ("MULTI",), ("SET", "mark", 1))
        other.call("SET", "k", 1)
        assert connection.call("EXEC") == NULL


def test_a_key_watched_with_its_expiry_passed_is_as_one_that_is_not_there(server: Server) -> None:
    with server.connect() as connection:
        connection.call("SET", "k", "v", "PX", 1)
        time.sleep(0.02)
        connection.calls(("WATCH", "k"), ("GET", "k"), ("MULTI",), ("PING",))
        assert connection.call("EXEC") == Array((Simple(b"PONG"),))


def test_an_error_before_exec_discards_and_one_inside_does_not(server: Server) -> None:
    with server.connect() as connection:
        replies = connection.calls(("MULTI",), ("SET", "a", 1), ("GET",), ("NOSUCH",), ("SET", "b", 1), ("EXEC",))
        assert isinstance(replies[2], Error)
        assert isinstance(replies[3], Error)
        assert replies[4] == QUEUED
        assert isinstance(replies[5], Error)
        assert replies[5].code == b"EXECABORT"
        assert connection.call("EXISTS", "a", "b") == 0
        replies = connection.calls(("MULTI",), ("SET", "a", "x"), ("INCR", "a"), ("SET", "b", 1), ("EXEC",))
        result = replies[-1]
        assert isinstance(result, Array)
        assert [type(item) for item in result] == [Simple, Error, Simple]
        assert connection.call("MGET", "a", "b") == Array((b"x", b"1"))
