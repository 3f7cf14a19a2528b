"""Commands that have commands: which, and how many arguments each takes. They are checked before the command runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kio.commands.arguments import wrong_arity
from kio.commands.replies import CommandError

_SHOWN_CHARACTERS: Final = 128

#: Command -> subcommand -> its arity, which counts both names; negative: so many or more.
SUBCOMMANDS: Final[Mapping[str, Mapping[str, int]]] = {
    "client": {
        "id": 2, "getname": 2, "setname": 3, "setinfo": 4, "info": 2, "list": -2, "kill": -3, "pause": -3, "unpause": 2,
        "reply": 3, "no-evict": 3, "no-touch": 3, "maint_notifications": -3, "tracking": -3, "trackinginfo": 2,
        "caching": 3, "getredir": 2, "unblock": -3, "help": 2,
    },
    "command": {"count": 2, "docs": -2, "getkeys": -3, "help": 2, "info": -2, "list": -2},
    "config": {"get": -3, "set": -4, "resetstat": 2, "rewrite": 2, "help": 2},
    "debug": {"sleep": 3},
    "function": {"flush": -2, "list": -2, "stats": 2},
    "latency": {"latest": 2, "history": 3, "reset": -2, "histogram": -2, "doctor": 2},
    "memory": {"usage": -3, "help": 2},
    "object": {"encoding": 3, "freq": 3, "idletime": 3, "refcount": 3, "help": 2},
    "slowlog": {"get": -2, "len": 2, "reset": 2},
}  # fmt: skip


def check(arguments: list[bytes]) -> None:
    """Refuse a subcommand that there is not, or that takes another number of arguments.

    Raises:
        CommandError: so.
    """
    name = arguments[0].lower().decode("latin-1")
    known = SUBCOMMANDS.get(name)
    if known is None or len(arguments) < 2:
        return
    arity = known.get(arguments[1].lower().decode("latin-1"))
    if arity is None:
        shown = arguments[1].decode("latin-1")[:_SHOWN_CHARACTERS]
        raise CommandError(f"ERR unknown subcommand '{shown}'. Try {name.upper()} HELP.")
    if (arity > 0 and len(arguments) != arity) or len(arguments) < -arity:
        raise wrong_arity(f"{name}|{arguments[1].lower().decode()}")
