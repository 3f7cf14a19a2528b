"""`kio config show`: every setting of the daemon, its value, and where the value came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kio import config
from kio.cli import options, output

EXAMPLE: Final = "kio config show --config /etc/kio/kio.toml"


def command(config_file: options.Config = None, json: options.Json = False) -> None:
    """Print each setting with its value and its origin: the environment, the file, or the default.

    It is what "kio serve" would run with if it was started with this --config, in this environment, without flags.
    """
    loaded = config.load(config_file, os.environ, {})
    if json:
        settings = {
            name: {"value": str(value) if isinstance(value, Path) else value, "origin": loaded.origins[name]}
            for name, value in loaded.settings.items()
        }
        output.as_json({"settings": settings})
    else:
        rows = [
            (name, str(value).lower() if isinstance(value, bool) else value, loaded.origins[name])
            for name, value in loaded.settings.items()
        ]
        output.table("", ("setting", "value", "origin"), rows)
