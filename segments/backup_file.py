"""BACKUP: the one file that says what a backup is, and makes it whole.

    DIR/BACKUP                         JSON, with a checksum: whose backup, when, which generation, each shard's LSN
    DIR/000007/shard-0000/MANIFEST     the generation that BACKUP names: laid out like a data directory, but without
    DIR/000007/shard-0000/*.seg        IDENTITY, so that no daemon can be started on it by mistake

Each run makes a generation beside the one that counts, durably, and then replaces BACKUP: that is the moment at which
the new one counts. A crash before it leaves a generation that nothing names, one after it the older one; the next run
removes either. Nothing in a generation is ever changed by the backup; a segment that was not sealed may be the very
file that the daemon still appends to, and its manifest says up to where it counts.

Versions: 1 has no map of keyspaces (keyspaces.py), and is written where there was never a swap; 2 has one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from kio.errors import DirectoryInvalid, FormatTooNew
from kio.segments import identity, keyspaces, sealed_json
from kio.segments.disk import DISK, Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.keyspaces import KeyspaceMap

VERSION: Final = 2
NAME: Final = "BACKUP"


@dataclass(frozen=True)
class ShardAt:
    """The state of one shard in a backup."""

    lsn: int
    epoch: int


@dataclass(frozen=True)
class Backup:
    """What the file says."""

    identity: DirectoryIdentity
    generation: int
    #: When its point was taken, in ms since 1970.
    taken_at_ms: int
    shards: list[ShardAt]
    #: Which keyspaces of its records clients meant by which name.
    keyspaces: KeyspaceMap = field(default_factory=KeyspaceMap)

    def root(self, directory: Path) -> Path:
        """Where the shards of this backup are."""
        return directory / generation_name(self.generation)


def generation_name(generation: int) -> str:
    """The name of a generation's directory."""
    return f"{generation:06d}"


def is_generation(name: str) -> bool:
    """Whether a directory of this name is a generation."""
    return len(name) == 6 and name.isascii() and name.isdigit()


def is_backup(directory: Path) -> bool:
    """Whether there is a backup in `directory`."""
    return (directory / NAME).exists()


def load_backup(directory: Path) -> Backup:
    """Read the file.

    Raises:
        DirectoryInvalid: when there is none, or it is damaged.
        FormatTooNew: when a newer kio made the backup.
    """
    path = directory / NAME
    try:
        fields = json.loads(path.read_bytes())
        checksum = fields.pop("checksum")
        if checksum != sealed_json.checksum_of(fields):
            raise ValueError("it fails its checksum")
        if fields["version"] > VERSION:
            raise FormatTooNew(f"{path} has version {fields['version']}, this kio reads up to {VERSION}")
        return Backup(
            identity.from_fields(fields["identity"]),
            fields["generation"],
            fields["taken_at_ms"],
            [ShardAt(**shard) for shard in fields["shards"]],
            keyspaces.from_fields(fields["keyspaces"]) if fields["version"] > 1 else KeyspaceMap(),
        )
    except FileNotFoundError:
        raise DirectoryInvalid(f"{directory} is not a backup made by kio: it has no {NAME} file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DirectoryInvalid(f"{path} is damaged: {error}; take another backup into another directory") from error


def write_backup(directory: Path, backup: Backup, disk: Disk = DISK) -> None:
    """Let `backup` count from now on, durably and at once."""
    fields: dict[str, Any] = {
        "version": 2 if backup.keyspaces.swaps else 1,
        "identity": identity.to_fields(backup.identity),
        "generation": backup.generation,
        "taken_at_ms": backup.taken_at_ms,
        "shards": [asdict(shard) for shard in backup.shards],
    }
    if backup.keyspaces.swaps:
        fields["keyspaces"] = keyspaces.to_fields(backup.keyspaces)
    disk.replace(directory / NAME, sealed_json.encode(fields))


def locate(directory: Path) -> tuple[DirectoryIdentity, Path]:
    """Identity, and where the shards are, of a data directory or of a backup.

    Raises:
        DirectoryInvalid, FormatTooNew: when it is neither, or damaged.
    """
    if not is_backup(directory):
        found = identity.load(directory)
        return found, identity.shards_root(directory, found)
    backup = load_backup(directory)
    root = backup.root(directory)
    for shard in range(backup.identity.shards):
        if not identity.shard_path(root, shard).is_dir():
            raise DirectoryInvalid(f"the backup in {directory} has no shard {shard}; is the copy whole?")
    return backup.identity, root
