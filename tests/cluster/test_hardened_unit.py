"""The daemon lives within what deploy/kio.service leaves to it: its system calls, and no writable code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.cluster.daemon import READY_S, STOP_S, environment, run_cli, wait_until
from tests.cluster.strace import needs_strace

UNIT = Path(__file__).parents[2] / "deploy" / "kio.service"
#: What MemoryDenyWriteExecute= asks of the kernel (Linux 6.3); older ones refuse, and go on without.
FORBID_WRITABLE_CODE = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def calls_of(*groups: str) -> set[str]:
    """The system calls in systemd's groups, by name."""
    calls = set()
    for group in groups:
        shown = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True)
        for line in map(str.strip, shown.stdout.splitlines()[1:]):
            if line.startswith("@"):
                calls |= calls_of(line)
            elif line and not line.startswith("#"):
                calls.add(line)
    return calls


def allowed_calls() -> set[str]:
    """What the unit's filter allows: later lines that begin with ~ take away."""
    allowed = calls_of("@default")
    for value in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        names = calls_of(*value.removeprefix("~").split())
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


@needs_strace
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_a_daemon_from_start_to_stop_makes_only_the_system_calls_that_the_unit_allows(tmp_path: Path) -> None:
    trace, announced = tmp_path / "trace", tmp_path / "data" / "run" / "daemon.json"
    serve = [
        sys.executable,
        "-m",
        "kio",
        "serve",
        "--data",
        str(tmp_path / "data"),
        "--workers",
        "2",
        "--sync",
        "always",
    ]
    ports = ["--port", "0", "--http-port", "0", "--resp-port", "0"]
    command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", FORBID_WRITABLE_CODE, *serve, *ports]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as traced:
        try:
            wait_until(announced.exists, READY_S, "the daemon's ports")
            told = json.loads(announced.read_text())
            run_cli("set", "key", "value", url=told["url"])
            assert run_cli("get", "key", url=told["url"]).stdout == b"value"
            with urlopen(told["http"] + "/metrics") as answer:
                assert b"kio_" in answer.read()
            os.kill(told["pid"], signal.SIGTERM)
            assert traced.wait(STOP_S) == 0
        finally:
            traced.terminate()
    used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    assert "sched_setaffinity" in used, "the workers did not pin themselves"
    assert used - allowed_calls() == set()
