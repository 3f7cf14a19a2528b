from __future__ import annotations

from typing import Any

import pytest

from kio import wire
from kio.errors import ConnectionLost, Corrupt, KeyEmpty, ShardDown, ValueTooLarge
from tests.client.reference import Drop, Fail, ReferenceServer


def test_nothing_is_sent_before_the_block_ends(db: Any, server: ReferenceServer) -> None:
    with db.pipeline() as p:
        p.set("k", b"v")
        p.get("k")
        assert server.requests == []
        assert p.results == []
    assert server.operations() == [wire.OP_SET, wire.OP_GET]


def test_nothing_is_sent_when_the_block_is_left_by_an_exception(db: Any, server: ReferenceServer) -> None:
    def leave_early() -> None:
        with db.pipeline() as p:
            p.set("k", b"v")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave_early()
    assert server.requests == []


def test_an_empty_pipeline_is_no_work(db: Any, server: ReferenceServer) -> None:
    with db.pipeline() as p:
        pass
    assert p.results == []
    assert db.pipeline().execute() == []
    assert server.requests == []


def test_a_pipeline_goes_out_over_one_connection(db: Any, server: ReferenceServer) -> None:
    with db.pipeline() as p:
        for i in range(100):
            p.set(f"k{i}", b"v")
    assert len({number for number, *_ in server.requests}) == 1


def test_execute_may_be_called_again_for_what_was_queued_since(db: Any) -> None:
    p = db.pipeline()
    p.set("k", b"v")
    assert p.execute() == [True]
    p.get("k")
    assert p.execute() == [b"v"]


def test_the_first_error_is_raised_and_all_results_are_kept(db: Any) -> None:
    p = db.pipeline()
    p.set("a", b"1")
    p.set("b", bytes(2 << 20))
    p.set("c", b"3")
    with pytest.raises(ValueTooLarge):
        p.execute()
    first, second, third = p.results
    assert (first, type(second), third) == (True, ValueTooLarge, True)


def test_errors_stand_in_their_places_if_asked_for(db: Any) -> None:
    with db.pipeline(raise_on_error=False) as p:
        p.set("a", bytes(10 << 20))
        p.get("a")
    assert isinstance(p.results[0], ValueTooLarge)
    assert p.results[1] is None


def test_a_wrong_argument_is_told_when_it_is_queued_and_queues_nothing(db: Any) -> None:
    p = db.pipeline()
    with pytest.raises(KeyEmpty):
        p.get("")
    with pytest.raises(TypeError):
        p.get(1)
    assert len(p) == 0


def test_what_failed_is_asked_again(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [None, Fail(ShardDown.code), None, Drop(executes=True)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    with db.pipeline() as p:
        for name in "abcdef":
            p.set(name, name.encode())
    assert p.results == [True] * 6
    assert db.get_many(["a", "b", "c", "d", "e", "f"]) == {name: name.encode() for name in "abcdef"}


def test_a_write_is_not_repeated_after_a_later_operation_of_its_key(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [Fail(ShardDown.code)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    with db.pipeline(raise_on_error=False) as p:
        p.set("k", b"old")
        p.set(b"k", b"new")
        p.get("k")
    assert [type(p.results[0]), *p.results[1:]] == [ShardDown, True, b"new"]
    assert db.get("k") == b"new"


def test_what_does_not_heal_is_not_asked_again(db: Any, server: ReferenceServer) -> None:
    server.script = lambda op, arguments: Fail(Corrupt.code) if op == wire.OP_GET else None
    with db.pipeline(raise_on_error=False) as p:
        p.get("k")
        p.set("k", b"v")
    assert isinstance(p.results[0], Corrupt)
    assert len(server.requests) == 2


def test_a_write_whose_reply_was_lost_may_have_been_applied(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url, retries=False)
    server.script = lambda op, arguments: Drop() if op == wire.OP_SET else None
    with db.pipeline(raise_on_error=False) as p:
        p.get("k")
        p.set("k", b"v")
        p.get("k")
    read, write, late = p.results
    assert read is None
    assert isinstance(write, ConnectionLost)
    assert write.maybe_applied
    assert isinstance(late, ConnectionLost)
    assert not late.maybe_applied


def test_a_pipeline_uses_the_keyspace_of_its_client(db: Any) -> None:
    with db.with_options(keyspace=5).pipeline() as p:
        p.set("k", b"v")
    assert db.get("k") is None
    assert db.with_options(keyspace=5).get("k") == b"v"
