"""Clients that ask for large values and hardly read: memory stays within its bound, the others are served."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from kio.limits import MIB, UNSENT_BYTES_MAX
from tests.cluster.daemon import wait_until
from tests.cluster.rawwire import GET, SET, Wire
from tests.cluster.rawwire import frame as native_frame
from tests.resp.resp_codec import Connection, Simple, command
from tests.resp.servers import Server, kio_server

READERS = 200
ASKED = 8
VALUE = bytes(range(256)) * (MIB // 256)
#: One reply for each reader may wait beyond the bound, and some more stand in workers and pipes meanwhile.
BOUND_MIB = UNSENT_BYTES_MAX // MIB + READERS * len(VALUE) // MIB + 256


def resp_request(number: int) -> bytes:
    return command("GET", "large")


def native_request(number: int) -> bytes:
    return native_frame([number, GET, 0, 0, b"large"])


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("protocol", "request_of"), [("resp", resp_request), ("native", native_request)])
def test_two_hundred_slow_readers_keep_memory_within_its_bound(
    protocol: str, request_of: Callable[[int], bytes]
) -> None:
    with kio_server() as kio, contextlib.ExitStack() as stack:
        assert kio.daemon is not None
        with Wire(kio.daemon.url) as wire:
            wire.call(SET, 0, b"large", VALUE)
        before = kio.rss_mib()
        readers = []
        for _ in range(READERS):
            if protocol == "native":
                reader = stack.enter_context(Wire(kio.daemon.url)).sock
            else:
                reader = stack.enter_context(socket.create_connection(("127.0.0.1", kio.port)))
            reader.sendall(b"".join(request_of(number) for number in range(ASKED)))
            readers.append(reader)
        most = 0.0
        with kio.connect() as other:
            for turn in range(30):
                time.sleep(0.1)
                for reader in readers:
                    reader.settimeout(0.001)
                    with contextlib.suppress(TimeoutError):
                        reader.recv(100)
                assert other.call("SET", "small", turn) == Simple(b"OK")
                assert other.call("GET", "small") == b"%d" % turn
                most = max(most, kio.rss_mib() - before)
        print(f"{protocol}: {most:.0f} MiB for {READERS} readers of {ASKED} values of 1 MiB")
        assert most < BOUND_MIB
        stack.close()
        wait_until(lambda: kio.rss_mib() - before < BOUND_MIB / 4, 30, "that the memory is given back", every_s=0.2)


@pytest.mark.stress
def test_who_reads_slowly_but_reads_gets_every_answer(kio: Server) -> None:
    with Connection(kio.port, limit_s=60) as reader:
        reader.call("SET", "large", VALUE)
        reader.send(command("GET", "large") * 100 + command("PING"))
        time.sleep(1)
        for _ in range(100):
            assert reader.receive() == VALUE
        assert reader.receive() == Simple(b"PONG")
