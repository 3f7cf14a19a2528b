"""A directory tree as records: key = relative path, value = the file's bytes.

Regular files only. A key is the path's bytes below the root, with "/" between components, whatever their encoding. A
tree is read without being trusted to stand still: a file is opened without following a link and is looked at after it
is open. What is not data: directories, empty ones too, owners, modes and times; symlinks unless they are followed;
sockets, pipes and devices. Links, sockets, pipes and devices are counted as skipped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kio.cli import progress
from kio.cli.transfer import Record, Tally

_READ_BYTES_MIN: Final = 64 * 1024


class TreeSource:
    """The regular files below a directory.

    Args:
        root: the directory; it may itself be a link.
        follow: read what symlinks lead to.
        value_bytes_max: a longer file is a fault, and is not read.
        tally: is told faults and what is skipped.
    """

    unit: Final = progress.BYTES

    def __init__(self, root: Path, *, follow: bool, value_bytes_max: int, tally: Tally) -> None:
        self._root = os.fsencode(root)
        self._follow = follow
        self._value_bytes_max = value_bytes_max
        self._tally = tally
        #: Bytes read so far.
        self.done = 0

    def total(self) -> int:
        """The bytes that are there to read. Cost: walks the tree."""
        silent = Tally(tell=lambda text: None)
        return sum(_size(entry) for entry in _files(self._root, self._follow, silent))

    def __iter__(self) -> Iterator[Record]:
        begin = len(self._root.rstrip(b"/")) + 1
        for entry in _files(self._root, self._follow, self._tally):
            value = self._read(entry.path)
            if value is not None:
                self.done += len(value)
                yield Record(entry.path[begin:], value, os.fsdecode(entry.path))

    def _read(self, path: bytes) -> bytes | None:
        try:
            descriptor = os.open(path, _open_flags(self._follow))
        except OSError as error:
            _fault(self._tally, path, error)
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                self._tally.skipped += 1
                return None
            value = _read_bounded(descriptor, found.st_size, self._value_bytes_max)
        except OSError as error:
            _fault(self._tally, path, error)
            return None
        finally:
            os.close(descriptor)
        if value is None:
            text = f"the file is longer than max_value_bytes, which is {self._value_bytes_max}"
            self._tally.fault(os.fsdecode(path), text)
        return value


class _Directory(NamedTuple):
    path: bytes
    #: (device, inode) of it and of the directories above it, where links are followed: to see a loop.
    chain: tuple[tuple[int, int], ...]


def _files(root: bytes, follow: bool, tally: Tally) -> Iterator[os.DirEntry[bytes]]:
    """Whatever may be a regular file, directory by directory, by name within each."""
    waiting = [_Directory(root, (_identity(os.stat(root)),))]  # noqa: PTH116 - paths are bytes here
    while waiting:
        directory = waiting.pop()
        below = []
        for entry in _entries(directory.path, tally):
            try:
                if entry.is_symlink() and not follow:
                    tally.skipped += 1
                elif entry.is_dir():
                    below.append(_enter(entry, directory, follow, tally))
                elif entry.is_file() or entry.is_symlink():
                    yield entry
                else:
                    tally.skipped += 1
            except OSError as error:
                _fault(tally, entry.path, error)
        waiting.extend(found for found in reversed(below) if found)


def _entries(path: bytes, tally: Tally) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        _fault(tally, path, error)
        return []


def _enter(entry: os.DirEntry[bytes], above: _Directory, follow: bool, tally: Tally) -> _Directory | None:
    if not follow:
        return _Directory(entry.path, ())
    identity = _identity(entry.stat())
    if identity in above.chain:
        tally.fault(os.fsdecode(entry.path), "the link leads back to a directory above it")
        return None
    return _Directory(entry.path, (*above.chain, identity))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _open_flags(follow: bool) -> int:
    # Without O_NONBLOCK, a pipe that took the file's place would block for ever.
    return os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)


def _fault(tally: Tally, path: bytes, error: OSError) -> None:
    tally.fault(os.fsdecode(path), error.strerror or str(error))


def _read_bounded(descriptor: int, size: int, bytes_max: int) -> bytes | None:
    """A file to its end, `size` being what it seems to hold; None when it holds more than `bytes_max`."""
    parts: list[bytes] = []
    length = 0
    while max(size, length) <= bytes_max:
        part = os.read(descriptor, max(size - length, _READ_BYTES_MIN))
        if not part:
            return b"".join(parts)
        parts.append(part)
        length += len(part)
    return None
