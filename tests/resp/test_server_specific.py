"""What a server answers about itself, in an order of its own, or in another form of request: compared by its shape."""

from __future__ import annotations

import time

import pytest

from tests.resp.resp_codec import (
    NULL,
    NULL_ARRAY,
    NULL_BULK,
    Array,
    Connection,
    Error,
    Map,
    Reply,
    Simple,
    Verbatim,
    command,
)
from tests.resp.servers import Server

OK = Simple(b"OK")
PATTERNS = (b"*", b"k*", b"k?", b"[ab]*", b"[^k]*", b"*\r\n*", b"k\\1", b"", b"nothing", b"h[a-c]llo", b"\\*", b"**1")
NAMES = (b"k1", b"k2", b"k12", b"a", b"b", b"hallo", b"hbllo", b"hdllo", b"*", b"\r\n", b"x\r\ny", b"\xff\0")


def scan(connection: Connection, *options: str | bytes | int) -> list[bytes]:
    """All keys, in the order of their coming."""
    found: list[bytes] = []
    cursor: Reply = b"0"
    while True:
        assert isinstance(cursor, bytes)
        page = connection.call("SCAN", cursor, *options)
        assert isinstance(page, Array), page
        cursor, keys = page.items
        assert isinstance(cursor, bytes)
        assert cursor.isdigit(), "clients take a cursor for a number"
        assert int(cursor) < 1 << 64
        assert isinstance(keys, Array)
        found += [key for key in keys if isinstance(key, bytes)]
        if cursor == b"0":
            return found


@pytest.mark.parametrize("protocol", [2, 3])
def test_keys_and_scan_match_as_redis_does(redis: Server, kio: Server, protocol: int) -> None:
    found = []
    for server in (redis, kio):
        server.flush()
        with server.connect(protocol) as connection:
            assert connection.call("MSET", *(word for name in NAMES for word in (name, b"v"))) == OK
            answers = {}
            for pattern in PATTERNS:
                keys = connection.call("KEYS", pattern)
                assert isinstance(keys, Array)
                answers[pattern] = sorted(keys.items, key=repr)
                assert sorted(scan(connection, "MATCH", pattern), key=repr) == answers[pattern], pattern
            found.append(answers)
    assert found[0] == found[1]


def test_scan_returns_every_key_with_any_count_and_only_keys_of_its_type(server: Server) -> None:
    wanted = {b"key:%d" % number for number in range(500)}
    with server.connect() as connection:
        connection.calls(*(("SET", key, b"v") for key in wanted))
        for count in (1, 7, 10, 499, 100_000):
            assert set(scan(connection, "COUNT", count)) == wanted
        assert set(scan(connection, "TYPE", "string", "COUNT", 100)) == wanted
        assert scan(connection, "type", "list", "count", 100) == []
        connection.call("SELECT", 1)
        assert scan(connection) == []


def test_an_expired_key_is_in_no_list(server: Server) -> None:
    with server.connect() as connection:
        connection.call("SET", "short", "v", "PX", 1)
        connection.call("SET", "long", "v", "EX", 1000)
        time.sleep(0.05)
        assert connection.call("KEYS", "*") == Array((b"long",))
        assert scan(connection) == [b"long"]
        assert connection.call("RANDOMKEY") == b"long"


@pytest.mark.parametrize(("protocol", "null"), [(2, NULL_BULK), (3, NULL)])
def test_a_random_key_is_one_of_the_keys_or_null(server: Server, protocol: int, null: Reply) -> None:
    with server.connect(protocol) as connection:
        assert connection.call("RANDOMKEY") == null
        connection.call("MSET", "a", 1, "b", 2, "c", 3)
        seen = {connection.call("RANDOMKEY") for _ in range(200)}
        assert seen == {b"a", b"b", b"c"}


def test_the_time_is_now_in_seconds_and_microseconds(server: Server) -> None:
    with server.connect() as connection:
        answer = connection.call("TIME")
    assert isinstance(answer, Array)
    seconds, micros = (int(item) for item in answer if isinstance(item, bytes))
    assert abs(seconds - time.time()) < 5
    assert 0 <= micros < 1_000_000


@pytest.mark.parametrize("protocol", [2, 3])
def test_info_is_lines_of_name_and_value_under_headings(server: Server, protocol: int) -> None:
    with server.connect(protocol) as connection:
        answer = connection.call("INFO")
        if protocol == 3:
            assert isinstance(answer, Verbatim)
            assert answer.kind == b"txt"
            text = answer.text
        else:
            assert isinstance(answer, bytes)
            text = answer
    lines = [line for line in text.split(b"\r\n") if line]
    assert lines[0].startswith(b"# ")
    assert all(b":" in line for line in lines if not line.startswith(b"#"))
    assert any(line.startswith(b"redis_version:") for line in lines), "clients choose their commands by it"


def test_a_client_has_a_number_of_its_own(server: Server) -> None:
    with server.connect() as one, server.connect() as other:
        first, second = one.call("CLIENT", "ID"), other.call("CLIENT", "ID")
        assert isinstance(first, int)
        assert isinstance(second, int)
        assert 0 < first < second
        assert one.call("CLIENT", "ID") == first


def test_what_clients_ask_at_the_start_is_answered(server: Server) -> None:
    with server.connect() as connection:
        assert isinstance(connection.call("COMMAND", "COUNT"), int)
        assert isinstance(connection.call("COMMAND", "DOCS"), Array)
        setinfo = connection.call("CLIENT", "SETINFO", "LIB-NAME", "here")
        assert setinfo == OK or isinstance(setinfo, Error)
        assert connection.call("PING") == Simple(b"PONG")


def test_a_greeting_in_resp3_is_a_map(server: Server) -> None:
    with server.connect() as connection:
        greeting = connection.call("HELLO", 3)
        assert isinstance(greeting, Map)
        assert dict(greeting.pairs)[b"proto"] == 3
        assert dict(greeting.pairs)[b"role"] == b"master"
        assert connection.call("GET", "k") == NULL
        again = connection.call("HELLO", 2)
        assert isinstance(again, Array)
        assert connection.call("GET", "k") == NULL_BULK


def test_quit_is_answered_and_the_connection_closed(server: Server) -> None:
    with server.connect() as connection:
        assert connection.call("QUIT") == OK
        with pytest.raises(ConnectionError):
            connection.call("PING")


INLINE = (
    b"PING\r\n",
    b"PING\n",
    b"  ping  \r\n",
    b"\r\n",
    b"\r\n\r\nPING\r\n",
    b"SET k v\r\n",
    b'SET k "a b\\x41\\n"\r\nGET k\r\n',
    b"SET k 'a \\' b\\n'\r\nGET k\r\n",
    b'SET k ""\r\nGET k\r\n',
    b"NOSUCH\r\n",
    b"GET\r\n",
    b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"GET k\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n",
)
#: Each ends the connection.
BROKEN = (
    b'SET k "a\r\n',
    b"SET k 'a'b\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n:1\r\n",
    b"*x\r\n",
    b"*2147483648\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*1\r\nPING\r\n",
    b"x" * 65_537,
    b"*" + b"1" * 65_537,
)


def replies(server: Server, wire: bytes) -> list[Reply]:
    """All that is answered to these bytes, until the server closes or has answered an ECHO that they end with."""
    answers: list[Reply] = []
    with server.connect() as connection:
        connection.send(wire)
        while answers[-1:] != [b"the end"]:
            try:
                answers.append(connection.receive())
            except ConnectionError:
                answers.append(Simple(b"closed"))
                break
    return answers


@pytest.mark.parametrize("wire", INLINE)
def test_an_inline_command_is_answered_as_redis_does(redis: Server, kio: Server, wire: bytes) -> None:
    redis.flush()
    kio.flush()
    wire += command("ECHO", "the end")
    assert replies(kio, wire) == replies(redis, wire)


@pytest.mark.parametrize("wire", BROKEN, ids=lambda wire: repr(wire[:24]))
def test_a_broken_request_gets_one_protocol_error_and_the_end(redis: Server, kio: Server, wire: bytes) -> None:
    ours = replies(redis, wire)
    assert isinstance(ours[0], Error), "this is no broken request"
    theirs = replies(kio, wire)
    assert [type(reply) for reply in theirs] == [type(reply) for reply in ours]
    assert isinstance(theirs[0], Error)
    assert theirs[0].text.startswith(b"ERR Protocol error")
    assert theirs[-1] == Simple(b"closed")


@pytest.mark.parametrize("value", [b"0", b"-1", b"9223372036854775807", b"01", b"9223372036854775808", b"", b"x" * 44])
def test_the_encoding_of_a_value_that_was_just_set_is_redis_own(redis: Server, kio: Server, value: bytes) -> None:
    answers = []
    for server in (redis, kio):
        with server.connect() as connection:
            connection.call("SET", "k", value)
            answers.append(connection.call("OBJECT", "ENCODING", "k"))
    assert answers[0] == answers[1]


def test_replies_of_a_long_pipeline_keep_their_order(server: Server) -> None:
    with server.connect() as connection:
        told = [("SET", f"k{number}", number) if number % 2 else ("GET", f"k{number - 1}") for number in range(20_000)]
        wanted: list[Reply] = [OK if number % 2 else NULL_BULK for number in range(20_000)]
        for number in range(2, 20_000, 2):
            wanted[number] = b"%d" % (number - 1)
        assert connection.calls(*told) == wanted


def test_an_unread_transaction_ends_with_its_connection(server: Server) -> None:
    with server.connect() as connection:
        connection.calls(("MULTI",), ("SET", "k", "v"))
    with server.connect() as connection:
        assert connection.call("GET", "k") == NULL_BULK
        connection.calls(("MULTI",), ("GET", "k"))
        assert connection.call("EXEC") == Array((NULL_BULK,))
        connection.call("WATCH", "k")
        connection.call("SET", "k", "v")
        connection.calls(("MULTI",), ("GET", "k"))
        assert connection.call("EXEC") == NULL_ARRAY
