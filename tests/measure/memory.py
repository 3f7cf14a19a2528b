"""Whether memory and descriptors stay what they are, over millions of overwrites.

    python -m tests.measure.memory [--overwrites 10000000] [--keys 500000] [--value-bytes 100] [--shards 4]
        [--open-segments 16] [--segment-mib 1] [--quick] [--json] [--dir DIR] [--flags FLAGS OF kio serve]

kio with 2 workers and small segments, so that there are hundreds of them. Every key is written, then keys chosen at
random are overwritten by kio bench's closed loop. Memory is RssAnon of each process; its slope is that of the straight
line through the samples of the second half of the overwrites, in bytes an overwrite. A worker's descriptors may be
those it had before the first key that are not of segments, `open_segments` of sealed segments, and for each of its
shards those that are being written: an active segment, one that waits for its seal, one made ahead, the output of a
compaction, a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from kio.bench import load, run
from kio.bench.plan import Plan
from tests.measure import processes, servers, verdict
from tests.measure.processes import Watched
from tests.measure.verdict import Figure, say

WORKERS = 2
BATCH = 100
SAMPLE_S = 0.1
#: How old the shards' figures may be.
STATUS_S = 1.0
#: Files that one shard writes at the same time.
WRITTEN_AT_ONCE = 5
SLOPE_MAX = 1.0
#: In the name of every segment's file, also when that is removed already.
SEGMENT = ".seg"


class Samples:
    """What was seen of the processes while overwrites went on."""

    def __init__(self, watched: Watched) -> None:
        status = watched.status()
        self._watched = watched
        self._sets = watched.total("sets")
        #: What each process is -> its pid.
        self.pids = {"supervisor": watched.pid, "router": status["router"]["pid"]}
        self.pids |= {f"worker {number}": pid for number, pid in watched.workers().items()}
        #: Of each process, (overwrites until then, RssAnon).
        self.memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
        #: The most that a worker had.
        self.descriptors: dict[str, int] = defaultdict(int)
        self.of_segments: dict[str, int] = defaultdict(int)
        self.segments = 0

    def look(self) -> None:
        """Take a sample."""
        shards = self._watched.shards().values()
        overwrites = sum(shard["sets"] for shard in shards) - self._sets
        self.segments = max(self.segments, sum(shard["segments"] for shard in shards))
        for name, pid in self.pids.items():
            self.memory[name].append((overwrites, processes.rss_anon_bytes(pid)))
            if name.startswith("worker"):
                found = processes.descriptors(pid)
                self.descriptors[name] = max(self.descriptors[name], len(found))
                self.of_segments[name] = max(self.of_segments[name], sum(SEGMENT in target for target in found))

    def slope(self, name: str) -> float | None:
        """Bytes an overwrite, over the second half; None where there are too few samples."""
        points = self.memory[name]
        later = [(x, y) for x, y in points if x >= points[-1][0] / 2]
        return processes.slope(later) if len({x for x, _ in later}) > 1 else None


def others(pid: int) -> int:
    """A process's descriptors that are not of segments."""
    return sum(SEGMENT not in target for target in processes.descriptors(pid))


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    shown = ("--workers", str(WORKERS), "--shards", str(args.shards), "--segment-mib", str(args.segment_mib))
    more = ("--open-segments", str(args.open_segments), "--sync-interval-ms", "100", *args.flags)
    with (
        verdict.scratch(args) as home,
        servers.kio_daemon(home, *shown, *more) as server,
        closing(Watched(server.url, server.pid)) as watched,
    ):
        at_start = {f"worker {number}": others(pid) for number, pid in watched.workers().items()}
        shards = {f"worker {worker['worker']}": len(worker["shards"]) for worker in watched.status()["workers"]}
        plan = Plan(server.url, keys="uniform", records=args.keys, value_bytes=str(args.value_bytes), rate=0.0)
        load.load(plan)
        time.sleep(STATUS_S)
        samples = Samples(watched)
        say(f"memory: {args.overwrites:,} overwrites of {args.keys:,} keys")
        count = args.overwrites // BATCH * BATCH
        with processes.sampling(samples.look, SAMPLE_S):
            overwrites = replace(plan, workload="overwrite", mix={"update": 1.0}, count=count, batch=BATCH)
            found = run.measure(replace(overwrites, connections=4))
        if found.interrupted:
            raise KeyboardInterrupt
        if found.errors or found.dead:
            raise RuntimeError(f"overwriting failed: {found.errors or found.dead}")
        time.sleep(STATUS_S)
        samples.look()
        yield Figure("overwrites", samples.memory["router"][-1][0])
        yield Figure("overwrites_per_s", found.achieved)
        yield Figure("segments", samples.segments)
        yield Figure("samples", len(samples.memory["router"]))
        for name in samples.pids:
            yield Figure(f"{name} rss_anon_slope_bytes", samples.slope(name), SLOPE_MAX)
            yield Figure(f"{name} rss_anon_mib", samples.memory[name][-1][1] / 2**20)
        for name, most in samples.descriptors.items():
            allowed = at_start[name] + args.open_segments + WRITTEN_AT_ONCE * shards[name]
            yield Figure(f"{name} descriptors", most, allowed)
            yield Figure(f"{name} descriptors_of_others_at_start", at_start[name])
            yield Figure(f"{name} descriptors_of_segments", samples.of_segments[name])


def main(arguments: list[str] | None = None) -> int:
    parser = verdict.parser(__doc__, segment_mib=1)
    parser.add_argument("--overwrites", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--open-segments", type=int, default=16)
    small = {"overwrites": 100_000, "keys": 20_000, "open_segments": 4}
    args = verdict.shrink(parser.parse_args(arguments), **small)
    return verdict.show(args, list(measure(args)))


if __name__ == "__main__":
    sys.exit(main())
