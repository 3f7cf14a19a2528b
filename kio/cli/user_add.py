"""`kio user add`: one more user."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kio.access import users_file
from kio.access.users import DEFAULT_NAME, NAME, NAME_TEXT, User
from kio.cli import options, users
from kio.errors import ConfigError

EXAMPLE: Final = """\
kio user add ada --right write --prefix orders: --prefix ada:
kio user add backup --right admin < /run/credentials/backup"""


def command(
    name: users.Name,
    right: Annotated[
        str,
        typer.Option("--right", metavar="read|write|admin", help="What it may do; each holds those before it."),
    ],
    prefix: Annotated[
        list[str] | None,
        typer.Option("--prefix", metavar="P", help="Its keys begin so; may be repeated. By default all keys."),
    ] = None,
    without_password: Annotated[
        bool, typer.Option("--without-password", help="For default only: who connects and does not authenticate.")
    ] = False,
    file: users.File = None,
    config_file: options.Config = None,
    json: options.Json = False,
) -> None:
    """Add a user to the file of users; the file is made, with mode 600, when it is not there.

    The password is asked for, or read from the first line of stdin where that is no terminal: it never stands in an
    argument, where others of the machine can see it. Where the file has no user default, everybody has to authenticate.
    """
    if not NAME.fullmatch(name):
        raise typer.BadParameter(f"NAME is {NAME_TEXT}")
    if without_password and name != DEFAULT_NAME:
        raise typer.BadParameter(f"--without-password goes with the user {DEFAULT_NAME} only")
    try:
        wanted = User(name, users_file.parse_right(right), users_file.parse_prefixes(prefix or []))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    path = users.file(file, config_file)
    if path.exists():
        _refuse_twice(users_file.read(path), name)
    password = None if without_password else users.ask_password(name)
    made = User(wanted.name, wanted.right, wanted.prefixes, password)
    with users_file.changing(path) as found:
        _refuse_twice(found, name)
        found[name] = made
    users.tell(made, "added", json=json)


def _refuse_twice(found: dict[str, User], name: str) -> None:
    if name in found:
        raise ConfigError(f'there is a user {name} already; "kio user password {name}" changes its password')
