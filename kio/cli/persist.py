"""`kio persist`: take a key's expiry away."""

from __future__ import annotations

from typing import Final

from kio.cli import exit_codes, options, output

EXAMPLE: Final = "kio persist session:42"


def command(
    key: options.Key,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> int:
    """Let a key stay for good; exit with 1 when it is not there or had no expiry."""
    wanted = options.key_bytes(key)
    with options.connect(url, timeout) as db:
        had_expiry = db.persist(wanted)
    if json:
        output.as_json({**output.in_json("key", wanted), "persisted": had_expiry})
    elif not had_expiry:
        output.message(f"there is no key {output.escape(wanted)} that would expire")
    return exit_codes.DONE if had_expiry else exit_codes.FAILED
