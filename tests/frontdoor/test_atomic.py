"""Atomic batches: one operation for one shard, whose answer is the answers of all."""

from __future__ import annotations

from typing import Any

import pytest

from kio import errors, hashing, limits, opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED, Peer, key_of, turn

SHARDS = 3


class Asker:
    """A connection; called with the operations of an atomic, it gives the reply without its id."""

    def __init__(self) -> None:
        self.dispatch = Dispatch(SHARDS, SEED, value_bytes_max=1_000)
        self.shards = Shards(SHARDS)
        self.peer = Peer(self.dispatch)

    def __call__(self, *operations: Any, keyspace: int = 0) -> list[Any]:
        return self.ask(wire.OP_ATOMIC, keyspace, list(operations))

    def ask(self, op: int, *arguments: Any) -> list[Any]:
        self.peer.send(7, op, *arguments)
        turn(self.dispatch, self.shards)
        ((id, *rest),) = self.peer.replies()
        assert id == 7
        return rest

    def answer(self, operations: list[Any], *answers: opbatch.Reply) -> list[Any]:
        """The reply where the shard answers the operations so."""
        self.peer.send(7, wire.OP_ATOMIC, 0, operations)
        ((_, batch),) = self.dispatch.take_batches()
        (operation,) = opbatch.decode_batch(batch)
        inner = opbatch.Reply(0, opbatch.VALUE, encode(operation.value, list(answers)))
        self.dispatch.deliver(encode(batch, [inner]))
        ((_, *rest),) = self.peer.replies()
        return rest


@pytest.fixture
def atomic() -> Asker:
    return Asker()


def test_all_operations_are_applied_in_their_order_and_each_has_its_result(atomic: Asker) -> None:
    assert atomic(
        [wire.OP_SET, b"{t}a", b"1", wire.WITH_VERSION | wire.TTL, 50],
        [wire.OP_INCR, b"{t}a", 41],
        [wire.OP_GET, b"{t}a"],
        [wire.OP_TTL, b"{t}a"],
        [wire.OP_APPEND, b"{t}b", b"xyz"],
        [wire.OP_EXISTS, b"{t}c"],
        [wire.OP_DELETE, b"{t}b", wire.WITH_OLD],
        [wire.OP_GET, b"{t}b"],
        [wire.OP_PERSIST, b"{t}a"],
        keyspace=4,
    ) == [0, [[1, 1, 1_000_050], 42, b"42", 50, 3, False, b"xyz", None, True]]
    assert atomic.ask(wire.OP_GET, 4, b"{t}a") == [0, b"42"]


def test_an_atomic_is_one_operation_of_the_shard_and_carries_hashes_and_keyspace(atomic: Asker) -> None:
    atomic.peer.send(1, wire.OP_ATOMIC, 5, [[wire.OP_SET, "{t}a", "v"], [wire.OP_GET, b"{t}b", 128]], deadline_ms=30)
    ((shard, batch),) = atomic.dispatch.take_batches()
    (outer,) = opbatch.decode_batch(batch)
    first, second = (hashing.routed_hash(key, SEED, 5) for key in (b"{t}a", b"{t}b"))
    assert (outer.op, outer.key, outer.keyspace, outer.hash, outer.deadline) == (37, b"", 5, first, 1_030)
    assert opbatch.decode_header(outer.value, opbatch.BATCH_MAGIC) == (shard, 0, 2)
    assert opbatch.decode_batch(outer.value) == [
        opbatch.Operation(wire.OP_SET, b"{t}a", b"v", first, 5),
        opbatch.Operation(wire.OP_GET, b"{t}b", b"", second, 5, 0, opbatch.WITH_VERSION),
    ]


def test_where_a_condition_does_not_hold_nothing_is_applied_and_it_is_told_which(atomic: Asker) -> None:
    atomic.ask(wire.OP_SET, 0, b"{t}b", b"old")
    assert atomic(
        [wire.OP_SET, b"{t}a", b"new"],
        [wire.OP_SET, b"{t}b", b"new", wire.IF_VERSION, 1, 9],
        [wire.OP_DELETE, b"{t}b"],
    ) == [wire.STATUS_UNMET, [1, [1, 1, 0]]]
    assert atomic([wire.OP_SET, b"{t}c", b"v", wire.IF_PRESENT]) == [wire.STATUS_UNMET, [0, None]]
    assert atomic.ask(wire.OP_GET_MANY, 0, [b"{t}a", b"{t}b"]) == [0, [None, b"old"]]


def test_where_an_operation_fails_nothing_is_applied_and_its_error_names_it(atomic: Asker) -> None:
    atomic.ask(wire.OP_SET, 0, b"{t}b", b"text")
    code, message, maybe_applied = atomic([wire.OP_SET, b"{t}a", b"new"], [wire.OP_INCR, b"{t}b", 1])
    assert (code, maybe_applied) == (errors.NotAnInteger.code, False)
    assert message == f"operation 1: {errors.NotAnInteger.text}"
    assert atomic.ask(wire.OP_GET, 0, b"{t}a") == [0, None]


def test_keys_of_two_shards_are_refused_with_the_way_to_put_them_together(atomic: Asker) -> None:
    here, there = key_of(0, SHARDS), key_of(1, SHARDS)
    code, message, maybe_applied = atomic([wire.OP_SET, here, b""], [wire.OP_GET, here], [wire.OP_SET, there, b""])
    assert (code, maybe_applied) == (errors.BadRequest.code, False)
    assert message.startswith("operation 2: its key is of another shard")
    assert "{tag}" in message
    assert atomic.shards.operations == []


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ([wire.OP_GET, b""], errors.KeyEmpty),
        ([wire.OP_GET, b"k" * 65_536], errors.KeyTooLarge),
        ([wire.OP_APPEND, b"{t}", bytes(1_001)], errors.ValueTooLarge),
    ],
)
def test_a_limit_is_told_with_the_operation_that_is_beyond_it(atomic: Asker, operation: list[Any], error: Any) -> None:
    assert atomic([wire.OP_SET, b"{t}a", b"v"], operation) == [error.code, f"operation 1: {error.text}", False]
    assert atomic.shards.operations == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [0],
        [0, []],
        [0, b"k"],
        [0, [[]]],
        [0, [[wire.OP_GET]]],
        [0, [[wire.OP_GET, b"k"], None]],
        [0, [[wire.OP_SET, b"k"]]],
        [0, [[wire.OP_SET, b"k", b"v", wire.TTL]]],
        [0, [[wire.OP_GET_MANY, [b"k"]]]],
        [0, [[wire.OP_COUNT]]],
        [0, [[wire.OP_ATOMIC, [[wire.OP_GET, b"k"]]]]],
        [0, [[10, b"k"]]],
        [0, [[wire.OP_GET, b"k"]], 0],
        [256, [[wire.OP_GET, b"k"]]],
        [0, [[wire.OP_GET, b"k"]] * (limits.ATOMIC_OPERATIONS_MAX + 1)],
    ],
)
def test_what_is_no_atomic_is_a_bad_request(atomic: Asker, arguments: list[Any]) -> None:
    assert atomic.ask(wire.OP_ATOMIC, *arguments) == [errors.BadRequest.code, errors.BadRequest.text, False]
    assert atomic.shards.operations == []


def test_an_atomic_may_be_as_large_as_its_limits_and_no_larger() -> None:
    dispatch, shards = Dispatch(1, SEED), Shards(1)
    peer = Peer(dispatch)
    value = bytes(limits.ATOMIC_BYTES_MAX // limits.ATOMIC_OPERATIONS_MAX - 64)
    operations = [[wire.OP_SET, b"%d" % i, value] for i in range(limits.ATOMIC_OPERATIONS_MAX)]
    peer.send(1, wire.OP_ATOMIC, 0, operations)
    peer.send(2, wire.OP_ATOMIC, 0, [[wire.OP_SET, b"k", bytes(limits.ATOMIC_BYTES_MAX)]])
    turn(dispatch, shards)
    first, second = peer.replies()
    assert first == [1, 0, [True] * limits.ATOMIC_OPERATIONS_MAX]
    assert second[:2] == [2, errors.FrameTooLarge.code]
    assert len(shards.keys[0]) == limits.ATOMIC_OPERATIONS_MAX


SET, GET = [wire.OP_SET, b"{t}a", b"v"], [wire.OP_GET, b"{t}a"]
DONE, VALUE = opbatch.Reply(0, opbatch.DONE, b""), opbatch.Reply(1, opbatch.VALUE, b"v")


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [DONE],
        [DONE, DONE],
        [DONE, VALUE, VALUE],
        [DONE, VALUE._replace(index=2)],
        [DONE, VALUE._replace(status=opbatch.DONE)],
        [DONE._replace(status=opbatch.VALUE), VALUE],
        [DONE, VALUE._replace(status=15)],
        [DONE, VALUE._replace(status=opbatch.MAYBE_APPLIED)],
        [DONE, VALUE._replace(status=opbatch.VERSIONED, payload=bytes(30))],
    ],
)
def test_an_answer_that_is_none_to_the_operations_is_an_internal_error(atomic: Asker, answers: Any) -> None:
    code, _, maybe_applied = atomic.answer([SET, GET], *answers)
    assert (code, maybe_applied) == (errors.InternalError.code, True)


def test_the_answers_may_come_in_any_order(atomic: Asker) -> None:
    assert atomic.answer([SET, GET], VALUE, DONE) == [0, [True, b"v"]]


def test_the_operation_that_failed_is_told_and_not_those_that_were_aborted_for_it(atomic: Asker) -> None:
    aborted = opbatch.Reply(0, errors.Aborted.code, b"")
    full = opbatch.Reply(1, errors.DiskFull.code | opbatch.MAYBE_APPLIED, b"no room")
    assert atomic.answer([SET, SET], aborted, full) == [errors.DiskFull.code, "operation 1: no room", True]
    answer = atomic.answer([SET, SET], aborted, aborted._replace(index=1))
    assert answer == [errors.Aborted.code, f"operation 0: {errors.Aborted.text}", False]


def test_an_error_of_the_whole_is_answered_as_it_came(atomic: Asker) -> None:
    atomic.peer.send(7, wire.OP_ATOMIC, 0, [SET, GET])
    ((_, batch),) = atomic.dispatch.take_batches()
    atomic.dispatch.deliver(encode(batch, [opbatch.Reply(0, errors.ShardReadOnly.code, b"the disk")]))
    assert atomic.peer.replies() == [[7, errors.ShardReadOnly.code, "the disk", False]]


@pytest.mark.parametrize(("operations", "maybe_applied"), [([SET, GET], True), ([GET, GET], False)])
def test_an_atomic_that_nobody_answered_may_have_been_applied_if_it_writes(
    atomic: Asker, operations: list[Any], maybe_applied: bool
) -> None:
    atomic.peer.send(1, wire.OP_ATOMIC, 0, operations, deadline_ms=5)
    atomic.dispatch.take_batches()
    atomic.dispatch.expire(2_000)
    atomic.peer.send(2, wire.OP_ATOMIC, 0, operations)
    atomic.dispatch.take_batches()
    for shard in range(SHARDS):
        atomic.dispatch.fail_shard(shard)
    atomic.peer.send(3, wire.OP_ATOMIC, 0, operations)
    assert [(reply[1], reply[3]) for reply in atomic.peer.replies()] == [
        (errors.Timeout.code, maybe_applied),
        (errors.ShardDown.code, maybe_applied),
        (errors.ShardDown.code, False),
    ]
    assert atomic.dispatch.requests == 0
