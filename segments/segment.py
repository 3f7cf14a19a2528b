"""One segment file while a store uses it: made, mapped, sealed, removed.

Owns: the mapping, and the descriptor as long as the segment may be written. A sealed segment needs none: the mapping
outlives it; the few descriptors of sealed segments that stay cached (`Descriptors`) serve reads of footers and hints.
Invariants:
  * the file is at least `capacity` long while it can be appended to, so that everything mapped is there;
  * a new segment is durable, name and all, before the manifest names it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Final

from kio.errors import Corrupt
from kio.limits import KIB
from kio.segments import format
from kio.segments._expiries import Expiries, ExpiryRun
from kio.segments._mapping import Mapping
from kio.segments.disk import Disk
from kio.segments.manifest import SegmentEntry

#: A segment's first record stands here.
RECORDS_START = format.HEADER.size
_WAY_OUT = 'restore it from a copy, or run "kio check", which names the repair'


#: The last part of the active segment that takes no puts where no next one stands ready (chain.py): so much of it, at
#: least KEPT_BACK_BYTES, at most KEPT_BACK_MAX of it.
KEPT_BACK: Final = 1 / 16
KEPT_BACK_BYTES: Final = 64 * KIB
KEPT_BACK_MAX: Final = 1 / 4


def kept_back_bytes(capacity: int) -> int:
    """How much of a segment of this capacity is kept for tombstones and clear records."""
    return int(min(max(capacity * KEPT_BACK, KEPT_BACK_BYTES), capacity * KEPT_BACK_MAX))


def capacity_for(room: int) -> int:
    """The capacity of a segment that has `room` bytes for a put and its end, beside what is kept back."""
    return room + int(min(max(room * KEPT_BACK / (1 - KEPT_BACK), KEPT_BACK_BYTES), room / 3)) + 8


def segment_name(segment: int) -> str:
    """The file name of a segment."""
    return f"{segment:010d}.seg"


def segment_id(name: str) -> int | None:
    """The segment whose file has this name, or None."""
    stem, dot, suffix = name.partition(".")
    return int(stem) if dot and suffix == "seg" and len(stem) == 10 and stem.isascii() and stem.isdigit() else None


class Segment:
    """A segment that is attached to a store's engine.

    Attributes:
        id, salt, epoch, crc_seed, path: set once.
        slot: the engine's number for it.
        fd: for writing; -1 once it is sealed.
        capacity: mapped bytes.
        end: offset behind the last record; the engine's knowledge is newer while the segment is active.
        is_synced: everything below `end` is durable.
        lsn_first: no LSN in it is lower, as long as it is not sealed.
        lsn_last: the last LSN in it, once no more records come.
        expiries: what expires in it, and the sweeper has not taken yet.
    """

    def __init__(self, path: Path, shard: int, entry: SegmentEntry, fd: int, mapping: Mapping, capacity: int) -> None:
        self.path = path
        self.id = entry.id
        self.salt = entry.salt
        self.epoch = entry.epoch
        self.crc_seed = format.crc_seed(shard, entry.id, entry.salt)
        self.fd = fd
        self.mapping = mapping
        self.capacity = capacity
        self.slot = 0
        self.end = RECORDS_START
        self.is_synced = False
        self.lsn_first = 0
        self.lsn_last = 0
        self.expiries: Expiries = ExpiryRun(b"")

    def grow(self, disk: Disk, capacity: int) -> None:
        """Make room for more records, in a segment that is not attached.

        Raises:
            OSError: when the disk refuses; it is as it was.
        """
        disk.allocate(self.fd, capacity)
        mapping = disk.map(self.fd, capacity)
        self.mapping.close()
        self.mapping = mapping
        self.capacity = capacity

    def close(self, disk: Disk) -> None:
        """Give up the descriptor, if it is still open; the mapping stays."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            disk.close(fd)


def new_entry(segment: int, epoch: int) -> SegmentEntry:
    """What the manifest will say of a segment that is about to be made."""
    return SegmentEntry(segment, secrets.randbits(64), epoch)


def make_segment(
    disk: Disk, directory: Path, shard: int, directory_id: bytes, entry: SegmentEntry, capacity: int
) -> Segment:
    """Make the file of a new segment, `capacity` bytes reserved, durable with its name.

    Raises:
        OSError: when the disk refuses (ENOSPC when it is full); nothing is left behind.
    Cost: two fsyncs.
    """
    path = directory / segment_name(entry.id)
    fd = disk.create(path)
    try:
        disk.allocate(fd, capacity)
        return begin_segment(disk, path, fd, shard, directory_id, entry, capacity)
    except OSError:
        disk.close(fd)
        disk.unlink(path)
        raise


def begin_segment(
    disk: Disk, path: Path, fd: int, shard: int, directory_id: bytes, entry: SegmentEntry, capacity: int
) -> Segment:
    """Make a new segment of a file that has its name and its `capacity` bytes, durable with its name.

    Raises:
        OSError: when the disk refuses; the file is still the caller's.
    Cost: two fsyncs.
    """
    header = format.Header(shard, entry.id, directory_id, entry.salt, entry.epoch)
    disk.write(fd, format.encode_header(header), 0)
    disk.sync(fd)
    disk.sync_directory(path.parent)
    return Segment(path, shard, entry, fd, disk.map(fd, capacity), capacity)


def map_segment(disk: Disk, path: Path, shard: int, entry: SegmentEntry, *, writable: bool = False) -> Segment:
    """Open and map an existing segment file, whatever its length.

    Raises:
        Corrupt: when the file is missing, or too short to map.
    """
    try:
        fd = disk.open(path, writable=writable)
    except FileNotFoundError:
        raise Corrupt(f"segment {entry.id} of shard {shard} is missing: {path}; {_WAY_OUT}") from None
    try:
        size = disk.size(fd)
        if size <= RECORDS_START:
            raise Corrupt(f"segment {entry.id} of shard {shard} has only {size} bytes: {path}; {_WAY_OUT}")
        segment = Segment(path, shard, entry, fd, disk.map(fd, size), size)
    except BaseException:
        disk.close(fd)
        raise
    segment.end = entry.end
    segment.lsn_last = entry.lsn_max
    return segment


class Descriptors:
    """At most `limit` open descriptors of sealed segments, the least recently used closed first."""

    def __init__(self, disk: Disk, limit: int) -> None:
        self._disk = disk
        self._limit = limit
        self._open: OrderedDict[Path, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def keep(self, path: Path, fd: int) -> None:
        """Take over a descriptor that the caller no longer needs."""
        self._open[path] = fd
        while len(self._open) > self._limit:
            _, oldest = self._open.popitem(last=False)
            self._disk.close(oldest)

    def get(self, path: Path) -> int:
        """A descriptor of `path`; the cache keeps owning it, and may close it at the next call."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        fd = self._disk.open(path)
        self.keep(path, fd)
        return fd

    def drop(self, path: Path) -> None:
        """Close the descriptor of a file that nobody needs any more, if it is cached."""
        if path in self._open:
            self._disk.close(self._open.pop(path))

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._disk.close(self._open.popitem()[1])
