"""What sustained random overwrites cost: room on the disk, bytes written, and the latency of reads beside them.

    python -m tests.measure.amplification [--keys 1200000] [--value-bytes 1000] [--times 10] [--segment-mib 8]
        [--space-amplification 1.4] [--rate 0] [--seconds 15] [--rounds 3] [--part space|latency] [--quick] [--json]
        [--dir DIR] [--flags FLAGS OF kio serve]

kio with 2 workers, a shard each, asked through its Unix socket, which leaves more of the cores to what is measured.

Space: every key is written, then as many as `times` that, chosen at random (uniform, then zipf 0.99, each on a new
directory), by kio bench's closed loop in batches, at full speed. Every 0.2 s the files are looked at. Excess is what a
shard's files take beyond space_amplification times its live bytes, in segments: once without checkpoints and what
stands behind the records of a sealed segment (hints and the like: overhead, and not what compaction governs), and once
with everything. Write amplification is what the workers' /proc/PID/io say (processes.py tells what that counts), over
the bytes of records that clients wrote; `records` is the same from the shards' own figures: survivors with their hints,
without the rest.

Latency: p99 of GETs in kio bench's open loop, corrected. Quiet is the GETs alone, in turns with the busy window, on the
same daemon; a ratio is of the medians of the rounds.
    overwrites                      neither compacts nor takes checkpoints: what the writes themselves cost
    compaction                      compacts beside them
    checkpoint_beside_overwrites    takes checkpoints beside them
    checkpoint                      takes checkpoints and nothing else: an overwrite now and then gives each shard
                                    something to write, and one begins every second, or when the last one has ended
Half load of the first three is half of the rate that a closed loop of as many reads as overwrites reaches: GETs at a
quarter of it, overwrites at another quarter; `p99_over_overwrites` is what the compactions, or the checkpoints, add to
them. That of `checkpoint` is half of the rate that a closed loop of GETs reaches, all GETs. `share_of_time_under_one`
tells how much of a busy window a shard was taking a checkpoint; a p99 sees them if that is more than a hundredth.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kio.bench import load, report, run, validation
from kio.bench.plan import Plan
from kio.limits import MIB, SPACE_AMPLIFICATION
from kio.segments.identity import shard_path
from tests.measure import processes, servers, verdict
from tests.measure.processes import Watched
from tests.measure.verdict import Figure, say

SHARDS = 2
SAMPLE_S = 0.2
#: How old the shards' figures may be.
STATUS_S = 1.0
BATCH = 100
LIMIT_S = 60.0
NEVER_S = "86400"
EXCESS_SEGMENTS_MAX = 2.0
#: Chooser of keys -> the most that may be written for a byte.
WRITTEN_MAX = {"uniform": 2.3, "zipf:0.99": 1.7}
#: What runs beside the GETs -> flags of kio serve, and the most that their p99 may be of its quiet value.
BESIDE: dict[str, tuple[tuple[str, ...], float | None]] = {
    "overwrites": (("--space-amplification", "100", "--checkpoint-interval-s", NEVER_S), None),
    "compaction": (("--checkpoint-interval-s", NEVER_S), 3.0),
    "checkpoint_beside_overwrites": (("--space-amplification", "100", "--checkpoint-interval-s", "1"), None),
    "checkpoint": (("--space-amplification", "100", "--checkpoint-interval-s", "1"), 2.0),
}
#: Overwrites a second that let every checkpoint of every shard have something to write, and cost nothing themselves.
TRICKLE = 10.0 * SHARDS


@contextmanager
def daemon(home: Path, args: argparse.Namespace, flags: tuple[str, ...] = ()) -> Iterator[tuple[Plan, Watched]]:
    """A daemon with all keys in it, and the plan of what it holds."""
    home.mkdir()
    shown = ("--shards", str(SHARDS), "--segment-mib", str(args.segment_mib), "--sync-interval-ms", "100")
    allowed = ("--space-amplification", str(args.space_amplification))
    # The path of a socket has to be short, and that of `home` may be long.
    with (
        tempfile.TemporaryDirectory(prefix="kio-") as short,
        servers.kio_daemon(home, *shown, *allowed, "--socket", f"{short}/kio.sock", *flags, *args.flags) as server,
    ):
        url, size = f"kio+unix://{short}/kio.sock", str(args.value_bytes)
        plan = Plan(url, keys="uniform", records=args.keys, value_bytes=size, rate=0.0)
        with closing(Watched(server.url, server.pid)) as watched:
            load.load(plan)
            time.sleep(STATUS_S)
            yield plan, watched


# ---- space ----


class Excess:
    """The most that the files of one daemon took, sampled."""

    def __init__(self, data: Path, watched: Watched, args: argparse.Namespace) -> None:
        self._data = data
        self._watched = watched
        self._allowed = args.space_amplification
        self._segment_bytes = args.segment_mib * MIB
        #: In segments; of the worst shard, and of all shards together; `bare` is without overhead.
        self.records = self.bare = self.shard = self.all = -math.inf
        self.over_live = 0.0
        self.samples = 0

    def look(self) -> None:
        """Take a sample."""
        files = taken = 0.0
        shards = self._watched.shards()
        for number, shard in shards.items():
            directory = shard_path(self._data, number)
            size = processes.disk_bytes(directory)
            allowed = shard["live_bytes"] * self._allowed
            bare = processes.bare_bytes(directory)
            records = shard["live_bytes"] + shard["dead_bytes"]
            self.records = max(self.records, (records - allowed) / self._segment_bytes)
            self.shard = max(self.shard, (size - allowed) / self._segment_bytes)
            self.bare = max(self.bare, (bare - allowed) / self._segment_bytes)
            files += size
            taken += size - allowed
        self.all = max(self.all, taken / self._segment_bytes)
        live = sum(shard["live_bytes"] for shard in shards.values())
        self.over_live = max(self.over_live, files / live)
        self.samples += 1


def measure_space(home: Path, keys: str, args: argparse.Namespace) -> Iterator[Figure]:
    """Overwrite a whole new data directory."""
    with daemon(home, args) as (plan, watched):
        before, io_before = _totals(watched), watched.written()
        files = Excess(home / "data", watched, args)
        count = args.keys * args.times // BATCH * BATCH
        overwrites = replace(plan, workload="overwrite", mix={"update": 1.0}, keys=keys, count=count, batch=BATCH)
        with processes.sampling(files.look, SAMPLE_S):
            found = run.measure(replace(overwrites, rate=args.rate, connections=4, processes=2))
        if found.interrupted:
            raise KeyboardInterrupt
        if found.errors or found.dead:
            raise RuntimeError(f"overwriting failed: {found.errors or found.dead}")
        time.sleep(STATUS_S)
        after, io_after = _totals(watched), watched.written()
    spent = {name: after[name] - before[name] for name in after}
    client = spent["bytes_written"]
    gross, cancelled = (after_ - before_ for after_, before_ in zip(io_after, io_before, strict=True))
    yield from (
        Figure("live_segments", after["live_bytes"] / (args.segment_mib * MIB)),
        Figure("overwrites_per_s", found.achieved),
        Figure("records_excess_segments_of_a_shard", files.records),
        Figure("disk_excess_segments_of_a_shard", files.bare, EXCESS_SEGMENTS_MAX),
        Figure("disk_excess_segments_of_a_shard_with_overhead", files.shard),
        Figure("disk_excess_segments_of_all_with_overhead", files.all),
        Figure("disk_over_live_with_overhead", files.over_live),
        Figure("disk_samples", files.samples),
        Figure("write_amplification", gross / client, WRITTEN_MAX[keys]),
        Figure("write_amplification_less_cancelled", (gross - cancelled) / client),
        Figure("write_amplification_records", (client + spent["compacted_bytes_written"]) / client),
        Figure("written_by_clients_mib", client / MIB),
        Figure("written_by_compaction_mib", spent["compacted_bytes_written"] / MIB),
        Figure("compactions", spent["compactions"]),
        Figure("segments_dropped", spent["segments_dropped"]),
        Figure("checkpoints", spent["checkpoints"]),
    )


_FIELDS = ("bytes_written", "compacted_bytes_written", "compactions", "segments_dropped", "checkpoints", "live_bytes")


def _totals(watched: Watched) -> dict[str, int]:
    shards = watched.shards().values()
    return {name: sum(shard[name] for shard in shards) for name in _FIELDS}


# ---- latency ----


class Checkpoints:
    """How long those took that were taken while somebody looked."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        #: Shard -> its number of checkpoints -> how long the last of them took.
        self._last_ms: dict[int, dict[int, float]] = {}

    def look(self) -> None:
        """Take note of each shard's last one."""
        for number, shard in self._watched.shards().items():
            self._last_ms.setdefault(number, {})[shard["checkpoints"]] = shard["checkpoint_ms_last"]

    def took_ms(self) -> float | None:
        """The mean; None where there was none. The first that was seen of each shard began before anybody looked."""
        found = [ms for taken in self._last_ms.values() for ms in list(taken.values())[1:]]
        return statistics.mean(found) if found else None


@dataclass(frozen=True)
class Load:
    """What is asked of a daemon, in requests a second."""

    reads: float
    overwrites: float


def measure_latency(home: Path, args: argparse.Namespace) -> Iterator[Figure]:
    """GETs beside each thing in turn."""
    mixed: Load | None = None
    p99_us: dict[str, float | None] = {}
    for name, (flags, bar) in BESIDE.items():
        say(f"amplification: GETs beside {name}")
        with daemon(home / name, args, flags) as (plan, watched):
            if name == "checkpoint":
                half = _half_load(plan, {"read": 1.0}, args)
                asked = Load(half, TRICKLE)
                yield Figure(f"latency {name} half_load_per_s", half)
            else:
                if mixed is None:
                    half = _half_load(plan, {"read": 0.5, "update": 0.5}, args)
                    mixed = Load(half / 2, half / 2)
                    yield Figure("latency half_load_per_s", half)
                asked = mixed
            for figure, value, limit in _beside(name, plan, watched, asked, bar, args):
                yield Figure(f"latency {name} {figure}", value, limit)
                if figure == "p99_us":
                    p99_us[name] = value
        alone, both = p99_us["overwrites"], p99_us[name]
        if name not in ("overwrites", "checkpoint") and alone and both:
            yield Figure(f"latency {name} p99_over_overwrites", both / alone)


def _half_load(plan: Plan, mix: dict[str, float], args: argparse.Namespace) -> float:
    return _report(replace(plan, workload="half", mix=mix, seconds=args.seconds))["achieved"] / 2


def _beside(
    name: str, plan: Plan, watched: Watched, asked: Load, bar: float | None, args: argparse.Namespace
) -> Iterator[tuple[str, float | None, float | None]]:
    """(figure, value, bar) of the GETs on one daemon."""
    if name == "compaction":
        # Until there is as much that is dead as may be, nothing is compacted.
        count = int(args.keys * 1.5) // BATCH * BATCH
        run.measure(replace(plan, workload="fill", mix={"update": 1.0}, count=count, batch=BATCH, connections=4))
    takes_checkpoints = name.startswith("checkpoint")
    reads = replace(plan, workload="reads", mix={"read": 1.0}, rate=asked.reads, seconds=args.seconds)
    writes = replace(plan, workload="writes", mix={"update": 1.0}, rate=asked.overwrites, seconds=args.seconds + 2)
    quiet, busy, taken = [], [], Checkpoints(watched)
    compactions = checkpoints = 0
    busy_s = 0.0
    for _ in range(args.rounds):
        if takes_checkpoints:
            _await_checkpoints(watched)
        quiet.append(_report(reads))
        with ThreadPoolExecutor(1) as beside:
            lsn = watched.total("lsn")
            writing = beside.submit(_report, writes)
            end = time.monotonic() + LIMIT_S
            while watched.total("lsn") == lsn:
                if time.monotonic() > end or writing.done():
                    raise RuntimeError(f"no overwrite within {LIMIT_S:g} s")
                time.sleep(0.05)
            before, at = _totals(watched), time.monotonic()
            with processes.sampling(taken.look, STATUS_S / 2):
                busy.append(_report(reads))
            busy_s += time.monotonic() - at
            after = _totals(watched)
            with processes.sampling(taken.look, STATUS_S / 2):
                writing.result()
        compactions += after["compactions"] - before["compactions"]
        checkpoints += after["checkpoints"] - before["checkpoints"]
    took = compactions if name == "compaction" else checkpoints if takes_checkpoints else 1
    quiet_us, busy_us = _p99_us(quiet), _p99_us(busy)
    ratio = busy_us / quiet_us if quiet_us and busy_us and took else None
    yield "p99_over_quiet", ratio, bar
    yield "p99_us_quiet", quiet_us, None
    yield "p99_us", busy_us, None
    yield "p999_us", _median(told["corrected_us"]["p999"] for told in busy), None
    yield "void_runs", sum(told["void"] for told in (*quiet, *busy)), None
    yield "compactions", compactions, None
    yield "checkpoints", checkpoints, None
    if takes_checkpoints:
        took_ms = taken.took_ms()
        # Each shard's checkpoints stand beside one another in time, so it is the share of one shard's.
        share = checkpoints / SHARDS * took_ms / 1e3 / busy_s if took_ms is not None else None
        yield "checkpoint_ms", took_ms, None
        yield "share_of_time_under_one", share, None


def _await_checkpoints(watched: Watched) -> None:
    """Until nothing is left to write, so that no checkpoint falls into a quiet window."""
    end = time.monotonic() + LIMIT_S
    while any(shard["checkpoint_lsn"] < shard["lsn"] for shard in watched.shards().values()):
        if time.monotonic() > end:
            raise RuntimeError(f"a shard has taken no checkpoint within {LIMIT_S:g} s")
        time.sleep(0.1)
    time.sleep(STATUS_S)


def _p99_us(reports: list[dict[str, Any]]) -> float | None:
    """The median of the runs that may be believed."""
    return _median(told["corrected_us"]["p99"] for told in reports if not told["void"])


def _median(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _report(plan: Plan) -> dict[str, Any]:
    """What `kio bench --json` prints of the plan."""
    validation.check(plan)
    told = report.build(run.measure(plan))
    if told["interrupted"]:
        raise KeyboardInterrupt
    for reason in told["void_reasons"]:
        say(f"amplification: a void run: {reason}")
    return told


def measure(args: argparse.Namespace) -> list[Figure]:
    """Every figure."""
    figures = []
    with verdict.scratch(args) as home:
        for keys in WRITTEN_MAX if args.part != "latency" else ():
            say(f"amplification: {keys} overwrites")
            name = keys.partition(":")[0]
            found = measure_space(home / name, keys, args)
            figures += [figure._replace(name=f"{name} {figure.name}") for figure in found]
        if args.part != "space":
            figures += measure_latency(home, args)
    return figures


def main(arguments: list[str] | None = None) -> int:
    parser = verdict.parser(__doc__, segment_mib=8)
    parser.add_argument("--keys", type=int, default=1_200_000)
    parser.add_argument("--value-bytes", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--space-amplification", type=float, default=SPACE_AMPLIFICATION)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run that measures latency")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="overwrites a second while room is measured; 0: all it can"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("all", "space", "latency"), default="all")
    args = verdict.shrink(parser.parse_args(arguments), keys=8_000, times=6, segment_mib=1, seconds=0.4, rounds=1)
    return verdict.show(args, measure(args))


if __name__ == "__main__":
    sys.exit(main())
