"""Dispatch: what a request is answered with, and the limits on its edge."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from kio import errors, hashing, limits, opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Dropped, Gathered, Refused
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import HELLO, SEED, Peer, frame, turn

SHARDS = 3


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch(SHARDS, SEED, value_bytes_max=1_000)


@pytest.fixture
def shards() -> Shards:
    return Shards(SHARDS)


def ask(dispatch: Dispatch, shards: Shards, peer: Peer, op: int, *arguments: Any) -> list[Any]:
    """The reply to one request, without its id."""
    peer.send(7, op, *arguments)
    turn(dispatch, shards)
    ((id, *rest),) = peer.replies()
    assert id == 7
    return rest


def test_single_operations_are_answered_as_the_protocol_says(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"k") == [0, None]
    assert ask(dispatch, shards, peer, wire.OP_EXISTS, 0, b"k") == [0, False]
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, b"k", b"v") == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"k") == [0, b"v"]
    assert ask(dispatch, shards, peer, wire.OP_GET, 1, b"k") == [0, None]
    assert ask(dispatch, shards, peer, wire.OP_EXISTS, 0, b"k") == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_DELETE, 0, b"k") == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_DELETE, 0, b"k") == [0, False]
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, b"empty", b"") == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"empty") == [0, b""]


def test_batch_operations_cross_all_shards_and_keep_the_order_of_the_keys(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    keys = [b"key %d" % i for i in range(500)]
    pairs = [part for key in keys for part in (key, b"value of " + key)]
    assert ask(dispatch, shards, peer, wire.OP_SET_MANY, 0, pairs) == [0, [True] * 500]
    assert all(shards.keys)
    mixed = [*keys[::2], b"absent", *keys[1::2]]
    expected = [None if key == b"absent" else b"value of " + key for key in mixed]
    assert ask(dispatch, shards, peer, wire.OP_GET_MANY, 0, mixed) == [0, expected]
    assert ask(dispatch, shards, peer, wire.OP_EXISTS_MANY, 0, [b"absent", keys[0]]) == [0, [False, True]]
    assert ask(dispatch, shards, peer, wire.OP_DELETE_MANY, 0, [keys[0], b"absent"]) == [0, [True, False]]
    assert ask(dispatch, shards, peer, wire.OP_GET_MANY, 0, [keys[0]]) == [0, [None]]


def test_a_batch_of_nothing_has_an_empty_result(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    assert ask(dispatch, shards, peer, wire.OP_GET_MANY, 0, []) == [0, []]
    assert ask(dispatch, shards, peer, wire.OP_SET_MANY, 0, []) == [0, []]


def test_the_last_set_of_a_key_within_a_batch_wins(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    assert ask(dispatch, shards, peer, wire.OP_SET_MANY, 0, [b"k", b"1", b"k", b"2"]) == [0, [True, True]]
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"k") == [0, b"2"]


def test_str_and_bin_are_the_same_bytes(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, "schlüssel", "wert") == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, "schlüssel".encode()) == [0, b"wert"]


def test_operations_carry_hash_keyspace_and_deadline_and_go_to_the_shard_of_the_hash() -> None:
    dispatch = Dispatch(8, SEED)
    peer = Peer(dispatch)
    peer.now_ms = 5_000_000_000
    keys = [b"a", b"{tag}x", b"{}", b"x" * 100, b"\x00\xff"]
    peer.send(1, wire.OP_GET_MANY, 3, keys, deadline_ms=250)
    found = {o.key: (shard, o) for shard, batch in dispatch.take_batches() for o in opbatch.decode_batch(batch)}
    assert set(found) == set(keys)
    for key, (shard, operation) in found.items():
        routed = hashing.routed_hash(key, SEED, 3)
        assert operation == opbatch.Operation(wire.OP_GET, key, b"", routed, 3, 5_000_000_250 % 2**32)
        assert shard == hashing.shard_of(routed, 8)


def test_no_deadline_is_0_and_a_deadline_that_wraps_to_0_is_not(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.now_ms = 2**32 - 5
    peer.send(1, wire.OP_GET, 0, b"k", deadline_ms=5)
    peer.send(2, wire.OP_GET, 0, b"k")
    ((_, batch),) = dispatch.take_batches()
    assert [o.deadline for o in opbatch.decode_batch(batch)] == [1, 0]


def test_keys_and_values_on_the_edge_of_their_limits() -> None:
    dispatch, shards = Dispatch(1, SEED), Shards(1)
    peer = Peer(dispatch)
    long, longer = b"k" * limits.KEY_BYTES_MAX, b"k" * (limits.KEY_BYTES_MAX + 1)
    large = bytes(limits.VALUE_BYTES_MAX)
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, long, large) == [0, True]
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, long) == [0, large]
    before = len(shards.operations)
    code = errors.ValueTooLarge.code
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, b"k", large + b"x") == [code, errors.ValueTooLarge.text, False]
    assert ask(dispatch, shards, peer, wire.OP_SET, 0, longer, b"")[0] == errors.KeyTooLarge.code
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"")[0] == errors.KeyEmpty.code
    assert len(shards.operations) == before
    assert ask(dispatch, shards, peer, wire.OP_EXISTS, 0, long) == [0, True]


def test_a_key_beyond_a_limit_fails_alone_within_its_batch(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    pairs = [b"a", b"1", b"", b"2", b"b", bytes(1_001), b"x" * 65_536, b"", b"c", b"3"]
    status, result, failed = ask(dispatch, shards, peer, wire.OP_SET_MANY, 0, pairs)
    assert (status, result) == (1, [True, None, None, None, True])
    assert failed == [
        [1, errors.KeyEmpty.code, errors.KeyEmpty.text, False],
        [2, errors.ValueTooLarge.code, errors.ValueTooLarge.text, False],
        [3, errors.KeyTooLarge.code, errors.KeyTooLarge.text, False],
    ]
    assert ask(dispatch, shards, peer, wire.OP_GET_MANY, 0, [b"a", b"b", b"c"]) == [0, [b"1", None, b"3"]]


def test_a_batch_has_at_most_frame_keys_max_keys(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    keys = [b"%d" % i for i in range(limits.FRAME_KEYS_MAX + 1)]
    assert ask(dispatch, shards, peer, wire.OP_EXISTS_MANY, 0, keys)[0] == errors.BadRequest.code
    assert shards.operations == []
    assert ask(dispatch, shards, peer, wire.OP_EXISTS_MANY, 0, keys[:-1]) == [0, [False] * limits.FRAME_KEYS_MAX]


def test_a_message_of_a_worker_stands_in_the_reply_of_its_key(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET_MANY, 0, [b"{t}a", b"", b"{t}b", b""])
    ((shard, batch),) = dispatch.take_batches()
    _, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    status = errors.DiskFull.code
    answers = [opbatch.Reply(0, opbatch.DONE, b""), opbatch.Reply(1, status | opbatch.MAYBE_APPLIED, b"no room")]
    dispatch.deliver(opbatch.encode_replies(shard, batch_id, answers))
    assert peer.replies() == [[1, 1, [True, None], [[1, status, "no room", True]]]]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [0],
        [0, b"k", b"surplus"],
        [b"k", 0],
        [256, b"k"],
        [-1, b"k"],
        [0, None],
        [0, 5],
        [0, [b"k"]],
        [0.0, b"k"],
    ],
)
def test_wrong_arguments_are_a_bad_request_and_the_connection_lives(
    dispatch: Dispatch, shards: Shards, arguments: list[Any]
) -> None:
    peer = Peer(dispatch)
    code, text, maybe_applied = ask(dispatch, shards, peer, wire.OP_GET, *arguments)
    assert (code, text, maybe_applied) == (errors.BadRequest.code, errors.BadRequest.text, False)
    assert ask(dispatch, shards, peer, wire.OP_GET, 0, b"k") == [0, None]


@pytest.mark.parametrize("keys", [b"k", None, [b"a", 1], [b"a", [b"b"]], {b"a": 1}])
def test_a_malformed_batch_does_nothing_at_all(dispatch: Dispatch, shards: Shards, keys: Any) -> None:
    peer = Peer(dispatch)
    assert ask(dispatch, shards, peer, wire.OP_DELETE_MANY, 0, keys)[0] == errors.BadRequest.code
    assert ask(dispatch, shards, peer, wire.OP_SET_MANY, 0, [b"a", b"b", b"c"])[0] == errors.BadRequest.code
    assert shards.operations == []


def test_bytes_behind_the_array_are_a_bad_request(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    body = msgpack.packb([1, wire.OP_GET, 0, 0, b"k"]) + b"\xc0"
    peer.feed(wire.LENGTH.pack(len(body)) + body)
    assert [reply[:2] for reply in peer.replies()] == [[1, errors.BadRequest.code]]


def test_an_unknown_operation_is_told_so(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    for op in (10, 16, 21, 31, 40, 200, 2**40):
        assert ask(dispatch, shards, peer, op, 0, b"k")[0] == errors.UnknownOperation.code


@pytest.mark.parametrize(
    ("encoded", "id"),
    [
        (b"\x05", 5),
        (b"\xcc\x05", 5),
        (b"\xcd\x00\x05", 5),
        (b"\xce\x00\x00\x00\x05", 5),
        (b"\xcf" + bytes(7) + b"\x05", 5),
        (b"\xd0\x05", 5),
        (b"\xd1\x00\x05", 5),
        (b"\xd2\x00\x00\x00\x05", 5),
        (b"\xd3" + bytes(7) + b"\x05", 5),
        (b"\xcf\x7f" + b"\xff" * 7, 2**63 - 1),
    ],
)
def test_every_encoding_of_a_number_is_taken(dispatch: Dispatch, shards: Shards, encoded: bytes, id: int) -> None:
    peer = Peer(dispatch)
    body = b"\x95" + encoded + b"\x01\x00\x00\xc4\x01k"
    peer.feed(wire.LENGTH.pack(len(body)) + body)
    turn(dispatch, shards)
    assert peer.replies() == [[id, 0, None]]


@pytest.mark.parametrize(
    "encoded", [b"\xa1k", b"\xd9\x01k", b"\xda\x00\x01k", b"\xdb\x00\x00\x00\x01k", b"\xc4\x01k", b"\xc5\x00\x01k",
                b"\xc6\x00\x00\x00\x01k"],
)  # fmt: skip
@pytest.mark.parametrize("array", [b"\x95", b"\xdc\x00\x05", b"\xdd\x00\x00\x00\x05"])
def test_every_encoding_of_arrays_and_bytes_is_taken(
    dispatch: Dispatch, shards: Shards, array: bytes, encoded: bytes
) -> None:
    peer = Peer(dispatch)
    body = array + b"\x05\x01\x00\x00" + encoded
    peer.feed(wire.LENGTH.pack(len(body)) + body)
    turn(dispatch, shards)
    assert peer.replies() == [[5, 0, None]]


def test_a_frame_that_is_too_long_is_skipped_and_answered(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    length = limits.frame_bytes_max(1_000) + 1
    body = msgpack.packb([2**40, wire.OP_SET, 0, 0, b"k", bytes(length)])[:length]
    peer.send(1, wire.OP_GET, 0, b"a")
    for begin in range(0, length, 65_536):
        peer.feed((wire.LENGTH.pack(length) if begin == 0 else b"") + body[begin : begin + 65_536])
    peer.send(3, wire.OP_GET, 0, b"a")
    turn(dispatch, shards)
    replies = peer.replies()
    assert replies == [[1, 0, None], [2**40, errors.FrameTooLarge.code, errors.FrameTooLarge.text, False], [3, 0, None]]


@pytest.mark.parametrize(
    "data",
    [
        wire.LENGTH.pack(0),
        wire.LENGTH.pack(1) + b"\xc0",
        wire.LENGTH.pack(5) + b"\x92\xa1x\x00\x00",
        wire.LENGTH.pack(2**31),
        wire.LENGTH.pack(limits.FRAME_SKIP_BYTES_MAX + 1),
        wire.LENGTH.pack(limits.frame_bytes_max(1_000) + 1) + bytes(40),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_the_protocol_is_answered_with_id_0_after_all_else_and_ends_the_connection(
    dispatch: Dispatch, shards: Shards, data: bytes
) -> None:
    peer = Peer(dispatch)
    peer.feed(frame(5, wire.OP_GET, 0, b"k") + data + frame(6, wire.OP_SET, 0, b"k", b"v"))
    peer.send(7, wire.OP_SET, 0, b"k", b"v")
    (event,) = peer.take_events()
    assert isinstance(event, Refused)
    assert not dispatch.is_finished(peer.id)
    turn(dispatch, shards)
    first, last = peer.replies()
    assert first == [5, 0, None]
    assert (last[0], last[1], last[3]) == (0, errors.ProtocolError.code, False)
    assert dispatch.is_finished(peer.id)
    assert shards.keys == [{}] * SHARDS


@pytest.mark.parametrize("data", [frame(1, wire.OP_GET, 0, b"k"), wire.LENGTH.pack(limits.HELLO_BYTES_MAX + 1),
                                  frame(1, wire.OP_HELLO), b"POST"])  # fmt: skip
def test_before_the_hello_nothing_else_is_taken(dispatch: Dispatch, data: bytes) -> None:
    peer = Peer(dispatch, greet=False)
    peer.feed(data)
    (event,) = peer.take_events()
    assert isinstance(event, Refused)
    assert [reply[:2] for reply in peer.replies()] == [[0, errors.ProtocolError.code]]
    assert dispatch.is_finished(peer.id)


def test_requests_behind_a_hello_wait_for_its_answer(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch, greet=False)
    peer.feed(HELLO + frame(2, wire.OP_SET, 0, b"k", b"v"))
    assert dispatch.take_batches() == []
    assert dispatch.is_paused(peer.id)
    assert not dispatch.is_greeted(peer.id)
    peer.greet()
    assert dispatch.is_greeted(peer.id)
    assert dispatch.resume(1_000) == [peer.id]
    turn(dispatch, shards)
    assert peer.replies() == [[1, 0, "hello"], [2, 0, True]]


def test_a_refused_hello_ends_the_connection_and_what_follows_it_is_not_done(dispatch: Dispatch) -> None:
    peer = Peer(dispatch, greet=False)
    peer.feed(HELLO + frame(2, wire.OP_SET, 0, b"k", b"v"))
    (event,) = peer.take_events()
    assert isinstance(event, Asked)
    dispatch.fail(event.handle, errors.ProtocolError.code, "no such version")
    dispatch.resume(1_000)
    assert dispatch.take_batches() == []
    assert peer.replies() == [[1, errors.ProtocolError.code, "no such version", False]]
    assert dispatch.is_finished(peer.id)


def test_a_second_hello_is_a_bad_request(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.feed(HELLO)
    assert [reply[:2] for reply in peer.replies()] == [[1, errors.BadRequest.code]]


@pytest.mark.parametrize(
    ("op", "sent", "arguments"),
    [
        (wire.OP_COUNT, [9], (9,)),
        (wire.OP_CLEAR, [0], (0,)),
        (wire.OP_SCAN, [1, b"cursor", "pre", 10, 1], (1, b"cursor", b"pre", 10, 1)),
        (wire.OP_STATS, [], ()),
        (wire.OP_SEAL, [], ()),
        (wire.OP_COMPACT, [], ()),
        (wire.OP_PING, [b"payload"], (b"payload",)),
    ],
)
def test_rare_operations_surface_as_events_and_keep_their_place(
    dispatch: Dispatch, shards: Shards, op: int, sent: list[Any], arguments: tuple[Any, ...]
) -> None:
    peer = Peer(dispatch)
    peer.send(1, op, *sent)
    peer.send(2, wire.OP_GET, 0, b"k")
    turn_events = peer.take_events()
    turn(dispatch, shards)
    assert peer.replies() == []
    assert [(type(e), e.op, e.arguments) for e in turn_events if isinstance(e, Asked)] == [(Asked, op, arguments)]
    dispatch.answer(turn_events[0].handle, msgpack.packb({"a": 1}))  # type: ignore[union-attr]
    assert peer.replies() == [[1, 0, {"a": 1}], [2, 0, None]]


@pytest.mark.parametrize(
    ("op", "sent"),
    [
        (wire.OP_COUNT, []),
        (wire.OP_COUNT, [0, 0]),
        (wire.OP_CLEAR, [b"x"]),
        (wire.OP_SCAN, [0, b"", b"", 10]),
        (wire.OP_SCAN, [0, None, b"", 10, 0]),
        (wire.OP_STATS, [1]),
        (wire.OP_SEAL, [0]),
        (wire.OP_COMPACT, [0]),
        (wire.OP_PING, [7]),
        (wire.OP_PING, [bytes(200_000)]),
    ],
)
def test_rare_operations_with_wrong_arguments_are_bad_requests(dispatch: Dispatch, op: int, sent: list[Any]) -> None:
    peer = Peer(dispatch)
    peer.send(1, op, *sent)
    assert peer.take_events() == []
    assert [reply[:2] for reply in peer.replies()] == [[1, errors.BadRequest.code]]


def test_a_fan_out_gathers_what_every_shard_answers(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET_MANY, 4, [b"%d" % (i // 2) for i in range(40)])
    turn(dispatch, shards)
    assert peer.replies() == [[1, 0, [True] * 20]]
    peer.send(2, wire.OP_COUNT, 4)
    (asked,) = peer.take_events()
    assert isinstance(asked, Asked)
    dispatch.fan_out(asked.handle, wire.OP_COUNT, [2, 0, 1], b"", 4)
    turn(dispatch, shards)
    (gathered,) = peer.take_events()
    assert isinstance(gathered, Gathered)
    assert gathered.handle == asked.handle
    counts = [int.from_bytes(payload, "little") for status, payload in gathered.replies if status == opbatch.NUMBER]
    assert counts == [len(shards.keys[shard]) for shard in (2, 0, 1)]
    dispatch.fail(asked.handle, errors.Corrupt.code, "shard 1: broken", maybe_applied=True)
    assert peer.replies() == [[2, errors.Corrupt.code, "shard 1: broken", True]]


def test_a_rare_request_of_a_closed_connection_is_dropped(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    peer.send(2, wire.OP_COUNT, 0)
    (asked,) = dispatch.take_events()
    assert isinstance(asked, Asked)
    dispatch.fan_out(asked.handle, wire.OP_COUNT, [0, 1])
    dispatch.close(peer.id)
    turn(dispatch, shards)
    assert dispatch.take_events() == [Dropped(asked.handle)]
    dispatch.answer(asked.handle, b"\x00")
    dispatch.fail(asked.handle, 66)
    dispatch.fan_out(asked.handle, wire.OP_COUNT, [0])
    assert dispatch.take_batches() == []


def test_while_draining_every_new_request_is_told_so_and_old_ones_are_answered(
    dispatch: Dispatch, shards: Shards
) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_SET, 0, b"k", b"v")
    dispatch.draining = True
    peer.send(2, wire.OP_GET_MANY, 0, [b"k"])
    peer.send(3, wire.OP_STATS)
    turn(dispatch, shards)
    drained = [errors.Draining.code, errors.Draining.text, False]
    assert peer.replies() == [[1, 0, True], [2, *drained], [3, *drained]]


def test_counters_tell_requests_errors_and_bytes(dispatch: Dispatch, shards: Shards) -> None:
    peer = Peer(dispatch)
    sent = frame(1, wire.OP_GET, 0, b"k") + frame(2, wire.OP_GET_MANY, 0, [b"", b""]) + frame(3, 99)
    peer.feed(sent)
    turn(dispatch, shards)
    received = len(peer.output())
    counters = dispatch.counters()
    assert counters["per_op"] == {wire.OP_HELLO: 1, wire.OP_GET: 1, wire.OP_GET_MANY: 1, 63: 1}
    assert counters["errors"] == {errors.KeyEmpty.code: 2, errors.UnknownOperation.code: 1}
    assert counters["bytes_in"] == len(HELLO) + len(sent)
    assert counters["bytes_out"] == received + len(wire.encode_frame([1, 0, "hello"]))
    assert dispatch.requests == 0
