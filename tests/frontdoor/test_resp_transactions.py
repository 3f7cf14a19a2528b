"""MULTI to EXEC: what is queued, what refuses it, what is one batch of a shard, and what WATCH sees."""

from __future__ import annotations

import pytest

from kio import limits, opbatch, wire
from kio.errors import Aborted, BadRequest
from kio.opbatch import Operation
from tests.frontdoor.backend import Answer, encode
from tests.frontdoor.peer import key_of
from tests.frontdoor.resp_peer import NIL, OK, QUEUED, SHARDS, RespDoor, RespPeer, RespShards, bulk, command

ONE, OTHER = key_of(0, SHARDS), key_of(1, SHARDS)
ABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"


@pytest.fixture
def door() -> RespDoor:
    return RespDoor()


@pytest.fixture
def peer(door: RespDoor) -> RespPeer:
    return door.peer()


def batches(door: RespDoor) -> list[tuple[int, list[Operation]]]:
    """The batches that are held: (shard, operations)."""
    return [(shard, opbatch.decode_batch(message)) for shard, message in door.held]


def test_nothing_is_done_before_exec_and_all_of_it_then(door: RespDoor, peer: RespPeer) -> None:
    other = door.peer()
    assert peer.ask_all((b"MULTI",), (b"SET", ONE, b"1"), (b"APPEND", OTHER, b"2"), (b"GET", ONE)) == OK + QUEUED * 3
    assert other.ask(b"MGET", ONE, OTHER) == b"*2\r\n" + NIL * 2
    assert peer.ask(b"EXEC") == b"*3\r\n+OK\r\n:1\r\n" + bulk(b"1")
    assert other.ask(b"MGET", ONE, OTHER) == b"*2\r\n" + bulk(b"1") + bulk(b"2")
    assert peer.ask(b"EXEC") == b"-ERR EXEC without MULTI\r\n"


def test_an_empty_transaction_has_an_empty_reply(peer: RespPeer) -> None:
    assert peer.ask_all((b"MULTI",), (b"EXEC",)) == OK + b"*0\r\n"
    assert peer.ask_all((b"WATCH", b"k"), (b"MULTI",), (b"EXEC",), (b"PING",)) == OK * 2 + b"*0\r\n+PONG\r\n"


def test_discard_forgets_commands_and_watched_keys(door: RespDoor, peer: RespPeer) -> None:
    assert peer.ask(b"DISCARD") == b"-ERR DISCARD without MULTI\r\n"
    assert peer.ask_all((b"WATCH", ONE), (b"MULTI",), (b"SET", ONE, b"1"), (b"DISCARD",)) == OK + OK + QUEUED + OK
    door.peer().ask(b"SET", ONE, b"x")
    assert peer.ask_all((b"MULTI",), (b"GET", ONE), (b"EXEC",)) == OK + QUEUED + b"*1\r\n" + bulk(b"x")


@pytest.mark.parametrize(
    "bad",
    [
        (b"NOSUCH",), (b"GET",), (b"CLIENT", b"NOSUCH"), (b"CLIENT", b"KILL"), (b"CONFIG", b"GET"), (b"",),
        (b"SET", b"k"),
    ],
)  # fmt: skip
def test_a_command_that_is_refused_when_it_is_queued_refuses_the_whole(
    door: RespDoor, peer: RespPeer, bad: tuple[bytes, ...]
) -> None:
    replies = peer.ask_all((b"MULTI",), (b"SET", ONE, b"1"), bad, (b"SET", OTHER, b"1"), (b"EXEC",), (b"PING",))
    assert replies.startswith(OK + QUEUED + b"-ERR ")
    assert replies.endswith(QUEUED + ABORT + b"+PONG\r\n")
    assert door.contents() == {}


@pytest.mark.parametrize("unspoiling", [(b"MULTI",), (b"WATCH", b"k")])
def test_what_cannot_stand_in_it_does_not_spoil_it(peer: RespPeer, unspoiling: tuple[bytes, ...]) -> None:
    replies = peer.ask_all((b"MULTI",), unspoiling, (b"INCR", ONE), (b"EXEC",))
    assert replies.startswith(OK + b"-ERR ")
    assert replies.endswith(QUEUED + b"*1\r\n:1\r\n")


def test_exec_with_arguments_ends_the_transaction(peer: RespPeer) -> None:
    replies = peer.ask_all((b"MULTI",), (b"INCR", ONE), (b"EXEC", b"x"), (b"INCR", ONE), (b"EXEC",))
    assert replies.startswith(OK + QUEUED + b"-EXECABORT ")
    assert replies.endswith(b":1\r\n-ERR EXEC without MULTI\r\n")


def test_errors_stand_in_their_places_and_take_nothing_back(door: RespDoor, peer: RespPeer) -> None:
    replies = peer.ask_all(
        (b"MULTI",), (b"SET", ONE, b"x"), (b"INCR", ONE), (b"SET", ONE, b"y", b"EX", b"x"), (b"SET", b"", b"v"),
        (b"RENAME", b"absent", OTHER), (b"GET", ONE), (b"STRLEN", ONE), (b"SET", OTHER, b"z"), (b"PING",), (b"EXEC",),
    )  # fmt: skip
    assert replies == (
        OK + QUEUED * 9 + b"*9\r\n" + OK + b"-ERR value is not an integer or out of range\r\n"
        b"-ERR value is not an integer or out of range\r\n-ERR a key has at least 1 byte\r\n-ERR no such key\r\n"
        + bulk(b"x") + b":1\r\n" + OK + b"+PONG\r\n"
    )  # fmt: skip
    assert door.contents() == {ONE: b"x", OTHER: b"z"}


# --- one batch of a shard


@pytest.mark.parametrize(
    "commands",
    [
        [(b"MSET", b"{t}a", b"1", b"{t}b", b"2")],
        [(b"MULTI",), (b"SET", b"{t}a", b"1"), (b"STRLEN", b"{t}a"), (b"INCR", b"{t}b"), (b"EXEC",)],
        [(b"MULTI",), (b"MSET", b"{t}a", b"1", b"{t}b", b"2"), (b"GET", b"{t}a"), (b"EXEC",)],
        [(b"DEL", b"{t}a", b"{t}b")],
    ],
)
def test_writes_of_one_shard_are_one_atomic_batch_of_which_each_stands_for_itself(
    door: RespDoor, peer: RespPeer, commands: list[tuple[bytes, ...]]
) -> None:
    peer.dispatch.tune(peer.id, slow=True)
    door.is_holding = True
    peer.send_all(commands)
    ((shard, (operation,)),) = batches(door)
    assert (operation.op, operation.flags) == (wire.OP_ATOMIC, opbatch.EACH)
    inner = opbatch.decode_batch(operation.value)
    assert {door.dispatch.shard_of(o.key, 0) for o in inner} == {shard}
    assert [o.hash for o in inner] == [door.dispatch.hash_of(o.key, 0) for o in inner]
    door.let_go()
    assert b"-" not in peer.output()


@pytest.mark.parametrize(
    "commands",
    [
        [(b"MULTI",), (b"GET", b"{t}a"), (b"EXISTS", b"{t}a"), (b"EXEC",)],
        [(b"MULTI",), (b"SET", ONE, b"1"), (b"SET", OTHER, b"1"), (b"EXEC",)],
        [(b"MULTI",), (b"SET", ONE, b"1"), (b"DBSIZE",), (b"EXEC",)],
        [(b"MULTI",), (b"SET", ONE, b"1"), (b"SET", b"", b"1"), (b"EXEC",)],
        [(b"MULTI",), (b"SET", ONE, b"1"), (b"EXEC",)],
        [(b"MULTI",), *[(b"INCR", ONE)] * (limits.ATOMIC_OPERATIONS_MAX + 1), (b"EXEC",)],
        [(b"MULTI",), (b"SET", ONE, bytes(5 << 20)), (b"APPEND", ONE, bytes(4 << 20)), (b"EXEC",)],
    ],
)
def test_what_cannot_be_one_batch_or_need_not_is_not(
    door: RespDoor, peer: RespPeer, commands: list[tuple[bytes, ...]]
) -> None:
    door.is_holding = True
    peer.send_all(commands)
    assert all(o.op != wire.OP_ATOMIC for _, operations in batches(door) for o in operations)
    door.let_go()
    assert peer.output().startswith(OK + QUEUED)
    assert not peer.dispatch.in_flight(peer.id)[0]


def test_a_batch_whose_shard_fails_fails_all_its_commands_in_their_places(door: RespDoor, peer: RespPeer) -> None:
    door.is_holding = True
    peer.send_all([(b"MULTI",), (b"SET", b"{t}a", b"1"), (b"PING",), (b"GET", b"{t}a"), (b"EXEC",), (b"PING",)])
    door.dispatch.fail_shard(door.held[0][0])
    door.let_go()
    down = b"-LOADING the worker of this shard is away; retry; it may have been applied\r\n"
    assert peer.output() == OK + QUEUED * 3 + b"*3\r\n" + down + b"+PONG\r\n" + down + b"+PONG\r\n"


class Refusing(RespShards):
    """Shards that answer a group as one does whose records would not fit a segment."""

    def _execute(self, shard: int, o: Operation) -> Answer:
        if o.op != wire.OP_ATOMIC:
            return super()._execute(shard, o)
        replies = [
            opbatch.Reply(index, Aborted.code if index else BadRequest.code, b"")
            for index, _ in enumerate(opbatch.decode_batch(o.value))
        ]
        return opbatch.VALUE, encode(o.value, replies)


@pytest.mark.xfail(
    strict=True, reason="a group whose records are more than 8 MiB is refused, where its commands are not"
)
def test_a_transaction_on_values_that_are_long_already_is_done_all_the_same(door: RespDoor, peer: RespPeer) -> None:
    door.shards = Refusing(SHARDS)
    replies = peer.ask_all((b"MULTI",), (b"APPEND", b"{t}a", b"1"), (b"APPEND", b"{t}b", b"1"), (b"EXEC",))
    assert replies == OK + QUEUED * 2 + b"*2\r\n:1\r\n:1\r\n"


# --- refused as a whole


@pytest.mark.parametrize("watch", [[], [(b"WATCH", ONE)]])
@pytest.mark.parametrize("rest", [(), ((b"RENAME", ONE, b"x"),)])
def test_where_a_shard_is_down_nothing_of_it_is_done(
    door: RespDoor, peer: RespPeer, watch: list[tuple[bytes, ...]], rest: tuple[tuple[bytes, ...], ...]
) -> None:
    commands = [(b"MULTI",), (b"SET", ONE, b"1"), (b"SET", OTHER, b"1"), *rest]
    peer.send_all([*watch, *commands])
    peer.output()
    door.dispatch.fail_shard(1)
    assert peer.ask(b"EXEC") == b"-LOADING the worker of this shard is away; retry\r\n"
    assert door.contents() == {}
    door.dispatch.shard_up(1)
    assert peer.ask(b"EXEC") == b"-ERR EXEC without MULTI\r\n"


def test_where_a_shard_does_not_take_all_of_it_nothing_is_done() -> None:
    door = RespDoor(shard_operations_max=8)
    peer = door.peer()
    sets = [(b"SET", b"%d" % number, b"v") for number in range(30)]
    assert peer.ask_all((b"MULTI",), *sets, (b"EXEC",)).endswith(
        QUEUED * 30 + b"-BUSY too much is in flight for this shard; retry later\r\n"
    )
    assert door.contents() == {}


def test_a_transaction_holds_no_more_than_a_connection_may(
    door: RespDoor, peer: RespPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kio.frontdoor.resp.runner._QUEUED_BYTES_MAX", 1_000)
    replies = peer.ask_all((b"MULTI",), (b"SET", ONE, bytes(500)), (b"SET", ONE, bytes(500)), (b"EXEC",))
    assert replies == OK + QUEUED + b"-ERR a transaction holds at most 1000 bytes\r\n" + ABORT
    assert peer.ask_all((b"MULTI",), (b"SET", ONE, bytes(500)), (b"EXEC",)) == OK + QUEUED + b"*1\r\n" + OK


@pytest.mark.parametrize("is_short_of_memory", [False, True])
def test_a_command_that_was_dropped_as_it_came_refuses_the_whole(is_short_of_memory: bool) -> None:
    door = RespDoor(value_bytes_max=1 << 20, half_frames_bytes_max=(300_000 if is_short_of_memory else 1 << 30))
    peer = door.peer()
    peer.ask_all((b"MULTI",), (b"SET", ONE, b"1"))
    long = command(b"SET", OTHER, bytes(900_000 if is_short_of_memory else 2 << 20))
    peer.feed(long[:400_000])
    peer.feed(long[400_000:])
    peer.send(b"EXEC")
    reply, _, rest = peer.output().partition(b"\r\n")
    assert reply.startswith(b"-BUSY " if is_short_of_memory else b"-ERR string exceeds")
    assert rest == ABORT
    assert door.contents() == {}


def test_exec_while_draining_is_refused(door: RespDoor, peer: RespPeer) -> None:
    peer.ask_all((b"MULTI",), (b"SET", ONE, b"1"))
    door.dispatch.draining = True
    assert peer.ask(b"EXEC") == b"-TRYAGAIN the daemon is stopping\r\n"
    assert door.contents() == {}


# --- WATCH


@pytest.mark.parametrize(
    "change",
    [(b"SET", ONE, b"v"), (b"SET", ONE, b"w"), (b"DEL", ONE), (b"EXPIRE", ONE, b"100"), (b"APPEND", ONE, b"")],
)
def test_any_write_to_a_watched_key_voids_the_transaction(
    door: RespDoor, peer: RespPeer, change: tuple[bytes, ...]
) -> None:
    other = door.peer()
    other.ask(b"SET", ONE, b"v")
    peer.ask_all((b"WATCH", ONE, OTHER), (b"MULTI",), (b"SET", OTHER, b"1"))
    other.ask(*change)
    assert peer.ask(b"EXEC") == b"*-1\r\n"
    assert OTHER not in door.contents()
    assert peer.ask_all((b"MULTI",), (b"SET", OTHER, b"1"), (b"EXEC",)) == OK + QUEUED + b"*1\r\n" + OK


def test_an_absent_key_that_comes_and_one_of_another_keyspace_are_seen(door: RespDoor, peer: RespPeer) -> None:
    other = door.peer()
    peer.ask_all((b"SELECT", b"1"), (b"WATCH", ONE), (b"SELECT", b"0"), (b"MULTI",), (b"SET", OTHER, b"1"))
    other.ask(b"SET", ONE, b"not this one")
    assert peer.ask(b"EXEC") == b"*1\r\n" + OK
    peer.ask_all((b"SELECT", b"1"), (b"WATCH", ONE), (b"SELECT", b"0"), (b"MULTI",), (b"SET", OTHER, b"2"))
    other.ask_all((b"SELECT", b"1"), (b"SET", ONE, b"this"))
    assert peer.ask(b"EXEC") == b"*-1\r\n"
    assert door.contents()[OTHER] == b"1"


def test_the_first_watch_of_a_key_counts_and_unwatch_forgets_it(door: RespDoor, peer: RespPeer) -> None:
    other = door.peer()
    peer.ask(b"WATCH", ONE)
    other.ask(b"SET", ONE, b"1")
    assert peer.ask_all((b"WATCH", ONE, ONE), (b"MULTI",), (b"EXEC",)) == OK + OK + b"*-1\r\n"
    peer.ask(b"WATCH", ONE)
    other.ask(b"SET", ONE, b"2")
    assert peer.ask_all((b"UNWATCH",), (b"MULTI",), (b"GET", ONE), (b"EXEC",)) == OK * 2 + QUEUED + b"*1\r\n" + bulk(
        b"2"
    )


def test_a_connection_watches_no_more_than_it_may_queue(peer: RespPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kio.frontdoor.resp.runner._QUEUED_BYTES_MAX", 1_000)
    keys = [b"%050d" % number for number in range(10)]
    refusal = b"-ERR a connection watches keys of at most 1000 bytes\r\n"
    assert peer.ask_all((b"WATCH", *keys[:5]), (b"WATCH", *keys[:5])) == OK + OK
    assert peer.ask(b"WATCH", *keys) == refusal
    assert peer.ask_all((b"WATCH", *keys[5:8]), (b"WATCH", keys[8])) == OK + refusal
    assert peer.ask_all((b"UNWATCH",), (b"WATCH", *keys[:8])) == OK + OK
    assert peer.ask_all((b"MULTI",), (b"EXEC",), (b"WATCH", *keys[:8])) == OK + b"*0\r\n" + OK
    assert peer.ask_all((b"RESET",), (b"WATCH", *keys[:8])) == b"+RESET\r\n" + OK


def test_all_connections_together_hold_no_more_than_they_may(door: RespDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kio.frontdoor.resp.runner._HELD_BYTES_MAX", 10_000)
    refusal = b"-BUSY the transactions of all clients hold 10000 bytes already; retry later\r\n"
    peers = [door.peer() for _ in range(4)]
    for peer in peers:
        assert peer.ask_all((b"WATCH", ONE), (b"MULTI",)) == OK + OK
    assert [peer.ask(b"SET", ONE, bytes(3_000)) for peer in peers] == [QUEUED] * 3 + [refusal]
    assert peers[3].ask(b"EXEC").startswith(b"-EXECABORT")
    peers[0].close()
    peers[1].ask(b"RESET")
    assert peers[2].ask(b"EXEC") == b"*1\r\n" + OK
    assert door.runner.sessions.held.bytes == 0
    assert peers[3].ask_all((b"WATCH", ONE), (b"UNWATCH",)) == OK + OK
    assert door.runner.sessions.held.bytes == 0
    assert peers[3].ask_all((b"MULTI",), (b"SET", ONE, bytes(9_000))) == OK + QUEUED
    assert peers[2].ask(b"WATCH", *(b"%0100d" % number for number in range(10))) == refusal


def test_watch_multi_and_exec_in_one_piece_watch(door: RespDoor, peer: RespPeer) -> None:
    other = door.peer()
    door.is_holding = True
    peer.send_all([(b"WATCH", ONE), (b"MULTI",), (b"SET", ONE, b"mine"), (b"EXEC",), (b"GET", ONE)])
    door.answer_all()  # the version is known; the others come
    other.send(b"SET", ONE, b"theirs")
    door.turn()
    door.let_go()
    assert peer.output() == OK + OK + QUEUED + b"*-1\r\n" + bulk(b"theirs")


def test_own_writes_between_watch_and_multi_void_it_too(peer: RespPeer) -> None:
    assert peer.ask_all((b"WATCH", ONE), (b"SET", ONE, b"1"), (b"MULTI",), (b"EXEC",)) == OK * 3 + b"*-1\r\n"


# --- what is about the connection


def test_what_is_about_the_connection_happens_in_its_turn_and_only_if_exec_does(door: RespDoor, peer: RespPeer) -> None:
    replies = peer.ask_all(
        (b"MULTI",), (b"SET", ONE, b"0"), (b"SELECT", b"1"), (b"SET", ONE, b"1"), (b"CLIENT", b"SETNAME", b"me"),
        (b"EXEC",), (b"GET", ONE), (b"SELECT", b"0"), (b"GET", ONE), (b"CLIENT", b"GETNAME"),
    )  # fmt: skip
    assert replies == OK + QUEUED * 4 + b"*4\r\n" + OK * 4 + bulk(b"1") + OK + bulk(b"0") + bulk(b"me")
    peer.ask_all((b"WATCH", ONE), (b"MULTI",), (b"SELECT", b"1"), (b"CLIENT", b"SETNAME", b"you"))
    door.peer().ask(b"SET", ONE, b"2")
    assert peer.ask_all((b"EXEC",), (b"GET", ONE), (b"CLIENT", b"GETNAME")) == b"*-1\r\n" + bulk(b"2") + bulk(b"me")


def test_a_select_that_is_refused_in_its_turn_leaves_the_others_where_they_are(peer: RespPeer) -> None:
    replies = peer.ask_all((b"MULTI",), (b"SELECT", b"16"), (b"SET", ONE, b"1"), (b"EXEC",), (b"GET", ONE))
    assert replies == OK + QUEUED * 2 + b"*2\r\n-ERR DB index is out of range\r\n" + OK + bulk(b"1")


def test_reset_ends_a_transaction(door: RespDoor, peer: RespPeer) -> None:
    replies = peer.ask_all((b"WATCH", ONE), (b"MULTI",), (b"SET", ONE, b"1"), (b"RESET",), (b"GET", ONE), (b"EXEC",))
    assert replies == OK * 2 + QUEUED + b"+RESET\r\n" + NIL + b"-ERR EXEC without MULTI\r\n"
