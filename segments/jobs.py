"""Jobs: what may take long, cut off from the store's thread.

A job is made by the store, run once in any helper thread (it holds no GIL while it waits for the disk), and handed back
to the store, which alone changes its own state. `run` never raises: the outcome is in `error`. Running a job twice is
harmless: who cannot wait for the helper runs it himself, and whoever comes second finds it done.

    sync     fdatasync of every file that holds records which are not durable
    output   the file of a compaction's output: the manifest edit first, so that recovery knows it from a lost segment;
             where the disk is full, the spare becomes this file (reserve.py)
    reserve  the spare, where it is missing
    prepare  the spare, and then the next segment: file, blocks, header, name and manifest edit, all durable, before
             anybody needs it
    seal     the end (sealing.py) of a segment that takes no more records; its records are durable already
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from kio.segments import _hints
from kio.segments._expiries import ExpiryRun
from kio.segments.disk import Disk
from kio.segments.manifest import Manifest, SegmentEntry, sealed_edit
from kio.segments.reserve import Reserve, is_full
from kio.segments.sealing import hash_content, map_expiries, write_end
from kio.segments.segment import RECORDS_START, Segment, begin_segment, make_segment, segment_name


class Job:
    """One piece of work. `error` is what went wrong, or None; read it after `run`."""

    kind: str

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.took_ms = 0.0
        self._lock = threading.Lock()
        self._has_run = False

    def run(self) -> None:
        """Do the work, unless it was done; returns when it is done."""
        with self._lock:
            if self._has_run:
                return
            started = time.perf_counter()
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - whatever it was, the store has to know
                # Without the frames it came through: they hold this job, and the mappings of segments. In a cycle those
                # would stay until the collector comes by, and with them the blocks of files that were removed.
                error.__context__ = None
                self.error = error.with_traceback(None)
            self.took_ms = (time.perf_counter() - started) * 1000
            self._has_run = True

    def check(self) -> None:
        """Raise what went wrong, once: the job has nothing to do with it any more, for the same reason."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def cancel(self) -> None:
        """Let it not run any more; returns when it is not running."""
        with self._lock:
            self._has_run = True

    def _work(self) -> None:
        raise NotImplementedError


class SyncJob(Job):
    """Make everything up to `lsn` durable."""

    kind = "sync"

    def __init__(self, disk: Disk, segments: list[Segment], lsn: int, unsynced_bytes: int) -> None:
        super().__init__()
        self.segments = segments
        self.lsn = lsn
        self.unsynced_bytes = unsynced_bytes
        self._disk = disk

    def _work(self) -> None:
        # Oldest first: when a later segment is durable, the earlier ones are, so a power cut leaves no hole.
        for segment in self.segments:
            self._disk.sync_data(segment.fd)


class ReserveJob(Job):
    """Make the spare whole."""

    kind = "reserve"

    def __init__(self, reserve: Reserve) -> None:
        super().__init__()
        self._reserve = reserve

    def _work(self) -> None:
        self._reserve.make()


class PrepareJob(Job):
    """Make the segment that will be active next.

    Args:
        reserve: what has to be whole before; None: nothing has.
    """

    kind = "prepare"

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        shard: int,
        manifest: Manifest,
        entry: SegmentEntry,
        capacity: int,
        reserve: Reserve | None,
    ) -> None:
        super().__init__()
        self.segment: Segment | None = None
        self._reserve = reserve
        self._disk = disk
        self._directory = directory
        self._shard = shard
        self._manifest = manifest
        self._entry = entry
        self._capacity = capacity

    def _work(self) -> None:
        entry = self._entry
        manifest = self._manifest
        if self._reserve is not None:
            self._reserve.make()
        segment = make_segment(self._disk, self._directory, self._shard, manifest.directory_id, entry, self._capacity)
        try:
            manifest.append({"t": "create", "id": entry.id, "salt": entry.salt, "epoch": entry.epoch})
        except OSError:
            segment.close(self._disk)
            # A file that the manifest may name after all has to stay; the next open knows what to do with it.
            if not manifest.has_failed:
                self._disk.unlink(segment.path)
            raise
        self.segment = segment


class OutputJob(Job):
    """Make the segment that a compaction writes; it will have this slot.

    Attributes:
        segment: the outcome; where it is the spare it is as long as that.
        is_spare: the spare has become it.
    """

    kind = "output"

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        shard: int,
        manifest: Manifest,
        entry: SegmentEntry,
        capacity: int,
        slot: int,
        reserve: Reserve,
    ) -> None:
        super().__init__()
        self.segment: Segment | None = None
        self.is_spare = False
        self._reserve = reserve
        self.entry = entry
        self.slot = slot
        self._disk = disk
        self._directory = directory
        self._shard = shard
        self._manifest = manifest
        self._capacity = capacity

    def _work(self) -> None:
        entry = self.entry
        self._manifest.append({"t": "output", "id": entry.id, "salt": entry.salt, "epoch": entry.epoch})
        try:
            self.segment = self._make(entry)
        except OSError:
            self._manifest.append({"t": "drop", "id": entry.id})
            raise

    def _make(self, entry: SegmentEntry) -> Segment:
        directory_id = self._manifest.directory_id
        try:
            return make_segment(self._disk, self._directory, self._shard, directory_id, entry, self._capacity)
        except OSError as error:
            if not is_full(error):
                raise
        path = self._directory / segment_name(entry.id)
        size = self._reserve.size
        fd = self._reserve.take(path, self._capacity)
        try:
            segment = begin_segment(self._disk, path, fd, self._shard, directory_id, entry, size)
        except OSError:
            self._disk.close(fd)
            self._reserve.give_back(path)
            raise
        self.is_spare = True
        return segment


class SealJob(Job):
    """Write hints, expiries and footer behind the records of `segment`."""

    kind = "seal"

    def __init__(
        self, disk: Disk, shard: int, seed: int, manifest: Manifest, segment: Segment, live_bytes: int, dead_bytes: int
    ) -> None:
        super().__init__()
        self.segment = segment
        self.entry: SegmentEntry | None = None
        self.expiries = ExpiryRun(b"")
        self._disk = disk
        self._shard = shard
        self._seed = seed
        self._manifest = manifest
        self._live_bytes = live_bytes
        self._dead_bytes = dead_bytes

    def _work(self) -> None:
        segment = self.segment
        if self._manifest.state.segments[segment.id].state == "active":  # else it was tried before
            self._manifest.append({"t": "sealing", "id": segment.id, "end": segment.end, "lsn": segment.lsn_last})
        scan = _hints.scan(
            segment.mapping, RECORDS_START, segment.end, segment.crc_seed, self._seed, True, segment.epoch
        )
        content_hash = hash_content(self._disk, segment.fd, segment.end)
        unsealed = SegmentEntry(segment.id, segment.salt, segment.epoch)
        entry = write_end(
            self._disk, segment.fd, self._shard, unsealed, segment.end, scan, content_hash, self._live_bytes,
            self._dead_bytes,
        )  # fmt: skip
        expiries = map_expiries(self._disk, segment.fd, self._shard, entry)
        entry.lsn_max = max(entry.lsn_max, segment.lsn_last)
        floors = [{"t": "floor", "keyspace": k, "epoch": epoch, "lsn": lsn} for k, epoch, lsn in scan.clears]
        self._manifest.append(*floors, sealed_edit(entry))
        self.expiries = expiries
        self.entry = entry
