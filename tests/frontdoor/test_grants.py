"""What the kernel keeps from a connection: keys that are not its own, writes, and requests before their time."""

from __future__ import annotations

from typing import Any

import pytest

from kio import wire
from kio.errors import NotPermitted
from kio.frontdoor._dispatch import Dispatch, live_allocations
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import SEED, Peer, frame, turn

SHARDS = 3
CODE = NotPermitted.code


class Limited:
    """A connection that may not do everything."""

    def __init__(self, *prefixes: bytes, may_write: bool = True) -> None:
        self.dispatch = Dispatch(SHARDS, SEED)
        self.shards = Shards(SHARDS)
        self.peer = Peer(self.dispatch)
        self.dispatch.limit(self.peer.id, may_write, prefixes)

    def ask(self, op: int, *arguments: Any) -> list[Any]:
        self.peer.send(7, op, *arguments)
        turn(self.dispatch, self.shards)
        ((id, *rest),) = self.peer.replies()
        assert id == 7
        return rest

    def touched(self) -> set[bytes]:
        return {operation.key for operation in self.shards.operations}


@pytest.mark.parametrize(
    ("op", "rest"),
    [
        (wire.OP_GET, ()),
        (wire.OP_SET, (b"v",)),
        (wire.OP_DELETE, ()),
        (wire.OP_EXISTS, ()),
        (wire.OP_INCR, (1,)),
        (wire.OP_APPEND, (b"v",)),
        (wire.OP_EXPIRE, (wire.TTL, 1_000)),
        (wire.OP_PERSIST, ()),
        (wire.OP_TTL, ()),
    ],
)
@pytest.mark.parametrize("key", [b"eve:1", b"ada", b"Ada:1", b"", b"\0ada:1"])
def test_no_operation_reaches_a_key_of_somebody_else(op: int, rest: tuple[Any, ...], key: bytes) -> None:
    ada = Limited(b"ada:", b"orders:")
    assert ada.ask(op, 0, key, *rest)[0] == CODE
    assert ada.ask(op, 9, key, *rest)[0] == CODE
    assert ada.ask(op, 0, b"ada:1", *rest)[0] in (0, 2)
    assert ada.ask(op, 0, b"orders:", *rest)[0] in (0, 2)
    assert ada.touched() == {b"ada:1", b"orders:"}


def test_who_may_only_read_writes_nothing_by_any_operation() -> None:
    reader = Limited(may_write=False)
    one = [(wire.OP_SET, b"v"), (wire.OP_DELETE,), (wire.OP_INCR, 1), (wire.OP_APPEND, b"v"), (wire.OP_PERSIST,)]
    for op, *rest in one:
        assert reader.ask(op, 0, b"k", *rest)[0] == CODE
        assert reader.ask(wire.OP_ATOMIC, 0, [[wire.OP_GET, b"k"], [op, b"k", *rest]])[0] == CODE
    assert reader.ask(wire.OP_EXPIRE, 0, b"k", wire.TTL, 5)[0] == CODE
    assert reader.ask(wire.OP_SET_MANY, 0, [b"k", b"v"])[0] == 1
    assert reader.ask(wire.OP_DELETE_MANY, 0, [b"k"])[2][0][1] == CODE
    assert reader.shards.operations == []
    assert reader.ask(wire.OP_GET_MANY, 0, [b"k"]) == [0, [None]]
    assert reader.ask(wire.OP_ATOMIC, 0, [[wire.OP_GET, b"k"], [wire.OP_TTL, b"k"]]) == [0, [None, None]]


def test_a_batch_is_answered_key_by_key() -> None:
    ada = Limited(b"ada:")
    status, results, failed = ada.ask(wire.OP_SET_MANY, 0, [b"ada:1", b"v", b"eve:1", b"v", b"ada:2", b"v"])
    assert (status, results) == (1, [True, None, True])
    assert [(index, code, maybe_applied) for index, code, _, maybe_applied in failed] == [(1, CODE, False)]
    assert ada.touched() == {b"ada:1", b"ada:2"}


def test_an_atomic_with_one_foreign_key_does_nothing() -> None:
    ada = Limited(b"{ada}:")
    code, message, maybe_applied = ada.ask(
        wire.OP_ATOMIC, 0, [[wire.OP_SET, b"{ada}:1", b"v"], [wire.OP_GET, b"{eve}:1"]]
    )
    assert (code, maybe_applied) == (CODE, False)
    assert message.startswith("operation 1: ")
    assert ada.shards.operations == []


def test_a_grant_holds_for_what_comes_after_it_and_is_freed_with_its_last_connection() -> None:
    base = live_allocations()
    ada = Limited(b"ada:")
    other = Peer(ada.dispatch)
    ada.dispatch.limit(other.id, True, (b"ada:",))
    assert ada.ask(wire.OP_GET, 0, b"eve:1")[0] == CODE
    ada.dispatch.limit(ada.peer.id, True, ())
    assert ada.ask(wire.OP_GET, 0, b"eve:1")[0] == 0
    ada.dispatch.close(other.id)
    for number in range(100):
        ada.dispatch.limit(ada.peer.id, False, (b"%d" % number, b"long" * 1_000))
    assert live_allocations()[1] - base[1] < 1 << 20
    del ada, other
    assert live_allocations() == base


def test_requests_beyond_the_rate_wait_for_their_time() -> None:
    dispatch = Dispatch(SHARDS, SEED, connection_requests_per_s=10)
    shards = Shards(SHARDS)
    peer = Peer(dispatch)  # the hello is a request, too
    other = Peer(dispatch)
    peer.feed(b"".join(frame(id, wire.OP_EXISTS, 0, b"k") for id in range(2, 40)))
    turn(dispatch, shards)
    assert [reply[0] for reply in peer.replies()] == list(range(2, 11))
    assert dispatch.is_paused(peer.id)
    assert dispatch.resume(1_099) == []
    other.send(2, wire.OP_EXISTS, 0, b"k")
    turn(dispatch, shards, 1_099)
    assert len(other.replies()) == 1, "one connection does not hold back another"
    for now_ms, ids in ((1_100, [11]), (1_350, [12, 13]), (9_000, list(range(14, 24)))):
        turn(dispatch, shards, now_ms)
        assert [reply[0] for reply in peer.replies()] == ids
    assert dispatch.taken(peer.id) == 23


def test_without_a_rate_nobody_waits() -> None:
    dispatch = Dispatch(SHARDS, SEED)
    peer = Peer(dispatch)
    peer.feed(b"".join(frame(id, wire.OP_EXISTS, 0, b"k") for id in range(2, 2_002)))
    turn(dispatch, Shards(SHARDS))
    assert len(peer.replies()) == 2_000
