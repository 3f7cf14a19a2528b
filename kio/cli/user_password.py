"""`kio user password`: another password for a user."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kio.access import users_file
from kio.cli import exit_codes, options, output, users

EXAMPLE: Final = """\
kio user password ada
kio user password backup < /run/credentials/backup"""


def command(
    name: users.Name, file: users.File = None, config_file: options.Config = None, json: options.Json = False
) -> int:
    """Give a user another password: asked for, or read from the first line of stdin where that is no terminal.

    Exit with 1 where there is no such user.
    """
    path = users.file(file, config_file)
    if name in users_file.read(path):
        password = users.ask_password(name)
        with users_file.changing(path) as found:
            if name in found:
                found[name] = replace(found[name], password=password)
                users.tell(found[name], "has another password", json=json)
                return exit_codes.DONE
    output.message(f"there is no user {output.escape(name.encode('utf-8', 'surrogateescape'))}")
    return exit_codes.FAILED
