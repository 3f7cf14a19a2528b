"""A generator process as the coordinator sees it: lines of JSON both ways, and a ledger that outlives it.

The process leads a group of its own, so that a terminal's Ctrl-C reaches the coordinator alone; it ends by itself when
its stdin is closed, so it cannot outlive the coordinator either.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

from kio.bench.ledger import Ledger
from kio.bench.plan import Plan

_READ_BYTES: Final = 1 << 16
#: For a process that was told to end.
_END_S: Final = 5.0


class Generator:
    """One generator process, started at once; `close` it."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.number = number
        self.ledger = Ledger.create()
        #: Whether the process has ended, and what it told last of all; None where it died before that.
        self.is_ended = False
        self.ending: dict[str, Any] | None = None
        self._received = b""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kio.bench.generator"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[self.ledger.fd],
                process_group=0,
            )
        except BaseException:
            self.ledger.close()
            raise
        self.tell({"plan": plan.as_dict(), "process": number, "ledger_fd": self.ledger.fd, "start_ns": None})

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when `lines` has something, or the process ended."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def tell(self, message: dict[str, Any]) -> None:
        """One line to its stdin; a process that is gone is found out by reading."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def lines(self) -> list[dict[str, Any]]:
        """What it has told since the last call; waits where nothing is readable. Notes the end of the process."""
        data = os.read(self.fileno(), _READ_BYTES)
        if not data:
            self.is_ended = True
        *whole, self._received = (self._received + data).split(b"\n")
        told = [json.loads(line) for line in whole]
        for line in told:
            if "errors" in line:
                self.ending = line
        return told

    def died(self) -> str:
        """How a process ended that should not have."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return f"generator process {self.number} did not end in time"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"generator process {self.number} {how}"

    def close(self) -> None:
        """End the process, if it runs, and give up its ledger."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self.ledger.close()
