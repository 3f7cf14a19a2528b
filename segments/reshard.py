"""Resharding: a data directory that nobody uses, rewritten for another number of shards.

    1  survey   every shard is recovered and only looked at (reading.py): what lives, epochs, clocks, room on the disk
    2  copy     live records, shard by shard, dealt out by the hash of their keys (_reshard.pyx) to new stores, which
                stand as the next generation beside the one that counts (identity.py)
    3  verify   counts of every keyspace; every new shard was closed whole; every byte of them by the eyes of kio check
    4  swap     IDENTITY is replaced: from that moment on the new generation counts
    5  remove   the generation before

Invariants:
  * before the swap not a byte of the old shards is changed, and no daemon can be started: the directory stays locked;
  * all expiries are judged at one moment, which is not before any time that an old shard's clock has reached, and from
    which the new clocks begin: what has expired never comes back;
  * the new shards begin an epoch above every old one: a version (epoch, LSN) is never given out twice. So no record
    keeps its version, and a write on the condition of one that was read before is refused;
  * the directory id is another one. A backup, or a replica, of the old shards has nothing in common with the new ones,
    file by file; with the same id they could be taken for each other. The seed stays, so that keys only move.
Crash: before the swap the old generation counts, after it the new one, both whole; the next start, or the next run,
removes the other. An error or Ctrl-C before the swap removes what was built.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Final

from kio import limits, opbatch, wire
from kio.errors import Corrupt, DirectoryInvalid, DiskFull
from kio.segments import identity, keyspaces
from kio.segments._reshard import Dealer
from kio.segments.check import Report, check_shards
from kio.segments.clock import ShardClock
from kio.segments.disk import DISK, Disk, lock_file
from kio.segments.format import HINT
from kio.segments.identity import DirectoryIdentity, shard_path, shards_root
from kio.segments.jobs import Job
from kio.segments.manifest import Manifest, State
from kio.segments.options import StoreOptions
from kio.segments.reading import ShardReader
from kio.segments.store import Store

#: Bytes that are dealt out at once.
CHUNK_BYTES: Final = 4 << 20
#: A small shard gets segments that are smaller than they may be, of which so many hold it: each takes its room ahead.
SEGMENTS_PER_SHARD: Final = 4
SEGMENT_BYTES_MIN: Final = limits.MIB
#: On disk a key takes a hint and eight bytes of checkpoint beside its record.
KEY_BYTES: Final = HINT.size + 8

#: While a job runs for a shard, no more is written to it than this part of a segment: seals keep up.
JOBS_PER_SEGMENT: Final = 4

#: Called with (bytes done, bytes in all); what is verified counts again.
Progress = Callable[[int, int], None]
MakeClock = Callable[[int], ShardClock]


@dataclasses.dataclass
class Resharded:
    """What a run did; nothing where the directory has that many shards already."""

    shards_before: int
    shards: int
    records: int = 0
    #: Bytes of their records in the old shards.
    record_bytes: int = 0
    #: Records that were left out, since they have expired.
    expired: int = 0
    took_ms: int = 0
    #: Directories of the old shards that the disk did not let go; the next start removes them.
    left: list[str] = dataclasses.field(default_factory=list)


def reshard(
    data: Path,
    shards: int,
    *,
    segment_bytes: int = limits.SEGMENT_MIB * limits.MIB,
    progress: Progress | None = None,
    helper: Executor | None = None,
    disk: Disk = DISK,
    clock: MakeClock = ShardClock,
) -> Resharded:
    """Rewrite the data directory `data` for `shards` shards.

    Args:
        segment_bytes: of the new segments, at most.
        progress: may be called from the helper's threads.
        helper: seals segments beside the copying, and verifies shards side by side; without one it is all done in turn.
        clock: makes the clock that says what has expired.

    Raises:
        DirectoryInUse: when a daemon, or a check, is using it.
        DirectoryInvalid, FormatTooNew: when it is no data directory, or `shards` is out of range; or its map of
            keyspaces cannot be used.
        Corrupt: when a shard is damaged, or what was written is not what was read.
        DiskFull: when there is not enough room for both generations.
        OSError: when the disk refuses. After all of these the directory is as it was.
    Cost: reads what lives twice and writes it once; memory for the KeyDirs of all new shards and of one old one.
    """
    if not 1 <= shards <= limits.SHARDS_MAX:
        raise DirectoryInvalid(f"a data directory has 1 to {limits.SHARDS_MAX} shards, not {shards}")
    started = time.monotonic()
    identity.load(data)
    lock = lock_file(data / "LOCK")
    try:
        before = identity.load(data)
        keyspaces.load(data)  # it stays as it is, but nobody waits for hours to hear that it is damaged
        identity.remove_leftovers(data, before, disk)
        done = Resharded(before.shards, shards)
        if before.shards != shards:
            _Run(data, before, done, segment_bytes, progress, helper, disk, clock).run()
        done.took_ms = round((time.monotonic() - started) * 1000)
        return done
    finally:
        lock.release()


class _Run:
    """One rewriting."""

    def __init__(
        self,
        data: Path,
        before: DirectoryIdentity,
        done: Resharded,
        segment_bytes: int,
        progress: Progress | None,
        helper: Executor | None,
        disk: Disk,
        clock: MakeClock,
    ) -> None:
        self._data = data
        self._before = before
        self._done = done
        self._segment_bytes = segment_bytes
        self._progress = progress
        self._telling = threading.Lock()
        self._helper = helper
        self._disk = disk
        self._make_clock = clock
        self._after = dataclasses.replace(
            before, directory_id=secrets.token_bytes(16), shards=done.shards, generation=before.generation + 1
        )
        self._root = shards_root(data, self._after)
        self._filled: list[_Filled] = []
        #: What the new shards must hold, by keyspace.
        self._keys = [0] * limits.KEYSPACES
        # What the survey has found.
        self._epoch = 0
        self._now_ms = 0
        self._live_bytes = 0
        self._live_keys = 0
        #: How far `_verify` is, in bytes of records.
        self._verified = 0

    def run(self) -> None:
        self._survey()
        self._look_for_room()
        try:
            self._build()
        except (Exception, KeyboardInterrupt):
            self._give_up()
            raise
        try:
            identity.write(self._data, self._after, self._disk)
        except OSError:
            # Where the new one has the name, nobody knows which one a power cut would leave: then both stay.
            if identity.load(self._data) == self._before:
                self._give_up()
            raise
        self._remove_old()

    # ---- before ----

    def _readers(self) -> list[Callable[[], ShardReader]]:
        root = shards_root(self._data, self._before)
        return [
            lambda shard=shard: ShardReader(shard_path(root, shard), self._before, shard)  # type: ignore[misc]
            for shard in range(self._before.shards)
        ]

    def _survey(self) -> None:
        clock_ms = 0
        for read in self._readers():
            with read() as reader:
                self._epoch = max(self._epoch, reader.epoch)
                clock_ms = max(clock_ms, reader.clock_ms)
                self._live_bytes += reader.live_bytes
                self._live_keys += reader.engine.count_keys()
        self._now_ms = self._make_clock(clock_ms).now_ms()
        wanted = self._live_bytes // (SEGMENTS_PER_SHARD * self._done.shards)
        self._segment_bytes = min(self._segment_bytes, max(SEGMENT_BYTES_MIN, wanted))

    def _look_for_room(self) -> None:
        """Tell beforehand that the disk is too small, as far as one can know."""
        # Of each new shard, two segments that are not full yet, and the spare, have their room already.
        needed = self._live_bytes + self._live_keys * KEY_BYTES + 3 * self._done.shards * self._segment_bytes
        found = os.statvfs(self._data)
        free = found.f_bavail * found.f_frsize
        if free < needed:
            raise DiskFull(
                f"{self._data} needs {needed // limits.MIB} MiB more while it is rewritten, and the disk has "
                f"{free // limits.MIB}; nothing was changed"
            )

    # ---- the new generation ----

    def _build(self) -> None:
        self._make_shards()
        for read in self._readers():
            with read() as reader:
                self._copy(reader)
        self._count()
        for shard in self._filled:
            shard.close()
        self._filled.clear()
        self._verify()

    def _make_shards(self) -> None:
        disk = self._disk
        disk.make_directory(self._root)
        # Closed cleanly in that epoch, so that the shard opens with it.
        state = State(epoch=self._epoch + 1, clock_ms=self._now_ms)
        for shard in range(self._after.shards):
            path = shard_path(self._root, shard)
            disk.make_directory(path)
            Manifest.write(path, shard, self._after.directory_id, state, disk)
        disk.sync_directory(self._root)
        disk.sync_directory(self._data)
        options = StoreOptions(
            segment_bytes=self._segment_bytes, open_segments=1, value_bytes_max=limits.VALUE_BYTES_CEILING, sync="os"
        )
        for shard in range(self._after.shards):
            path = shard_path(self._root, shard)
            store = Store.open(path, self._after, shard, options, disk, self._standing_clock)
            self._filled.append(_Filled(store, self._segment_bytes // JOBS_PER_SEGMENT, self._helper))

    def _standing_clock(self, floor_ms: int) -> ShardClock:
        """A clock that does not move: nothing expires while it is counted."""
        return ShardClock(max(floor_ms, self._now_ms), wall_ms=lambda: 0, monotonic_ms=lambda: 0)

    def _copy(self, reader: ShardReader) -> None:
        dealer = Dealer(reader.engine, self._after.shards, self._now_ms)
        read_before = self._done.record_bytes
        while batches := dealer.deal(CHUNK_BYTES):
            for shard, batch in batches:
                self._filled[shard].write(batch)
            self._done.record_bytes = read_before + dealer.record_bytes
            self._tell(self._done.record_bytes, 2 * self._live_bytes)
        self._done.record_bytes = read_before + dealer.record_bytes
        for keyspace in range(limits.KEYSPACES):
            dealt, expired = dealer.counts(keyspace)
            wanted = reader.engine.count_keys(keyspace)
            if dealt + expired != wanted:
                raise Corrupt(
                    f"shard {reader.engine.shard} counts {wanted} keys in keyspace {keyspace} and holds "
                    f'{dealt + expired}; run "kio check --shard {reader.engine.shard}"'
                )
            self._keys[keyspace] += dealt
            self._done.records += dealt
            self._done.expired += expired

    def _count(self) -> None:
        """Compare the new shards' counts of every keyspace with what was read."""
        found = [0] * limits.KEYSPACES
        counts = [opbatch.Operation(wire.OP_COUNT, keyspace=keyspace) for keyspace in range(limits.KEYSPACES)]
        for shard, filled in enumerate(self._filled):
            answered = filled.store.execute(opbatch.encode_batch(shard, 0, counts)).replies
            for reply in opbatch.decode_replies(answered):
                found[reply.index] += int.from_bytes(reply.payload, "little")
        wrong = [keyspace for keyspace, keys in enumerate(self._keys) if keys != found[keyspace]]
        if wrong:
            raise Corrupt(
                f"keyspace {wrong[0]} has {self._keys[wrong[0]]} keys in the old shards and {found[wrong[0]]} "
                "in the new ones; nothing was changed; please report it"
            )

    def _verify(self) -> None:
        """Whether what stands on disk is whole, and all of it."""
        for shard in range(self._after.shards):
            path = shard_path(self._root, shard)
            state = Manifest.load(path, shard, self._after.directory_id, self._disk).state
            if not state.is_closed or any(entry.state != "sealed" for entry in state.segments.values()):
                raise OSError(errno.EIO, f"shard {shard} of the new ones could not be closed; nothing was changed")
            self._disk.sync_directory(path)
        reports = list((self._helper.map if self._helper else map)(self._check, range(self._after.shards)))
        for fault in [fault for report in reports for fault in [*report.faults, *report.notes]]:
            raise Corrupt(f"shard {fault.shard} of the new ones: {fault.file}: {fault.message}; nothing was changed")
        records = sum(report.records for report in reports)
        if records != self._done.records:
            raise Corrupt(f"of {self._done.records} new records {records} are there; nothing was changed")
        self._tell(2 * self._done.record_bytes, 2 * self._done.record_bytes)

    def _check(self, shard: int) -> Report:
        told = 0

        def tell(done: int, total: int) -> None:
            # In bytes of records, of which this shard has about its part.
            nonlocal told
            part = self._done.record_bytes * done // (total * self._after.shards)
            with self._telling:
                self._verified += part - told
                told = part
                self._tell(self._done.record_bytes + self._verified, 2 * self._done.record_bytes)

        return check_shards(self._root, self._after, shard, progress=tell, disk=self._disk)

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)

    # ---- after ----

    def _give_up(self) -> None:
        """Remove what was built; what the disk refuses of that is left to the next run."""
        for shard in self._filled:
            with suppress(OSError):
                shard.abandon()
        with suppress(OSError):
            self._disk.remove_tree(self._root)
            self._disk.sync_directory(self._data)

    def _remove_old(self) -> None:
        try:
            identity.remove_leftovers(self._data, self._after, self._disk)
        except OSError:
            self._done.left = [path.name for path in identity.leftovers(self._data, self._after)]


class _Filled:
    """A new shard while it is filled, and the job that runs beside.

    Args:
        ahead_max: bytes that may be written while a job runs.
    """

    def __init__(self, store: Store, ahead_max: int, helper: Executor | None) -> None:
        self.store = store
        self._ahead_max = ahead_max
        self._helper = helper
        self._ahead = 0
        self._running: tuple[Job, Future[None]] | None = None

    def write(self, batch: bytes) -> None:
        """Execute a batch of sets, and see to what waits in the background.

        Raises:
            KioError: when the store refuses one of them.
            OSError: when the disk refuses a job.
        """
        replies = self.store.execute(batch).replies
        statuses = replies[opbatch.HEADER.size + 4 :: opbatch.ENTRY.size]
        if any(statuses):
            for reply in opbatch.decode_replies(replies):
                error = reply.error()
                if error is not None:
                    raise error
        self._ahead += len(batch)
        if self._running is not None and (self._running[1].done() or self._ahead > self._ahead_max):
            self._finish_running()
        while self._running is None and (job := self.store.background_job()) is not None:
            self._ahead = 0
            if self._helper is None:
                job.run()
                self._take_over(job)
            else:
                self._running = job, self._helper.submit(job.run)

    def close(self) -> None:
        """Stop cleanly; what the disk refuses of that is in the log, and seen by who looks at the manifest."""
        self._finish_running()
        self.store.close()

    def abandon(self) -> None:
        """Stop as a killed process does, when no job runs any more."""
        if self._running is not None:
            self._running[0].cancel()
        self.store.abandon()

    def _finish_running(self) -> None:
        if self._running is not None:
            (job, future), self._running = self._running, None
            future.result()
            self._take_over(job)

    def _take_over(self, job: Job) -> None:
        self.store.finish(job)
        job.check()
