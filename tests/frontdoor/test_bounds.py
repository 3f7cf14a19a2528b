"""Dispatch at its bounds: what may be in flight, what may wait, and what is left when connections and it go away."""

from __future__ import annotations

import gc
import random

import pytest

from kio import errors, opbatch, wire
from kio.frontdoor._dispatch import Dispatch, live_allocations
from kio.frontdoor.events import Asked
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED, Peer, codes, frame, key_of, turn

SHARDS = 2


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch(SHARDS, SEED)


def settled_allocations() -> tuple[int, int]:
    """What is allocated when what earlier tests left in cycles is gone."""
    gc.collect()
    return live_allocations()


# --- bounds


def test_past_the_hard_bound_of_a_shard_operations_are_overloaded_and_not_applied() -> None:
    dispatch, shards = Dispatch(1, SEED, shard_operations_max=10), Shards(1)
    first, second = Peer(dispatch), Peer(dispatch)
    first.send(1, wire.OP_SET_MANY, 0, [b"%d" % (i // 2) for i in range(16)])
    second.send(1, wire.OP_SET_MANY, 0, [b"%d" % (10 + i // 2) for i in range(8)])
    turn(dispatch, shards)
    assert first.replies() == [[1, 0, [True] * 8]]
    overloaded = [[i, errors.Overloaded.code, errors.Overloaded.text, False] for i in (2, 3)]
    assert second.replies() == [[1, 1, [True, True, None, None], overloaded]]
    assert sorted(key for _, key in shards.keys[0]) == [b"0", b"1", b"10", b"11", *(b"%d" % i for i in range(2, 8))]


def test_bytes_in_flight_are_bounded_but_one_large_operation_always_passes() -> None:
    dispatch, shards = Dispatch(1, SEED, shard_bytes_max=1_000), Shards(1)
    first, second = Peer(dispatch), Peer(dispatch)
    first.send(1, wire.OP_SET, 0, b"k", bytes(5_000))
    second.send(1, wire.OP_SET, 0, b"l", b"")
    turn(dispatch, shards)
    assert first.replies() == [[1, 0, True]]
    assert codes(second.replies()) == [(1, errors.Overloaded.code, False)]


def test_a_connection_past_its_bound_is_paused_and_goes_on_when_half_is_answered() -> None:
    dispatch, shards = Dispatch(1, SEED, connection_requests_max=8), Shards(1)
    peer = Peer(dispatch)
    peer.feed(b"".join(frame(id, wire.OP_SET, 0, b"%d" % id, b"v") for id in range(20)))
    assert dispatch.is_paused(peer.id)
    assert dispatch.in_flight(peer.id)[0] == 8
    assert dispatch.resume(1_000) == []
    ((_, batch),) = dispatch.take_batches()
    replies = shards.replies(batch)
    dispatch.deliver(encode(batch, replies[:4]))
    assert dispatch.resume(1_000) == []
    dispatch.deliver(encode(batch, replies[4:5]))
    dispatch.resume(1_000)
    assert dispatch.in_flight(peer.id)[0] == 8
    turn(dispatch, shards)
    dispatch.deliver(encode(batch, replies[5:]))
    turn(dispatch, shards)
    assert [reply[0] for reply in peer.replies()] == list(range(20))
    assert not dispatch.is_paused(peer.id)


def test_a_connection_that_fills_a_shard_to_its_soft_bound_is_paused_and_others_are_not() -> None:
    dispatch, shards = Dispatch(1, SEED, shard_operations_max=20), Shards(1)
    greedy, modest = Peer(dispatch), Peer(dispatch)
    greedy.feed(b"".join(frame(id, wire.OP_EXISTS, 0, b"%d" % id) for id in range(15)))
    assert dispatch.is_paused(greedy.id)
    assert dispatch.shard_in_flight(0)[0] == 11
    modest.send(1, wire.OP_GET, 0, b"k")
    assert not dispatch.is_paused(modest.id)
    turn(dispatch, shards)
    assert len(greedy.replies()) == 15
    assert modest.replies() == [[1, 0, None]]


def test_who_asks_for_much_at_once_gets_all_of_it_a_part_at_a_time(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    key = key_of(0, SHARDS)
    shards.keys[0][0, key] = bytes(1 << 20)
    peer = Peer(dispatch)
    peer.feed(b"".join(frame(id, wire.OP_GET, 0, key) for id in range(200)))
    assert 1 < dispatch.in_flight(peer.id)[0] < 4
    replies: list[list[object]] = []
    while len(replies) < 200:
        turn(dispatch, shards)
        assert live_allocations()[1] < 8 << 20
        before = len(replies)
        replies += peer.replies()
        assert len(replies) > before
    assert [reply[:2] for reply in replies] == [[id, 0] for id in range(200)]


def test_who_is_answered_briefly_may_ask_for_more_at_once(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    peer = Peer(dispatch)
    requests = b"".join(frame(id, wire.OP_GET, 0, b"k") for id in range(1_000))
    peer.feed(requests)
    assert dispatch.in_flight(peer.id)[0] < 4
    for _ in range(2):
        for _, batch in dispatch.take_batches():
            dispatch.deliver(shards.execute(batch))
        dispatch.resume(1_000)
    assert dispatch.in_flight(peer.id)[0] > 100
    turn(dispatch, shards)
    assert len(peer.replies()) == 1_000
    peer.feed(requests)
    assert dispatch.in_flight(peer.id)[0] == 1_000


def test_while_much_is_expected_in_all_a_connection_that_asks_for_little_goes_on() -> None:
    dispatch, shards = Dispatch(1, SEED, unsent_bytes_max=64 << 20), Shards(1)
    shards.keys[0][0, b"large"] = bytes(1 << 20)
    modest = Peer(dispatch)
    for _ in range(200):
        modest.send(1, wire.OP_GET, 0, b"small")
        turn(dispatch, shards)
    modest.replies()
    greedy = [Peer(dispatch) for _ in range(10)]
    for peer in greedy:
        peer.feed(b"".join(frame(id, wire.OP_GET, 0, b"large") for id in range(30)))
    assert sum(dispatch.in_flight(peer.id)[0] for peer in greedy) < 64
    modest.feed(b"".join(frame(id, wire.OP_GET, 0, b"small") for id in range(30)))
    assert dispatch.in_flight(modest.id)[0] == 30
    answered: list[object] = []
    while len(answered) < 300:
        turn(dispatch, shards)
        assert live_allocations()[1] < 200 << 20
        before = len(answered)
        answered += [reply[1] for peer in greedy for reply in peer.replies()]
        assert len(answered) > before
    assert set(answered) == {0}


def test_a_connection_that_does_not_take_its_replies_is_paused_and_gets_no_more_than_the_bound() -> None:
    dispatch, shards = Dispatch(1, SEED, reply_bytes_max=3 << 20), Shards(1)
    shards.keys[0][0, b"k"] = bytes(1 << 20)
    peer = Peer(dispatch)
    for id in range(100):
        peer.send(id, wire.OP_GET, 0, b"k")
    asked = dispatch.in_flight(peer.id)[0]
    assert asked > 2
    assert dispatch.is_paused(peer.id)
    ((_, batch),) = dispatch.take_batches()
    dispatch.deliver(shards.execute(batch))
    assert settled_allocations()[1] < 8 << 20
    replies = peer.replies()[:asked]
    assert [reply[1] for reply in replies] == [0] * 2 + [errors.ReplyTooLarge.code] * (asked - 2)


def test_a_connection_that_has_much_to_read_is_paused_until_it_has_read() -> None:
    dispatch, shards = Dispatch(1, SEED), Shards(1)
    shards.keys[0][0, b"k"] = bytes(1 << 20)
    peer = Peer(dispatch)
    for id in range(100):
        if not dispatch.is_paused(peer.id):
            peer.send(id, wire.OP_GET, 0, b"k")
            turn(dispatch, shards)
    assert dispatch.is_paused(peer.id)
    assert [reply[:2] for reply in peer.replies()] == [[id, 0] for id in range(8)]
    turn(dispatch, shards)
    assert [reply[:2] for reply in peer.replies()] == [[8, 0]]
    assert not dispatch.is_paused(peer.id)


def test_a_value_larger_than_the_reply_bound_passes_alone() -> None:
    dispatch, shards = Dispatch(1, SEED, reply_bytes_max=1_000), Shards(1)
    shards.keys[0][0, b"k"] = bytes(5_000)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_GET, 0, b"k")
    peer.send(2, wire.OP_GET_MANY, 0, [b"k", b"k"])
    turn(dispatch, shards)
    assert peer.replies()[0] == [1, 0, bytes(5_000)]
    peer.send(2, wire.OP_GET_MANY, 0, [b"k", b"k"])
    turn(dispatch, shards)
    ((_, status, result, failed),) = peer.replies()
    assert (status, result) == (1, [bytes(5_000), None])
    assert [entry[:2] for entry in failed] == [[1, errors.ReplyTooLarge.code]]


def test_batches_are_cut_so_that_no_message_grows_without_end(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    key = key_of(0, SHARDS)
    for id in range(5):
        peer.send(id, wire.OP_SET, 0, key, bytes(3 << 20))
    messages = [len(batch) for _, batch in dispatch.take_batches()]
    assert [round(size / (3 << 20)) for size in messages] == [2, 2, 1]
    peers = [Peer(dispatch) for _ in range(3)]
    for other in peers:
        other.send(1, wire.OP_EXISTS_MANY, 0, [key] * 40_000)
    counts = [opbatch.decode_header(batch, opbatch.BATCH_MAGIC)[2] for _, batch in dispatch.take_batches()]
    assert counts == [65_536, 54_464]


# --- bounds over all connections


def test_when_half_frames_fill_the_memory_the_largest_are_refused_and_their_connections_live() -> None:
    dispatch, shards = Dispatch(1, SEED, half_frames_bytes_max=4 << 20), Shards(1)
    peers = [Peer(dispatch) for _ in range(8)]
    whole = frame(7, wire.OP_SET, 0, b"k", bytes(2 << 20))
    for peer in peers:
        peer.feed(whole[: 1 << 20])
        peer.feed(whole[1 << 20 : 1_500_000])
    assert settled_allocations()[1] < 8 << 20
    for peer in peers:
        peer.feed(whole[1_500_000:])
        peer.send(8, wire.OP_GET, 0, b"absent")
        turn(dispatch, shards)
    replies = [peer.replies() for peer in peers]
    overloaded = [7, errors.Overloaded.code, errors.Overloaded.text, False]
    assert [first for first, _ in replies].count([7, 0, True]) == 2
    assert [first for first, _ in replies].count(overloaded) == 6
    assert [last for _, last in replies] == [[8, 0, None]] * 8


def test_when_unsent_replies_fill_the_memory_only_those_with_many_of_them_wait() -> None:
    dispatch, shards = Dispatch(1, SEED, unsent_bytes_max=24 << 20), Shards(1)
    shards.keys[0][0, b"k"] = bytes(1 << 20)
    lazy = [Peer(dispatch) for _ in range(4)]
    for id in range(10):
        for peer in lazy:
            peer.send(id, wire.OP_GET, 0, b"k")
            turn(dispatch, shards)
    assert settled_allocations()[1] < 24 << 20
    assert all(dispatch.is_paused(peer.id) for peer in lazy)
    modest = Peer(dispatch)
    modest.send(1, wire.OP_GET, 0, b"k")
    turn(dispatch, shards)
    assert [reply[:2] for reply in modest.replies()] == [[1, 0]]
    found: list[list[list[object]]] = [[] for _ in lazy]
    for _ in range(20):
        for replies, peer in zip(found, lazy, strict=True):
            replies += [reply[:2] for reply in peer.replies()]
            turn(dispatch, shards)
    assert found == [[[id, 0] for id in range(10)]] * len(lazy)


def test_connections_that_are_idle_after_large_requests_hold_next_to_nothing() -> None:
    dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
    _, before = settled_allocations()
    peers = [Peer(dispatch) for _ in range(300)]
    for peer in peers:
        request = frame(1, wire.OP_SET, 0, b"k", bytes(60_000))
        peer.feed(request[:50_000])
        peer.feed(request[50_000:])
        peer.send(2, wire.OP_GET, 0, b"k")
        turn(dispatch, shards)
        assert [reply[0] for reply in peer.replies()] == [1, 2]
    _, after = settled_allocations()
    assert (after - before) / len(peers) < 5_000


# --- closed connections, and memory


def test_closing_frees_at_once_what_is_not_in_flight_and_the_rest_with_its_reply(dispatch: Dispatch) -> None:
    shards = Shards(SHARDS)
    idle = settled_allocations()
    peers = [Peer(dispatch) for _ in range(200)]
    for peer in peers:
        peer.send(1, wire.OP_SET_MANY, 0, [key_of(0, SHARDS), b"a", key_of(1, SHARDS), b"b"], deadline_ms=1_000)
        peer.send(2, wire.OP_GET, 0, key_of(0, SHARDS))
        peer.feed(b"\x00\x00")
    batches = dict(dispatch.take_batches())
    dispatch.deliver(shards.execute(batches[0]))
    for peer in peers:
        dispatch.close(peer.id)
        with pytest.raises(KeyError):
            dispatch.feed(peer.id, b"", 0)
    assert dispatch.requests == 0
    assert not dispatch.has_deadlines
    again = Peer(dispatch)
    dispatch.deliver(shards.execute(batches[1]))
    assert again.replies() == []
    dispatch.close(again.id)
    # What stays are a few lists that are used again.
    blocks, _ = live_allocations()
    assert blocks <= idle[0] + 12


def test_100_000_requests_of_connections_that_come_and_go_leave_nothing_behind() -> None:
    base = settled_allocations()
    dispatch, shards = Dispatch(SHARDS, SEED, connection_requests_max=64), Shards(SHARDS)
    chance = random.Random(7)
    peers: list[Peer] = []
    waiting: list[bytes] = []
    now = 1_000
    high = 0
    for step in range(4_000):
        now += 5
        if len(peers) < 40:
            peers.append(Peer(dispatch))
        peer = chance.choice(peers)
        peer.now_ms = now
        many = [b"%d" % chance.randrange(50) for _ in range(2 * chance.randrange(20))]
        if not dispatch.is_paused(peer.id) and not dispatch.has_half_frame(peer.id):
            peer.feed(
                b"".join(frame(i, wire.OP_GET, 0, b"%d" % i, deadline_ms=chance.choice([0, 20])) for i in range(50))
                + frame(98, wire.OP_SET_MANY, 0, many)
                + frame(99, wire.OP_GET_MANY, 0, many, deadline_ms=50)
                + b"\x00" * chance.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, 2])
            )
        waiting += [batch for _, batch in dispatch.take_batches()]
        chance.shuffle(waiting)
        while len(waiting) > 4:
            dispatch.deliver(shards.execute(waiting.pop()))
        if step % 50 == 0:
            shard = chance.randrange(SHARDS)
            dispatch.fail_shard(shard)
            dispatch.shard_up(shard)
        dispatch.expire(now)
        dispatch.resume(now)
        for id in dispatch.outputs():
            dispatch.consumed(id, len(dispatch.output(id)))
        if chance.random() < 0.1:
            peers.remove(peer)
            dispatch.close(peer.id)
        if step == 1_000:
            high = live_allocations()[1]
    assert live_allocations()[1] < 2 * high
    assert sum(dispatch.counters()["per_op"].values()) > 100_000
    for peer in peers:
        dispatch.close(peer.id)
    # A connection that closed may have left some that was not yet taken.
    for batch in waiting + [batch for _, batch in dispatch.take_batches()]:
        dispatch.deliver(shards.execute(batch))
    assert [dispatch.shard_in_flight(shard) for shard in range(SHARDS)] == [(0, 0)] * SHARDS
    del dispatch, peers, peer
    assert live_allocations() == base


def test_a_dispatch_that_goes_away_with_everything_in_flight_frees_it_all() -> None:
    base = settled_allocations()
    dispatch = Dispatch(SHARDS, SEED)
    open_, closed = Peer(dispatch), Peer(dispatch)
    for peer in (open_, closed):
        peer.send(1, wire.OP_GET_MANY, 0, [b"%d" % i for i in range(100)], deadline_ms=50)
        peer.send(2, wire.OP_COUNT, 0)
        asked = peer.take_events()[-1]
        assert isinstance(asked, Asked)
        dispatch.fan_out(asked.handle, wire.OP_COUNT, [0, 1], limit_ms=10)
        peer.send(3, wire.OP_STATS)
        dispatch.take_batches()
        peer.send(4, wire.OP_SET, 0, b"k", b"v")
    dispatch.close(closed.id)
    del dispatch, open_, closed, peer
    assert live_allocations() == base
