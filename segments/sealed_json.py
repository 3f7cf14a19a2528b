"""Small files of a data directory: JSON with a format version and a checksum (IDENTITY, KEYSPACES)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kio.errors import DirectoryInvalid, FormatTooNew
from kio.segments._hints import crc32c

T = TypeVar("T")


def encode(fields: dict[str, Any]) -> bytes:
    """The bytes of a file that holds `fields`, with the checksum that they get."""
    return json.dumps(fields | {"checksum": checksum_of(fields)}, indent=1).encode() + b"\n"


def decode(path: Path, text: bytes, version: int, make: Callable[[dict[str, Any]], T]) -> T:
    """What `make` makes of the fields of the file `path`, whose bytes are `text`; `version` is the newest known.

    Raises:
        DirectoryInvalid: when the file is damaged, or `make` finds something else in it.
        FormatTooNew: when a newer kio wrote it.
    """
    try:
        fields = json.loads(text)
        checksum = fields.pop("checksum")
        if checksum != checksum_of(fields):
            raise ValueError("it fails its checksum")
        if fields["format_version"] > version:
            raise FormatTooNew(f"{path} has format version {fields['format_version']}, this kio reads up to {version}")
        return make(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DirectoryInvalid(f"{path} is damaged: {error}; take it from a restored backup") from error


def checksum_of(fields: dict[str, Any]) -> str:
    """What stands in the file as the checksum of these fields."""
    return f"{crc32c(json.dumps(fields, sort_keys=True).encode()):08x}"
