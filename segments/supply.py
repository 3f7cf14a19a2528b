"""Where the files of segments come from: made ahead, made now, or made of the spare; and whether the disk has room.

Owns: the spare (reserve.py), the prepared segment, a compaction's output until it is installed, and the one job that
makes any of them: ids rise in the order of the manifest's edits. Used by the store's thread only (chain.py).
Invariants:
  * nothing is prepared before the spare is whole;
  * while nothing is prepared, the engine keeps puts out of the last part of the active segment: so that part is still
    there for tombstones when it turns out that the disk is full. Where the next segment is ready it is for puts too.

A full disk. What finds no room is tried again each RETRY_S, whether anybody writes or not; until then nothing asks the
disk, and the engine refuses what does not fit. The log says when it began and when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kio.clock import monotonic_s
from kio.limits import KIB
from kio.log import Log
from kio.segments._engine import ROTATE_MISFITS, Engine
from kio.segments.disk import Disk
from kio.segments.jobs import Job, OutputJob, PrepareJob, ReserveJob
from kio.segments.manifest import Manifest
from kio.segments.reserve import Reserve, is_full
from kio.segments.segment import RECORDS_START, Segment, capacity_for, kept_back_bytes, new_entry

#: After something found no room, or failed, it is tried again so much later.
RETRY_S: Final = 1.0
#: On a full disk a shard makes do with a shorter active segment: this part of a whole one, at least so many bytes.
SHORT: Final = 1 / 16
SHORT_BYTES_MIN: Final = 64 * KIB
#: The disk is tight when it has room for fewer segments.
TIGHT_SEGMENTS: Final = 2


class Supply:
    """The files of one shard's segments-to-be.

    Args:
        segment_bytes: how long the active ones are, and the spare.
        free_slot: takes back the slot of an output that came to nothing.

    Attributes:
        epoch: of the segments that are made.
        short_bytes: how long an active one is at the least, on a full disk.
        prepared: the segment that will be active next, if there is one.
        output: what a compaction is writing; closed with the rest.
        full: why there is no room for another segment; None while there is.
    """

    def __init__(
        self,
        disk: Disk,
        path: Path,
        shard: int,
        segment_bytes: int,
        manifest: Manifest,
        engine: Engine,
        free_slot: Callable[[int], None],
    ) -> None:
        # Set once.
        self._disk = disk
        self._path = path
        self._shard = shard
        self._segment_bytes = segment_bytes
        self.short_bytes = int(min(max(segment_bytes * SHORT, SHORT_BYTES_MIN), segment_bytes))
        self._manifest = manifest
        self._engine = engine
        self._free_slot = free_slot
        self._log = Log(__name__, shard=shard)
        self.reserve = Reserve(disk, path, segment_bytes)
        # What there is.
        self.epoch = 1
        self.prepared: Segment | None = None
        self.output: Segment | None = None
        self._is_output_spare = False
        self._making: PrepareJob | OutputJob | ReserveJob | None = None
        # The disk.
        self.full: OSError | None = None
        self._is_write_refused = False
        self._full_s = 0.0
        self._refused = 0
        self._retry_at_s = 0.0

    # ---- room ----

    @property
    def is_full(self) -> bool:
        """Whether the disk has no room: for another segment, or for what was written last."""
        return self.full is not None or self._is_write_refused

    def is_tight(self) -> bool:
        """Whether the next segment but one may find no room: some other shard may be waiting for it already.

        Cost: a system call that waits for no disk.
        """
        return self._disk.free_bytes(self._path) < TIGHT_SEGMENTS * self._segment_bytes

    def why_full(self) -> str:
        """What an operator should know of a disk that is full, or about to be; empty while there is room."""
        if not self.is_full:
            return ""
        if self._engine.misfits == ROTATE_MISFITS and not self._is_write_refused:
            return "the disk has no room for another segment, and writes go on for less than one; free some space"
        return "the disk is full: reads and deletes go on, writes come back when space is free or keys were deleted"

    def wrote(self) -> None:
        """A write to the active segment found room."""
        self._is_write_refused = False

    def write_refused(self) -> None:
        """A write to the active segment found none, although that was allocated."""
        self._is_write_refused = True

    def note_full(self, error: OSError) -> None:
        """There is no room.

        Raises:
            OSError: `error`, where it says something else.
        """
        if not is_full(error):
            raise error
        if self.full is None:
            self._full_s, self._refused = monotonic_s(), self._engine.refused
            self._log.warning("disk full", reason=str(error), wanted=self._segment_bytes, spare=self.reserve.size)
        # Another one: the traceback of this one would keep segments mapped that are removed later, and their blocks.
        self.full = OSError(error.errno, error.strerror)

    def _look_at_room(self, error: BaseException | None) -> None:
        """Something was made, or not: note what that tells of the disk."""
        if error is not None:
            self._retry_at_s = monotonic_s() + RETRY_S
            if isinstance(error, OSError) and is_full(error):
                self.note_full(error)
            else:
                self._log.warning("prepare failed", reason=str(error))
        elif self.prepared is not None and self.reserve.is_whole and self.full is not None:
            self.full = None
            refused = self._engine.refused - self._refused
            self._log.info("disk has room", took_s=round(monotonic_s() - self._full_s, 1), refused=refused)

    # ---- the active segment ----

    def begin(self, epoch: int) -> Segment:
        """Make the spare whole, and the first active segment, of this epoch.

        Raises:
            OSError: when the disk refuses; ENOSPC only when not even the spare has room for a short segment.
        """
        self.epoch = epoch
        self.reserve.look()
        try:
            self.reserve.make()
        except OSError as error:
            self.note_full(error)
        return self.make_short(self._segment_bytes)

    def make_short(self, size: int) -> Segment:
        """A segment of `size` bytes, or shorter where the disk has no room; the last resort is what the spare gives up.

        Raises:
            OSError: as `begin`.
        """
        self.settle()
        while True:
            try:
                return self._make(size)
            except OSError as error:
                self.note_full(error)
            if size > self.short_bytes:
                size = max(size // 2, self.short_bytes)
            else:
                self.reserve.shrink(size)

    def take(self, room: int) -> Segment:
        """The segment prepared ahead, or one made now, for a record that takes `room` bytes with its end.

        Raises:
            OSError: when the disk refuses.
        """
        self.settle()
        if self.prepared is None:
            self.prepare_now()
        segment = self.prepared
        assert segment is not None
        if RECORDS_START + room > segment.capacity - kept_back_bytes(segment.capacity):
            segment.grow(self._disk, capacity_for(RECORDS_START + room))
        self.prepared = None
        return segment

    def prepare_now(self) -> None:
        """Prepare the next segment while a write waits.

        Raises:
            OSError: when the disk refuses; where it was full it is asked now and then only.
        """
        if self.full is not None and monotonic_s() < self._retry_at_s:
            raise OSError(self.full.errno, self.full.strerror)
        job = self._making = self._prepare_job(self._segment_bytes, self.reserve)
        self.settle()
        job.check()

    def _make(self, capacity: int) -> Segment:
        job = self._prepare_job(capacity, None)
        job.run()
        job.check()
        assert job.segment is not None
        return job.segment

    def _prepare_job(self, capacity: int, reserve: Reserve | None) -> PrepareJob:
        entry = new_entry(self._manifest.state.next_id, self.epoch)
        return PrepareJob(self._disk, self._path, self._shard, self._manifest, entry, capacity, reserve)

    def drop_empty(self, segment: Segment) -> None:
        """Remove a segment that holds no record; what the disk refuses of it is left to the next recovery."""
        try:
            segment.close(self._disk)
            self._manifest.append({"t": "drop", "id": segment.id})
            self._disk.unlink(segment.path)
        except OSError as error:
            self._log.warning("drop failed", segment=segment.id, reason=str(error))

    def drop_prepared(self) -> None:
        """Remove what was prepared and is not needed."""
        if self.prepared is not None:
            self.drop_empty(self.prepared)
            self.prepared = None

    def kept_back_bytes(self, segment: Segment) -> int:
        """What the active segment keeps back for tombstones and clears: all of it, if it is a short one."""
        if self.prepared is not None:
            return 0
        return segment.capacity if segment.capacity < self._segment_bytes else kept_back_bytes(segment.capacity)

    # ---- a compaction's output ----

    def output_job(self, capacity: int, slot: int) -> OutputJob:
        """What makes the file of a compaction's output, while no other job is under way."""
        assert self._making is None
        entry = new_entry(self._manifest.state.next_id, self.epoch)
        job = self._making = OutputJob(
            self._disk, self._path, self._shard, self._manifest, entry, capacity, slot, self.reserve
        )
        return job

    def discard_output(self) -> None:
        """Remove what a compaction has written and not installed; what the disk refuses of that is left to recovery."""
        output, self.output = self.output, None
        if output is None:
            return
        self._free_slot(output.slot)
        try:
            output.close(self._disk)
            if output.id in self._manifest.state.outputs and not self._manifest.has_failed:
                if self._is_output_spare:
                    self.settle()
                    self.reserve.give_back(output.path)
                else:
                    self._disk.unlink(output.path)
                self._manifest.append({"t": "drop", "id": output.id})
        except OSError as error:
            self._log.warning("drop failed", segment=output.id, reason=str(error))

    # ---- jobs ----

    @property
    def making(self) -> Job | None:
        """The job under way that makes a file."""
        return self._making

    def job(self, *, is_due: bool) -> Job | None:
        """What should be made now, while no job is under way; `is_due`: the active segment is well used."""
        if self._making is not None or monotonic_s() < self._retry_at_s:
            return None
        if self.prepared is None and (is_due or self.full is not None):
            self._making = self._prepare_job(self._segment_bytes, self.reserve)
        elif not self.reserve.is_whole:
            self._making = ReserveJob(self.reserve)
        return self._making

    def finish(self, job: Job) -> None:
        """Take over the outcome of a job that has run, if it is the one under way."""
        if job is not self._making:
            return
        self._making = None
        if isinstance(job, OutputJob):
            self.output, self._is_output_spare = job.segment, job.is_spare
            if job.segment is None:
                self._free_slot(job.slot)
            else:
                job.segment.slot = job.slot
            return
        if isinstance(job, PrepareJob):
            self.prepared = job.segment
            if job.segment is not None:
                self._engine.keep_back(0)
                self._engine.refuse_misfits(ROTATE_MISFITS)
        self._look_at_room(job.error)

    def settle(self) -> None:
        """Complete the job under way. Blocks."""
        if self._making is not None:
            self._making.run()
            self.finish(self._making)

    def open_for_writing(self) -> Iterator[Segment]:
        """The segments that have a descriptor."""
        yield from (segment for segment in (self.prepared, self.output) if segment is not None)
