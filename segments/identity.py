"""The identity of a data directory: what may never change about it, in one small file.

IDENTITY holds, as JSON that an operator can read: directory id, hash seed and algorithm, shard count, format version,
and a CRC32C over the rest. It is written last: shard directories with empty manifests come first, so a crash
while a directory is made leaves none that looks complete, and the next start begins again. An identity without its
shards, or shards without their identity (an unmounted disk, a half copy), is refused, never filled up.

    data/IDENTITY   data/LOCK   data/shard-0000/MANIFEST   data/shard-0000/0000000001.seg   data/run/
    data/shards-0002/shard-0000/...     where the shards are after two times `kio reshard`

A directory is made as generation 0, whose shards stand beside IDENTITY. Resharding (reshard.py) builds the next
generation beside it and then replaces IDENTITY, which is the moment from which on the new one counts; it has another
directory id, so nothing of one is ever taken for a part of the other. What IDENTITY does not name is left over from a
crash, and removed.

Versions: 1 has no generation, and is written where it is 0; 2 has one.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kio import hashing, limits
from kio.errors import DirectoryInvalid
from kio.segments import manifest, sealed_json
from kio.segments.disk import DISK, Disk

FORMAT_VERSION: Final = 2
NAME: Final = "IDENTITY"


@dataclass(frozen=True)
class DirectoryIdentity:
    """What a data directory is."""

    directory_id: bytes
    seed: int
    shards: int
    algorithm: str = hashing.ALGORITHM
    #: How often it was resharded: says where the shards are.
    generation: int = 0

    @property
    def format_version(self) -> int:
        """The oldest version that can say it."""
        return 2 if self.generation else 1


def shards_root(data: Path, identity: DirectoryIdentity) -> Path:
    """Where the directories of the shards are."""
    return data / f"shards-{identity.generation:04d}" if identity.generation else data


def shard_path(root: Path, shard: int) -> Path:
    """The directory of one shard."""
    return root / f"shard-{shard:04d}"


def load(data: Path) -> DirectoryIdentity:
    """Read the identity of an existing data directory; nothing is written.

    Raises:
        DirectoryInvalid: when there is none, it is damaged, or shards are missing.
        FormatTooNew: when a newer kio made the directory.
    """
    path = data / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if (data / "BACKUP").exists():
            raise DirectoryInvalid(f'{data} is a backup, not a data directory; run "kio restore"') from None
        raise DirectoryInvalid(f"{data} is not a kio data directory: it has no {NAME} file") from None
    except OSError as error:
        raise DirectoryInvalid(f"{path} cannot be read: {error.strerror}") from error
    identity = _decode(path, text)
    for shard in range(identity.shards):
        if not shard_path(shards_root(data, identity), shard).is_dir():
            raise DirectoryInvalid(f"{data} has no shard {shard}; is the right disk mounted, is the copy whole?")
    return identity


def create_or_load(data: Path, shards: int | None, disk: Disk = DISK) -> tuple[DirectoryIdentity, bool]:
    """The identity of `data`, made when the directory is new, and whether it was.

    Args:
        shards: for a new directory, 1 to 1,024; None is 1. An existing directory keeps its own count.

    Raises:
        DirectoryInvalid, FormatTooNew: as `load`; also when there are shards but no identity.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (data / NAME).exists():
        return load(data), False
    count = 1 if shards is None else shards
    if not 1 <= count <= limits.SHARDS_MAX:
        raise DirectoryInvalid(f"a data directory has 1 to {limits.SHARDS_MAX} shards, not {count}")
    if (data / "BACKUP").exists():
        return load(data), False
    for entry in [*data.glob("shard-*"), *data.glob("shards-*/shard-*")]:
        if any(name.endswith(".seg") for name in os.listdir(entry)):
            raise DirectoryInvalid(
                f"{data} has no {NAME} file, but {entry.name} holds segments; take it from a restored backup"
            )
    identity = DirectoryIdentity(secrets.token_bytes(16), secrets.randbits(64), count)
    for shard in range(count):
        path = shard_path(data, shard)
        if not path.exists():
            disk.make_directory(path)
        manifest.Manifest.create(path, shard, identity.directory_id, disk)
    disk.sync_directory(data)
    write(data, identity, disk)
    return identity, True


def leftovers(data: Path, identity: DirectoryIdentity) -> list[Path]:
    """The directories of shards in `data` that belong to another generation than the one that counts."""
    found = [path for path in data.glob("shards-*") if path != shards_root(data, identity)]
    if identity.generation:
        found += data.glob("shard-*")
    return sorted(path for path in found if path.is_dir() and path.name.partition("-")[2].isdecimal())


def remove_leftovers(data: Path, identity: DirectoryIdentity, disk: Disk = DISK) -> list[Path]:
    """Remove what a reshard that was killed has left: a generation that was never whole, or the one before.

    For whoever holds the lock of `data`, with what `load` gave. Returns: what was removed.

    Raises:
        OSError: when the disk refuses; what is left does no harm.
    """
    found = leftovers(data, identity)
    if found:
        # Whoever was killed may not have made it durable: a power cut must not bring back what names these.
        write(data, identity, disk)
    for path in found:
        disk.remove_tree(path)
    if found:
        disk.sync_directory(data)
    return found


def to_fields(identity: DirectoryIdentity) -> dict[str, Any]:
    """An identity as JSON holds it."""
    fields: dict[str, Any] = {
        "directory_id": identity.directory_id.hex(),
        "seed": identity.seed,
        "shards": identity.shards,
        "algorithm": identity.algorithm,
        "format_version": identity.format_version,
    }
    return fields | ({"generation": identity.generation} if identity.generation else {})


def from_fields(fields: dict[str, Any]) -> DirectoryIdentity:
    """An identity from what JSON holds.

    Raises:
        ValueError, KeyError, TypeError: when it is none.
    """
    known = {name: fields[name] for name in fields if name not in ("directory_id", "format_version")}
    identity = DirectoryIdentity(bytes.fromhex(fields["directory_id"]), **known)
    if identity.format_version != fields["format_version"]:
        raise ValueError(f"version {fields['format_version']} with generation {identity.generation}")
    return identity


def write(data: Path, identity: DirectoryIdentity, disk: Disk = DISK) -> None:
    """Let `data` be what `identity` says, durably and at once: the last step, when its shards are there and durable."""
    disk.replace(data / NAME, _encode(identity))


def _encode(identity: DirectoryIdentity) -> bytes:
    return sealed_json.encode(to_fields(identity))


def _decode(path: Path, text: bytes) -> DirectoryIdentity:
    identity = sealed_json.decode(path, text, FORMAT_VERSION, from_fields)
    if identity.algorithm != hashing.ALGORITHM or not 1 <= identity.shards <= limits.SHARDS_MAX:
        raise DirectoryInvalid(
            f"{path} names hash {identity.algorithm} and {identity.shards} shards, which is not understood"
        )
    return identity
