"""How soon a daemon serves again: killed under overwrites, stopped cleanly, and redis-server beside it.

    python -m tests.measure.restart [--keys 10000000] [--kills 10] [--stops 3] [--overwrite 0] [--segment-mib 128]
        [--no-redis] [--quick] [--json] [--dir DIR] [--flags FLAGS OF kio serve]

Loads keys of 16 bytes with values of 100 into 2 workers with a shard each, then overwrites them at random, for ever,
from a process of its own. The daemon is killed (SIGKILL, the supervisor; its children end with it) after a random time
of 2 to 12 s, no matter how old its checkpoint is, and started again on the same directory with warm pages. Time counts
from the start of `kio serve` until a GET of a known value succeeded on each shard and a count told exactly the number
of keys. `--overwrite N` then overwrites as many keys as there are N times, at random, and kills and stops it as often
again: 9 makes ten times the log. redis-server loads the same keys and values from its own dump: until PING is no longer
answered LOADING. Bars are for the slowest of all starts, except for the two ratios, which are of medians.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import redis

import kio
from kio.limits import SEGMENT_MIB
from tests.cluster import rawwire
from tests.cluster.rawwire import Wire
from tests.measure import verdict
from tests.measure.verdict import Figure, say

BATCH: Final = 1_000
VALUE_BYTES: Final = 100
SHARDS: Final = 2
#: Keys that are never overwritten, enough of them for every shard to own some; that is checked.
CANARIES: Final = 16
LIMIT_S: Final = 600.0
#: Between two attempts to ask a daemon that is starting.
POLL_S: Final = 0.002
#: How old the figures of a shard may be.
STATUS_S: Final = 1.0
KILLED_S_MAX: Final = 1.5
STOPPED_S_MAX: Final = 1.0
OF_REDIS_MAX: Final = 0.1
OVERWRITTEN_MAX: Final = 1.3


def key(number: int) -> bytes:
    return b"key:%012d" % number


def value(number: int, version: int) -> bytes:
    return (b"%d/%d " % (number, version)).ljust(VALUE_BYTES, b"v")


def canary(number: int) -> bytes:
    return b"canary:%09d" % number


def canaries() -> dict[bytes, bytes]:
    return {canary(number): value(number, 0) for number in range(CANARIES)}


def batches(keys: int) -> Iterator[dict[bytes, bytes]]:
    """All keys with the values that they are given first."""
    for start in range(0, keys, BATCH):
        yield {key(i): value(i, 0) for i in range(start, min(start + BATCH, keys))}


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
        command = [
            sys.executable,
            "-m",
            "kio",
            "serve",
            "--data",
            str(self.data),
            "--port",
            port,
            "--http-port",
            "0",
            "--resp-port",
            "0",
        ]
        command += ["--workers", "2", "--shards", str(SHARDS), *self._flags]
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
        db.set_many(canaries())
        time.sleep(STATUS_S)
        owned = [shard["keys"] for shard in db.stats()["shards"]]
        assert len(owned) == SHARDS and all(owned), f"a shard without a canary would not be asked for one: {owned}"
        for batch in batches(keys):
            db.set_many(batch)


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
def overwriting(url: str, keys: int, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that overwrites as long as the block runs, or until the daemon is gone."""
    command = [sys.executable, "-m", "tests.measure.restart", "--overwriter", url, str(keys), str(seed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Starts(NamedTuple):
    """Seconds of each start, and how long the log was then."""

    killed_s: list[float]
    stopped_s: list[float]
    log_bytes: int


def measure_kio(home: Path, args: argparse.Namespace) -> Iterator[Starts]:
    """After the load; and once more after overwrites, where there are any."""
    daemon = Kio(home, ["--segment-mib", str(args.segment_mib), *args.flags])
    dice = random.Random(7)
    daemon.start()
    try:
        while not _answers(daemon.url):
            time.sleep(POLL_S)
        load(daemon.url, args.keys)
        yield _starts(daemon, dice, args)
        if args.overwrite:
            say(f"restart: {args.overwrite * args.keys:,} overwrites")
            overwrite(daemon.url, args.keys, 1_000, args.overwrite * args.keys)
            yield _starts(daemon, dice, args)
    finally:
        daemon.end(signal.SIGTERM)


def _starts(daemon: Kio, dice: random.Random, args: argparse.Namespace) -> Starts:
    killed, stopped = [], []
    for number in range(args.kills):
        with overwriting(daemon.url, args.keys, number) as process:
            time.sleep(dice.uniform(*args.kill_after_s))  # the random moment of the kill, nothing is awaited
            assert process.poll() is None, "nothing was overwritten until the kill"
            daemon.end(signal.SIGKILL)
        killed.append(_restart(daemon, args.keys))
        say(f"restart: killed, served again after {killed[-1]:.2f} s")
    for _ in range(args.stops):
        daemon.end(signal.SIGTERM)
        stopped.append(_restart(daemon, args.keys))
        say(f"restart: stopped, served again after {stopped[-1]:.2f} s")
    return Starts(killed, stopped, sum(path.stat().st_size for path in daemon.data.rglob("*.seg")))


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


def measure_redis(home: Path, keys: int, rounds: int) -> list[float] | None:
    """Seconds of each start of a redis-server on a dump of the same keys; None where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    took: list[float] = []
    for number in range(rounds + 1):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        client = cast(Any, redis.Redis(port=port, socket_timeout=LIMIT_S))
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL)
        try:
            while not _is_loaded(client):
                if process.poll() is not None:
                    raise RuntimeError(f"redis-server ended with {process.returncode}")
                time.sleep(POLL_S)
            if number:
                took.append(time.monotonic() - began)
                assert client.dbsize() == keys + CANARIES
                say(f"restart: redis-server loaded in {took[-1]:.2f} s")
            else:
                client.mset(canaries())
                for batch in batches(keys):
                    client.mset(batch)
                client.save()
        finally:
            client.close()
            process.kill()
            process.wait()
    return took


def _is_loaded(client: Any) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    with verdict.scratch(args) as home:
        (home / "kio").mkdir()
        told = list(measure_kio(home / "kio", args))
        shutil.rmtree(home / "kio")
        loaded_s = None if args.no_redis else measure_redis(home, args.keys, args.redis)
    yield Figure("keys", args.keys + CANARIES)
    for name, starts in zip(("", "overwritten "), told, strict=False):
        yield Figure(f"{name}log_gib", starts.log_bytes / 2**30)
        for how, seconds, bar in (
            ("killed", starts.killed_s, KILLED_S_MAX),
            ("stopped", starts.stopped_s, STOPPED_S_MAX),
        ):
            if seconds:
                yield Figure(f"{name}{how}_s_median", statistics.median(seconds))
                yield Figure(f"{name}{how}_s_max", max(seconds), bar)
    if len(told) > 1 and args.kills:
        before, after = (statistics.median(starts.killed_s) for starts in told)
        yield Figure("overwritten killed_over_killed", after / before, OVERWRITTEN_MAX)
    if loaded_s:
        yield Figure("redis loaded_s_median", statistics.median(loaded_s))
        if args.kills:
            ratio = statistics.median(told[0].killed_s) / statistics.median(loaded_s)
            yield Figure("killed_over_redis", ratio, OF_REDIS_MAX)


def main(arguments: list[str] | None = None) -> int:
    parser = verdict.parser(__doc__, segment_mib=SEGMENT_MIB)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kill-after-s", type=float, nargs=2, default=(2.0, 12.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--overwrite", type=int, default=0)
    parser.add_argument("--redis", type=int, default=3, help="how often redis-server loads")
    parser.add_argument("--no-redis", action="store_true")
    small = {"keys": 20_000, "kills": 1, "kill_after_s": (0.2, 0.4), "stops": 1, "redis": 1, "segment_mib": 1}
    args = verdict.shrink(parser.parse_args(arguments), **small)
    return verdict.show(args, list(figures(args)))


def overwriter(url: str, keys: int, seed: int) -> None:
    """What `overwriting` runs: it ends with the daemon."""
    try:
        overwrite(url, keys, seed)
    except kio.KioError:
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--overwriter"]:
        overwriter(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.exit(main())
