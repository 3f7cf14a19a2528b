"""A real file system, small and full to the brim: what still works, and how writes come back without a restart.

A tmpfs of 64 MiB with segments of 4 MiB, or of 32 MiB with segments of 1 MiB; two shards. Several clients fill it until
every shard refuses every one of them. Then reads must be right, deletes must work, and either of two things must bring
writes back within seconds: keys are deleted, or another program's file is removed. Nothing that was acknowledged may be
lost, in a kill -9 on the full disk either, and the daemon must start on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.limits import KIB, MIB
from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, run_cli, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import DELETE, DISK_FULL, GET, OK, SET, Wire
from tests.crash.loop_mounts import mounted

CLIENTS = 4
VALUE_BYTES = 24 * KIB
#: Within so much time of room being there, writes are back: a few seconds, more on a machine that is busy.
BACK_S = 20.0
#: A client has filled the disk when it was refused so often in a row on every shard.
REFUSALS = 8
CYCLES = 3
CYCLES_LONG = 12
#: The part of the keys that is deleted where nothing else makes room: besides what lives, each shard has a segment that
#: is written, one made ahead and a reserve, 24 MiB of 64 in all, and where one shard's fit and the other's do not, no
#: compaction helps.
FREED = 0.35
#: The part of the disk that another program's file takes.
BALLAST = 3 / 16


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes; skips where mounting is not allowed."""
    with (
        tempfile.TemporaryDirectory(prefix="kio-disk-") as directory,
        mounted("kio-test", Path(directory), "-t", "tmpfs", "-o", f"size={size}") as disk,
    ):
        yield disk


def value_of(key: bytes) -> bytes:
    return (key + b".") * (VALUE_BYTES // (len(key) + 1))


class Filling:
    """A daemon on a small disk, and the keys that it has acknowledged."""

    def __init__(self, daemon: Daemon, chance: Chance) -> None:
        self.daemon = daemon
        self.dice = chance.dice
        self.repeat = chance.repeat
        self.tags = list(shard_tags(daemon).values())
        self.acked: set[bytes] = set()
        self.series = 0

    def fill(self) -> None:
        """Several clients write until each is refused everywhere."""
        self.series += 1
        faults: list[str] = []
        clients = [threading.Thread(target=self._fill, args=(number, faults)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert not faults, f"{faults}\n{self.repeat}"
        wait_until(lambda: self.states() == {"full"}, 5, lambda: f"every shard to be full, not {self.states()}", 0.05)

    def _fill(self, client: int, faults: list[str]) -> None:
        with Wire(self.daemon.url) as wire:
            refused = dict.fromkeys(self.tags, 0)
            for number in range(20_000):
                tag = self.tags[number % len(self.tags)]
                key = b"{%s}%d-%d-%d" % (tag, self.series, client, number)
                status, *rest = wire.request(SET, 0, key, value_of(key))
                if status == OK:
                    self.acked.add(key)
                    refused[tag] = 0
                elif (status, rest[1]) == (DISK_FULL, False):
                    refused[tag] += 1
                    if min(refused.values()) >= REFUSALS:
                        return
                else:
                    faults.append(f"a write was answered {status} {rest!r}")
                    return
            faults.append("the disk does not get full")

    def states(self) -> set[str]:
        return {stats["state"] for stats in self.daemon.shard_stats().values()}

    def check_reads(self, count: int = 0) -> None:
        """That so many of the keys, or all, are what they should be."""
        with Wire(self.daemon.url) as wire:
            for key in self.dice.sample(sorted(self.acked), count) if count else self.acked:
                assert wire.call(GET, 0, key) == value_of(key), f"{key!r} is lost or wrong\n{self.repeat}"

    def delete(self, part: float) -> None:
        """Delete a part of the keys, at random; each must be there. Many at once may have to wait for compaction."""
        with Wire(self.daemon.url) as wire:

            def is_deleted(key: bytes) -> bool:
                status, *rest = wire.request(DELETE, 0, key)
                assert status in (OK, DISK_FULL), f"a delete was answered {status} {rest!r}\n{self.repeat}"
                assert status == DISK_FULL or rest[0] is True, f"{key!r} was not there to be deleted\n{self.repeat}"
                return bool(status == OK)

            for key in self.dice.sample(sorted(self.acked), int(len(self.acked) * part)):
                wait_until(lambda k=key: is_deleted(k), BACK_S, f"{key!r} to be deleted", 0.05)  # type: ignore[misc]
                self.acked.remove(key)

    def take_away(self, ballast: Path, size: int) -> None:
        """Another program takes room that deletes have made."""
        self.delete(0.5)
        self.daemon.cli("compact")

        def is_taken() -> bool:
            try:
                ballast.write_bytes(bytes(size))
            except OSError as error:
                # What compaction has freed, its next output may take first.
                assert error.errno == errno.ENOSPC, error
                ballast.unlink()
                return False
            return True

        wait_until(is_taken, 10, "room for another program's file", 0.05)

    def _describe(self) -> str:
        """What the daemon says, and what takes the room."""
        data = self.daemon.data
        files = [f"{path.relative_to(data)}: {path.stat().st_blocks // 2} KiB" for path in sorted(data.rglob("*"))]
        free = os.statvfs(data).f_bavail * os.statvfs(data).f_frsize // KIB
        held = [
            line.split(maxsplit=5)[5]
            for pid in self.daemon.pids()
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if line.endswith("(deleted)")
        ]
        for pid in self.daemon.pids():
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if (target := str(entry.readlink())).endswith("(deleted)"):
                        held.append(target)
        return f"writes to come back: {free} KiB are free; {', '.join(files)}; {held}; {self.daemon.shard_stats()}"

    def await_writes(self) -> float:
        """Wait until every shard takes a write; how long that took."""
        began = time.monotonic()
        with Wire(self.daemon.url) as wire:
            for tag in self.tags:
                key = b"{%s}back" % tag

                def is_back(key: bytes = key) -> bool:
                    return bool(wire.request(SET, 0, key, value_of(key))[0] == OK)

                wait_until(is_back, BACK_S, self._describe, 0.05)
                wire.call(DELETE, 0, key)
        return time.monotonic() - began


def run(cycles: int, disk_mib: int, segment_mib: int, chance: Chance) -> None:
    flags = ["--segment-mib", str(segment_mib)]
    with small_disk(disk_mib * MIB) as disk, Daemon(disk / "data", workers=2, shards=2, flags=flags) as daemon:
        filling = Filling(daemon, chance)
        for cycle in range(cycles):
            ballast = disk / "ballast"
            if cycle % 2:
                filling.take_away(ballast, int(disk_mib * MIB * BALLAST))
            filling.fill()
            filling.check_reads(50)
            if cycle % 3 == 0:
                # On the disk that is full.
                daemon.kill_everything()
                daemon.restart()
                filling.check_reads()
            filling.delete(0.01)
            if ballast.exists():
                ballast.unlink()
            else:
                filling.delete(FREED)
            took_s = filling.await_writes()
            print(f"cycle {cycle}: {len(filling.acked)} keys, writes came back after {took_s:.2f} s")
        filling.check_reads()
        daemon.stop()
        run_cli("check", "--data", disk / "data")


@pytest.mark.stress
@pytest.mark.timeout(120)
def test_deletes_or_freed_space_bring_writes_back_on_a_disk_that_is_full_to_the_brim(chance: Chance) -> None:
    run(CYCLES, 64, 4, chance)


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("disk_mib", "segment_mib"), [(64, 4), (32, 1)])
def test_a_disk_that_is_filled_and_freed_many_times_loses_nothing(
    disk_mib: int, segment_mib: int, chance: Chance
) -> None:
    run(CYCLES_LONG * 10 if FULL else CYCLES_LONG, disk_mib, segment_mib, chance)
