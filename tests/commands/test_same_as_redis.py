"""Commands, word by word, beside a real server: the same replies and the same errors.

Each line of scripts.py and key_scripts.py is one command; a blank line begins anew with nothing. What a newer server
does otherwise than the one that is commonly installed is not there, but in the tests of each command.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from kio.commands.replies import NullArray
from tests.commands import key_scripts, scripts
from tests.commands.real_server import RealServer
from tests.commands.shard_model import Refused, ShardModel

SCRIPTS = [
    (name, block.strip().splitlines())
    for name, text in (vars(scripts) | vars(key_scripts)).items()
    if name.isupper()
    for block in text.strip().split("\n\n")
]


def plain(reply: Any) -> Any:
    """A reply as it crosses the wire before RESP3."""
    if isinstance(reply, dict):
        return [plain(part) for pair in reply.items() for part in pair]
    if isinstance(reply, list):
        return [plain(part) for part in reply]
    if isinstance(reply, NullArray):
        return None
    assert reply is None or type(reply) in (int, bytes, str), reply
    return reply.encode() if isinstance(reply, str) and reply != "OK" and reply not in ("string", "none") else reply


def answer(server: Callable[..., Any], words: list[bytes]) -> Any:
    try:
        return plain(server(*words))
    except Refused as error:
        return f"refused: {error}"


def words_of(line: str) -> list[bytes]:
    """The words of a line, with \\x00 and the like inside quotes."""
    return [word.encode("latin-1").decode("unicode_escape").encode("latin-1") for word in shlex.split(line)]


@pytest.mark.parametrize(("name", "lines"), SCRIPTS, ids=[f"{name}-{lines[0]}" for name, lines in SCRIPTS])
def test_every_reply_is_that_of_a_real_server(name: str, lines: list[str], redis: RealServer, kio: ShardModel) -> None:
    differences = []
    for line in lines:
        words = words_of(line)
        expected, found = answer(redis, words), answer(kio, words)
        if expected != found:
            differences.append(f"{line}: {found!r} instead of {expected!r}")
    assert differences == []
