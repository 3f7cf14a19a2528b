"""What a backup costs a daemon that is written to at full speed, and whether it is what the daemon held.

    python -m tests.measure.backup [--gib 4] [--value-bytes 1000] [--rounds 3] [--seconds 10] [--segment-mib 128]
        [--target DIR] [--quick] [--json] [--dir DIR] [--flags FLAGS OF kio serve]

kio with 2 workers, a shard each, and for each shard a writer of its own (numbered.py), which never pauses. When every
key is there and half of them have been overwritten, windows without a backup and windows with one take turns: there
`kio backup` runs again and again, first into a new directory, until the seconds are over, and the window ends with the
last of them. Backups go beside the data, so they are links, or to --target, for another disk. Throughput is what is
acknowledged in a second, the median of the windows; memory is RssAnon of all of the daemon's processes, the most that
any sample of the windows saw.

Then the last backup is checked and restored, and a daemon on it is asked for every key: an LSN tells how many writes
there had been, and so what each key holds. That is compared in batches, so it takes no memory, however large it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import kio
from kio import hashing
from kio.limits import GIB
from kio.segments.identity import load
from tests.measure import processes, servers, verdict
from tests.measure.numbered import Model, Writer
from tests.measure.processes import Watched
from tests.measure.verdict import Figure, say

SHARDS = 2
SAMPLE_S = 0.1
POLL_S = 0.05
#: Overwritten before the first window, so that there is something to compact.
OVERWRITTEN = 0.5
BATCH = 1_000
RSS_GROWTH_MAX = 0.02
LOSS_MAX = 0.10


def kio_cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`kio ARGUMENTS`; RuntimeError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "kio", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        told = (done.stdout + done.stderr)[-1_000:]
        raise RuntimeError(f"kio {arguments[0]} exited {done.returncode}: {told}")
    return done


def tag_of(shard: int, seed: int) -> bytes:
    """A hash tag whose keys the shard owns."""
    number = 0
    while hashing.shard_of(hashing.key_hash(b"t%d" % number, seed), SHARDS) != shard:
        number += 1
    return b"t%d" % number


class Windows:
    """Throughput and memory, with a backup under way and without, in turns."""

    def __init__(self, writers: list[Writer], pid: int, data: Path, url: str, target: Path) -> None:
        self._writers = writers
        self._pid = pid
        self._data = data
        self._url = url
        self._target = target
        #: With a backup under way or not -> writes a second of each window, the samples of all windows.
        self.rates: dict[bool, list[float]] = {False: [], True: []}
        self.memory: dict[bool, list[int]] = {False: [], True: []}
        self.backups = 0
        self.took_s: list[float] = []
        #: What the last backup told, and of each shard the writes acknowledged before it and sent until its end.
        self.told: dict[str, Any] = {}
        self.acked: list[int] = []
        self.sent: list[int] = []

    def run(self, number: int, seconds: float) -> None:
        """One window without, one with."""
        self._window(False, lambda: time.sleep(seconds))
        for old in self._target.iterdir():
            shutil.rmtree(old)
        self._window(True, lambda: self._back_up(self._target / str(number), time.monotonic() + seconds))

    def _window(self, is_backup: bool, act: Any) -> None:
        memory = self.memory[is_backup]

        def look() -> None:
            memory.append(sum(processes.rss_anon_bytes(pid) for pid in processes.tree(self._pid)))

        with processes.sampling(look, SAMPLE_S):
            before, began = self._count(), time.monotonic()
            act()
            self.rates[is_backup].append((self._count() - before) / (time.monotonic() - began))
        for writer in self._writers:
            writer.check()

    def _back_up(self, directory: Path, until: float) -> None:
        while True:
            self.acked = [writer.progress.acked for writer in self._writers]
            began = time.monotonic()
            where = ("--data", self._data, "--url", self._url)
            self.told = json.loads(kio_cli("backup", directory, *where, "--json").stdout)
            self.took_s.append(time.monotonic() - began)
            self.sent = [writer.progress.sent for writer in self._writers]
            self.backups += 1
            if time.monotonic() >= until:
                return

    def _count(self) -> int:
        return sum(writer.progress.acked for writer in self._writers)

    def figures(self) -> Iterator[Figure]:
        """What backups cost."""
        quiet, busy = (statistics.median(self.rates[kind]) for kind in (False, True))
        most_quiet, most_busy = (max(self.memory[kind]) for kind in (False, True))
        usual_quiet, usual_busy = (statistics.median(self.memory[kind]) for kind in (False, True))
        yield Figure("writes_per_s_without_backup", quiet)
        yield Figure("writes_per_s_with_backup", busy)
        yield Figure("throughput_loss", 1 - busy / quiet, LOSS_MAX)
        yield Figure("rss_anon_mib_without_backup", most_quiet / 2**20)
        yield Figure("rss_anon_mib_with_backup", most_busy / 2**20)
        yield Figure("rss_anon_growth", most_busy / most_quiet - 1, RSS_GROWTH_MAX)
        yield Figure("rss_anon_growth_of_median", usual_busy / usual_quiet - 1)
        yield Figure("backups", self.backups)
        yield Figure("backup_s", statistics.median(self.took_s))
        yield Figure("backup_s_max", max(self.took_s))


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    keys = max(BATCH, int(args.gib * GIB / SHARDS / args.value_bytes))
    with verdict.scratch(args) as home, ExitStack() as stack:
        target = home / "backups"
        if args.target is not None:
            target = args.target / home.name
            stack.callback(shutil.rmtree, target, ignore_errors=True)
        target.mkdir()
        flags = ("--shards", str(SHARDS), "--segment-mib", str(args.segment_mib), "--sync-interval-ms", "100")
        (home / "first").mkdir()
        with (
            servers.kio_daemon(home / "first", *flags, *args.flags) as server,
            closing(Watched(server.url, server.pid)) as watched,
            ExitStack() as writing,
        ):
            base = {shard: stats["lsn"] for shard, stats in watched.shards().items()}
            seed = load(home / "first" / "data").seed
            writers = [
                writing.enter_context(
                    Writer(server.url, tag_of(shard, seed), keys, args.value_bytes, home / f"progress-{shard}")
                )
                for shard in range(SHARDS)
            ]
            _await_overwrites(writers, int(keys * (1 + OVERWRITTEN)))
            windows = Windows(writers, server.pid, home / "first" / "data", server.url, target)
            for number in range(args.rounds):
                say(f"backup: round {number + 1} of {args.rounds}")
                windows.run(number, args.seconds)
            live = watched.total("live_bytes")
            for writer in writers:
                writer.stop()
        shutil.rmtree(home / "first")
        yield Figure("live_gib", live / GIB)
        yield from windows.figures()
        (backup,) = target.iterdir()
        say("backup: checking, restoring, comparing")
        kio_cli("check", backup)
        (home / "second").mkdir()
        kio_cli("restore", backup, "--data", home / "second" / "data")
        writes = [at["lsn"] - base[at["shard"]] for at in sorted(windows.told["shards"], key=lambda at: at["shard"])]
        between = zip(windows.acked, writes, windows.sent, strict=True)
        yield Figure("lsns_outside_of_what_was_written", sum(not a <= n <= s for a, n, s in between), 0)
        with servers.kio_daemon(home / "second", *flags, *args.flags) as server:
            wrong, extra = compare(server.url, [writer.model for writer in writers], writes)
        yield Figure("keys_that_differ_from_the_model", wrong, 0)
        yield Figure("keys_beyond_the_model", extra, 0)
        yield Figure("keys_compared", keys * SHARDS)


def _await_overwrites(writers: list[Writer], acked: int) -> None:
    while min(writer.progress.acked for writer in writers) < acked:
        for writer in writers:
            writer.check()
        time.sleep(POLL_S)


def compare(url: str, models: list[Model], writes: list[int]) -> tuple[int, int]:
    """Ask for every key: (keys that are not as the models say, keys there are beyond theirs)."""
    wrong = there = 0
    with kio.connect(url, timeout=60.0) as db:
        for model, count in zip(models, writes, strict=True):
            for start in range(0, model.keys, BATCH):
                found = db.get_many([model.key(i) for i in range(start, min(start + BATCH, model.keys))])
                for i in range(start, min(start + BATCH, model.keys)):
                    last = model.last(i, count)
                    there += last is not None
                    wrong += found.get(model.key(i)) != (None if last is None else model.value(last))
        return wrong, db.count() - there


def main(arguments: list[str] | None = None) -> int:
    parser = verdict.parser(__doc__, segment_mib=128)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--value-bytes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--target", type=Path, metavar="DIR", help="where backups go; default: beside the data")
    small = {"gib": 0.02, "rounds": 1, "seconds": 0.5, "segment_mib": 1}
    args = verdict.shrink(parser.parse_args(arguments), **small)
    return verdict.show(args, list(measure(args)))


if __name__ == "__main__":
    sys.exit(main())
