"""`kio delete`: remove keys."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kio.cli import exit_codes, options, output

EXAMPLE: Final = "kio delete user:42 user:43"


def command(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="The keys to remove.")],
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Remove keys; exit with 1 when one of them was not there."""
    wanted = [options.key_bytes(key) for key in keys]
    with options.connect(url, timeout) as db, db.pipeline() as batch:
        for key in wanted:
            batch.delete(key)
    outcomes = list(zip(wanted, batch.results, strict=True))
    if json:
        answer = [{**output.in_json("key", key), "deleted": was_there} for key, was_there in outcomes]
        output.as_json({"deleted": sum(was_there for _, was_there in outcomes), "keys": answer})
    else:
        for key, was_there in outcomes:
            if not was_there:
                output.message(f"there is no key {output.escape(key)}")
    return exit_codes.DONE if all(batch.results) else exit_codes.FAILED
