"""The helper threads: jobs in, jobs out, in order."""

from __future__ import annotations

import os
import threading
from typing import Any

from kio.workers.jobs import Helper


class Recorded:
    def __init__(self, done: list[int], number: int) -> None:
        self.done = done
        self.number = number

    def run(self) -> None:
        assert threading.current_thread().name == "helper"
        self.done.append(self.number)


def test_jobs_run_in_order_on_the_thread_and_come_back_with_their_shards():
    done: list[int] = []
    woken = threading.Semaphore(0)
    helper = Helper("helper", woken.release)
    helper.start()
    jobs: list[Any] = [Recorded(done, number) for number in range(50)]
    for number, job in enumerate(jobs):
        helper.submit(number % 3, job)
    for _ in jobs:
        assert woken.acquire(timeout=5)
    assert helper.take_finished() == [(number % 3, job) for number, job in enumerate(jobs)]
    assert helper.take_finished() == []
    assert done == list(range(50))
    helper.stop()


def test_stop_runs_what_is_queued_first():
    done: list[int] = []
    helper = Helper("helper", lambda: None)
    for number in range(5):
        job: Any = Recorded(done, number)
        helper.submit(0, job)
    helper.start()
    helper.stop()
    assert done == list(range(5))
    assert len(helper.take_finished()) == 5


def test_a_helper_that_nothing_waits_for_is_nicer_than_the_thread_that_serves():
    found: list[int] = []

    class Look:
        def run(self) -> None:
            found.append(os.getpriority(os.PRIO_PROCESS, 0))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    helper = Helper("helper", lambda: None, 3)
    helper.start()
    look: Any = Look()
    helper.submit(0, look)
    helper.stop()
    assert found == [min(19, before + 3)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
