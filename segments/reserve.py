"""The spare: blocks of the disk that a shard has taken ahead, so that a full disk can be made less full.

    RESERVE    a file of `segment_bytes` in the shard's directory, allocated and not read

A compaction needs room before it gives any back. It makes its output as any other file; where the disk has no room for
that, the spare gets the output's name instead (`take`): its blocks never were anybody else's in between. Behind the
compaction the spare is made anew, first of all: no segment is prepared and no checkpoint begun before it is whole.

Invariants:
  * no manifest names it, and nothing reads it: neither recovery nor check nor a backup takes it for anything;
  * it is as long as it is allocated, and has no other name; what it holds means nothing.
Crash: RESERVE is there, or the name of an output that was never installed, which recovery removes. Opening the shard
makes the spare whole again, where there is room.
A file system that cannot allocate ahead (disk.py) gives a spare without blocks: then a full disk is full, and only what
is wholly dead is given back.
"""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from kio.limits import KIB
from kio.segments.disk import Disk

NAME: Final = "RESERVE"
#: What the disk answers when it has no room, or the quota has none.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: Where there is no room for all of it, it gets longer by so much at the least.
STEP_BYTES_MIN: Final = 64 * KIB


def is_full(error: BaseException | None) -> bool:
    """Whether this says that there is no room, and not that the disk fails."""
    return isinstance(error, OSError) and error.errno in FULL


class Reserve:
    """The spare of one shard. Any thread may use it.

    Attributes:
        size: bytes that are allocated.
    """

    def __init__(self, disk: Disk, directory: Path, size_wanted: int) -> None:
        self._disk = disk
        self._path = directory / NAME
        self._size_wanted = size_wanted
        self._lock = threading.Lock()
        self.size = 0

    @property
    def is_whole(self) -> bool:
        """Whether a segment fits into it."""
        return self.size == self._size_wanted

    def look(self) -> None:
        """Find out what is there; for a shard that is being opened."""
        with suppress(FileNotFoundError):
            fd = self._disk.open(self._path)
            try:
                self.size = self._short(self._disk.size(fd))
            finally:
                self._disk.close(fd)

    def make(self) -> None:
        """Make it whole, unless it is; where there is no room for that, as long as there is.

        Raises:
            OSError: when the disk refuses.
        Cost: no fsync: what a power cut takes of it is made again.
        """
        if self.is_whole:
            return
        with self._lock:
            fd = self._open()
            try:
                before = self._disk.size(fd)
                try:
                    # Also where the file is long enough: a copy of it may have lost its blocks.
                    self._disk.allocate(fd, self._size_wanted)
                except OSError as error:
                    self._disk.truncate(fd, min(before, self._size_wanted))
                    self.size = self._short(before)
                    if is_full(error):
                        self._make_longer(fd)
                    raise
                self._disk.truncate(fd, self._size_wanted)
                self.size = self._size_wanted
            finally:
                self._disk.close(fd)

    def _make_longer(self, fd: int) -> None:
        """Take what there is, in ever smaller steps."""
        step = self._size_wanted // 2
        while step >= STEP_BYTES_MIN:
            if self.size + step < self._size_wanted:
                try:
                    self._disk.allocate(fd, self.size + step)
                    self.size += step
                except OSError:
                    self._disk.truncate(fd, self.size)
            step //= 2

    def take(self, target: Path, size: int) -> int:
        """Give the spare the name `target`, which is not there; its descriptor.

        Raises:
            OSError: when it has less than `size` bytes (ENOSPC), or the disk refuses.
        """
        with self._lock:
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

    def recycle(self, paths: list[Path]) -> Path | None:
        """Where the spare is missing, or short, make one of a file that is about to be removed; which one.

        A file that has another name as well, a backup's, is not taken: what is written to it would be written there.

        Raises:
            OSError: when the disk refuses.
        """
        with self._lock:
            if self.is_whole or not paths:
                return None
            sizes = {path: self._size_of(path) for path in paths}
            chosen = max(sizes, key=lambda path: sizes[path])
            if sizes[chosen] <= self.size:
                return None
            self._disk.rename(chosen, self._path)
            # Only now: under its old name nobody finds it any more.
            if self._disk.names_of(self._path) > 1:
                self._disk.unlink(self._path)
                self.size = 0
                return chosen
            self._adopt()
            return chosen

    def give_back(self, source: Path) -> None:
        """Make a file that was taken the spare again: nothing names it any more, and what it holds does not count."""
        with self._lock:
            self._disk.rename(source, self._path)
            self._adopt()

    def shrink(self, size: int) -> None:
        """Give `size` bytes of it to whoever asks the disk next.

        Raises:
            OSError: when it has less (ENOSPC), or the disk refuses.
        """
        with self._lock:
            if self.size < size:
                raise OSError(errno.ENOSPC, "the spare is used up", str(self._path))
            fd = self._disk.open(self._path, writable=True)
            try:
                self._disk.truncate(fd, self.size - size)
                self.size -= size
            finally:
                self._disk.close(fd)

    def _adopt(self) -> None:
        """Take over the file that has got the spare's name."""
        fd = self._disk.open(self._path, writable=True)
        try:
            size = self._disk.size(fd)
            if size > self._size_wanted:
                self._disk.truncate(fd, self._size_wanted)
            self.size = self._short(size)
        finally:
            self._disk.close(fd)

    def _short(self, size: int) -> int:
        """The size of a file that was not allocated for a spare: it counts as whole when `make` has seen to that."""
        return min(size, self._size_wanted - 1)

    def _size_of(self, path: Path) -> int:
        fd = self._disk.open(path)
        try:
            return self._disk.size(fd)
        finally:
            self._disk.close(fd)

    def _open(self) -> int:
        try:
            return self._disk.create(self._path)
        except FileExistsError:
            return self._disk.open(self._path, writable=True)
