"""`kio count`: how many keys there are."""

from __future__ import annotations

from typing import Final

from kio.cli import options, output

EXAMPLE: Final = "kio count --url kio://127.0.0.1:7400"


def command(
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Print the number of keys."""
    with options.connect(url, timeout) as db:
        keys = db.count()
    if json:
        output.as_json({"keys": keys})
    else:
        output.line(str(keys))
