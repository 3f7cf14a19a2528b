"""The jobs of a compaction: what it does in a helper thread (compaction.py says when and why).

    open      a segment's file, mapped anew, its hints verified
    hiders    a piece of rule 3 (_compact.pyx)
    grow      the output, for what is copied next
    copy      a piece of the survivors into the output
    install   the output's end (sealing.py), then the edit that puts it in the victims' place
    remove    the files that this edit has dropped
No job takes more than some 50 ms of a processor, the end of a large output excepted; none holds the GIL for long.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

from kio.errors import Corrupt
from kio.log import Log
from kio.segments import _hints, format
from kio.segments._compact import Survivors
from kio.segments._expiries import ExpiryRun
from kio.segments._mapping import Mapping
from kio.segments.disk import Disk
from kio.segments.jobs import Job
from kio.segments.manifest import Manifest, SegmentEntry, install_edit
from kio.segments.reserve import Reserve
from kio.segments.sealing import read_end, write_end
from kio.segments.segment import RECORDS_START, Segment

#: Bytes that one job copies.
CHUNK_BYTES: Final = 1 << 20
#: After this many bytes the output is synced, so that its last sync has little left to do.
SYNC_BYTES: Final = 16 << 20
#: Hints that one job looks at for rule 3, here and in the other segments.
HINTS_PER_JOB: Final = 100_000
#: The longest pause behind one chunk: seals and preparations wait behind it.
PAUSE_S_MAX: Final = 0.02

_log = Log(__name__)


class OpenJob(Job):
    """Map sealed segments and find their hints; `hints` holds (hints, mapping) of each."""

    kind = "open"

    def __init__(self, disk: Disk, shard: int, segments: list[tuple[Segment, SegmentEntry]]) -> None:
        super().__init__()
        self.hints: list[tuple[memoryview, Mapping]] = []
        #: The segment whose end is damaged, if `error` says so.
        self.failed: Segment | None = None
        self._disk = disk
        self._shard = shard
        self._segments = segments

    def _work(self) -> None:
        for segment, entry in self._segments:
            fd = self._disk.open(segment.path)
            try:
                mapping = self._disk.map(fd, entry.size)
                self.hints.append((read_end(self._disk, fd, mapping, self._shard, entry).hints, mapping))
            except Corrupt:
                self.failed = segment
                raise
            finally:
                self._disk.close(fd)


class HidersJob(Job):
    """Decide for some more records whether they must stay; `is_done` when all are decided."""

    kind = "hiders"

    def __init__(self, survivors: Survivors) -> None:
        super().__init__()
        self.is_done = False
        self._survivors = survivors

    def _work(self) -> None:
        self.is_done = self._survivors.mark_hiders(HINTS_PER_JOB)


class Output:
    """The segment that a compaction writes.

    Attributes:
        segment: the file; `segment.end` is where the next copy goes.
        entry: what the manifest will say of it.
        end_bytes: what its end takes, with all that was taken so far.
        unsynced_bytes: copied since the last sync.
        content: its content hash so far.
    """

    def __init__(self, segment: Segment, entry: SegmentEntry, header: bytes) -> None:
        self.segment = segment
        self.entry = entry
        self.end_bytes = format.FOOTER.size
        self.unsynced_bytes = 0
        self.content = hashlib.blake2b(header, digest_size=16)


def end_bytes_of(survivors: Survivors) -> int:
    """What the copies of these records add to the end of their segment."""
    records = survivors.live_records + survivors.kept_records
    return records * format.HINT.size + survivors.live_expiries * format.EXPIRY_ENTRY.size


class GrowJob(Job):
    """Make sure of the blocks that more copies, and the end, will take."""

    kind = "grow"

    def __init__(self, disk: Disk, segment: Segment, capacity: int) -> None:
        super().__init__()
        self._disk = disk
        self._segment = segment
        self._capacity = capacity

    def _work(self) -> None:
        self._disk.allocate(self._segment.fd, self._capacity)
        self._segment.capacity = self._capacity


class CopyJob(Job):
    """Copy some more survivors; `size` is how many bytes they took, 0 when there are no more.

    Args:
        pause: sleep so many times as long as the copying took, so that whoever serves has the processor.
    """

    kind = "copy"

    def __init__(self, disk: Disk, survivors: Survivors, output: Output, pause: float) -> None:
        super().__init__()
        self.size = 0
        self._disk = disk
        self._survivors = survivors
        self._output = output
        self._pause = pause

    def _work(self) -> None:
        started = time.perf_counter()
        output, segment = self._output, self._output.segment
        data = self._survivors.copy(CHUNK_BYTES, segment.crc_seed)
        if not data:
            return
        self._disk.write(segment.fd, data, segment.end)
        output.content.update(data)
        segment.end += len(data)
        output.unsynced_bytes += len(data)
        if output.unsynced_bytes >= SYNC_BYTES:
            self._disk.sync_data(segment.fd)
            output.unsynced_bytes = 0
        self.size = len(data)
        time.sleep(min(PAUSE_S_MAX, self._pause * (time.perf_counter() - started)))


class InstallJob(Job):
    """Complete the output, if there is one, and put it into the manifest in the place of `drops`, all at once."""

    kind = "install"

    def __init__(
        self, disk: Disk, shard: int, seed: int, manifest: Manifest, output: Output | None, live_bytes: int,
        drops: list[int], lsn: int,
    ) -> None:  # fmt: skip
        super().__init__()
        #: The hints of the output, and what expires in it.
        self.hints: memoryview = memoryview(b"")
        self.expiries = ExpiryRun(b"")
        #: The edit is durable.
        self.is_installed = False
        self.entry: SegmentEntry | None = None
        self._disk = disk
        self._shard = shard
        self._seed = seed
        self._manifest = manifest
        self._output = output
        self._live_bytes = live_bytes
        self._drops = drops
        self._lsn = lsn

    def _work(self) -> None:
        if self._output is not None:
            self.entry = self._complete(self._output)
        self._manifest.append(install_edit(self.entry, self._drops, self._lsn))
        self.is_installed = True

    def _complete(self, output: Output) -> SegmentEntry:
        segment = output.segment
        mapping = self._disk.map(segment.fd, segment.end)
        # Read back, so that the manifest never drops what the output does not hold.
        scan = _hints.scan(mapping, RECORDS_START, segment.end, segment.crc_seed, self._seed, False)
        if scan.damaged or scan.end != segment.end:
            raise Corrupt(f"segment {segment.id} does not read back as it was written, from offset {scan.end} on")
        dead_bytes = segment.end - RECORDS_START - self._live_bytes
        entry = write_end(
            self._disk, segment.fd, self._shard, output.entry, segment.end, scan, output.content.digest(),
            self._live_bytes, dead_bytes,
        )  # fmt: skip
        mapping = self._disk.map(segment.fd, entry.size)
        end = read_end(self._disk, segment.fd, mapping, self._shard, entry)
        segment.mapping, segment.capacity = mapping, entry.size
        self.hints, self.expiries = end.hints, ExpiryRun(end.expiries)
        segment.lsn_last = entry.lsn_max
        return entry


class RemoveJob(Job):
    """Remove files that the manifest has dropped; what the disk refuses of them is left to the next recovery.

    Their mappings are closed first: the blocks are given back by whoever lets go of a file last.
    One of them becomes the spare, where that was taken (reserve.py).
    """

    kind = "remove"

    def __init__(self, disk: Disk, paths: list[Path], mappings: list[Mapping], reserve: Reserve) -> None:
        super().__init__()
        self._disk = disk
        self._paths = paths
        self._mappings = mappings
        self._reserve = reserve

    def _work(self) -> None:
        for mapping in self._mappings:
            try:
                mapping.close()
            except BufferError as error:
                # Whoever reads it gives it back, and only then the disk has its room again.
                _log.warning("removed, but in use", files=[path.name for path in self._paths], reason=str(error))
        self._mappings.clear()
        recycled = self._reserve.recycle(self._paths)
        for path in self._paths:
            if path != recycled:
                self._disk.unlink(path)
