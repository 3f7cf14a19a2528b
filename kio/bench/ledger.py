"""The ledger: one generator process's figures, in memory that it shares with the coordinator.

    +----------------+-----------+-------------+----------+
    | 32 counters    | corrected | uncorrected | lateness |    native 64-bit words in one memfd
    +----------------+-----------+-------------+----------+

The coordinator makes it and hands its descriptor down; both map it. The generator writes as it goes, so its figures
are there whatever becomes of it, and the coordinator reads them at any moment at no cost to the generator. Nothing is
locked: each word has one writer (`stop_requested` the coordinator, all others the generator) and is written whole, but
two words read while a run goes on may be a moment apart.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Final

from kio.bench.histogram import SIZE_BYTES, Histogram

WORD_BYTES: Final = 8
#: Room for counters; more than there are, so that the histograms stand where they stood.
COUNTERS: Final = 32
LEDGER_BYTES: Final = COUNTERS * WORD_BYTES + 3 * SIZE_BYTES

assert SIZE_BYTES % WORD_BYTES == 0


def _counter(place: int, meaning: str) -> Any:
    """A property that stands for one word."""

    def read(self: Ledger) -> int:
        return self.words[place]

    def write(self: Ledger, value: int) -> None:
        self.words[place] = value

    return property(read, write, doc=meaning)


class Ledger:
    """The shared memory of one generator process; `create` it or `attach` to it, then `close` it."""

    operations_done = _counter(0, "Answered without an error, reads that found nothing among them.")
    operations_failed = _counter(1, "Answered with an error, lost with their connection, or never answered or sent.")
    operations_missing = _counter(2, "Reads that found nothing.")
    operations_sent = _counter(3, "Sent; a read that is to be written back counts once.")
    operations_due = _counter(4, "Due by the schedule so far; 0 in the closed loop.")
    operations_unsent = _counter(5, "Due but never sent by the end; they are among the failed.")
    connections_lost = _counter(6, "Connections that ended while the run went on.")
    started_ns = _counter(7, "CLOCK_MONOTONIC when the run began; 0 before.")
    finished_ns = _counter(8, "CLOCK_MONOTONIC when it ended; 0 before.")
    stall_ns_max = _counter(9, "The longest time by which one turn of the loop was longer than asked for.")
    stall_at_ns = _counter(10, "CLOCK_MONOTONIC when that turn began.")
    cpu_ns = _counter(11, "CPU time of the process since the run began.")
    stop_requested = _counter(12, "Set to 1 by the coordinator: end now.")
    #: 1 where nothing is due by a schedule: one latency, so one histogram serves as both.
    is_closed_loop = _counter(13, "Whether the uncorrected latencies are the corrected ones.")

    def __init__(self, fd: int) -> None:
        """Map the memory behind `fd`, which belongs to the ledger from now on."""
        self.fd = fd
        self._memory = mmap.mmap(fd, LEDGER_BYTES)
        #: The counters, by place: for the loop, to which a property costs too much.
        self.words = memoryview(self._memory).cast("Q")[:COUNTERS]
        start = COUNTERS * WORD_BYTES
        self._slots = [
            memoryview(self._memory)[start + i * SIZE_BYTES : start + (i + 1) * SIZE_BYTES].cast("Q") for i in range(3)
        ]
        #: Latency from the moment a request was due.
        self.corrected = Histogram(self._slots[0])
        self._uncorrected = Histogram(self._slots[1])
        #: How late the generator itself sent what was due while a connection was free.
        self.lateness = Histogram(self._slots[2])

    @classmethod
    def create(cls) -> Ledger:
        """A ledger of zeros; its `fd` is what another process attaches to."""
        fd = os.memfd_create("kio-bench-ledger", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, LEDGER_BYTES)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Ledger:
        """The ledger behind a descriptor that this process inherited."""
        return cls(fd)

    @property
    def uncorrected(self) -> Histogram:
        """Latency from the moment a request was sent."""
        return self.corrected if self.is_closed_loop else self._uncorrected

    def close(self) -> None:
        """Unmap it and close its descriptor; its histograms must not be used any more. Again: nothing."""
        if self.fd < 0:
            return
        self.words.release()
        for slots in self._slots:
            slots.release()
        self._memory.close()
        os.close(self.fd)
        self.fd = -1
