"""What a command answers, where Python's own types do not say it, and how it refuses.

A reply is one of
    None    the null                        str        a simple string
    int     an integer                      list       an array of replies
    bytes   a bulk string                   dict       a map: an array of keys and values before RESP3
    float   a double: a bulk string before RESP3
or of the classes below. bool is none of them: a command says 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from kio.commands.ops import Plan


class CommandError(Exception):
    """Raised when a command is refused; `text` is the error as the client gets it, its code first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Verbatim(NamedTuple):
    """Text for a person to read; a bulk string before RESP3."""

    text: bytes
    #: Three letters.
    format: bytes = b"txt"


class SetReply(NamedTuple):
    """An unordered collection; an array before RESP3."""

    members: list[Any]


class NullArray:
    """The null where an array was expected: `*-1` before RESP3, where the two nulls are one."""


NULL_ARRAY: Final = NullArray()
OK: Final = "OK"


class Context(Protocol):
    """What a plan may know of where it runs."""

    @property
    def shards(self) -> int:
        """How many shards there are."""

    @property
    def keyspace(self) -> int:
        """The keyspace of the connection, 0 to 255."""

    @property
    def now_ms(self) -> int:
        """The wall clock, in ms since 1970, when the command was taken up."""


#: (arguments with the command's name first, context) -> a plan, or at once the reply. It raises CommandError.
Implementation = Callable[[list[bytes], Context], "Plan | Any"]
