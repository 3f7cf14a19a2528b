"""One compaction: what survives of a few sealed segments becomes one new segment, which takes their place.

    for each victim, oldest records first:
        open       its hints are read and verified                                       a job
        mark       which of its puts are live: their words name exactly them             slices
        decide     which of its tombstones and expired puts must stay (rule 3)           jobs
        copy       all of these into the output, verified, with version and kind kept    jobs
                   (the disk is full: into the spare, reserve.py; what does not fit any more is left out)
    wait           until every record is durable that made another one dead
    install        the output's end, then one edit: the output is there, the victims are dropped
    relocate       words that still name a victim's record go to its copy                slices
    detach, remove the victims' files

Invariants:
  * what is not copied is dead by a record that is durable, or was cleared, before the edit says so (the wait):
    otherwise a power cut could take the newer record and find the older one gone;
  * a word changes only where it still names the record that was copied: what a client did meanwhile stands;
  * a victim whose record is damaged is left as it is, and so is the whole run.
Crash: before the edit the output is a file that recovery removes; behind it the victims' files are. At every moment the
manifest names segments that together hold the newest record of every key, and all that hides older ones.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final

from kio.errors import Corrupt
from kio.log import Log
from kio.segments import format
from kio.segments._compact import Survivors
from kio.segments._engine import Engine
from kio.segments._mapping import Mapping
from kio.segments._relocate import Relocation
from kio.segments.chain import SegmentChain
from kio.segments.copying import CopyJob, GrowJob, HidersJob, InstallJob, OpenJob, Output, RemoveJob, end_bytes_of
from kio.segments.disk import Disk
from kio.segments.jobs import Job, OutputJob
from kio.segments.maintenance import SLICE, Durable, Pause, Steps
from kio.segments.manifest import Manifest, SegmentEntry
from kio.segments.reserve import is_full
from kio.segments.segment import RECORDS_START, Segment

#: Hints that one slice looks at: some 100 us.
HINTS_PER_SLICE: Final = 2048
#: Segments whose ends one job reads.
NEIGHBOURS_PER_JOB: Final = 8
_EVERY_LSN: Final = (1 << 64) - 1

Waiting = Generator[Job, None, None]


@dataclass(frozen=True)
class Parts:
    """What a rewrite works on: one shard's."""

    disk: Disk
    shard: int
    seed: int
    manifest: Manifest
    engine: Engine
    chain: SegmentChain
    #: The shard's clock in ms, by which records expire.
    now_ms: Callable[[], int]
    #: Called with the reason why the shard must not change any more.
    fail: Callable[[str], None]


@dataclass
class _Taken:
    """A victim whose survivors stand in the output."""

    segment: Segment
    entry: SegmentEntry
    hints: memoryview
    #: Of the whole file, beside the segment's own.
    mapping: Mapping
    live_bytes: int
    kept_bytes: int


@dataclass
class Outcome:
    """What a rewrite found and did."""

    #: Ids of the segments that are gone.
    drops: list[int] = field(default_factory=list)
    #: The lowest LSN among them.
    lsn_min: int = _EVERY_LSN
    bytes_read: int = 0
    bytes_written: int = 0
    #: Segment id -> bytes of tombstones that have to stay.
    kept: dict[int, int] = field(default_factory=dict)
    #: Segments with a damaged record, or damaged hints.
    damaged: list[int] = field(default_factory=list)


class Rewrite:
    """One run.

    Args:
        victims: in the order in which they are taken; those that do not fit any more are left out.
        room_bytes: how long the output may become; a first victim with more survivors gets its way.
        unreadable: sealed segments whose hints are not to be trusted.
        is_worth_it: told (bytes of a victim, bytes to be gained) whether to go on with it.
        pause: see CopyJob.
    """

    def __init__(
        self,
        parts: Parts,
        victims: list[tuple[Segment, SegmentEntry]],
        room_bytes: int,
        unreadable: set[int],
        is_worth_it: Callable[[int, int], bool],
        pause: Callable[[], float],
    ) -> None:
        self.outcome = Outcome()
        self._log = Log(__name__, shard=parts.shard)
        self._parts = parts
        self._victims = victims
        self._room_bytes = room_bytes
        self._unreadable = unreadable
        self._is_worth_it = is_worth_it
        self._pause = pause
        self._taken: list[_Taken] = []
        self._output: Output | None = None
        self._lsn = 0
        self._job: Job | None = None
        self._is_installed = False
        self._current = victims[0][0]

    def steps(self) -> Steps:
        """Do it; whether a victim is gone.

        Raises:
            OSError: when the disk refuses, or there is no memory. Nothing has changed then; or, behind the install, the
                rest is left to the next recovery.
        """
        try:
            for segment, entry in self._victims:
                self._current = segment
                if not (yield from self._take(segment, entry)):
                    break
            if self._taken:
                yield Durable(self._lsn)
                yield from self._relocate((yield from self._install()))
                yield from self._remove()
        except Corrupt as error:
            failed = self._job.failed if isinstance(self._job, OpenJob) else None
            self.outcome.damaged.append((failed or self._current).id)
            self._log.error("compaction given up", segment=self.outcome.damaged[-1], reason=str(error), run="kio check")
            self.discard()
        except MemoryError as error:
            self.discard()
            raise OSError(errno.ENOMEM, str(error)) from error
        except OSError:
            self.discard()
            raise
        return bool(self.outcome.drops)

    @property
    def current(self) -> Segment:
        """The victim that is taken, or was taken last."""
        return self._current

    def stop(self, steps: Steps) -> None:
        """End what `steps` is in the middle of: complete it where its edit was made, else give it up. Blocks.

        Between the edit and the last word nothing may be made durable of the KeyDir: it names segments that are gone.
        """
        if self._job is not None:
            self._job.cancel()
        if not self._is_installed and not (isinstance(self._job, InstallJob) and self._job.is_installed):
            self.discard()
            return
        for step in steps:
            if isinstance(step, Job):
                step.run()

    def discard(self) -> None:
        """Give up: no job of it runs any more, and an output that was not installed is removed."""
        if self._job is not None:
            self._job.cancel()
            self._parts.chain.finish(self._job)
        self._parts.chain.discard_output()
        self._taken.clear()

    def _do(self, job: Job) -> Waiting:
        self._job = job
        yield job
        self._job = None
        job.check()

    # ---- a victim ----

    def _take(self, segment: Segment, entry: SegmentEntry) -> Generator[Pause | Job | Durable, None, bool]:
        """Take one victim, or leave it out; False when the output is full."""
        engine = self._parts.engine
        opened = OpenJob(self._parts.disk, self._parts.shard, [(segment, entry)])
        yield from self._do(opened)
        ((hints, mapping),) = opened.hints
        survivors = Survivors(hints, mapping, entry.end, segment.slot, segment.crc_seed)
        while not survivors.mark(engine, HINTS_PER_SLICE):
            yield SLICE
        self._lsn = engine.lsn
        if survivors.has_hiders:
            yield from self._decide(survivors, entry)
        self.outcome.kept[entry.id] = survivors.kept_bytes
        size = survivors.live_bytes + survivors.kept_bytes
        if not self._is_worth_it(entry.end - RECORDS_START, entry.end - RECORDS_START - size):
            return True
        if size and not (yield from self._reserve_output(size, end_bytes_of(survivors))):
            return False
        if size:
            yield from self._copy(survivors)
        self._taken.append(_Taken(segment, entry, hints, mapping, survivors.live_bytes, survivors.kept_bytes))
        self.outcome.bytes_read += size
        return True

    def _decide(self, survivors: Survivors, entry: SegmentEntry) -> Waiting:
        """Rule 3, against every sealed segment that is not rewritten together with this one."""
        leaving = {taken.entry.id for taken in self._taken} | {entry.id}
        others = [(s, e) for s, e in self._parts.chain.sealed() if e.id not in leaving]
        trusted = [(s, e) for s, e in others if not e.damaged and e.id not in self._unreadable]
        known = {e.id for _, e in trusted}
        neighbours = []
        for at in range(0, len(trusted), NEIGHBOURS_PER_JOB):
            some = trusted[at : at + NEIGHBOURS_PER_JOB]
            opened = OpenJob(self._parts.disk, self._parts.shard, some)
            yield from self._do(opened)
            for (other, _), (hints, mapping) in zip(some, opened.hints, strict=True):
                neighbours.append((hints, mapping, other.end, other.crc_seed))
        unknown_lsn = min((e.lsn_min for _, e in others if e.id not in known), default=_EVERY_LSN)
        survivors.compare(neighbours, self._parts.manifest.state.floors, unknown_lsn, self._parts.now_ms())
        job = HidersJob(survivors)
        while not job.is_done:
            job = HidersJob(survivors)
            yield from self._do(job)

    # ---- the output ----

    def _reserve_output(self, size: int, end_bytes: int) -> Generator[Job, None, bool]:
        """Make sure that the output has room for `size` more bytes and for its end; False where it cannot have it."""
        output = self._output
        if output is None:
            output = yield from self._begin_output(RECORDS_START + size + end_bytes + format.FOOTER.size)
            output.end_bytes += end_bytes
            return True
        segment = output.segment
        wanted = segment.end + size + output.end_bytes + end_bytes
        if wanted > self._room_bytes:
            return False
        if wanted > segment.capacity:
            job = GrowJob(self._parts.disk, segment, wanted)
            try:
                yield from self._do(job)
            except OSError as error:
                if not is_full(error):
                    raise
                return False
        output.end_bytes += end_bytes
        return True

    def _copy(self, survivors: Survivors) -> Waiting:
        output = self._output
        assert output is not None
        while True:
            job = CopyJob(self._parts.disk, survivors, output, self._pause())
            yield from self._do(job)
            if job.size == 0:
                break

    def _begin_output(self, capacity: int) -> Generator[Job, None, Output]:
        chain = self._parts.chain
        while True:
            job = chain.output_job(capacity)
            if isinstance(job, OutputJob):
                break
            yield job  # a segment is being prepared; what becomes of that is not our business
        yield from self._do(job)
        assert chain.supply.output is not None
        header = format.Header(
            self._parts.shard, job.entry.id, self._parts.manifest.directory_id, job.entry.salt, job.entry.epoch
        )
        self._output = Output(chain.supply.output, job.entry, format.encode_header(header))
        return self._output

    # ---- the end ----

    def _install(self) -> Generator[Job, None, InstallJob]:
        """Put the output in the victims' place."""
        parts, output = self._parts, self._output
        drops = [taken.entry.id for taken in self._taken]
        live_bytes = sum(taken.live_bytes for taken in self._taken)
        job = InstallJob(parts.disk, parts.shard, parts.seed, parts.manifest, output, live_bytes, drops, self._lsn)
        yield from self._do(job)
        self._is_installed = True
        self.outcome.drops = drops
        self.outcome.lsn_min = min(taken.entry.lsn_min for taken in self._taken)
        if output is not None and job.entry is not None:
            parts.chain.attach_output(output.segment)
            self.outcome.bytes_written = job.entry.size
            self.outcome.kept[job.entry.id] = sum(taken.kept_bytes for taken in self._taken)
        return job

    def _relocate(self, job: InstallJob) -> Generator[Pause, None, None]:
        if self._output is None:
            return
        segment = self._output.segment
        relocation = Relocation(job.hints, segment.slot, [(taken.hints, taken.segment.slot) for taken in self._taken])
        try:
            while not relocation.run(self._parts.engine, HINTS_PER_SLICE):
                yield SLICE
        except OSError as error:
            self._parts.fail(f"the words of segment {segment.id} could not be relocated: {error}")
            raise
        # Only now: what the sweeper takes from its list before the word is there would never be swept.
        segment.expiries = job.expiries

    def _remove(self) -> Waiting:
        segments = [taken.segment for taken in self._taken]
        mappings = [mapping for taken in self._taken for mapping in (taken.segment.mapping, taken.mapping)]
        # Nobody reads them any more, their hints neither.
        self._taken.clear()
        for segment in segments:
            self._parts.chain.detach(segment)
        paths = [segment.path for segment in segments]
        job = RemoveJob(self._parts.disk, paths, mappings, self._parts.chain.supply.reserve)
        yield from self._do(job)
