"""One shard in process, on one core: rates, memory a key, and the longest pause while the KeyDir grows.

    python -m tests.measure.kernel [--keys 10000000] [--directory DIR] [--json]

Keys of 16 bytes, values of 100, batches of 100, sync = "os"; background jobs (preparing and sealing segments) run in a
helper thread, as in a worker. Batches are encoded beforehand, since that is the router's work. Time is the main
thread's CPU time, in which the write of each batch is included. The memory columns are bytes a key: what the KeyDir
accounts for, and by how much the process's anonymous resident memory grew for each key more than in the row above (in
the first row, than in an empty store of a process that has already worked on another one).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from kio import hashing, opbatch, wire
from kio.segments._hints import hash_key
from kio.segments.identity import DirectoryIdentity, create_or_load, shard_path
from kio.segments.jobs import Job
from kio.segments.options import StoreOptions
from kio.segments.store import Store

BATCH = 100
VALUE = b"v" * 100
STEP = 10_000
REPORT_AT = (1_000_000, 4_000_000, 10_000_000)


class Bench:
    """A store with a helper thread for its background jobs."""

    def __init__(self, directory: Path) -> None:
        self.identity, _ = create_or_load(directory, 1)
        self.store = Store.open(shard_path(directory, 0), self.identity, 0, StoreOptions(sync="os"))
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Job] = SimpleQueue()
        self._helper = threading.Thread(target=self._run)
        self._helper.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            self._done.put(job)

    def pump(self) -> None:
        while not self._done.empty():
            self.store.finish(self._done.get())
        while (job := self.store.background_job()) is not None:
            self._jobs.put(job)

    def settle(self) -> None:
        """Wait for the jobs under way: a segment that is being sealed takes memory for its hints."""
        while self.store.is_busy:
            self.store.finish(self._done.get())
            self.pump()

    def close(self) -> None:
        self._jobs.put(None)
        self._helper.join()
        self.store.close()

    def execute(self, batches: list[bytes]) -> tuple[float, float]:
        """(CPU seconds of all batches, of the longest one)."""
        total = longest = 0.0
        for batch in batches:
            before = time.thread_time_ns()
            self.store.execute(batch)
            took = time.thread_time_ns() - before
            total += took
            longest = max(longest, took)
            self.pump()
        return total / 1e9, longest / 1e9


def key(i: int) -> bytes:
    return b"key:%012d" % i


def encode(identity: DirectoryIdentity, op: int, numbers: list[int], value: bytes) -> list[bytes]:
    operations = [opbatch.Operation(op, k, value, hash_key(k, identity.seed)) for k in map(key, numbers)]
    return [opbatch.encode_batch(0, i, operations[i : i + BATCH]) for i in range(0, len(operations), BATCH)]


def anonymous_bytes() -> int:
    """Resident anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no RssAnon")


def warm_up(directory: Path) -> None:
    """Let the interpreter and the allocator take what they will need, on a store that is closed again."""
    scratch = Bench(directory)
    for op, value in ((wire.OP_SET, VALUE), (wire.OP_GET, b"")):
        for start in range(0, 20 * STEP, STEP):
            scratch.execute(encode(scratch.identity, op, list(range(start, start + STEP)), value))
    scratch.settle()
    scratch.close()


def run(directory: Path, keys: int) -> dict[str, object]:
    warm_up(directory / "scratch")
    bench = Bench(directory / "data")
    rng = random.Random(1)
    keys_before, resident_before = 0, anonymous_bytes()
    table = []
    longest = spent = gets_s = 0.0
    gets = 0
    for start in range(0, keys, STEP):
        took, most = bench.execute(encode(bench.identity, wire.OP_SET, list(range(start, start + STEP)), VALUE))
        spent += took
        longest = max(longest, most)
        count = start + STEP
        if count in REPORT_AT:
            bench.settle()
            accounted = bench.store.stats()["keydir_bytes"]
            resident = anonymous_bytes()
            for _ in range(100):
                sample = [rng.randrange(count) for _ in range(STEP)]
                took, _ = bench.execute(encode(bench.identity, wire.OP_GET, sample, b""))
                gets_s += took
                gets += STEP
            table.append(
                {
                    "keys": count,
                    "sets_per_s": round(count / spent),
                    "gets_per_s": round(gets / gets_s),
                    "keydir_bytes_per_key": round(accounted / count, 2),
                    "rss_slope_bytes_per_key": round((resident - resident_before) / (count - keys_before), 2),
                    "longest_batch_us": round(longest * 1e6),
                }
            )
            keys_before, resident_before = count, resident
            gets = 0
            gets_s = 0.0
    stats = bench.store.stats()
    assert stats["keys"] == keys and stats["misses"] == 0, stats
    bench.settle()
    bench.close()
    return {"algorithm": hashing.ALGORITHM, "batch": BATCH, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path, help="where the log is written; default: a temporary directory")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kio-bench.", dir=args.directory))
    try:
        result = run(directory, args.keys)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if args.json:
        print(json.dumps(result))
        return
    columns = (
        "keys",
        "sets_per_s",
        "gets_per_s",
        "keydir_bytes_per_key",
        "rss_slope_bytes_per_key",
        "longest_batch_us",
    )
    print("  ".join(f"{name:>23}" for name in columns))
    for row in result["table"]:  # type: ignore[attr-defined]
        print("  ".join(f"{row[name]:>23,}" for name in columns))


if __name__ == "__main__":
    main()
