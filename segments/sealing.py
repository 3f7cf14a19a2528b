"""What stands behind the records of a sealed segment: hints, expiries and footer, written here and read here.

A seal (jobs.py) and a compaction's output have the same end. Written behind records that are durable already, and
synced, before the manifest says that the segment is sealed.
Crash: what was written of an end stands behind the records of a segment that the manifest does not call sealed, and
nothing reads it.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from kio.errors import Corrupt
from kio.segments import _hints, format
from kio.segments._expiries import ExpiryRun
from kio.segments._mapping import Mapping
from kio.segments.disk import Disk
from kio.segments.manifest import SegmentEntry

#: One call of the disk moves at most so much.
CHUNK_BYTES: Final = 4 << 20


class End(NamedTuple):
    """The end of a sealed segment, in its mapping and verified."""

    footer: format.Footer
    hints: memoryview
    expiries: bytes | memoryview


def write_end(
    disk: Disk,
    fd: int,
    shard: int,
    entry: SegmentEntry,
    end: int,
    scan: _hints.Scan,
    content_hash: bytes,
    live_bytes: int,
    dead_bytes: int,
) -> SegmentEntry:
    """Write the end of a segment behind its records, cut the file there, and make it durable.

    Args:
        entry: the segment's; its id, salt and epoch count.
        end: where the records end.
        scan: of all its records.
        content_hash: of the file up to `end`, see `hash_content`.

    Returns: the entry of the segment now that it is sealed; a manifest edit has to say so.

    Raises:
        OSError: when the disk refuses; the records are whole, and the segment is as it was: not sealed.

    Cost: an fsync.
    """
    footer = format.Footer(
        shard, entry.id, entry.salt, end, end, len(scan.hints) // format.HINT.size,
        len(scan.expiries) // format.EXPIRY_ENTRY.size, scan.puts, scan.tombstones, live_bytes, dead_bytes,
        scan.lsn_min, scan.lsn_max, scan.epoch_max, _hints.crc32c(scan.hints), content_hash,
        _hints.crc32c(scan.expiries),
    )  # fmt: skip
    at = end
    for part in (scan.hints, scan.expiries, format.encode_footer(footer)):
        view = memoryview(part)
        for start in range(0, len(view), CHUNK_BYTES):
            disk.write(fd, view[start : start + CHUNK_BYTES], at + start)
        at += len(view)
    assert at == footer.size
    disk.truncate(fd, at)
    disk.sync(fd)
    return SegmentEntry(
        entry.id, entry.salt, entry.epoch, "sealed", end, at, scan.records, scan.lsn_min, scan.lsn_max, scan.epoch_max,
        content_hash, bool(scan.damaged) or scan.end != end,
    )  # fmt: skip


def hash_content(disk: Disk, fd: int, end: int) -> bytes:
    """The content hash of a segment whose records end at `end`."""
    # By reading, not through the mapping: a page that cannot be read is an OSError here, not a SIGBUS.
    content = hashlib.blake2b(digest_size=16)
    for at in range(0, end, CHUNK_BYTES):
        content.update(disk.read(fd, min(CHUNK_BYTES, end - at), at))
    return content.digest()


def read_footer(disk: Disk, fd: int, shard: int, entry: SegmentEntry) -> format.Footer:
    """The footer of a segment that the manifest calls sealed.

    Raises:
        Corrupt: when it is damaged, or not the one that `entry` speaks of.
        FormatTooNew: when a newer kio wrote it.
    """
    size = disk.size(fd)
    footer = format.decode_footer(disk.read(fd, format.FOOTER.size, max(0, size - format.FOOTER.size)))
    wanted = (shard, entry.id, entry.salt, entry.end, entry.hash, size)
    if (footer.shard, footer.segment, footer.salt, footer.end, footer.content_hash, footer.size) != wanted:
        raise Corrupt("the footer is not the one that the manifest names")
    return footer


def read_end(disk: Disk, fd: int, mapping: Mapping, shard: int, entry: SegmentEntry) -> End:
    """Footer, hints and expiries of a segment that the manifest calls sealed.

    Args:
        mapping: of the whole file; hints and expiries stay in it.

    Raises:
        Corrupt, FormatTooNew: as `read_footer`; and when hints or expiries fail their checksum.
        OSError: when the disk does not deliver them.
    """
    footer = read_footer(disk, fd, shard, entry)
    view = memoryview(mapping)
    hints = view[footer.hints_offset : footer.expiries_offset]
    if _hints.crc32c_mapped(hints) != footer.hints_crc:
        raise Corrupt("the hints fail their checksum")
    return End(footer, hints, read_expiries(mapping, footer))


def map_expiries(disk: Disk, fd: int, shard: int, entry: SegmentEntry) -> ExpiryRun:
    """The expiries of a sealed segment, mapped for themselves.

    Raises:
        Corrupt, FormatTooNew, OSError: as `read_end`.
    """
    footer = read_footer(disk, fd, shard, entry)
    return ExpiryRun(read_expiries(disk.map(fd, footer.size), footer))


def read_expiries(mapping: Mapping, footer: format.Footer) -> bytes | memoryview:
    """The expiries of a sealed segment, in its mapping; where there are none, nothing keeps that from being closed.

    Raises:
        Corrupt: when they fail their checksum.
        OSError: when the disk does not deliver them.
    """
    if not footer.expiries:
        return b""
    expiries = memoryview(mapping)[footer.expiries_offset : footer.size - format.FOOTER.size]
    if _hints.crc32c_mapped(expiries) != footer.expiries_crc:
        raise Corrupt("the expiries fail their checksum")
    return expiries
