"""Taking a backup: from the points of all shards (point.py) to a directory that can be checked and restored.

    1  ask all shards for their points, at one moment
    2  give every segment they name a second name: in the new generation, or, where DIR is on another file system, in
       a staging directory inside the data directory. From here on nothing can vanish. Where a segment vanished before
       that (compaction unlinked it), ask again for points of all shards; what has its second name keeps it. So too
       where keyspaces were swapped meanwhile: the map (keyspaces.py) is to be that of the points
    3  make what is linked durable, or copy what is staged, and compare each copy of a sealed segment with its hash
    4  write a manifest for each shard, sync directories, then BACKUP (backup_file.py); only then remove the older
       generation and the staging directory

A sealed segment that the generation before has already, by id, salt and hash, gets its name from there: nothing is
read or copied again.
Invariants: the files of the running daemon are only linked and read. A manifest names an unsealed segment as `sealing`,
with the end that the point told: what the daemon appends or seals behind it, in the same file, does not count.
Crash: BACKUP names the generation before, whole; the next run removes what this one left in DIR and in the data
directory.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from kio.clock import wall_ms
from kio.errors import Corrupt, DirectoryInUse, DirectoryInvalid, Overloaded
from kio.segments import backup_file, keyspaces
from kio.segments.backup_file import Backup, ShardAt
from kio.segments.disk import DISK, Disk, FileLock, lock_file
from kio.segments.identity import DirectoryIdentity, load, shard_path, shards_root
from kio.segments.manifest import Manifest, SegmentEntry, State
from kio.segments.point import Point, read_point
from kio.segments.segment import segment_name

#: How often points are asked for before a data directory counts as changing too fast.
ATTEMPTS: Final = 20
STAGING: Final = "backup-staging"
_CHUNK_BYTES: Final = 4 << 20
#: What a file system answers to a link that it cannot make.
_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)

#: Asks the daemon: what each shard tells of its point, all taken at one moment.
Ask = Callable[[], list[dict[str, Any]]]
#: Called with (segments done, segments in all).
Progress = Callable[[int, int], None]


@dataclass
class Taken:
    """What a run did."""

    backup: Backup
    segments: int = 0
    #: Segments by how they came: from the generation before, by a link, by a copy; and the bytes of the copies.
    kept: int = 0
    linked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    #: How often points were asked for.
    attempts: int = 0
    #: Segments whose copy is not what their manifest says.
    damaged: list[str] = dataclasses.field(default_factory=list)


class _Wanted(NamedTuple):
    """A segment of a shard that belongs into the backup."""

    shard: int
    entry: SegmentEntry

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.shard, self.entry.id, self.entry.salt

    def path(self, root: Path) -> Path:
        return shard_path(root, self.shard) / segment_name(self.entry.id)


class _Changed(Exception):
    """The data directory is not what the points are of any more: says why."""


def take_backup(source: Path, target: Path, ask: Ask, *, progress: Progress | None = None, disk: Disk = DISK) -> Taken:
    """Back up the data directory of a running daemon.

    Args:
        source: the data directory.
        target: a new or empty directory, or one that holds an earlier backup of the same data directory.

    Raises:
        DirectoryInvalid: when `source` is no data directory, or `target` holds something else.
        DirectoryInUse: when another backup into `target` is under way.
        Overloaded: when segments vanished, or keyspaces were swapped, again and again.
        KioError: whatever `ask` raises.
        OSError: when a disk refuses; the backup of before still counts.
    Cost: on one file system a link for each segment and an fsync for each that is not sealed; on another, what is not
        there yet is read and written once. Memory for one chunk.
    """
    identity = load(source)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_file(target / "LOCK")
    try:
        return _Run(source, target, identity, ask, progress, disk).run()
    finally:
        lock.release()


class _Run:
    """One backup."""

    def __init__(
        self,
        source: Path,
        target: Path,
        identity: DirectoryIdentity,
        ask: Ask,
        progress: Progress | None,
        disk: Disk,
    ) -> None:
        self._source = source
        self._target = target
        self._root = shards_root(source, identity)
        # Where its shards are is no part of what a backup is of.
        self._identity = dataclasses.replace(identity, generation=0)
        self._ask = ask
        self._progress = progress
        self._disk = disk
        self._points: list[Point] = []
        self._wanted: list[_Wanted] = []
        #: What has its second name.
        self._held: set[tuple[int, int, int]] = set()

    def run(self) -> Taken:
        before = self._before()
        self._remove_leftovers(before)
        generation = before.generation + 1 if before is not None else 1
        root = self._target / backup_file.generation_name(generation)
        self._make_tree(root)
        with self._staging(root) as stage:
            taken = Taken(Backup(self._identity, generation, wall_ms(), []))
            earlier = self._earlier(before)
            self._hold(stage, taken)
            self._remove_unwanted(stage)
            for done, wanted in enumerate(self._wanted, 1):
                self._bring(wanted, stage, root, before, earlier, taken)
                if self._progress is not None:
                    self._progress(done, len(self._wanted))
            self._finish(root, taken)
        if before is not None:
            self._disk.remove_tree(before.root(self._target))
            self._disk.sync_directory(self._target)
        return taken

    # ---- before and after ----

    def _before(self) -> Backup | None:
        """The backup that `target` holds already."""
        target = self._target
        if backup_file.is_backup(target):
            before = backup_file.load_backup(target)
            if before.identity != self._identity:
                raise DirectoryInvalid(f"{target} holds a backup of another data directory; give another one")
            return before
        foreign = [name for name in self._disk.names(target) if name != "LOCK" and not backup_file.is_generation(name)]
        if foreign:
            raise DirectoryInvalid(f"{target} is not empty and holds no backup, but {foreign[0]}; give another one")
        return None

    def _remove_leftovers(self, before: Backup | None) -> None:
        """What runs that did not end have left: generations that do not count."""
        counts = "" if before is None else backup_file.generation_name(before.generation)
        for name in self._disk.names(self._target):
            if backup_file.is_generation(name) and name != counts:
                self._disk.remove_tree(self._target / name)

    def _make_tree(self, root: Path) -> None:
        self._disk.make_directory(root)
        for shard in range(self._identity.shards):
            self._disk.make_directory(shard_path(root, shard))

    def _earlier(self, before: Backup | None) -> dict[tuple[int, int, int], SegmentEntry]:
        """The sealed segments of the backup of before; none of a shard whose manifest there cannot be read."""
        found: dict[tuple[int, int, int], SegmentEntry] = {}
        for shard in range(self._identity.shards if before is not None else 0):
            assert before is not None
            with suppress(Corrupt):
                path = shard_path(before.root(self._target), shard)
                state = Manifest.load(path, shard, self._identity.directory_id, self._disk).state
                found |= {(shard, e.id, e.salt): e for e in state.segments.values() if e.state == "sealed"}
        return found

    @contextmanager
    def _staging(self, root: Path) -> Iterator[Path]:
        """Where segments get their second names: `root`, or a directory on the file system of the data."""
        probe = root / "probe"
        try:
            self._disk.link(self._source / "IDENTITY", probe)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            self._disk.unlink(probe)
            yield root
            return
        parent = self._source / STAGING
        parent.mkdir(mode=0o700, exist_ok=True)
        for name in self._disk.names(parent):
            self._remove_abandoned(parent / name)
        stage = parent / secrets.token_hex(4)
        self._disk.make_directory(stage)
        lock = lock_file(stage / "LOCK")
        try:
            for shard in range(self._identity.shards):
                self._disk.make_directory(shard_path(stage, shard))
            yield stage
        finally:
            lock.release()
            with suppress(FileNotFoundError):  # another run takes it for an abandoned one
                self._disk.remove_tree(stage)
            with suppress(OSError):
                parent.rmdir()

    def _remove_abandoned(self, stage: Path) -> None:
        """Remove the staging directory of a run that was killed; it keeps segments on the disk."""
        try:
            lock: FileLock = lock_file(stage / "LOCK")
        except DirectoryInUse:
            return
        with suppress(FileNotFoundError):
            self._disk.remove_tree(stage)
        lock.release()

    # ---- points and second names ----

    def _hold(self, stage: Path, taken: Taken) -> None:
        """Take points until every segment of them has its second name."""
        while True:
            taken.attempts += 1
            mapped = keyspaces.load(self._source)
            taken.backup = dataclasses.replace(taken.backup, taken_at_ms=wall_ms(), keyspaces=mapped)
            self._points = [read_point(told) for told in self._ask()]
            if len(self._points) != self._identity.shards:
                raise DirectoryInvalid(
                    f"the daemon has {len(self._points)} shards, {self._source} has {self._identity.shards}"
                )
            try:
                # The router takes no points while a swap is under way, and the number of swaps only rises.
                if keyspaces.load(self._source) != mapped:
                    raise _Changed("keyspaces were swapped")
                self._wanted = [w for shard, point in enumerate(self._points) for w in self._plan(shard, point)]
                for wanted in self._wanted:
                    self._link(wanted, stage)
                return
            except _Changed as changed:
                if taken.attempts == ATTEMPTS:
                    raise Overloaded(f"{changed}, {ATTEMPTS} times in a row; try again later") from None

    def _plan(self, shard: int, point: Point) -> Iterator[_Wanted]:
        """The segments of a point, as the manifest on disk describes them, with the ends that the point tells."""
        path = shard_path(self._root, shard)
        known = Manifest.load(path, shard, self._identity.directory_id, self._disk).state.segments
        unsealed = {number: (end, lsn) for number, end, lsn in point.unsealed}
        for number in point.segments:
            entry = known.get(number)
            if entry is None:
                raise _Changed(f"segment {number} of shard {shard} vanished")
            if number in unsealed:
                end, lsn = unsealed[number]
                entry = SegmentEntry(entry.id, entry.salt, entry.epoch, "sealing", end, lsn_max=lsn)
            yield _Wanted(shard, entry)

    def _link(self, wanted: _Wanted, stage: Path) -> None:
        if wanted.identity in self._held:
            return
        try:
            self._disk.link(wanted.path(self._root), wanted.path(stage))
        except FileNotFoundError:
            raise _Changed(f"segment {wanted.entry.id} of shard {wanted.shard} vanished") from None
        self._held.add(wanted.identity)

    def _remove_unwanted(self, stage: Path) -> None:
        """Second names of segments that the last points do not need."""
        needed = {wanted.identity for wanted in self._wanted}
        for shard, number, salt in self._held - needed:
            self._disk.unlink(_Wanted(shard, SegmentEntry(number, salt, 0)).path(stage))

    # ---- bytes ----

    def _bring(
        self,
        wanted: _Wanted,
        stage: Path,
        root: Path,
        before: Backup | None,
        earlier: dict[tuple[int, int, int], SegmentEntry],
        taken: Taken,
    ) -> None:
        """Make one segment part of the generation, durably."""
        taken.segments += 1
        entry, had = wanted.entry, earlier.get(wanted.identity)
        is_there = before is not None and had is not None and (had.hash, had.end) == (entry.hash, entry.end)
        if stage == root:
            taken.kept += is_there
            taken.linked += not is_there
            if entry.state != "sealed":
                sync_file(self._disk, wanted.path(root))
            return
        if is_there and before is not None and self._keep(wanted.path(before.root(self._target)), wanted, root):
            taken.kept += 1
            return
        copied, content = copy_segment(self._disk, wanted.path(stage), wanted.path(root), entry)
        taken.copied += 1
        taken.copied_bytes += copied
        if entry.state == "sealed" and content != entry.hash:
            taken.damaged.append(f"shard-{wanted.shard:04d}/{segment_name(entry.id)}")

    def _keep(self, old: Path, wanted: _Wanted, root: Path) -> bool:
        """Give a segment of the generation before its name in this one; whether that could be done."""
        try:
            if old.stat().st_size != wanted.entry.size:
                return False
            self._disk.link(old, wanted.path(root))
        except OSError as error:
            if error.errno not in (*_NO_LINK, errno.ENOENT):
                raise
            return False
        return True

    def _finish(self, root: Path, taken: Taken) -> None:
        for shard, point in enumerate(self._points):
            segments = {w.entry.id: w.entry for w in self._wanted if w.shard == shard}
            floors = {keyspace: (epoch, lsn) for keyspace, epoch, lsn in point.floors}
            # Not closed: so the first start on it raises the epoch, and versions that the daemon goes on to give out
            # in the meantime are never given out again.
            state = State(
                segments=segments, epoch=point.epoch, next_id=point.next_id, floors=floors, is_closed=False,
                lsn=point.lsn, clock_ms=point.clock_ms,
            )  # fmt: skip
            path = shard_path(root, shard)
            Manifest.write(path, shard, self._identity.directory_id, state, self._disk)
        self._disk.sync_directory(root)
        self._disk.sync_directory(self._target)
        shards = [ShardAt(point.lsn, point.epoch) for point in self._points]
        taken.backup = dataclasses.replace(taken.backup, shards=shards)
        backup_file.write_backup(self._target, taken.backup, self._disk)


def sync_file(disk: Disk, path: Path) -> None:
    """Make the content of a file durable, whoever wrote it."""
    fd = disk.open(path)
    try:
        disk.sync(fd)
    finally:
        disk.close(fd)


def copy_segment(disk: Disk, source: Path, target: Path, entry: SegmentEntry) -> tuple[int, bytes]:
    """Copy what counts of a segment, durably but for its name: bytes, and the content hash of header and records.

    Raises:
        OSError: when a disk refuses.
    """
    content = hashlib.blake2b(digest_size=16)
    reading = disk.open(source)
    try:
        writing = disk.create(target)
        try:
            size = entry.size if entry.state == "sealed" else entry.end
            at = 0
            while at < size and (part := disk.read(reading, min(_CHUNK_BYTES, size - at), at)):
                disk.write(writing, part, at)
                content.update(memoryview(part)[: max(0, entry.end - at)])
                at += len(part)
            disk.sync(writing)
        finally:
            disk.close(writing)
    finally:
        disk.close(reading)
    return at, content.digest()
