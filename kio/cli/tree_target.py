"""Records as a directory tree: key = relative path, value = the file's bytes.

A key is bytes from anybody, and becomes a path here, so nothing may be written outside the root:
  * a key that is absolute, empty, or holds a NUL, an empty component, "." or ".." is refused;
  * every component is opened below its parent's descriptor without following a link, so a link that already stands in
    the tree leads nowhere.
Invariants: a file appears whole or not at all, by rename from one temporary file in the root; only one export writes
into a root at a time (a lock on the directory), so that file is nobody else's.
Crash: the files written so far and perhaps the temporary file remain; the next export removes it and writes all again.
A file cannot say when its record expires; how many did is told at the end.
Files are not fsynced: what matters is in the store. Files of the tree that no key names are left alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kio.cli import output
from kio.cli.transfer import Record, Tally
from kio.errors import DirectoryInUse

TEMPORARY: Final = b".kio-export.tmp"
#: PATH_MAX without its closing NUL: nothing longer could be opened by its name.
PATH_BYTES_MAX: Final = 4095
_DIRECTORIES_OPEN_MAX: Final = 64
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Errors that concern one path; any other (a full disk) ends the export.
_ERRORS_OF_A_PATH: Final = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EPERM,
        errno.EXDEV,
    }
)


def components(key: bytes) -> tuple[bytes, ...] | str:
    """The path that `key` is below the root, or why it is none.

    >>> components(b"a/b"), components(b"../etc/passwd")
    ((b'a', b'b'), 'the key holds the component ".."')
    """
    if key.startswith(b"/"):
        return "the key is an absolute path"
    if b"\0" in key:
        return "the key holds a NUL byte"
    if len(key) > PATH_BYTES_MAX:
        return f"the key is longer than a path may be, {PATH_BYTES_MAX} bytes"
    path = tuple(key.split(b"/"))
    for name in path:
        if not name:
            return "the key is empty or holds an empty component"
        if name in (b".", b".."):
            return f'the key holds the component "{name.decode()}"'
    if path[0] == TEMPORARY:
        return "the key begins with the name of the export's temporary file"
    return path


class TreeTarget:
    """Writes records below `root`, which is created when it is not there.

    Raises:
        DirectoryInUse: when another export writes there.
        OSError: when `root` cannot be created or opened.
    """

    def __init__(self, root: Path, tally: Tally) -> None:
        self._tally = tally
        self._expiring = 0
        root.mkdir(parents=True, exist_ok=True)
        self._root = os.open(root, _OPEN_DIRECTORY)
        #: Directories in use, the one used last at the end.
        self._open: OrderedDict[tuple[bytes, ...], int] = OrderedDict()
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove_temporary()
        except BaseException as error:
            os.close(self._root)
            if isinstance(error, BlockingIOError):
                raise DirectoryInUse(f"another export writes into {root}") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for descriptor in (*self._open.values(), self._root):
            os.close(descriptor)
        if self._expiring:
            self._tally.tell(f"{self._expiring:,} records expire, which a tree does not keep; --jsonl and --csv do")

    def put(self, record: Record) -> None:
        """Write one record; a key that cannot be a path here is a fault in the tally.

        Raises:
            OSError: when the disk is full or fails.
        """
        path = components(record.key)
        if isinstance(path, str):
            self._tally.fault(output.escape(record.key), path)
            return
        try:
            self._write(path, record.value)
        except OSError as error:
            if error.errno not in _ERRORS_OF_A_PATH:
                raise
            self._tally.fault(output.escape(record.key), _explain(error))
            return
        self._tally.moved(len(record.value))
        self._expiring += record.expire_at is not None

    def _write(self, path: tuple[bytes, ...], value: bytes) -> None:
        parent = self._directory(path[:-1])
        descriptor = os.open(TEMPORARY, _CREATE_FILE, 0o666, dir_fd=self._root)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                rest = memoryview(value)
                while rest:
                    rest = rest[file.write(rest) :]
            os.rename(TEMPORARY, path[-1], src_dir_fd=self._root, dst_dir_fd=parent)
        except BaseException:
            self._remove_temporary()
            raise

    def _remove_temporary(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=self._root)

    def _directory(self, path: tuple[bytes, ...]) -> int:
        """The descriptor of a directory below the root, which is created when it is not there."""
        known = len(path)
        while known and path[:known] not in self._open:
            known -= 1
        if not known:
            descriptor = self._root
        else:
            self._open.move_to_end(path[:known])
            descriptor = self._open[path[:known]]
        for depth in range(known, len(path)):
            descriptor = _open_or_create(path[depth], descriptor)
            self._open[path[: depth + 1]] = descriptor
            if len(self._open) > _DIRECTORIES_OPEN_MAX:
                os.close(self._open.popitem(last=False)[1])
        return descriptor


def _open_or_create(name: bytes, parent: int) -> int:
    flags = _OPEN_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "a part of the path is a file or a link, not a directory"
    if error.errno == errno.EISDIR:
        return "the path is a directory: another key goes on below it"
    return error.strerror or str(error)
