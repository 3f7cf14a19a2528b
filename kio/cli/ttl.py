"""`kio ttl`: how long a key still has."""

from __future__ import annotations

import math
from typing import Final

from kio.cli import exit_codes, options, output

EXAMPLE: Final = "kio ttl session:42"


def command(
    key: options.Key,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Print the seconds until a key expires, or "never"; exit with 1 when the key is not there."""
    wanted = options.key_bytes(key)
    with options.connect(url, timeout) as db:
        left_s = db.ttl(wanted)
    if json:
        told = None if left_s is None or left_s == math.inf else left_s
        expires = left_s is not None and left_s != math.inf
        output.as_json(
            {**output.in_json("key", wanted), "found": left_s is not None, "expires": expires, "ttl_s": told}
        )
    elif left_s is None:
        output.message(f"there is no key {output.escape(wanted)}")
    else:
        output.line("never" if left_s == math.inf else f"{left_s:.3f}")
    return exit_codes.FAILED if left_s is None else exit_codes.DONE
