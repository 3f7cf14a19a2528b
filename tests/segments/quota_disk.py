"""A disk of so many bytes: what was allocated stays one's own, and what goes beyond is refused with ENOSPC.

It counts the blocks of every file it made or opened, as a file system does: allocating and writing take them, cutting
and removing give them back. A disk that cannot allocate ahead takes them at the first write only.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from kio.segments.disk import Disk
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk

BLOCK: Final = 4096
UNBOUNDED: Final = 1 << 50


class Quota(Disk):
    """The part of a disk that counts; put it before the disk that does the work.

    Attributes:
        quota_bytes: what there is; may be lowered below what is used, as another program does that fills the disk.
        allocates: it can reserve blocks ahead.
        refused: calls that found no room.
    """

    quota_bytes = UNBOUNDED
    allocates = True
    refused = 0

    def __init__(self, **more: bool) -> None:
        super().__init__(**more)
        #: Of each file, by inode, the numbers of its blocks.
        self._blocks: dict[int, set[int]] = {}

    @property
    def used_bytes(self) -> int:
        return sum(map(len, self._blocks.values())) * BLOCK

    def fill(self, spare_bytes: int = 0) -> None:
        """Another program takes all that is left but `spare_bytes`."""
        self.quota_bytes = self.used_bytes + spare_bytes

    def _of(self, fd: int) -> set[int]:
        return self._blocks.setdefault(os.fstat(fd).st_ino, set())

    def _take(self, fd: int, start: int, stop: int) -> None:
        held = self._of(fd)
        more = set(range(start // BLOCK, -(-stop // BLOCK))) - held
        if more and self.used_bytes + len(more) * BLOCK > self.quota_bytes:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        held |= more

    def free_bytes(self, path: Path) -> int:
        return max(0, self.quota_bytes - self.used_bytes)

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._blocks[os.fstat(fd).st_ino] = set()
        return fd

    def open(self, path: Path, *, writable: bool = False) -> int:
        fd = super().open(path, writable=writable)
        stat = os.fstat(fd)
        if stat.st_ino not in self._blocks:
            self._blocks[stat.st_ino] = set(range(-(-stat.st_size // BLOCK)))
        return fd

    def allocate(self, fd: int, size: int) -> None:
        if self.allocates:
            self._take(fd, 0, size)
        super().allocate(fd, size)

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._take(fd, offset, offset + len(data))
        super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        held = self._of(fd)
        held -= {block for block in held if block >= -(-size // BLOCK)}

    def rename(self, source: Path, target: Path) -> None:
        self._forget(target)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._forget(path)
        super().unlink(path)

    def _forget(self, path: Path) -> None:
        if path.exists() and path.stat().st_nlink == 1:
            self._blocks.pop(path.stat().st_ino, None)


class QuotaDisk(Quota, CarelessDisk):
    """A disk of so many bytes that does not sync."""


class FaultyQuotaDisk(Quota, FaultyDisk):
    """A disk of so many bytes that fails when it is told to, and knows what a power cut would take."""
