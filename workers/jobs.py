"""Helper threads: they run the store's jobs (fdatasync, seal, prepare) so that the loop never waits for the disk.

A worker has one for syncs, which acknowledgements wait for, and two for background jobs, which nothing waits for: a
nice one, and one for a shard whose compaction is behind, which would stay so with a tenth of a core. (Anybody may raise
a thread's niceness, few may lower it.) Jobs go in through a queue and come out, run, through another; `wake` is called
after each.
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
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kio.segments.jobs import Job


#: At 10 a thread gets a tenth of a core that another one wants as well.
BACKGROUND_NICENESS: Final = 10


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
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a job and run it; False at the end.

        While it waits it holds none that has run: what a job has mapped is given back with it, and with the mapping the
        blocks of a file that was removed.
        """
        work = self._waiting.get()
        if work is None:
            return False
        work[1].run()
        self._finished.append(work)
        self._wake()
        return True


class Background:
    """The helpers for background jobs. Those of one shard never run beside one another, in whichever they are."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._nice = Helper("kio-nice", wake, BACKGROUND_NICENESS)
        self._urgent = Helper("kio-urgent", wake)
        #: Shard -> jobs under way, and where they run.
        self._under_way: dict[int, tuple[int, Helper]] = {}

    def start(self) -> None:
        """See Helper."""
        self._nice.start()
        self._urgent.start()

    def submit(self, shard: int, job: Job, *, is_urgent: bool) -> None:
        """Queue `job` of `shard`; urgent or not, it comes after those of the shard that are under way."""
        count, helper = self._under_way.get(shard, (0, self._urgent if is_urgent else self._nice))
        self._under_way[shard] = count + 1, helper
        helper.submit(shard, job)

    def take_finished(self) -> list[tuple[int, Job]]:
        """See Helper."""
        taken = self._nice.take_finished() + self._urgent.take_finished()
        for shard, _ in taken:
            count, helper = self._under_way.pop(shard)
            if count > 1:
                self._under_way[shard] = count - 1, helper
        return taken

    def stop(self) -> None:
        """See Helper."""
        self._nice.stop()
        self._urgent.stop()
