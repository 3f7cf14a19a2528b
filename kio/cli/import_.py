"""`kio import`: records into the daemon, from a directory tree, JSON lines, CSV or a live Redis.

One record that cannot be read or is refused (a file too long) is told, counted and left out. A daemon that is away for
a moment is waited for; one that takes nothing for --give-up seconds ends the import. To run it again is safe: the same
keys get the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from kio.cli import files, options, progress
from kio.cli.csv_rows import CsvSource
from kio.cli.jsonl import JsonLinesSource
from kio.cli.loading import Loader
from kio.cli.redis_source import RedisSource, check_database
from kio.cli.transfer import Record, Tally, closing_line
from kio.cli.tree_source import TreeSource
from kio.limits import KEYSPACES

if TYPE_CHECKING:
    from kio.client import Client

EXAMPLE: Final = """\
kio import --tree ./site --prefix site/
kio import --jsonl people.jsonl --key id
kio import --csv people.csv --key id --prefix people:
kio import --redis redis://:PASSWORD@127.0.0.1:6379/0"""


class Source(Protocol):
    """Where records come from."""

    @property
    def unit(self) -> str:
        """What `done` and `total` count: progress.BYTES or progress.RECORDS."""

    @property
    def done(self) -> int:
        """How far it is."""

    def total(self) -> int | None:
        """How far it will go; None where that cannot be known."""

    def __iter__(self) -> Iterator[Record]: ...


def command(
    tree: Annotated[
        Path | None,
        typer.Option("--tree", metavar="DIR", exists=True, file_okay=False, help="Each file: its path is the key."),
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", metavar="FILE", help="Each line is a JSON object; - reads stdin.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Each row becomes a JSON object; - reads stdin.")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option("--redis", metavar="URL", help="Each string key of a database: redis://, rediss:// or unix://."),
    ] = None,
    keyspace: Annotated[
        int | None,
        typer.Option(
            "--keyspace",
            metavar="N",
            min=0,
            max=KEYSPACES - 1,
            help="Where the keys of a Redis go; else the keyspace of --url, else the number of their database.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD", help="The field or column that is the key.")
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Stands before each key.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Read what symlinks lead to; else they are skipped.")
    ] = False,
    give_up: Annotated[
        float, typer.Option("--give-up", metavar="SECONDS", min=0, help="How long to wait for a daemon that is away.")
    ] = 60.0,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Store many records: a directory's files, the lines of a JSON Lines file, the rows of a CSV file, a Redis's keys.

    From a tree only regular files are data: empty directories, owners, modes and times are not kept. From JSON lines
    the value is the line as it stands; from CSV it is a JSON object with a text for each column. From a Redis a key
    keeps the time that it has left, and keys that hold no string are counted and left out; it needs redis-py. What
    cannot be read is told and makes the exit code 1; the rest is stored.
    """
    if sum(way is not None for way in (tree, jsonl, csv, redis)) != 1:
        raise typer.BadParameter("give one of --tree DIR, --jsonl FILE, --csv FILE, --redis URL")
    if (key is None) == (jsonl is not None or csv is not None):
        raise typer.BadParameter("--key FIELD goes with --jsonl and --csv, and they need it")
    if keyspace is not None and redis is None:
        raise typer.BadParameter("--keyspace goes with --redis; elsewhere the keyspace stands in --url")
    if follow and tree is None:
        raise typer.BadParameter("--follow goes with --tree")
    tally = Tally()
    with options.connect(url, timeout) as db, closing_line(tally, "imported", json=json):
        value_bytes_max = options.value_bytes_max(db)
        with _source(tree, jsonl, csv, redis, key or "", follow, timeout, value_bytes_max, tally) as source:
            target = db if redis is None else _in_keyspace(db, url, keyspace, source)
            total = source.total() if progress.is_wanted() else None
            with progress.bar("import", total, source.unit) as bar:
                tally.tell = bar.tell
                _load(source, options.key_bytes(prefix), Loader(target, tally, give_up), bar)
    return tally.exit_code


def _load(source: Source, prefix: bytes, loader: Loader, bar: progress.Bar) -> None:
    for record in source:
        loader.add(record._replace(key=prefix + record.key) if prefix else record)
        bar.moved_to(source.done)
    loader.flush()


def _in_keyspace(db: Client, url: str, given: int | None, source: Source) -> Client:
    """The client, in the keyspace where the keys of a Redis go."""
    from kio.client.options import parse

    assert isinstance(source, RedisSource)
    if given is None:
        given = parse(url).keyspace or check_database(source.database)
    return db.with_options(keyspace=given)


@contextmanager
def _source(
    tree: Path | None,
    jsonl: Path | None,
    csv: Path | None,
    redis: str | None,
    key: str,
    follow: bool,
    timeout_s: float,
    value_bytes_max: int,
    tally: Tally,
) -> Iterator[Source]:
    if tree is not None:
        yield TreeSource(tree, follow=follow, value_bytes_max=value_bytes_max, tally=tally)
    elif jsonl is not None:
        with files.source(jsonl) as file:
            yield JsonLinesSource(file, str(jsonl), field=key, value_bytes_max=value_bytes_max, tally=tally)
    elif csv is not None:
        with files.source(csv) as file:
            yield CsvSource(file, str(csv), column=key, value_bytes_max=value_bytes_max, tally=tally)
    elif redis is not None:
        with RedisSource(redis, timeout_s=timeout_s, value_bytes_max=value_bytes_max, tally=tally) as server:
            yield server
