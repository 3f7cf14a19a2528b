"""The table itself, and the texts of errors."""

from __future__ import annotations

import pytest

from kio import errors
from kio.commands.error_texts import text_of
from kio.commands.functions import REGISTER
from kio.commands.state import State
from kio.commands.table import TABLE, Command
from tests.commands.real_server import RealServer

COMMANDS = list(TABLE.values())
#: What the server that is commonly installed does not know.
NEWER = {"delex", "digest", "msetex", "waitaof"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_said_in_one_line(command: Command) -> None:
    assert TABLE[command.name] is command
    assert command.name == command.name.lower()
    assert command.arity != 0
    assert command.summary.endswith(".")
    assert "\n" not in command.summary
    assert command.moments in (0, 1, 2, 3)
    assert (command.right == "write") <= ("write" in command.flags)
    assert not {"write", "readonly"} <= set(command.flags)


def test_arity_flags_and_places_of_keys_are_those_of_a_real_server(redis: RealServer) -> None:
    known = [command for command in COMMANDS if command.name not in NEWER]
    for command, told in zip(known, redis("COMMAND", "INFO", *(command.name for command in known)), strict=True):
        name, arity, flags, first, last, step, *_ = told
        assert command[:6] == (name.decode(), arity, tuple(flags), first, last, step)
    assert all(redis("COMMAND", "INFO", name) == [None] for name in NEWER)


def test_only_what_belongs_to_connections_and_the_server_is_left_to_the_door() -> None:
    groups = {command.group for command in COMMANDS if command.run is None}
    assert groups == {"connection", "server", "transactions", "generic"}
    assert [command.name for command in COMMANDS if command.run is None and command.group == "generic"] == [
        "wait",
        "waitaof",
    ]


def test_every_function_answers_for_an_absent_key_or_refuses_with_a_typed_error() -> None:
    for name in REGISTER.functions:
        for state in (None, State(b"v"), State(b"v", 10)):
            try:
                REGISTER.call(name, state, 5, [])
            except errors.KioError as error:
                assert isinstance(error, errors.BadRequest)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.NotAnInteger(), "ERR value is not an integer or out of range"),
        (errors.NumberOverflow(), "ERR increment or decrement would overflow"),
        (errors.ValueTooLarge(), "ERR string exceeds maximum allowed size (max_value_bytes)"),
        (errors.BadRequest("value is not a valid float"), "ERR value is not a valid float"),
        (errors.KeyEmpty(), "ERR a key has at least 1 byte"),
        (errors.MemoryFull("full"), "OOM full"),
        (errors.DiskFull("full"), "MISCONF full"),
        (errors.ShardReadOnly("no\r\nwrites"), "READONLY no writes"),
        (errors.ShardDown("away"), "LOADING away"),
        (errors.Overloaded("much"), "BUSY much"),
        (errors.ReplyTooLarge("large"), "TRYAGAIN large"),
        (errors.Timeout("late", maybe_applied=True), "TRYAGAIN late; it may have been applied"),
        (errors.Corrupt("bad"), "ERR bad"),
    ],
)
def test_errors_have_the_code_and_the_text_that_clients_know(error: errors.KioError, text: str) -> None:
    assert text_of(error) == text
