"""Shards that one command has to itself: what others send meanwhile, who comes next, and what ends it."""

from __future__ import annotations

import random

import pytest

from kio import wire
from kio.frontdoor.resp.jobs import HELD_LIMIT_MS
from tests.frontdoor.peer import key_of
from tests.frontdoor.resp_peer import NIL, OK, QUEUED, SHARDS, RespDoor, RespPeer, bulk

ONE, OTHER = key_of(0, SHARDS), key_of(1, SHARDS)
DOWN = b"-LOADING the worker of this shard is away; retry"


@pytest.fixture
def door() -> RespDoor:
    door = RespDoor()
    door.is_holding = True
    return door


def answer(door: RespDoor, times: int = 1) -> None:
    """The shards answer what they have, and what comes of it is sent."""
    for _ in range(times):
        door.answer_all()
        door.turn()


def held_by(door: RespDoor) -> frozenset[int]:
    return door.runner._jobs._holds.held


def is_settled(door: RespDoor) -> bool:
    """Whether nothing is held, waits or is under way."""
    jobs = door.runner._jobs
    return not jobs._jobs and not jobs._holds.held and not jobs._holds._waiting and not door.dispatch.requests


def transaction(*commands: tuple[bytes, ...], watch: bytes = b"") -> list[tuple[bytes, ...]]:
    before: list[tuple[bytes, ...]] = [(b"WATCH", watch)] if watch else []
    return [*before, (b"MULTI",), *commands, (b"EXEC",)]


def test_what_others_send_to_held_shards_comes_behind_in_its_order(door: RespDoor) -> None:
    first, second, third = (door.peer() for _ in range(3))
    first.send(b"SET", ONE, b"v")
    answer(door)
    first.output()
    first.send(b"RENAME", ONE, OTHER)
    assert held_by(door) == {0, 1}
    second.send_all([(b"GET", ONE), (b"APPEND", OTHER, b"2"), (b"GET", OTHER)])
    third.send(b"APPEND", OTHER, b"3")
    answer(door)
    assert second.output() == third.output() == b""
    answer(door, 3)
    assert first.output() == OK
    assert second.output() == NIL + b":2\r\n" + bulk(b"v2")
    assert third.output() == b":3\r\n"
    assert is_settled(door)
    assert [op for op, key in door.operations() if key == OTHER] == [
        wire.OP_EXISTS, wire.OP_SET, wire.OP_APPEND, wire.OP_GET, wire.OP_APPEND,
    ]  # fmt: skip


def test_other_shards_go_on_as_ever(door: RespDoor) -> None:
    first, second = door.peer(), door.peer()
    first.send(b"COPY", ONE, ONE + b"{}", b"REPLACE")
    held = held_by(door)
    keys = [key_of(shard, SHARDS) for shard in range(SHARDS) if shard not in held]
    if keys:
        second.send(b"SET", keys[0], b"v")
        answer(door)
        assert second.output() == OK


def test_a_commands_own_earlier_writes_come_before_it(door: RespDoor) -> None:
    peer = door.peer()
    peer.send_all(
        [(b"SET", ONE, b"1"), (b"APPEND", ONE, b"2"), (b"RENAME", ONE, OTHER), (b"GET", OTHER), (b"GET", ONE)]
    )
    door.let_go()
    assert peer.output() == OK + b":2\r\n" + OK + bulk(b"12") + NIL


def test_an_earlier_write_that_another_one_holds_up_still_comes_first(door: RespDoor) -> None:
    first, second = door.peer(), door.peer()
    first.send(b"MSETNX", ONE, b"first", OTHER, b"first")
    second.send_all([(b"SET", ONE, b"second"), (b"RENAME", ONE, OTHER), (b"GET", OTHER)])
    door.let_go()
    assert first.output() == b":1\r\n"
    assert second.output() == OK + OK + bulk(b"second")
    assert is_settled(door)


def test_transactions_that_want_the_same_shards_take_turns(door: RespDoor) -> None:
    peers = [door.peer() for _ in range(5)]
    for number, peer in enumerate(peers):
        name = b"%d" % number
        keys = (ONE, OTHER) if number % 2 else (OTHER, ONE)
        steps = ((b"APPEND", keys[0], name), (b"APPEND", keys[1], name), (b"GET", keys[0]))
        peer.send_all(transaction(*steps, watch=b"none"))
    answer(door, 40)
    assert is_settled(door)
    values = [peer.output() for peer in peers]
    for number, value in enumerate(values):
        assert value.startswith(OK + OK + QUEUED * 3 + b"*3\r\n:%d\r\n:%d\r\n" % (number + 1, number + 1))
    assert door.contents() == {ONE: b"01234", OTHER: b"01234"}


def test_who_waits_for_shards_is_not_passed_by_those_who_want_fewer(door: RespDoor) -> None:
    first, second, third = (door.peer() for _ in range(3))
    far = next(key for key in (b"far%d" % i for i in range(99)) if door.dispatch.shard_of(key, 0) == 1)
    first.send(b"RENAME", ONE, ONE)
    second.send(b"MSETNX", ONE, b"2", OTHER, b"2")
    third.send(b"MSETNX", OTHER, b"3", far, b"3")
    assert held_by(door) == {0}
    door.let_go()
    assert first.output() == b"-ERR no such key\r\n"
    assert second.output() == b":1\r\n"
    assert third.output() == b":0\r\n"


# --- ends


@pytest.mark.parametrize(
    "moment",
    [
        0,
        1,
    ],
)
def test_a_worker_that_dies_ends_the_command_and_lets_the_others_go(door: RespDoor, moment: int) -> None:
    first, second, third = (door.peer() for _ in range(3))
    first.send(b"SET", ONE, b"v")
    answer(door)
    first.output()
    first.send(b"RENAME", ONE, OTHER)
    second.send_all([(b"GET", OTHER), (b"SET", OTHER, b"w")])
    third.send(b"SET", ONE, b"lost")
    answer(door, moment)
    door.dispatch.fail_shard(0)
    door.let_go()
    assert first.output() == DOWN + (b"; it may have been applied\r\n" if moment else b"\r\n")
    assert second.output() == (bulk(b"v") if moment else NIL) + OK
    assert third.output() == DOWN + b"\r\n", "it was never sent"
    assert is_settled(door)
    door.dispatch.shard_up(0)
    assert third.ask(b"SET", ONE, b"w") == OK
    assert first.ask(b"RENAME", ONE, OTHER) == OK


def test_a_worker_that_comes_back_during_a_hold_gets_what_waits_only_afterwards(door: RespDoor) -> None:
    first, second = door.peer(), door.peer()
    first.send(b"MSETNX", ONE, b"1", OTHER, b"1")
    door.dispatch.fail_shard(0)
    door.dispatch.shard_up(0)
    second.send(b"GET", ONE)
    assert [shard for shard, _ in door.held] == [0, 1]
    del door.held[0]
    answer(door)
    assert first.output().startswith(DOWN)
    answer(door)
    assert second.output() == NIL
    assert is_settled(door)


@pytest.mark.parametrize("moment", range(3))
def test_a_client_that_leaves_during_a_hold_has_begun_what_is_then_ended(door: RespDoor, moment: int) -> None:
    first, second = door.peer(), door.peer()
    first.send(b"SET", ONE, b"v")
    answer(door)
    first.send(b"RENAME", ONE, OTHER)
    second.send(b"GET", OTHER)
    answer(door, moment)
    first.close()
    door.let_go()
    assert door.contents() == {OTHER: b"v"}
    assert second.output() == bulk(b"v")
    assert is_settled(door)


def test_a_client_that_leaves_while_it_waits_for_shards_does_not_keep_them(door: RespDoor) -> None:
    first, second, third = (door.peer() for _ in range(3))
    first.send(b"MSETNX", ONE, b"1", OTHER, b"1")
    second.send(b"MSETNX", ONE, b"2", OTHER, b"2")
    third.send_all([(b"SET", ONE, b"3"), (b"RENAME", ONE, OTHER)])
    second.close()
    door.let_go()
    assert first.output() == b":1\r\n"
    assert third.output() == OK + OK
    assert is_settled(door)
    assert door.contents() == {OTHER: b"3"}


def test_a_shard_that_does_not_answer_is_given_up(door: RespDoor) -> None:
    first, second = door.peer(), door.peer()
    first.send(b"MSETNX", ONE, b"1", OTHER, b"1")
    second.send(b"GET", ONE)
    stuck = door.held.pop(0)
    answer(door)
    door.pass_by(HELD_LIMIT_MS - 100)
    assert first.output() == b""
    door.pass_by(200)
    assert first.output() == b"-TRYAGAIN the deadline passed\r\n"
    assert not held_by(door)
    assert second.output() == b""
    door.dispatch.deliver(door.shards.execute(stuck[1]))
    door.let_go()
    assert second.output() == NIL
    assert is_settled(door)
    assert not door.dispatch.has_deadlines


def test_a_write_whose_shard_does_not_answer_may_have_been_applied(door: RespDoor) -> None:
    peer = door.peer()
    peer.send(b"MSETNX", ONE, b"1", OTHER, b"1")
    answer(door)
    door.pass_by(HELD_LIMIT_MS + 100)
    assert peer.output() == b"-TRYAGAIN the deadline passed; it may have been applied\r\n"
    door.let_go()
    assert is_settled(door)


def test_what_holds_shards_is_not_refused_where_they_are_full_but_what_comes_is() -> None:
    door = RespDoor(shard_operations_max=8)
    door.is_holding = True
    first, second = door.peer(), door.peer()
    first.send(b"MSETNX", ONE, b"1", OTHER, b"1")
    second.send(b"MGET", *[ONE] * 12)
    third = door.peer()
    assert third.ask(b"RENAME", ONE, OTHER).startswith(b"-BUSY ")
    door.let_go()
    assert first.output() == b":1\r\n"
    assert second.output().startswith(b"-BUSY ")
    assert door.dispatch.shard_in_flight(0) == (0, 0)


# --- at random


@pytest.mark.parametrize("seed", range(30))
def test_whatever_comes_in_between_each_connection_sees_its_commands_in_order(seed: int) -> None:
    """Counters that only ever move together: no reader may see one without the other."""
    chosen = random.Random(seed)
    door = RespDoor()
    door.is_holding = True
    peers: list[RespPeer] = [door.peer() for _ in range(4)]
    sent = dict.fromkeys(range(4), 0)
    replies = dict.fromkeys(range(4), b"")
    commands: list[list[tuple[bytes, ...]]] = [
        [(b"MGET", ONE, OTHER)],
        [(b"MULTI",), (b"INCR", ONE), (b"INCR", OTHER), (b"EXEC",)],
        [(b"MSET", ONE, b"0", OTHER, b"0")],
        [(b"WATCH", ONE), (b"MULTI",), (b"INCR", ONE), (b"INCR", OTHER), (b"EXEC",)],
        [(b"MULTI",), (b"RENAME", ONE, b"x"), (b"RENAME", OTHER, b"y"), (b"EXEC",)],
        [(b"DEL", ONE, OTHER)],
        [(b"STRLEN", ONE)],
        [(b"ECHO", b"x")],
    ]
    for _ in range(150):
        number = chosen.randrange(4)
        peer = peers[number]
        if chosen.random() < 0.6:
            if not door.dispatch.is_paused(peer.id):
                some = chosen.choice(commands)
                sent[number] += len(some)
                peer.feed(b"".join(_command(each) for each in some))
        elif door.held:
            shard = chosen.choice([shard for shard, _ in door.held])
            at = next(at for at, each in enumerate(door.held) if each[0] == shard)
            door.dispatch.deliver(door.shards.execute(door.held.pop(at)[1]))
        if chosen.random() < 0.8:
            door.turn()
        if chosen.random() < 0.02:
            peer.close()
            peers[number] = door.peer()
            sent[number] = 0
            replies[number] = b""
    door.let_go()
    assert is_settled(door)
    for number, peer in enumerate(peers):
        parts = _split(peer.output())
        assert len(parts) == sent[number]
        for part in parts:
            if part.startswith(b"*2\r\n$"):
                _, first, second = part.split(b"$")
                assert first == second


def _command(words: tuple[bytes, ...]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(bulk(word) for word in words)


def _split(stream: bytes) -> list[bytes]:
    """The replies of a stream."""
    parts = []
    while stream:
        end = _end(stream, 0)
        parts.append(stream[:end])
        stream = stream[end:]
    return parts


def _end(stream: bytes, at: int) -> int:
    line = stream.index(b"\r\n", at) + 2
    kind, number = stream[at : at + 1], stream[at + 1 : line - 2]
    if kind == b"$":
        return line if number == b"-1" else line + int(number) + 2
    if kind == b"*":
        for _ in range(max(0, int(number))):
            line = _end(stream, line)
    return line
