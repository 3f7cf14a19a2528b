"""Helper threads: they run the store's jobs (fdatasync, seal, prepare) so that the loop never waits for the disk.

A worker has two: one for syncs, which acknowledgements wait for, and one for background jobs, which nothing waits for.
Jobs go in through a queue and come out, run, through another; `wake` is called after each.
Invariants: a helper runs one job at a time, in the order given; what a job leaves behind is taken over by the loop's
thread (`Store.finish`), so a store needs no lock. A job never raises; should one do so, the process ends (see
`__main__`), because a sync thread that died unseen would let unsynced bytes grow for ever.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kio.segments.jobs import Job


class Helper:
    """A thread that runs jobs one after the other.

    Args:
        name: of the thread, as `top -H` shows it.
        wake: called from the thread after each job; must be safe there.
        niceness: added to the thread's own: who serves comes first on a core that they share.
    """

    def __init__(self, name: str, wake: Callable[[], object], niceness: int = 0) -> None:
        self._wake = wake
        self._niceness = niceness
        self._waiting: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._finished: deque[tuple[int, Job]] = deque()
        # A daemon thread: an fdatasync that hangs must not keep a process alive that was told to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; it inherits the affinity of its caller."""
        self._thread.start()

    def submit(self, shard: int, job: Job) -> None:
        """Queue `job` of `shard`."""
        self._waiting.put((shard, job))

    def take_finished(self) -> list[tuple[int, Job]]:
        """The jobs that have run since the last call, with their shards."""
        taken = []
        while self._finished:
            taken.append(self._finished.popleft())
        return taken

    def stop(self) -> None:
        """Run what is queued, then end the thread. Blocks."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        # On Linux this is the thread's alone. A sandbox may refuse it, which costs the others some latency.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self._niceness)
        while (work := self._waiting.get()) is not None:
            work[1].run()
            self._finished.append(work)
            self._wake()
