"""`kio compact`: give back what overwritten and deleted records take, now."""

from __future__ import annotations

from typing import Final

from kio.cli import options, output

EXAMPLE: Final = "kio compact --url kio://127.0.0.1:7400"


def command(
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Ask every shard to compact whatever has dead bytes, and print how many those are.

    The daemon does it while it serves, and by itself when too much is dead (space_amplification); "kio status" shows
    what is left.
    """
    with options.connect(url, timeout) as db:
        dead = db.compact()
    if json:
        output.as_json({"dead_bytes": dead})
    else:
        output.line(str(dead))
