"""Which arguments of a command are keys."""

from __future__ import annotations

from kio.commands.table import Command


def keys_of(command: Command, arguments: list[bytes]) -> list[bytes]:
    """The keys among the arguments (the first of which is the command's name), in their order."""
    if command.name == "msetex":
        try:
            count = int(arguments[1])
        except ValueError:
            return []
        return arguments[2 : 2 + 2 * max(0, count) : 2]
    if command.name in ("object", "memory"):
        return arguments[2:3]
    if command.first_key == 0:
        return []
    last = command.last_key if command.last_key >= 0 else len(arguments) + command.last_key
    return arguments[command.first_key : last + 1 : command.step]
