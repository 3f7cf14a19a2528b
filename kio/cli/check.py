"""`kio check`: read a data directory or a backup from end to end, offline, and tell every fault.

It takes the directory's lock, so it never runs beside a daemon, and changes nothing. What a crash leaves and the next
start mends (a torn tail, a segment not yet sealed) is no fault: it is told as a note.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kio import config
from kio.cli import exit_codes, options, output, progress

if TYPE_CHECKING:
    from kio.segments.check import Fault, Report

EXAMPLE: Final = "kio check ./data --shard 0"


def command(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A data directory or a backup; by default that of kio serve.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The same as DIR.")] = None,
    shard: Annotated[int | None, typer.Option("--shard", metavar="N", min=0, help="Check this shard only.")] = None,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Check every record of a backup, or of a data directory that no daemon is using.

    Exit with 0 when all is well, with 65 when there is a fault, with 73 when a daemon is using it.
    """
    if directory is not None and data is not None:
        raise typer.BadParameter("give the directory once: DIR or --data DIR")
    from kio.segments.check import check_directory

    where = directory or data or config.load(config_file, os.environ, {}).settings.data
    with progress.bar("check", None, progress.BYTES) as bar:
        report = check_directory(where, shard, progress=bar.moved_to)
    if json:
        output.as_json(_fields(report))
    else:
        _print(report)
    return exit_codes.CORRUPT if report.faults else exit_codes.DONE


def _fields(report: Report) -> dict[str, Any]:
    return {
        "ok": not report.faults,
        "shards": report.shards,
        "segments": report.segments,
        "records": report.records,
        "bytes": report.bytes,
        "faults": [asdict(fault) for fault in report.faults],
        "notes": [asdict(note) for note in report.notes],
    }


def _print(report: Report) -> None:
    for note in report.notes:
        output.line(f"note: {_describe(note)}")
    for fault in report.faults:
        output.line(f"fault: {_describe(fault)}")
    totals = f"shards={report.shards} segments={report.segments} records={report.records} bytes={report.bytes}"
    output.line(f"{len(report.faults)} faults: {totals}" if report.faults else f"OK: {totals}")


def _describe(found: Fault) -> str:
    return f"shard={found.shard} segment={found.file} offset={found.offset} {found.kind}: {found.message}"
