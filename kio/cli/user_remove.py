"""`kio user remove`: one user less."""

from __future__ import annotations

from typing import Final

from kio.access import users_file
from kio.cli import exit_codes, options, output, users

EXAMPLE: Final = """\
kio user remove ada
kio user remove ada --yes"""


def command(
    name: users.Name,
    yes: users.Yes = False,
    file: users.File = None,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Remove a user from the file of users; its keys stay.

    Without --yes nothing is changed. Exit with 1 where there is no such user. Without the user default everybody has to
    authenticate.
    """
    path = users.file(file, config_file)
    user = users_file.read(path).get(name)
    if user is None:
        output.message(f"there is no user {output.escape(name.encode('utf-8', 'surrogateescape'))}")
        return exit_codes.FAILED
    if yes:
        with users_file.changing(path) as found:
            found.pop(name, None)
    users.tell(user, "removed" if yes else "not removed, add --yes", json=json)
    return exit_codes.DONE
