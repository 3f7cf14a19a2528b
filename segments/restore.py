"""Restoring: from a backup to a data directory that a daemon can be started on.

Sealed segments get a second name where the file system allows it, since nobody ever writes to them again; the others
are copied up to their end, because the next start seals them. IDENTITY is written last.
Crash: RESTORING stands in the directory until it is whole; the next run empties it and begins again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kio.errors import DirectoryInvalid
from kio.segments import backup_file, identity, keyspaces
from kio.segments.backup import copy_segment
from kio.segments.backup_file import Backup
from kio.segments.disk import DISK, Disk, lock_file
from kio.segments.identity import shard_path
from kio.segments.manifest import Manifest, SegmentEntry
from kio.segments.segment import segment_name

MARKER: Final = "RESTORING"
_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass
class Restored:
    """What a run did."""

    backup: Backup
    segments: int = 0
    linked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    #: Segments whose copy is not what their manifest says.
    damaged: list[str] = field(default_factory=list)


def restore(
    directory: Path, data: Path, *, progress: Callable[[int, int], None] | None = None, disk: Disk = DISK
) -> Restored:
    """Make the new data directory `data` from the backup in `directory`.

    Args:
        data: must not exist, or be empty.
        progress: called with (segments done, segments in all).

    Raises:
        DirectoryInvalid: when there is no backup, or `data` holds something.
        Corrupt: when a manifest of the backup is damaged.
        DirectoryInUse: when the backup is just being replaced.
        OSError: when a disk refuses; run it again.
    """
    lock = lock_file(directory / "LOCK")
    try:
        backup = backup_file.load_backup(directory)
        _prepare(data, disk)
        restored = Restored(backup)
        root = backup.root(directory)
        states = [
            Manifest.load(shard_path(root, shard), shard, backup.identity.directory_id, disk).state
            for shard in range(backup.identity.shards)
        ]
        total = sum(len(state.segments) for state in states)
        for shard, state in enumerate(states):
            target = shard_path(data, shard)
            disk.make_directory(target)
            for entry in state.segments.values():
                _bring(disk, shard_path(root, shard), target, entry, restored)
                if progress is not None:
                    progress(restored.segments, total)
            Manifest.write(target, shard, backup.identity.directory_id, state, disk)
        disk.sync_directory(data)
        if backup.keyspaces.swaps:
            keyspaces.write(data, backup.keyspaces, disk)
        identity.write(data, backup.identity, disk)
        disk.unlink(data / MARKER)
        disk.sync_directory(data)
        return restored
    finally:
        lock.release()


def _prepare(data: Path, disk: Disk) -> None:
    """An empty directory with the marker in it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = disk.names(data)
    if identity.NAME in names or (MARKER not in names and set(names) - {f"{MARKER}.tmp"}):
        raise DirectoryInvalid(f"{data} is not empty; give a directory that does not exist yet")
    for name in names:
        if (data / name).is_dir():
            disk.remove_tree(data / name)
        elif name != MARKER:
            disk.unlink(data / name)
    disk.replace(data / MARKER, b"kio restore has not finished here; run it again\n")


def _bring(disk: Disk, source: Path, target: Path, entry: SegmentEntry, restored: Restored) -> None:
    name = segment_name(entry.id)
    restored.segments += 1
    is_sealed = entry.state == "sealed"
    if is_sealed and _link(disk, source / name, target / name):
        restored.linked += 1
        return
    copied, content = copy_segment(disk, source / name, target / name, entry)
    restored.copied += 1
    restored.copied_bytes += copied
    if is_sealed and content != entry.hash:
        restored.damaged.append(f"{target.name}/{name}")


def _link(disk: Disk, source: Path, target: Path) -> bool:
    try:
        disk.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True
