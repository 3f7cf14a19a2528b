"""One child process: what it inherits, what reaches it, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kio import control
from kio.daemon import process as processes
from kio.daemon.process import ChildProcess, child_environment

#: A child that tells what it is, then echoes; on "sleep" it reads nothing more.
ECHO = """
import os, sys, time
from kio import control
sock = control.from_fd(int(sys.argv[2]))
control.die_with_supervisor(sock)
fds = []
for name in os.listdir("/proc/self/fd"):
    try:
        fds.append([int(name), os.readlink("/proc/self/fd/" + name)])
    except OSError:
        pass
told = {"fds": fds, "session": os.getsid(0), "group": os.getpgid(0), "environ": dict(os.environ)}
control.send(sock, {"type": "self"} | told)
while (message := control.receive(sock)) is not None:
    if message["type"] == "sleep":
        time.sleep(600)
    control.send(sock, message)
sys.exit(7)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echo_child.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "echo_child"


@pytest.fixture
def child(module: str) -> Iterator[ChildProcess]:
    process = ChildProcess(module, [], os.environ)
    yield process
    process.kill()
    process.close()
    await_end(process)


def await_end(process: ChildProcess) -> int:
    end = time.monotonic() + 10
    while (returncode := process.poll()) is None:
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.005)
    return returncode


def await_message(process: ChildProcess) -> dict[str, Any] | None:
    process.control.settimeout(10)
    try:
        return process.receive()
    finally:
        process.control.setblocking(False)


def test_a_child_inherits_its_control_socket_and_what_it_is_given_and_nothing_else(module: str):
    given, withheld = socket.socket(), socket.socket()
    process = ChildProcess(module, [given.fileno()], os.environ | {"KIO_PORT": "1"})
    told = await_message(process)
    assert told is not None
    sockets = {fd for fd, target in told["fds"] if target.startswith("socket:") and fd > 2}
    assert given.fileno() in sockets
    assert withheld.fileno() not in sockets
    assert len(sockets) == 2
    assert dict(told["fds"])[0] == "/dev/null"
    assert (told["session"], told["group"]) == (os.getsid(0), process.pid)
    assert "KIO_PORT" not in told["environ"]
    process.close()
    assert await_end(process) == 7, "it ends by itself when the control socket is closed"
    given.close()
    withheld.close()


def test_messages_that_a_child_does_not_read_wait_and_of_topologies_only_the_last(child: ChildProcess):
    assert await_message(child) is not None
    child.post({"type": "sleep"})
    filler = {"type": "filler", "text": "x" * 100_000}
    while not child.has_unsent:
        child.post(filler)
    for version in range(100):
        child.post({"type": "topology", "version": version})
    child.post({"type": "worker_down"})
    kept = [message["type"] for message in child._unsent]
    assert kept == ["filler", "topology", "worker_down"]
    assert child._unsent[1]["version"] == 99
    child.flush()
    assert child.has_unsent
    assert child.poll() is None


def test_what_waited_is_sent_in_order_when_the_child_reads(child: ChildProcess):
    assert await_message(child) is not None
    os.kill(child.pid, signal.SIGSTOP)
    number = 0
    while not child.has_unsent:
        child.post({"type": "numbered", "number": number, "text": "x" * 100_000})
        number += 1
    child.post({"type": "numbered", "number": number})
    os.kill(child.pid, signal.SIGCONT)
    for expected in range(number + 1):
        child.flush()
        message = await_message(child)
        assert message is not None
        assert message["number"] == expected
    assert not child.has_unsent


def test_a_child_that_reads_nothing_for_too_long_is_killed(child: ChildProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "UNSENT_MESSAGES_MAX", 10)
    assert await_message(child) is not None
    child.post({"type": "sleep"})
    while not child.has_unsent:
        child.post({"type": "filler", "text": "x" * 100_000})
    for _ in range(10):
        child.post({"type": "filler"})
    assert await_end(child) == -signal.SIGKILL


def test_a_killed_child_is_at_its_end_of_file_and_takes_no_more_messages(child: ChildProcess):
    assert await_message(child) is not None
    child.kill()
    assert await_message(child) is None
    child.post({"type": "late"})
    assert not child.has_unsent
    assert await_end(child) == -signal.SIGKILL


def test_a_module_that_is_not_there_ends_its_child_at_once():
    process = ChildProcess("kio.no_such_module", [], os.environ)
    assert await_message(process) is None
    assert await_end(process) == 1
    process.close()


def test_children_import_the_kio_that_the_supervisor_runs():
    assert child_environment({"PYTHONPATH": "/elsewhere", "KIO_URL": "x", "HOME": "/"}) == {
        "PYTHONPATH": os.pathsep.join([str(processes.ROOT), "/elsewhere"]),
        "HOME": "/",
    }
    assert child_environment({})["PYTHONPATH"] == str(processes.ROOT)
    assert Path(control.__file__).is_relative_to(processes.ROOT)
