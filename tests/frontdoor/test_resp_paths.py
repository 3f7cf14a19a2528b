"""The common commands, which the kernel executes, against the same ones on their way through Python: alike in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.frontdoor.peer import key_of
from tests.frontdoor.resp_peer import OK, SHARDS, RespDoor, RespPeer, bulk

VALUE_MAX = 2_000
ONE, OTHER = key_of(0, SHARDS), key_of(1, SHARDS)
LONG_KEY = bytes(65_536)
HUGE = bytes(VALUE_MAX + 1)
FULL = bytes(VALUE_MAX)

#: What is there before; the number has an expiry.
BEFORE = (
    (b"SET", b"there", b"value"),
    (b"SET", b"number", b"41", b"PX", b"123456"),
    (b"SET", b"binary", bytes(range(256))),
    (b"SET", ONE, b"1"),
    (b"SET", OTHER, b"2"),
    (b"SET", b"low", b"-9223372036854775808"),
    (b"SET", b"rounds", b"", b"PX", b"1500"),
    (b"SET", b"short", b"", b"PX", b"499"),
)

FORMS: tuple[tuple[bytes, ...], ...] = (
    (b"GET", b"there"), (b"gEt", b"absent"), (b"GET", b"binary"), (b"GET", b""), (b"GET", b"there", b"x"), (b"GET",),
    (b"\0GET", b"there"), (b"GET\0", b"there"), (b"\0\0\0\0\0GET", b"there"), (b"GETGETGET", b"there"),
    (b"SET", b"k", b"v"), (b"SET", b"", b"v"), (b"SET", LONG_KEY, b"v"), (b"SET", b"k"), (b"SET", b"k", b""),
    (b"SET", b"there", b"v", b"NX"), (b"SET", b"k", b"v", b"nx"), (b"SET", b"k", b"v", b"XX"),
    (b"SET", b"there", b"v", b"XX"), (b"SET", b"k", b"v", b"NX", b"XX"), (b"SET", b"k", b"v", b"NX", b"NX"),
    (b"SET", b"k", b"v", b"EX", b"10"), (b"SET", b"k", b"v", b"px", b"10", b"NX"), (b"SET", b"k", b"v", b"EX"),
    (b"SET", b"k", b"v", b"EX", b"0"), (b"SET", b"k", b"v", b"EX", b"-1"), (b"SET", b"k", b"v", b"EX", b"x"),
    (b"SET", b"k", b"v", b"EX", b"010"), (b"SET", b"k", b"v", b"EX", b"10", b"PX", b"10"),
    (b"SET", b"k", b"v", b"EX", b"10", b"EX", b"20"), (b"SET", b"k", b"v", b"EX", b"9223372036854775807"),
    (b"SET", b"k", b"v", b"PX", b"1125899906842624"), (b"SET", b"k", b"v", b"PX", b"1125899906842625"),
    (b"SET", b"k", b"v", b"\0EX", b"10"), (b"SET", b"k", b"v", b"\0\0NX"), (b"SET", b"k", b"v", b"GET"),
    (b"SET", b"k", b"v", b"KEEPTTL"), (b"SET", b"number", b"1", b"EX", b"10"), (b"SET", b"k", b"v", b""),
    (b"SET", b"k", FULL), (b"SET", b"k", HUGE), (b"SET", b"k", FULL, b"EX", b"10"), (b"SET", b"k", HUGE, b"PX", b"1"),
    (b"SET", b"k", FULL, b"NX", b"PX", b"10000"), (b"SETEX", b"k", b"10", FULL), (b"PSETEX", b"k", b"10", HUGE),
    (b"SETEX", b"k", b"10", b"v"), (b"SETEX", b"k", b"0", b"v"), (b"SETEX", b"k", b"x", b"v"),
    (b"SETEX", b"", b"1", b""),
    (b"PSETEX", b"k", b"10", b"v"), (b"psetex", b"k", b"-10", b"v"), (b"SETEX", b"k", b"10"),
    (b"SETNX", b"there", b"v"), (b"SETNX", b"k", b"v"), (b"SETNX", b"", b"v"), (b"SETNX", b"k", HUGE),
    (b"GETSET", b"there", b"v"), (b"GETSET", b"k", b"v"), (b"GETSET", b"number", b"v"), (b"GETSET", b"k", HUGE),
    (b"GETDEL", b"there"), (b"GETDEL", b"absent"), (b"GETDEL", b""),
    (b"APPEND", b"there", b"x"), (b"APPEND", b"k", b""), (b"APPEND", b"number", b"1"), (b"APPEND", b"k", HUGE),
    (b"INCR", b"number"), (b"INCR", b"k"), (b"INCR", b"there"), (b"DECR", b"low"), (b"DECR", b"number"), (b"INCR", b""),
    (b"INCRBY", b"number", b"-5"), (b"INCRBY", b"number", b"x"), (b"INCRBY", b"number", b"9223372036854775807"),
    (b"INCRBY", b"number", b"-9223372036854775808"), (b"INCRBY", b"number", b"+1"), (b"INCRBY", b"number", b""),
    (b"DECRBY", b"number", b"5"), (b"DECRBY", b"low", b"1"), (b"DECRBY", b"number", b"-9223372036854775808"),
    (b"DECRBY", b"number", b"999999999999999999"), (b"INCRBY", b"there", b"1"), (b"INCRBY", b"number"),
    (b"EXPIRE", b"there", b"10"), (b"EXPIRE", b"absent", b"10"), (b"EXPIRE", b"there", b"0"),
    (b"EXPIRE", b"there", b"-1"),
    (b"EXPIRE", b"there", b"x"), (b"PEXPIRE", b"there", b"10"), (b"PEXPIRE", b"number", b"999999"),
    (b"EXPIRE", b"there", b"99999999999999999"), (b"EXPIRE", b"there", b"9223372036854775807"), (b"EXPIRE", b"", b"1"),
    (b"PERSIST", b"there"), (b"PERSIST", b"number"), (b"PERSIST", b"absent"),
    (b"TTL", b"there"), (b"TTL", b"number"), (b"TTL", b"absent"), (b"TTL", b"rounds"), (b"TTL", b"short"),
    (b"TTL", b""),
    (b"PTTL", b"there"), (b"PTTL", b"number"), (b"PTTL", b"absent"), (b"PTTL", b"short"),
    (b"DEL", b"there"), (b"DEL", b"absent"), (b"DEL", b"there", b"absent", b"number"), (b"DEL", b"there", b"there"),
    (b"DEL", b""), (b"DEL", ONE, b"", OTHER), (b"DEL", ONE, LONG_KEY), (b"DEL",), (b"UNLINK", ONE, OTHER, b"absent"),
    (b"UNLINK", b"", ONE), (b"EXISTS", b"there"), (b"EXISTS", b"absent"), (b"EXISTS", b"there", b"there", b"absent"),
    (b"EXISTS", ONE, b""), (b"TOUCH", ONE, OTHER, b"absent"), (b"TOUCH", LONG_KEY),
    (b"MGET", b"there"), (b"MGET", b"absent"), (b"MGET", ONE, b"absent", OTHER, ONE), (b"MGET", ONE, b""), (b"MGET",),
    (b"MGET", LONG_KEY, ONE),
    (b"MSET", b"k", b"v"), (b"MSET", ONE, b"x", OTHER, b"y"), (b"MSET", ONE, b"x", ONE, b"y"), (b"MSET", ONE),
    (b"MSET", ONE, b"x", OTHER), (b"MSET", ONE, b"x", b"", b"y"), (b"MSET", ONE, b"x", LONG_KEY, b"y"),
    (b"MSET", b"number", b"1", ONE, b""), (b"MSET", b"k", HUGE), (b"MSET",),
    (b"PING",), (b"PING", b"x"), (b"PING", b""), (b"PING", b"x", b"y"), (b"ECHO", b"x"), (b"ECHO",), (b"ECHO", b"\r\n"),
)  # fmt: skip


def outcome(arrange: Callable[[RespDoor], None], form: tuple[bytes, ...], version: bytes, is_slow: bool) -> Any:
    """The reply, and what is in the shards then."""
    door = RespDoor(value_bytes_max=VALUE_MAX)
    other = door.peer()
    other.send_all(BEFORE)
    peer = door.peer()
    peer.send(b"HELLO", version)
    peer.output()
    arrange(door)
    peer.dispatch.tune(peer.id, slow=is_slow)
    peer.send(*form)
    reply = peer.output()
    # Plans set some expiries as times since 1970, by the door's clock, which is not the shards'.
    expiries = [{key: version.expire_at > 0 for key, version in shard.items()} for shard in door.shards.versions]
    contents = [dict(shard) for shard in door.shards.keys]
    assert reply
    return reply, contents, expiries


def as_ever(door: RespDoor) -> None:
    pass


def first_is_down(door: RespDoor) -> None:
    door.dispatch.fail_shard(0)


def all_are_down(door: RespDoor) -> None:
    for number in range(SHARDS):
        door.dispatch.fail_shard(number)


def draining(door: RespDoor) -> None:
    door.dispatch.draining = True


@pytest.mark.parametrize("version", [b"2", b"3"])
def test_every_form_is_answered_and_done_alike(version: bytes) -> None:
    for form in FORMS:
        fast, slow = (outcome(as_ever, form, version, is_slow) for is_slow in (False, True))
        assert fast == slow, [word[:30] for word in form]


@pytest.mark.parametrize("arrange", [first_is_down, all_are_down, draining])
def test_what_cannot_be_done_is_refused_alike(arrange: Callable[[RespDoor], None]) -> None:
    for form in FORMS:
        fast, slow = (outcome(arrange, form, b"2", is_slow) for is_slow in (False, True))
        assert fast == slow, [word[:30] for word in form]


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_shard_that_is_full_is_told_alike(is_slow: bool) -> None:
    door = RespDoor(shard_operations_max=8, value_bytes_max=VALUE_MAX)
    door.is_holding = True
    greedy = door.peer()
    greedy.send(b"MGET", *[ONE] * 8)
    peer = door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    busy = b"-BUSY too much is in flight for this shard; retry later\r\n"
    for form in (
        (b"GET", ONE),
        (b"SET", ONE, b"v"),
        (b"MGET", ONE),
        (b"MSET", ONE, b"x"),
        (b"INCR", ONE),
        (b"TTL", ONE),
    ):
        assert peer.ask(*form) == busy
    door.is_holding = False
    door.turn()
    assert door.contents() == {}
    assert peer.ask(b"GET", ONE) == b"$-1\r\n"


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("keys", [(ONE, OTHER), (OTHER, ONE)])
def test_a_write_of_several_values_is_refused_as_a_whole_where_a_shard_is_down(
    is_slow: bool, keys: tuple[bytes, bytes]
) -> None:
    door = RespDoor()
    peer = door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    door.dispatch.fail_shard(1)
    reply = peer.ask(b"MSET", keys[0], b"x", keys[1], b"y")
    assert reply == b"-LOADING the worker of this shard is away; retry\r\n"
    assert door.contents() == {}
    assert peer.ask(b"MSET", ONE, b"x", b"", b"y").startswith(b"-ERR a key has at least")
    assert door.contents() == {}
    door.dispatch.shard_up(1)
    assert peer.ask(b"MSET", keys[0], b"x", keys[1], b"y") == OK


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_write_of_several_values_is_refused_as_a_whole_where_a_shard_is_full(is_slow: bool) -> None:
    door = RespDoor(shard_operations_max=8)
    greedy, peer = door.peer(), door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    door.is_holding = True
    greedy.send(b"MGET", *[OTHER] * 8)
    assert peer.ask(b"MSET", ONE, b"x", OTHER, b"y").startswith(b"-BUSY ")
    door.let_go()
    assert door.contents() == {}


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_write_of_more_values_than_a_shard_takes_is_refused_as_a_whole(is_slow: bool) -> None:
    door = RespDoor(shards=1, shard_operations_max=64)
    peer = door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    many = [each for i in range(3_000) for each in (b"%d" % i, bytes(3_000))]
    assert peer.ask(b"MSET", *many).startswith(b"-BUSY ")
    assert door.contents() == {}


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_value_that_is_too_long_among_several_keeps_all_of_them_out(is_slow: bool) -> None:
    door = RespDoor(value_bytes_max=VALUE_MAX)
    peer = door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    for keys in ((ONE, OTHER), (ONE, b"%b" % ONE), (OTHER, ONE)):
        assert peer.ask(b"MSET", keys[0], b"x", keys[1], HUGE).startswith(b"-ERR string exceeds")
        assert door.contents() == {}


def test_a_function_gets_a_value_of_the_longest_length() -> None:
    door = RespDoor(value_bytes_max=VALUE_MAX)
    peer = door.peer()
    assert peer.ask(b"SET", b"k", FULL, b"GET", b"NX") == b"$-1\r\n"
    assert peer.ask(b"SETRANGE", b"k", b"0", FULL) == b":%d\r\n" % VALUE_MAX
    assert peer.ask(b"SET", b"k", b"v", b"IFEQ", FULL) == OK
    assert door.contents() == {b"k": b"v"}


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_worker_that_dies_leaves_writes_that_may_be_applied_and_reads_that_were_not(is_slow: bool) -> None:
    door = RespDoor()
    peer: RespPeer = door.peer()
    peer.dispatch.tune(peer.id, slow=is_slow)
    for _ in range(8):  # whose replies were short is let ask for many at once
        peer.ask(b"GET", ONE)
    door.is_holding = True
    peer.send_all([(b"GET", ONE), (b"SET", ONE, b"v"), (b"DEL", ONE), (b"INCR", ONE), (b"TTL", ONE), (b"GET", OTHER)])
    door.dispatch.fail_shard(0)
    door.let_go()
    down = b"-LOADING the worker of this shard is away; retry"
    maybe = down + b"; it may have been applied\r\n"
    assert peer.output() == down + b"\r\n" + maybe * 3 + down + b"\r\n$-1\r\n"


def test_replies_keep_the_order_of_commands_whatever_way_they_go() -> None:
    door = RespDoor()
    peer = door.peer()
    door.is_holding = True
    peer.send_all([(b"SET", ONE, b"1"), (b"STRLEN", OTHER), (b"PING",), (b"INCR", ONE), (b"ECHO", b"x"), (b"NOSUCH",)])
    peer.feed(b"PING line\r\n")
    peer.send_all([(b"MGET", ONE, OTHER), (b"RENAME", ONE, OTHER), (b"GET", ONE), (b"GET", OTHER)])
    # The shard that answers last has the first commands.
    door.held.sort(key=lambda batch: -batch[0])
    door.let_go()
    assert peer.output() == (
        OK + b":0\r\n+PONG\r\n:2\r\n" + bulk(b"x") + b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
        + bulk(b"line") + b"*2\r\n" + bulk(b"2") + b"$-1\r\n" + OK + b"$-1\r\n" + bulk(b"2")
    )  # fmt: skip
