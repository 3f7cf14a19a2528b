"""What the verbs of `kio repair` share: the directory, the plan as a person or a program reads it, and --yes.

Every verb says first what it would do, what is lost, and what may come back; only with --yes it does it. It takes the
locks that a daemon would hold, so it never runs beside one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kio import config
from kio.cli import exit_codes, output

if TYPE_CHECKING:
    from kio.segments.repair import Plan, ShardFiles
    from kio.segments.salvage import Lost

Directory = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="A data directory; by default that of kio serve.")
]
Shard = Annotated[int, typer.Option("--shard", metavar="N", min=0, help="The shard to repair.")]
Segment = Annotated[
    int, typer.Option("--segment", metavar="S", min=1, help="The segment: the number that its file's name begins with.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without, nothing is changed, and what would be done is told.")]

#: Lost records that are told one by one; --json has them all.
LOST_SHOWN: Final = 50
KINDS: Final = {1: "put", 2: "tombstone", 3: "clear", 7: "unknown"}


def run(
    plan: Callable[[ShardFiles], Plan],
    directory: Path | None,
    shard: int,
    yes: bool,
    config_file: Path | None,
    json: bool,
) -> int:
    """Make a plan for a shard, tell it, and with `yes` carry it out; the exit code."""
    from kio.segments.repair import open_shard

    where = directory or config.load(config_file, os.environ, {}).settings.data
    check = shlex.join(["kio", "check", str(where), "--shard", str(shard)])
    with open_shard(where, shard) as files:
        made = plan(files)
        if not json:
            _print(made)
        if made.does and yes:
            made.carry_out()
    is_done = bool(made.does) and yes
    if json:
        output.as_json(_fields(made, is_done, check))
    elif not made.does:
        output.line("nothing to repair")
    elif is_done:
        output.line(f'done; run "{check}"')
    else:
        output.line("nothing was changed; a backup or a replica, where there is one, loses less. To do this, add --yes")
    return exit_codes.DONE if made.does else exit_codes.FAILED


def _print(plan: Plan) -> None:
    for title in ("notes", "does", "loses", "may_return"):
        for told in getattr(plan, title):
            output.line(f"{_SINGULAR[title]}: {told}")
    for lost in plan.lost[:LOST_SHOWN]:
        output.line(f"lost: {_describe(lost)}")
    if len(plan.lost) > LOST_SHOWN:
        output.line(f"lost: {len(plan.lost) - LOST_SHOWN} more, which --json lists")
    if plan.does:
        count = "unknown" if plan.records_lost is None else plan.records_lost
        output.line(
            f"shard={plan.shard} records_kept={plan.records_kept} records_lost={count} bytes_lost={plan.bytes_lost}"
        )


_SINGULAR: Final = {"notes": "note", "does": "does", "loses": "loses", "may_return": "may return"}


def _describe(lost: Lost) -> str:
    told = f"segment={lost.segment} offset={lost.offset} bytes={lost.size}"
    if not lost.lsn:
        return f"{told} unknown"
    told += f" lsn={lost.lsn} {KINDS[lost.kind]} keyspace={lost.keyspace}"
    if lost.key is None:
        return told
    return f"{told} key={output.escape(lost.key)}: absent unless written since, no older version comes back"


def _fields(plan: Plan, is_done: bool, check: str) -> dict[str, Any]:
    return {
        "shard": plan.shard,
        "done": is_done,
        "notes": plan.notes,
        "does": plan.does,
        "loses": plan.loses,
        "may_return": plan.may_return,
        "records_kept": plan.records_kept,
        "records_lost": plan.records_lost,
        "bytes_lost": plan.bytes_lost,
        "lost": [
            {
                "segment": lost.segment,
                "offset": lost.offset,
                "bytes": lost.size,
                "lsn": lost.lsn or None,
                "kind": KINDS[lost.kind],
                "keyspace": lost.keyspace,
            }
            | output.in_json("key", lost.key)
            for lost in plan.lost
        ],
        "aside": plan.aside,
        "run": check,
    }
