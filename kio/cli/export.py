"""`kio export`: records out of the daemon, into a directory tree, JSON lines or CSV; the ways of `kio import` back.

A key that comes or goes while the export runs may or may not be in it; every key that is there from beginning to end
is, once. A file of lines appears when all of it is written; a tree grows file by file, and running the export again
completes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Protocol

import typer

from kio.cli import files, options, progress
from kio.cli.csv_rows import CsvTarget
from kio.cli.jsonl import JsonLinesTarget
from kio.cli.transfer import Record, Tally, closing_line
from kio.cli.tree_target import TreeTarget

EXAMPLE: Final = """\
kio export --tree ./site --prefix site/
kio export --jsonl people.jsonl --prefix people: --key id
kio export --csv - --prefix people: | head"""


class Target(Protocol):
    """Where records go."""

    def put(self, record: Record) -> None:
        """Write one record, or take it to be written at the end."""


def command(
    tree: Annotated[
        Path | None, typer.Option("--tree", metavar="DIR", file_okay=False, help="A file for each key: key = path.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", metavar="FILE", help="A line for each value; - writes to stdout.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="A row for each value; - writes to stdout.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="FIELD", help="The field that is the key; without it, lines and rows do not tell the key."
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Only keys that begin with it; it is left out of them.")
    ] = "",
    give_up: Annotated[
        float, typer.Option("--give-up", metavar="SECONDS", min=0, help="How long to wait for a daemon that is away.")
    ] = 60.0,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Write all records, or those whose key begins with --prefix, which is left out of what is written.

    Into a tree, a key that would lead out of DIR ("..", an absolute path, an empty component, a NUL byte) is refused
    and told; so is one that is a file where another key needs a directory. Into lines and rows, a value that is no JSON
    object goes out as {"key": ..., "value_base64": ...} (CSV: key_base64, value_base64), and so does a record that
    expires, with "expire_at" (CSV: key_expire_at) in seconds since 1970; "kio import" turns them back.
    """
    if sum(way is not None for way in (tree, jsonl, csv)) != 1:
        raise typer.BadParameter("give one of --tree DIR, --jsonl FILE, --csv FILE")
    if key is not None and tree is not None:
        raise typer.BadParameter("--key FIELD goes with --jsonl and --csv")
    tally, wanted = Tally(), options.key_bytes(prefix)
    is_own_stdout = files.STANDARD not in (jsonl, csv)
    ending = closing_line(tally, "exported", json=json, answer_on_stdout=is_own_stdout)
    with options.connect(url, timeout) as db, ending:
        total = db.count() if progress.is_wanted() and not wanted else None
        with progress.bar("export", total, progress.RECORDS) as bar, _target(tree, jsonl, csv, key, tally) as target:
            tally.tell = bar.tell
            # The client asks for a page again until its timeout, so a patient one is all that waiting takes.
            patient = db.with_options(timeout=max(timeout, give_up))
            for found, value, expire_at in patient.records(wanted):
                target.put(Record(found[len(wanted) :], value, "", expire_at))
                bar.moved_to(tally.records)
    return tally.exit_code


@contextmanager
def _target(tree: Path | None, jsonl: Path | None, csv: Path | None, key: str | None, tally: Tally) -> Iterator[Target]:
    if tree is not None:
        with TreeTarget(tree, tally) as target:
            yield target
    elif jsonl is not None:
        with files.target(jsonl) as file:
            yield JsonLinesTarget(file, tally, field=key)
    elif csv is not None:
        beside = None if csv == files.STANDARD else csv.parent
        with files.target(csv) as file, CsvTarget(file, tally, field=key, beside=beside) as rows:
            yield rows
            rows.finish()
