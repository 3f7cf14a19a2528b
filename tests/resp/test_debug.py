"""DEBUG SLEEP: nobody is answered for so long; refused unless the operator lets it."""

from __future__ import annotations

import time

import pytest

from tests.resp.resp_codec import Error, Simple, command
from tests.resp.servers import Server, kio_server, redis_server

SLEEP_S = 0.6


@pytest.mark.parametrize("name", [pytest.param("redis", marks=pytest.mark.stress), "kio"])
def test_everybody_waits_while_the_server_sleeps(name: str) -> None:
    lets = kio_server(workers=1, flags=["--debug-commands", "true"])
    running = lets if name == "kio" else redis_server("--enable-debug-command", "yes")
    with running as server, server.connect() as sleeper, server.connect() as other:
        began = time.monotonic()
        sleeper.send(command("DEBUG", "SLEEP", str(SLEEP_S)) + command("GET", "k"))
        time.sleep(SLEEP_S / 4)
        assert other.call("SET", "k", "v") == Simple(b"OK")
        assert time.monotonic() - began >= SLEEP_S
        assert sleeper.receive() == Simple(b"OK")
        sleeper.receive()
        assert sleeper.call("DEBUG", "SLEEP", "0") == Simple(b"OK")
        assert other.call("GET", "k") == b"v"


def test_a_time_that_is_none_stalls_nobody() -> None:
    with kio_server(workers=1, flags=["--debug-commands", "true"]) as server, server.connect() as connection:
        for seconds in ("-1", "x", "", "inf", "nan"):
            assert connection.call("DEBUG", "SLEEP", seconds) == Error(b"ERR timeout is not a number of seconds")


def test_it_is_refused_by_default(server: Server) -> None:
    with server.connect() as connection:
        answer = connection.call("DEBUG", "SLEEP", "0.1")
        assert isinstance(answer, Error)
        assert answer.text.startswith(b"ERR DEBUG command not allowed")
