"""Hostile bytes at the RESP door: nothing dies, nothing hangs, nobody else notices, and memory stays.

In the long runs the fire lasts a minute, with FULL=1 ten; RUN_S=n says otherwise, SEED=n makes the same bytes again.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from tests.cluster.daemon import FULL, ROOT, environment
from tests.resp.attacker import ATTACKERS
from tests.resp.resp_codec import Connection, Simple, command
from tests.resp.servers import STANDS_IN, Server

SECONDS = float(os.environ.get("RUN_S", "5"))
STRESS_SECONDS = float(os.environ.get("RUN_S", "600" if FULL else "60"))
#: All processes together may grow by so much from the first seconds of the fire to its end.
MEMORY_MIB = 64
#: The hostile streams hold valid commands too, among them long ones: pipelines of 5,000, values of 16 MiB, LCS.
P99_MS = 100
#: How long that is measured.
QUIET_S = 5
HANG_S = 5.0
OK = Simple(b"OK")


class Innocent:
    """A client that does what clients do, and notes what it was answered and how fast."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.took_ms: list[float] = []
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the innocent client hangs"

    @property
    def p99_ms(self) -> float:
        return sorted(self.took_ms)[len(self.took_ms) * 99 // 100]

    def _work(self) -> None:
        number = 0
        try:
            with Connection(self._server.port, limit_s=HANG_S) as connection:
                connection.call("DEL", "innocent:counter")
                while not self._over.wait(0.002):
                    number += 1
                    value = b"%d" % number
                    began = time.perf_counter()
                    replies = connection.calls(
                        ("SET", "innocent:key", value), ("GET", "innocent:key"), ("INCR", "innocent:counter")
                    )
                    self.took_ms.append((time.perf_counter() - began) * 1000)
                    if replies != [OK, value, number]:
                        self.wrong.append(f"round {number}: {replies!r}")
        except (OSError, AssertionError) as error:
            self.wrong.append(f"round {number}: {error!r}")


def attacker(name: str, port: int, seed: int, seconds: float) -> subprocess.Popen[bytes]:
    """A process that attacks, behind everybody else: the server is tried, not how much the machine can run."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.resp.attacker", name, str(port), str(seed), str(seconds)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.setpriority(os.PRIO_PROCESS, started.pid, 19)
    with contextlib.suppress(OSError):
        # Kernels that share cores by session compare niceness within one only; this is the session's own.
        Path(f"/proc/{started.pid}/autogroup").write_text("19")
    return started


def under_fire(server: Server, seconds: float) -> Innocent:
    """Attackers for so long, an innocent client beside them, all that can be asserted asserted."""
    seed = int(os.environ.get("SEED", "1"))
    pids = server.pids()
    doors = {"resp": server.port}
    if server.daemon is not None:
        doors["native"] = urlsplit(server.daemon.url).port or 0
    with Innocent(server) as innocent:
        attackers = [attacker(name, port, seed, seconds) for name, port in doors.items()]
        time.sleep(seconds / 3)
        warm = server.rss_mib()
        made: Counter[str] = Counter()
        for each in attackers:
            printed, _ = each.communicate(timeout=seconds + 60)
            assert each.returncode == 0
            made.update(json.loads(printed))
    grown = server.rss_mib() - warm
    told = f"repeat with: SEED={seed} RUN_S={seconds:g} pytest tests/resp/test_fuzz.py"
    print(f"{server.name}: {dict(made)}; grown by {grown:.1f} MiB; p99 beside it {innocent.p99_ms:.1f} ms")
    assert server.pids() == pids, f"a process died\n{told}"
    assert innocent.wrong == [], f"{innocent.wrong[:3]}\n{told}"
    assert len(innocent.took_ms) > seconds, f"the innocent client was hardly served\n{told}"
    kinds = sum(len(ATTACKERS[name](port, seed).kinds) for name, port in doors.items())
    assert len(made) == kinds, "not every kind of attack was made"
    assert grown < MEMORY_MIB, f"grown by {grown:.1f} MiB\n{told}"
    with server.connect() as connection:
        assert connection.call("PING") == Simple(b"PONG")
        assert connection.call("GET", "innocent:counter") == b"%d" % len(innocent.took_ms)
    return innocent


def test_hostile_bytes_hurt_nobody(server: Server) -> None:
    under_fire(server, SECONDS if server.name == "kio" else min(SECONDS, 2))


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_hostile_bytes_hurt_nobody_for_long(kio: Server) -> None:
    kio.flush()
    with Innocent(kio) as quiet:
        time.sleep(QUIET_S)
    innocent = under_fire(kio, STRESS_SECONDS)
    print(f"p99 quietly {quiet.p99_ms:.1f} ms")
    assert innocent.p99_ms < P99_MS


def test_announced_lengths_cost_no_memory(server: Server) -> None:
    before = server.rss_mib()
    with contextlib.ExitStack() as stack, Innocent(server) as innocent:
        for number in range(150):
            connection = stack.enter_context(server.connect())
            announced = b"*1048576\r\n" if number % 3 == 0 else b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\n"
            connection.send(announced + b"x" * (0 if number % 3 == 0 else 100))
        time.sleep(0.5)
        grown = server.rss_mib() - before
    assert grown < MEMORY_MIB, f"grown by {grown:.1f} MiB"
    assert innocent.wrong == []


def test_a_client_that_never_reads_costs_bounded_memory(kio: Server) -> None:
    """redis-server sets no bound to this by default, so it is not asked."""
    if STANDS_IN:
        pytest.skip("redis-server keeps all replies to a client that does not read")
    value = 1 << 20
    with contextlib.ExitStack() as stack, Innocent(kio) as innocent:
        with kio.connect() as connection:
            assert connection.call("SET", "large", b"v" * value) == OK
        before = kio.rss_mib()
        for _ in range(8):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", kio.port)))
            sock.settimeout(0.2)
            with contextlib.suppress(OSError):
                sock.sendall(command("GET", "large") * 1000)
        time.sleep(1)
        grown = kio.rss_mib() - before
    assert grown < 8 * 64, f"8 clients that do not read made it grow by {grown:.1f} MiB"
    assert innocent.wrong == []


def test_requests_that_come_byte_by_byte_are_served(server: Server) -> None:
    with server.connect() as connection:
        wire = command("SET", b"\r\n", b"slow\r\n") + command("GET", b"\r\n") + b"PING\r\n"
        for byte in wire:
            connection.send(bytes([byte]))
        assert [connection.receive() for _ in range(3)] == [OK, b"slow\r\n", Simple(b"PONG")]


def test_a_server_whose_process_dies_would_be_found_out(redis: Server) -> None:
    first = iter([[0]])
    with pytest.raises(AssertionError, match="a process died"):
        under_fire(replace(redis, pids=lambda: next(first, redis.pids())), 1)


def test_a_server_that_forgets_would_be_found_out(redis: Server) -> None:
    innocent = Innocent(redis)
    with innocent:
        time.sleep(0.1)
        redis.flush()
        time.sleep(0.1)
    assert innocent.wrong
