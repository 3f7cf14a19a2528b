"""`kio get`: one key's value, byte for byte.

On a terminal a newline is added where the value does not end with one, so that the prompt starts on its own line; into
a file or a pipe the bytes go as they are.
"""

from __future__ import annotations

import sys
from typing import Final

from kio.cli import exit_codes, options, output

EXAMPLE: Final = "kio get user:42 > user.json"


def command(
    key: options.Key,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Print the bytes of a key's value as they are; exit with 1 when the key is not there."""
    wanted = options.key_bytes(key)
    with options.connect(url, timeout) as db:
        value = db.get(wanted)
    if json:
        output.as_json({**output.in_json("key", wanted), "found": value is not None, **output.in_json("value", value)})
    elif value is None:
        output.message(f"there is no key {output.escape(wanted)}")
    else:
        output.write(value)
        if sys.stdout.isatty() and not value.endswith(b"\n"):
            output.write(b"\n")
    return exit_codes.FAILED if value is None else exit_codes.DONE
