"""How soon a daemon serves again: killed under overwrites, stopped cleanly, and redis-server beside it.

    python -m tests.measure.restart [--keys 10000000] [--kills 10] [--stops 3] [--overwrite 0] [--no-redis] [--json]

Loads keys of 16 bytes with values of 100 into 2 workers with a shard each, then overwrites them at random, for ever,
from a process of its own. The daemon is killed (SIGKILL, the supervisor; its children end with it) after a random time
of 2 to 12 s, no matter how old its checkpoint is, and started again on the same directory with warm pages. Time counts
from the start of `kio serve` until a GET of a known value succeeded on each shard and a count told exactly the number
of keys. `--overwrite N` overwrites every key N times before the first kill. redis-server loads as many keys of the
same sizes from its own dump: until PING is no longer answered LOADING.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import redis

import kio
from tests.cluster import rawwire
from tests.cluster.rawwire import Wire

BATCH: Final = 1_000
VALUE_BYTES: Final = 100
#: Keys that are never overwritten, enough of them for every shard to own some.
CANARIES: Final = 16
LIMIT_S: Final = 600.0
#: Between two attempts to ask a daemon that is starting.
POLL_S: Final = 0.002


def key(number: int) -> bytes:
    return b"key:%012d" % number


def value(number: int, version: int) -> bytes:
    return (b"%d/%d " % (number, version)).ljust(VALUE_BYTES, b"v")


def canary(number: int) -> bytes:
    return b"canary:%09d" % number


class Kio:
    """A daemon on a directory of its own, started again and again."""

    def __init__(self, home: Path, flags: list[str]) -> None:
        self.data = home / "data"
        self.log = home / "log"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"kio://127.0.0.1:{free.getsockname()[1]}"

    def start(self) -> None:
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "kio", "serve", "--data", str(self.data), "--port", port, "--http-port", "0"]
        command += ["--workers", "2", "--shards", "2", *self._flags]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number: int) -> None:
        """Send the supervisor a signal, and wait until every process of it is gone."""
        assert self._process is not None
        children = [int(pid) for pid in _children(self._process.pid)]
        self._process.send_signal(number)
        self._process.wait(LIMIT_S)
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(POLL_S)

    def await_whole(self, keys: int) -> None:
        """Return when each canary has been read and the count is exact; RuntimeError when the daemon does not serve."""
        end = time.monotonic() + LIMIT_S
        while not self._is_whole(keys):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the daemon does not serve, see {self.log}")
            time.sleep(POLL_S)

    def _is_whole(self, keys: int) -> bool:
        try:
            with Wire(self.url) as wire:
                for number in range(CANARIES):
                    status, *rest = wire.request(rawwire.GET, 0, canary(number))
                    if status == rawwire.SHARD_DOWN:
                        return False
                    assert (status, rest[0]) == (rawwire.OK, value(number, 0)), (status, rest)
                status, *rest = wire.request(rawwire.COUNT, 0)
                if status == rawwire.SHARD_DOWN:
                    return False
                assert (status, rest[0]) == (rawwire.OK, keys), (status, rest)
                return True
        except ConnectionError:
            return False


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


def load(url: str, keys: int) -> None:
    with kio.connect(url, timeout=60.0) as db:
        db.set_many({canary(number): value(number, 0) for number in range(CANARIES)})
        for start in range(0, keys, BATCH):
            db.set_many({key(i): value(i, 0) for i in range(start, min(start + BATCH, keys))})


def overwrite(url: str, keys: int, seed: int, total: int | None = None) -> None:
    """Overwrite keys at random: `total` of them, or until the daemon is gone."""
    dice = random.Random(seed)
    version = 0
    with kio.connect(url, timeout=5.0, retries=False) as db:
        while total is None or version * BATCH < total:
            version += 1
            chosen = [int(dice.random() * keys) for _ in range(BATCH)]
            db.set_many({key(i): value(i, version) for i in chosen})


@contextmanager
def overwriting(url: str, keys: int, seed: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.measure.restart", "--overwriter", url, str(keys), str(seed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_kio(home: Path, keys: int, kills: int, stops: int, times: int, flags: list[str]) -> dict[str, Any]:
    daemon = Kio(home, flags)
    dice = random.Random(7)
    daemon.start()
    try:
        while not _answers(daemon.url):
            time.sleep(POLL_S)
        load(daemon.url, keys)
        for again in range(times):
            overwrite(daemon.url, keys, 1_000 + again, keys)
        killed, stopped = [], []
        for number in range(kills):
            with overwriting(daemon.url, keys, number):
                time.sleep(dice.uniform(2, 12))  # the random moment of the kill, nothing is awaited
                daemon.end(signal.SIGKILL)
            killed.append(_restart(daemon, keys))
        for _ in range(stops):
            daemon.end(signal.SIGTERM)
            stopped.append(_restart(daemon, keys))
        size = sum(path.stat().st_size for path in daemon.data.rglob("*.seg"))
        return {"killed_s": killed, "stopped_s": stopped, "log_bytes": size}
    finally:
        daemon.end(signal.SIGTERM)


def _restart(daemon: Kio, keys: int) -> float:
    began = time.monotonic()
    daemon.start()
    daemon.await_whole(keys + CANARIES)
    return time.monotonic() - began


def _answers(url: str) -> bool:
    try:
        with Wire(url) as wire:
            return bool(wire.request(rawwire.COUNT, 0)[0] == rawwire.OK)
    except ConnectionError:
        return False


def measure_redis(home: Path, keys: int, rounds: int) -> dict[str, Any] | None:
    """redis-server on a dump of as many keys; None where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--enable-debug-command", "yes", "--save", ""]
    took = []
    client = cast(Any, redis.Redis(port=port, socket_timeout=LIMIT_S))
    for number in range(rounds + 1):
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL)
        while not _is_loaded(client):
            time.sleep(POLL_S)
        if number:
            took.append(time.monotonic() - began)
            assert client.dbsize() == keys
        else:
            # "key:0123456" and so on: about as long as kio's.
            client.execute_command("DEBUG", "POPULATE", keys, "key-of-it", VALUE_BYTES)
            client.save()
        process.kill()
        process.wait()
    return {"loaded_s": took, "dump_bytes": (home / "dump.rdb").stat().st_size}


def _is_loaded(client: Any) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False


def run(keys: int, kills: int, stops: int, times: int, flags: list[str], *, with_redis: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"keys": keys, "value_bytes": VALUE_BYTES, "overwritten": times}
    with tempfile.TemporaryDirectory(prefix="kio-restart.") as name:
        (Path(name) / "kio").mkdir()
        result["kio"] = measure_kio(Path(name) / "kio", keys, kills, stops, times, flags)
        shutil.rmtree(Path(name) / "kio")
        if with_redis:
            result["redis"] = measure_redis(Path(name), keys, 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--overwrite", type=int, default=0)
    parser.add_argument("--no-redis", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--overwriter", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of kio serve")
    args = parser.parse_args()
    if args.overwriter:
        url, keys, seed = args.overwriter
        try:
            overwrite(url, int(keys), int(seed))
        except kio.KioError:
            os._exit(0)
    result = run(args.keys, args.kills, args.stops, args.overwrite, args.flags, with_redis=not args.no_redis)
    if args.json:
        print(json.dumps(result))
        return
    for who, figures in result.items():
        for figure, number in figures.items() if isinstance(figures, dict) else ():
            if isinstance(number, list) and number:
                shown = " ".join(f"{one:.2f}" for one in number)
                print(f"{who} {figure}: median {statistics.median(number):.2f}, most {max(number):.2f} ({shown})")
            else:
                print(f"{who} {figure}: {number:,}" if isinstance(number, int) else f"{who} {figure}: {number}")


if __name__ == "__main__":
    main()
