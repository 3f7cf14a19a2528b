"""A daemon as one Python client sees it: batches of 1,000 keys and single round trips, beside redis-server.

    python -m tests.measure.daemon [--rounds 5] [--json]

kio with 2 workers and sync = "interval" at 1 s; redis-server, where it is installed, with its log on and appendfsync
everysec: the same row of durability. Both on loopback, in temporary directories, 200,000 keys of 16 bytes with values
of 100 bytes, redis-py for redis. The two take turns, round by round; a figure is the median of the rounds, a ratio is
kio's figure over redis's. CPU seconds are those of the server's processes, for a million keys, since client and servers
share the cores of the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import psutil
import redis

import kio

KEYS = 200_000
BATCH = 1_000
VALUE = b"v" * 100
#: Of one round, for each of the servers.
BATCHES = KEYS // BATCH
SINGLES = 1_000
START_S = 30.0

Round = dict[str, float]


class Store(Protocol):
    """What both clients can do."""

    def get(self, key: bytes) -> bytes | None: ...
    def set(self, key: bytes, value: bytes) -> object: ...
    def get_many(self, keys: list[bytes]) -> object: ...
    def set_many(self, pairs: dict[bytes, bytes]) -> object: ...


class Redis:
    """redis-py under the names of kio's client."""

    def __init__(self, port: int) -> None:
        self._redis = cast(Any, redis.Redis(port=port))
        self.get: Callable[[bytes], bytes | None] = self._redis.get
        self.set: Callable[[bytes, bytes], object] = self._redis.set
        self.get_many: Callable[[list[bytes]], object] = self._redis.mget
        self.set_many: Callable[[dict[bytes, bytes]], object] = self._redis.mset

    def is_ready(self) -> bool:
        try:
            return bool(self._redis.ping())
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        self._redis.close()


def await_true(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    """Wait until `condition` holds; RuntimeError when `process` ends first, or after START_S."""
    end = time.monotonic() + START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what} did not start; exit code {process.poll()}")
        time.sleep(0.05)


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, its output in DIRECTORY/log; stopped with SIGTERM at the end."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_S)


@contextmanager
def kio_daemon(directory: Path) -> Iterator[tuple[Store, psutil.Process]]:
    """A kio of 2 workers, and a client of it."""
    flags = "--data data --port 0 --http-port 0 --workers 2 --sync interval --sync-interval-ms 1000"
    with running([sys.executable, "-m", "kio", "serve", *flags.split()], directory) as process:
        announced = directory / "data" / "run" / "daemon.json"
        await_true(announced.exists, process, "kio serve")
        ports = json.loads(announced.read_text())
        await_true(lambda: is_ok(ports["http"] + "/readyz"), process, "kio serve")
        with kio.connect(ports["url"]) as db:
            yield db, psutil.Process(process.pid)


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=START_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


@contextmanager
def redis_server(program: str, directory: Path) -> Iterator[tuple[Store, psutil.Process]]:
    """A redis-server with its log on, and a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec --save".split()
    with running([program, *flags, ""], directory) as process:
        client = Redis(port)
        await_true(client.is_ready, process, program)
        yield client, psutil.Process(process.pid)
        client.close()


def cpu_s(server: psutil.Process) -> float:
    """The processor time that a server's processes have used."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def batches(chosen: list[bytes]) -> Iterator[list[bytes]]:
    return (chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH))


def timed(calls: Iterator[Callable[[], object]]) -> list[float]:
    """Seconds of each call."""
    took = []
    for call in calls:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return took


def measure(db: Store, server: psutil.Process, keys: list[bytes], rng: random.Random) -> Round:
    """One round: every figure once."""
    figures: Round = {}
    chosen = rng.sample(keys, BATCH * BATCHES)
    pairs = [dict.fromkeys(batch, VALUE) for batch in batches(chosen)]
    for name, calls in (
        ("set_many", ((lambda p=p: db.set_many(p)) for p in pairs)),
        ("get_many", ((lambda b=b: db.get_many(b)) for b in batches(chosen))),
    ):
        used_s = cpu_s(server)
        figures[f"{name}_keys_per_s"] = len(chosen) / sum(timed(calls))
        figures[f"{name}_cpu_s_per_million"] = (cpu_s(server) - used_s) * 1e6 / len(chosen)
    for name, calls in (
        ("set", ((lambda k=k: db.set(k, VALUE)) for k in chosen[:SINGLES])),
        ("get", ((lambda k=k: db.get(k)) for k in chosen[:SINGLES])),
    ):
        took = timed(calls)
        figures[f"{name}_per_s"] = SINGLES / sum(took)
        figures[f"{name}_us"] = statistics.median(took) * 1e6
    return figures


def run(rounds: int) -> dict[str, Any]:
    """The medians of all rounds: {"kio": figures, "redis": figures, "ratio": figures}; kio alone without redis."""
    rng = random.Random(1)
    keys = [b"key:%012d" % i for i in range(KEYS)]
    program = shutil.which("redis-server")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kio-bench.")))
        (home / "kio").mkdir()
        servers = {"kio": stack.enter_context(kio_daemon(home / "kio"))}
        if program is not None:
            (home / "redis").mkdir()
            servers["redis"] = stack.enter_context(redis_server(program, home / "redis"))
        for db, _ in servers.values():
            for batch in batches(keys):
                db.set_many(dict.fromkeys(batch, VALUE))
        told: dict[str, list[Round]] = {name: [] for name in servers}
        for number in range(rounds):
            # Who goes first changes, so that neither always follows the other.
            for name in sorted(servers, reverse=bool(number % 2)):
                told[name].append(measure(*servers[name], keys, rng))
    result: dict[str, Any] = {"rounds": rounds, "batch": BATCH, "keys": KEYS, "value_bytes": len(VALUE)}
    for name, figures in told.items():
        result[name] = {figure: statistics.median(one[figure] for one in figures) for figure in figures[0]}
    if "redis" in told:
        result["ratio"] = {figure: result["kio"][figure] / result["redis"][figure] for figure in result["kio"]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = run(args.rounds)
    if args.json:
        print(json.dumps(result))
        return
    sides = [name for name in ("kio", "redis", "ratio") if name in result]
    print(f"{'':>28}" + "".join(f"{side:>14}" for side in sides))
    for figure in result["kio"]:
        cells = (f"{result[side][figure]:>14,.{2 if result[side][figure] < 100 else 0}f}" for side in sides)
        print(f"{figure:>28}" + "".join(cells))


if __name__ == "__main__":
    main()
