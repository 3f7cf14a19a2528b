"""Expiry, versions, conditions, atomic batches on the reference server; what is wrong with arguments, and retries."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from kio import wire
from kio.client import Version
from kio.errors import ConnectionLost, ProtocolError, RequestError, ShardDown, Timeout
from tests.client.operation_suite import OperationSuite
from tests.client.reference import Drop, Fail, ReferenceServer


class TestOperations(OperationSuite):
    pass


CONDITIONS: list[dict[str, Any]] = [{"if_absent": True}, {"if_present": True}, {"if_version": Version(1, 1)}]


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 1, "expire_at": 1},
        {"ttl": 1, "keep_ttl": True},
        {"if_absent": True, "if_present": True},
        {"if_absent": True, "if_version": Version(1, 1)},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": timedelta(days=-1)},
        {"expire_at": 0},
        {"expire_at": -5},
        {"expire_at": 1e14},
    ],
)
def test_options_that_contradict_or_are_out_of_range_are_told_before_anything_is_sent(
    db: Any, server: ReferenceServer, options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError):
        db.set("k", b"v", **options)
    with pytest.raises(RequestError):
        db.set_with_version("k", b"v", **options)
    assert server.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": "60"},
        {"ttl": True},
        {"expire_at": "tomorrow"},
        {"expire_at": datetime(2100, 1, 1)},
        {"if_version": 5},
        {"if_version": (1, 2, 3)},
        {"if_version": b"ab"},
    ],
)
def test_options_of_a_wrong_type_are_type_errors(db: Any, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        db.set("k", b"v", **options)


def test_arguments_of_the_other_operations_are_checked(db: Any, server: ReferenceServer) -> None:
    for wrong in (1.0, "1", True, None):
        with pytest.raises(TypeError, match="incr adds an int"):
            db.incr("n", wrong)
    with pytest.raises(RequestError, match="64 bits"):
        db.incr("n", 2**63)
    with pytest.raises(TypeError, match="a value is bytes"):
        db.append("k", "text")
    with pytest.raises(RequestError, match="either ttl or expire_at"):
        db.touch("k")
    with pytest.raises(RequestError, match="either ttl or expire_at"):
        db.touch("k", 1, expire_at=1)
    with pytest.raises(TypeError, match="a key is bytes or str"):
        db.batch().incr(5)
    assert server.requests == []


def test_times_are_told_in_whole_milliseconds_and_never_rounded_to_none(db: Any, server: ReferenceServer) -> None:
    db.set("k", b"v", ttl=0.0001)
    db.set("k", b"v", ttl=timedelta(seconds=1, milliseconds=500))
    db.set("k", b"v", expire_at=1_700_000_000.25)
    told = [arguments[3:] for _, _, arguments, _ in server.requests]
    assert told == [[wire.TTL, 1], [wire.TTL, 1_500], [wire.EXPIRE_AT, 1_700_000_000_250]]


NOT_REPEATABLE = [
    lambda db: db.incr("k"),
    lambda db: db.append("k", b"v"),
    lambda db: db.set("k", b"v", if_absent=True),
    lambda db: db.set_with_version("k", b"v", if_version=Version(1, 1)),
    lambda db: db.delete("k", if_version=Version(1, 1)),
    lambda db: db.get_and_set("k", b"v"),
    lambda db: db.get_and_delete("k"),
    lambda db: run_atomic(db, "incr"),
]
REPEATABLE = [
    lambda db: db.set("k", b"v", ttl=100),
    lambda db: db.set_with_version("k", b"v"),
    lambda db: db.entry("k"),
    lambda db: db.touch("k", 5),
    lambda db: db.persist("k"),
    lambda db: db.ttl("k"),
    lambda db: list(db.records()),
    lambda db: run_atomic(db, "get"),
    lambda db: run_atomic(db, "delete"),
]


def run_atomic(db: Any, operation: str) -> None:
    with db.batch() as batch:
        getattr(batch, operation)("k")


@pytest.mark.parametrize("call", NOT_REPEATABLE)
def test_what_must_not_be_applied_twice_is_not_asked_again_once_it_may_have_been(
    db: Any, server: ReferenceServer, call: Any
) -> None:
    server.script = lambda op, arguments: Drop(executes=True)
    with pytest.raises(ConnectionLost) as caught:
        call(db)
    assert caught.value.maybe_applied
    assert len(server.requests) == 1
    server.script = lambda op, arguments: Fail(Timeout.code, "", True)
    with pytest.raises(Timeout) as late:
        call(db)
    assert late.value.maybe_applied
    assert len(server.requests) == 2


@pytest.mark.parametrize("call", NOT_REPEATABLE)
def test_what_must_not_be_applied_twice_is_asked_again_while_it_cannot_have_been(
    db: Any, server: ReferenceServer, call: Any
) -> None:
    answers = [Fail(ShardDown.code), Fail(ShardDown.code)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    call(db)
    assert len(server.requests) == 3


@pytest.mark.parametrize("call", REPEATABLE)
def test_what_has_the_same_effect_twice_is_asked_again(db: Any, server: ReferenceServer, call: Any) -> None:
    answers: list[Any] = [Drop(executes=True), Fail(ShardDown.code, maybe_applied=True)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    call(db)
    assert len(server.requests) == 3


def test_a_pipeline_asks_again_only_for_what_may_be_repeated(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [None, Drop(executes=True)]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    p = db.pipeline(raise_on_error=False)
    p.incr("a")
    p.incr("b")
    p.set("c", b"v")
    results = p.execute()
    assert (results[0], type(results[1]), results[2]) == (1, ConnectionLost, True)
    assert results[1].maybe_applied
    assert db.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"1", "c": b"v"}


def test_a_daemon_of_version_1_serves_what_it_knows_and_the_rest_is_told(connect: Any, server: ReferenceServer) -> None:
    server.hello["protocol"] = 1
    db = connect(server.url)
    assert db.set("k", b"v") is True
    assert db.get_many(["k"]) == {"k": b"v"}
    assert dict(db.scan()) == {b"k": b"v"}
    asked = len(server.requests)
    for call in (
        lambda: db.set("k", b"v", ttl=5),
        lambda: db.set_many({"k": b"v"}, ttl=5),
        lambda: db.entry("k"),
        lambda: db.incr("n"),
        lambda: list(db.records()),
        lambda: run_atomic(db, "get"),
    ):
        with pytest.raises(ProtocolError, match="speaks protocol 1; this needs 2"):
            call()
    assert len(server.requests) == asked
    assert db.get("k") == b"v"
