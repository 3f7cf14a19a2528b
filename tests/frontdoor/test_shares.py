"""Shares of a turn: whoever asks for much at once keeps the others waiting for a moment only."""

from __future__ import annotations

from pathlib import Path

import pytest

from kio import wire
from kio.frontdoor._dispatch import Dispatch
from kio.tls import ServerTls
from tests.access.doors import secured
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import HELLO, SEED, Peer, frame, turn
from tests.frontdoor.resp_peer import RespDoor, command
from tests.frontdoor.running_door import RunningDoor
from tests.frontdoor.socket_client import SocketClient
from tests.tls import private

#: So short that it is over whenever the clock is looked at: behind 32 commands, or 2 that go through Python.
SHORT = 1
LOOK = 32
LOOK_PYTHON = 2


def exists(count: int) -> bytes:
    return b"".join(frame(id, wire.OP_EXISTS, 0, b"%d" % id) for id in range(count))


def queued(dispatch: Dispatch, peer: Peer) -> int:
    return int(dispatch.in_flight(peer.id)[0])


def test_who_asks_for_much_goes_on_at_the_next_turn_behind_who_waits_longer() -> None:
    dispatch, shards = Dispatch(1, SEED, share_us=SHORT), Shards(1)
    first, second, modest = Peer(dispatch), Peer(dispatch), Peer(dispatch)
    first.feed(exists(100))
    second.feed(exists(100))
    modest.send(1, wire.OP_EXISTS, 0, b"k")
    assert [queued(dispatch, peer) for peer in (first, second, modest)] == [LOOK, LOOK, 1]
    assert [dispatch.is_paused(peer.id) for peer in (first, second, modest)] == [True, True, False]
    assert dispatch.has_more
    for expected in ([2, 1], [2, 2], [3, 2], [3, 3]):
        assert dispatch.resume(1_000) == []
        dispatch.go_on(1_000)
        assert [queued(dispatch, peer) / LOOK for peer in (first, second)] == expected
    while dispatch.has_more:
        dispatch.go_on(1_000)
    assert [queued(dispatch, peer) for peer in (first, second)] == [100, 100]
    assert not dispatch.is_paused(first.id)
    turn(dispatch, shards)
    for peer in (first, second):
        assert peer.replies() == [[id, 0, False] for id in range(100)]
    assert modest.replies() == [[1, 0, False]]


def test_who_has_had_its_share_does_not_owe_the_rest_of_a_frame() -> None:
    dispatch = Dispatch(1, SEED, share_us=SHORT)
    peer = Peer(dispatch)
    peer.feed(exists(100)[:-1])
    assert not dispatch.has_half_frame(peer.id)
    while dispatch.has_more:
        dispatch.go_on(1_000)
    assert queued(dispatch, peer) == 99
    assert dispatch.has_half_frame(peer.id)


def test_a_connection_that_ends_before_its_next_share_is_passed_over() -> None:
    dispatch, shards = Dispatch(1, SEED, share_us=SHORT), Shards(1)
    first, second = Peer(dispatch), Peer(dispatch)
    first.feed(exists(100))
    second.feed(exists(40))
    dispatch.close(first.id)
    another = Peer(dispatch)  # in the first one's place
    another.send(1, wire.OP_EXISTS, 0, b"k")
    while dispatch.has_more:
        dispatch.go_on(1_000)
    turn(dispatch, shards)
    assert len(second.replies()) == 40
    assert another.replies() == [[1, 0, False]]


def test_a_long_frame_takes_more_of_a_share_than_a_short_one() -> None:
    dispatch = Dispatch(1, SEED, share_us=SHORT)
    peer = Peer(dispatch)
    peer.feed(b"".join(frame(id, wire.OP_SET, 0, b"k", bytes(20_000)) for id in range(32)))
    assert queued(dispatch, peer) == 4


def test_where_there_is_no_bound_all_is_taken_at_once() -> None:
    dispatch = Dispatch(1, SEED)
    peer = Peer(dispatch)
    peer.feed(exists(1_000))
    assert queued(dispatch, peer) == 1_000
    assert not dispatch.has_more


@pytest.mark.parametrize("is_slow", [False, True])
def test_commands_of_redis_clients_are_answered_in_order_a_share_at_a_time(is_slow: bool) -> None:
    door = RespDoor(share_us=SHORT)
    peer, modest = door.peer(), door.peer()
    door.dispatch.tune(peer.id, slow=is_slow)
    peer.feed(b"".join(command(b"ECHO", b"%d" % number) for number in range(100)) + b"ECHO inline\r\n")
    modest.feed(command(b"ECHO", b"modest"))
    door.turn()
    assert modest.output() == b"$6\r\nmodest\r\n"
    answered = peer.output()
    assert answered.count(b"$") == (LOOK_PYTHON if is_slow else LOOK)
    turns = 0
    while door.dispatch.has_more:
        door.dispatch.go_on(door.now_ms)
        door.turn()
        turns += 1
    assert turns >= 100 // (LOOK_PYTHON if is_slow else LOOK) - 1
    answered += peer.output()
    expected = [b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(100)]
    assert answered == b"".join(expected) + b"$6\r\ninline\r\n"


def test_a_door_goes_on_until_all_is_answered() -> None:
    with RunningDoor(dispatch={"share_us": SHORT}) as door, SocketClient(door.address) as client:
        client.sock.sendall(exists(2_000))
        assert [client.reply()[0] for _ in range(2_000)] == list(range(2_000))


def test_a_door_goes_on_within_what_was_decrypted(tmp_path: Path) -> None:
    path = private("server.pem", tmp_path)
    with (
        RunningDoor(tls=ServerTls(path, path), dispatch={"share_us": SHORT}) as door,
        SocketClient(door.address, greet=False) as client,
    ):
        client.sock = secured(client.sock)
        client.sock.sendall(HELLO)
        client.reply()
        client.sock.sendall(exists(2_000))
        assert [client.reply()[0] for _ in range(2_000)] == list(range(2_000))
