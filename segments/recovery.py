"""Recovery: from the files of a shard directory to everything a store needs, the same after any number of crashes.

    manifest ---> sealed segments: hints from their ends             --+
             ---> segments never sealed: scanned, torn tail cut      --+--> sources --> KeyDir (_hints.rebuild)
             ---> stray files: refused, removed or left              --+
             ---> checkpoint: the KeyDir as it was, for the segments whose hints are then not read (opening.py)

Rules (what a crash can leave, and what is damage):
  * A segment that the manifest names and that is missing, or too short to hold a record, is an error for the whole
    shard.
  * Sealed: when footer or hints fail, the records are scanned instead (counted, logged). Records that then fail are
    damage.
  * Never sealed: what stands behind the last valid record is a torn tail and is cut. Damage with valid records behind
    it, or below an end that the manifest knows to be durable, is corruption.
  * Damage whose keys nobody knows makes older records suspect: `suspect_lsn` is the highest LSN that may be lost;
    what it may hide is answered Corrupt by the engine, until an operator decides.
  * A power cut may lose pages of a segment that was never sealed and keep later ones. Where the machine was booted anew
    since the shard was opened, damage that holds a whole page of zeros is such a hole: nothing from there on was ever
    promised, and the log is cut there. In the same boot no page can be lost, and it is corruption.
  * The records of the segments that were never sealed have consecutive LSNs. A gap between two of them (a power cut
    kept a later one and lost the end of an earlier one) ends the log: what is behind was never promised, and is set
    aside.
  * Files of segments that the manifest has dropped, and of a compaction's output that was never installed, are
    leftovers of a crash: they are removed. Nothing points into them.
  * A stray file whose id was never given out is a leftover of a crash while it was made: it is removed when it holds no
    record, and refused as corruption when it does (then it is the manifest that lost its end).
Everything is made durable before the manifest says so; a crash in here is met by running it again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kio.errors import Corrupt
from kio.log import Log
from kio.segments import _hints, format
from kio.segments._expiries import ExpiryRun
from kio.segments.checkpoint import CheckpointFile, checkpoint_name, is_checkpoint_name
from kio.segments.disk import Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.manifest import Manifest, SegmentEntry
from kio.segments.sealing import read_end, read_expiries, read_footer
from kio.segments.segment import RECORDS_START, Descriptors, Segment, map_segment, segment_id, segment_name

#: A torn tail is overwritten in pieces of this size.
_ZEROS_BYTES: Final = 1 << 20
#: What a file system writes, or loses, at once.
_PAGE_BYTES: Final = 4096


@dataclass
class Source:
    """A segment and its hints, which may lie in the segment's own mapping."""

    segment: Segment
    #: None as long as the checkpoint says all that they do.
    hints: bytes | memoryview | None
    record_bytes: int
    is_sealed: bool


@dataclass
class Recovered:
    """What recovery found."""

    sources: list[Source] = field(default_factory=list)
    floors: dict[int, tuple[int, int]] = field(default_factory=dict)
    lsn: int = 0
    epoch: int = 1
    suspect_lsn: int = 0
    was_clean: bool = True
    #: Sealed segments whose records had to be scanned because footer or hints were damaged.
    scanned_sealed: int = 0
    torn_bytes: int = 0
    #: Opened; its pages are not verified yet.
    checkpoint: CheckpointFile | None = None
    #: Why the checkpoint that the manifest names was not used; empty when it was, or there is none.
    checkpoint_fault: str = ""


class Recovery:
    """One run of recovery; `run` does it."""

    def __init__(
        self,
        directory: Path,
        identity: DirectoryIdentity,
        shard: int,
        manifest: Manifest,
        disk: Disk,
        descriptors: Descriptors,
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._shard = shard
        self._manifest = manifest
        self._disk = disk
        self._descriptors = descriptors
        self._log = Log(__name__, shard=shard)
        self._found = Recovered()
        self._opened: list[Segment] = []

    def run(self) -> Recovered:
        """Recover.

        Raises:
            Corrupt: when the shard cannot be served at all.
            FormatTooNew: when a newer kio wrote a part of it; nothing was modified.
        """
        try:
            return self._run()
        except BaseException:
            for segment in self._opened:
                segment.close(self._disk)
            self._close_checkpoint()
            raise

    def refuse_checkpoint(self, reason: str) -> None:
        """Do without the checkpoint: read the hints that it would have saved."""
        found = self._found
        self._close_checkpoint()
        found.checkpoint_fault = reason
        self._log.warning("checkpoint not used", reason=reason)
        for source in found.sources:
            if source.hints is None:
                source.hints = self._read_hints(source.segment, self._manifest.state.segments[source.segment.id])
                source.record_bytes = source.segment.end - RECORDS_START

    def _close_checkpoint(self) -> None:
        if self._found.checkpoint is not None:
            self._found.checkpoint.close()
            self._found.checkpoint = None

    def _run(self) -> Recovered:
        state = self._manifest.state
        found = self._found
        found.was_clean = state.is_closed
        found.floors = dict(state.floors)
        found.epoch = state.epoch
        found.lsn = state.lsn
        self._open_checkpoint()
        self._refuse_newer()
        strays = self._strays()
        self._manifest.start()
        for path in strays:
            self._disk.unlink(path)
        for number in list(state.outputs):
            self._manifest.append({"t": "drop", "id": number})
        entries = [state.segments[number] for number in sorted(state.segments)]
        for entry in entries:
            if entry.state == "sealed":
                self._recover_sealed(entry)
        self._recover_unsealed(entries)
        for epoch, lsn in found.floors.values():
            found.lsn = max(found.lsn, lsn)
            found.epoch = max(found.epoch, epoch)
        self._judge_checkpoint()
        return found

    def _open_checkpoint(self) -> None:
        named = self._manifest.state.checkpoint
        if named is None:
            return
        path = self._directory / checkpoint_name(named.id)
        try:
            self._found.checkpoint = CheckpointFile(self._disk, path, self._shard, self._identity.directory_id, named)
        except (Corrupt, OSError) as error:
            self.refuse_checkpoint(str(error))

    def _judge_checkpoint(self) -> None:
        """Refuse a checkpoint that records which it does not know of contradict."""
        found = self._found
        if found.checkpoint is None:
            return
        lsn_min = found.checkpoint.contents.lsn_min
        if found.suspect_lsn:
            self.refuse_checkpoint("records are damaged")
        elif any(lsn > lsn_min for _, lsn in found.floors.values()):
            self.refuse_checkpoint("a keyspace was cleared since")

    def _is_covered(self, entry: SegmentEntry) -> bool:
        """Whether the checkpoint says all that the hints of this segment do."""
        checkpoint = self._found.checkpoint
        if checkpoint is None or entry.damaged:
            return False
        return entry.lsn_max <= checkpoint.contents.lsn_min and entry.id in checkpoint.ids

    def _path(self, segment: int) -> Path:
        return self._directory / segment_name(segment)

    def _refuse_newer(self) -> None:
        """Look at every header and footer before anything is changed; what is damaged is told, or met again later."""
        for entry in self._manifest.state.segments.values():
            try:
                fd = self._disk.open(self._path(entry.id))
            except FileNotFoundError:
                continue
            try:
                if entry.state == "sealed":
                    at = max(0, self._disk.size(fd) - format.FOOTER.size)
                    with suppress(Corrupt, OSError):
                        format.decode_footer(self._disk.read(fd, format.FOOTER.size, at))
                format.decode_header(self._disk.read(fd, RECORDS_START, 0))
            except Corrupt as error:
                self._log.error("damaged header", segment=entry.id, reason=str(error), run="kio check")
            finally:
                self._disk.close(fd)

    def _strays(self) -> list[Path]:
        """Files to remove; a file that shows that the manifest lost its end is an error instead."""
        remove = []
        for name in self._disk.names(self._directory):
            number = segment_id(name)
            path = self._directory / name
            if number is None:
                named = self._manifest.state.checkpoint
                is_old = is_checkpoint_name(name) and (named is None or name != checkpoint_name(named.id))
                if is_old or name.endswith(".tmp"):
                    remove.append(path)
                continue
            if number in self._manifest.state.segments:
                continue
            if number < self._manifest.state.next_id:
                if self._is_ours(path, number):
                    remove.append(path)
                else:
                    self._log.warning("stray file ignored", file=name)
                continue
            if self._holds_records(path, number):
                raise Corrupt(
                    f"the manifest of shard {self._shard} does not know segment {number}, which holds records: the "
                    f'manifest lost its end; restore {self._manifest.path} from a copy, or see "kio repair manifest"'
                )
            remove.append(path)
        return remove

    def _is_ours(self, path: Path, number: int) -> bool:
        """Whether a file whose id the manifest has given out is a leftover of this shard, and not somebody's copy."""
        if number in self._manifest.state.outputs:
            return True
        fd = self._disk.open(path)
        try:
            header = format.decode_header(self._disk.read(fd, RECORDS_START, 0))
        except Corrupt:
            return False
        finally:
            self._disk.close(fd)
        ours = (self._identity.directory_id, self._shard, number)
        return (header.directory_id, header.shard, header.segment) == ours

    def _holds_records(self, path: Path, number: int) -> bool:
        fd = self._disk.open(path)
        try:
            size = self._disk.size(fd)
            if size <= RECORDS_START:
                return False
            header = format.decode_header(self._disk.read(fd, RECORDS_START, 0))
            if header.directory_id != self._identity.directory_id or header.shard != self._shard:
                return False
            seed = format.crc_seed(self._shard, number, header.salt)
            scan = _hints.scan(
                self._disk.map(fd, size), RECORDS_START, size, seed, self._identity.seed, epoch_max=header.epoch
            )
            return scan.records > 0
        except Corrupt:
            return False
        finally:
            self._disk.close(fd)

    # ---- sealed ----

    def _recover_sealed(self, entry: SegmentEntry) -> None:
        found = self._found
        segment = map_segment(self._disk, self._path(entry.id), self._shard, entry)
        self._opened.append(segment)
        segment.is_synced = True
        hints = None
        if not self._is_covered(entry) or not self._has_expiries(segment, entry):
            hints = self._read_hints(segment, entry)
        fd, segment.fd = segment.fd, -1
        self._descriptors.keep(segment.path, fd)
        found.lsn = max(found.lsn, entry.lsn_max)
        found.epoch = max(found.epoch, entry.epoch_max)
        found.sources.append(Source(segment, hints, segment.end - RECORDS_START, True))

    def _has_expiries(self, segment: Segment, entry: SegmentEntry) -> bool:
        """Read no more of a segment than its expiries; False when that could not be done."""
        try:
            footer = read_footer(self._disk, segment.fd, self._shard, entry)
            segment.expiries = ExpiryRun(read_expiries(segment.mapping, footer))
        except (Corrupt, OSError):
            return False
        return True

    def _read_hints(self, segment: Segment, entry: SegmentEntry) -> bytes | memoryview:
        """The hints of a sealed segment: from its end, or from its records where that is damaged."""
        found = self._found
        hints: bytes | memoryview
        try:
            fd = segment.fd if segment.fd >= 0 else self._descriptors.get(segment.path)
            end = read_end(self._disk, fd, segment.mapping, self._shard, entry)
            hints, segment.expiries = end.hints, ExpiryRun(end.expiries)
        except (Corrupt, OSError) as error:
            found.scanned_sealed += 1
            scan = _hints.scan(
                segment.mapping,
                RECORDS_START,
                min(entry.end, segment.capacity),
                segment.crc_seed,
                self._identity.seed,
                False,
                entry.epoch_max,
            )
            self._log.error(
                "damaged hints, scanned", segment=entry.id, records=scan.records, reason=str(error), run="kio check"
            )
            hints, segment.expiries = scan.hints, ExpiryRun(scan.expiries)
            if scan.damaged or scan.end != entry.end:
                found.suspect_lsn = max(found.suspect_lsn, entry.lsn_max + 1)
                segment.end = min(entry.end, segment.capacity)
        clears, damaged = _hints.specials(hints)
        for _, _, lsn in damaged:
            found.suspect_lsn = max(found.suspect_lsn, lsn + 1)
        if entry.damaged:
            found.suspect_lsn = max(found.suspect_lsn, entry.lsn_max + 1)
        self._note_clears(clears)
        return hints

    # ---- never sealed ----

    def _recover_unsealed(self, entries: list[SegmentEntry]) -> None:
        """Scan what was never sealed. A segment is sealed when all before it is durable: no hole reaches over one."""
        found = self._found
        durable = max([self._manifest.state.lsn, *(entry.lsn_max for entry in entries)])
        last = 0
        is_over = False
        for entry in entries:
            if entry.compacted:
                continue  # what it holds came from older segments
            if entry.state == "sealed":
                if last and entry.lsn_min > last + 1:
                    self._note_lost(entry, last, entry.lsn_min)
                last = 0
                continue
            segment = map_segment(self._disk, self._path(entry.id), self._shard, entry, writable=True)
            self._opened.append(segment)
            stop = min(entry.end or segment.capacity, segment.capacity)
            data_end = self._disk.data_end(segment.fd, stop)
            scan = _hints.scan(
                segment.mapping,
                RECORDS_START,
                stop,
                segment.crc_seed,
                self._identity.seed,
                epoch_max=max(self._manifest.state.epoch, entry.epoch),
                data_end=data_end,
            )
            hole = None if entry.end else self._hole(segment, scan)
            if hole is not None:
                scan = self._scan_to_hole(segment, entry, hole, data_end)
            if scan.records == 0 and not scan.torn_bytes and not entry.end:
                self._drop(segment)
                continue
            # Where a segment begins with damage, the LSN it began with is not known: that is corruption, no hole.
            begins_damaged = bool(scan.damaged) and scan.damaged[0][0] == RECORDS_START
            if scan.records and not begins_damaged:
                if scan.lsn_first > max(last, durable) + 1:
                    is_over = True
                elif last and scan.lsn_first != last + 1:
                    self._note_lost(entry, last, scan.lsn_first)
            if is_over:
                self._set_aside(segment, scan)
                continue
            if entry.end and (scan.end != entry.end or scan.damaged):
                found.suspect_lsn = max(found.suspect_lsn, entry.lsn_max + 1)
                self._log.error("corruption", segment=entry.id, offset=scan.end, run="kio check")
                segment.end = stop
                segment.lsn_last = entry.lsn_max
            else:
                self._cut(segment, scan)
                segment.lsn_last = scan.lsn_max
            segment.lsn_first = scan.lsn_min
            for offset, size in scan.damaged:
                self._log.error("corruption", segment=entry.id, offset=offset, bytes=size, run="kio check")
            clears, damaged = _hints.specials(scan.hints)
            for _, _, lsn in damaged:
                found.suspect_lsn = max(found.suspect_lsn, lsn + 1)
            self._note_clears(clears)
            # All that is served from now on is durable, whatever the mode: so the manifest may say where it ends.
            self._disk.sync_data(segment.fd)
            segment.is_synced = True
            last = max(last, scan.lsn_max, entry.lsn_max)
            found.lsn = max(found.lsn, scan.lsn_max, entry.lsn_max)
            found.epoch = max(found.epoch, scan.epoch_max, entry.epoch)
            if segment.end == RECORDS_START:
                self._drop(segment)
                continue
            segment.expiries = ExpiryRun(scan.expiries)
            found.sources.append(Source(segment, scan.hints, segment.end - RECORDS_START, False))

    def _hole(self, segment: Segment, scan: _hints.Scan) -> int | None:
        """Where a power cut has torn a hole into a segment, or None."""
        if self._manifest.state.boot == self._disk.boot_id():
            return None
        view = memoryview(segment.mapping)
        for offset, size in sorted(scan.damaged):
            first = offset + -offset % _PAGE_BYTES
            for at in range(first, offset + size - _PAGE_BYTES + 1, _PAGE_BYTES):
                if not any(view[at : at + _PAGE_BYTES]):
                    return offset
        return None

    def _scan_to_hole(self, segment: Segment, entry: SegmentEntry, hole: int, data_end: int) -> _hints.Scan:
        """The records before a hole; what stands behind it counts as torn."""
        self._log.warning("log cut at a hole", segment=entry.id, offset=hole, bytes=data_end - hole)
        epoch_max = max(self._manifest.state.epoch, entry.epoch)
        scan = _hints.scan(
            segment.mapping, RECORDS_START, hole, segment.crc_seed, self._identity.seed, epoch_max=epoch_max
        )
        return scan._replace(torn_bytes=data_end - scan.end)

    def _note_lost(self, entry: SegmentEntry, last: int, lsn: int) -> None:
        """The durable records between LSN `last` and `lsn`, where this segment begins, are not there any more."""
        self._found.suspect_lsn = max(self._found.suspect_lsn, lsn)
        self._log.error("corruption", segment=entry.id, lsn=lsn, after=last, run="kio check")

    def _cut(self, segment: Segment, scan: _hints.Scan) -> None:
        segment.end = scan.end
        if scan.torn_bytes:
            self._found.torn_bytes += scan.torn_bytes
            self._log.warning("torn tail cut", segment=segment.id, offset=scan.end, bytes=scan.torn_bytes)
            # Overwritten with zeros, not truncated: a crash in here leaves a shorter tear, never a file that is shorter
            # than its mapping or too short to hold a record.
            end = scan.end + scan.torn_bytes
            for offset in range(scan.end, end, _ZEROS_BYTES):
                self._disk.write(segment.fd, bytes(min(_ZEROS_BYTES, end - offset)), offset)

    def _set_aside(self, segment: Segment, scan: _hints.Scan) -> None:
        """Records behind a hole: keep the file under another name, and forget it."""
        aside = segment.path.with_name(segment.path.name + ".aside")
        self._log.error(
            "records behind a hole set aside",
            segment=segment.id,
            records=scan.records,
            lsn=scan.lsn_first,
            file=aside.name,
        )
        segment.close(self._disk)
        # First the edit: a crash in between leaves a stray file, not a manifest that names a missing one.
        self._manifest.append({"t": "drop", "id": segment.id})
        self._disk.rename(segment.path, aside)
        self._disk.sync_directory(self._directory)

    def _drop(self, segment: Segment) -> None:
        """A segment without a record: prepared, and never needed."""
        segment.close(self._disk)
        self._manifest.append({"t": "drop", "id": segment.id})
        self._disk.unlink(segment.path)

    def _note_clears(self, clears: list[tuple[int, int, int]]) -> None:
        for keyspace, epoch, lsn in clears:
            self._found.floors[keyspace] = max(self._found.floors.get(keyspace, (0, 0)), (epoch, lsn))
