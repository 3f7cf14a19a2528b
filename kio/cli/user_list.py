"""`kio user list`: who may do what."""

from __future__ import annotations

from typing import Final

from kio.access import users_file
from kio.cli import options, output, users

EXAMPLE: Final = "kio user list --users-file /etc/kio/users.toml"


def command(file: users.File = None, config_file: options.Config = None, json: options.Json = False) -> None:
    """Print each user with its right and its prefixes; of passwords only whether there is one."""
    found = users_file.read(users.file(file, config_file)).values()
    if json:
        output.as_json({"users": [users.fields(user) for user in found]})
        return
    rows = [
        (
            user.name,
            user.right.name.lower(),
            " ".join(map(output.escape, user.prefixes)) or "all",
            "none" if user.password is None else "set",
        )
        for user in found
    ]
    output.table("", users.COLUMNS, rows)
