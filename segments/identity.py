"""The identity of a data directory: what may never change about it, in one small file.

IDENTITY holds, as JSON that an operator can read: directory id, hash seed and algorithm, shard count, format version,
and a CRC32C over the rest. It is written once, last: shard directories with empty manifests come first, so a crash
while a directory is made leaves none that looks complete, and the next start begins again. An identity without its
shards, or shards without their identity (an unmounted disk, a half copy), is refused, never filled up.

    data/IDENTITY   data/LOCK   data/shard-0000/MANIFEST   data/shard-0000/0000000001.seg   data/run/
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kio import hashing, limits
from kio.errors import DirectoryInvalid, FormatTooNew
from kio.segments import manifest
from kio.segments._hints import crc32c
from kio.segments.disk import DISK, Disk

FORMAT_VERSION: Final = 1
NAME: Final = "IDENTITY"


@dataclass(frozen=True)
class DirectoryIdentity:
    """What a data directory is, for ever."""

    directory_id: bytes
    seed: int
    shards: int
    algorithm: str = hashing.ALGORITHM
    format_version: int = FORMAT_VERSION


def shard_path(data: Path, shard: int) -> Path:
    """The directory of one shard."""
    return data / f"shard-{shard:04d}"


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
        if not shard_path(data, shard).is_dir():
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
    for entry in data.glob("shard-*"):
        if any(name.endswith(".seg") for name in os.listdir(entry)):
            raise DirectoryInvalid(
                f"{data} has no {NAME} file, but {entry.name} holds segments; restore {NAME} from a copy"
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


def _checksum(fields: dict[str, Any]) -> str:
    return f"{crc32c(json.dumps(fields, sort_keys=True).encode()):08x}"


def to_fields(identity: DirectoryIdentity) -> dict[str, Any]:
    """An identity as JSON holds it."""
    return asdict(identity) | {"directory_id": identity.directory_id.hex()}


def from_fields(fields: dict[str, Any]) -> DirectoryIdentity:
    """An identity from what JSON holds.

    Raises:
        ValueError, KeyError, TypeError: when it is none.
    """
    return DirectoryIdentity(**fields | {"directory_id": bytes.fromhex(fields["directory_id"])})


def write(data: Path, identity: DirectoryIdentity, disk: Disk = DISK) -> None:
    """Make `data` a data directory: the last step, when its shards are there and durable."""
    disk.replace(data / NAME, _encode(identity))


def _encode(identity: DirectoryIdentity) -> bytes:
    fields = to_fields(identity)
    return json.dumps(fields | {"checksum": _checksum(fields)}, indent=1).encode() + b"\n"


def _decode(path: Path, text: bytes) -> DirectoryIdentity:
    try:
        fields = json.loads(text)
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise ValueError("it fails its checksum")
        if fields["format_version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"{path} has format version {fields['format_version']}, this kio reads up to {FORMAT_VERSION}"
            )
        identity = from_fields(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DirectoryInvalid(f"{path} is damaged: {error}; restore it from a copy") from error
    if identity.algorithm != hashing.ALGORITHM or not 1 <= identity.shards <= limits.SHARDS_MAX:
        raise DirectoryInvalid(
            f"{path} names hash {identity.algorithm} and {identity.shards} shards, which is not understood"
        )
    return identity
