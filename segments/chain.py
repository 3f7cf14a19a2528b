"""The chain of one shard's segments: which one takes records, and how the others become sealed.

    prepared   made ahead by a job when a quarter of the active one is left; in the manifest, empty
    active     takes every new record, in one order; where nothing is prepared, its last part takes no puts
    sealing    takes none; its records are synced like the active one's; then a job writes hints and footer
    sealed     immutable
    output     written by a compaction (compaction.py), sealed from the moment on that it is installed

Owns: the segments, their slots in the engine, syncs and seals under way; files come from supply.py. Used by the
store's thread only; what may take long is handed out as jobs (jobs.py), whose outcome only `finish` brings in.
Invariants:
  * an LSN counts as durable only after an fdatasync that began after its write, and only if every earlier one
    succeeded: one sync is under way at a time, oldest segment first, and every fdatasync of records is one of these;
  * a segment is sealed only when all its records are durable.

A full disk. Records leave room for the end of their segment, so that it can always be sealed in the blocks it has.
Where no next segment can be made (supply.py), puts stop before the last part of the active one; tombstones and clears
go on there, so that keys can be deleted and what they took compacted (compaction.py).
Crash: recovery.py says what each moment leaves.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kio.clock import monotonic_s
from kio.limits import MIB, SEGMENTS_PER_SHARD_MAX
from kio.log import Log
from kio.segments import _relocate
from kio.segments._engine import ROTATE_MISFITS, Engine
from kio.segments._expiries import ExpiryQueue, ExpiryRun
from kio.segments.disk import Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.jobs import Job, SealJob, SyncJob
from kio.segments.manifest import Manifest, SegmentEntry
from kio.segments.recovery import Source
from kio.segments.reserve import is_full
from kio.segments.segment import RECORDS_START, Descriptors, Segment
from kio.segments.supply import RETRY_S, Supply

#: The next segment is prepared when the active one has room for no more than this part of it, or these bytes: then it
#: is there when it is needed, and not much sooner, since its blocks count as taken. Not before this part is used.
PREPARE_ROOM: Final = 1 / 4
PREPARE_ROOM_BYTES: Final = 2 * MIB
PREPARE_USED: Final = 1 / 8


class SegmentChain:
    """The segments of a shard that has been recovered; `begin` makes the first active one.

    Args:
        segment_bytes: capacity of a segment, in bytes; a longer record gets a segment of its own.
        syncs_to_seal: nobody asks for syncs (sync = "os"): `background_job` asks for what sealing needs.
    """

    def __init__(
        self,
        path: Path,
        identity: DirectoryIdentity,
        shard: int,
        segment_bytes: int,
        syncs_to_seal: bool,
        disk: Disk,
        manifest: Manifest,
        engine: Engine,
        descriptors: Descriptors,
    ) -> None:
        # Set once.
        self._identity = identity
        self._shard = shard
        self._segment_bytes = segment_bytes
        self._syncs_to_seal = syncs_to_seal
        self._disk = disk
        self._manifest = manifest
        self._engine = engine
        self._descriptors = descriptors
        self._log = Log(__name__, shard=shard)
        # The segments.
        self._segments: dict[int, Segment] = {}
        self._free_slots: list[int] = []
        self._slots_used = 0
        self._sealing: list[Segment] = []
        self._seal_at_s = 0.0
        self.supply = Supply(disk, path, shard, segment_bytes, manifest, engine, self._free_slots.append)
        self.active: Segment
        self.epoch = 1
        # The jobs under way, by kind, and figures of those that are done.
        self._running: dict[str, Job] = {}
        self.unsynced_bytes = 0
        self.syncs = 0
        self.sync_ms_last = 0.0

    # ---- segments ----

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._running) or self.supply.making is not None

    @property
    def is_syncing(self) -> bool:
        """Whether a sync is under way."""
        return SyncJob.kind in self._running

    @property
    def slots_used(self) -> int:
        """No slot above it was ever given to a segment."""
        return self._slots_used

    def reserve_slots(self, sources: list[Source]) -> None:
        """Give each recovered segment its slot, which the words of the KeyDir will name."""
        for source in sources:
            source.segment.slot = self._take_slot()

    def adopt(self, source: Source, live_bytes: int) -> None:
        """Take a recovered segment into the chain."""
        self._attach(source.segment, source.record_bytes, live_bytes)
        if not source.is_sealed:
            self._sealing.append(source.segment)

    def begin(self, epoch: int) -> None:
        """Make the spare whole, and the first active segment, of this epoch.

        Raises:
            OSError: when the disk refuses; ENOSPC only when not even the spare has room for a short segment.
        """
        self.epoch = epoch
        self._activate(self.supply.begin(epoch))
        self.active.is_synced = True

    def wrote(self, size: int) -> None:
        """`size` bytes were written to the active segment, and are not durable."""
        self.unsynced_bytes += size
        self.active.is_synced = False
        self.supply.wrote()

    def make_room(self, room: int) -> None:
        """Let a record that takes `room` bytes with its end fit: behind what was kept back, or into the next segment.

        Raises:
            OSError: as `rotate`.
        """
        self.supply.settle()
        if self.supply.prepared is None:
            self.supply.prepare_now()
        else:
            self.rotate(room)

    def rotate(self, room: int, *, is_short: bool = False) -> None:
        """Make another segment active, with room for a record that takes `room` bytes with its end.

        Args:
            is_short: one in what the spare gives up, for a disk that is full: the active one can be sealed then.

        Raises:
            OSError: when none is prepared and the disk refuses one; nothing has changed then.
        """
        slot = self._take_slot()
        try:
            following = self.supply.make_short(self.supply.short_bytes) if is_short else self.supply.take(room)
        except OSError:
            self._free_slots.append(slot)
            raise
        following.slot = slot
        old = self.active
        self._close_active()
        if old.end == RECORDS_START:
            self._engine.detach(old.slot)
            self._free_slots.append(old.slot)
            del self._segments[old.id]
            self.supply.drop_empty(old)
        self._activate(following)

    @property
    def manifest(self) -> Manifest:
        """The shard's manifest."""
        return self._manifest

    @property
    def lsn(self) -> int:
        """The last LSN written."""
        return self._engine.lsn

    def seal_if_prepared(self) -> None:
        """Begin the next segment if it stands ready, which costs no call to the disk."""
        has_slot = bool(self._free_slots) or self._slots_used < SEGMENTS_PER_SHARD_MAX
        # While a job makes a segment, the next one would have to wait for it.
        is_prepared = self.supply.prepared is not None and self.supply.making is None
        if is_prepared and has_slot and self._engine.tail > RECORDS_START:
            self.rotate(0)

    def unsealed(self) -> list[tuple[int, int, int]]:
        """(id, end, last LSN) of the segments that hold records and have no end on disk yet, oldest first."""
        closed = (segment for segment in self._segments.values() if segment.fd >= 0 and segment is not self.active)
        found = [(segment.id, segment.end, segment.lsn_last) for segment in closed]
        if self._engine.tail > RECORDS_START:
            found.append((self.active.id, self._engine.tail, self._engine.lsn))
        return found

    def segments(self) -> Iterable[Segment]:
        """The attached segments."""
        return self._segments.values()

    def usage(self) -> tuple[int, int, int, int]:
        """(segments, bytes of records, bytes of live records, bytes of files)."""
        records, live, _ = _relocate.totals(self._engine, self._slots_used)
        # A list, made at once: jobs change the manifest from other threads.
        output = self.supply.output
        files = sum(entry.size or self._segment_bytes for entry in list(self._manifest.state.segments.values()))
        return len(self._segments), records, live, files + (output.capacity if output else 0)

    def wholly_dead(self) -> bool:
        """Whether a segment that takes no more records holds no live one."""
        _, _, slots = _relocate.totals(self._engine, self._slots_used)
        return any(slot != self.active.slot for slot in slots)

    # ---- compaction ----

    def sealed(self) -> list[tuple[Segment, SegmentEntry]]:
        """The sealed segments whose records are all older than those of every segment that is not sealed."""
        waiting = {segment.id for segment in self._sealing}
        entries = self._manifest.state.segments
        # A segment that is not in the manifest any more is an old one, whose words could not all be relocated.
        known = [(s, entries[s.id]) for s in self._segments.values() if s.id in entries]
        before = min(s.lsn_first for s, entry in known if s.id in waiting or entry.state != "sealed")
        return [
            (s, entry)
            for s, entry in known
            if entry.state == "sealed" and s.id not in waiting and entry.lsn_max < before
        ]

    def output_job(self, capacity: int) -> Job:
        """What makes the file of a compaction's output, an OutputJob; or a job that has to be waited for first.

        Ids rise in the order of the manifest's edits, so only one job at a time may make a segment.
        """
        return self.supply.making or self.supply.output_job(capacity, self._take_slot())

    def attach_output(self, segment: Segment) -> None:
        """Take the installed output into the chain; no word names it yet."""
        segment.is_synced = True
        self._attach(segment, segment.end - RECORDS_START, 0)
        self.supply.output = None
        self._descriptors.keep(segment.path, segment.fd)
        segment.fd = -1

    def discard_output(self) -> None:
        """Remove what a compaction has written, unless it was installed; nobody writes it any more."""
        self.supply.discard_output()

    def detach(self, segment: Segment) -> None:
        """Forget a segment that no word names and that the manifest has dropped."""
        self._engine.detach(segment.slot)
        self._free_slots.append(segment.slot)
        del self._segments[segment.id]
        self._descriptors.drop(segment.path)
        # They may stand in the mapping, which is to be closed.
        segment.expiries = ExpiryRun(b"")

    def _attach(self, segment: Segment, record_bytes: int, live_bytes: int) -> None:
        if not segment.slot:
            segment.slot = self._take_slot()
        self._engine.attach(
            segment.slot, segment.id, segment.mapping, segment.end, segment.crc_seed, record_bytes, live_bytes
        )
        self._segments[segment.id] = segment

    def _take_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        if self._slots_used == SEGMENTS_PER_SHARD_MAX:
            raise OSError(errno.ENOSPC, f"shard {self._shard} has no slot for another segment")
        self._slots_used += 1
        return self._slots_used

    def _activate(self, segment: Segment) -> None:
        segment.lsn_first = self._engine.lsn + 1
        self._attach(segment, 0, 0)
        segment.expiries = queue = ExpiryQueue()
        self._engine.activate(segment.slot, segment.capacity, segment.epoch, queue)
        self._engine.keep_back(self.supply.kept_back_bytes(segment))
        self._engine.refuse_misfits(ROTATE_MISFITS)
        self.active = segment

    def _close_active(self) -> None:
        """The active segment takes no more records: it waits for its seal, if it has any."""
        active = self.active
        active.end, _, _ = self._engine.usage(active.slot)
        active.lsn_last = self._engine.lsn
        if active.end > RECORDS_START:
            self._sealing.append(active)

    # ---- jobs ----

    def sync_job(self) -> SyncJob | None:
        """What makes every record up to the last LSN durable; None when all are, or a sync is under way."""
        if "sync" in self._running:
            return None
        segments = [s for s in [*self._sealing, self.active] if not s.is_synced]
        if not segments:
            return None
        for segment in segments:
            # What is written from now on makes it unsynced again.
            segment.is_synced = True
        self._engine.sync_started()
        job = SyncJob(self._disk, segments, self._engine.lsn, self.unsynced_bytes)
        self._running[job.kind] = job
        return job

    def background_job(self) -> Job | None:
        """The preparation or seal that waits; None when nothing waits or one is under way."""
        if SealJob.kind in self._running or self.supply.making is not None:
            return None
        job = self.supply.job(is_due=self._is_well_used())
        if job is not None:
            return job
        first = self._sealing[0] if self._sealing else None
        if first is None:
            return None
        if not first.is_synced or first.lsn_last > self._engine.durable_lsn:
            return self.sync_job() if self._syncs_to_seal else None
        if monotonic_s() < self._seal_at_s:
            return None
        job = self._running[SealJob.kind] = self._seal_job(first)
        return job

    def _is_well_used(self) -> bool:
        """Whether the active segment will soon be full."""
        capacity = self.active.capacity
        room_max = max(capacity * PREPARE_ROOM, PREPARE_ROOM_BYTES)
        return self._engine.room <= room_max and self._engine.tail > capacity * PREPARE_USED

    def finish(self, job: Job) -> str | None:
        """Take over the outcome of a job that has run; a second call for the same job changes nothing.

        Returns: why the shard must not take writes any more, or None.
        """
        if job is self.supply.making:
            self.supply.finish(job)
        if self._running.get(job.kind) is not job:
            return None
        del self._running[job.kind]
        if isinstance(job, SyncJob):
            return self._finish_sync(job)
        if isinstance(job, SealJob):
            self._finish_seal(job)
        return None

    def _seal_job(self, segment: Segment) -> SealJob:
        _, record_bytes, live_bytes = self._engine.usage(segment.slot)
        dead_bytes = record_bytes - live_bytes
        return SealJob(self._disk, self._shard, self._identity.seed, self._manifest, segment, live_bytes, dead_bytes)

    def _finish_sync(self, job: SyncJob) -> str | None:
        # An error of the disk is told to one fsync only: another one may have had it (store.py) while this one ran.
        if job.error is not None or self._engine.served_lsn_max < job.lsn:
            for segment in job.segments:
                segment.is_synced = False
            self._engine.served_lsn_max = self._engine.durable_lsn
            return f"a sync failed: {job.error}"
        self.syncs += 1
        self.sync_ms_last = job.took_ms
        self.unsynced_bytes -= job.unsynced_bytes
        self._engine.sync_finished(job.lsn)
        return None

    def _finish_seal(self, job: SealJob) -> None:
        segment = job.segment
        if isinstance(job.error, OSError) and is_full(job.error):
            # It may have no blocks for its end where the file system cannot allocate ahead: it waits for them.
            self._seal_at_s = monotonic_s() + RETRY_S
            self.supply.note_full(job.error)
            return
        self._sealing.remove(segment)
        if job.error is not None:
            # The records are safe; without a footer the next recovery scans them.
            self._log.error("seal failed", segment=segment.id, reason=str(job.error), run="kio check")
            return
        assert job.entry is not None
        segment.expiries = job.expiries
        self._descriptors.keep(segment.path, segment.fd)
        segment.fd = -1
        entry = job.entry
        self._log.info("seal", segment=entry.id, records=entry.records, bytes=entry.size, took_ms=round(job.took_ms))

    # ---- the end ----

    def finish_running(self) -> str | None:
        """Complete the jobs under way; why the shard must not take writes, if one of them says so. Blocks."""
        self.supply.settle()
        failures = [self._run_now(job) for job in list(self._running.values())]
        return next((failure for failure in failures if failure), None)

    def seal_all(self) -> str | None:
        """Make all durable and seal every segment; why that could not be done, or None. Blocks."""
        self._close_active()
        failure = self._run_now(self.sync_job())
        for segment in list(self._sealing):
            if failure:
                return failure
            job = self._running[SealJob.kind] = self._seal_job(segment)
            self._run_now(job)
            failure = None if job.error is None else str(job.error)
        if self.active.end == RECORDS_START:
            self.supply.drop_empty(self.active)
        self.supply.drop_prepared()
        return failure

    def close(self) -> None:
        """Give up every descriptor."""
        with ExitStack() as stack:
            for segment in self._open_for_writing():
                stack.callback(segment.close, self._disk)

    def _open_for_writing(self) -> Iterator[Segment]:
        yield from self._segments.values()
        yield from self.supply.open_for_writing()

    def _run_now(self, job: Job | None) -> str | None:
        if job is None:
            return None
        job.run()
        return self.finish(job)
