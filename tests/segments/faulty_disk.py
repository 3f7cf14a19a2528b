"""A disk that fails when it is told to, and that knows what a power cut would take.

It works on real files, since the store maps them; beside them it keeps, for every file, the bytes as they were at the
last sync and the writes since, and for every name, whether a sync of its directory covers it. `power_cut` builds
another directory from that: the durable state plus any subset of what was not durable. Directories themselves count as
durable. Who wants to look at every moment of a history (crash_states.py) sets `on_change`.
"""

from __future__ import annotations

import errno as errnos
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from kio.segments.disk import Disk

#: The calls that change what a crash could leave.
CHANGES: Final = frozenset(
    ["create", "allocate", "write", "truncate", "sync_data", "sync", "sync_directory", "rename", "link", "unlink"]
)


class Died(BaseException):
    """The process dies in the middle of a call of the disk: nothing may catch it."""


@dataclass
class File:
    """A file's durable bytes, and what happened to it since: ("write", offset, data) or ("size", bytes, b"")."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def sync(self) -> None:
        for kind, number, data in self.pending:
            apply_change(self.durable, kind, number, data)
        self.pending.clear()


class NameChange(NamedTuple):
    """What happened in a directory since its last sync: "link", "unlink" or "rename" of `file`."""

    kind: str
    source: Path
    target: Path
    file: File | None


@dataclass
class _Fault:
    kind: str
    at: int
    error: int | None
    part: float
    times: int


def apply_change(content: bytearray, kind: str, number: int, data: bytes) -> None:
    """Take over one change of a file."""
    size = number if kind == "size" else max(len(content), number + len(data))
    if size > len(content):
        content.extend(bytes(size - len(content)))
    if kind == "size":
        del content[size:]
    else:
        content[number : number + len(data)] = data


class FaultyDisk(Disk):
    """See the module. One thread at a time.

    Args:
        forgets: a sync that fails marks what it did not write as clean, so that no later sync writes it, as on Linux.

    Attributes:
        calls: how often each kind of call was made; "any" counts them all.
        on_change: called with its kind before each of CHANGES takes place, and with "written" when a write has, before
            its caller knows.
        last_written: the file of the last write.
    """

    def __init__(self, *, forgets: bool = True) -> None:
        self._forgets = forgets
        self.calls: Counter[str] = Counter()
        self.on_change: Callable[[str], None] | None = None
        self.last_written: File | None = None
        self._fault: _Fault | None = None
        self._files: dict[int, File] = {}
        self._names: dict[Path, File] = {}
        self._durable_names: dict[Path, File] = {}
        self._pending_names: list[NameChange] = []

    # ---- faults ----

    def fail(self, kind: str, nth: int = 1, error: int = errnos.EIO, part: float = 0.0, times: int = 1) -> None:
        """Fail the `nth` call from now on of `kind` ("any": of all), and the `times` - 1 after it.

        Args:
            part: of a write, how much of it reaches the file before it fails.
        """
        self._fault = _Fault(kind, self.calls[kind] + nth, error, part, times)

    def die(self, kind: str, nth: int = 1, part: float = 0.0) -> None:
        """Raise Died at the `nth` call from now on of `kind`."""
        self._fault = _Fault(kind, self.calls[kind] + nth, None, part, 1)

    def heal(self) -> None:
        """Fail no more."""
        self._fault = None

    def _enter(self, kind: str) -> _Fault | None:
        """Count a call; the fault that strikes it, if any."""
        if self.on_change is not None and kind in CHANGES:
            self.on_change(kind)
        self.calls[kind] += 1
        self.calls["any"] += 1
        fault = self._fault
        if fault is None or fault.kind not in (kind, "any"):
            return None
        behind = self.calls[fault.kind] - fault.at
        return fault if 0 <= behind < fault.times else None

    def _strike(self, kind: str, path: object = "") -> None:
        fault = self._enter(kind)
        if fault is not None:
            _raise(fault, path)

    # ---- files ----

    def create(self, path: Path) -> int:
        self._strike("create", path)
        fd = super().create(path)
        self._link(path, fd)
        return fd

    def _link(self, path: Path, fd: int) -> None:
        file = self._files[fd] = self._names[path] = File()
        self._pending_names.append(NameChange("link", path, path, file))

    def open(self, path: Path, *, writable: bool = False) -> int:
        self._strike("open", path)
        fd = super().open(path, writable=writable)
        self._learn(path)
        self._files[fd] = self._names[path]
        return fd

    def _learn(self, path: Path) -> None:
        """A file that was there before this disk knew of it is durable."""
        if path not in self._names and path.exists():
            self._names[path] = self._durable_names[path] = File(bytearray(path.read_bytes()))

    def close(self, fd: int) -> None:
        fault = self._enter("close")
        self._files.pop(fd, None)
        super().close(fd)
        if fault is not None:
            _raise(fault)

    def allocate(self, fd: int, size: int) -> None:
        self._strike("allocate")
        os.truncate(fd, max(size, os.fstat(fd).st_size))
        self._files[fd].pending.append(("size", os.fstat(fd).st_size, b""))

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        fault = self._enter("write")
        content = bytes(data)
        if fault is not None:
            content = content[: int(len(content) * fault.part)]
        super().write(fd, content, offset)
        if content:
            self.last_written = self._files[fd]
            self._files[fd].pending.append(("write", offset, content))
            if self.on_change is not None:
                self.on_change("written")
        if fault is not None:
            _raise(fault)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._strike("read")
        return super().read(fd, size, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._strike("truncate")
        super().truncate(fd, size)
        self._files[fd].pending.append(("size", size, b""))

    def sync_data(self, fd: int) -> None:
        self._sync("sync_data", fd)

    def sync(self, fd: int) -> None:
        self._sync("sync", fd)

    def _sync(self, kind: str, fd: int) -> None:
        fault = self._enter(kind)
        file = self._files[fd]
        if fault is not None:
            if fault.error is not None and self._forgets:
                file.pending.clear()
            _raise(fault)
        file.sync()

    # ---- names ----

    def sync_directory(self, path: Path) -> None:
        self._strike("sync_directory", path)
        self._durable_names = {p: f for p, f in self._durable_names.items() if p.parent != path}
        self._durable_names |= {p: f for p, f in self._names.items() if p.parent == path}
        self._pending_names = [change for change in self._pending_names if change.source.parent != path]

    def rename(self, source: Path, target: Path) -> None:
        self._strike("rename", source)
        self._learn(target)
        super().rename(source, target)
        file = self._names.pop(source, None) or File(bytearray(target.read_bytes()))
        self._names[target] = file
        self._pending_names.append(NameChange("rename", source, target, file))

    def link(self, source: Path, target: Path) -> None:
        self._strike("link", target)
        super().link(source, target)
        file = self._names.get(source) or File(bytearray(source.read_bytes()))
        self._names[target] = file
        self._pending_names.append(NameChange("link", target, target, file))

    def unlink(self, path: Path) -> None:
        self._strike("unlink", path)
        self._learn(path)
        super().unlink(path)
        self._names.pop(path, None)
        self._pending_names.append(NameChange("unlink", path, path, None))

    def make_directory(self, path: Path) -> None:
        self._strike("make_directory", path)
        super().make_directory(path)

    def remove_tree(self, path: Path) -> None:
        """One file after the other, each of which a power cut may bring back."""
        for file in sorted(path.rglob("*")):
            if file.is_file():
                self.unlink(file)
        self._strike("remove_tree", path)
        super().remove_tree(path)

    def replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        self._strike("create", temporary)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._link(temporary, fd)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    # ---- power cuts ----

    def power_cut(self, source: Path, target: Path, chance: random.Random, *, in_order: bool = False) -> None:
        """Build in `target` what a power cut could leave of `source`.

        Args:
            in_order: of each file's unsynced changes a prefix survives, instead of any subset.
        """
        for name, content in self._survivors(source, chance, in_order=in_order):
            path = target / name.relative_to(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _survivors(self, source: Path, chance: random.Random, *, in_order: bool) -> list[tuple[Path, bytes]]:
        files = self.surviving_files(source, lambda: chance.random() >= 0.5)
        return [(path, _surviving(file, chance, in_order)) for path, file in files.items()]

    def surviving_files(self, source: Path, is_kept: Callable[[], bool]) -> dict[Path, File]:
        """The files of `source` by the names that a power cut leaves; asked for each change that is not durable."""
        names = {
            path: File(bytearray(path.read_bytes()))
            for path in source.rglob("*")
            if path.is_file() and path not in self._names
        }
        names |= self._durable_names
        for change in self._pending_names:
            if not is_kept():
                continue
            # What a name stands for is written in the directory as a whole: a rename needs no link before it.
            names.pop(change.source, None)
            if change.file is not None:
                names[change.target] = change.file
        return {path: file for path, file in names.items() if source in path.parents}


def _surviving(file: File, chance: random.Random, in_order: bool) -> bytes:
    content = bytearray(file.durable)
    kept = chance.randint(0, len(file.pending))
    for i, (kind, number, data) in enumerate(file.pending):
        fate = chance.random()
        if in_order:
            fate = 0.0 if i < kept else 0.5 if i == kept else 1.0
        if fate < 0.4:
            apply_change(content, kind, number, data)
        elif fate < 0.6 and kind == "write":
            apply_change(content, kind, number, data[: chance.randint(0, len(data))])
    return bytes(content)


def _raise(fault: _Fault, path: object = "") -> None:
    if fault.error is None:
        raise Died
    raise OSError(fault.error, os.strerror(fault.error), str(path))


class CarelessDisk(Disk):
    """The real disk without its syncs, for tests that open thousands of stores and cut no power."""

    def sync_data(self, fd: int) -> None:
        pass

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass
