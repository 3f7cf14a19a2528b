"""The admin HTTP door: /healthz, /readyz, /metrics. Read only, on loopback, from threads of the supervisor.

It answers from the snapshot that the loop published last, so a saturated or hanging worker delays no answer; what it
says is as old as `kio_figures_age_seconds` tells.

    /healthz   200 while the supervisor's loop turns                                          else 503
    /readyz    200 when the router and every shard serve, else 503 with those that do not, as JSON
    /metrics   Prometheus text (metrics.py is the catalogue)

Bounds: CONNECTIONS_MAX at once (one more is closed), a request's head of HEAD_BYTES_MAX within REQUEST_S, one request a
connection, GET and HEAD only, no body is read.
"""

from __future__ import annotations

import io
import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, cast

from kio.clock import monotonic_s
from kio.daemon.topology import Snapshot
from kio.log import Log

CONNECTIONS_MAX: Final = 32
HEAD_BYTES_MAX: Final = 8 * 1024
REQUEST_S: Final = 5.0
#: The loop turns at least once a second; older than this, it hangs.
BEAT_AGE_S_MAX: Final = 5.0
_POLL_S: Final = 0.1
_TOO_LONG: Final = b"HTTP/1.0 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_log = Log(__name__)


class AdminDoor:
    """The door; a context manager that serves while it is entered.

    Args:
        sock: the listening socket; it stays the caller's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._server = _Server(sock, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="kio-admin", daemon=True
        )
        self._published: tuple[Snapshot, float] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        assert self._published is not None
        return self._published[0]

    def publish(self, snapshot: Snapshot, now: float) -> None:
        """Answer from `snapshot` from now on. One assignment: a reader sees the old one or the new one whole."""
        self._published = (snapshot, now)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """(status, content type, body) for a GET of `path`."""
        published = self._published
        if published is None:
            return 503, "text/plain", b"starting\n"
        snapshot, beat = published
        if path == "/healthz":
            is_healthy = monotonic_s() - beat < BEAT_AGE_S_MAX
            return (200, "text/plain", b"ok\n") if is_healthy else (503, "text/plain", b"the loop hangs\n")
        if path == "/readyz":
            waiting = snapshot.not_serving()
            body = json.dumps({"ready": not waiting, "not_serving": waiting}).encode() + b"\n"
            return 503 if waiting else 200, "application/json", body
        if path == "/metrics":
            from kio.daemon import exposition  # prometheus_client costs 14 MiB: only who is scraped pays

            return 200, exposition.CONTENT_TYPE, exposition.render(snapshot, monotonic_s())
        return 404, "text/plain", b"there are /healthz, /readyz and /metrics\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sock: socket.socket, door: AdminDoor) -> None:
        super().__init__(sock.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()  # the one that the base class made; ours listens already
        self.socket = sock
        self.door = door
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.exception("admin request failed")


class _Handler(BaseHTTPRequestHandler):
    server_version = "kio"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BytesIO(self._read_head())

    def _read_head(self) -> bytes:
        """The request's head; nothing when it did not come in time, or is too long."""
        deadline = monotonic_s() + REQUEST_S
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) == HEAD_BYTES_MAX:
                self.wfile.write(_TOO_LONG)
                return b""
            self.connection.settimeout(max(0.001, deadline - monotonic_s()))
            try:
                received = self.connection.recv(HEAD_BYTES_MAX - len(head))
            except OSError:
                return b""
            if not received:
                return b""
            head += received
        self.connection.settimeout(REQUEST_S)
        return head

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The base class calls it for a malformed request, and with 501 for every other method."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n", {"Allow": "GET, HEAD"})
        else:
            self._send(code, "text/plain", b"not a request that is answered here\n", {})

    def _answer(self) -> None:
        door = cast(_Server, self.server).door
        self._send(*door.answer(self.path.partition("?")[0]), {})

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("admin request", line=format % args)
