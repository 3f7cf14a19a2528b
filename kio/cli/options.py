"""The options that verbs share, and the connection they open with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kio.limits import VALUE_BYTES_CEILING

if TYPE_CHECKING:
    from kio.client import Client

DEFAULT_URL: Final = "kio://127.0.0.1:7400"
DEFAULT_TIMEOUT_S: Final = 10.0

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="KIO_URL",
        metavar="URL",
        help="Where the daemon listens; kios:// is TLS, kio+unix:///PATH a Unix socket.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.001, help="How long one request may take, the client's retries included."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="KIO_CONFIG", metavar="FILE", help="The TOML file to read settings from."),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key; its bytes are taken as the shell passes them.")]


def key_bytes(argument: str) -> bytes:
    """The bytes that the shell passed, also where they are not UTF-8."""
    return os.fsencode(argument)


def connect(url: str, timeout_s: float) -> Client:
    """A client of the daemon at `url`, for values as bytes; close it, or use it in a with statement.

    Raises:
        KioError: when `url` is malformed or nobody answers there.
    """
    from kio import client

    return client.connect(url, timeout=timeout_s, codec="bytes")


def value_bytes_max(db: Client) -> int:
    """The longest value that the daemon takes; the longest that any daemon takes where it does not tell."""
    settings = db.stats().get("settings", {})
    return int(settings.get("max_value_bytes", VALUE_BYTES_CEILING))
