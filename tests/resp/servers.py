"""The two servers that are compared: a redis-server and a kio daemon, each of its own, on loopback, gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.daemon import Daemon, rss_mib
from tests.resp.resp_codec import Connection, Simple

#: STAND_IN=redis makes a second redis-server of kio, to try the tests that compare: nothing may differ then.
STANDS_IN: Final = os.environ.get("STAND_IN") == "redis"
START_S: Final = 20.0
STOP_S: Final = 10.0
#: kio's longest value by default; redis-server gets the same, so that an offset beyond it is refused by both.
VALUE_MIB: Final = 16
REDIS_FLAGS: Final = (
    *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
    *("--proto-max-bulk-len", f"{VALUE_MIB}mb", "--loglevel", "warning"),
)


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        name: "redis" or "kio".
        port: of its RESP door, on 127.0.0.1.
        pids: its processes, asked for anew.
        daemon: the daemon behind it; None for redis.
    """

    name: str
    port: int
    pids: Callable[[], list[int]]
    daemon: Daemon | None = None

    def connect(self, protocol: int = 2) -> Connection:
        return Connection(self.port, protocol=protocol)

    def flush(self) -> None:
        """No key is left in any database."""
        with self.connect() as connection:
            reply = connection.call("FLUSHALL")
            assert reply == Simple(b"OK"), f"FLUSHALL of {self.name} answered {reply!r}"

    def rss_mib(self) -> float:
        """Resident memory of all its processes."""
        return sum(rss_mib(pid) for pid in self.pids())


def need_redis() -> str:
    """The path of redis-server; skips the test that asks where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    return program


def resp_port(daemon: Daemon) -> int:
    """The port of the RESP door of a running daemon."""
    status = daemon.cli_status()
    return int(status.get("resp_port") or status["ports"]["resp"])


@contextmanager
def kio_server(*, workers: int = 2, shards: int | None = 4, flags: Sequence[str] = ()) -> Iterator[Server]:
    """A kio daemon with a RESP door on any free port."""
    if STANDS_IN:
        with redis_server() as running:
            yield replace(running, name="kio")
        return
    with Daemon(workers=workers, shards=shards, flags=["--resp-port", "0", *flags]) as daemon:
        yield Server("kio", resp_port(daemon), daemon.pids, daemon)


@contextmanager
def redis_server(*flags: str) -> Iterator[Server]:
    """A redis-server that keeps nothing; `flags` win over its usual ones."""
    program = need_redis()
    home = Path(tempfile.mkdtemp(prefix="redis-test-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--port", str(port), "--dir", str(home), *REDIS_FLAGS, *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _await_pong(port, process, home / "log")
        yield Server("redis", port, lambda: [process.pid])
    finally:
        process.terminate()
        process.wait(STOP_S)
        shutil.rmtree(home, ignore_errors=True)


def _await_pong(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        with suppress(OSError), Connection(port, limit_s=1.0) as asked:
            if asked.call("PING") == Simple(b"PONG"):
                return
        assert process.poll() is None and time.monotonic() < end, f"redis-server did not start: {log.read_text()}"
        time.sleep(0.02)
