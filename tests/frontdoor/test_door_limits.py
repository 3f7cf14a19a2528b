"""Connections that the door ends or holds back: no handshake, no name, no request, too many, nobody who reads."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kio import wire
from kio.access import Access, Guard, Right, User
from kio.tls import ServerTls
from tests.access.doors import is_closed, secured
from tests.frontdoor.peer import HELLO, frame
from tests.frontdoor.running_door import RunningDoor, wait_until
from tests.frontdoor.socket_client import SocketClient
from tests.tls import private

PING = b"*1\r\n$4\r\nPING\r\n"


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> ServerTls | None:
    if request.param == "plain":
        return None
    path = private("server.pem", tmp_path)
    return ServerTls(path, path)


def connect(address: object, tls: ServerTls | None) -> socket.socket:
    sock = socket.create_connection(address, 10)  # type: ignore[arg-type]
    return sock if tls is None else secured(sock)


def greeted(door: RunningDoor, tls: ServerTls | None) -> socket.socket:
    sock = connect(door.address, tls)
    sock.sendall(HELLO)
    assert len(sock.recv(4096)) > 4
    return sock


def closed_after(sock: socket.socket) -> float:
    began = time.monotonic()
    assert is_closed(sock)
    return time.monotonic() - began


def server_tls(tmp_path: Path) -> ServerTls:
    path = private("server.pem", tmp_path)
    return ServerTls(path, path)


# --- TLS


def test_a_large_value_goes_through_tls_both_ways_and_a_pipeline_in_order(tmp_path: Path) -> None:
    with RunningDoor(tls=server_tls(tmp_path)) as door, SocketClient(door.address, greet=False) as client:
        client.sock = secured(client.sock)
        client.sock.sendall(HELLO)
        assert client.reply()[:2] == [1, 0]
        value = bytes(range(256)) * 4_000
        assert client.ask(wire.OP_SET, 0, b"k", value) == [0, True]
        for id in range(40):
            client.send(id, wire.OP_GET, 0, b"k")
        assert [client.reply() for _ in range(40)] == [[id, 0, value] for id in range(40)]


def test_a_connection_that_is_paused_within_what_was_decrypted_goes_on(tmp_path: Path) -> None:
    with (
        RunningDoor(tls=server_tls(tmp_path), dispatch={"connection_requests_max": 8}) as door,
        SocketClient(door.address, greet=False) as client,
    ):
        client.sock = secured(client.sock)
        client.sock.sendall(HELLO)
        client.reply()
        value = b"x" * 20_000
        door.is_holding = True
        client.sock.sendall(b"".join(frame(id, wire.OP_SET, 0, b"k%d" % id, value) for id in range(100)))
        wait_until(lambda: len(door.held) > 0, "the first batch")
        door.release()
        assert [client.reply() for _ in range(100)] == [[id, 0, True] for id in range(100)]


def test_plain_bytes_at_a_tls_port_get_an_alert_and_no_word_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunningDoor(tls=server_tls(tmp_path)) as door:
        for first in (HELLO, b"GET / HTTP/1.1\r\n\r\n", PING, b"\0" * 100_000):
            with (
                socket.create_connection(door.address, 10) as sock,
                contextlib.suppress(OSError),
            ):
                sock.sendall(first)
                received = b""
                with contextlib.suppress(ConnectionError):
                    while data := sock.recv(4096):
                        received += data
                assert received[:1] in (b"", b"\x15"), received
                assert len(received) < 16
        wait_until(lambda: door.door.connections == 0, "the connections to be gone")
        assert door.door.tls_faults == 4
        with SocketClient(door.unix_address, socket.AF_UNIX) as local:
            assert local.ask(wire.OP_PING, b"x") == [0, b"x"], "the Unix socket is plain"
    assert any("TLS failed" in record.getMessage() for record in caplog.records)


def test_one_too_many_is_not_told_so_in_plain_text_where_there_is_tls(tmp_path: Path) -> None:
    tls = server_tls(tmp_path)
    with (
        RunningDoor(tls=tls, connections_max=1) as door,
        greeted(door, tls),
        socket.create_connection(door.address, 10) as sock,
    ):
        assert sock.recv(100) == b""


def test_a_handshake_that_does_not_end_ends_the_connection(tmp_path: Path) -> None:
    with RunningDoor(tls=server_tls(tmp_path), with_resp=True, hello_timeout_s=0.3) as door:
        for address in (door.address, door.resp_address):
            with socket.create_connection(address, 10) as silent:
                assert 0.1 < closed_after(silent) < 3
            with socket.create_connection(address, 10) as slow:
                slow.sendall(b"\x16\x03\x01\x02\x00")  # a record that does not come
                assert 0.1 < closed_after(slow) < 3


def test_the_end_of_a_tls_connection_is_said(tmp_path: Path) -> None:
    tls = server_tls(tmp_path)
    with RunningDoor(tls=tls) as door, connect(door.address, tls) as sock:
        sock.sendall(b"no frame at all")
        assert len(sock.recv(4096)) > 4
        assert sock.recv(4096) == b"", "close_notify, not a cut"


# --- who does not say who it is


def test_who_does_not_say_its_name_in_time_is_closed_over_resp(tls: ServerTls | None) -> None:
    access = Access({"ada": User("ada", Right.ADMIN)})
    with (
        RunningDoor(access=access, with_resp=True, tls=tls, hello_timeout_s=0.3) as door,
        connect(door.resp_address, tls) as sock,
    ):
        end = time.monotonic() + 3
        with contextlib.suppress(OSError):
            while time.monotonic() < end:  # whatever it asks meanwhile
                sock.sendall(PING)
                if not sock.recv(100):
                    break
                time.sleep(0.02)
        assert time.monotonic() < end, "it is still there"


def test_who_need_not_say_its_name_may_be_silent_over_resp(tls: ServerTls | None) -> None:
    with RunningDoor(with_resp=True, tls=tls, hello_timeout_s=0.2) as door, connect(door.resp_address, tls) as sock:
        time.sleep(0.5)
        sock.sendall(PING)
        assert sock.recv(100) == b"+PONG\r\n"


# --- who asks nothing


def asks_nothing(sock: socket.socket) -> None:
    """Nothing at all."""


def trickles(sock: socket.socket) -> None:
    """A byte now and then, which is no request."""
    with contextlib.suppress(OSError):
        for _ in range(40):
            sock.sendall(b"\0")
            time.sleep(0.05)


@pytest.mark.parametrize("behaviour", [asks_nothing, trickles])
def test_who_asks_nothing_is_closed_whatever_it_sends(
    tls: ServerTls | None, behaviour: Callable[[socket.socket], None]
) -> None:
    with (
        RunningDoor(with_resp=True, tls=tls, idle_timeout_s=0.5) as door,
        greeted(door, tls) as native,
        connect(door.resp_address, tls) as resp,
    ):
        if behaviour is trickles:
            native.sendall(b"\0\0\1\0")
            resp.sendall(b"*1\r\n$5000\r\n")
        for sock in (native, resp):
            behaviour(sock)
            assert is_closed(sock)


def test_who_asks_now_and_then_or_waits_for_an_answer_stays(tls: ServerTls | None) -> None:
    with (
        RunningDoor(with_resp=True, tls=tls, idle_timeout_s=0.5) as door,
        greeted(door, tls) as native,
        connect(door.resp_address, tls) as resp,
    ):
        for _ in range(6):
            time.sleep(0.2)
            native.sendall(frame(1, wire.OP_PING, b"x"))
            resp.sendall(PING)
            assert native.recv(100)
            assert resp.recv(100) == b"+PONG\r\n"
        door.is_holding = True
        native.sendall(frame(1, wire.OP_GET, 0, b"k"))
        time.sleep(1.0)
        door.release()
        assert native.recv(100)


# --- who asks too much, and who does not listen


def test_who_asks_too_fast_is_answered_at_its_rate(tls: ServerTls | None) -> None:
    with (
        RunningDoor(with_resp=True, tls=tls, dispatch={"connection_requests_per_s": 50}) as door,
        connect(door.resp_address, tls) as resp,
        SocketClient(door.unix_address, socket.AF_UNIX) as other,
    ):
        resp.sendall(PING * 100)
        began = time.monotonic()
        received = b""
        while len(received) < 700:
            received += resp.recv(10_000)
            assert other.ask(wire.OP_PING, b"x") == [0, b"x"] or True
            if time.monotonic() - began < 0.5:
                assert len(received) <= 7 * 80
        assert 0.7 < time.monotonic() - began < 4


def test_who_does_not_read_is_dropped_and_the_log_says_so(
    tls: ServerTls | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with RunningDoor(with_resp=True, tls=tls, stall_timeout_s=0.4) as door:
        for address, first, ask in (
            (door.address, HELLO, frame(1, wire.OP_PING, b"x" * 60_000)),
            (door.resp_address, b"", b"*2\r\n$4\r\nECHO\r\n$60000\r\n" + b"x" * 60_000 + b"\r\n"),
        ):
            with connect(address, tls) as sock:
                sock.sendall(first)
                sock.settimeout(5)
                with pytest.raises((OSError, ssl.SSLError)):  # reset by the door
                    for _ in range(2_000):
                        sock.sendall(ask)
                wait_until(lambda: door.door.connections == 0, "the connection to be gone")
    lines = [record.getMessage() for record in caplog.records]
    assert any("it does not read its replies" in line for line in lines), lines


def test_the_guard_is_for_one_address() -> None:
    guard = Guard()
    for _ in range(6):
        guard.attempt("10.0.0.1", 0.0)
    assert guard.attempt("10.0.0.1", 0.1) > 0
    assert guard.attempt("10.0.0.2", 0.1) == 0.0
