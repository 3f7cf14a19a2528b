"""What the verbs of `kio user` share: which file, a password that never stands in an argument, and how a user is told.

A change holds for a daemon from when it reads the file again.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kio import config
from kio.access.passwords import PASSWORD_BYTES_MAX, Hashed, hashed
from kio.access.users import User
from kio.cli import output
from kio.errors import ConfigError

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user; default is who does not say a name.")]
File = Annotated[
    Path | None,
    typer.Option("--users-file", metavar="FILE", help="The file of users; by default that of the setting users_file."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without, nothing is changed, and what would be done is told.")]

COLUMNS: Final = ("user", "right", "prefixes", "password")


def file(given: Path | None, config_file: Path | None) -> Path:
    """The file of users.

    Raises:
        ConfigError: when none is named.
    """
    if given is not None:
        return given
    named = config.load(config_file, os.environ, {}).settings.users_file
    if not named:
        raise ConfigError("users_file is not set; name the file with --users-file, and in kio.toml for the daemon")
    return Path(named)


def ask_password(name: str) -> Hashed:
    """A new password as it is stored: asked for twice on a terminal, else the first line of stdin.

    Raises:
        ConfigError: when it is empty, too long, or the two differ.
    """
    if sys.stdin.isatty():
        password = os.fsencode(getpass.getpass(f"new password of {name}: "))
        if os.fsencode(getpass.getpass("once more: ")) != password:
            raise ConfigError("the two differ; nothing was changed")
    else:
        password = sys.stdin.buffer.readline(PASSWORD_BYTES_MAX + 2).removesuffix(b"\n")
    if not 1 <= len(password) <= PASSWORD_BYTES_MAX:
        raise ConfigError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes; nothing was changed")
    return hashed(password)


def tell(user: User, done: str, *, json: bool) -> None:
    """What a verb did to a user."""
    if json:
        output.as_json(fields(user) | {"done": done})
    else:
        prefixes = ",".join(map(output.escape, user.prefixes)) or "all"
        output.line(f"user {user.name} {done}: right={user.right.name.lower()} prefixes={prefixes}")


def fields(user: User) -> dict[str, Any]:
    """A user in JSON; of its password only whether there is one."""
    return {
        "user": user.name,
        "right": user.right.name.lower(),
        "prefixes": [prefix.decode("utf-8") for prefix in user.prefixes],
        "password": user.password is not None,
    }
