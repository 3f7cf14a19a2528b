"""The door on real sockets of the loopback interface."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
import time

import pytest

from kio import errors, limits, wire
from tests.frontdoor.peer import HELLO, frame
from tests.frontdoor.running_door import RunningDoor, wait_until
from tests.frontdoor.socket_client import SocketClient


def reset(client: SocketClient) -> None:
    """Close so that the peer gets an RST."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_clients_are_served_over_tcp_and_unix_at_once() -> None:
    with RunningDoor() as door, door.client() as tcp, SocketClient(door.unix_address, socket.AF_UNIX) as unix:
        assert tcp.ask(wire.OP_SET, 0, b"k", b"v") == [0, True]
        assert unix.ask(wire.OP_GET_MANY, 0, [b"k", b"l"]) == [0, [b"v", None]]
        assert unix.ask(wire.OP_PING, b"payload") == [0, b"payload"]
        assert tcp.ask(wire.OP_COUNT, 0) == [0, [3, 3]]


def test_clients_are_served_over_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    with RunningDoor(listener) as door, SocketClient(listener.getsockname(), socket.AF_INET6) as client:
        assert client.ask(wire.OP_PING, b"x") == [0, b"x"]
        assert [c.peer for c in door.door._connections.values()] == [f"[::1]:{client.sock.getsockname()[1]}"]


def test_the_hello_tells_the_bounds() -> None:
    with RunningDoor() as door, door.client() as client:
        assert client.hello == [
            0,
            0,
            {
                "protocol": 2,
                "server": "kio/test",
                "shards": 2,
                "frame_bytes_max": limits.frame_bytes_max(1 << 20),
                "key_bytes_max": 65_535,
                "value_bytes_max": 1 << 20,
                "frame_keys_max": 65_536,
            },
        ]


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"protocol": 0, "client": "x"}, errors.ProtocolError.code),
        ({"protocol": "1"}, errors.BadRequest.code),
        ({"protocol": 1, "client": 7}, errors.BadRequest.code),
        ([1], errors.BadRequest.code),
        (None, errors.BadRequest.code),
    ],
)
def test_a_hello_that_does_not_do_is_answered_and_the_connection_closed(hello: object, code: int) -> None:
    with RunningDoor() as door, door.client(greet=False) as client:
        client.send(5, wire.OP_HELLO, hello)
        assert client.reply()[:2] == [5, code]
        assert client.is_closed()


def test_a_client_of_a_later_version_gets_ours() -> None:
    with RunningDoor() as door, door.client(greet=False) as client:
        client.send(5, wire.OP_HELLO, {"protocol": 7, "client": "later", "new": True})
        assert client.reply()[2]["protocol"] == 2


def test_a_client_of_version_1_is_answered_with_1_and_has_the_operations_of_1() -> None:
    with RunningDoor() as door, door.client(greet=False) as client:
        client.send(5, wire.OP_HELLO, {"protocol": 1, "client": "earlier"})
        assert client.reply()[2]["protocol"] == 1
        assert client.ask(wire.OP_SET, 0, b"k", b"v") == [0, True]
        assert client.ask(wire.OP_INCR, 0, b"k", 1)[0] == errors.UnknownOperation.code
        assert client.ask(wire.OP_GET, 0, b"k") == [0, b"v"]


def test_connections_inherit_no_delay_and_keepalive() -> None:
    with RunningDoor() as door, door.client():
        (connection,) = door.door._connections.values()
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


@pytest.mark.parametrize(
    "first", [b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"Host: kio\r\n", b"\xff\x00\n\x1b[2J"]
)
def test_what_is_not_the_protocol_is_answered_closed_and_logged(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with RunningDoor() as door, door.client(greet=False) as client:
        # Bytes that the door never reads must not cost the client the answer.
        client.sock.sendall(first + b"x" * 100_000)
        assert client.reply()[:2] == [0, errors.ProtocolError.code]
        assert client.is_closed()
        client.close()
        wait_until(lambda: door.door.connections == 0, "the connection to be gone")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("connection refused: ")
    assert "peer=127.0.0.1:" in line
    assert ("this is HTTP" in line) == (first[:1].isalpha())
    assert "\x1b" not in line


def test_a_connection_without_a_hello_is_closed_in_time() -> None:
    with RunningDoor(hello_timeout_s=0.2) as door, door.client() as greeted, door.client(greet=False) as silent:
        silent.sock.sendall(HELLO[:5])
        assert silent.is_closed()
        assert greeted.ask(wire.OP_PING, b"x") == [0, b"x"]


def test_a_half_frame_without_progress_is_closed_and_an_idle_connection_is_not() -> None:
    with RunningDoor(stall_timeout_s=0.3) as door, door.client() as idle, door.client() as half:
        half.sock.sendall(frame(1, wire.OP_SET, 0, b"k", b"v")[:-1])
        assert half.is_closed()
        assert idle.ask(wire.OP_PING, b"x") == [0, b"x"]


def test_a_half_frame_that_makes_progress_lives() -> None:
    with RunningDoor(stall_timeout_s=0.3) as door, door.client() as slow:
        for byte in frame(1, wire.OP_SET, 0, b"k", b"v"):
            slow.sock.sendall(bytes([byte]))
            time.sleep(0.05)
        assert slow.reply() == [1, 0, True]


def test_a_client_that_does_not_read_its_replies_is_closed_and_others_notice_nothing() -> None:
    with RunningDoor(stall_timeout_s=0.3) as door, door.client() as lazy, door.client() as other:
        other.ask(wire.OP_SET, 0, b"k", bytes(1 << 20))
        for id in range(60):
            lazy.send(id, wire.OP_GET, 0, b"k")
        wait_until(lambda: door.door.connections == 1, "the lazy client to be closed")
        assert other.ask(wire.OP_PING, b"x") == [0, b"x"]


def test_replies_larger_than_any_socket_buffer_arrive_whole_at_a_slow_reader() -> None:
    with RunningDoor() as door, door.client() as client:
        values = [os.urandom(1 << 20) for _ in range(20)]
        for i, value in enumerate(values):
            assert client.ask(wire.OP_SET, 0, b"%d" % i, value) == [0, True]
        for _ in range(2):
            client.send(1, wire.OP_GET_MANY, 0, [b"%d" % i for i in range(20)])
        time.sleep(0.1)
        assert client.reply() == [1, 0, values]
        assert client.reply() == [1, 0, values]
        assert not door.door._unsent


def test_a_pipeline_longer_than_the_bound_is_answered_whole() -> None:
    with RunningDoor(dispatch={"connection_requests_max": 16}) as door, door.client() as client:
        count = 20_000
        stream = b"".join(frame(id, wire.OP_SET, 0, b"%d" % (id % 100), b"v") for id in range(count))
        sender = threading.Thread(target=client.sock.sendall, args=(stream,))
        sender.start()
        assert [client.reply()[0] for _ in range(count)] == list(range(count))
        sender.join()


def test_a_connection_that_never_stops_does_not_starve_another() -> None:
    with RunningDoor() as door, door.client() as firehose, door.client() as modest:
        stream = b"".join(frame(id, wire.OP_EXISTS, 0, b"") for id in range(50_000))  # answered by the door itself
        stop = threading.Event()

        def pump() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    firehose.sock.sendall(stream)

        def drink() -> None:
            with contextlib.suppress(OSError):
                while firehose.sock.recv(1 << 20):
                    pass

        threads = [threading.Thread(target=pump), threading.Thread(target=drink)]
        for thread in threads:
            thread.start()
        waits = []
        for _ in range(50):
            started = time.monotonic()
            assert modest.ask(wire.OP_GET, 0, b"x") == [0, None]
            waits.append(time.monotonic() - started)
        stop.set()
        firehose.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        assert sorted(waits)[25] < 1.0


def test_connections_beyond_the_maximum_are_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with RunningDoor(connections_max=2) as door, door.client() as first, door.client():
        with door.client(greet=False) as third:
            reply = third.reply()
            assert reply[:2] == [0, errors.Overloaded.code]
            assert third.is_closed()
        first.close()
        wait_until(lambda: door.door.connections == 1, "a free place")
        with door.client() as fourth:
            assert fourth.ask(wire.OP_PING, b"x") == [0, b"x"]
    assert "max_connections is reached" in caplog.text


class Exhausted(socket.socket):
    """A listener whose first accepts find no descriptor left."""

    failures = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_accepting_goes_on_by_itself_when_descriptors_ran_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kio.frontdoor.door.ACCEPT_PAUSE_S", 0.1)
    listener = Exhausted(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with RunningDoor(listener) as door, door.client() as client:
        assert client.ask(wire.OP_PING, b"x") == [0, b"x"]
    assert [record.getMessage() for record in caplog.records if "accepting rests" in record.getMessage()][1:] == []


def test_a_reset_in_the_middle_of_everything_harms_nobody_and_leaves_no_descriptor() -> None:
    with RunningDoor() as door, door.client() as other:
        before = len(os.listdir("/proc/self/fd"))
        for round in range(100):
            client = door.client()
            client.send(1, wire.OP_SET_MANY, 0, [b"k", bytes(100_000)] * 4)
            client.send(2, wire.OP_COUNT, 0)
            client.sock.sendall(b"\x00\x01")
            if round % 2:
                reset(client)
            else:
                client.close()
        wait_until(lambda: door.door.connections == 1, "the connections to be gone")
        assert other.ask(wire.OP_PING, b"x") == [0, b"x"]
        assert len(os.listdir("/proc/self/fd")) == before
        assert door.dispatch.requests == 0


def test_requests_of_a_closed_connection_are_dropped_with_it() -> None:
    with RunningDoor() as door:
        door.is_holding = True
        client = door.client()
        client.send(1, wire.OP_COUNT, 0)
        wait_until(lambda: len(door.held) == 2, "the fan-out")
        client.close()
        wait_until(lambda: len(door.rare.events) == 2, "the drop")
        door.release()
        with door.client() as other:
            assert other.ask(wire.OP_GET, 0, b"k") == [0, None]
        assert [type(event).__name__ for event in door.rare.events] == ["Asked", "Dropped"]


def test_malformed_replies_are_logged_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with RunningDoor() as door, door.client() as client:
        for _ in range(100):
            door.act(lambda: door.door.deliver(b"no replies"))
        assert client.ask(wire.OP_GET, 0, b"k") == [0, None]
    assert caplog.text.count("replies dropped") == 1


def test_a_deadline_is_kept_by_the_door() -> None:
    with RunningDoor() as door, door.client() as client:
        door.is_holding = True
        started = time.monotonic()
        assert client.ask(wire.OP_GET, 0, b"k", deadline_ms=100)[0] == errors.Timeout.code
        assert 0.09 < time.monotonic() - started < 1.0
        door.release()


def test_drain_refuses_new_connections_and_requests_and_parts_when_all_is_answered() -> None:
    with RunningDoor() as door, door.client() as client, door.client() as late:
        door.is_holding = True
        client.send(1, wire.OP_SET, 0, b"k", b"v")
        wait_until(lambda: len(door.held) == 1, "the batch")
        door.act(door.door.drain)
        wait_until(lambda: door.dispatch.draining, "the drain")
        with pytest.raises(ConnectionError):
            door.client()
        assert late.ask(wire.OP_GET, 0, b"k")[0] == errors.Draining.code
        assert not door.door.is_drained
        door.release()
        assert client.reply() == [1, 0, True]
        wait_until(lambda: door.door.is_drained, "the answer to be sent")
        door.act(door.door.part)
        client.send(2, wire.OP_GET, 0, b"k")
        with pytest.raises(ConnectionError):
            client.reply()
        client.close()
        late.close()
        wait_until(lambda: door.door.connections == 0, "the connections to be gone")


def test_a_connection_that_broke_the_protocol_still_gets_what_is_in_flight() -> None:
    with RunningDoor(hello_timeout_s=0.1) as door, door.client() as client:
        door.is_holding = True
        client.send(1, wire.OP_SET, 0, b"k", b"v")
        wait_until(lambda: len(door.held) == 1, "the batch")
        client.sock.sendall(b"\xff\xff\xff\xff")
        time.sleep(0.4)  # longer than the timeout of a hello
        door.release()
        assert client.reply() == [1, 0, True]
        assert client.reply()[:2] == [0, errors.ProtocolError.code]
        assert client.is_closed()
