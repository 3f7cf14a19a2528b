from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio import wire
from kio.client import operations
from kio.client.protocol import BUFFER_BYTES, Protocol, Reply, Request
from kio.errors import (
    BadRequest,
    Draining,
    FrameTooLarge,
    InternalError,
    KioError,
    Overloaded,
    ProtocolError,
    ShardDown,
    Timeout,
)
from kio.limits import MIB

HELLO = {
    "protocol": wire.PROTOCOL_VERSION,
    "server": "test",
    "shards": 4,
    "frame_bytes_max": 1 << 20,
    "key_bytes_max": 65_535,
    "value_bytes_max": 1 << 19,
    "frame_keys_max": 1_000,
}


def feed(protocol: Protocol, data: bytes, cuts: list[int] | None = None) -> list[tuple[int, Reply]]:
    """The replies in `data`, received in pieces that end at `cuts`, or as large as the buffer takes."""
    replies = []
    for start, stop in pairwise([0, *sorted(cuts or []), len(data)]):
        while start < stop:
            room = protocol.buffer()
            count = min(len(room), stop - start)
            room[:count] = data[start : start + count]
            replies += protocol.received(count)
            start += count
    return replies


def greeted() -> Protocol:
    protocol = Protocol()
    protocol.hello()
    assert feed(protocol, wire.encode_frame([1, 0, HELLO])) == []
    assert protocol.is_greeted
    return protocol


def get_many(keys: int) -> Request:
    return Request(wire.OP_GET_MANY, (0, [b"k"] * keys), keys)


def test_the_hello_is_a_request_of_its_own_and_tells_the_limits() -> None:
    protocol = Protocol()
    frame = protocol.hello()
    assert msgpack.unpackb(frame[4:]) == [1, wire.OP_HELLO, 0, {"protocol": 2, "client": "kio-python"}]
    assert len(frame) - 4 == int.from_bytes(frame[:4], "big")
    feed(protocol, wire.encode_frame([1, 0, HELLO]))
    assert protocol.limits.shards == 4
    assert protocol.limits.frame_bytes_max == 1 << 20


def test_a_request_is_id_operation_deadline_and_arguments() -> None:
    id_, frame = greeted().send(Request(wire.OP_SET, (3, "key", b"value")), 1_500)
    assert msgpack.unpackb(frame[4:]) == [id_, wire.OP_SET, 1_500, 3, "key", b"value"]


VALUES = st.lists(st.none() | st.binary(max_size=300), max_size=20)


@given(st.lists(VALUES, max_size=8), st.data())
def test_replies_are_the_same_however_the_stream_is_cut(batches: list[list[Any]], data: st.DataObject) -> None:
    protocol = Protocol()
    protocol.hello()
    stream = wire.encode_frame([1, 0, HELLO])
    ids = [protocol.send(get_many(len(values)), 0)[0] for values in batches]
    for id_, values in zip(ids, batches, strict=True):
        stream += wire.encode_frame([id_, 0, values])
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    replies = feed(protocol, stream, cuts)
    assert [(id_, reply.result) for id_, reply in replies] == list(zip(ids, batches, strict=True))
    assert protocol.in_flight == 0


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_a_protocol_error_or_an_unfinished_frame(garbage: bytes, is_greeted: bool) -> None:
    protocol = greeted() if is_greeted else Protocol()
    protocol.send(get_many(1), 0)
    with suppress(ProtocolError):
        assert feed(protocol, garbage) == []


@given(st.integers(0), st.integers(0, 255))
def test_a_flipped_byte_gives_a_reply_of_the_right_shape_or_an_error(at: int, byte: int) -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(3), 0)
    stream = bytearray(wire.encode_frame([id_, 0, [b"one", None, b"three"]]))
    stream[at % len(stream)] = byte
    try:
        replies = feed(protocol, bytes(stream))
    except KioError:
        return
    for got, reply in replies:
        assert got == id_
        assert reply.error is not None or [type(value) in (bytes, type(None)) for value in reply.result] == [True] * 3


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"-ERR unknown command\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        wire.encode_frame({"not": "a list"}),
        wire.encode_frame([1]),
        wire.encode_frame([1, 0]),
        wire.encode_frame(["1", 0, None]),
        wire.encode_frame([2, 0, None]),
        wire.encode_frame([1, 0, "not a map"]),
        wire.encode_frame([1, 0, {}]),
        wire.encode_frame([1, 0, {**HELLO, "protocol": wire.PROTOCOL_VERSION + 1}]),
        wire.encode_frame([1, 0, {**HELLO, "protocol": 0}]),
        wire.encode_frame([1, 0, {**HELLO, "shards": "4"}]),
        wire.encode_frame([1, 0, {**HELLO, "server": 4}]),
        wire.encode_frame([1, 0, {**HELLO, "frame_bytes_max": True}]),
        wire.encode_frame([1, 64, "no common version", False]),
        wire.encode_frame([0, 64, "no common version", False]),
    ],
)
def test_what_is_not_an_answer_to_hello_is_a_protocol_error(stream: bytes) -> None:
    protocol = Protocol()
    protocol.hello()
    with pytest.raises(ProtocolError):
        feed(protocol, stream)


def test_a_daemon_may_refuse_the_hello_for_a_while() -> None:
    protocol = Protocol()
    protocol.hello()
    with pytest.raises(Overloaded):
        feed(protocol, wire.encode_frame([1, Overloaded.code, "too many connections", False]))


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        (Request(wire.OP_GET, (0, b"k")), "text"),
        (Request(wire.OP_GET, (0, b"k")), 1),
        (Request(wire.OP_SET, (0, b"k", b"v")), False),
        (Request(wire.OP_DELETE, (0, b"k")), None),
        (Request(wire.OP_EXISTS, (0, b"k")), 1),
        (get_many(2), [b"v"]),
        (get_many(2), None),
        (get_many(1), [1]),
        (get_many(1), ["text"]),
        (Request(wire.OP_SET_MANY, (0, [b"k", b"v"])), [1]),
        (Request(wire.OP_DELETE_MANY, (0, [b"k"])), [b""]),
        (Request(wire.OP_EXISTS_MANY, (0, [b"k"])), []),
        (Request(wire.OP_COUNT, (0,)), -1),
        (Request(wire.OP_COUNT, (0,)), True),
        (Request(wire.OP_CLEAR, (0,)), b""),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 0)), [b""]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 0)), [0, []]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 0)), [b"", ["text"]]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 1)), [b"", [b"key without value"]]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 2)), [b"", [b"key", b"value"]]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 2)), [b"", [b"key", b"value", None]]),
        (Request(wire.OP_SCAN, (0, b"", b"", 10, 2)), [b"", [b"key", 5, b"value"]]),
        (Request(wire.OP_GET, (0, b"k", wire.WITH_VERSION)), b"v"),
        (Request(wire.OP_GET, (0, b"k", wire.WITH_VERSION)), [b"v", 1, 2]),
        (Request(wire.OP_GET, (0, b"k", wire.WITH_VERSION)), [1, 2, 3]),
        (Request(wire.OP_GET, (0, b"k", wire.WITH_VERSION)), ["v", 1, 2, 3]),
        (Request(wire.OP_GET, (0, b"k")), [b"v", 1, 2, 3]),
        (Request(wire.OP_SET, (0, b"k", b"v", wire.WITH_OLD)), True),
        (Request(wire.OP_SET, (0, b"k", b"v", wire.WITH_VERSION)), True),
        (Request(wire.OP_SET, (0, b"k", b"v", wire.WITH_VERSION)), [1, -2, 3]),
        (Request(wire.OP_DELETE, (0, b"k", wire.WITH_VERSION)), True),
        (Request(wire.OP_INCR, (0, b"k", 1)), True),
        (Request(wire.OP_INCR, (0, b"k", 1)), b"1"),
        (Request(wire.OP_APPEND, (0, b"k", b"")), -1),
        (Request(wire.OP_EXPIRE, (0, b"k", wire.TTL, 1)), None),
        (Request(wire.OP_PERSIST, (0, b"k")), None),
        (Request(wire.OP_TTL, (0, b"k")), -2),
        (Request(wire.OP_TTL, (0, b"k")), 1.5),
        (operations.atomic(0, [Request(wire.OP_GET, (0, b"k"))]), []),
        (operations.atomic(0, [Request(wire.OP_GET, (0, b"k"))]), [True]),
        (operations.atomic(0, [Request(wire.OP_GET, (0, b"k"))]), None),
        (Request(wire.OP_STATS, ()), []),
        (Request(wire.OP_COMPACT, ()), -1),
        (Request(wire.OP_PING, (b"",)), None),
    ],
)
def test_a_result_of_the_wrong_shape_is_a_protocol_error(request_: Request, result: Any) -> None:
    protocol = greeted()
    id_, _ = protocol.send(request_, 0)
    with pytest.raises(ProtocolError, match="shape"):
        feed(protocol, wire.encode_frame([id_, 0, result]))


SET_IF = Request(wire.OP_SET, (0, b"k", b"v", wire.IF_ABSENT))


@pytest.mark.parametrize(
    ("request_", "there"),
    [
        (Request(wire.OP_SET, (0, b"k", b"v")), None),
        (Request(wire.OP_SET, (0, b"k", b"v", wire.TTL, 1)), None),
        (Request(wire.OP_GET, (0, b"k")), None),
        (SET_IF, [1, 2]),
        (SET_IF, [b"v", 1, 2, 3]),
        (SET_IF, True),
        (operations.atomic(0, [SET_IF]), None),
        (operations.atomic(0, [SET_IF]), [1, None]),
        (operations.atomic(0, [SET_IF]), [-1, None]),
        (operations.atomic(0, [SET_IF]), [True, None]),
        (operations.atomic(0, [Request(wire.OP_GET, (0, b"k"))]), [0, None]),
    ],
)
def test_a_request_that_cannot_go_unmet_so_makes_it_a_protocol_error(request_: Request, there: Any) -> None:
    protocol = greeted()
    id_, _ = protocol.send(request_, 0)
    with pytest.raises(ProtocolError, match="shape"):
        feed(protocol, wire.encode_frame([id_, wire.STATUS_UNMET, there]))


@pytest.mark.parametrize(
    "reply",
    [
        [15, None],
        [1, [None], [[0, 32, "", False]]],
        [1, [None, None], None],
        [1, [None, None], [[2, 32, "", False]]],
        [1, [None, None], [[-1, 32, "", False]]],
        [1, [None, None], [[0, 32, ""]]],
        [1, [None, None], [["0", 32, "", False]]],
        [True, "message", False],
        [0, [None, None], "more"],
    ],
)
def test_a_reply_of_the_wrong_form_is_a_protocol_error(reply: list[Any]) -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(2), 0)
    with pytest.raises(ProtocolError):
        feed(protocol, wire.encode_frame([id_, *reply]))


def test_a_partial_reply_names_the_keys_that_failed() -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(3), 0)
    errors = [[1, ShardDown.code, "shard 3 is away", False], [2, 99, "from the future", True]]
    ((_, reply),) = feed(protocol, wire.encode_frame([id_, 1, [b"v", None, None], errors]))
    assert reply.error is None
    assert reply.result == [b"v", None, None]
    (first, down), (second, unknown) = reply.failures
    assert (first, type(down), str(down)) == (1, ShardDown, "shard 3 is away")
    assert (second, type(unknown), unknown.maybe_applied) == (2, InternalError, True)


def test_an_error_reply_is_the_error_of_its_code() -> None:
    protocol = greeted()
    ids = [protocol.send(Request(wire.OP_SET, (0, b"k", b"v")), 0)[0] for _ in range(2)]
    stream = wire.encode_frame([ids[0], Timeout.code, "", True]) + wire.encode_frame([ids[1], 20, "bad", False])
    (_, late), (_, bad) = feed(protocol, stream)
    assert isinstance(late.error, Timeout)
    assert late.error.maybe_applied
    assert isinstance(bad.error, BadRequest)
    assert str(bad.error) == "bad"


@pytest.mark.parametrize("parts", [[32, 5, False], [32, "message", 1], [32, "message"]])
def test_an_error_that_is_not_one_is_a_protocol_error_of_that_request(parts: list[Any]) -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(1), 0)
    ((_, reply),) = feed(protocol, wire.encode_frame([id_, *parts]))
    assert isinstance(reply.error, ProtocolError)


def test_an_error_with_id_0_is_about_the_connection() -> None:
    protocol = greeted()
    protocol.send(get_many(1), 0)
    with pytest.raises(Draining, match="going down"):
        feed(protocol, wire.encode_frame([0, Draining.code, "going down", False]))


def test_a_reply_that_was_not_asked_for_is_a_protocol_error() -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(1), 0)
    with pytest.raises(ProtocolError, match="was not asked for"):
        feed(protocol, wire.encode_frame([id_ + 1, 0, [None]]))


def test_the_reply_to_a_forgotten_request_is_dropped_and_its_id_is_not_used_again() -> None:
    protocol = greeted()
    first, _ = protocol.send(get_many(1), 0)
    protocol.forget(first)
    second, _ = protocol.send(get_many(1), 0)
    assert protocol.in_flight == 2
    stream = wire.encode_frame([first, 0, [b"old"]]) + wire.encode_frame([second, 0, [b"new"]])
    ((id_, reply),) = feed(protocol, stream)
    assert (id_, reply.result) == (second, [b"new"])
    assert protocol.in_flight == 0


def test_a_frame_that_the_daemon_would_not_take_is_never_in_flight() -> None:
    protocol = greeted()
    with pytest.raises(FrameTooLarge):
        protocol.send(Request(wire.OP_SET, (0, b"k", bytes(1 << 20))), 0)
    assert protocol.in_flight == 0


def test_memory_grows_with_what_came_not_with_what_was_announced() -> None:
    protocol = greeted()
    protocol.send(get_many(1), 0)
    feed(protocol, (900 * MIB).to_bytes(4, "big") + bytes(1000))
    assert len(protocol.buffer()) <= BUFFER_BYTES


def test_the_buffer_shrinks_after_a_long_reply() -> None:
    protocol = greeted()
    id_, _ = protocol.send(get_many(1), 0)
    ((_, reply),) = feed(protocol, wire.encode_frame([id_, 0, [bytes(12 * MIB)]]))
    assert len(reply.result[0]) == 12 * MIB
    assert len(protocol.buffer()) == BUFFER_BYTES
