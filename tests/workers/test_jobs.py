"""The helper threads: jobs in, jobs out, in order."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

from kio.workers.jobs import BACKGROUND_NICENESS, Background, Helper


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


def test_a_helper_that_waits_holds_no_job_that_has_run():
    woken = threading.Semaphore(0)
    helper = Helper("helper", woken.release)
    helper.start()
    job: Any = Recorded([], 0)
    last = weakref.ref(job)
    helper.submit(0, job)
    assert woken.acquire(timeout=5)
    helper.take_finished().clear()
    del job
    deadline = time.monotonic() + 5
    while last() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert last() is None
    helper.stop()


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


def test_background_jobs_of_a_shard_never_run_beside_one_another_and_urgent_ones_are_not_nice():
    lock = threading.Lock()
    running: set[int] = set()
    seen: list[tuple[int, int, int]] = []

    class Work:
        def __init__(self, shard: int, number: int) -> None:
            self.shard, self.number = shard, number

        def run(self) -> None:
            with lock:
                assert self.shard not in running
                running.add(self.shard)
                seen.append((self.shard, self.number, os.getpriority(os.PRIO_PROCESS, 0)))
            time.sleep(0.001)
            with lock:
                running.remove(self.shard)

    before = os.getpriority(os.PRIO_PROCESS, 0)
    woken = threading.Semaphore(0)
    background = Background(woken.release)
    background.start()
    for number in range(20):
        for shard in range(3):
            work: Any = Work(shard, number)
            background.submit(shard, work, is_urgent=number % 2 == 1 or shard == 2)
        if number % 5 == 0:
            for _ in range(3):
                assert woken.acquire(timeout=5)
            background.take_finished()
    background.stop()
    assert len(seen) == 60
    for shard in range(3):
        assert [number for owner, number, _ in seen if owner == shard] == list(range(20))
    assert {niceness for shard, _, niceness in seen if shard == 2} == {before}
    assert (0, 0, min(19, before + BACKGROUND_NICENESS)) in seen
