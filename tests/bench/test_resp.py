"""RESP as the generator speaks it: what it sends is what a server reads, and replies count however they are cut."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.bench.frames import Encoder, Tally
from kio.bench.keys import key_of
from kio.bench.plan import DELETE, EXPIRE, INCR, INSERT, READ, RMW, UPDATE, Plan
from kio.bench.resp import LINE_BYTES_MAX, RespGreeting, RespReplies, RespShape, command
from kio.errors import ConfigError, ConnectionLost, ProtocolError

URL = "redis://127.0.0.1"
ALL = bytes([READ, UPDATE, INSERT, RMW, DELETE, INCR, EXPIRE])


def encoder(**fields: object) -> tuple[Plan, Encoder]:
    plan = Plan(URL, **fields)  # type: ignore[arg-type]
    return plan, Encoder(plan, RespShape(plan))


def arguments_of(data: bytes) -> list[list[bytes]]:
    """The commands in `data`, read by the rules of the protocol."""
    commands = []
    while data:
        head, _, data = data.partition(b"\r\n")
        assert head[:1] == b"*"
        arguments = []
        for _ in range(int(head[1:])):
            head, _, data = data.partition(b"\r\n")
            assert head[:1] == b"$"
            length = int(head[1:])
            arguments.append(data[:length])
            assert data[length : length + 2] == b"\r\n"
            data = data[length + 2 :]
        commands.append(arguments)
    return commands


@pytest.mark.parametrize("key_bytes", ["18", "18-30"])
@pytest.mark.parametrize("value_bytes", ["7", "7-9"])
@pytest.mark.parametrize("prefix", ["bench:", "100%d%%:"])
def test_every_kind_of_operation_is_the_command_it_should_be(key_bytes: str, value_bytes: str, prefix: str) -> None:
    plan, encode = encoder(key_bytes=key_bytes, value_bytes=value_bytes, prefix=prefix, ttl_s=2.5, pipeline=7)
    ids = array("Q", range(100, 107))
    sizes = array("I", [7] * 7)
    read, update, insert, rmw, delete, incr, expire = arguments_of(encode(ALL, ids, sizes, 0))
    keys = [key_of(plan)(id) for id in ids]
    value = update[2]
    assert read == [b"GET", keys[0]]
    assert update == [b"SET", keys[1], value]
    assert insert == [b"SET", keys[2], value]
    assert rmw == [b"GET", keys[3]]
    assert delete == [b"DEL", keys[4]]
    assert incr == [b"INCR", keys[5] + b"#"]
    assert expire == [b"SET", keys[6], value, b"PX", b"2500"]
    assert len(value) == 7


@pytest.mark.parametrize("value_bytes", ["7", "7-9"])
def test_a_batch_is_one_command_with_all_its_keys(value_bytes: str) -> None:
    plan, encode = encoder(value_bytes=value_bytes, batch=3, pipeline=2)
    data = encode(bytes([READ] * 3 + [UPDATE] * 3), array("Q", range(6)), array("I", [8] * 6), 0)
    keys = [key_of(plan)(id) for id in range(6)]
    mget, mset = arguments_of(data)
    assert mget == [b"MGET", *keys[:3]]
    assert mset[0] == b"MSET"
    assert mset[1::2] == keys[3:]
    assert {len(value) for value in mset[2::2]} == {7 if value_bytes == "7" else 8}


def test_sizes_that_are_distributed_are_those_of_the_operations() -> None:
    _, encode = encoder(value_bytes="1-5000", pipeline=3)
    data = encode(bytes([UPDATE] * 3), array("Q", range(3)), array("I", [1, 5000, 17]), 0)
    assert [len(value) for _, _, value in arguments_of(data)] == [1, 5000, 17]


def test_values_are_the_same_for_the_same_seed_only_and_do_not_compress_away() -> None:
    import zlib

    def value(seed: int) -> bytes:
        _, encode = encoder(value_bytes="4000", seed=seed)
        return arguments_of(encode(bytes([UPDATE]), array("Q", [1]), array("I", [4000]), 0))[0][2]

    assert value(1) == value(1) != value(2)
    assert len(zlib.compress(value(1), 9)) > 2900


#: Replies, and what each is: outcome, missing, errors.
REPLIES: list[tuple[bytes, bytes, int, dict[str, int]]] = [
    (b"+OK\r\n", b"\0", 0, {}),
    (b":12\r\n", b"\0", 0, {}),
    (b"$5\r\nab\r\nc\r\n", b"\0", 0, {}),
    (b"$0\r\n\r\n", b"\0", 0, {}),
    (b"$-1\r\n", b"\0", 1, {}),
    (b"*2\r\n$1\r\na\r\n$-1\r\n", b"\0", 1, {}),
    (b"*0\r\n", b"\0", 0, {}),
    (b"*-1\r\n", b"\0", 1, {}),
    (b"*3\r\n*2\r\n:1\r\n:2\r\n*0\r\n$2\r\n\r\n\r\n", b"\0", 0, {}),
    (b"-ERR no\r\n", b"\1", 0, {"ERR": 1}),
    (b"-OOM command not allowed\r\n", b"\1", 0, {"OOM": 1}),
    (b"*2\r\n-WRONGTYPE a\r\n:1\r\n", b"\0", 0, {"WRONGTYPE": 1}),
]


def parsed(pieces: list[bytes], batch: int = 1) -> tuple[bytes, Tally]:
    tally = Tally()
    replies = RespReplies(tally, batch)
    outcomes = b""
    for piece in pieces:
        outcomes += replies.take(piece) if piece else b""
        if replies.error is not None:
            raise replies.error
    return outcomes, tally


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: repr(reply[0]))
def test_a_reply_is_understood_whole_and_split_at_every_byte(reply: tuple[bytes, bytes, int, dict[str, int]]) -> None:
    data, outcomes, missing, errors = reply
    for cut in range(len(data)):
        got, tally = parsed([piece for piece in (data[:cut], data[cut:]) if piece])
        assert (got, tally.missing, tally.errors) == (outcomes, missing, errors), cut
    got, tally = parsed([data[i : i + 1] for i in range(len(data))])
    assert (got, tally.missing, tally.errors) == (outcomes, missing, errors)


@given(
    st.lists(st.tuples(st.sampled_from(REPLIES), st.integers(1, 6)), min_size=1, max_size=20),
    st.lists(st.integers(1, 60), max_size=40),
)
def test_a_stream_of_replies_counts_the_same_however_it_is_cut(
    runs: list[tuple[tuple[bytes, bytes, int, dict[str, int]], int]], cuts: list[int]
) -> None:
    replies = [reply for reply, times in runs for _ in range(times)]
    data = b"".join(reply[0] for reply in replies)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    pieces = [piece for piece in (*pieces, data[at:]) if piece]
    outcomes, tally = parsed(pieces)
    assert outcomes == b"".join(reply[1] for reply in replies)
    assert tally.missing == sum(reply[2] for reply in replies)
    assert tally.failed == sum(sum(reply[3].values()) for reply in replies)


def test_a_value_that_looks_like_replies_is_a_value() -> None:
    value = b"+OK\r\n-ERR x\r\n$5\r\n" * 3
    reply = b"$%d\r\n%b\r\n" % (len(value), value)
    outcomes, tally = parsed([reply * 5])
    assert outcomes == b"\0" * 5
    assert tally.failed == 0


@pytest.mark.parametrize("last", [b"$5\r\nabcdefg\r\n", b"$6\r\nabcde\r\n+"])
def test_a_run_of_values_ends_before_one_that_is_not_as_long_as_it_says(last: bytes) -> None:
    replies = RespReplies(Tally(), 1)
    outcomes = replies.take(b"$5\r\nabcde\r\n" * 9 + last)
    assert (outcomes, str(replies.error)) == (b"\0" * 9, "a reply's value does not end where it should")


def test_a_command_of_many_keys_that_fails_fails_for_all_of_them() -> None:
    outcomes, tally = parsed([b"-OOM full\r\n"], batch=8)
    assert outcomes == b"\1"
    assert tally.errors == {"OOM": 8}
    assert tally.failed == 8


def test_a_large_value_is_skipped_without_being_kept() -> None:
    replies = RespReplies(Tally(), 1)
    assert replies.take(b"$1048576\r\n") == b""
    piece = b"x" * 65536
    for _ in range(16):
        assert replies.take(piece) == b""
        assert len(replies._rest) == 0
    assert replies.take(b"\r\n+OK\r\n") == b"\0\0"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\0\0\0\7",
        b"$x\r\n",
        b"$-2\r\n",
        b"$99999999999\r\n",
        b"*-5\r\n",
        b"$2\r\nabcd",
        b"+" + b"x" * (LINE_BYTES_MAX + 1),
    ],
)
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed([b"+OK\r\n" + data])


def test_a_split_value_without_its_end_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        parsed([b"$2\r\na", b"bxx+OK\r\n"])


def greeting(password: str | None = None, user: str | None = None, database: int = 0) -> RespGreeting:
    return RespGreeting("host:1", user, password, database)


def test_a_greeting_says_who_asks_and_for_which_database() -> None:
    assert greeting().opening == command(b"PING")
    commands = arguments_of(greeting("secret", "ann", 3).opening)
    assert commands == [[b"AUTH", b"ann", b"secret"], [b"SELECT", b"3"], [b"PING"]]
    assert arguments_of(greeting("secret").opening)[0] == [b"AUTH", b"secret"]


def test_a_greeting_is_over_when_every_command_of_it_was_answered() -> None:
    met = greeting("secret")
    assert [met.take(bytes([byte])) for byte in b"+OK\r\n+PONG\r\n"] == [False] * 11 + [True]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"-NOAUTH Authentication required.\r\n", ConfigError, "wants a password"),
        (b"-WRONGPASS invalid\r\n", ConfigError, "refused the connection: WRONGPASS"),
        (b"-LOADING Redis is loading\r\n", ConnectionLost, "takes no commands now"),
        (b"-ERR max number of clients reached\r\n", ConnectionLost, "takes no more connections"),
        (b"HTTP/1.1 400 Bad Request\r\n", ConfigError, "host:1 does not speak RESP: it answered 'HTTP"),
        (b"\0\0\0\x2a\x94\0", ConfigError, "speaks kio's protocol, not RESP: did you mean kio://"),
        (b"220 mail.example.org", ConfigError, "does not speak RESP"),
    ],
)
def test_a_greeting_that_goes_wrong_says_what_is_wrong(answer: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        greeting().take(answer)


def test_what_came_before_garbage_counts_and_what_was_cut_off_by_it_does_not() -> None:
    tally = Tally()
    replies = RespReplies(tally, 3)
    assert replies.take(b"+OK\r\n-OOM full\r\n*3\r\n$-1\r\n-ERR x\r\nHTTP/1.1\r\n") == b"\0\1"
    assert isinstance(replies.error, ProtocolError)
    assert tally.errors == {"OOM": 3}
    assert (tally.failed, tally.missing) == (3, 0)
