"""`kio backup`: a consistent copy of a running daemon's data, by hard links or, to another disk, by copying.

It runs beside the daemon, at a lower priority, and needs its data directory: as the same user, on the same machine.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kio.cli import exit_codes, options, output, progress
from kio.errors import DirectoryInvalid

if TYPE_CHECKING:
    from kio.segments.backup import Taken

EXAMPLE: Final = "kio backup /backup/kio"

#: Added to the niceness of this process: requests go first.
NICENESS: Final = 10
MIB: Final = 1 << 20


def command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new directory, or one with an earlier backup of this daemon.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The data directory; by default what the daemon tells.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Back up the running daemon's data: every shard at one LSN, all at one moment.

    What DIR has already is not copied again. Until the end an earlier backup in DIR stays as it is. Exit with 65 where
    a copied segment is not what the daemon's manifest says: the backup is there, with that damage.
    """
    from kio.segments.backup import take_backup

    with suppress(OSError):
        os.nice(NICENESS)
    with options.connect(url, timeout) as db, progress.bar("backup", None, progress.SEGMENTS) as bar:
        taken = take_backup(data or _data_of(db.stats()), directory, db.seal, progress=bar.moved_to)
    fields = _fields(taken)
    if json:
        output.as_json(fields)
    else:
        for file in taken.damaged:
            output.line(f"fault: {file} is not what its manifest says")
        shown = ("segments", "kept", "linked", "copied")
        counts = " ".join(f"{name}={fields[name]}" for name in shown)
        output.line(f"backed up {len(fields['shards'])} shards: {counts} copied_mib={taken.copied_bytes / MIB:.1f}")
    return exit_codes.CORRUPT if taken.damaged else exit_codes.DONE


def _data_of(stats: dict[str, Any]) -> Path:
    """The data directory that the daemon tells; it has to be on this machine."""
    told = stats.get("settings", {}).get("data", "")
    if not told or not Path(told).is_dir():
        raise DirectoryInvalid(f"the daemon's data directory {told!r} is not on this machine; give --data DIR")
    return Path(told)


def _fields(taken: Taken) -> dict[str, Any]:
    return {
        "taken_at_ms": taken.backup.taken_at_ms,
        "generation": taken.backup.generation,
        "shards": [{"shard": i, "lsn": at.lsn, "epoch": at.epoch} for i, at in enumerate(taken.backup.shards)],
        "segments": taken.segments,
        "kept": taken.kept,
        "linked": taken.linked,
        "copied": taken.copied,
        "copied_bytes": taken.copied_bytes,
        "attempts": taken.attempts,
        "damaged": taken.damaged,
    }
