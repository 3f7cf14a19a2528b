"""What the measured server spends: processor time, memory, bytes written, of a process and all its children.

Client and server share the cores of a machine, so a rate alone says little: CPU seconds for a million operations say
what the server costs wherever its clients run.

A process that ends between two samples keeps what it was last seen to have used; what it used after that is lost, so
samples are taken often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import psutil

from kio.errors import ConfigError


@dataclass(frozen=True)
class ServerUsage:
    """What a server used between two moments."""

    pid: int
    processes: int
    cpu_s: float
    #: Resident memory at the end, and the most that any sample saw; pages that processes share count for each.
    rss_bytes: int
    rss_bytes_max: int
    #: Bytes that it caused to be written to disk; None where the kernel does not tell.
    written_bytes: int | None


class _Spent(NamedTuple):
    cpu_s: float
    written_bytes: int | None


class Meter:
    """Watches the process `pid` and its children from the moment it is made.

    Raises:
        ConfigError: when there is no such process, or it may not be looked at.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._root = psutil.Process(pid)
        except (psutil.Error, ValueError, OverflowError):
            raise ConfigError(f"there is no process {pid} to watch; --pid is the server's") from None
        #: Process (its start time is part of its equality) -> what it has used since it began.
        self._spent: dict[psutil.Process, _Spent] = {}
        self._rss_bytes = self._rss_bytes_max = 0
        self._processes = 0
        self.sample()
        if not self._spent:
            raise ConfigError(f"process {pid} may not be looked at; run as its user")
        self._before = dict(self._spent)
        self._rss_bytes_max = self._rss_bytes

    def sample(self) -> None:
        """Look at every process of the tree once. Cost: a few reads in /proc for each."""
        rss_bytes = processes = 0
        for process in self._tree():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident = process.memory_info().rss
                    status = process.status()
            except psutil.Error:
                continue
            if status == psutil.STATUS_ZOMBIE:
                continue
            self._spent[process] = _Spent(times.user + times.system, _written(process))
            rss_bytes += resident
            processes += 1
        if processes:
            self._rss_bytes, self._processes = rss_bytes, processes
            self._rss_bytes_max = max(self._rss_bytes_max, rss_bytes)

    def usage(self) -> ServerUsage:
        """What was used from the making of this meter until now."""
        self.sample()
        nothing = _Spent(0.0, 0)
        cpu_s = sum(now.cpu_s - self._before.get(process, nothing).cpu_s for process, now in self._spent.items())
        written = [
            None if now.written_bytes is None else now.written_bytes - (before.written_bytes or 0)
            for now, before in ((now, self._before.get(process, nothing)) for process, now in self._spent.items())
        ]
        return ServerUsage(
            pid=self._root.pid,
            processes=self._processes,
            cpu_s=cpu_s,
            rss_bytes=self._rss_bytes,
            rss_bytes_max=self._rss_bytes_max,
            written_bytes=None if None in written else sum(filter(None, written)),
        )

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def _written(process: psutil.Process) -> int | None:
    try:
        return int(process.io_counters().write_bytes)
    except (psutil.Error, NotImplementedError, OSError):
        return None
