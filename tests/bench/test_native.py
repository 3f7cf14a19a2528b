"""kio's protocol as the generator speaks it: frames that the daemon's own rules accept, replies cut anywhere."""

from __future__ import annotations

from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio import wire
from kio.bench.frames import Encoder, Tally
from kio.bench.keys import key_of
from kio.bench.native import NativeGreeting, NativeReplies, NativeShape
from kio.bench.plan import DELETE, EXPIRE, INCR, INSERT, READ, RMW, UPDATE, Plan
from kio.errors import ConfigError, ConnectionLost, Overloaded, ProtocolError

URL = "kio://127.0.0.1"
ALL = bytes([READ, UPDATE, INSERT, RMW, DELETE, INCR, EXPIRE])


def encoder(**fields: object) -> tuple[Plan, Encoder]:
    plan = Plan(URL, **fields)  # type: ignore[arg-type]
    return plan, Encoder(plan, NativeShape(plan))


def messages_of(data: bytes) -> list[Any]:
    messages = []
    while data:
        (length,) = wire.LENGTH.unpack_from(data)
        messages.append(msgpack.unpackb(data[4 : 4 + length]))
        data = data[4 + length :]
    return messages


@pytest.mark.parametrize("key_bytes", ["18", "37", "300", "18-30"])
@pytest.mark.parametrize("value_bytes", ["37", "1-9", "300", "70000"])
def test_every_kind_of_operation_is_the_frame_it_should_be(key_bytes: str, value_bytes: str) -> None:
    plan, encode = encoder(key_bytes=key_bytes, value_bytes=value_bytes, prefix="5%d%:", pipeline=7, ttl_s=1.5)
    size = int(value_bytes.partition("-")[0])
    data = encode(ALL, array("Q", range(7)), array("I", [size] * 7), 0)
    keys = [key_of(plan)(id) for id in range(7)]
    messages = messages_of(data)
    value = messages[1][5]
    assert messages == [
        [1, wire.OP_GET, 0, 0, keys[0]],
        [2, wire.OP_SET, 0, 0, keys[1], value],
        [3, wire.OP_SET, 0, 0, keys[2], value],
        [4, wire.OP_GET, 0, 0, keys[3]],
        [5, wire.OP_DELETE, 0, 0, keys[4]],
        [6, wire.OP_INCR, 0, 0, keys[5] + b"#", 1],
        [7, wire.OP_SET, 0, 0, keys[6], value, wire.TTL, 1500],
    ]
    assert len(value) == size


@pytest.mark.parametrize("value_bytes", ["5", "5-9"])
@pytest.mark.parametrize("batch", [3, 20, 33_000])
def test_a_batch_is_one_frame_with_all_its_keys(value_bytes: str, batch: int) -> None:
    plan, encode = encoder(value_bytes=value_bytes, batch=batch, pipeline=2)
    kinds = bytes([READ] * batch + [UPDATE] * batch)
    sizes = array("I", [5]) * (2 * batch)
    get_many, set_many = messages_of(encode(kinds, array("Q", range(2 * batch)), sizes, 0))
    keys = [key_of(plan)(id) for id in range(2 * batch)]
    assert get_many == [1, wire.OP_GET_MANY, 0, 0, keys[:batch]]
    assert set_many[:4] == [2, wire.OP_SET_MANY, 0, 0]
    assert set_many[4][::2] == keys[batch:]


@pytest.mark.parametrize("value_bytes", ["5", "5-9"])
def test_no_two_outstanding_commands_of_a_connection_have_the_same_id(value_bytes: str) -> None:
    _, encode = encoder(value_bytes=value_bytes, pipeline=100, depth=3)
    ids = array("Q", range(100))
    sizes = array("I", [5]) * 100
    used = [message[0] for slot in range(3) for message in messages_of(encode(bytes(100), ids, sizes, slot))]
    assert sorted(used) == list(range(1, 301))


def frame(*message: Any) -> bytes:
    return wire.encode_frame(list(message))


#: Replies, and what each is: outcome, missing, errors.
SINGLE: list[tuple[bytes, bytes, int, dict[str, int]]] = [
    (frame(1, 0, b"x" * 100), b"\0", 0, {}),
    (frame(1, 0, b"y" * 70000), b"\0", 0, {}),
    (frame(300, 0, b""), b"\0", 0, {}),
    (frame(70000, 0, True), b"\0", 0, {}),
    (frame(127, 0, None), b"\0", 1, {}),
    (frame(128, 0, None), b"\0", 1, {}),
    (frame(7, 33, "full", False), b"\1", 0, {"Overloaded": 1}),
    (frame(200, 32, "", True), b"\1", 0, {"ShardDown": 1}),
    (frame(200, 999, "", True), b"\1", 0, {"code 999": 1}),
]
MANY: list[tuple[bytes, bytes, int, dict[str, int]]] = [
    (frame(1, 0, [b"a", None, b"c", None]), b"\0", 2, {}),
    (frame(1, 0, [True, True, True, True]), b"\0", 0, {}),
    (
        frame(1, 1, [b"a", None, None, None], [[1, 32, "", False], [3, 50, "", True]]),
        b"\0",
        1,
        {"ShardDown": 1, "DiskFull": 1},
    ),
    (frame(9, 19, "", False), b"\1", 0, {"FrameTooLarge": 4}),
]


def parsed(pieces: list[bytes], batch: int = 1) -> tuple[bytes, Tally]:
    tally = Tally()
    replies = NativeReplies(tally, batch)
    outcomes = b""
    for piece in pieces:
        outcomes += replies.take(piece) if piece else b""
        if replies.error is not None:
            raise replies.error
    return outcomes, tally


@pytest.mark.parametrize(("batch", "replies"), [(1, SINGLE), (4, MANY)])
def test_a_reply_is_understood_whole_and_split_at_every_byte(
    batch: int, replies: list[tuple[bytes, bytes, int, dict[str, int]]]
) -> None:
    for data, outcomes, missing, errors in replies:
        for cut in range(min(len(data), 60)):
            got, tally = parsed([data[:cut], data[cut:]], batch)
            assert (got, tally.missing, tally.errors) == (outcomes, missing, errors), cut
        got, tally = parsed([data[i : i + 1] for i in range(len(data))], batch)
        assert (got, tally.missing, tally.errors) == (outcomes, missing, errors)


@given(st.lists(st.sampled_from(SINGLE), min_size=1, max_size=20), st.lists(st.integers(1, 300), max_size=30))
def test_a_stream_of_replies_counts_the_same_however_it_is_cut(
    replies: list[tuple[bytes, bytes, int, dict[str, int]]], cuts: list[int]
) -> None:
    data = b"".join(reply[0] for reply in replies)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    outcomes, tally = parsed([*pieces, data[at:]])
    assert outcomes == b"".join(reply[1] for reply in replies)
    assert tally.missing == sum(reply[2] for reply in replies)
    assert tally.failed == sum(sum(reply[3].values()) for reply in replies)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"+PONG\r\n",
        b"\0\0\0\2\x92\1",
        b"\0\0\0\3\xc1\xc1\xc1",
        b"\0\0\0\4\x93\xff\1\1",
        frame(1, 1, [None], [3]),
        frame(1, 1, [None]),
        frame(1, 0),
    ],
)
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed([frame(1, 0, True) + data])


def test_what_the_daemon_says_about_the_whole_connection_ends_it() -> None:
    with pytest.raises(Overloaded, match="no room"):
        parsed([frame(0, Overloaded.code, "no room for another connection", False)])


def test_a_greeting_is_over_when_the_hello_is_answered() -> None:
    met = NativeGreeting("host:1")
    (hello,) = messages_of(met.opening)
    assert hello[1:3] == [wire.OP_HELLO, 0]
    assert hello[3]["protocol"] == wire.PROTOCOL_VERSION
    answer = frame(hello[0], 0, {"protocol": 1, "server": "x"})
    assert [met.take(bytes([byte])) for byte in answer] == [False] * (len(answer) - 1) + [True]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"-ERR unknown command\r\n", ConfigError, r"host:1 does not speak kio's protocol: did you mean redis://\?"),
        (b"HTTP/1.1 400 Bad Request\r\n", ConfigError, "does not speak kio's protocol: it answered"),
        (frame(0, Overloaded.code, "no room", False), ConnectionLost, "refused the connection: no room"),
        (frame(1, ProtocolError.code, "version 9", False), ConnectionLost, "refused the connection: version 9"),
    ],
)
def test_a_greeting_that_goes_wrong_says_what_is_wrong(answer: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        NativeGreeting("host:1").take(answer)


def test_what_came_before_garbage_counts() -> None:
    tally = Tally()
    replies = NativeReplies(tally, 1)
    assert replies.take(frame(1, 0, True) + frame(2, 33, "full", False) + b"HTTP/1.1") == b"\0\1"
    assert isinstance(replies.error, ProtocolError)
    assert tally.errors == {"Overloaded": 1}
