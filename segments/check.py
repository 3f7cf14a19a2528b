"""The offline examination of a data directory: reads everything, changes nothing, names every fault.

It holds the locks that a daemon would hold, so it never looks at a directory in use. What it compares: manifest
against files, headers and footers against the manifest, every record against its checksum, hints against records,
content hashes, the checkpoint against records (check_checkpoint.py). A torn tail, or segments that were not sealed, are
no faults: they are what a crash leaves, and the next start mends them; they are told as notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kio.errors import Corrupt, DirectoryInvalid, FormatTooNew, StorageError
from kio.segments import _hints, format, keyspaces
from kio.segments.backup_file import is_backup, locate
from kio.segments.check_checkpoint import CheckpointCheck
from kio.segments.checkpoint import is_checkpoint_name
from kio.segments.disk import DISK, Disk, lock_file
from kio.segments.identity import DirectoryIdentity, shard_path
from kio.segments.manifest import NAME, Manifest, SegmentEntry
from kio.segments.segment import RECORDS_START, segment_id, segment_name


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, or, as a note, worth knowing."""

    shard: int
    file: str
    #: In bytes from the start of the file.
    offset: int
    #: "missing", "header", "record", "hints", "expiries", "footer", "content", "manifest", "stray", "torn tail",
    #: "unsealed", "checkpoint".
    kind: str
    message: str
    #: What "kio repair" calls the way out, "manifest", "record", "segment" or "checkpoint"; empty for a note.
    repair: str = ""
    #: The segment that this has to name; 0 where it names none.
    segment: int = 0


@dataclass
class Report:
    """What an examination found; empty `faults` means that everything is well."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    records: int = 0
    segments: int = 0
    bytes: int = 0
    shards: int = 0


Progress = Callable[[int, int], None]


def check_directory(
    data: Path, shard: int | None = None, *, progress: Progress | None = None, disk: Disk = DISK
) -> Report:
    """Examine a data directory that no daemon is using, or a backup, or one shard of it.

    Args:
        progress: called with (bytes done, bytes in all) after each segment.

    Raises:
        DirectoryInUse: when a daemon is using it.
        DirectoryInvalid, FormatTooNew: when it is no data directory, or a newer kio's, or its map of keyspaces is
            damaged.
    Cost: reads every byte once; memory for one segment's hints.
    """
    identity, root = locate(data)
    if shard is not None and not 0 <= shard < identity.shards:
        raise DirectoryInvalid(f"{data} has shards 0 to {identity.shards - 1}, no shard {shard}")
    lock = lock_file(data / "LOCK")
    try:
        if not is_backup(data):
            keyspaces.load(data)
        return check_shards(root, identity, shard, progress=progress, disk=disk)
    finally:
        lock.release()


def examine_shard(root: Path, identity: DirectoryIdentity, shard: int, disk: Disk = DISK) -> Report:
    """Examine one shard of the data directory `root`, whose locks the caller holds.

    Raises:
        FormatTooNew: as `check_directory`.
    """
    report = Report()
    _ShardCheck(root, identity, shard, report, disk, lambda: None).examine()
    return report


def check_shards(
    root: Path, identity: DirectoryIdentity, shard: int | None = None, *, progress: Progress | None, disk: Disk
) -> Report:
    """Examine the shards in `root`, or one of them; for whoever holds the lock of the directory that they belong to."""
    report = Report()
    shards = range(identity.shards) if shard is None else [shard]
    total = sum(p.stat().st_size for s in shards for p in shard_path(root, s).glob("*.seg"))
    for number in shards:
        _ShardCheck(root, identity, number, report, disk, lambda: progress and progress(report.bytes, total)).run()
    return report


class _ShardCheck:
    """The examination of one shard."""

    def __init__(
        self,
        data: Path,
        identity: DirectoryIdentity,
        shard: int,
        report: Report,
        disk: Disk,
        tick: Callable[[], object],
    ) -> None:
        self._directory = shard_path(data, shard)
        self._identity = identity
        self._shard = shard
        self._report = report
        self._disk = disk
        self._tick = tick
        self._durable = 0
        #: The last segment so far that was never sealed.
        self._unsealed = 0
        self._checkpoint: CheckpointCheck | None = None

    def run(self) -> None:
        """Examine it under its own lock too: a worker whose supervisor died may still be writing."""
        lock = lock_file(self._directory / "LOCK")
        try:
            self.examine()
        finally:
            lock.release()

    def examine(self) -> None:
        """Examine it; the caller holds its lock."""
        self._report.shards += 1
        try:
            manifest = Manifest.load(self._directory, self._shard, self._identity.directory_id, self._disk)
        except FormatTooNew:
            raise
        except StorageError as error:
            self._fault(NAME, 0, "manifest", str(error), "manifest")
            return
        if manifest.torn_bytes:
            self._note(NAME, 0, "torn tail", f"{manifest.torn_bytes} bytes of an edit that was never complete")
        if manifest.state.checkpoint is not None:
            self._checkpoint = CheckpointCheck(
                self._disk, self._directory, self._shard, self._identity.directory_id, manifest.state.checkpoint
            )
            if self._checkpoint.fault:
                self._fault(self._checkpoint.file, 0, "checkpoint", self._checkpoint.fault, "checkpoint")
        # Where an edit was torn and a segment is gone, it may be the edit that dropped the segment.
        missing = "manifest" if manifest.torn_bytes else "segment"
        unsealed_last = 0
        self._durable = max([manifest.state.lsn, *(e.lsn_max for e in manifest.state.segments.values())])
        for entry in sorted(manifest.state.segments.values(), key=lambda e: e.id):
            self._report.segments += 1
            name = segment_name(entry.id)
            try:
                fd = self._disk.open(self._directory / name)
            except FileNotFoundError:
                self._fault(
                    name, 0, "missing", "the manifest names this segment, and it is not there", missing, entry.id
                )
                continue
            try:
                unsealed_last = self._segment(fd, entry, unsealed_last)
            except OSError as error:
                self._fault(name, 0, "content", f"it cannot be read: {error}", "record", entry.id)
            finally:
                self._disk.close(fd)
            self._tick()
        self._strays(manifest)
        self._manifest_first()

    def _manifest_first(self) -> None:
        """Where the manifest is not to be trusted, no other repair is: it would make its state the truth."""
        faults = self._report.faults
        if any(fault.shard == self._shard and fault.repair == "manifest" for fault in faults):
            self._report.faults = [
                replace(fault, repair="manifest", segment=0) if fault.shard == self._shard else fault
                for fault in faults
            ]

    def _strays(self, manifest: Manifest) -> None:
        for name in self._disk.names(self._directory):
            number = segment_id(name)
            if number is not None and number not in manifest.state.segments:
                self._stray(name, number, manifest)
            elif ".seg.aside" in name:
                self._note(name, 0, "stray", "set aside, by recovery or by a repair; remove it when nobody needs it")
            elif name.startswith(f"{NAME}.damaged"):
                self._note(name, 0, "stray", "a damaged manifest that was replaced; remove it when nobody needs it")
            elif is_checkpoint_name(name) and (self._checkpoint is None or name != self._checkpoint.file):
                self._note(name, 0, "stray", "a checkpoint that the manifest does not name; the next start removes it")

    def _stray(self, name: str, number: int, manifest: Manifest) -> None:
        fd = self._disk.open(self._directory / name)
        try:
            size = self._disk.size(fd)
            records = 0
            if number >= manifest.state.next_id and size > RECORDS_START:
                header = format.decode_header(self._disk.read(fd, RECORDS_START, 0))
                seed = format.crc_seed(self._shard, number, header.salt)
                mapping = self._disk.map(fd, size)
                records = _hints.scan(mapping, RECORDS_START, size, seed, self._identity.seed).records
        except Corrupt:
            records = 0
        finally:
            self._disk.close(fd)
        if records:
            self._fault(
                name, 0, "manifest", f"the manifest lost its end: it does not know this segment of {records} records",
                "manifest",
            )  # fmt: skip
        else:
            self._note(name, 0, "stray", "the manifest does not know this file; it changes nothing")

    def _segment(self, fd: int, entry: SegmentEntry, unsealed_last: int) -> int:
        """Examine one segment; the last LSN if it was never sealed."""
        name = segment_name(entry.id)
        size = self._disk.size(fd)
        self._report.bytes += size
        if size <= RECORDS_START:
            self._fault(name, size, "missing", f"it has only {size} bytes", "segment", entry.id)
            return unsealed_last
        self._header(name, fd, entry)
        mapping = self._disk.map(fd, size)
        seed = format.crc_seed(self._shard, entry.id, entry.salt)
        is_sealed = entry.state == "sealed"
        stop = min(entry.end or size, size)
        epoch_max = max(entry.epoch, entry.epoch_max)
        scan = _hints.scan(mapping, RECORDS_START, stop, seed, self._identity.seed, not is_sealed, epoch_max)
        self._report.records += scan.records
        for offset, length in scan.damaged:
            self._damaged(name, offset, "record", f"{length} bytes are no valid records; valid ones follow")
        if entry.end and scan.end != entry.end:
            self._damaged(
                name, scan.end, "record", f"no valid record up to offset {entry.end}, where the manifest ends them"
            )
        if self._checkpoint is not None and not scan.damaged and scan.end == (entry.end or scan.end):
            wrong = self._checkpoint.compare(entry.id, scan)
            if wrong:
                self._fault(self._checkpoint.file, 0, "checkpoint", wrong, "checkpoint")
        if is_sealed:
            self._sealed(name, fd, size, entry, scan)
            if entry.compacted:
                return unsealed_last
            if unsealed_last and entry.lsn_min > unsealed_last + 1:
                self._gap(name, self._unsealed, unsealed_last, entry.lsn_min)
            return 0
        if scan.torn_bytes and not entry.end:
            self._note(
                name, scan.end, "torn tail", f"{scan.torn_bytes} bytes behind the last record; the next start cuts them"
            )
        self._note(name, 0, "unsealed", f"{scan.records} records up to offset {scan.end}; the next start scans them")
        begins_damaged = bool(scan.damaged) and scan.damaged[0][0] == RECORDS_START
        before = max(unsealed_last, self._durable)
        is_gap = scan.lsn_first > before + 1 or (unsealed_last and scan.lsn_first != unsealed_last + 1)
        if scan.records and is_gap and not begins_damaged:
            # Which segment a repair has to close: the one that lost its end, if it was not sealed; else this one.
            self._gap(name, self._unsealed if unsealed_last else entry.id, unsealed_last or before, scan.lsn_first)
        if scan.records or entry.lsn_max:
            self._unsealed = entry.id
        return max(unsealed_last, scan.lsn_max, entry.lsn_max)

    def _gap(self, name: str, segment: int, last: int, lsn: int) -> None:
        self._fault(name, RECORDS_START, "record", f"LSN {lsn} follows {last}: records are missing", "record", segment)

    def _header(self, name: str, fd: int, entry: SegmentEntry) -> None:
        try:
            header = format.decode_header(self._disk.read(fd, RECORDS_START, 0))
        except Corrupt as error:
            self._damaged(name, 0, "header", f"{error}; the records are read by what the manifest says")
            return
        expected = format.Header(self._shard, entry.id, self._identity.directory_id, entry.salt, entry.epoch)
        if header != expected:
            self._damaged(name, 0, "header", f"it is that of segment {header.segment} of shard {header.shard}")

    def _sealed(self, name: str, fd: int, size: int, entry: SegmentEntry, scan: _hints.Scan) -> None:
        if entry.damaged:
            self._damaged(name, scan.end, "record", "records were unreadable already when it was sealed")
        footer_at = max(0, size - format.FOOTER.size)
        try:
            footer = format.decode_footer(self._disk.read(fd, format.FOOTER.size, footer_at))
        except Corrupt as error:
            self._damaged(name, footer_at, "footer", str(error))
            return
        if (footer.shard, footer.segment, footer.salt, footer.end, footer.content_hash) != (
            self._shard, entry.id, entry.salt, entry.end, entry.hash,
        ):  # fmt: skip
            self._damaged(name, footer_at, "footer", "it is not the one that the manifest names")
            return
        if not size == entry.size == footer.size:
            self._damaged(
                name, footer.hints_offset, "hints", f"the file has {size} bytes, the manifest says {entry.size}"
            )
        else:
            is_whole = not scan.damaged and scan.end == entry.end
            hints = scan.hints if is_whole else None
            self._list(name, fd, "hints", footer.hints_offset, footer.expiries_offset, footer.hints_crc, hints)
            expiries = scan.expiries if is_whole else None
            self._list(name, fd, "expiries", footer.expiries_offset, footer_at, footer.expiries_crc, expiries)
        content = hashlib.blake2b(digest_size=16)
        for at in range(0, entry.end, 4 << 20):
            content.update(self._disk.read(fd, min(4 << 20, entry.end - at), at))
        if content.digest() != entry.hash and not any(
            f.file == name and f.shard == self._shard for f in self._report.faults
        ):
            self._damaged(name, 0, "content", "its content hash is not the one that the manifest names")

    def _list(self, name: str, fd: int, kind: str, start: int, stop: int, crc: int, wanted: bytes | None) -> None:
        """Examine hints or expiries, which should be `wanted` where the records tell."""
        found = self._disk.read(fd, stop - start, start)
        if _hints.crc32c(found) != crc:
            self._damaged(name, start, kind, "they fail their checksum")
        elif wanted is not None and found != wanted:
            self._damaged(name, start, kind, "they are not those of the records")

    def _damaged(self, file: str, offset: int, kind: str, message: str) -> None:
        """A fault of a segment that is there: what is whole in it can be kept."""
        self._fault(file, offset, kind, message, "record", segment_id(file) or 0)

    def _fault(self, file: str, offset: int, kind: str, message: str, repair: str, segment: int = 0) -> None:
        self._report.faults.append(Fault(self._shard, file, offset, kind, message, repair, segment))

    def _note(self, file: str, offset: int, kind: str, message: str) -> None:
        self._report.notes.append(Fault(self._shard, file, offset, kind, message))
