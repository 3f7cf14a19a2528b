"""`kio reshard`: another number of shards for a data directory that no daemon is using."""

from __future__ import annotations

import dataclasses
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Final

import typer

from kio import config
from kio.cli import options, output, progress
from kio.limits import MIB, SHARDS_MAX

#: Descriptors that a new shard needs while it is filled, with some to spare.
DESCRIPTORS_PER_SHARD: Final = 8
#: Threads beside the one that copies.
HELPERS: Final = 2

EXAMPLE: Final = "kio reshard /var/lib/kio-restored --shards 4"


def command(
    shards: Annotated[
        int, typer.Option("--shards", metavar="N", min=1, max=SHARDS_MAX, help="How many shards it shall have.")
    ],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A data directory; by default that of kio serve.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The same as DIR.")] = None,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Rewrite a stopped data directory for another number of shards.

    It keeps all keys, values and expiries. Until the new shards are whole the directory stays as it was, whatever
    happens; that takes room for both. A run that was interrupted is run again, or the daemon started as before.
    """
    if directory is not None and data is not None:
        raise typer.BadParameter("give the directory once: DIR or --data DIR")
    from kio.segments.reshard import reshard

    _allow_descriptors(shards * DESCRIPTORS_PER_SHARD)
    settings = config.load(config_file, os.environ, {}).settings
    with progress.bar("reshard", None, progress.BYTES) as bar, ThreadPoolExecutor(HELPERS) as helper:
        done = reshard(
            directory or data or settings.data,
            shards,
            segment_bytes=settings.segment_mib * MIB,
            progress=bar.moved_to,
            helper=helper,
        )
    if json:
        output.as_json(dataclasses.asdict(done))
        return 0
    for name in done.left:
        output.line(f"note: {name} could not be removed; the next start tries again")
    if done.shards == done.shards_before:
        output.line(f"nothing to do: there are {done.shards} shards")
    else:
        counts = f"records={done.records} mib={done.record_bytes / MIB:.1f} expired={done.expired}"
        output.line(f"resharded from {done.shards_before} to {done.shards} shards: {counts} took_ms={done.took_ms}")
    return 0


def _allow_descriptors(wanted: int) -> None:
    """Raise this process's soft limit where it is too low for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
