"""strace on running processes: what they ask of the kernel, in which order, and faults put into single calls.

`Strace(pids, "-e", ...)` attaches while its block runs; afterwards `lines()` holds the trace. Tests that need it carry
`needs_strace`, which skips with a reason where strace is missing or may not attach.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, Self

import pytest

from tests.cluster.daemon import state_of, wait_until

ATTACH_S: Final = 10.0
DETACH_S: Final = 3.0
#: Every call by which a file's bytes are made durable.
SYNCS: Final = "fsync,fdatasync,sync_file_range,msync,syncfs"


class Strace:
    """strace attached to processes with all their threads.

    Args:
        pids: whom to trace.
        arguments: further arguments, such as ("-e", "inject=fdatasync:error=EIO").
    """

    def __init__(self, pids: Sequence[int], *arguments: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="kio-strace-"))
        self._trace = self._directory / "trace"
        self._said = self._directory / "stderr"
        self._pids = list(pids)
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        attach = [part for pid in self._pids for part in ("-p", str(pid))]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                ["strace", "-f", "-ttt", "-s", "64", "-o", str(self._trace), *self._arguments, *attach],
                stdin=subprocess.DEVNULL,
                stderr=said,
            )
        try:
            wait_until(self._is_attached, ATTACH_S, "strace to attach")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_attached(self) -> bool:
        said = self._said.read_text()
        assert self._process is not None
        assert self._process.poll() is None, said
        return all(re.search(rf"Process {pid} attached", said) for pid in self._pids)

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(DETACH_S)
        except subprocess.TimeoutExpired:
            # It may wait for ever for tracees that SIGKILL took from it; for living ones it must let go.
            self._process.kill()
            self._process.wait()
            if not {state_of(pid) for pid in self._pids} <= {"X", "Z"}:
                raise
        finally:
            self._lines = self._trace.read_text(errors="replace").splitlines() if self._trace.exists() else []
            shutil.rmtree(self._directory)

    def lines(self) -> list[str]:
        """The trace, one system call a line, after the block."""
        return self._lines

    def calls(self, name: str) -> int:
        """How often a call was begun."""
        return sum(f" {name}(" in line for line in self._lines)


@cache
def why_not() -> str:
    """Why strace cannot be used here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        try:
            done = subprocess.run(
                ["timeout", "-s", "INT", "1", "strace", "-o", os.devnull, "-p", str(child.pid)],
                capture_output=True,
                timeout=10,
                check=False,
            )
        finally:
            child.kill()
    return "" if b"attached" in done.stderr else f"strace may not attach here: {done.stderr.decode().strip()}"


needs_strace = pytest.mark.usefixtures("strace_works")
