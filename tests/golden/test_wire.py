"""Clients of every released protocol version hear what they have always heard, to the byte."""

from __future__ import annotations

import pytest

from kio import wire
from tests.golden.make_wire import GOLDEN, SESSIONS, Daemon, requests


@pytest.mark.parametrize("version", SESSIONS)
def test_a_client_of_a_released_version_is_answered_with_the_golden_bytes(version: int) -> None:
    lines = (GOLDEN / f"wire_v{version}.txt").read_text().splitlines()
    asked = [bytes.fromhex(line[2:]) for line in lines[0::2]]
    answers = [bytes.fromhex(line[2:]) for line in lines[1::2]]
    assert {line[:2] for line in lines[0::2]} == {"> "}
    assert {line[:2] for line in lines[1::2]} == {"< "}
    daemon = Daemon()
    assert [daemon.ask(request) for request in asked] == answers
    assert asked == requests(version)


def test_every_version_that_the_daemon_speaks_has_a_transcript() -> None:
    assert set(SESSIONS) == set(range(wire.PROTOCOL_VERSION_MIN, wire.PROTOCOL_VERSION + 1))
