"""`kio incr`: count."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kio.cli import options, output

EXAMPLE: Final = """\
kio incr visits
kio incr stock:apples --by -12"""


def command(
    key: options.Key,
    by: Annotated[int, typer.Option("--by", metavar="N", help="What to add; it may be negative.")] = 1,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Add to the number under a key and print the sum; a key that is not there counts as 0.

    It is not tried again when it may have been done already: the message says so then.
    """
    wanted = options.key_bytes(key)
    with options.connect(url, timeout) as db:
        total = db.incr(wanted, by)
    if json:
        output.as_json({**output.in_json("key", wanted), "number": total})
    else:
        output.line(str(total))
