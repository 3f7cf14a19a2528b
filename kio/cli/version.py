"""`kio version`: which kio this is, and which protocol and Python it speaks."""

from __future__ import annotations

import platform
from typing import Final

from kio import __version__
from kio.cli import options, output
from kio.wire import PROTOCOL_VERSION

EXAMPLE: Final = "kio version --json"


def command(json: options.Json = False) -> None:
    """Print the version of this program: "kio status" tells the daemon's."""
    answer = {
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
    }
    if json:
        output.as_json(answer)
    else:
        output.line(f"kio {answer['version']} (protocol {answer['protocol']}, Python {answer['python']})")
