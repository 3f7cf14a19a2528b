"""Figures in shared memory: two processes see the same, and one of them may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kio.bench.ledger import Ledger

COUNTERS = [
    "operations_done",
    "operations_failed",
    "operations_missing",
    "operations_sent",
    "operations_due",
    "operations_unsent",
    "connections_lost",
    "started_ns",
    "finished_ns",
    "stall_ns_max",
    "stall_at_ns",
    "cpu_ns",
    "stop_requested",
    "is_closed_loop",
]
WRITER = """
import os, signal, sys
from kio.bench.ledger import Ledger
ledger = Ledger.attach(int(sys.argv[1]))
ledger.operations_done = 2**40
ledger.corrected.record(1234, 7)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger.create()
    yield made
    made.close()


def test_a_new_ledger_is_all_zeros(ledger: Ledger) -> None:
    assert [getattr(ledger, name) for name in COUNTERS] == [0] * len(COUNTERS)
    assert ledger.corrected.count == ledger.uncorrected.count == ledger.lateness.count == 0


def test_every_counter_has_a_word_of_its_own(ledger: Ledger) -> None:
    for value, name in enumerate(COUNTERS, 1):
        setattr(ledger, name, value)
    assert [getattr(ledger, name) for name in COUNTERS] == list(range(1, len(COUNTERS) + 1))


def test_histograms_share_no_memory_with_each_other_or_the_counters(ledger: Ledger) -> None:
    for us in (0, 59_999_999, 90_000_000):
        ledger.corrected.record(us, 2)
        ledger.uncorrected.record(us, 3)
        ledger.lateness.record(us, 4)
    assert [h.count for h in (ledger.corrected, ledger.uncorrected, ledger.lateness)] == [6, 9, 12]
    assert [h.over_range for h in (ledger.corrected, ledger.uncorrected, ledger.lateness)] == [2, 3, 4]
    assert all(getattr(ledger, name) == 0 for name in COUNTERS)


def test_what_a_process_wrote_is_there_after_it_was_killed(ledger: Ledger) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(ledger.fd)], check=False, pass_fds=[ledger.fd])
    assert done.returncode == -signal.SIGKILL
    assert ledger.operations_done == 2**40
    assert ledger.corrected.count == 7
    assert ledger.corrected.max_us == 1234


def test_in_the_closed_loop_one_histogram_stands_for_both_latencies(ledger: Ledger) -> None:
    ledger.corrected.record(5)
    assert ledger.uncorrected.count == 0
    ledger.is_closed_loop = 1
    assert ledger.uncorrected.count == 1


def test_closing_gives_the_descriptor_back_and_may_be_repeated() -> None:
    made = Ledger.create()
    fd = made.fd
    other = Ledger.attach(os.dup(fd))
    made.close()
    made.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    other.operations_sent = 3
    assert other.operations_sent == 3
    other.close()
