"""Dispatch against a model: however bytes are split, batches are cut and replies interleave, clients see the same.

The model is the reference: the shards of backend.py, asked one request after the other.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kio import errors, hashing, opbatch, wire
from kio.frontdoor._dispatch import Dispatch, live_allocations
from kio.frontdoor.events import Asked
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import HELLO, SEED, Peer, frame, turn, unpack

SHARDS = 3
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Request = tuple[int, list[Any]]

keys = st.sampled_from([b"a", b"b", b"{t}c", b"{t}d", b"e" * 300, b"\x00", b""])
values = st.sampled_from([b"", b"v", b"w" * 40, b"x" * 70_000])
keyspaces = st.sampled_from([0, 1, 255])
many = st.lists(keys, max_size=12)
pairs = st.lists(st.tuples(keys, values), max_size=12).map(lambda items: [part for pair in items for part in pair])
requests = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 3, 4]), st.tuples(keyspaces, keys).map(list)),
        st.tuples(st.just(2), st.tuples(keyspaces, keys, values).map(list)),
        st.tuples(st.sampled_from([17, 19, 20]), st.tuples(keyspaces, many).map(list)),
        st.tuples(st.just(18), st.tuples(keyspaces, pairs).map(list)),
        st.tuples(st.sampled_from([1, 17, 99]), st.lists(st.integers(0, 300), max_size=3)),
    ),
    max_size=12,
)


class Model:
    """What each request is answered, by executing one after the other."""

    def __init__(self) -> None:
        self.shards = Shards(SHARDS)

    def reply(self, id: int, op: int, arguments: list[Any]) -> list[Any]:
        if not wire.OP_GET <= (op & ~wire.OP_MANY) <= wire.OP_EXISTS:
            return [id, errors.UnknownOperation.code, errors.UnknownOperation.text, False]
        bad = [id, errors.BadRequest.code, errors.BadRequest.text, False]
        single = op & ~wire.OP_MANY
        if op < wire.OP_MANY:
            if len(arguments) != (3 if op == wire.OP_SET else 2) or not isinstance(arguments[1], bytes):
                return bad
            status, payload = self._one(single, *arguments)
            if status >= opbatch.ERROR:
                return [id, status, errors.BY_CODE[status].text, False]
            return [id, 0, self._value(single, status, payload)]
        if len(arguments) != 2 or not isinstance(arguments[1], list):
            return bad
        keyspace, items = arguments
        width = 2 if single == wire.OP_SET else 1
        answers = [self._one(single, keyspace, *items[i : i + width]) for i in range(0, len(items), width)]
        result = [self._value(single, *answer) for answer in answers]
        failed = [
            [i, status, errors.BY_CODE[status].text, False] for i, (status, _) in enumerate(answers) if status >= 16
        ]
        return [id, 1, result, failed] if failed else [id, 0, result]

    def _one(self, op: int, keyspace: int, key: bytes, value: bytes = b"") -> tuple[int, bytes]:
        if not key:
            return errors.KeyEmpty.code, b""
        routed = hashing.routed_hash(key, SEED, keyspace)
        shard = hashing.shard_of(routed, SHARDS)
        batch = opbatch.encode_batch(shard, 1, [opbatch.Operation(op, key, value, routed, keyspace)])
        (reply,) = self.shards.replies(batch)
        return reply.status, reply.payload

    @staticmethod
    def _value(op: int, status: int, payload: bytes) -> Any:
        if op == wire.OP_GET:
            return payload if status == opbatch.VALUE else None
        return None if status >= opbatch.ERROR else status == opbatch.DONE


def stream_of(asked: list[Request]) -> bytes:
    return b"".join(frame(id, op, *arguments) for id, (op, arguments) in enumerate(asked))


def expected_of(asked: list[Request]) -> list[list[Any]]:
    model = Model()
    return [model.reply(id, op, arguments) for id, (op, arguments) in enumerate(asked)]


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


@SETTINGS
@given(asked=requests, cuts=st.lists(st.integers(0, 1 << 30), max_size=20), turns=st.integers(0, 2**20))
def test_any_split_of_the_stream_gives_the_same_replies(asked: list[Request], cuts: list[int], turns: int) -> None:
    dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
    peer = Peer(dispatch)
    received = b""
    for number, piece in enumerate(pieces(stream_of(asked), cuts)):
        peer.feed(piece)
        if turns >> number % 20 & 1:
            turn(dispatch, shards)
            received += peer.output()
    turn(dispatch, shards)
    assert unpack(received + peer.output()) == expected_of(asked)
    assert dispatch.in_flight(peer.id) == (0, 0)
    assert not dispatch.has_half_frame(peer.id)


tagged = st.sampled_from([b"{t}a", b"{t}b"])
times = st.sampled_from([1, 5_000, 2**52])
options = st.one_of(
    st.just([]),
    st.tuples(st.sampled_from([1, 2, 9, 18, 65, 130]), times).map(list),
    st.sampled_from([[4], [8], [16], [64], [128], [32, 1, 2], [96, 1, 1], [255], [1], [32, 1]]),
)
calls = st.one_of(
    st.tuples(st.just(2), tagged, values, options).map(lambda call: [*call[:3], *call[3]]),
    st.tuples(st.sampled_from([1, 3, 7]), tagged, options).map(lambda call: [*call[:2], *call[2]]),
    st.tuples(st.just(5), tagged, st.integers(-(2**63), 2**63 - 1)).map(list),
    st.tuples(st.just(6), tagged, values).map(list),
    st.tuples(st.sampled_from([4, 8, 9]), tagged).map(list),
)
requests_of_2 = st.lists(
    st.one_of(
        st.tuples(keyspaces, calls).map(lambda one: (one[1][0], [one[0], *one[1][1:]])),
        st.tuples(keyspaces, st.lists(calls, max_size=4)).map(lambda one: (wire.OP_ATOMIC, list(one))),
        st.tuples(keyspaces, pairs, options).map(lambda one: (wire.OP_SET_MANY, [*one[:2], *one[2]])),
    ),
    max_size=12,
)


@SETTINGS
@given(asked=requests_of_2, cuts=st.lists(st.integers(0, 1 << 30), max_size=20), turns=st.integers(0, 2**20))
def test_requests_of_version_2_give_the_same_however_they_are_split_and_batched(
    asked: list[Request], cuts: list[int], turns: int
) -> None:
    received = []
    for split, when in (([], 0), (cuts, turns)):
        dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
        peer = Peer(dispatch)
        output = b""
        for number, piece in enumerate(pieces(stream_of(asked), split)):
            peer.feed(piece)
            if when >> number % 20 & 1:
                turn(dispatch, shards)
                output += peer.output()
        turn(dispatch, shards)
        received.append(output + peer.output())
        assert (dispatch.requests, dispatch.in_flight(peer.id)) == (0, (0, 0))
    assert [reply[0] for reply in unpack(received[0])] == list(range(len(asked)))
    assert received[0] == received[1]


def test_one_byte_at_a_time_gives_the_same_replies() -> None:
    asked: list[Request] = [
        (18, [0, [b"a", b"1", b"", b"2", b"b", b"3"]]),
        (17, [0, [b"a", b"b"]]),
        (2, [0, b"c", b"4"]),
    ]
    dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
    peer = Peer(dispatch, greet=False)
    for byte in HELLO:
        peer.feed(bytes([byte]))
    peer.greet()
    for byte in stream_of(asked):
        peer.feed(bytes([byte]))
    turn(dispatch, shards)
    assert peer.replies()[1:] == expected_of(asked)


@SETTINGS
@given(asked=st.lists(requests, min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_any_interleaving_of_replies_leaves_each_connection_in_its_order(asked: list[list[Request]], seed: int) -> None:
    """Each connection has a keyspace of its own, so that the model holds whatever order they execute in."""
    chance = random.Random(seed)
    dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
    peers = [Peer(dispatch) for _ in asked]
    mine = [
        [(op, [10 + n, *args[1:]] if args and args[0] in (0, 1, 255) else args) for op, args in each]
        for n, each in enumerate(asked)
    ]
    waiting: list[tuple[bytes, list[opbatch.Reply]]] = []
    # Connections take turns at random; each sends its own requests in order.
    unsent = [[frame(id, op, *args) for id, (op, args) in enumerate(each)] for each in mine]
    order = [n for n, frames in enumerate(unsent) for _ in frames]
    chance.shuffle(order)
    for n in order:
        peers[n].feed(unsent[n].pop(0))
        if chance.random() < 0.5:
            waiting += [(batch, shards.replies(batch)) for _, batch in dispatch.take_batches()]
        if waiting and chance.random() < 0.5:
            deliver_some(dispatch, waiting, chance)
    while True:
        dispatch.resume(1_000)
        waiting += [(batch, shards.replies(batch)) for _, batch in dispatch.take_batches()]
        if not waiting:
            break
        deliver_some(dispatch, waiting, chance)
    for peer, each in zip(peers, mine, strict=True):
        assert peer.replies() == expected_of(each)
    assert dispatch.requests == 0
    assert [dispatch.shard_in_flight(shard) for shard in range(SHARDS)] == [(0, 0)] * SHARDS


def deliver_some(dispatch: Dispatch, waiting: list[tuple[bytes, list[opbatch.Reply]]], chance: random.Random) -> None:
    """Some entries of some batch, in any order."""
    at = chance.randrange(len(waiting))
    batch, replies = waiting[at]
    chance.shuffle(replies)
    count = chance.randint(1, len(replies))
    dispatch.deliver(encode(batch, replies[:count]))
    del replies[:count]
    if not replies:
        del waiting[at]


#: The beginnings of get, get_many, set_many, scan, ping, atomic and a set with options, and what each must not believe.
HEADS = [
    b"\x95\x01\x01\x00\x00",
    b"\x95\x01\x11\x00\x00",
    b"\x95\x01\x12\x00\x00",
    b"\x98\x01\x22\x00",
    b"\x94\x01\x24\x00",
    b"\x95\x01\x25\x00\x00",
    b"\x97\x01\x02\x00\x00\xa1k\xa0",
]
ENDS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xdc\xff\xff" + b"\xc4\x01a" * 7,
    b"\x91" * 5_000,
]


@pytest.mark.parametrize("head", HEADS, ids=["get", "get_many", "set_many", "scan", "ping", "atomic", "options"])
@pytest.mark.parametrize("end", ENDS, ids=["array32", "bin32", "str32", "array16", "nested"])
def test_counts_and_lengths_that_are_not_there_are_bad_requests_and_take_no_memory(head: bytes, end: bytes) -> None:
    dispatch = Dispatch(SHARDS, SEED)
    peer = Peer(dispatch)
    _, before = live_allocations()
    body = head + end
    peer.feed(wire.LENGTH.pack(len(body)) + body)
    assert [reply[:2] for reply in peer.replies()] == [[1, errors.BadRequest.code]]
    _, after = live_allocations()
    assert after - before < 1_000


def test_a_frame_that_is_announced_but_does_not_come_takes_no_memory() -> None:
    dispatch = Dispatch(SHARDS, SEED)
    peers = [Peer(dispatch) for _ in range(100)]
    _, before = live_allocations()
    for peer in peers:
        peer.feed(wire.LENGTH.pack(16 << 20) + b"\x95\x01")
    _, after = live_allocations()
    assert after - before < 100 * 64
    assert all(dispatch.has_half_frame(peer.id) for peer in peers)


@SETTINGS
@example(data=b"", mutation=0)
@given(data=st.binary(max_size=300), mutation=st.integers(0, 2**32))
def test_random_bytes_never_harm_another_connection(data: bytes, mutation: int) -> None:
    dispatch, shards = Dispatch(SHARDS, SEED), Shards(SHARDS)
    hostile, second, friend = Peer(dispatch), Peer(dispatch), Peer(dispatch)
    hostile.feed(data)
    # A valid stream with a few bytes changed gets further than noise does.
    valid: list[Request] = [(18, [0, [b"a", b"1", b"b", b"2"]]), (17, [0, [b"a"]]), (34, [0, b"", b"", 1, 0])]
    valid += [
        (2, [0, b"a", b"1", 33, 5_000, 1, 7]),
        (5, [0, b"a", -5]),
        (37, [0, [[5, b"{t}", 1], [2, b"{t}", b"", 64]]]),
    ]
    stream = bytearray(stream_of(valid) * 3)
    chance = random.Random(mutation)
    for _ in range(chance.randrange(6)):
        stream[chance.randrange(len(stream))] = chance.randrange(256)
    second.feed(bytes(stream))
    friend.send(1, wire.OP_SET, 200, b"k", b"v")
    friend.send(2, wire.OP_GET, 200, b"k")
    for event in dispatch.take_events():
        if isinstance(event, Asked):
            dispatch.answer(event.handle, msgpack.packb(None))
    turn(dispatch, shards)
    assert friend.replies() == [[1, 0, True], [2, 0, b"v"]]
    for peer in (hostile, second, friend):
        unpack(peer.output())
        dispatch.close(peer.id)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_a_hundred_thousand_mangled_streams_harm_nobody() -> None:
    chance = random.Random(1)
    dispatch, shards = Dispatch(SHARDS, SEED, value_bytes_max=1_000), Shards(SHARDS)
    friend = Peer(dispatch)
    whole = [
        frame(1, wire.OP_SET, 0, b"k", bytes(300)),
        frame(2, wire.OP_SET_MANY, 0, [b"a", b"1", "b", "2"] * 20),
        frame(3, wire.OP_GET_MANY, 0, [b"a" * 40] * 20, deadline_ms=1),
        frame(4, wire.OP_SCAN, 0, b"cursor", b"prefix", 10, 1),
        frame(2**40, wire.OP_COUNT, 255),
        frame(5, wire.OP_SET, 0, b"k", b"v", wire.EXPIRE_AT | wire.IF_VERSION | wire.WITH_OLD, 2**40, 1, 2**33),
        frame(6, wire.OP_INCR, 0, b"n", -(2**40)),
        frame(7, wire.OP_ATOMIC, 0, [[wire.OP_APPEND, b"{t}a", b"1"], [wire.OP_EXPIRE, b"{t}a", wire.TTL, 900]]),
    ]
    for round in range(100_000):
        hostile = Peer(dispatch)
        stream = bytearray(b"".join(chance.choices(whole, k=3)))
        for _ in range(chance.randrange(5)):
            stream[chance.randrange(len(stream))] = chance.choice([0, 1, 0x80, 0xC1, 0xDD, 0xFF, chance.randrange(256)])
        for piece in pieces(bytes(stream), [chance.randrange(1 << 20) for _ in range(3)]):
            hostile.feed(piece)
        for event in dispatch.take_events():
            if isinstance(event, Asked):
                dispatch.answer(event.handle, msgpack.packb(None))
        for _, batch in dispatch.take_batches():
            dispatch.deliver(shards.execute(batch))
        unpack(hostile.output())
        dispatch.close(hostile.id)
        if round % 100 == 0:
            dispatch.expire(hostile.now_ms + round)
            friend.send(round, wire.OP_SET, 200, b"mine", b"%d" % round)
            friend.send(round, wire.OP_GET, 200, b"mine")
            turn(dispatch, shards)
            assert friend.replies() == [[round, 0, True], [round, 0, b"%d" % round]]
    assert dispatch.requests == 0


@SETTINGS
@given(data=st.binary(max_size=200))
def test_random_bytes_before_the_hello_open_nothing(data: bytes) -> None:
    dispatch = Dispatch(SHARDS, SEED)
    peer = Peer(dispatch, greet=False)
    peer.feed(data + frame(1, wire.OP_SET, 0, b"k", b"v"))
    assert not any(isinstance(event, Asked) for event in dispatch.take_events())
    assert dispatch.take_batches() == []


@SETTINGS
@example(message="schlüssel €😀".encode())
@example(message=b"\xed\xa0\x80")
@example(message=b"\xc0\xaf")
@example(message=b"\xf4\x90\x80\x80")
@example(message=b"a\xe2\x82")
@given(message=st.one_of(st.binary(max_size=8), st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace"))))
def test_a_message_that_is_no_text_never_reaches_a_client(message: bytes) -> None:
    dispatch = Dispatch(1, SEED)
    peer = Peer(dispatch)
    peer.send(1, wire.OP_GET, 0, b"k")
    ((_, batch),) = dispatch.take_batches()
    dispatch.deliver(encode(batch, [opbatch.Reply(0, errors.Corrupt.code, message)]))
    try:
        text = message.decode() or errors.Corrupt.text
    except UnicodeDecodeError:
        text = errors.Corrupt.text
    assert peer.replies() == [[1, errors.Corrupt.code, text, False]]
