"""Dispatch when things go wrong: shards that are away, deadlines that pass, malformed replies."""

from __future__ import annotations

import random

import pytest

from kio import errors, opbatch, wire
from kio.errors import ProtocolError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Dropped, Gathered
from kio.opbatch import Reply
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED, Peer, codes, key_of, turn

SHARDS = 2
DOWN = errors.ShardDown.code
TIMEOUT = errors.Timeout.code
MAYBE = True


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch(SHARDS, SEED)


# --- shards that are away


def test_writes_that_were_sent_to_a_dead_worker_may_be_applied_and_queued_ones_are_not(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    key = key_of(0, SHARDS)
    peer.send(1, wire.OP_SET, 0, key, b"v")
    peer.send(2, wire.OP_GET, 0, key)
    dispatch.take_batches()
    peer.send(3, wire.OP_DELETE, 0, key)
    peer.send(4, wire.OP_SET_MANY, 0, [key, b"v"])
    dispatch.fail_shard(0)
    peer.send(5, wire.OP_SET, 0, key, b"v")
    *singles, many, last = peer.replies()
    assert codes([*singles, last]) == [(1, DOWN, MAYBE), (2, DOWN, False), (3, DOWN, False), (5, DOWN, False)]
    assert many == [4, 1, [None], [[0, DOWN, errors.ShardDown.text, False]]]
    assert dispatch.take_batches() == []
    assert dispatch.shard_in_flight(0) == (0, 0)


def test_a_batch_that_was_sealed_but_not_taken_is_not_sent_any_more(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    value = bytes(6 << 20)
    for id in range(3):
        peer.send(id, wire.OP_SET, 0, key_of(0, SHARDS), value)
    peer.send(3, wire.OP_GET, 0, key_of(1, SHARDS))
    dispatch.fail_shard(0)
    assert [shard for shard, _ in dispatch.take_batches()] == [1]
    assert codes(peer.replies()) == [(0, DOWN, False), (1, DOWN, False), (2, DOWN, False)]


def test_other_shards_answer_as_ever_while_one_is_down(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    dispatch.fail_shard(0)
    peer.send(1, wire.OP_SET_MANY, 0, [key_of(0, SHARDS), b"a", key_of(1, SHARDS), b"b"])
    turn(dispatch, shards)
    assert peer.replies() == [[1, 1, [None, True], [[0, DOWN, errors.ShardDown.text, False]]]]
    dispatch.shard_up(0)
    peer.send(2, wire.OP_SET, 0, key_of(0, SHARDS), b"a")
    turn(dispatch, shards)
    assert peer.replies() == [[2, 0, True]]


def test_late_replies_of_a_dead_worker_are_dropped(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET, 0, key_of(0, SHARDS), b"v")
    ((_, stale),) = dispatch.take_batches()
    dispatch.fail_shard(0)
    dispatch.shard_up(0)
    peer.send(2, wire.OP_GET, 0, key_of(0, SHARDS))
    ((_, fresh),) = dispatch.take_batches()
    dispatch.deliver(encode(stale, [Reply(0, opbatch.DONE, b"")]))
    assert codes(peer.replies()) == [(1, DOWN, MAYBE)]
    assert dispatch.counters()["late_replies"] == 1
    dispatch.deliver(shards.execute(fresh))
    assert peer.replies() == [[2, 0, None]]


def test_a_fan_out_tells_which_shards_are_down(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_CLEAR, 0)
    (asked,) = peer.take_events()
    assert isinstance(asked, Asked)
    dispatch.fan_out(asked.handle, wire.OP_CLEAR, [0, 1])
    batches = dict(dispatch.take_batches())
    dispatch.deliver(shards.execute(batches[1]))
    assert peer.take_events() == []
    dispatch.fail_shard(0)
    number = (opbatch.NUMBER, bytes(8))
    assert peer.take_events() == [Gathered(asked.handle, [(DOWN | opbatch.MAYBE_APPLIED, b""), number])]


# --- deadlines


def test_a_request_past_its_deadline_is_answered_and_its_late_reply_dropped(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET, 0, b"k", b"v", deadline_ms=100)
    peer.send(2, wire.OP_GET, 0, b"k", deadline_ms=100)
    peer.send(3, wire.OP_GET, 0, b"k")
    batches = dispatch.take_batches()
    peer.send(4, wire.OP_SET, 0, b"k", b"v", deadline_ms=100)
    dispatch.expire(peer.now_ms + 99)
    assert peer.replies() == []
    dispatch.expire(peer.now_ms + 100)
    assert not dispatch.has_deadlines
    assert codes(peer.replies()) == [(1, TIMEOUT, MAYBE), (2, TIMEOUT, False)]
    for _, batch in batches:
        dispatch.deliver(shards.execute(batch))
    third, fourth = peer.replies()
    assert third == [3, 0, b"v"]
    assert codes([fourth]) == [(4, TIMEOUT, False)]
    assert dispatch.requests == 0


def test_the_keys_of_a_batch_that_were_answered_in_time_keep_their_answers(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET_MANY, 0, [key_of(0, SHARDS), b"a", key_of(1, SHARDS), b"b"], deadline_ms=50)
    batches = dict(dispatch.take_batches())
    dispatch.deliver(shards.execute(batches[1]))
    dispatch.expire(peer.now_ms + 60)
    assert peer.replies() == [[1, 1, [None, True], [[0, TIMEOUT, errors.Timeout.text, MAYBE]]]]
    dispatch.deliver(shards.execute(batches[0]))
    assert peer.replies() == []
    assert dispatch.shard_in_flight(0) == (0, 0)


def test_a_request_that_expires_behind_another_keeps_its_place(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_GET, 0, b"k")
    peer.send(2, wire.OP_GET_MANY, 0, [b"k", b"l"], deadline_ms=10)
    assert dispatch.has_deadlines
    dispatch.expire(peer.now_ms + 10)
    assert peer.replies() == []
    turn(dispatch, shards)
    first, second = peer.replies()
    assert first == [1, 0, None]
    assert (second[:3], [entry[1] for entry in second[3]]) == ([2, 1, [None, None]], [TIMEOUT, TIMEOUT])


def test_a_rare_request_expires_and_its_handle_is_dropped(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_COUNT, 0, deadline_ms=10)
    (asked,) = peer.take_events()
    assert isinstance(asked, Asked)
    dispatch.fan_out(asked.handle, wire.OP_COUNT, [0, 1])
    dispatch.expire(peer.now_ms + 10)
    assert Dropped(asked.handle) in peer.take_events()
    dispatch.answer(asked.handle, b"\x00")
    assert codes(peer.replies()) == [(1, TIMEOUT, False)]


def test_a_fan_out_with_a_limit_of_its_own_tells_who_did_not_answer(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_STATS)
    (asked,) = peer.take_events()
    assert isinstance(asked, Asked)
    dispatch.fan_out(asked.handle, wire.OP_STATS, [0, 1], limit_ms=30)
    batches = dict(dispatch.take_batches())
    dispatch.deliver(shards.execute(batches[0]))
    dispatch.expire(peer.now_ms + 30)
    (gathered,) = peer.take_events()
    assert isinstance(gathered, Gathered)
    assert [status for status, _ in gathered.replies] == [opbatch.VALUE, TIMEOUT]
    dispatch.deliver(shards.execute(batches[1]))
    dispatch.answer(asked.handle, b"\xc0")
    assert peer.replies() == [[1, 0, None]]


def test_every_deadline_is_met_within_a_tick_and_none_too_early() -> None:
    dispatch = Dispatch(1, SEED)
    peer = Peer(dispatch)
    chance = random.Random(1)
    deadlines = {id: chance.choice([1, 31, 32, 33, 500, 32_767, 32_768, 40_000, 100_000, 2**40]) for id in range(500)}
    deadlines |= {500 + id: chance.randrange(1, 70_000) for id in range(500)}
    for id, deadline_ms in deadlines.items():
        peer.send(id, wire.OP_EXISTS, 0, b"k", deadline_ms=deadline_ms)
    ((_, batch),) = dispatch.take_batches()
    assert opbatch.decode_header(batch, opbatch.BATCH_MAGIC)[2] == 1_000
    peer.send(1_000, wire.OP_EXISTS, 0, b"k", deadline_ms=1)
    now = peer.now_ms
    expired = 0
    while now < peer.now_ms + 110_000:
        now += chance.choice([1, 10, 50, 50, 50, 2_000])
        dispatch.expire(now)
        expired = dispatch.counters()["errors"].get(TIMEOUT, 0)
        # Replies leave in order, so what is seen is the prefix that expired.
        due = [id for id in sorted(deadlines) if peer.now_ms + deadlines[id] > now]
        assert expired == (due[0] if due else 1_001)
    assert expired < 1_000


# --- malformed replies


def test_malformed_replies_are_refused_and_do_no_harm(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_GET_MANY, 0, [key_of(0, SHARDS), key_of(0, SHARDS)])
    ((_, batch),) = dispatch.take_batches()
    good = encode(batch, [Reply(0, opbatch.VALUE, b"a"), Reply(1, opbatch.ABSENT, b"")])
    _, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    for bad in (
        b"",
        good[:23],
        b"\x00" + good[1:],
        opbatch.encode_replies(9, batch_id, []),
        opbatch.encode_replies(0, batch_id + 1, []),
        opbatch.encode_replies(0, batch_id, []) + b"x",
        opbatch.encode_replies(0, batch_id, [Reply(2, 1, b"")]),
        opbatch.HEADER.pack(opbatch.REPLIES_MAGIC, 0, batch_id, 1, 0) + opbatch.ENTRY.pack(0, 1, 2**32 - 1),
        opbatch.HEADER.pack(opbatch.REPLIES_MAGIC, 0, batch_id, 2**32 - 1, 0),
    ):
        with pytest.raises(ProtocolError):
            dispatch.deliver(bad)
    assert peer.replies() == []
    with pytest.raises(ProtocolError):
        dispatch.deliver(encode(batch, [Reply(0, opbatch.VALUE, b"a"), Reply(0, opbatch.VALUE, b"b")]))
    dispatch.deliver(encode(batch, [Reply(1, opbatch.ABSENT, b"")]))
    assert peer.replies() == [[1, 0, [b"a", None]]]
    dispatch.deliver(good)
    assert peer.replies() == []


@pytest.mark.parametrize("op", [wire.OP_GET, wire.OP_SET, wire.OP_DELETE, wire.OP_EXISTS])
@pytest.mark.parametrize("status", [*range(16), 0x80, 0x8F, 66])
def test_an_answer_of_the_wrong_kind_is_an_internal_error(dispatch: Dispatch, op: int, status: int) -> None:
    legal = {wire.OP_GET: {1, 2}, wire.OP_SET: {0}}.get(op, {0, 2})
    peer = Peer(dispatch)
    peer.send(1, op, 0, b"k", *([b"v"] if op == wire.OP_SET else []))
    ((_, batch),) = dispatch.take_batches()
    dispatch.deliver(encode(batch, [Reply(0, status, b"")]))
    ((_, code, *_),) = peer.replies()
    assert code == (0 if status in legal else errors.InternalError.code)
