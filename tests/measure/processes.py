"""What a daemon's processes and files take, read from outside: /proc and stat, at any moment, as often as wanted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import kio
from kio.errors import Corrupt
from kio.segments.format import FOOTER, decode_footer


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


def rss_anon_bytes(pid: int) -> int:
    """Resident anonymous memory: pages of mapped files, which the kernel takes back, do not count."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no RssAnon")


def written(pid: int) -> tuple[int, int]:
    """(write_bytes, cancelled_write_bytes) of /proc/PID/io.

    write_bytes counts a page when it becomes dirty, so once for each time that it goes to the disk; a page that is
    written again before that costs nothing, one that is synced half full counts twice. cancelled_write_bytes are pages
    that were dirty when their file was cut or removed, and may never have gone there.
    """
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    fields = {name: int(number) for name, number in (line.split(": ") for line in lines)}
    return fields["write_bytes"], fields["cancelled_write_bytes"]


def descriptors(pid: int) -> list[str]:
    """What each open descriptor of a process leads to."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(Path(f"/proc/{pid}/fd/{name}").readlink()))
    return found


def disk_bytes(directory: Path, suffix: str = "") -> int:
    """The blocks that files below `directory` take, a file with several names once."""
    sizes = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            if name.endswith(suffix):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    stat = Path(parent, name).lstat()
                    sizes[stat.st_ino] = stat.st_blocks * 512
    return sum(sizes.values())


def segments(directory: Path) -> Iterator[tuple[int, int | None]]:
    """(blocks that it takes in bytes, end of its records in bytes) of each segment below `directory`.

    The end is None where a segment is not sealed: its blocks were reserved before there were records to fill them.
    """
    for path in directory.rglob("*.seg"):
        with suppress(FileNotFoundError), path.open("rb") as file:  # it was removed meanwhile
            stat = os.fstat(file.fileno())
            tail = os.pread(file.fileno(), FOOTER.size, max(0, stat.st_size - FOOTER.size))
            try:
                end = decode_footer(tail).end
            except Corrupt:
                end = None
            yield stat.st_blocks * 512, end


def bare_bytes(directory: Path) -> int:
    """What segments take without what is behind their records: hints, expiries, footers. All of those not sealed."""
    return sum(blocks if end is None else end for blocks, end in segments(directory))


def sealed_bytes(directory: Path) -> int:
    """The same of sealed segments only."""
    return sum(end for _, end in segments(directory) if end is not None)


class Watched:
    """A daemon: its status, over a connection of its own, and its processes. One thread's."""

    def __init__(self, url: str, pid: int) -> None:
        self.pid = pid
        self._db = kio.connect(url, timeout=60.0)

    def close(self) -> None:
        self._db.close()

    def count(self) -> int:
        """The number of keys, asked of the shards themselves."""
        return self._db.count()

    def status(self) -> dict[str, Any]:
        """What `kio status --json` tells; the shards' figures are up to half a second old."""
        return self._db.stats()

    def shards(self) -> dict[int, dict[str, Any]]:
        """The shards' part of it."""
        return {shard["shard"]: shard for shard in self.status()["shards"]}

    def total(self, field: str) -> int:
        """The sum of a figure over all shards."""
        return sum(shard[field] for shard in self.shards().values())

    def workers(self) -> dict[int, int]:
        """Worker -> its process."""
        return {worker["worker"]: worker["pid"] for worker in self.status()["workers"]}

    def written(self) -> tuple[int, int]:
        """The sums of `written` over all workers."""
        both = [written(pid) for pid in self.workers().values()]
        return sum(one for one, _ in both), sum(other for _, other in both)


@contextmanager
def sampling(look: Callable[[], object], every_s: float) -> Iterator[None]:
    """While the block runs, call `look` again and again from a thread; what it raises, the block's end raises."""
    stopping = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stopping.is_set():
                look()
                stopping.wait(every_s)
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    if failures:
        raise failures[0]


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through the points by least squares.

    >>> slope([(0, 5), (1, 7), (2, 9)])
    2.0
    """
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
