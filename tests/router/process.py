"""A router process under test: its supervisor is this process, its workers are threads with shards in a dict."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import zmq

from kio import control, hashing
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED
from tests.frontdoor.socket_client import SocketClient

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 10.0


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until `condition` is true."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s:g} s in vain for {what}"
        time.sleep(0.005)


class FakeWorker:
    """A worker's end of a pair of pipes.

    Attributes:
        shards: the keys, shared by all workers of a test.
        is_holding: True: batches are taken and kept in `held`, not answered.
    """

    def __init__(self, pipes_dir: str, name: str, shards: Shards) -> None:
        self.name = name
        self.shards = shards
        self.is_holding = False
        self.held: list[bytes] = []
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._push = self._context.socket(zmq.PUSH)
        operations, replies = control.pipe_endpoints(pipes_dir, name)
        self._pull.bind(operations)
        self._push.bind(replies)
        for sock in (self._pull, self._push):
            sock.linger = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_stopping:
            if self._pull.poll(10):
                batch = self._pull.recv()
                if self.is_holding:
                    self.held.append(batch)
                else:
                    self._answer(batch)

    def _answer(self, batch: bytes) -> None:
        # As with sync = "always": in two messages, the second half of the operations first.
        replies = self.shards.replies(batch)
        half = len(replies) // 2
        for part in (replies[half:], replies[:half]):
            if part:
                self._push.send(encode(batch, part))

    def send_raw(self, message: bytes) -> None:
        """Send something to the router while holding; only then is the socket not used by the thread."""
        assert self.is_holding
        self._push.send(message)

    def close(self) -> None:
        """Stop, and forget what was not answered."""
        self._is_stopping = True
        self._thread.join()
        self._context.destroy(linger=0)


class RouterProcess:
    """`python -m kio.router`, configured; a TCP and a Unix socket to reach it by."""

    def __init__(self, shards: int = 4, **configure: Any) -> None:
        self.shards = Shards(shards)
        self.home = Path(tempfile.mkdtemp(prefix="kio-test-"))
        self.workers: dict[int, FakeWorker] = {}
        self.told: list[control.Message] = []
        self._incarnation = 0
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unix.bind(os.fspath(self.home / "sock"))
        self._unix.listen()
        self.address = self._tcp.getsockname()
        self.unix_address = os.fspath(self.home / "sock")
        self.control, theirs = control.control_pair()
        fds = (theirs.fileno(), self._tcp.fileno(), self._unix.fileno())
        self.log = (self.home / "stderr").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kio.router", "--control-fd", str(fds[0])],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.fspath(ROOT)},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=self.log,
        )
        theirs.close()
        message = {
            "type": "configure",
            "shards": shards,
            "seed": SEED,
            "listeners": [
                {"fd": fd, "kind": kind, "protocol": "native"} for fd, kind in ((fds[1], "tcp"), (fds[2], "unix"))
            ],
            "pipes_dir": os.fspath(self.home),
            "max_value_bytes": 1 << 20,
            "server": "kio/test",
            "resp_port": 0,
            "settings": {
                "data": "",
                "host": "127.0.0.1",
                "sync": "interval",
                "max_memory_mib": 0,
                "idle_timeout_s": 0,
                "debug_commands": False,
            },
            "users_file": "",
            "tls": None,
            "idle_timeout_s": 0,
            "client_requests_per_s": 0,
            "max_connections": 100,
            "log_level": "debug",
            "log_format": "text",
            "shard_operations_max": 262_144,
            "shard_bytes_max": 256 << 20,
            "keyspaces": bytes(range(256)),
        }
        control.send(self.control, message | configure)
        self.await_told("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.control.close()
        self._tcp.close()
        self._unix.close()
        self.log.close()
        shutil.rmtree(self.home)

    def await_told(self, kind: str) -> control.Message:
        """The next control message of that type."""
        end = time.monotonic() + LIMIT_S
        while True:
            readable, _, _ = select.select([self.control], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"no {kind} within {LIMIT_S:g} s; {self.logged()}"
            message = control.receive(self.control)
            assert message is not None, f"the router is gone; {self.logged()}"
            self.told.append(message)
            if message["type"] == kind:
                return message

    def logged(self) -> str:
        """What the router wrote to stderr."""
        return Path(self.log.name).read_text()

    def worker_up(self, number: int, shards: list[int]) -> FakeWorker:
        """Start a worker for these shards, and tell the router."""
        self._incarnation += 1
        name = control.pipe_name(number, self._incarnation, 1)
        worker = self.workers[number] = FakeWorker(os.fspath(self.home), name, self.shards)
        control.send(self.control, {"type": "worker_up", "worker": number, "name": name, "shards": shards})
        return worker

    def all_up(self) -> FakeWorker:
        """One worker that has every shard; returns when it serves."""
        worker = self.worker_up(0, list(range(len(self.shards.keys))))
        with self.client() as client:
            wait_until(lambda: client.ask(32, 255)[0] == 0, "the shards to be up")
        return worker

    def worker_down(self, number: int, shards: list[int]) -> None:
        """Stop a worker, and tell the router."""
        self.workers.pop(number).close()
        control.send(self.control, {"type": "worker_down", "worker": number, "shards": shards})

    def client(self) -> SocketClient:
        """A greeted client over TCP."""
        return SocketClient(self.address)

    def unix_client(self) -> SocketClient:
        """A greeted client over the Unix socket."""
        return SocketClient(self.unix_address, socket.AF_UNIX)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def keys_of(self, shard: int, count: int) -> list[bytes]:
        """Keys that this shard owns."""
        found: list[bytes] = []
        number = 0
        while len(found) < count:
            key = b"key %d" % number
            if hashing.shard_of(hashing.routed_hash(key, SEED), len(self.shards.keys)) == shard:
                found.append(key)
            number += 1
        return found
