"""Repairs of a shard that no daemon is using: what would be done and what would be lost, and doing it.

    with open_shard(data, 3) as shard:
        plan = repair_segments.plan_record(shard, 42)      looks, changes nothing
        plan.carry_out()                                   the operator has said yes

What every repair keeps to:
  * nothing is ever changed in place or deleted: a segment or a manifest that is replaced is set aside under another
    name, and a backup that shares its file sees nothing of it;
  * what is new is written and synced first; then one replacement of the manifest makes it count, all at once;
  * LSNs that may have been issued are not issued again, and the next open raises the epoch;
  * the checkpoint is given up with whatever changes segments: it knows nothing of what a repair has brought back.
Crash: before the manifest is replaced, everything is as it was, but for files that nothing names; behind it, all is
done, but for names that the next start removes. Running the repair again completes it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kio.errors import DirectoryInvalid
from kio.segments import identity
from kio.segments.disk import DISK, Disk, lock_file
from kio.segments.identity import DirectoryIdentity, shard_path
from kio.segments.manifest import Manifest, SegmentEntry, State
from kio.segments.salvage import Lost, Salvaged, write_segment
from kio.segments.segment import new_entry, segment_name

_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True)
class ShardFiles:
    """A shard directory whose locks are held."""

    root: Path
    identity: DirectoryIdentity
    shard: int
    disk: Disk

    @property
    def path(self) -> Path:
        """The directory."""
        return shard_path(self.root, self.shard)

    def load_manifest(self) -> Manifest:
        """The manifest as it stands.

        Raises:
            Corrupt, FormatTooNew: when it cannot be used.
        """
        return Manifest.load(self.path, self.shard, self.identity.directory_id, self.disk)


@contextmanager
def open_shard(data: Path, shard: int, disk: Disk = DISK) -> Iterator[ShardFiles]:
    """Lock a shard of a data directory, as a daemon would.

    Raises:
        DirectoryInUse: when a daemon is using it.
        DirectoryInvalid, FormatTooNew: when it is no data directory, or a newer kio's.
    """
    directory = identity.load(data)
    if not 0 <= shard < directory.shards:
        raise DirectoryInvalid(f"{data} has shards 0 to {directory.shards - 1}, no shard {shard}")
    lock = lock_file(data / "LOCK")
    try:
        root = identity.shards_root(data, directory)
        shard_lock = lock_file(shard_path(root, shard) / "LOCK")
        try:
            yield ShardFiles(root, directory, shard, disk)
        finally:
            shard_lock.release()
    finally:
        lock.release()


@dataclass
class Plan:
    """What a repair would do, for a person to decide; made by the `plan_*` functions.

    Attributes:
        does: what `carry_out` will do; nothing when there is nothing to repair.
        loses: what will be gone, or given up.
        may_return: what was deleted or overwritten and may be there again, now or later.
        notes: what is worth knowing beside.
        lost: the records, or the damage, that are given up.
        records_kept: of the segments that are replaced; records_lost is None where it is not known.
        aside: names of files that are set aside.
    """

    shard: int
    does: list[str] = field(default_factory=list)
    loses: list[str] = field(default_factory=list)
    may_return: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    records_kept: int = 0
    records_lost: int | None = 0
    aside: list[str] = field(default_factory=list)
    #: Records are missing between two segments.
    has_gap: bool = False
    _act: Callable[[], None] | None = None

    @property
    def bytes_lost(self) -> int:
        """Bytes of what is given up."""
        return sum(lost.size for lost in self.lost)

    def then(self, act: Callable[[], None]) -> Plan:
        """Let `carry_out` do this."""
        self._act = act
        return self

    def carry_out(self) -> None:
        """Do it.

        Raises:
            OSError: when the disk refuses; then the repair has to be run again.
        """
        if self._act is not None:
            self._act()


def nothing_to_repair(shard: int, why: str) -> Plan:
    """The plan that does nothing."""
    return Plan(shard, notes=[why])


class Replacement:
    """The new state of a shard, put together and made to count.

    Args:
        state: what the shard is without what is added and taken here; its checkpoint is given up.
    """

    def __init__(self, files: ShardFiles, state: State) -> None:
        self._files = files
        self._state = deepcopy(state)
        self._aside: list[Path] = []

    @property
    def state(self) -> State:
        """The new state."""
        return self._state

    def drop(self, number: int) -> None:
        """Take a segment out; its file, if there is one, is set aside."""
        del self._state.segments[number]
        self.set_aside(number)

    def set_aside(self, number: int) -> None:
        """Let a segment file that the new state does not name be found under another name."""
        path = self._files.path / segment_name(number)
        if path.name in self._files.disk.names(self._files.path):
            self._aside.append(path)

    def add_copy(self, entry: SegmentEntry, source: Salvaged) -> SegmentEntry:
        """Write a segment of what is whole in `source`."""
        files = self._files
        written = write_segment(files.disk, files.path, files.shard, files.identity, entry, source)
        self._state.segments[entry.id] = written
        for keyspace, epoch, lsn in source.scan.clears:
            self._state.floors[keyspace] = max(self._state.floors.get(keyspace, (0, 0)), (epoch, lsn))
        return written

    def install(self) -> None:
        """Make it count."""
        files, state = self._files, self._state
        for entry in state.segments.values():
            state.next_id = max(state.next_id, entry.id + 1)
            state.epoch = max(state.epoch, entry.epoch, entry.epoch_max)
            state.lsn = max(state.lsn, entry.lsn_max)
            if entry.state != "sealed":
                # What is written behind it counts as durable from now on, so it has to be, too.
                _sync(files.disk, files.path / segment_name(entry.id))
        state.checkpoint = None
        if state.is_closed:
            state.is_closed, state.boot = False, files.disk.boot_id()
        linked = [path for path in self._aside if self._link(path)]
        files.disk.sync_directory(files.path)
        Manifest.write(files.path, files.shard, files.identity.directory_id, state, files.disk)
        for path in self._aside:
            if path in linked:
                files.disk.unlink(path)
            else:
                files.disk.rename(path, aside_name(files, path))
        files.disk.sync_directory(files.path)

    def _link(self, path: Path) -> bool:
        try:
            self._files.disk.link(path, aside_name(self._files, path))
        except FileExistsError:
            return True  # a repair before this one was interrupted here
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True


def aside_name(files: ShardFiles, path: Path) -> Path:
    """Where a segment file is set aside: its own second name, if it has got that already, or one that is free."""
    number = 1
    while True:
        target = path.with_name(f"{path.name}.aside" + (f"-{number}" if number > 1 else ""))
        if target.name not in files.disk.names(files.path) or _is_same(files.disk, target, path):
            return target
        number += 1


def _is_same(disk: Disk, target: Path, path: Path) -> bool:
    fd = disk.open(path)
    try:
        return disk.is_name_of(target, fd)
    finally:
        disk.close(fd)


def _sync(disk: Disk, path: Path) -> None:
    with suppress(FileNotFoundError):  # a fault of its own, which check names
        fd = disk.open(path)
        try:
            disk.sync(fd)
        finally:
            disk.close(fd)


def announce(manifest: Manifest, count: int) -> list[SegmentEntry]:
    """Entries for `count` new segments, known to the manifest: what a crash leaves of them is removed by a start."""
    manifest.start()
    try:
        first = manifest.state.next_id
        entries = [new_entry(number, manifest.state.epoch) for number in range(first, first + count)]
        if entries:
            manifest.append(*({"t": "output", "id": e.id, "salt": e.salt, "epoch": e.epoch} for e in entries))
        return entries
    finally:
        manifest.close()
