"""What version 2 of the protocol adds for keys and batches: options, versions, conditions, and five operations."""

from __future__ import annotations

from typing import Any

import pytest

from kio import errors, opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import SEED, Peer, turn

BAD = [errors.BadRequest.code, errors.BadRequest.text, False]


class Asker:
    """A connection to three shards; called with a request, it gives the reply without its id."""

    def __init__(self, version: int = wire.PROTOCOL_VERSION) -> None:
        self.dispatch = Dispatch(3, SEED, value_bytes_max=1_000)
        self.shards = Shards(3)
        self.peer = Peer(self.dispatch, version=version)

    def __call__(self, op: int, *arguments: Any) -> list[Any]:
        self.peer.send(7, op, *arguments)
        turn(self.dispatch, self.shards)
        ((id, *rest),) = self.peer.replies()
        assert id == 7
        return rest

    def answer(self, op: int, *arguments: Any, status: int, payload: bytes) -> list[Any]:
        """The reply where the shard gives this answer."""
        self.peer.send(7, op, *arguments)
        ((shard, batch),) = self.dispatch.take_batches()
        _, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
        self.dispatch.deliver(opbatch.encode_replies(shard, batch_id, [opbatch.Reply(0, status, payload)]))
        ((_, *rest),) = self.peer.replies()
        return rest


@pytest.fixture
def ask() -> Asker:
    return Asker()


def test_a_set_with_an_expiry_is_gone_when_its_time_has_come(ask: Asker) -> None:
    assert ask(wire.OP_SET, 0, b"k", b"v", wire.TTL, 5_000) == [0, True]
    assert ask(wire.OP_TTL, 0, b"k") == [0, 5_000]
    assert ask(wire.OP_SET, 0, b"k", b"w", wire.KEEP_TTL) == [0, True]
    ask.shards.now_ms += 4_999
    assert ask(wire.OP_TTL, 0, b"k") == [0, 1]
    ask.shards.now_ms += 1
    assert ask(wire.OP_GET, 0, b"k") == [0, None]
    assert ask(wire.OP_TTL, 0, b"k") == [0, None]


def test_a_set_without_options_clears_the_expiry(ask: Asker) -> None:
    ask(wire.OP_SET, 0, b"k", b"v", wire.EXPIRE_AT, ask.shards.now_ms + 10)
    assert ask(wire.OP_SET, 0, b"k", b"v", 0) == [0, True]
    assert ask(wire.OP_TTL, 0, b"k") == [0, -1]


def test_expire_and_persist_change_the_expiry_alone(ask: Asker) -> None:
    assert ask(wire.OP_EXPIRE, 0, b"k", wire.TTL, 1) == [0, False]
    assert ask(wire.OP_PERSIST, 0, b"k") == [0, False]
    ask(wire.OP_SET, 0, b"k", b"v")
    assert ask(wire.OP_PERSIST, 0, b"k") == [wire.STATUS_UNMET, [1, 1, 0]]
    assert ask(wire.OP_EXPIRE, 0, b"k", wire.EXPIRE_AT, ask.shards.now_ms + 70) == [0, True]
    assert ask(wire.OP_TTL, 0, b"k") == [0, 70]
    assert ask(wire.OP_PERSIST, 0, b"k") == [0, True]
    assert ask(wire.OP_TTL, 0, b"k") == [0, -1]
    assert ask(wire.OP_GET, 0, b"k") == [0, b"v"]


def test_conditions_are_met_or_told_with_what_is_there(ask: Asker) -> None:
    assert ask(wire.OP_SET, 0, b"k", b"v", wire.IF_PRESENT) == [wire.STATUS_UNMET, None]
    assert ask(wire.OP_SET, 0, b"k", b"v", wire.IF_ABSENT | wire.TTL, 9) == [0, True]
    there = [1, 1, ask.shards.now_ms + 9]
    assert ask(wire.OP_SET, 0, b"k", b"w", wire.IF_ABSENT) == [wire.STATUS_UNMET, there]
    assert ask(wire.OP_SET, 0, b"k", b"w", wire.IF_VERSION, 1, 2) == [wire.STATUS_UNMET, there]
    assert ask(wire.OP_GET, 0, b"k") == [0, b"v"]
    assert ask(wire.OP_SET, 0, b"k", b"w", wire.IF_VERSION, 1, 1) == [0, True]
    assert ask(wire.OP_DELETE, 0, b"k", wire.IF_VERSION, 1, 1) == [wire.STATUS_UNMET, [1, 2, 0]]
    assert ask(wire.OP_DELETE, 0, b"k", wire.IF_VERSION, 1, 2) == [0, True]
    assert ask(wire.OP_DELETE, 0, b"k", wire.IF_VERSION, 1, 2) == [wire.STATUS_UNMET, None]


def test_writes_answer_with_what_they_are_asked_for(ask: Asker) -> None:
    assert ask(wire.OP_SET, 0, b"k", b"v", wire.WITH_OLD) == [0, None]
    assert ask(wire.OP_SET, 0, b"k", b"", wire.WITH_OLD) == [0, b"v"]
    assert ask(wire.OP_SET, 0, b"k", b"x", wire.WITH_VERSION | wire.EXPIRE_AT, 2**53 - 1) == [0, [1, 3, 2**53 - 1]]
    assert ask(wire.OP_GET, 0, b"k", wire.WITH_VERSION) == [0, [b"x", 1, 3, 2**53 - 1]]
    assert ask(wire.OP_GET, 0, b"absent", wire.WITH_VERSION) == [0, None]
    assert ask(wire.OP_DELETE, 0, b"k", wire.WITH_OLD) == [0, b"x"]
    assert ask(wire.OP_DELETE, 0, b"k", wire.WITH_OLD) == [0, None]
    assert ask(wire.OP_DELETE, 0, b"k", wire.WITH_VERSION) == [0, False]


def test_incr_and_append_answer_the_sum_and_the_length(ask: Asker) -> None:
    assert ask(wire.OP_INCR, 0, b"n", 5) == [0, 5]
    assert ask(wire.OP_INCR, 0, b"n", -47) == [0, -42]
    assert ask(wire.OP_GET, 0, b"n") == [0, b"-42"]
    assert ask(wire.OP_APPEND, 0, b"n", b"7") == [0, 4]
    assert ask(wire.OP_INCR, 0, b"n", 0) == [0, -427]
    assert ask(wire.OP_INCR, 0, b"n", -(2**63))[0] == errors.NumberOverflow.code
    assert ask(wire.OP_APPEND, 0, b"n", b" ") == [0, 5]
    assert ask(wire.OP_INCR, 0, b"n", 1) == [errors.NotAnInteger.code, errors.NotAnInteger.text, False]


@pytest.mark.parametrize(
    "number", [0, 1, 127, 128, 255, 256, 2**15, 2**16, 2**31, 2**32, 2**63 - 1, -1, -32, -33, -128, -129, -(2**15),
               -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63)]
)  # fmt: skip
def test_every_number_of_64_bits_goes_in_and_out_in_its_shortest_form(ask: Asker, number: int) -> None:
    ask.peer.send(7, wire.OP_INCR, 0, b"n", number)
    turn(ask.dispatch, ask.shards)
    assert ask.peer.output() == wire.encode_frame([7, 0, number])


@pytest.mark.parametrize("encoded", [b"\xd0\xff", b"\xd1\xff\xff", b"\xd2" + b"\xff" * 4, b"\xd3" + b"\xff" * 8])
def test_every_encoding_of_a_negative_number_is_taken(ask: Asker, encoded: bytes) -> None:
    body = b"\x96\x07\x05\x00\x00\xa1n" + encoded
    ask.peer.feed(wire.LENGTH.pack(len(body)) + body)
    turn(ask.dispatch, ask.shards)
    assert ask.peer.replies() == [[7, 0, -1]]


def test_options_of_a_set_many_hold_for_each_of_its_pairs(ask: Asker) -> None:
    keys = [b"key %d" % i for i in range(50)]
    pairs = [part for key in keys for part in (key, b"v")]
    assert ask(wire.OP_SET_MANY, 0, pairs, wire.TTL, 20) == [0, [True] * 50]
    assert ask(wire.OP_SET_MANY, 0, [b"new", b"v", *pairs], wire.IF_ABSENT | wire.TTL, 90) == [0, [True] + [False] * 50]
    assert {ask(wire.OP_TTL, 0, key)[1] for key in keys} == {20}
    assert ask(wire.OP_TTL, 0, b"new") == [0, 90]


def test_options_become_flags_and_arguments_before_the_value(ask: Asker) -> None:
    ask.peer.send(1, wire.OP_SET, 0, b"k", b"v", wire.EXPIRE_AT | wire.IF_VERSION, 77, 2**32 - 1, 2**64 - 1)
    ask.peer.send(2, wire.OP_INCR, 0, b"k", -2)
    ((_, batch),) = ask.dispatch.take_batches()
    first, second = opbatch.decode_batch(batch)
    assert first.flags == opbatch.EXPIRE_AT | opbatch.IF_VERSION
    assert first.value == (77).to_bytes(8, "little") + b"\xff" * 12 + b"v"
    assert (second.flags, second.value) == (0, (-2).to_bytes(8, "little", signed=True))


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (wire.OP_SET, [b"v", wire.TTL]),
        (wire.OP_SET, [b"v", wire.TTL, 0]),
        (wire.OP_SET, [b"v", wire.TTL, 2**52 + 1]),
        (wire.OP_SET, [b"v", wire.TTL, -1]),
        (wire.OP_SET, [b"v", wire.TTL, 1.5]),
        (wire.OP_SET, [b"v", wire.TTL, 1, 1]),
        (wire.OP_SET, [b"v", wire.EXPIRE_AT, 0]),
        (wire.OP_SET, [b"v", wire.EXPIRE_AT, 2**53]),
        (wire.OP_SET, [b"v", wire.TTL | wire.EXPIRE_AT, 1, 1]),
        (wire.OP_SET, [b"v", wire.TTL | wire.KEEP_TTL, 1]),
        (wire.OP_SET, [b"v", wire.IF_ABSENT | wire.IF_PRESENT]),
        (wire.OP_SET, [b"v", wire.IF_VERSION, 1]),
        (wire.OP_SET, [b"v", wire.IF_VERSION, 2**32, 1]),
        (wire.OP_SET, [b"v", wire.IF_VERSION, 1, -1]),
        (wire.OP_SET, [b"v", wire.WITH_OLD | wire.WITH_VERSION]),
        (wire.OP_SET, [b"v", 256]),
        (wire.OP_SET, [b"v", None]),
        (wire.OP_SET, [b"v", {"ttl": 1}]),
        (wire.OP_GET, [wire.WITH_OLD]),
        (wire.OP_GET, [wire.TTL, 1]),
        (wire.OP_DELETE, [wire.IF_PRESENT]),
        (wire.OP_DELETE, [wire.TTL, 1]),
        (wire.OP_EXISTS, [wire.WITH_VERSION]),
        (wire.OP_EXISTS, [1]),
        (wire.OP_INCR, []),
        (wire.OP_INCR, [b"1"]),
        (wire.OP_INCR, [2**63]),
        (wire.OP_INCR, [1, 0]),
        (wire.OP_APPEND, []),
        (wire.OP_APPEND, [b"v", wire.TTL, 1]),
        (wire.OP_EXPIRE, []),
        (wire.OP_EXPIRE, [0]),
        (wire.OP_EXPIRE, [wire.KEEP_TTL]),
        (wire.OP_EXPIRE, [wire.TTL]),
        (wire.OP_PERSIST, [wire.TTL, 1]),
        (wire.OP_TTL, [b"v"]),
    ],
)
def test_options_that_an_operation_does_not_take_are_a_bad_request(ask: Asker, op: int, arguments: list[Any]) -> None:
    assert ask(op, 0, b"k", *arguments) == BAD
    assert ask.shards.operations == []


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (wire.OP_SET_MANY, [wire.WITH_OLD]),
        (wire.OP_SET_MANY, [wire.WITH_VERSION]),
        (wire.OP_SET_MANY, [wire.IF_VERSION, 1, 1]),
        (wire.OP_SET_MANY, [wire.TTL]),
        (wire.OP_GET_MANY, [wire.WITH_VERSION]),
        (wire.OP_DELETE_MANY, [wire.WITH_OLD]),
        (wire.OP_EXISTS_MANY, [1]),
    ],
)
def test_options_that_a_batch_does_not_take_are_a_bad_request(ask: Asker, op: int, arguments: list[Any]) -> None:
    assert ask(op, 0, [b"k", b"v"], *arguments) == BAD
    assert ask.shards.operations == []


@pytest.mark.parametrize("op", [wire.OP_INCR, wire.OP_APPEND, wire.OP_EXPIRE, wire.OP_PERSIST, wire.OP_TTL,
                                wire.OP_ATOMIC])  # fmt: skip
def test_a_connection_of_version_1_does_not_know_the_operations_of_2(op: int) -> None:
    assert Asker(1)(op, 0, b"k")[0] == errors.UnknownOperation.code


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (wire.OP_GET, [b"k", wire.WITH_VERSION]),
        (wire.OP_SET, [b"k", b"v", wire.TTL, 1]),
        (wire.OP_SET, [b"k", b"v", 0]),
        (wire.OP_DELETE, [b"k", wire.WITH_OLD]),
        (wire.OP_SET_MANY, [[b"k", b"v"], wire.TTL, 1]),
    ],
)
def test_a_connection_of_version_1_does_not_know_options(op: int, arguments: list[Any]) -> None:
    assert Asker(1)(op, 0, *arguments) == BAD


@pytest.mark.parametrize(
    ("op", "arguments", "status", "payload"),
    [
        (wire.OP_GET, [b"k"], opbatch.VERSIONED, bytes(20)),
        (wire.OP_GET, [b"k", wire.WITH_VERSION], opbatch.VALUE, b"v"),
        (wire.OP_GET, [b"k", wire.WITH_VERSION], opbatch.VERSIONED, bytes(19)),
        (wire.OP_GET, [b"k"], opbatch.UNMET, b""),
        (wire.OP_SET, [b"k", b"v"], opbatch.ABSENT, b""),
        (wire.OP_SET, [b"k", b"v"], opbatch.UNMET, b""),
        (wire.OP_SET, [b"k", b"v", wire.TTL, 1], opbatch.UNMET, b""),
        (wire.OP_SET, [b"k", b"v", wire.IF_ABSENT], opbatch.UNMET, bytes(21)),
        (wire.OP_SET, [b"k", b"v", wire.WITH_OLD], opbatch.DONE, b""),
        (wire.OP_SET, [b"k", b"v", wire.WITH_VERSION], opbatch.VERSIONED, bytes(21)),
        (wire.OP_SET, [b"k", b"v"], opbatch.NUMBER, bytes(8)),
        (wire.OP_INCR, [b"k", 1], opbatch.NUMBER, bytes(7)),
        (wire.OP_INCR, [b"k", 1], opbatch.DONE, b""),
        (wire.OP_APPEND, [b"k", b"v"], opbatch.ABSENT, b""),
        (wire.OP_TTL, [b"k"], opbatch.DONE, b""),
        (wire.OP_EXPIRE, [b"k", wire.TTL, 1], opbatch.UNMET, b""),
        (wire.OP_EXISTS, [b"k"], 6, b""),
    ],
)
def test_an_answer_that_an_operation_cannot_have_is_an_internal_error(
    ask: Asker, op: int, arguments: list[Any], status: int, payload: bytes
) -> None:
    code, _, maybe_applied = ask.answer(op, 0, *arguments, status=status, payload=payload)
    is_read = op in (wire.OP_GET, wire.OP_EXISTS, wire.OP_TTL)
    assert (code, maybe_applied) == (errors.InternalError.code, not is_read)


def test_an_old_value_that_does_not_fit_into_the_replies_says_that_the_write_was_applied() -> None:
    dispatch, shards = Dispatch(1, SEED, reply_bytes_max=1_000), Shards(1)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET, 0, b"k", bytes(900))
    peer.send(2, wire.OP_GET, 0, b"k")
    peer.send(3, wire.OP_GET, 0, b"k", wire.WITH_VERSION)
    peer.send(4, wire.OP_SET, 0, b"k", b"new", wire.WITH_OLD)
    turn(dispatch, shards)
    code = errors.ReplyTooLarge.code
    replies = [(reply[0], reply[1], reply[-1]) for reply in peer.replies()]
    assert replies == [(1, 0, True), (2, 0, bytes(900)), (3, code, False), (4, code, True)]
    assert shards.keys[0][0, b"k"] == b"new"


def test_a_timed_out_incr_may_have_been_applied_and_a_ttl_not(ask: Asker) -> None:
    ask.peer.send(1, wire.OP_INCR, 0, b"k", 1, deadline_ms=5)
    ask.peer.send(2, wire.OP_TTL, 0, b"k", deadline_ms=5)
    ask.dispatch.take_batches()
    ask.dispatch.expire(2_000)
    assert [(reply[1], reply[3]) for reply in ask.peer.replies()] == [
        (errors.Timeout.code, True),
        (errors.Timeout.code, False),
    ]


def test_every_operation_on_a_key_keeps_its_limits(ask: Asker) -> None:
    arguments: dict[int, list[Any]] = {
        wire.OP_INCR: [1], wire.OP_APPEND: [b""], wire.OP_EXPIRE: [wire.TTL, 1], wire.OP_PERSIST: [], wire.OP_TTL: []
    }  # fmt: skip
    for op, rest in arguments.items():
        assert ask(op, 0, b"", *rest)[0] == errors.KeyEmpty.code
        assert ask(op, 0, b"k" * 65_536, *rest)[0] == errors.KeyTooLarge.code
    assert ask(wire.OP_APPEND, 0, b"k", bytes(1_001))[0] == errors.ValueTooLarge.code
    assert ask(wire.OP_SET, 0, b"k", bytes(1_000), wire.TTL, 1) == [0, True]
