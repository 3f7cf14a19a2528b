"""How soon keys that expire are gone: from the counts, from memory, from the disk, without anybody asking for them.

    python -m tests.measure.expiry [--keys 1000000] [--ttl 5] [--value-bytes 100] [--segment-mib 1]
        [--checkpoint-interval-s 60] [--part blocks|interleaved] [--quick] [--json] [--dir DIR]
        [--flags FLAGS OF kio serve]

kio with 2 workers, a shard each. Blocks: `keys` keys without a TTL are written, and everything comes to rest: that is
the base. Then as many with a TTL. From then on the daemon is asked for counts only. A count that is larger than it
should be was right some time ago: that is how late it is, and it is never to be too small. Then the KeyDir's memory has
to come back to the base (or 5 % more), the disk too (or a segment a shard more: the one in which both kinds of keys
stand). All this is to happen within the time between two checkpoints, and with next to nothing rewritten.

Interleaved: on a new directory each key without a TTL is followed by one with, so that every segment is half dead in
the end. The disk has to come back under space_amplification times what lives.

Disk here is the sealed segments up to the end of their records. Each shard's active segment and the one made ahead have
their blocks reserved, however full they are; hints, expiries and checkpoints are overhead for each record: the rows
`with_overhead` have all that too.
"""

from __future__ import annotations

import argparse
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import kio
from kio.limits import MIB, SPACE_AMPLIFICATION
from tests.measure import processes, servers, verdict
from tests.measure.processes import Watched
from tests.measure.verdict import Figure, say

SHARDS = 2
BATCH = 1_000
SAMPLE_S = 0.1
#: Nothing has changed for so long: it is at rest.
REST_S = 3.0
#: What has not happened after so many times the interval is not awaited any longer.
INTERVALS_MAX = 2
COUNT_LATE_S_MAX = 1.0
GONE_S_MAX = 2.0
REWRITTEN_MAX = 0.01
KEYDIR_SLACK = 1.05


@dataclass
class Expected:
    """What a count may say at any moment; times are of time.monotonic()."""

    #: Keys that never expire.
    base: int
    #: Of each batch, in the order of writing: all keys up to its end, and between which moments its time comes.
    totals: list[int] = field(default_factory=list)
    earliest: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)

    def add(self, keys: int, sent: float, acked: float, ttl_s: float) -> None:
        """A batch was written with this TTL."""
        self.totals.append((self.totals[-1] if self.totals else 0) + keys)
        self.earliest.append(sent + ttl_s)
        self.latest.append(acked + ttl_s)

    def late_s(self, count: int, asked: float) -> float:
        """For how long a `count` that was asked for at that moment has been too large; 0 where it is not."""
        gone = self.totals[-1] - (count - self.base)
        if gone >= self.totals[-1]:
            return 0.0
        return max(0.0, asked - self.latest[bisect_right(self.totals, gone)])

    def is_early(self, count: int, answered: float) -> bool:
        """Whether keys are missing whose time had not come when it was answered."""
        gone = self.totals[-1] - (count - self.base)
        due = bisect_right(self.earliest, answered)
        return gone > (self.totals[due - 1] if due else 0)


class Scale:
    """The keys and values of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.keys: int = args.keys
        self.ttl_s: float = args.ttl
        self.value = b"v" * args.value_bytes

    def numbers(self) -> Iterator[range]:
        """All keys' numbers, in batches."""
        return (range(start, min(start + BATCH, self.keys)) for start in range(0, self.keys, BATCH))


def lasting(number: int) -> bytes:
    return b"key:%012d" % number


def expiring(number: int) -> bytes:
    return b"ttl:%012d" % number


def write_blocks(db: kio.Client, scale: Scale, expected: Expected) -> None:
    """The keys with a TTL, in batches."""
    for numbers in scale.numbers():
        sent = time.monotonic()
        db.set_many({expiring(i): scale.value for i in numbers}, ttl=scale.ttl_s)
        expected.add(len(numbers), sent, time.monotonic(), scale.ttl_s)


def write_interleaved(db: kio.Client, scale: Scale) -> None:
    """A key without a TTL, one with, a key without..."""
    for numbers in scale.numbers():
        with db.pipeline() as pipeline:
            for i in numbers:
                pipeline.set(lasting(i), scale.value)
                pipeline.set(expiring(i), scale.value, ttl=scale.ttl_s)


@contextmanager
def daemon(home: Path, args: argparse.Namespace) -> Iterator[tuple[kio.Client, Watched, Path]]:
    """An empty daemon: a client of it, its figures and its data directory."""
    home.mkdir()
    shown = ("--shards", str(SHARDS), "--segment-mib", str(args.segment_mib), "--sync-interval-ms", "100")
    more = ("--checkpoint-interval-s", str(args.checkpoint_interval_s), *args.flags)
    with (
        servers.kio_daemon(home, *shown, *more) as server,
        kio.connect(server.url, timeout=60.0) as db,
        closing(Watched(server.url, server.pid)) as watched,
    ):
        yield db, watched, home / "data"


def at_rest(watched: Watched, data: Path, limit_s: float) -> None:
    """Return when the segments have stopped changing; RuntimeError when they do not."""
    end = time.monotonic() + limit_s
    before, since = (0, 0, 0), time.monotonic()
    while time.monotonic() - since < REST_S:
        if time.monotonic() > end:
            raise RuntimeError(f"the segments still change after {limit_s:g} s")
        now = processes.disk_bytes(data, ".seg"), watched.total("segments"), watched.total("unsynced_bytes")
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(SAMPLE_S)


def seconds_until(condition: Callable[[], bool], since: float, limit_s: float) -> float | None:
    """How long after `since` it held; None when it did not within the limit."""
    while not condition():
        if time.monotonic() > since + limit_s:
            return None
        time.sleep(SAMPLE_S)
    return max(0.0, time.monotonic() - since)


def measure_blocks(home: Path, args: argparse.Namespace) -> Iterator[Figure]:
    """Keys that expire behind keys that do not."""
    scale, limit_s = Scale(args), args.checkpoint_interval_s * INTERVALS_MAX
    with daemon(home, args) as (db, watched, data):
        for numbers in scale.numbers():
            db.set_many({lasting(i): scale.value for i in numbers})
        at_rest(watched, data, limit_s)
        base_disk, base_keydir = processes.sealed_bytes(data), watched.total("keydir_bytes")
        base_files = processes.disk_bytes(data)
        base_written, base_rewritten = watched.total("bytes_written"), watched.total("compacted_bytes_written")
        expected = Expected(base=watched.count())
        say(f"expiry: {scale.keys:,} keys with a TTL of {scale.ttl_s:g} s")
        write_blocks(db, scale, expected)
        peak_files = processes.disk_bytes(data)
        late, gone, is_early = _watch(watched, expected, limit_s)
        last = expected.latest[-1]
        keydir_s = seconds_until(lambda: watched.total("keydir_bytes") <= base_keydir * KEYDIR_SLACK, last, limit_s)
        allowed = base_disk + SHARDS * args.segment_mib * MIB
        disk_s = seconds_until(lambda: processes.sealed_bytes(data) <= allowed, last, limit_s)
        at_rest(watched, data, limit_s)
        rewritten = watched.total("compacted_bytes_written") - base_rewritten
        theirs = watched.total("bytes_written") - base_written
        yield Figure("blocks keys", expected.base)
        yield Figure("blocks expired_too_early", int(is_early), 0)
        yield Figure("blocks count_late_s", late["count"], COUNT_LATE_S_MAX)
        yield Figure("blocks status_late_s", late["status"], GONE_S_MAX)
        yield Figure("blocks gone_from_count_s", gone["count"], GONE_S_MAX)
        yield Figure("blocks gone_from_status_s", gone["status"], GONE_S_MAX)
        yield Figure("blocks keydir_at_base_s", keydir_s, args.checkpoint_interval_s)
        yield Figure("blocks disk_at_base_s", disk_s, args.checkpoint_interval_s)
        yield Figure("blocks rewritten_share", rewritten / theirs, REWRITTEN_MAX)
        yield Figure("blocks keydir_over_base", watched.total("keydir_bytes") / base_keydir)
        yield Figure("blocks disk_over_base", processes.sealed_bytes(data) / base_disk)
        yield Figure("blocks mib_with_overhead_base", base_files / MIB)
        yield Figure("blocks mib_with_overhead_peak", peak_files / MIB)
        yield Figure("blocks mib_with_overhead", processes.disk_bytes(data) / MIB)


def _watch(
    watched: Watched, expected: Expected, limit_s: float
) -> tuple[dict[str, float], dict[str, float | None], bool]:
    """Ask for counts until all is gone: how late they were at the most, when none was left, any that was too small."""
    asks: dict[str, Callable[[], int]] = {"count": watched.count, "status": lambda: watched.total("keys")}
    late = dict.fromkeys(asks, 0.0)
    gone: dict[str, float | None] = dict.fromkeys(asks)
    is_early = False
    last = expected.latest[-1]
    while None in gone.values() and time.monotonic() < last + limit_s:
        for name, ask in asks.items():
            asked = time.monotonic()
            count = ask()
            answered = time.monotonic()
            if name == "count":
                is_early = is_early or expected.is_early(count, answered)
            late[name] = max(late[name], expected.late_s(count, asked))
            if count <= expected.base and gone[name] is None:
                gone[name] = max(0.0, answered - last)
        time.sleep(SAMPLE_S)
    return late, gone, is_early


def measure_interleaved(home: Path, args: argparse.Namespace) -> Iterator[Figure]:
    """Keys that expire among keys that do not."""
    scale, limit_s = Scale(args), args.checkpoint_interval_s * INTERVALS_MAX
    with daemon(home, args) as (db, watched, data):
        say(f"expiry: {scale.keys:,} keys with a TTL of {scale.ttl_s:g} s, interleaved with as many others")
        write_interleaved(db, scale)
        last = time.monotonic() + scale.ttl_s
        gone = seconds_until(lambda: watched.count() <= scale.keys, last, limit_s)

        def records_over_live() -> float:
            return 1 + watched.total("dead_bytes") / watched.total("live_bytes")

        def disk_over_live() -> float:
            return processes.sealed_bytes(data) / watched.total("live_bytes")

        records_s = seconds_until(lambda: records_over_live() <= SPACE_AMPLIFICATION, last, limit_s)
        disk_s = seconds_until(lambda: disk_over_live() <= SPACE_AMPLIFICATION, last, limit_s)
        at_rest(watched, data, limit_s)
        yield Figure("interleaved keys", watched.count())
        yield Figure("interleaved gone_from_count_s", gone, GONE_S_MAX)
        yield Figure("interleaved records_over_live", records_over_live(), SPACE_AMPLIFICATION)
        yield Figure("interleaved records_under_limit_s", records_s, args.checkpoint_interval_s)
        yield Figure("interleaved disk_over_live", disk_over_live(), SPACE_AMPLIFICATION)
        yield Figure("interleaved disk_under_limit_s", disk_s, args.checkpoint_interval_s)
        with_overhead = processes.disk_bytes(data) / watched.total("live_bytes")
        yield Figure("interleaved disk_over_live_with_overhead", with_overhead)
        yield Figure("interleaved rewritten_mib", watched.total("compacted_bytes_written") / MIB)


def measure(args: argparse.Namespace) -> list[Figure]:
    """Every figure."""
    figures = []
    with verdict.scratch(args) as home:
        if args.part != "interleaved":
            figures += measure_blocks(home / "blocks", args)
        if args.part != "blocks":
            figures += measure_interleaved(home / "interleaved", args)
    return figures


def main(arguments: list[str] | None = None) -> int:
    parser = verdict.parser(__doc__, segment_mib=1)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--ttl", type=float, default=5.0)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--checkpoint-interval-s", type=int, default=60)
    parser.add_argument("--part", choices=("all", "blocks", "interleaved"), default="all")
    small = {"keys": 50_000, "ttl": 0.5, "segment_mib": 1, "checkpoint_interval_s": 5}
    args = verdict.shrink(parser.parse_args(arguments), **small)
    return verdict.show(args, measure(args))


if __name__ == "__main__":
    sys.exit(main())
