"""Commands about a connection, among the others of it: CLIENT REPLY, PAUSE and KILL, QUIT, RESET, HELLO, AUTH."""

from __future__ import annotations

import pytest

from tests.frontdoor.resp_peer import NIL, OK, QUEUED, RespDoor, RespPeer, bulk, command

PONG = b"+PONG\r\n"
SET = (b"SET", b"k", b"v")
GET = (b"GET", b"k")
PING = (b"PING",)
ABSENT = (b"GET", b"absent")


@pytest.fixture
def door() -> RespDoor:
    return RespDoor()


@pytest.fixture
def peer(door: RespDoor) -> RespPeer:
    return door.peer()


# --- CLIENT REPLY


@pytest.mark.parametrize("is_slow", [False, True])
def test_off_is_silent_until_on_and_what_came_before_is_answered(peer: RespPeer, is_slow: bool) -> None:
    peer.dispatch.tune(peer.id, slow=is_slow)
    replies = peer.ask_all(
        SET, (b"CLIENT", b"REPLY", b"OFF"), PING, GET, (b"SET", b"l", b"1"), (b"NOSUCH",), (b"MGET", b"k", b"l"),
        (b"RENAME", b"l", b"m"), (b"CLIENT", b"REPLY", b"ON"), GET,
    )  # fmt: skip
    assert replies == OK + OK + bulk(b"v")
    assert peer.door.contents() == {b"k": b"v", b"m": b"1"}


@pytest.mark.parametrize("is_slow", [False, True])
def test_skip_is_about_the_next_command_only(peer: RespPeer, is_slow: bool) -> None:
    peer.dispatch.tune(peer.id, slow=is_slow)
    skip = (b"CLIENT", b"REPLY", b"SKIP")
    assert peer.ask_all(SET, skip, PING, GET, skip, GET, PING, skip, skip, GET, PING) == OK + bulk(b"v") + PONG + PONG
    off, on = (b"CLIENT", b"REPLY", b"OFF"), (b"CLIENT", b"REPLY", b"ON")
    assert peer.ask_all(off, skip, GET, GET, on, GET) == OK + bulk(b"v")


def test_a_silent_connection_that_breaks_the_protocol_is_closed_as_any(peer: RespPeer) -> None:
    peer.send(b"CLIENT", b"REPLY", b"OFF")
    peer.feed(b"*x\r\n")
    assert peer.output() == b""
    assert peer.is_over


def test_reset_is_answered_also_where_nothing_else_was(peer: RespPeer) -> None:
    peer.send_all([(b"CLIENT", b"REPLY", b"OFF"), (b"SELECT", b"3"), (b"HELLO", b"3"), (b"MULTI",), PING])
    assert peer.ask(b"RESET") == b"+RESET\r\n"
    assert peer.ask_all(SET, ABSENT, PING) == OK + NIL + PONG
    assert peer.door.contents() == {b"k": b"v"}


# --- CLIENT PAUSE


def test_commands_are_kept_while_paused_and_run_in_the_order_in_which_they_came(door: RespDoor) -> None:
    admin, *peers = (door.peer() for _ in range(4))
    assert admin.ask(b"CLIENT", b"PAUSE", b"100000") == OK
    for number, peer in enumerate(peers):
        peer.send_all([(b"APPEND", b"k", b"%d" % number), (b"APPEND", b"k", b"x"), PING])
        assert peer.output() == b""
    assert door.contents() == {}
    late = door.peer()
    late.send(*GET)
    assert admin.ask(b"CLIENT", b"UNPAUSE") == OK
    assert [peer.output() for peer in peers] == [b":1\r\n:4\r\n" + PONG, b":2\r\n:5\r\n" + PONG, b":3\r\n:6\r\n" + PONG]
    assert late.output() == bulk(b"012")
    assert door.contents() == {b"k": b"012xxx"}


def test_a_pause_of_writes_lets_reads_through(door: RespDoor) -> None:
    admin, peer, reader = (door.peer() for _ in range(3))
    peer.ask(*SET)
    admin.ask(b"CLIENT", b"PAUSE", b"100000", b"WRITE")
    assert reader.ask_all(GET, PING, (b"STRLEN", b"k")) == bulk(b"v") + PONG + b":1\r\n"
    assert peer.ask_all(GET, (b"DEL", b"k"), GET) == bulk(b"v")
    admin.ask(b"CLIENT", b"UNPAUSE")
    assert peer.output() == b":1\r\n" + NIL


def test_a_pause_ends_by_itself(door: RespDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("kio.frontdoor.resp.runner.monotonic_s", lambda: now[0])
    admin, peer = door.peer(), door.peer()
    admin.ask(b"CLIENT", b"PAUSE", b"5000")
    peer.send(*SET)
    now[0] = 104.9
    door.runner.tick()
    door.turn()
    assert peer.output() == b""
    now[0] = 105.1
    door.runner.tick()
    door.turn()
    assert peer.output() == OK
    assert door.runner.calls == {"client": 1, "set": 1}


def test_what_a_connection_that_has_gone_sent_during_a_pause_is_forgotten(door: RespDoor) -> None:
    admin = door.peer()
    admin.ask(b"CLIENT", b"PAUSE", b"100000")
    for _ in range(10):
        peer = door.peer()
        peer.send(b"SET", b"k", bytes(10_000))
        peer.close()
    assert not door.runner._kept
    admin.ask(b"CLIENT", b"UNPAUSE")
    assert door.contents() == {}
    assert door.dispatch.requests == 0


def test_commands_of_a_transaction_are_kept_as_any_other(door: RespDoor) -> None:
    admin, peer = door.peer(), door.peer()
    peer.ask_all((b"MULTI",), SET)
    admin.ask(b"CLIENT", b"PAUSE", b"100000")
    assert peer.ask_all((b"APPEND", b"k", b"w"), (b"EXEC",)) == b""
    admin.ask(b"CLIENT", b"UNPAUSE")
    assert peer.output() == QUEUED + b"*2\r\n+OK\r\n:2\r\n"


# --- the end of a connection


def test_quit_answers_what_came_before_and_takes_nothing_after(door: RespDoor) -> None:
    door.is_holding = True
    peer = door.peer()
    peer.send_all([SET, (b"STRLEN", b"k"), (b"QUIT",), (b"SET", b"k", b"later")])
    assert peer.output() == b""
    assert not peer.is_over
    door.let_go()
    assert peer.output() == OK + b":1\r\n" + OK
    assert peer.is_over
    assert door.contents() == {b"k": b"v"}


def test_quit_works_within_multi_and_when_nothing_is_answered(door: RespDoor) -> None:
    peer = door.peer()
    assert peer.ask_all((b"MULTI",), SET, (b"QUIT",), (b"EXEC",)) == OK + QUEUED + OK
    assert peer.is_over
    silent = door.peer()
    assert silent.ask_all((b"CLIENT", b"REPLY", b"OFF"), (b"QUIT",)) == b""
    assert silent.is_over
    assert door.contents() == {}


def test_a_connection_kills_others_and_itself(door: RespDoor) -> None:
    peer, other, third = (door.peer() for _ in range(3))
    address = third.session.peer.encode()
    assert peer.ask(b"CLIENT", b"KILL", b"ID", b"%d" % other.id) == b":1\r\n"
    assert other.id not in door.peers
    assert peer.ask(b"CLIENT", b"KILL", b"ID", b"%d" % other.id) == b":0\r\n"
    assert peer.ask(b"CLIENT", b"KILL", address) == OK
    assert peer.ask(b"CLIENT", b"KILL", address) == b"-ERR No such client\r\n"
    assert peer.ask(b"CLIENT", b"KILL", b"ID", b"%d" % peer.id) == b":0\r\n", "itself it skips, unless told not to"
    replies = peer.ask_all((b"CLIENT", b"KILL", b"ID", b"%d" % peer.id, b"SKIPME", b"no"), SET)
    assert replies == b":1\r\n"
    assert peer.is_over
    assert door.contents() == {}


def test_a_killed_connection_leaves_its_job_to_its_end(door: RespDoor) -> None:
    peer, other = door.peer(), door.peer()
    other.ask(*SET)
    door.is_holding = True
    other.send(b"RENAME", b"k", b"l")
    peer.send(b"CLIENT", b"KILL", b"ID", b"%d" % other.id)
    assert other.id not in door.peers
    door.let_go()
    assert peer.output() == b":1\r\n"
    assert door.contents() == {b"l": b"v"}
    assert door.runner._jobs._holds.held == frozenset()


# --- versions


@pytest.mark.parametrize("is_slow", [False, True])
def test_each_reply_is_of_the_version_in_which_its_command_came(door: RespDoor, is_slow: bool) -> None:
    peer = door.peer()
    if is_slow:
        peer.send_all([(b"CLIENT", b"PAUSE", b"100000", b"WRITE")])
        peer.output()
    door.is_holding = True
    peer.send_all([ABSENT, (b"MGET", b"a"), (b"STRLEN", b"a"), (b"HELLO", b"3"), ABSENT, (b"MGET", b"a")])
    peer.send_all([(b"HELLO", b"2"), ABSENT, (b"HELLO",)])
    door.let_go()
    parts = peer.output()
    assert parts.startswith(NIL + b"*1\r\n" + NIL + b":0\r\n%7\r\n$6\r\nserver\r\n")
    assert b"_\r\n*1\r\n_\r\n*14\r\n" in parts
    assert parts.count(NIL) == 3
    assert parts.count(b"*14\r\n") == 2


def test_a_job_answers_in_the_version_in_which_its_command_came(door: RespDoor) -> None:
    peer = door.peer()
    exec_ = [(b"WATCH", b"k"), (b"MULTI",), ABSENT, (b"EXEC",)]
    assert peer.ask_all(*exec_, (b"HELLO", b"3"), *exec_).count(b"*1\r\n" + NIL) == 1
    assert peer.ask_all(*exec_) == OK + OK + QUEUED + b"*1\r\n_\r\n"
    other = door.peer()
    assert peer.ask_all((b"WATCH", b"k"), (b"MULTI",)) == OK + OK
    other.ask(*SET)
    assert peer.ask(b"EXEC") == b"_\r\n"
    assert other.ask_all((b"WATCH", b"k"), (b"MULTI",)) == OK + OK
    peer.ask(b"DEL", b"k")
    assert other.ask(b"EXEC") == b"*-1\r\n"


def test_a_hello_that_is_refused_changes_nothing(peer: RespPeer) -> None:
    assert peer.ask(b"HELLO", b"4").startswith(b"-NOPROTO ")
    assert peer.ask(b"HELLO", b"x").startswith(b"-ERR Protocol version")
    assert peer.ask(b"HELLO", b"3", b"AUTH", b"default", b"wrong").startswith(b"-WRONGPASS ")
    assert peer.ask(b"HELLO", b"3", b"SETNAME", b"a b").startswith(b"-ERR Client names")
    assert peer.ask(b"HELLO", b"3", b"SETNAME").startswith(b"-ERR Syntax error")
    assert peer.ask_all(ABSENT, (b"CLIENT", b"GETNAME")) == NIL + NIL


def test_an_error_is_one_line_whatever_the_command_was(peer: RespPeer) -> None:
    for words in ((b"NO\r\nSUCH", b"\r\n+OK\r\n"), (b"CLIENT", b"a\r\nb"), (b"\xff\xfe\n", b"\x00"), (b"SET", b"k")):
        reply = peer.ask(*words)
        assert reply.startswith(b"-ERR ")
        assert reply.index(b"\n") == len(reply) - 1
    assert peer.ask(*PING) == PONG


def test_commands_and_lines_may_be_mixed(peer: RespPeer) -> None:
    peer.feed(command(*SET) + b"GET k\r\n" + command(*PING) + b"\r\nSTRLEN k\r\nPING\n" + command(*GET))
    peer.door.turn()
    assert peer.output() == OK + bulk(b"v") + PONG + b":1\r\n" + PONG + bulk(b"v")
