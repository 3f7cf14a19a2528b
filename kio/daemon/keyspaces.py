"""The map of keyspaces, as the supervisor keeps it: read once at the start, changed on disk by a router's `swap`.

Owns: DATA/KEYSPACES, while the daemon runs.
Invariants:
  * the map in memory is the one that the file holds, as far as the disk tells;
  * a swap is durable before anybody hears of it, and its answer always says the map that holds from then on, also
    where the disk has refused.
The write is the one thing that the supervisor's loop waits for beside `select`: two fsyncs, for a command that comes
now and then.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from kio import control
from kio.commands.error_texts import text_of
from kio.errors import DiskFull, KioError, StorageError
from kio.log import Log
from kio.segments import keyspaces
from kio.segments.disk import DISK, Disk

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

_log = Log(__name__)


class KeyspaceKeeper:
    """The map of one data directory.

    Args:
        data: the data directory, whose lock the caller holds.

    Raises:
        DirectoryInvalid, FormatTooNew: when the file cannot be used.
    """

    def __init__(self, data: Path, disk: Disk = DISK) -> None:
        self._data = data
        self._disk = disk
        self._map = keyspaces.load(data)

    @property
    def places(self) -> bytes:
        """By the keyspace that clients name, the one that stands in records."""
        return self._map.places

    def swap(self, message: control.Message) -> control.Message:
        """Do what a router's `swap` asks for; the `keyspaces` that answers it (kio.control)."""
        first, second = int(message["first"]), int(message["second"])
        error_text = ""
        try:
            wanted = self._map.swapped(first, second)
            keyspaces.write(self._data, wanted, self._disk)
            self._map = wanted
            _log.info("keyspaces swapped", first=first, second=second, swaps=wanted.swaps)
        except OSError as error:
            failure = self._failed(error)
            error_text = text_of(failure)
            _log.error("keyspaces not swapped", first=first, second=second, reason=failure)
        return {"type": "keyspaces", "id": message["id"], "places": self._map.places, "error": error_text}

    def _failed(self, error: OSError) -> KioError:
        """What to tell of it; the map is what the file says then."""
        before = self._map
        try:
            self._map = keyspaces.load(self._data)
        except StorageError as unread:
            return StorageError(f"the keyspaces are as before, for now: {unread}")
        if self._map == before:
            cls = DiskFull if error.errno in _FULL else StorageError
            return cls(f"the keyspaces are as before: {self._data / keyspaces.NAME}: {error.strerror}")
        return StorageError(
            f"the keyspaces are swapped, but a power cut may undo it: {self._data / keyspaces.NAME}: {error.strerror}"
        )
