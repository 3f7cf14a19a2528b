"""The spare: blocks of the disk that a shard has taken ahead, so that a full disk can be made less full.

    RESERVE    a file of `segment_bytes` in the shard's directory, allocated and never written

A compaction needs room before it gives any back. It makes its output as any other file; where the disk has no room for
that, the spare gets the output's name instead (`take`): its blocks never were anybody else's in between. Behind the
compaction the spare is made anew, first of all: no segment is prepared and no checkpoint begun before it is whole.

Invariants:
  * no manifest names it, and nothing reads it: neither recovery nor check nor a backup takes it for anything;
  * it is as long as it is allocated; what it holds means nothing.
Crash: RESERVE is there, or the name of an output that was never installed, which recovery removes. Opening the shard
makes the spare whole again, where there is room.
A file system that cannot allocate ahead (disk.py) gives a spare without blocks: then a full disk is full, and only what
is wholly dead is given back.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Final

from kio.segments.disk import Disk

NAME: Final = "RESERVE"
#: What the disk answers when it has no room, or the quota has none.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException | None) -> bool:
    """Whether this says that there is no room, and not that the disk fails."""
    return isinstance(error, OSError) and error.errno in FULL


class Reserve:
    """The spare of one shard. Used by one job at a time, or by the store's thread while none runs.

    Attributes:
        size: bytes that are allocated.
    """

    def __init__(self, disk: Disk, directory: Path, size_wanted: int) -> None:
        self._disk = disk
        self._path = directory / NAME
        self._size_wanted = size_wanted
        self.size = 0

    @property
    def is_whole(self) -> bool:
        """Whether a segment fits into it."""
        return self.size == self._size_wanted

    def make(self) -> None:
        """Make it whole, unless it is.

        Raises:
            OSError: when the disk refuses; what was there of it stays.
        Cost: no fsync: what a power cut takes of it is made again.
        """
        if self.is_whole:
            return
        fd = self._open()
        try:
            before = self._disk.size(fd)
            try:
                # Also where the file is long enough: a copy of it may have lost its blocks.
                self._disk.allocate(fd, self._size_wanted)
            except OSError:
                self._disk.truncate(fd, min(before, self._size_wanted))
                raise
            self._disk.truncate(fd, self._size_wanted)
            self.size = self._size_wanted
        finally:
            self._disk.close(fd)

    def look(self) -> None:
        """Find out what is there; for a shard that is being opened."""
        with suppress(FileNotFoundError):
            fd = self._disk.open(self._path)
            try:
                self.size = min(self._disk.size(fd), self._size_wanted - 1)
            finally:
                self._disk.close(fd)

    def take(self, target: Path, size: int) -> int:
        """Give the spare the name `target`, which is not there; its descriptor.

        Raises:
            OSError: when it has less than `size` bytes (ENOSPC), or the disk refuses.
        """
        if self.size < size:
            raise OSError(errno.ENOSPC, f"the spare has {self.size} bytes, and {size} are needed", str(target))
        fd = self._disk.open(self._path, writable=True)
        try:
            self._disk.rename(self._path, target)
        except OSError:
            self._disk.close(fd)
            raise
        self.size = 0
        return fd

    def give_back(self, source: Path) -> None:
        """Make a file that was taken the spare again: nothing names it any more, and what it holds does not count."""
        fd = self._disk.open(source, writable=True)
        try:
            size = self._disk.size(fd)
            self._disk.rename(source, self._path)
        finally:
            self._disk.close(fd)
        self.size = min(size, self._size_wanted - 1)

    def shrink(self, size: int) -> None:
        """Give `size` bytes of it to whoever asks the disk next.

        Raises:
            OSError: when it has less (ENOSPC), or the disk refuses.
        """
        if self.size < size:
            raise OSError(errno.ENOSPC, "the spare is used up", str(self._path))
        fd = self._disk.open(self._path, writable=True)
        try:
            self._disk.truncate(fd, self.size - size)
            self.size -= size
        finally:
            self._disk.close(fd)

    def _open(self) -> int:
        try:
            return self._disk.create(self._path)
        except FileExistsError:
            return self._disk.open(self._path, writable=True)
