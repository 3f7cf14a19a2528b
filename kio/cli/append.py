"""`kio append`: put bytes behind a value."""

from __future__ import annotations

from typing import Final

from kio.cli import options, output, values

EXAMPLE: Final = """\
kio append log:today "done; "
tail -1 events.log | kio append log:today -"""


def command(
    key: options.Key,
    value: values.Value = None,
    file: values.File = None,
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Put bytes behind the value of a key; a key that is not there counts as empty.

    It is not tried again when it may have been done already: the message says so then.
    """
    wanted, data = options.key_bytes(key), values.read(value, file)
    with options.connect(url, timeout) as db:
        length = db.append(wanted, data)
    if json:
        output.as_json({**output.in_json("key", wanted), "value_bytes": length})
