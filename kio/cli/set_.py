"""`kio set`: store one value, from the command line, a file or stdin; for a while or on a condition where asked to."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kio.cli import exit_codes, options, output, values

EXAMPLE: Final = """\
kio set greeting hello
kio set logo --file logo.png
kio set lock:nightly "$HOSTNAME" --if-absent --ttl 3600
echo '{"name": "Ada"}' | kio set user:42 -"""


def command(
    key: options.Key,
    value: values.Value = None,
    file: values.File = None,
    ttl: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="Remove the key by itself after this long.")
    ] = None,
    keep_ttl: Annotated[bool, typer.Option("--keep-ttl", help="Leave the key's expiry as it is.")] = False,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only where the key is not there.")] = False,
    if_present: Annotated[bool, typer.Option("--if-present", help="Only where the key is there.")] = False,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Store a value under a key; a value that was there is replaced, and does not expire any more.

    Exit with 1 when --if-absent or --if-present does not hold.
    """
    wanted, data = options.key_bytes(key), values.read(value, file)
    with options.connect(url, timeout) as db:
        is_stored = db.set(wanted, data, ttl=ttl, keep_ttl=keep_ttl, if_absent=if_absent, if_present=if_present)
    if json:
        output.as_json({**output.in_json("key", wanted), "value_bytes": len(data), "stored": is_stored})
    elif not is_stored:
        why = "there is a" if if_absent else "there is no"
        output.message(f"{why} key {output.escape(wanted)}, so it was not set")
    return exit_codes.DONE if is_stored else exit_codes.FAILED
