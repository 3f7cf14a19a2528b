"""`kio check`: read a data directory or a backup from end to end, offline, and tell every fault.

It takes the directory's lock, so it never runs beside a daemon, and changes nothing. What a crash leaves and the next
start mends (a torn tail, a segment not yet sealed) is no fault: it is told as a note.
"""

from __future__ import annotations

import os
import shlex
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
    from kio.segments.backup_file import is_backup
    from kio.segments.check import check_directory

    where = directory or data or config.load(config_file, os.environ, {}).settings.data
    with progress.bar("check", None, progress.BYTES) as bar:
        report = check_directory(where, shard, progress=bar.moved_to)
    if json:
        output.as_json(_fields(report, None if is_backup(where) else where))
    else:
        _print(report, None if is_backup(where) else where)
    return exit_codes.CORRUPT if report.faults else exit_codes.DONE


def _fields(report: Report, repaired: Path | None) -> dict[str, Any]:
    return {
        "ok": not report.faults,
        "shards": report.shards,
        "segments": report.segments,
        "records": report.records,
        "bytes": report.bytes,
        "faults": [_shown(fault) | {"run": _repair(fault, repaired)} for fault in report.faults],
        "notes": [_shown(note) for note in report.notes],
    }


def _shown(found: Fault) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("shard", "file", "offset", "kind", "message")}


def _print(report: Report, repaired: Path | None) -> None:
    for note in report.notes:
        output.line(f"note: {_describe(note)}")
    for fault in report.faults:
        run = _repair(fault, repaired)
        output.line(f"fault: {_describe(fault)}" + (f'; run "{run}"' if run else ""))
    if report.faults:
        output.message(
            "restore a backup where there is one; kio repair gives up what is damaged, and says first what that is"
            if repaired
            else "this backup is damaged: take another one into another directory"
        )
    totals = f"shards={report.shards} segments={report.segments} records={report.records} bytes={report.bytes}"
    output.line(f"{len(report.faults)} faults: {totals}" if report.faults else f"OK: {totals}")


def _repair(fault: Fault, repaired: Path | None) -> str:
    """The command that shows the way out of a fault; none in a backup, which stays as it is: `repaired` is None."""
    if not fault.repair or repaired is None:
        return ""
    command = ["kio", "repair", fault.repair, str(repaired), "--shard", str(fault.shard)]
    return shlex.join(command + (["--segment", str(fault.segment)] if fault.segment else []))


def _describe(found: Fault) -> str:
    return f"shard={found.shard} segment={found.file} offset={found.offset} {found.kind}: {found.message}"
