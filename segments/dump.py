"""The records of a segment file one by one, for a person who wants to see what is in the log.

It reads what stands there, sealed or not, in use or not, and changes nothing. What is no valid record is told as
damage with its extent; bytes behind the last valid record of a segment that was never sealed are its free space, or a
torn tail, and end it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kio.errors import Corrupt, DirectoryInvalid
from kio.segments import _hints, format
from kio.segments.disk import DISK, Disk
from kio.segments.segment import RECORDS_START, segment_id


class Dumped(NamedTuple):
    """A record and where it stands, or damage where `record` is None; offset and size in bytes."""

    offset: int
    size: int
    record: format.Record | None


def segment_files(path: Path) -> list[Path]:
    """The segments that `path` speaks of: itself, or those of a shard's directory, or of all shards below it.

    Raises:
        DirectoryInvalid: when there are none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*.seg") if segment_id(each.name) is not None)
    if not found:
        raise DirectoryInvalid(f"there is no segment in {path}")
    return found


def read_header(path: Path, disk: Disk = DISK) -> format.Header:
    """The header of a segment file.

    Raises:
        Corrupt, FormatTooNew: when it cannot be read as one; the message names the file.
    """
    fd = disk.open(path)
    try:
        return format.decode_header(disk.read(fd, RECORDS_START, 0))
    except Corrupt as error:
        raise type(error)(f"{path}: {error}") from error
    finally:
        disk.close(fd)


def read_records(path: Path, header: format.Header, disk: Disk = DISK) -> Iterator[Dumped]:
    """The records of a segment file in the order in which they were written, and the damage between them.

    Raises:
        Corrupt: when the footer is damaged in a way that does not tell where records end.
    Cost: reads the file twice; memory for its hints and for one record.
    """
    fd = disk.open(path)
    try:
        size = disk.size(fd)
        if size <= RECORDS_START:
            return
        stop = _records_end(disk, fd, size)
        seed = format.crc_seed(header.shard, header.segment, header.salt)
        scan = _hints.scan(disk.map(fd, size), RECORDS_START, stop or size, seed, 0, stop is None)
        damaged = dict(scan.damaged)
        at = RECORDS_START
        while at < scan.end:
            if at in damaged:
                yield Dumped(at, damaged[at], None)
                at += damaged[at]
                continue
            record, length = _record_at(disk, fd, at, scan.end, seed)
            yield Dumped(at, length, record)
            at += length
        if stop is not None and at < stop:
            yield Dumped(at, stop - at, None)
    finally:
        disk.close(fd)


def _records_end(disk: Disk, fd: int, size: int) -> int | None:
    """Where the footer says that records end; None in a segment that has none."""
    try:
        footer = format.decode_footer(disk.read(fd, format.FOOTER.size, max(0, size - format.FOOTER.size)))
    except Corrupt:
        return None
    return footer.end if footer.size == size else None


def _record_at(disk: Disk, fd: int, at: int, stop: int, seed: int) -> tuple[format.Record, int]:
    head = disk.read(fd, format.RECORD.size, at)
    _, value_length, _, _, key_length, kind, _ = format.RECORD.unpack(head)
    optional = (8 if kind & format.EXPIRY else 0) + (16 if kind & format.REQUEST_ID else 0)
    length = format.RECORD.size + optional + key_length + value_length
    return format.decode_record(disk.read(fd, min(length + -length % 8, stop - at), at), seed)
