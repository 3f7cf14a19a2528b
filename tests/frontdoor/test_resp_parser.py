"""RESP as it comes in: cut anywhere, beyond every limit, broken, and what is left in memory."""

from __future__ import annotations

import gc

import pytest

from kio import errors
from kio.frontdoor._dispatch import live_allocations
from tests.frontdoor.resp_peer import OK, RespDoor, RespPeer, bulk, command

VALUE_MAX = 2_000
#: What a dropped argument is answered with.
TOO_LONG = b"-ERR string exceeds maximum allowed size (max_value_bytes)\r\n"
TOO_LARGE = b"-ERR " + errors.FrameTooLarge.text.encode() + b"\r\n"
OVERLOADED = b"-BUSY " + errors.Overloaded.text.encode() + b"\r\n"

#: Commands, and their replies in a door that has seen nothing before.
STREAM = (
    (command(b"SET", b"k", b"v"), OK),
    (command(b"set", b"bin", bytes(range(256))), OK),
    (command(b"GET", b"bin"), bulk(bytes(range(256)))),
    (b"\r\n", b""),
    (b"*0\r\n", b""),
    (b"*-1\r\n", b""),
    (b"\n", b""),
    (b"SET \"a b\" 'it\\'s'\r\n", OK),
    (b'GET "a\\x20b"\n', bulk(b"it's")),
    (command(b"MGET", b"k", b"none", b"a b"), b"*3\r\n$1\r\nv\r\n$-1\r\n" + bulk(b"it's")),
    (command(b"SET", b"empty", b""), OK),
    (command(b"GET", b"empty"), bulk(b"")),
    (command(b"SET", b"k", bytes(VALUE_MAX + 1_025)), TOO_LONG),
    (command(b"SET", bytes(VALUE_MAX + 1_025), b"v", b"EX", b"10"), TOO_LONG),
    (command(b""), b"-ERR unknown command '', with args beginning with: \r\n"),
    (command(b"STRLEN", b"k"), b":1\r\n"),
    (command(b"RENAME", b"k", b"l"), OK),
    (b"   \r\n", b""),
    (b"PING\r\n", b"+PONG\r\n"),
)


def settled_allocations() -> tuple[int, int]:
    gc.collect()
    return live_allocations()


@pytest.fixture
def door() -> RespDoor:
    return RespDoor(value_bytes_max=VALUE_MAX)


@pytest.fixture
def peer(door: RespDoor) -> RespPeer:
    return door.peer()


# --- pieces


@pytest.mark.parametrize("number", range(len(STREAM)))
def test_a_command_cut_at_any_byte_is_answered_as_the_whole_one(number: int) -> None:
    before = b"".join(data for data, _ in STREAM[:number])
    data, reply = STREAM[number]
    after = command(b"ECHO", b"after")
    for at in range(len(data)) if len(data) < 400 else (*range(40), 1_000, *range(len(data) - 30, len(data))):
        door = RespDoor(value_bytes_max=VALUE_MAX)
        peer = door.peer()
        peer.feed(before)
        door.turn()
        peer.output()
        peer.feed(data[:at])
        door.turn()
        peer.feed(data[at:] + after)
        door.turn()
        assert peer.output() == reply + bulk(b"after"), at


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1_000])
def test_a_stream_in_pieces_of_any_size_is_answered_alike(peer: RespPeer, size: int) -> None:
    stream = b"".join(data for data, _ in STREAM)
    for at in range(0, len(stream), size):
        peer.feed(stream[at : at + size])
    peer.door.turn()
    assert peer.output() == b"".join(reply for _, reply in STREAM)
    assert not peer.dispatch.has_half_frame(peer.id)


def test_a_command_that_has_not_all_come_is_known_as_such(peer: RespPeer) -> None:
    peer.feed(b"*2\r\n$4\r\nECHO\r\n$3\r\n")
    assert peer.dispatch.has_half_frame(peer.id)
    peer.feed(b"abc\r\n")
    assert not peer.dispatch.has_half_frame(peer.id)
    peer.feed(b"*2\r\n$4\r\nECHO\r\n$9999\r\n123")
    assert peer.dispatch.has_half_frame(peer.id), "nor is a dropped one over"
    assert peer.output() == bulk(b"abc")


# --- what is no RESP


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"*1048577\r\n", b"invalid multibulk length"),
        (b"*\r\n", b"invalid multibulk length"),
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*01\r\n", b"invalid multibulk length"),
        (b"*-0\r\n", b"invalid multibulk length"),
        (b"*+1\r\n", b"invalid multibulk length"),
        (b"* 1\r\n", b"invalid multibulk length"),
        (b"*9999999999999999999999\r\n", b"invalid multibulk length"),
        (b"*" + b"1" * 64, b"too big mbulk count string"),
        (b"*1\r\n:1\r\n", b"expected '$'"),
        (b"*1\r\n\r\n", b"expected '$'"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
        (b"*1\r\n$\r\n", b"invalid bulk length"),
        (b"*1\r\n$1a\r\n", b"invalid bulk length"),
        (b"*1\r\n$" + b"1" * 64, b"too big bulk count string"),
        (b"*2\r\n$4\r\nECHO\r\n$-1\r\n", b"invalid bulk length"),
        (b"x" * 65_537, b"too big inline request"),
        (b"x" * 65_537 + b"\r\n", b"too big inline request"),
        (b'SET k "v\r\n', b"unbalanced quotes in request"),
        (b"SET k 'v\r\n", b"unbalanced quotes in request"),
        (b'SET k "v"x\r\n', b"unbalanced quotes in request"),
        (b"GET / HTTP/1.1\r\n", b"this is HTTP"),
    ],
)
def test_what_is_no_resp_is_told_and_the_connection_ends(peer: RespPeer, data: bytes, why: bytes) -> None:
    peer.feed(command(b"SET", b"before", b"1") + data + command(b"SET", b"behind", b"1"))
    peer.door.turn()
    assert peer.output() == OK + b"-ERR Protocol error: " + why + b"\r\n"
    assert peer.is_over
    assert [event.connection for event in peer.door.refused] == [peer.id]
    peer.feed(command(b"SET", b"later", b"1"))
    peer.door.turn()
    assert peer.door.contents() == {b"before": b"1"}


def test_in_single_bytes_the_same_faults_are_found(peer: RespPeer) -> None:
    for byte in b"*2\r\n$4\r\nECHO\r\n$" + b"7" * 64:
        peer.feed(bytes((byte,)))
    assert peer.output() == b"-ERR Protocol error: too big bulk count string\r\n"


def test_the_longest_that_resp_allows_is_taken(peer: RespPeer) -> None:
    line = b"PING " + b"x" * 65_531
    assert len(line) == 65_536
    peer.feed(line + b"\n")
    peer.door.turn()
    assert peer.output() == bulk(line[5:])
    peer.feed(b"*2\r\n$4\r\nECHO\r\n$536870912\r\n")
    assert not peer.is_over


def test_a_header_that_never_ends_is_not_waited_for(peer: RespPeer) -> None:
    peer.feed(b"*" + b"1" * 63)
    assert not peer.is_over
    peer.feed(b"1")
    assert peer.output().startswith(b"-ERR Protocol error")


# --- what is too long for the daemon


@pytest.mark.parametrize("piece", [1 << 20, 1_000, 37])
def test_a_value_that_is_too_long_is_dropped_as_it_comes_and_the_connection_goes_on(peer: RespPeer, piece: int) -> None:
    base = live_allocations()[1]
    data = command(b"SET", b"k", bytes(100_000)) + command(b"ECHO", b"next")
    for at in range(0, len(data), piece):
        peer.feed(data[at : at + piece])
        assert live_allocations()[1] - base < 20_000
    assert peer.output() == TOO_LONG + bulk(b"next")
    assert peer.door.contents() == {}


def test_one_that_is_too_long_by_less_than_a_restore_needs_is_told_so_too(peer: RespPeer) -> None:
    for extra in (1, 1_000, 1_024, 1_025):
        assert peer.ask(b"SET", b"k", bytes(VALUE_MAX + extra)) == TOO_LONG
    assert peer.ask(b"SET", b"k", bytes(VALUE_MAX)) == OK


def test_a_command_longer_than_a_frame_is_dropped_as_it_comes() -> None:
    door = RespDoor(value_bytes_max=VALUE_MAX, frame_bytes_max=10_000)
    peer = door.peer()
    pairs = [each for i in range(20) for each in (b"k%d" % i, bytes(1_000))]
    data = command(b"MSET", *pairs) + command(b"ECHO", b"next")
    for at in range(0, len(data), 100):
        peer.feed(data[at : at + 100])
    assert peer.output() == TOO_LARGE + bulk(b"next")
    door.turn()
    assert door.contents() == {}


def test_a_fault_within_a_dropped_command_ends_the_connection(peer: RespPeer) -> None:
    peer.feed(b"*3\r\n$3\r\nSET\r\n$9999\r\n" + bytes(9_999) + b"\r\n:1\r\n")
    assert peer.output() == b"-ERR Protocol error: expected '$'\r\n"
    assert peer.is_over


# --- strangers


def test_a_stranger_may_send_only_short_commands() -> None:
    for data, why in (
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*1\r\n$16385\r\n", b"unauthenticated bulk length"),
    ):
        peer = RespDoor(stranger=True).peer()
        peer.feed(data)
        assert peer.output() == b"-ERR Protocol error: " + why + b"\r\n"
        assert peer.is_over


def test_a_stranger_that_has_proven_who_it_is_is_none_any_more() -> None:
    peer = RespDoor(stranger=True).peer()
    assert peer.ask(b"GET", b"k") == b"-NOAUTH Authentication required.\r\n"
    assert peer.ask(b"PING") == b"-NOAUTH Authentication required.\r\n"
    assert peer.ask(b"AUTH", b"x", b"wrong").startswith(b"-WRONGPASS")
    long = command(b"MSET", *(b"%d" % (i // 2) for i in range(40)))
    peer.feed(command(b"AUTH", b"default", b"secret") + long)
    peer.door.turn()
    assert peer.output() == OK + OK
    assert peer.ask(b"RESET") == b"+RESET\r\n"
    peer.feed(long)
    assert peer.output() == b"-ERR Protocol error: unauthenticated multibulk length\r\n"


# --- bounds and memory


def test_half_commands_of_all_connections_are_bounded_together() -> None:
    door = RespDoor(half_frames_bytes_max=2 << 20)
    peers = [door.peer() for _ in range(4)]
    half = bytes(700_000)
    base = live_allocations()[1]
    for peer in peers:
        peer.feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + half)
    assert live_allocations()[1] - base < 4_000_000
    for peer in peers:
        peer.feed(bytes(300_000) + b"\r\n" + command(b"ECHO", b"next"))
    door.turn()
    assert [peer.output() for peer in peers] == [OK + bulk(b"next")] * 2 + [OVERLOADED + bulk(b"next")] * 2


def test_a_large_half_command_that_is_paused_counts_as_its_bytes_only_once(peer: RespPeer) -> None:
    door = peer.door
    door.is_holding = True
    peer.send(b"RENAME", b"a", b"b")
    peer.feed(command(b"ECHO", b"1") * 10)
    assert peer.dispatch.is_paused(peer.id)
    door.let_go()
    assert peer.output() == b"-ERR no such key\r\n" + bulk(b"1") * 10


def test_a_command_with_very_many_arguments_leaves_no_memory_behind() -> None:
    door = RespDoor(shards=1)
    peer = door.peer()
    peer.ask(b"MGET", b"k")
    base = settled_allocations()[1]
    peer.send(b"DBSIZEX", *[b""] * 500_000)
    assert peer.output().startswith(b"-ERR unknown command")
    assert settled_allocations()[1] - base < 20_000


def test_where_arguments_stand_is_forgotten_with_the_command_that_is_dropped() -> None:
    door = RespDoor(frame_bytes_max=1_000_000)
    peer = door.peer()
    base = settled_allocations()[1]
    peer.feed(b"*1000000\r\n" + b"$0\r\n\r\n" * 170_000)
    assert peer.dispatch.has_half_frame(peer.id)
    assert settled_allocations()[1] - base < 20_000


def test_after_connections_closed_in_any_state_nothing_is_left() -> None:
    base = settled_allocations()
    stream = b"".join(data for data, _ in STREAM)
    for at in (0, 1, 5, 20, 40, 200, 500, 1_000, 4_000, len(stream)):
        door = RespDoor(value_bytes_max=VALUE_MAX)
        for is_holding in (False, True):
            door.is_holding = is_holding
            peer = door.peer()
            peer.feed(stream[:at])
            door.turn()
            peer.close()
            door.turn()
        door.is_holding = False
        door.turn()
        assert door.dispatch.requests == 0
        assert not door.runner._jobs._jobs
        del door, peer
    assert settled_allocations() == base


@pytest.mark.parametrize(
    "commands",
    [
        [(b"RENAME", b"a", b"b")],
        [(b"RENAME", b"a", b"b"), (b"SET", b"a", b"1")],
        [(b"WATCH", b"a"), (b"MULTI",), (b"SET", b"a", b"1"), (b"RENAME", b"a", b"b"), (b"EXEC",), (b"GET", b"a")],
        [(b"MULTI",), (b"SET", b"a", b"1"), (b"SET", b"b", b"1"), (b"EXEC",), (b"GET", b"a")],
        [(b"MULTI",), (b"SET", b"a", b"1")],
        [(b"KEYS", b"*"), (b"GET", b"a")],
        [(b"MGET", b"a", b"b", b"c"), (b"STRLEN", b"a")],
        [(b"CLIENT", b"PAUSE", b"100000"), (b"SET", b"a", b"1"), (b"SET", b"b", b"1")],
        [(b"CLIENT", b"REPLY", b"OFF"), (b"SET", b"a", b"1"), (b"ECHO", b"1")],
        [(b"QUIT",), (b"SET", b"a", b"1")],
    ],
)
@pytest.mark.parametrize("answers", range(4))
def test_a_connection_closed_in_the_middle_of_anything_leaves_nothing(
    commands: list[tuple[bytes, ...]], answers: int
) -> None:
    base = settled_allocations()
    door = RespDoor()
    door.is_holding = True
    peer = door.peer()
    peer.send_all(commands)
    for _ in range(answers):
        door.answer_all()
        door.turn()
    peer.close()
    door.let_go()
    assert door.dispatch.requests == 0
    assert door.runner._jobs._holds.held == frozenset()
    assert not door.runner._jobs._jobs
    assert not door.runner._kept
    assert door.unowned == []
    other = door.peer()
    door.runner.hold_back(0, is_all=False)
    assert other.ask(b"SET", b"a", b"2") == OK
    assert other.ask(b"RENAME", b"a", b"b") == OK
    del door, peer, other
    assert settled_allocations() == base


def test_a_door_that_goes_away_with_shards_held_leaves_nothing() -> None:
    base = settled_allocations()
    door = RespDoor()
    door.is_holding = True
    for _ in range(3):
        door.peer().send_all([(b"RENAME", b"a", b"b"), (b"SET", b"a", b"1")])
    assert door.runner._jobs._holds.held
    del door
    assert settled_allocations() == base
