"""`kio bench` as a child process, and the servers that it measures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import psutil
import pytest

from tests.cluster.daemon import ROOT, STOP_S, Daemon, environment, wait_until

#: Until a run has loaded its records and prepared its operations, on a busy machine.
START_S: Final = 30.0
#: For a run to end after its time is over.
END_S: Final = 60.0


class Server:
    """What `kio bench` measures: a URL, and processes that can be hurt.

    Attributes:
        pid: the first process; for --pid.
        pids: all processes there are now.
        restart: starts it again at the same URL, after a kill.
    """

    def __init__(self, url: str, pid: int, pids: Callable[[], list[int]], restart: Callable[[], None]) -> None:
        self.url = url
        self.pid = pid
        self.pids = pids
        self.restart = restart

    def keys(self) -> int:
        """How many keys it holds."""
        if self.url.startswith("redis"):
            return int(self.redis("DBSIZE").removeprefix(b":"))
        from tests.cluster.rawwire import COUNT, Wire

        with Wire(self.url) as wire:
            return int(wire.call(COUNT, 0))

    def redis(self, command: str) -> bytes:
        """The first line that a RESP server answers."""
        host, port = self.url.removeprefix("redis://").split(":")
        with socket.create_connection((host, int(port)), STOP_S) as asked:
            asked.sendall(command.encode() + b"\r\n")
            return asked.makefile("rb").readline().strip()

    def kill(self) -> None:
        """SIGKILL of every process at one moment: stopped first, so that none sees another die."""
        pids = self.pids()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """SIGSTOP of every process while the block runs."""
        pids = self.pids()
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def kio_server() -> Iterator[Server]:
    """A daemon with two workers."""
    with Daemon(workers=2) as daemon:
        yield Server(daemon.url, daemon.supervisor, daemon.pids, daemon.restart)


@contextmanager
def redis_server() -> Iterator[Server]:
    """A redis-server that logs nothing; skips where it is not installed. Killed at the end, however it is by then."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="kio-test-redis-"))
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--unixsocket", str(home / "sock")]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([program, *flags], cwd=home, **quiet))

    start()
    try:
        server = Server(f"redis://127.0.0.1:{port}", started[0].pid, lambda: [started[-1].pid], start)
        wait_until(lambda: _answers(server), START_S, "redis-server")
        yield server
    finally:
        for process in started:
            process.kill()
            process.wait(STOP_S)
        shutil.rmtree(home, ignore_errors=True)


SERVERS: Final = {"kio": kio_server, "redis": redis_server}


def _answers(server: Server) -> bool:
    try:
        return server.redis("PING") == b"+PONG"
    except OSError:
        return False


class Bench:
    """One `kio bench ARGUMENTS`, running when the `with` block begins; killed at its end."""

    def __init__(self, *arguments: str | Path) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self.code: int | None = None
        self.out = b""
        self.err = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kio", "bench", *self._arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def generators(self) -> list[psutil.Process]:
        """Its generator processes, once there are any."""
        return wait_until(
            lambda: [
                child for child in psutil.Process(self.pid).children() if "kio.bench.generator" in _command(child)
            ],
            START_S,
            "a generator process",
        )

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()

    def end(self, limit_s: float = END_S) -> Self:
        """Wait for it to end by itself."""
        out, err = self._process.communicate(timeout=limit_s)
        self.code, self.out, self.err = self._process.returncode, out, err.decode()
        return self

    def report(self) -> dict[str, Any]:
        """The report of a run with --json."""
        assert self.out, f"exit code {self.code}, nothing on stdout: {self.err}"
        report: dict[str, Any] = json.loads(self.out)
        return report


def bench(*arguments: str | Path, limit_s: float = END_S, code: int = 0) -> dict[str, Any]:
    """The report of a run that ends by itself."""
    with Bench(*arguments, "--json") as run:
        run.end(limit_s)
    assert run.code == code, f"exit code {run.code}: {run.err}"
    return run.report()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
