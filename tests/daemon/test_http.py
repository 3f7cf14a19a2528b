"""The admin door over a real socket, with the test in the place of the supervisor's loop."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest

from kio.clock import monotonic_s
from kio.daemon import http as door_module
from kio.daemon.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, AdminDoor
from kio.daemon.listeners import listen_tcp
from tests.daemon.snapshots import a_snapshot


class Served:
    def __init__(self, door: AdminDoor, port: int) -> None:
        self.door = door
        self.port = port

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def say(self, request: bytes) -> bytes:
        """Everything that is answered to these bytes until the connection is closed."""
        with self.connect() as sock:
            sock.sendall(request)
            return _read_all(sock)


def _read_all(sock: socket.socket) -> bytes:
    answer = b""
    while received := sock.recv(65536):
        answer += received
    return answer


@pytest.fixture
def served() -> Iterator[Served]:
    with listen_tcp("127.0.0.1", 0, "http_port") as sock, AdminDoor(sock) as door:
        yield Served(door, sock.getsockname()[1])


def test_nothing_is_healthy_before_the_first_turn_of_the_loop(served: Served):
    assert served.ask("/healthz")[0] == 503


def test_healthz_says_whether_the_loop_turns(served: Served):
    served.door.publish(a_snapshot(), monotonic_s())
    assert served.ask("/healthz")[0::2] == (200, b"ok\n")
    served.door.publish(a_snapshot(), monotonic_s() - door_module.BEAT_AGE_S_MAX)
    assert served.ask("/healthz")[0] == 503


def test_readyz_names_what_does_not_serve_and_why(served: Served):
    served.door.publish(a_snapshot(), monotonic_s())
    status, headers, body = served.ask("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "not_serving": []})
    assert headers["Content-Type"] == "application/json"
    served.door.publish(a_snapshot(state="failed", reason="manifest is damaged"), monotonic_s())
    status, _, body = served.ask("/readyz")
    assert status == 503
    failed = {"shard": 2, "worker": 0, "state": "failed", "reason": "manifest is damaged"}
    assert json.loads(body) == {"ready": False, "not_serving": [failed]}
    served.door.publish(a_snapshot(router_state="backing-off"), monotonic_s())
    assert served.ask("/readyz")[0] == 503


def test_a_shard_whose_disk_is_full_serves_and_shows_it(served: Served):
    served.door.publish(a_snapshot(state="full", reason="the disk is full"), monotonic_s())
    assert served.ask("/readyz")[0] == 200
    page = served.ask("/metrics")[2].decode()
    assert 'kio_shard_state{shard="2",state="full"} 1.0' in page
    assert 'kio_shard_state{shard="2",state="serving"} 0.0' in page
    assert 'kio_refused_total{shard="2"} 4.0' in page
    assert 'kio_reserve_bytes{shard="2"} 2048.0' in page


def test_metrics_are_prometheus_text(served: Served):
    served.door.publish(a_snapshot(), monotonic_s())
    status, headers, body = served.ask("/metrics?debug=1")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'kio_keys{shard="0"} 11.0' in body


def test_head_is_answered_without_a_body(served: Served):
    served.door.publish(a_snapshot(), monotonic_s())
    status, headers, body = served.ask("/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("path", ["/", "/metricsx", "/../etc/passwd", "*"])
def test_there_is_nothing_else(served: Served, path: str):
    served.door.publish(a_snapshot(), monotonic_s())
    assert served.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "BREW"])
def test_there_is_nothing_to_change(served: Served, method: str):
    served.door.publish(a_snapshot(), monotonic_s())
    status, headers, _ = served.ask("/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_that_is_too_long_is_not_read_to_its_end(served: Served):
    answer = served.say((b"GET /healthz HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX)[:HEAD_BYTES_MAX])
    assert b" 431 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("noise", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /healthz HTTP/9.9\r\n\r\n", b"\r\n\r\n"])
def test_noise_is_refused_and_the_door_stays_open(served: Served, noise: bytes):
    served.door.publish(a_snapshot(), monotonic_s())
    assert b" 200 " not in served.say(noise)
    assert served.ask("/healthz")[0] == 200


def test_half_a_request_is_closed_in_time(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door_module, "REQUEST_S", 0.2)
    with served.connect() as sock:
        began = time.monotonic()
        for byte in b"GET /he":
            sock.send(bytes([byte]))
        assert _read_all(sock) == b""
        assert time.monotonic() - began < 2.0


def test_idle_connections_are_bounded_and_do_not_keep_the_others_out_for_long(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(door_module, "REQUEST_S", 0.3)
    served.door.publish(a_snapshot(), monotonic_s())
    idle = [served.connect() for _ in range(CONNECTIONS_MAX + 20)]
    end = time.monotonic() + 5
    while True:
        try:
            if served.ask("/healthz")[0] == 200:
                break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end
    for sock in idle:
        sock.close()
