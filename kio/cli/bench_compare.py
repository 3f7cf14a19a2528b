"""`kio bench compare`: two reports side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from kio.cli import options, output

EXAMPLE: Final = "kio bench compare redis.json kio.json"


def command(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A report of kio bench --json.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another one.")],
    json: options.Json = False,
) -> None:
    """Print each figure of two reports, and the second over the first.

    What makes the comparison doubtful stands above it: void runs, and plans that differ in more than their URL.
    """
    from kio.bench import compare

    reports = compare.load(first), compare.load(second)
    rows, cautions = compare.rows(*reports), compare.cautions(*reports)
    if json:
        output.as_json({"cautions": cautions, "figures": [row._asdict() for row in rows]})
        return
    for text in cautions:
        output.line(f"caution: {text}")
    output.table(
        "",
        ("figure", first.name, second.name, "ratio"),
        ((row.figure, _figure(row.first), _figure(row.second), _ratio(row.ratio)) for row in rows),
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:,.{0 if value >= 100 or value == int(value) else 2}f}"


def _ratio(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
