"""What a function that runs in the shard is given, and what it gives back; the register of such functions.

Function: (state of the key or None, arguments, now) -> Outcome. It is pure: the shard applies `change`, and answers
`reply` when that is done. Arguments and replies cross the wire as msgpack: None, bool, int, float, str, bytes, lists.
What it refuses it raises as a KioError; nothing is applied then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from kio.errors import BadRequest


class State(NamedTuple):
    """What a key holds. Where `expire_at_ms` (since 1970) is 0 it never expires."""

    value: bytes
    expire_at_ms: int = 0


class Removed:
    """The change that removes the key."""


REMOVED: Final = Removed()

#: What becomes of the key: another state, nothing any more, or None: it stays as it is. A state whose time has passed
#: removes it.
Change = State | Removed | None


class Outcome(NamedTuple):
    """What a function answers, and what it does."""

    reply: Any
    change: Change = None


Function = Callable[..., Outcome]


class Register:
    """Functions by name. Names cross the wire: they are never given another meaning."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def add(self, function: Function) -> Function:
        """Register a function under its own name; a decorator. It is called as function(state, now_ms, *arguments)."""
        name = function.__name__
        if name in self._functions:
            raise ValueError(f"two functions are called {name}")
        self._functions[name] = function
        return function

    @property
    def functions(self) -> Mapping[str, Function]:
        """All of them, by name."""
        return self._functions

    def call(self, name: str, state: State | None, now_ms: int, arguments: list[Any]) -> Outcome:
        """Run one.

        Raises:
            BadRequest: when there is none of that name, or its arguments are others.
            KioError: what it refuses.
        """
        function = self._functions.get(name)
        if function is None:
            raise BadRequest(f"there is no function {name!r:.80}")
        try:
            return function(state, now_ms, *arguments)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"{name}: {error}") from None


REGISTER: Final = Register()
