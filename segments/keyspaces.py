"""KEYSPACES: which keyspace of the records each keyspace is that clients name.

A record holds its keyspace, and its hash depends on it, so no record ever changes its own. SWAPDB changes what clients
call it instead: the daemon sends an operation on keyspace n to the records of keyspace `places[n]`. The router looks
there (kio/frontdoor/_gather.pxd), the supervisor keeps the file (kio/daemon/keyspaces.py); nothing else needs it, since
segments, manifests, checkpoints and floors name keyspaces as records do.

    data/KEYSPACES     JSON: format_version 1, swaps, moved {"0": 3, "3": 0}, and a CRC32C over the rest

`moved` has only those that are not what they are called. `swaps` rises by one with each swap: whoever reads the same
number twice knows that nothing was swapped in between, and back. Where there was never a swap there is no file.
A reshard leaves it as it is: its records keep their keyspaces.
Crash: the file is replaced at once, so that it holds the map of before a swap or the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kio.errors import DirectoryInvalid
from kio.limits import KEYSPACES
from kio.segments import sealed_json
from kio.segments.disk import DISK, Disk

FORMAT_VERSION: Final = 1
NAME: Final = "KEYSPACES"


@dataclass(frozen=True)
class KeyspaceMap:
    """What stands in it.

    Attributes:
        places: by the keyspace that clients name, the one that stands in records: each of the 256 once.
        swaps: how many there were.
    """

    places: bytes = bytes(range(KEYSPACES))
    swaps: int = 0

    def swapped(self, first: int, second: int) -> KeyspaceMap:
        """The map with these two keyspaces of clients in each other's place."""
        places = bytearray(self.places)
        places[first], places[second] = places[second], places[first]
        return KeyspaceMap(bytes(places), self.swaps + 1)


def to_fields(keyspaces: KeyspaceMap) -> dict[str, Any]:
    """The map as JSON has it, in this file and in BACKUP."""
    moved = {str(name): place for name, place in enumerate(keyspaces.places) if name != place}
    return {"swaps": keyspaces.swaps, "moved": moved}


def from_fields(fields: dict[str, Any]) -> KeyspaceMap:
    """The contrary of `to_fields`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: when they are something else.
    """
    places = list(range(KEYSPACES))
    for name, place in fields["moved"].items():
        number = int(name)
        if not (0 <= number < KEYSPACES and type(place) is int and str(number) == name):
            raise ValueError(f"it moves keyspace {name!r} to {place!r}")
        places[number] = place
    if sorted(places) != list(range(KEYSPACES)):
        raise ValueError("two keyspaces are in one place")
    swaps = fields["swaps"]
    if type(swaps) is not int or swaps < 0:
        raise ValueError(f"it counts {swaps!r} swaps")
    return KeyspaceMap(bytes(places), swaps)


def load(data: Path) -> KeyspaceMap:
    """The map of a data directory; nothing is written.

    Raises:
        DirectoryInvalid: when the file is damaged, or cannot be read.
        FormatTooNew: when a newer kio wrote it.
    """
    path = data / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return KeyspaceMap()
    except OSError as error:
        raise DirectoryInvalid(f"{path} cannot be read: {error.strerror}") from error
    return sealed_json.decode(path, text, FORMAT_VERSION, from_fields)


def write(data: Path, keyspaces: KeyspaceMap, disk: Disk = DISK) -> None:
    """Let `keyspaces` be the map of a data directory, durably and at once.

    Raises:
        OSError: when the disk refuses; which of both maps stands there then, `load` tells.
    """
    disk.replace(data / NAME, encode(keyspaces))


def encode(keyspaces: KeyspaceMap) -> bytes:
    """The bytes of the file."""
    return sealed_json.encode({"format_version": FORMAT_VERSION, **to_fields(keyspaces)})
