"""The server that does nothing: right replies however commands are cut, an exact delay, an end with its stdin."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from kio import connect, wire
from kio.bench.noop import NativeResponder, RespResponder
from kio.bench.resp import command
from kio.errors import ProtocolError, UnknownOperation
from tests.bench.servers import noop_process

COMMANDS = [
    (command(b"GET", b"k1"), b"$3\r\nabc\r\n"),
    (command(b"GET", b"k2"), b"$3\r\nabc\r\n"),
    (command(b"get", b"*\r\n"), b"$3\r\nabc\r\n"),
    (command(b"GET", b"k" * 500), b"$3\r\nabc\r\n"),
    (command(b"SET", b"k", b"v" * 3000), b"+OK\r\n"),
    (command(b"SET", b"k", b"*3\r\n$3\r\nSET\r\n"), b"+OK\r\n"),
    (command(b"MGET", b"a", b"b"), b"*2\r\n$3\r\nabc\r\n$3\r\nabc\r\n"),
    (command(b"MSET", b"a", b"1", b"b", b"2"), b"+OK\r\n"),
    (command(b"SET", b"k", b"v", b"PX", b"100"), b"+OK\r\n"),
    (command(b"DEL", b"a"), b":1\r\n"),
    (command(b"INCR", b"a#"), b":1\r\n"),
    (command(b"PING"), b"+PONG\r\n"),
    (command(b"FLUSHALL"), b"-ERR unknown command\r\n"),
    (command(b"GET", b"k3"), b"$3\r\nabc\r\n"),
]


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 100, 1000, 100_000])
def test_every_command_gets_its_reply_however_the_stream_is_cut(piece_bytes: int) -> None:
    responder = RespResponder(b"abc")
    data = b"".join(asked for asked, _ in COMMANDS) * 3
    got = b"".join(
        reply for at in range(0, len(data), piece_bytes) for reply in responder.take(data[at : at + piece_bytes])
    )
    assert got == b"".join(answer for _, answer in COMMANDS) * 3


def test_a_run_of_commands_that_look_alike_is_answered_command_by_command() -> None:
    responder = RespResponder(b"abc")
    data = b"".join(command(b"GET", b"%05d" % i) for i in range(1000))
    assert b"".join(responder.take(data)) == b"$3\r\nabc\r\n" * 1000


@pytest.mark.parametrize("data", [b"PING\r\n", b"*1\r\n:1\r\n", b"*x\r\n", b"*1\r\n$x\r\n"])
def test_what_is_no_command_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        RespResponder(b"").take(data)


@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_kios_protocol_is_answered_however_the_stream_is_cut(piece_bytes: int) -> None:
    requests = [
        [1, wire.OP_HELLO, 0, {"protocol": 1, "client": "x"}],
        [2, wire.OP_GET, 0, 0, b"k"],
        [3, wire.OP_SET, 0, 0, b"k", b"v"],
        [4, wire.OP_GET_MANY, 0, 0, [b"a", b"b"]],
        [5, wire.OP_SET_MANY, 0, 0, [b"a", b"1", b"b", b"2"]],
        [6, 99, 0],
    ]
    data = b"".join(wire.encode_frame(request) for request in requests)
    responder = NativeResponder(b"abc")
    replies = [
        reply for at in range(0, len(data), piece_bytes) for reply in responder.take(data[at : at + piece_bytes])
    ]
    assert replies[1:5] == [
        wire.encode_frame([2, 0, b"abc"]),
        wire.encode_frame([3, 0, True]),
        wire.encode_frame([4, 0, [b"abc", b"abc"]]),
        wire.encode_frame([5, 0, [True, True]]),
    ]
    assert replies[5] == wire.encode_frame([6, UnknownOperation.code, str(UnknownOperation()), False])


def test_kios_own_client_takes_it_for_a_daemon() -> None:
    with noop_process("native", "--value-bytes", "5") as (_, url), connect(url) as db:
        assert len(db.get("k") or b"") == 5
        assert db.set("k", b"v") is True
        assert len(db.get_many(["a", "b"])) == 2


def test_it_listens_at_a_path_and_ends_with_its_stdin(tmp_path: Path) -> None:
    path = tmp_path / "noop.sock"
    with noop_process("resp", "--unix", str(path)) as (process, url):
        assert url == f"redis+unix://{path}"
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(path))
            asked.sendall(command(b"PING"))
            assert asked.recv(100) == b"+PONG\r\n"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_client_that_speaks_something_else_is_dropped_and_others_are_not() -> None:
    with noop_process("resp") as (_, url):
        host, _, port = url.removeprefix("redis://").partition(":")
        address = (host, int(port))
        with socket.create_connection(address) as good, socket.create_connection(address) as bad:
            bad.sendall(b"nonsense\r\n")
            assert bad.recv(100) == b""
            good.sendall(command(b"PING"))
            assert good.recv(100) == b"+PONG\r\n"


def test_no_reply_comes_before_its_delay_and_they_come_in_order() -> None:
    with noop_process("resp", "--delay-us", "30000") as (_, url):
        host, _, port = url.removeprefix("redis://").partition(":")
        with socket.create_connection((host, int(port))) as asked:
            asked.settimeout(20)
            for wanted, name in ((b":1\r\n", b"INCR"), (b"$100\r\n", b"GET")):
                sent = time.monotonic()
                asked.sendall(command(name, b"k"))
                assert asked.recv(1000).startswith(wanted)
                assert time.monotonic() - sent >= 0.03


def test_replies_that_a_client_does_not_read_wait_for_it() -> None:
    size = 1 << 20
    with noop_process("resp", "--value-bytes", str(size)) as (_, url):
        host, _, port = url.removeprefix("redis://").partition(":")
        with socket.create_connection((host, int(port))) as asked:
            asked.settimeout(20)
            asked.sendall(command(b"GET", b"k") * 20)
            left = 20 * (size + len(b"$1048576\r\n\r\n"))
            while left:
                left -= len(asked.recv(min(left, 1 << 20)))
            asked.sendall(command(b"PING"))
            assert asked.recv(100) == b"+PONG\r\n"
