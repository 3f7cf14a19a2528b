"""A thousand connections that do nothing, a hundred that do, of both protocols; and one more than may come."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from tests.cluster.daemon import wait_until
from tests.cluster.rawwire import GET, OVERLOADED, SET, Wire
from tests.resp.resp_codec import Connection, Simple
from tests.resp.servers import Server, kio_server

IDLE = 1_000
BUSY = 100
ROUNDS = 20
OK = Simple(b"OK")


def is_let_in(server: Server) -> bool:
    with contextlib.suppress(OSError), server.connect() as connection:
        return connection.call("PING") == Simple(b"PONG")
    return False


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_a_thousand_idle_connections_are_in_nobodys_way_and_one_too_many_is_told_so() -> None:
    dice = random.Random(1)
    with (
        kio_server(flags=["--max-connections", str(IDLE + BUSY)]) as kio,
        contextlib.ExitStack() as stack,
    ):
        assert kio.daemon is not None
        url = kio.daemon.url
        before = kio.rss_mib()
        idle = [stack.enter_context(kio.connect() if number % 2 else Wire(url)) for number in range(IDLE)]
        assert isinstance(idle[1], Connection)
        assert idle[1].call("PING") == Simple(b"PONG")
        busy_resp = [stack.enter_context(kio.connect()) for _ in range(BUSY // 2)]
        busy_native = [stack.enter_context(Wire(url)) for _ in range(BUSY // 2)]
        for turn in range(ROUNDS):
            values = [b"%d of %d" % (turn, dice.randrange(1 << 30)) for _ in range(BUSY)]
            for number, connection in enumerate(busy_resp):
                connection.send(b"SET r%d '%b'\r\nGET r%d\r\n" % (number, values[number], number))
            for number, wire in enumerate(busy_native):
                wire.send_all([(SET, 0, b"n%d" % number, values[-number - 1]), (GET, 0, b"n%d" % number)])
            for number, connection in enumerate(busy_resp):
                assert [connection.receive(), connection.receive()] == [OK, values[number]]
            for number, wire in enumerate(busy_native):
                assert [wire.receive()[2], wire.receive()[2]] == [True, values[-number - 1]]
        assert kio.rss_mib() - before < 64

        with socket.create_connection(("127.0.0.1", kio.port), 10) as extra:
            assert extra.makefile("rb").read() == b"-ERR max number of clients reached\r\n"
        with Wire(url, hello=False) as refused:
            number, code, message, *_ = refused.receive()
            assert (number, code) == (0, OVERLOADED)
            assert "max_connections" in message
            assert refused.is_closed_by_peer()
        busy_resp.pop().close()
        wait_until(lambda: is_let_in(kio), 10, "that who comes when one has gone is let in")
        assert [each.call("PING") for each in idle if isinstance(each, Connection)] == [Simple(b"PONG")] * (IDLE // 2)
