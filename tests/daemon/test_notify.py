"""The protocol of systemd's notify socket."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """(the manager's end, NOTIFY_SOCKET)"""
    address = str(tmp_path / "notify") if request.param == "path" else f"@kio-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(5)
        yield sock, address


def test_each_state_is_one_datagram(systemd: tuple[socket.socket, str]):
    sock, address = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"})
    assert notifier.watchdog_s == 5.0
    notifier.ready("serving 2 of 2 shards")
    notifier.watchdog()
    notifier.status("serving 1 of 2 shards")
    notifier.stopping()
    assert [sock.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=serving 2 of 2 shards",
        b"WATCHDOG=1",
        b"STATUS=serving 1 of 2 shards",
        b"STOPPING=1\nSTATUS=stopping",
    ]
    notifier.close()


def test_the_variables_are_taken_out_of_the_environment():
    environ = {"NOTIFY_SOCKET": "@nobody-listens-here", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    notifier = Notifier(environ)
    assert environ == {"PATH": "/bin"}
    notifier.ready("a manager that is gone is no error")
    notifier.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "never"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
def test_without_a_watchdog_of_ours_there_is_nothing_to_tend(environ: dict[str, str]):
    notifier = Notifier(environ)
    assert notifier.watchdog_s is None
    notifier.watchdog()
    notifier.close()


def test_without_systemd_nothing_is_sent():
    notifier = Notifier({})
    notifier.ready("nobody listens")
    notifier.stopping()
    notifier.close()
