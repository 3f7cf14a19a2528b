"""`kio restore`: a data directory from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from kio.cli import exit_codes, options, output, progress

EXAMPLE: Final = "kio restore /backup/kio --data /var/lib/kio-restored"

MIB: Final = 1 << 20


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where kio backup has written.")],
    data: Annotated[
        Path, typer.Option("--data", metavar="NEW", help="The data directory to make; it must not exist, or be empty.")
    ],
    json: options.Json = False,
) -> int:
    """Make a new data directory from a backup; the backup stays as it is.

    A run that was interrupted is run again. Exit with 65 where a copied segment is not what its manifest says.
    """
    from kio.segments.restore import restore

    with progress.bar("restore", None, progress.SEGMENTS) as bar:
        restored = restore(directory, data, progress=bar.moved_to)
    shards = len(restored.backup.shards)
    if json:
        output.as_json(
            {
                "taken_at_ms": restored.backup.taken_at_ms,
                "shards": [
                    {"shard": i, "lsn": at.lsn, "epoch": at.epoch} for i, at in enumerate(restored.backup.shards)
                ],
                "segments": restored.segments,
                "linked": restored.linked,
                "copied": restored.copied,
                "copied_bytes": restored.copied_bytes,
                "damaged": restored.damaged,
            }
        )
    else:
        for file in restored.damaged:
            output.line(f"fault: {file} is not what its manifest says")
        counts = f"segments={restored.segments} linked={restored.linked} copied={restored.copied}"
        output.line(f"restored {shards} shards: {counts} copied_mib={restored.copied_bytes / MIB:.1f}")
    return exit_codes.CORRUPT if restored.damaged else exit_codes.DONE
