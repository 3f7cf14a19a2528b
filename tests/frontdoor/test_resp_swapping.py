"""SWAPDB in a front door: its moment between the other commands, what it does to WATCH, what refuses it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kio.frontdoor.resp.swapping import Kept, SwapCommand
from kio.segments.keyspaces import KeyspaceMap
from tests.frontdoor.peer import key_of
from tests.frontdoor.resp_peer import NIL, OK, QUEUED, SHARDS, RespDoor, RespPeer, bulk

ONE, OTHER = key_of(0, SHARDS), key_of(1, SHARDS)
NOTHING = b"*-1\r\n"
FULL = "MISCONF the keyspaces are as before: KEYSPACES: No space left on device"


class Keeper:
    """Whoever keeps the map.

    Attributes:
        is_holding: True: answers wait for `answer`.
        error: the next swap fails so.
    """

    def __init__(self, door: RespDoor) -> None:
        self.map = KeyspaceMap()
        self.is_holding = False
        self.is_away = False
        self.error = ""
        self.waiting: list[Callable[[], None]] = []
        self.command = SwapCommand(door.runner, self._ask, self.map.places)
        self._door = door

    def _ask(self, first: int, second: int, told: Callable[[Kept], None]) -> bool:
        if self.is_away:
            return False
        if not self.error:
            self.map = self.map.swapped(first, second)
        answer, self.error = Kept(self.map.places, self.error), ""
        self.waiting.append(lambda: told(answer))
        if not self.is_holding:
            self.answer()
        return True

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told()
        self._door.turn()


@pytest.fixture
def door() -> RespDoor:
    return RespDoor()


@pytest.fixture
def keeper(door: RespDoor) -> Keeper:
    return Keeper(door)


@pytest.fixture
def peer(door: RespDoor, keeper: Keeper) -> RespPeer:
    return door.peer()


def contents(peer: RespPeer, keyspace: int) -> bytes:
    peer.ask(b"SELECT", b"%d" % keyspace)
    return peer.ask(b"MGET", ONE, OTHER)


def answer(door: RespDoor) -> None:
    """The shards answer what they have; what comes of it is sent."""
    door.answer_all()
    door.turn()


def is_settled(door: RespDoor) -> bool:
    jobs = door.runner._jobs
    return not jobs._jobs and not jobs._holds.held and not jobs._holds._waiting and not jobs._alone


def test_two_keyspaces_exchange_their_keys_and_a_second_swap_undoes_it(door: RespDoor, peer: RespPeer) -> None:
    peer.ask_all((b"MSET", ONE, b"a", OTHER, b"b"), (b"SELECT", b"3"), (b"SET", ONE, b"c"), (b"SELECT", b"0"))
    assert peer.ask_all((b"SWAPDB", b"0", b"3"), (b"MGET", ONE, OTHER), (b"DBSIZE",)) == (
        OK + b"*2\r\n" + bulk(b"c") + NIL + b":1\r\n"
    )
    assert contents(door.peer(), 3) == b"*2\r\n" + bulk(b"a") + bulk(b"b")
    assert peer.ask(b"SWAPDB", b"3", b"0") == OK
    assert contents(door.peer(), 0) == b"*2\r\n" + bulk(b"a") + bulk(b"b")
    assert contents(door.peer(), 3) == b"*2\r\n" + bulk(b"c") + NIL
    assert is_settled(door)


def test_swaps_of_swaps_follow_one_another(keeper: Keeper, peer: RespPeer) -> None:
    for number in range(4):
        peer.ask_all((b"SELECT", b"%d" % number), (b"SET", ONE, b"%d" % number))
    keeper.is_holding = True
    others = [peer.door.peer() for _ in range(3)]
    for other, (first, second) in zip(others, ((0, 1), (1, 2), (2, 3)), strict=True):
        other.send(b"SWAPDB", b"%d" % first, b"%d" % second)
        assert other.output() == b""
    keeper.answer()
    assert [other.output() for other in others] == [OK] * 3
    found = [contents(peer, number) for number in range(4)]
    assert found == [b"*2\r\n" + bulk(value) + NIL for value in (b"1", b"2", b"3", b"0")]


def test_a_keyspace_and_itself_are_swapped_without_asking(keeper: Keeper, peer: RespPeer) -> None:
    keeper.is_away = True
    assert peer.ask(b"SWAPDB", b"4", b"4") == OK


def test_its_own_client_waits_and_others_see_the_swap_at_its_end_only(keeper: Keeper, peer: RespPeer) -> None:
    peer.ask(b"SET", ONE, b"v")
    keeper.is_holding = True
    other = peer.door.peer()
    peer.send_all([(b"SWAPDB", b"0", b"1"), (b"GET", ONE)])
    assert other.ask(b"GET", ONE) == bulk(b"v")
    keeper.answer()
    assert other.ask(b"GET", ONE) == NIL
    assert peer.output() == OK + NIL


@pytest.mark.parametrize("is_away", [False, True])
def test_where_it_is_refused_nothing_changes(keeper: Keeper, peer: RespPeer, is_away: bool) -> None:
    peer.ask(b"SET", ONE, b"v")
    peer.ask(b"WATCH", ONE)
    keeper.error, keeper.is_away = "" if is_away else FULL, is_away
    refused = b"TRYAGAIN the supervisor does not listen; nothing was swapped" if is_away else FULL.encode()
    assert peer.ask(b"SWAPDB", b"0", b"1") == b"-" + refused + b"\r\n"
    assert peer.ask_all((b"MULTI",), (b"GET", ONE), (b"EXEC",)) == OK + QUEUED + b"*1\r\n" + bulk(b"v")
    keeper.is_away = False
    assert peer.ask_all((b"SWAPDB", b"0", b"1"), (b"GET", ONE)) == OK + NIL
    assert is_settled(peer.door)


def test_where_the_map_has_changed_in_spite_of_an_error_it_holds_and_the_error_is_told(
    door: RespDoor, peer: RespPeer, keeper: Keeper
) -> None:
    peer.ask(b"SET", ONE, b"v")
    told = "ERR the keyspaces are swapped, but a power cut may undo it"
    keeper.map, keeper.error = keeper.map.swapped(0, 1), told
    assert peer.ask_all((b"SWAPDB", b"0", b"1"), (b"GET", ONE)) == b"-%s\r\n" % told.encode() + NIL
    assert contents(door.peer(), 1) == b"*2\r\n" + bulk(b"v") + NIL


def test_within_multi_it_is_refused_when_its_turn_has_come(peer: RespPeer) -> None:
    replies = peer.ask_all(
        (b"MULTI",), (b"SET", ONE, b"v"), (b"SWAPDB", b"0", b"1"), (b"SWAPDB", b"0", b"x"), (b"GET", ONE), (b"EXEC",)
    )
    assert replies == (
        OK + QUEUED * 4 + b"*4\r\n" + OK + b"-ERR SWAPDB has to wait, which is not possible within MULTI\r\n"
        b"-ERR invalid second DB index\r\n" + bulk(b"v")
    )  # fmt: skip


def test_a_client_that_goes_does_not_keep_the_swap_from_being_done(keeper: Keeper, peer: RespPeer) -> None:
    keeper.is_holding = True
    other = peer.door.peer()
    other.ask(b"SET", ONE, b"v")
    peer.send(b"SWAPDB", b"0", b"1")
    peer.close()
    keeper.answer()
    assert other.ask(b"GET", ONE) == NIL
    assert is_settled(other.door)


def test_what_waits_until_no_swap_is_under_way_comes_then(keeper: Keeper, peer: RespPeer) -> None:
    called: list[str] = []
    keeper.command.when_still(lambda: called.append("at once"))
    keeper.is_holding = True
    peer.send(b"SWAPDB", b"0", b"1")
    keeper.command.when_still(lambda: called.append("first"))
    keeper.command.when_still(lambda: called.append("second"))
    assert called == ["at once"]
    keeper.answer()
    assert called == ["at once", "first", "second"]


# --- between commands that hold shards


def test_a_command_that_is_half_done_ends_where_it_began(door: RespDoor, keeper: Keeper, peer: RespPeer) -> None:
    first, second = door.peer(), door.peer()
    first.ask(b"SET", ONE, b"v")
    door.is_holding = True
    first.send(b"RENAME", ONE, OTHER)
    peer.send(b"SWAPDB", b"0", b"1")
    second.send(b"GET", OTHER)
    assert peer.output() == b""
    door.let_go()
    assert [first.output(), peer.output(), second.output()] == [OK, OK, bulk(b"v")]
    assert contents(peer, 0) == b"*2\r\n" + NIL * 2
    assert contents(peer, 1) == b"*2\r\n" + NIL + bulk(b"v")
    assert is_settled(door)


def test_a_command_that_comes_while_a_swap_waits_is_done_behind_it(
    door: RespDoor, keeper: Keeper, peer: RespPeer
) -> None:
    first, second = door.peer(), door.peer()
    first.ask_all((b"SET", ONE, b"zero"), (b"SELECT", b"1"), (b"SET", ONE, b"one"), (b"SELECT", b"0"))
    door.is_holding = True
    first.send(b"RENAME", ONE, OTHER)
    peer.send(b"SWAPDB", b"0", b"1")
    second.send(b"RENAME", ONE, OTHER)
    door.let_go()
    assert [first.output(), peer.output(), second.output()] == [OK] * 3
    assert contents(peer, 0) == b"*2\r\n" + NIL + bulk(b"one")
    assert contents(peer, 1) == b"*2\r\n" + NIL + bulk(b"zero")
    assert is_settled(door)


@pytest.mark.parametrize("seed", range(8))
def test_random_moves_and_swaps_lose_and_double_no_value(seed: int) -> None:
    dice = random.Random(seed)
    door = RespDoor(4)
    keeper = Keeper(door)
    peers = [door.peer() for _ in range(6)]
    values = set()
    for number in range(12):
        peers[0].ask_all((b"SELECT", b"%d" % (number % 3)), (b"SET", b"key %d" % number, b"%d" % number))
        values.add(b"%d" % number)
    door.is_holding = keeper.is_holding = True
    for _ in range(300):
        peer, key = dice.choice(peers), b"key %d" % dice.randrange(12)
        one, other = dice.sample([b"0", b"1", b"2"], 2)
        command = dice.choice(
            [
                (b"SWAPDB", one, other),
                (b"MOVE", key, one),
                (b"RENAMENX", key, b"key %d" % dice.randrange(12)),
                (b"SELECT", one),
            ]
        )
        peer.send(*command)
        if dice.random() < 0.3:
            keeper.answer()
        if dice.random() < 0.5:
            answer(door)
    keeper.is_holding = False
    for _ in range(600):
        keeper.answer()
        answer(door)
    door.let_go()
    assert is_settled(door)
    assert all(b"ERR kio" not in peer.output() for peer in peers)
    found = [value for keys in door.shards.keys for value in keys.values()]
    assert sorted(found) == sorted(values)


# --- WATCH


def transaction(peer: RespPeer) -> bytes:
    return peer.ask_all((b"MULTI",), (b"PING",), (b"EXEC",)).removeprefix(OK + QUEUED)


def put(door: RespDoor, keyspace: int, key: bytes) -> None:
    door.peer().ask_all((b"SELECT", b"%d" % keyspace), (b"SET", key, b"v"))


@pytest.mark.parametrize("keyspaces", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("watched", [0, 1])
def test_a_watched_key_that_is_in_either_keyspace_voids_the_transaction(
    door: RespDoor, peer: RespPeer, keyspaces: tuple[int, ...], watched: int
) -> None:
    # The first write of either shard: where there are two, the versions of both records are the same.
    for keyspace in keyspaces:
        put(door, keyspace, ONE)
    peer.ask_all((b"SELECT", b"%d" % watched), (b"WATCH", ONE))
    assert door.peer().ask(b"SWAPDB", b"0", b"1") == OK
    assert transaction(peer) == NOTHING
    assert transaction(peer) == b"*1\r\n+PONG\r\n"


def test_two_swaps_that_undo_one_another_void_it_all_the_same(door: RespDoor, peer: RespPeer) -> None:
    put(door, 0, ONE)
    peer.ask(b"WATCH", ONE)
    door.peer().ask_all((b"SWAPDB", b"0", b"1"), (b"SWAPDB", b"0", b"1"))
    assert transaction(peer) == NOTHING


def test_its_own_swap_voids_it_too(door: RespDoor, peer: RespPeer) -> None:
    put(door, 1, ONE)
    assert peer.ask_all((b"WATCH", ONE), (b"SWAPDB", b"0", b"1")) == OK * 2
    assert transaction(peer) == NOTHING


def test_a_key_that_is_in_none_of_both_stays_absent_and_is_watched_where_it_would_come(
    door: RespDoor, peer: RespPeer
) -> None:
    other = door.peer()
    for keyspace in (0, 1, 2):
        put(door, keyspace, OTHER)
    peer.ask(b"WATCH", ONE)
    other.ask(b"SWAPDB", b"0", b"1")
    assert transaction(peer) == b"*1\r\n+PONG\r\n"
    peer.ask(b"WATCH", ONE)
    other.ask(b"SWAPDB", b"0", b"1")
    other.ask_all((b"SELECT", b"1"), (b"SET", ONE, b"not this one"))
    assert transaction(peer) == b"*1\r\n+PONG\r\n"
    peer.ask(b"WATCH", ONE)
    other.ask_all((b"DEL", ONE), (b"SELECT", b"0"), (b"SWAPDB", b"0", b"2"), (b"SET", ONE, b"this"))
    assert transaction(peer) == NOTHING


def test_swaps_of_other_keyspaces_are_nothing_to_it(door: RespDoor, peer: RespPeer) -> None:
    put(door, 0, ONE)
    peer.ask(b"WATCH", ONE)
    door.peer().ask_all((b"SWAPDB", b"1", b"2"), (b"SWAPDB", b"3", b"1"))
    assert transaction(peer) == b"*1\r\n+PONG\r\n"


def test_unwatch_and_discard_forget_the_swap(door: RespDoor, peer: RespPeer) -> None:
    put(door, 0, ONE)
    for end in ((b"UNWATCH",), (b"DISCARD",)):
        peer.ask(b"WATCH", ONE)
        if end == (b"DISCARD",):
            peer.ask(b"MULTI")
        door.peer().ask_all((b"SWAPDB", b"0", b"1"), (b"SWAPDB", b"0", b"1"))
        assert peer.ask(*end) == OK
        assert transaction(peer) == b"*1\r\n+PONG\r\n"


def test_a_watch_that_is_answered_behind_the_swap_is_of_the_keys_of_then(
    door: RespDoor, keeper: Keeper, peer: RespPeer
) -> None:
    put(door, 0, ONE)
    door.is_holding = True
    peer.send(b"WATCH", ONE)
    door.peer().send(b"SWAPDB", b"0", b"1")
    assert keeper.map.swaps == 1
    assert door.dispatch.stored_keyspace(0) == 1
    door.let_go()
    assert peer.output() == OK
    assert transaction(peer) == b"*1\r\n+PONG\r\n", "the key was absent when WATCH was answered, and is"
    peer.ask(b"WATCH", ONE)
    put(door, 0, ONE)
    assert transaction(peer) == NOTHING


def test_a_transaction_that_waits_behind_the_swap_sees_it(door: RespDoor, keeper: Keeper, peer: RespPeer) -> None:
    first, swapping = door.peer(), door.peer()
    for keyspace in (0, 1):  # the versions of both records are the same
        put(door, keyspace, ONE)
    peer.ask_all((b"WATCH", ONE), (b"MULTI",), (b"SET", OTHER, b"1"))
    door.is_holding = True
    first.send(b"RENAME", ONE, ONE)
    swapping.send(b"SWAPDB", b"0", b"1")
    peer.send(b"EXEC")
    door.let_go()
    assert [swapping.output(), peer.output()] == [OK, NOTHING]
    assert is_settled(door)
    assert not door.runner.sessions._executing


def test_a_shard_that_does_not_say_whether_a_key_is_there_voids_it(door: RespDoor, peer: RespPeer) -> None:
    peer.ask(b"WATCH", ONE, OTHER)
    door.dispatch.fail_shard(0)
    door.dispatch.fail_shard(1)
    assert door.peer().ask(b"SWAPDB", b"0", b"1") == OK
    door.dispatch.shard_up(0)
    door.dispatch.shard_up(1)
    assert transaction(peer) == NOTHING
