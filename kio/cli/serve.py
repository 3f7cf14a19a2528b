"""`kio serve`: the daemon itself, in this process.

Its flags are made from the catalogue of settings (kio/config.py): a new setting has its flag, its TOML key and its
variable at once. Values are checked there too, wherever they came from. A flag that is not given is None, so that only
what stood on the command line counts as a flag.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kio import config
from kio.cli import options

EXAMPLE: Final = "kio serve --data ./data --workers 2 --sync always"


def command(config_file: Path | None, **flags: str | None) -> int | None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C.

    A setting's value comes from its flag, else from the environment, else from the TOML file, else it is the default;
    "kio config show" prints what holds. Port 0 takes any free port: the start line and "kio status" tell which.
    """
    from kio.daemon import supervisor

    return supervisor.serve(config.load(config_file, os.environ, flags))


def _flag(setting: config.Setting) -> inspect.Parameter:
    metavar = "|".join(setting.choices) or setting.range.upper()
    shown = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    default = f" Default: {shown}." if shown else ""
    option = typer.Option(setting.flag, help=setting.help + default, metavar=metavar)
    return _parameter(setting.name, Annotated[str | None, option])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_PARAMETERS: Final = [*map(_flag, config.CATALOGUE), _parameter("config_file", options.Config)]
# typer reads a function's arguments from these two.
command.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]
command.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS}
