"""`kio touch`: give a key an expiry, and leave its value."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kio.cli import exit_codes, options, output

EXAMPLE: Final = "kio touch session:42 --ttl 1800"


def command(
    key: options.Key,
    ttl: Annotated[float, typer.Option("--ttl", metavar="SECONDS", help="How long it has from now on.")],
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Let a key expire after some seconds, whatever it had before; exit with 1 when the key is not there."""
    wanted = options.key_bytes(key)
    with options.connect(url, timeout) as db:
        was_there = db.touch(wanted, ttl)
    if json:
        output.as_json({**output.in_json("key", wanted), "found": was_there})
    elif not was_there:
        output.message(f"there is no key {output.escape(wanted)}")
    return exit_codes.DONE if was_there else exit_codes.FAILED
