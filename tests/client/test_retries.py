from __future__ import annotations

import time
from typing import Any

import pytest

from kio.client.retry import DEADLINE_MS_MAX, FIRST_PAUSE_S, PAUSE_S_MAX, Deadline, Retry
from kio.errors import (
    BadRequest,
    ConnectionLost,
    Corrupt,
    Draining,
    Overloaded,
    ShardDown,
    Timeout,
)
from tests.client.reference import Drop, Fail, Hold, ReferenceServer

CALLS = [
    lambda db: db.get("k"),
    lambda db: db.set("k", b"v"),
    lambda db: db.delete("k"),
    lambda db: db.exists("k"),
    lambda db: db.get_many(["k"]),
    lambda db: db.set_many({"k": b"v"}),
    lambda db: db.delete_many(["k"]),
    lambda db: db.exists_many(["k"]),
    lambda db: db.count(),
    lambda db: db.clear(),
    lambda db: list(db.keys()),
    lambda db: db.stats(),
    lambda db: db.ping(),
]


@pytest.mark.parametrize("call", CALLS)
def test_every_call_outlives_a_shard_that_is_away_for_a_while(db: Any, server: ReferenceServer, call: Any) -> None:
    answers: list[Any] = [Fail(code) for code in (ShardDown.code, Overloaded.code, Draining.code)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    call(db)
    assert len(server.requests) == 4


@pytest.mark.parametrize("call", CALLS)
def test_every_call_outlives_a_lost_connection(db: Any, server: ReferenceServer, call: Any) -> None:
    answers: list[Any] = [Drop(), Drop(reply_bytes=2, executes=True), Drop(reply_bytes=5)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    call(db)
    assert len(server.requests) == 4
    assert server.connections == 4


@pytest.mark.parametrize("call", CALLS)
def test_without_retries_the_first_failure_is_the_last(connect: Any, server: ReferenceServer, call: Any) -> None:
    server.script = lambda op, arguments: Fail(ShardDown.code)
    with pytest.raises(ShardDown):
        call(connect(server.url, retries=False))
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [Corrupt.code, BadRequest.code])
def test_what_does_not_heal_is_not_asked_again(db: Any, server: ReferenceServer, code: int) -> None:
    server.script = lambda op, arguments: Fail(code, "for good")
    with pytest.raises((Corrupt, BadRequest), match="for good"):
        db.get("k")
    assert len(server.requests) == 1


def test_the_deadline_is_for_all_attempts_together(connect: Any, server: ReferenceServer) -> None:
    server.script = lambda op, arguments: Fail(ShardDown.code, "shard 1 is away")
    db = connect(server.url, timeout=0.5)
    started = time.monotonic()
    with pytest.raises((ShardDown, Timeout)) as caught:  # the last attempt may have been one too many
        db.get("k")
    assert time.monotonic() - started < 2
    assert len(server.requests) >= 3
    (note,) = caught.value.__notes__
    assert note.startswith(f"given up after {len(server.requests)} attempts in 0.")
    assert note.endswith("; the one before failed with ShardDown: shard 1 is away")
    told = [deadline_ms for _, _, _, deadline_ms in server.requests]
    assert told == sorted(told, reverse=True)
    assert 0 < told[-1] < told[0] <= 500


def test_without_a_timeout_no_deadline_is_told(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url, timeout=None)
    db.set("k", b"v")
    assert server.requests[0][3] == 0


def test_a_write_without_an_answer_may_have_been_applied_and_a_read_not(connect: Any, server: ReferenceServer) -> None:
    hold = Hold()
    server.script = lambda op, arguments: hold
    db = connect(server.url).with_options(timeout=0.5)
    with pytest.raises(Timeout) as write:
        db.set("k", b"v")
    with pytest.raises(TimeoutError) as read:
        db.get("k")
    hold.until.set()
    assert write.value.maybe_applied
    assert not read.value.maybe_applied


def test_a_write_that_could_not_be_sent_was_not_applied(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url, timeout=1)
    server.stop()
    with pytest.raises(ConnectionLost):
        db.get("k")  # whatever was known of the old connection, there is none now
    with pytest.raises(ConnectionLost) as caught:
        db.set("k", b"v")
    assert not caught.value.maybe_applied
    server.start()
    db.set("k", b"v")


def test_a_lost_reply_to_a_write_is_not_forgotten_by_the_attempts_that_follow(
    connect: Any, server: ReferenceServer
) -> None:
    answers: list[Any] = [Drop(executes=True)]
    server.script = lambda op, arguments: answers.pop(0) if answers else Fail(ShardDown.code)
    db = connect(server.url).with_options(timeout=2)
    with pytest.raises((ShardDown, Timeout)) as caught:
        db.set("k", b"v")
    assert len(server.requests) > 2
    assert caught.value.maybe_applied


def test_the_daemon_tells_a_timeout_and_whether_it_may_have_been_applied(connect: Any, server: ReferenceServer) -> None:
    server.script = lambda op, arguments: Fail(Timeout.code, "", True)
    with pytest.raises(Timeout) as caught:
        connect(server.url).with_options(timeout=1).set("k", b"v")
    assert caught.value.maybe_applied


def test_a_page_of_a_scan_is_asked_again_from_its_cursor(db: Any, server: ReferenceServer) -> None:
    db.set_many({b"%03d" % i: b"v" for i in range(25)})
    fails = [False, True, True, False, True]
    server.script = lambda op, arguments: Fail(ShardDown.code) if fails and fails.pop(0) else None
    assert list(db.keys()) == [b"%03d" % i for i in range(25)]
    server.script = lambda op, arguments: Drop() if len(server.requests) % 2 else None
    assert list(db.scan(limit=7, values=False)) == [b"%03d" % i for i in range(25)]


def test_pauses_double_and_are_never_longer_than_what_is_left() -> None:
    retry = Retry(10, True)
    pauses = [retry.next_pause_s(ShardDown()) for _ in range(12)]
    bound = FIRST_PAUSE_S
    for pause in pauses:
        assert pause is not None
        assert bound / 2 <= pause <= bound
        bound = min(PAUSE_S_MAX, bound * 2)
    assert retry.attempts == 13
    assert Retry(FIRST_PAUSE_S / 2, True).next_pause_s(ShardDown()) is None
    assert Retry(10, False).next_pause_s(ShardDown()) is None
    assert Retry(None, True).next_pause_s(ShardDown()) is not None


def test_a_deadline_tells_whole_milliseconds_and_never_zero_unless_it_is_never() -> None:
    assert Deadline(None).left_ms() == 0
    assert Deadline(0).left_ms() == 1
    assert 4_000 < Deadline(5).left_ms() <= 5_000
    assert Deadline(1e9).left_ms() == DEADLINE_MS_MAX
    assert Deadline(None).sooner(1).left_ms() > 0
    near = Deadline(0.5)
    assert near.sooner(10) is near
