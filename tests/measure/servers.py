"""The servers that are measured, each started from nothing on loopback and stopped at the end.

Both keep a log in one row of durability: kio with sync = "interval" at 1 s, redis-server with appendfsync everysec.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

START_S = 30.0
KIO_FLAGS = "--data data --port 0 --http-port 0 --resp-port 0 --workers 2 --sync interval --sync-interval-ms 1000"
REDIS_FLAGS = "--bind 127.0.0.1 --appendonly yes --appendfsync everysec --save"


class Server(NamedTuple):
    """A server that runs; `pid` is its first process."""

    name: str
    url: str
    pid: int


def available() -> dict[str, Callable[[Path], AbstractContextManager[Server]]]:
    """Name -> what starts it in an empty directory; redis only where redis-server is installed."""
    program = shutil.which("redis-server")
    found: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {"kio": kio_daemon}
    if program is not None:
        found["redis"] = lambda directory: redis_server(program, directory)
    return found


@contextmanager
def kio_daemon(directory: Path, *flags: str) -> Iterator[Server]:
    """A kio of 2 workers; `flags` are further ones of `kio serve`, and win."""
    with _running([sys.executable, "-m", "kio", "serve", *KIO_FLAGS.split(), *flags], directory) as process:
        announced = directory / "data" / "run" / "daemon.json"
        _await(announced.exists, process, "kio serve")
        ports = json.loads(announced.read_text())
        _await(lambda: _is_ok(ports["http"] + "/readyz"), process, "kio serve")
        yield Server("kio", ports["url"], process.pid)


@contextmanager
def redis_server(program: str, directory: Path) -> Iterator[Server]:
    """A redis-server with its log on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _running([program, "--port", str(port), *REDIS_FLAGS.split(), ""], directory) as process:
        _await(lambda: _pongs(port), process, program)
        yield Server("redis", f"redis://127.0.0.1:{port}", process.pid)


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, its output in DIRECTORY/log; stopped with SIGTERM at the end."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_S)


def _await(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    """Wait until `condition` holds; RuntimeError when `process` ends first, or after START_S."""
    end = time.monotonic() + START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what} did not start; exit code {process.poll()}")
        time.sleep(0.05)


def _is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=START_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def _pongs(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), START_S) as asked:
        asked.sendall(b"PING\r\n")
        return asked.recv(7) == b"+PONG\r\n"
    return False
