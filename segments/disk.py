"""The one door to the file system: every call by which kio's data reaches or leaves a disk.

Whoever wants to test a fault passes a subclass of Disk that injects it. Nothing else in `segments` opens, writes,
syncs, renames or unlinks. Calls either do all of what they say or raise OSError; short writes are continued here.
Errors of fsync and close are never retried: the caller decides, knowing that a second fsync proves nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from kio.errors import DirectoryInUse
from kio.segments._mapping import Mapping

#: What the file system answers when it cannot reserve blocks ahead; the file is then sparse.
_NO_ALLOCATE: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_WRITE_BYTES: Final = 8 << 20


class Disk:
    """The real disk."""

    def create(self, path: Path) -> int:
        """A descriptor of a new file, for reading and writing, mode 0600.

        Raises:
            FileExistsError: when the name is taken.
        """
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def open(self, path: Path, *, writable: bool = False) -> int:
        """A descriptor of an existing file."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks so that writes below `size` find room, and make the file that long."""
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _NO_ALLOCATE:
                raise
            os.ftruncate(fd, size)

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done : done + _WRITE_BYTES], offset + done)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file."""
        parts = []
        while size > 0:
            part = os.pread(fd, size, offset)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return b"".join(parts)

    def truncate(self, fd: int, size: int) -> None:
        """Cut or extend a file to `size` bytes."""
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        """The file's length in bytes."""
        return os.fstat(fd).st_size

    def is_name_of(self, path: Path, fd: int) -> bool:
        """Whether `path` names the open file `fd`."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def free_bytes(self, path: Path) -> int:
        """How much room there is on the file system of a directory."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def names_of(self, path: Path) -> int:
        """How many names the file has that `path` names."""
        return os.stat(path, follow_symlinks=False).st_nlink

    def data_end(self, fd: int, size: int) -> int:
        """Where the last written byte below `size` ends: behind it the file is a hole, which reads as zeros.

        It is `size` where the file system cannot tell. Cost: two system calls a stretch of data.
        """
        at = 0
        try:
            while at < size:
                at = os.lseek(fd, os.lseek(fd, at, os.SEEK_DATA), os.SEEK_HOLE)
        except OSError as error:
            return at if error.errno == errno.ENXIO else size
        return size

    def sync_data(self, fd: int) -> None:
        """fdatasync: the file's bytes, and its length, are on disk when this returns."""
        os.fdatasync(fd)

    def sync(self, fd: int) -> None:
        """fsync: bytes and all metadata."""
        os.fsync(fd)

    def sync_directory(self, path: Path) -> None:
        """Make names created, renamed or removed in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def boot_id(self) -> str:
        """What tells this boot of the machine from every other; empty where the system does not say."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing `target`; durable after sync_directory."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name on the same file system; durable after sync_directory of the target's."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a name; durable after sync_directory."""
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """A new directory, mode 0700; parents must exist."""
        os.mkdir(path, 0o700)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and everything in it; durable after sync_directory of its parent."""
        shutil.rmtree(path)

    def names(self, path: Path) -> list[str]:
        """The sorted names in a directory."""
        return sorted(os.listdir(path))

    def map(self, fd: int, size: int) -> Mapping:
        """A read-only shared mapping of the file's first `size` bytes; it outlives the descriptor."""
        return Mapping(fd, size)

    def replace(self, path: Path, data: bytes) -> None:
        """Give `path` the content `data`, durably and at once: a crash leaves the old or the new, whole.

        Raises:
            OSError: when the disk refuses; the file that was begun takes no room of a disk that is full.
        Cost: two fsyncs.
        """
        temporary = path.with_name(path.name + ".tmp")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        except OSError:
            with suppress(OSError):
                self.truncate(fd, 0)
            raise
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)


#: The disk that everything uses unless a test passes another.
DISK: Final = Disk()


class UnchangingDisk(Disk):
    """The real disk for a shard that the disk has failed: whatever would change it is left out, reads are as ever.

    What an fsync failed to write may still stand in the page cache, and look as if it were on disk: files that were
    being written are read from the disk itself.
    """

    def open(self, path: Path, *, writable: bool = False) -> int:
        """A descriptor for reading."""
        fd = super().open(path)
        if writable:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return fd

    def create(self, path: Path) -> int:
        """Refused."""
        raise OSError(errno.EROFS, "this shard is read-only", str(path))

    def replace(self, path: Path, data: bytes) -> None:
        """Refused."""
        raise OSError(errno.EROFS, "this shard is read-only", str(path))

    def allocate(self, fd: int, size: int) -> None:
        """Nothing."""

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Nothing."""

    def truncate(self, fd: int, size: int) -> None:
        """Nothing."""

    def sync_data(self, fd: int) -> None:
        """Nothing."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_directory(self, path: Path) -> None:
        """Nothing."""

    def rename(self, source: Path, target: Path) -> None:
        """Nothing."""

    def unlink(self, path: Path) -> None:
        """Nothing."""


class FileLock:
    """A lock held by this process (flock) until `release` or its death; the file itself means nothing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            by = f" by process {holder}" if holder.isdigit() else ""
            raise DirectoryInUse(f"{path.parent} is in use{by}; stop it first") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock up."""
        os.close(self._fd)


def lock_file(path: Path) -> FileLock:
    """Lock `path`, making the file when it is not there.

    Raises:
        DirectoryInUse: when another process holds it; the message names that process.
    """
    return FileLock(path)
