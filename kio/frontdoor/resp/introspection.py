"""COMMAND: what commands there are, from the one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kio.commands.keys import keys_of
from kio.commands.replies import NULL_ARRAY, CommandError, SetReply
from kio.commands.table import TABLE, Command
from kio.frontdoor.resp.runner import Runner
from kio.frontdoor.resp.sessions import Session
from kio.glob import Glob


class IntrospectionCommands:
    """COMMAND and its subcommands; `runner` gets them as its own."""

    def __init__(self, runner: Runner) -> None:
        runner.own["command"] = self._command

    def _command(self, session: Session, arguments: list[bytes]) -> Any:
        if len(arguments) == 1:
            return [_info(command) for command in TABLE.values()]
        name, rest = arguments[1].lower(), arguments[2:]
        subcommands: dict[bytes, Callable[[list[bytes]], Any]] = {
            b"count": lambda _: len(TABLE),
            b"info": _infos,
            b"docs": _docs,
            b"list": _list,
            b"getkeys": _get_keys,
            b"help": lambda _: [b"COMMAND [COUNT | DOCS [name ...] | GETKEYS command ... | INFO [name ...] | LIST]"],
        }
        return subcommands[name](rest)


def _info(command: Command) -> list[Any]:
    keys = [command.first_key, command.last_key, command.step]
    flags = SetReply(list(command.flags))
    categories = SetReply([f"@{command.right}", f"@{command.group}"])
    return [command.name.encode(), command.arity, flags, *keys, categories, [], [], []]


def _infos(names: list[bytes]) -> list[Any]:
    if not names:
        return [_info(command) for command in TABLE.values()]
    found = [TABLE.get(name.lower().decode("latin-1")) for name in names]
    return [NULL_ARRAY if command is None else _info(command) for command in found]


def _docs(names: list[bytes]) -> dict[bytes, Any]:
    wanted = {name.lower().decode("latin-1") for name in names} if names else set(TABLE)
    return {
        command.name.encode(): {
            b"summary": command.summary.encode(),
            b"since": b"1.0.0",
            b"group": command.group.encode(),
            b"complexity": b"",
        }
        for command in TABLE.values()
        if command.name in wanted
    }


def _list(rest: list[bytes]) -> list[bytes]:
    names = [name.encode() for name in TABLE]
    if not rest:
        return names
    if len(rest) == 3 and rest[0].upper() == b"FILTERBY" and rest[1].upper() == b"PATTERN":
        return [name for name in names if Glob(rest[2].lower()).matches(name)]
    raise CommandError("ERR syntax error")


def _get_keys(arguments: list[bytes]) -> list[bytes]:
    command = TABLE.get(arguments[0].lower().decode("latin-1")) if arguments else None
    if command is None:
        raise CommandError("ERR Invalid command specified")
    if (command.arity > 0 and len(arguments) != command.arity) or len(arguments) < -command.arity:
        raise CommandError("ERR Invalid number of arguments specified for command")
    keys = keys_of(command, arguments)
    if not keys:
        raise CommandError("ERR The command has no key arguments")
    return keys
