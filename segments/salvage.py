"""What can still be read of a segment file that may be damaged, and a new segment made of it.

Sealed segments are never changed, since a backup may hold the same file under another name: what is whole is copied
into a new segment, as a compaction's output, with LSNs and epochs kept. Of a record that is damaged, its hint may still
tell the key: where the key's bytes agree with the hash in the hint, a tombstone of the same version takes its place, so
that no older version of that key comes back. A damaged tombstone is so restored whole.
Reads by pieces, so that a sector that the disk does not deliver costs no more than a page of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from kio.errors import Corrupt
from kio.segments import _hints, format
from kio.segments.disk import Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.manifest import SegmentEntry
from kio.segments.sealing import hash_content, write_end
from kio.segments.segment import RECORDS_START, segment_name

#: What is read, or written, at once; and what is given up where the disk delivers nothing.
CHUNK_BYTES: Final = 4 << 20
PAGE_BYTES: Final = 4096
#: In a record: where kind and flags stand.
_KIND_AT: Final = 22
_EVERY_EPOCH: Final = (1 << 32) - 1


class Lost(NamedTuple):
    """A record that cannot be read any more, as far as its hint tells; else damage whose records nobody knows."""

    segment: int
    offset: int
    #: Bytes of the record, or of the damage.
    size: int
    #: 0 where it is not known.
    lsn: int = 0
    epoch: int = 0
    #: format.PUT, TOMBSTONE, CLEAR, or DAMAGED where it is not known.
    kind: int = format.DAMAGED
    flags: int = 0
    keyspace: int = 0
    key: bytes | None = None


@dataclass
class Salvaged:
    """A segment file, read whole.

    Attributes:
        entry: what the manifest says of it, or would.
        data: its bytes; zeros where the disk did not deliver them.
        scan: the valid records.
        lost: what was there and is damaged.
        unreadable_bytes: what the disk did not deliver.
        records_lost: how many records are missing at least; None where that cannot be told.
        left_out: offsets of valid records that are not to be copied, as another segment holds them.
    """

    path: Path
    entry: SegmentEntry
    data: bytes
    scan: _hints.Scan
    lost: list[Lost] = field(default_factory=list)
    unreadable_bytes: int = 0
    records_lost: int | None = 0
    left_out: frozenset[int] = frozenset()

    @property
    def bytes_lost(self) -> int:
        """Bytes that are no valid records."""
        return sum(lost.size for lost in self.lost)

    @property
    def is_whole(self) -> bool:
        """Whether every record that was ever there reads."""
        return not self.lost and not self.entry.damaged

    def offsets(self) -> list[tuple[int, int, int]]:
        """(offset, bytes, LSN) of the valid records that count here, in the order of the file."""
        found = _hints.iterate(self.scan.hints)
        return sorted(
            (offset, size, lsn)
            for offset, size, kind, lsn in found
            if kind != format.DAMAGED and offset not in self.left_out
        )


def read_file(disk: Disk, path: Path) -> tuple[bytes, int]:
    """The bytes of a file, and how many of them the disk did not deliver: those are zeros.

    Raises:
        FileNotFoundError: when it is not there.
    """
    fd = disk.open(path)
    try:
        data = bytearray(disk.size(fd))
        missing = 0
        for at in range(0, len(data), CHUNK_BYTES):
            try:
                part = disk.read(fd, min(CHUNK_BYTES, len(data) - at), at)
                data[at : at + len(part)] = part
            except OSError:
                missing += _read_pages(disk, fd, data, at, min(at + CHUNK_BYTES, len(data)))
        return bytes(data), missing
    finally:
        disk.close(fd)


def _read_pages(disk: Disk, fd: int, data: bytearray, start: int, stop: int) -> int:
    missing = 0
    for at in range(start, stop, PAGE_BYTES):
        size = min(PAGE_BYTES, stop - at)
        try:
            part = disk.read(fd, size, at)
            data[at : at + len(part)] = part
        except OSError:
            missing += size
    return missing


def salvage(
    disk: Disk, path: Path, shard: int, seed: int, entry: SegmentEntry, epoch_max: int = _EVERY_EPOCH
) -> Salvaged:
    """Read a segment by what the manifest says of it.

    Args:
        seed: the directory's hash seed.
        epoch_max: no record of a segment that was never sealed has a higher epoch.

    Raises:
        FileNotFoundError: when it is not there.
    Cost: memory for the file, and for its hints.
    """
    data, unreadable = read_file(disk, path)
    is_sealed = entry.state == "sealed"
    stop = min(entry.end or len(data), len(data))
    crc_seed = format.crc_seed(shard, entry.id, entry.salt)
    if stop <= RECORDS_START:
        scan = _hints.scan(bytes(RECORDS_START), RECORDS_START, RECORDS_START, crc_seed, seed)
    else:
        epoch_max = max(entry.epoch, entry.epoch_max) if is_sealed else epoch_max
        scan = _hints.scan(data, RECORDS_START, stop, crc_seed, seed, not is_sealed, epoch_max)
    found = Salvaged(path, entry, data, scan, unreadable_bytes=unreadable)
    extents = list(scan.damaged)
    if entry.end and scan.end < entry.end:
        extents.append((scan.end, entry.end - scan.end))
    hints = read_hints(data, shard, entry) if is_sealed and extents else None
    found.lost = [Lost(entry.id, offset, size) for offset, size in extents]
    if hints is not None:
        whole = {offset for offset, _, _ in found.offsets()}
        found.lost = [lost for lost in _hinted(data, seed, entry.id, hints) if lost.offset not in whole]
    found.records_lost = _count_lost(found)
    return found


def read_hints(data: bytes, shard: int, entry: SegmentEntry) -> bytes | None:
    """The hints of a sealed segment, where its footer and they are whole."""
    try:
        footer = format.decode_footer(data)
    except Corrupt:
        return None
    named = (footer.shard, footer.segment, footer.salt, footer.end, footer.size)
    if named != (shard, entry.id, entry.salt, entry.end, len(data)):
        return None
    hints = data[footer.hints_offset : footer.expiries_offset]
    return hints if _hints.crc32c(hints) == footer.hints_crc else None


def _hinted(data: bytes, seed: int, segment: int, hints: bytes) -> Iterator[Lost]:
    """Every record that the hints tell of; its key where the bytes that stand there are the key's."""
    for order, lsn, epoch, unit, units, key_length, kind, keyspace in format.HINT.iter_unpack(hints):
        offset, flags = unit * 8, kind & ~format.KIND_MASK
        key = None
        if kind & format.KIND_MASK in (format.PUT, format.TOMBSTONE):
            at = offset + format.RECORD.size
            at += (8 if flags & format.EXPIRY else 0) + (16 if flags & format.REQUEST_ID else 0)
            key = data[at : at + key_length]
            hash_ = _hints.hash_key(key, seed, keyspace)
            if len(key) != key_length or order != (hash_ & 0xFFFF_FFFF) << 32 | hash_ >> 32:
                key = None
        yield Lost(segment, offset, units * 8, lsn, epoch, kind & format.KIND_MASK, flags, keyspace, key)


def _count_lost(found: Salvaged) -> int | None:
    entry, scan = found.entry, found.scan
    if not found.lost:
        return None if entry.damaged else 0
    if all(lost.kind != format.DAMAGED for lost in found.lost):
        return len(found.lost)
    if entry.state == "sealed":
        # What was active holds every LSN between its first and its last.
        had = entry.records if entry.compacted else entry.lsn_max - entry.lsn_min + 1
        return max(had - scan.records, 0) or None
    if not scan.records or (scan.damaged and scan.damaged[0][0] == RECORDS_START):
        return None
    return max(scan.lsn_max, entry.lsn_max) - scan.lsn_first + 1 - scan.records


def is_hidden(lost: Lost) -> bool:
    """Whether a tombstone can take its place, so that no older version of its key comes back."""
    return lost.key is not None


def write_segment(
    disk: Disk, directory: Path, shard: int, identity: DirectoryIdentity, entry: SegmentEntry, source: Salvaged
) -> SegmentEntry:
    """Write the segment `entry` with what is whole in `source`, sealed and durable; the manifest does not know it yet.

    Returns: what the manifest has to say of it.

    Raises:
        OSError: when the disk refuses, or does not give back what was written; no file is left, if the disk lets it go.
    """
    path = directory / segment_name(entry.id)
    fd = disk.create(path)
    try:
        crc_seed = format.crc_seed(shard, entry.id, entry.salt)
        header = format.Header(shard, entry.id, identity.directory_id, entry.salt, entry.epoch)
        end, count = 0, -1
        buffer = bytearray()
        for part in _parts(source, crc_seed, format.encode_header(header)):
            buffer += part
            count += 1
            if len(buffer) >= CHUNK_BYTES:
                end = _flush(disk, fd, buffer, end)
        end = _flush(disk, fd, buffer, end)
        scan = _hints.scan(disk.read(fd, end, 0), RECORDS_START, end, crc_seed, identity.seed, False)
        if scan.records != count or scan.damaged or scan.end != end:
            raise Corrupt(f"{path} does not read back as it was written; is the disk failing?")
        content_hash = hash_content(disk, fd, end)
        sealed = write_end(disk, fd, shard, entry, end, scan, content_hash, end - RECORDS_START, 0)
        disk.sync_directory(directory)
    except BaseException as error:
        disk.close(fd)
        if isinstance(error, Exception):
            disk.unlink(path)
        raise
    disk.close(fd)
    sealed.compacted = True
    return sealed


def _flush(disk: Disk, fd: int, buffer: bytearray, end: int) -> int:
    disk.write(fd, buffer, end)
    end += len(buffer)
    buffer.clear()
    return end


def _parts(source: Salvaged, crc_seed: int, header: bytes) -> Iterator[bytes]:
    """The header of the copy, then its records."""
    yield header
    for offset, size, _ in source.offsets():
        record = bytearray(source.data[offset : offset + size])
        # A batch that was seen whole, or of which a part is lost for ever, is no batch any more.
        record[_KIND_AT] &= ~format.BATCH_OPEN & 0xFF
        record[:4] = _hints.crc32c(record[4:], crc_seed).to_bytes(4, "little")
        yield bytes(record)
    for lost in filter(is_hidden, source.lost):
        flags = lost.flags & (format.COLLIDES | format.HIDES) | (format.HIDES if lost.kind == format.PUT else 0)
        key = lost.key or b""
        yield format.encode_record(
            crc_seed, format.Record(lost.lsn, lost.epoch, format.TOMBSTONE, lost.keyspace, key, b"", flags)
        )


def records_of_copy(source: Salvaged) -> int:
    """How many records `write_segment` will write."""
    return source.scan.records - len(source.left_out) + sum(map(is_hidden, source.lost))
