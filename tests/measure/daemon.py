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
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any, Protocol, cast

import psutil
import redis

import kio
from tests.measure import servers

KEYS = 200_000
BATCH = 1_000
VALUE = b"v" * 100
#: Of one round, for each of the servers.
BATCHES = KEYS // BATCH
SINGLES = 1_000

Round = dict[str, float]


class Store(Protocol):
    """What both clients can do."""

    def get(self, key: bytes) -> bytes | None: ...
    def set(self, key: bytes, value: bytes) -> object: ...
    def get_many(self, keys: list[bytes]) -> object: ...
    def set_many(self, pairs: dict[bytes, bytes]) -> object: ...


class Redis:
    """redis-py under the names of kio's client."""

    def __init__(self, url: str) -> None:
        self._redis = cast(Any, redis.Redis.from_url(url))
        self.get: Callable[[bytes], bytes | None] = self._redis.get
        self.set: Callable[[bytes, bytes], object] = self._redis.set
        self.get_many: Callable[[list[bytes]], object] = self._redis.mget
        self.set_many: Callable[[dict[bytes, bytes]], object] = self._redis.mset

    def close(self) -> None:
        self._redis.close()


def client_of(server: servers.Server) -> AbstractContextManager[Store]:
    """A client of the server, closed at the end."""
    return kio.connect(server.url) if server.name == "kio" else closing(Redis(server.url))


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
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kio-bench.")))
        stores: dict[str, tuple[Store, psutil.Process]] = {}
        for name, start in servers.available().items():
            (home / name).mkdir()
            server = stack.enter_context(start(home / name))
            stores[name] = stack.enter_context(client_of(server)), psutil.Process(server.pid)
        for db, _ in stores.values():
            for batch in batches(keys):
                db.set_many(dict.fromkeys(batch, VALUE))
        told: dict[str, list[Round]] = {name: [] for name in stores}
        for number in range(rounds):
            # Who goes first changes, so that neither always follows the other.
            for name in sorted(stores, reverse=bool(number % 2)):
                told[name].append(measure(*stores[name], keys, rng))
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
