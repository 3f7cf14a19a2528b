"""Maintenance: an activity runs in slices, waits for jobs and for durability, one at a time."""

from __future__ import annotations

from collections.abc import Generator

from kio.log import Log
from kio.segments.jobs import Job
from kio.segments.maintenance import PLAN_INTERVAL_S, RETRY_S, SLICE, Activity, Durable, Maintenance, Planner, Steps


class Nothing(Job):
    kind = "nothing"

    def _work(self) -> None:
        pass


class Shard:
    """A maintenance with one planner, which gives what stands in `next_up`, once; and with others, if there are any."""

    def __init__(self, *others: Planner) -> None:
        self.durable = 0
        self.next_up: list[Activity] = []
        self.asked = 0
        self.maintenance = Maintenance(Log("test"), [self._plan, *others], lambda: self.durable)

    def _plan(self, now_s: float) -> Activity | None:
        self.asked += 1
        return self.next_up.pop(0) if self.next_up else None

    def give(self, steps: Steps) -> None:
        self.next_up.append(Activity("test", steps))


def test_slices_run_one_at_a_time_and_the_end_is_told() -> None:
    done: list[int] = []

    def steps() -> Steps:
        for i in range(3):
            done.append(i)
            yield SLICE
        return True

    shard = Shard()
    shard.give(steps())
    assert shard.maintenance.slice(0.0)
    assert done == [0]
    assert shard.maintenance.slice(0.0)
    assert shard.maintenance.slice(0.0)
    assert not shard.maintenance.slice(0.0)
    assert done == [0, 1, 2]
    assert shard.maintenance.name == ""


def test_an_activity_waits_until_its_job_has_run_and_the_job_is_given_out_once() -> None:
    job = Nothing()
    seen: list[str] = []

    def steps() -> Steps:
        yield job
        seen.append("after")
        yield SLICE
        return True

    shard = Shard()
    shard.give(steps())
    assert not shard.maintenance.slice(0.0)
    assert shard.maintenance.job() is job
    assert shard.maintenance.job() is None
    assert not shard.maintenance.slice(0.0)
    assert seen == []
    shard.maintenance.finish(Nothing())
    assert not shard.maintenance.slice(0.0)
    shard.maintenance.finish(job)
    assert shard.maintenance.slice(0.0)
    assert seen == ["after"]


def test_an_activity_waits_for_durability() -> None:
    seen: list[str] = []

    def steps() -> Steps:
        yield Durable(7)
        seen.append("durable")
        return True

    shard = Shard()
    shard.give(steps())
    assert not shard.maintenance.slice(0.0)
    assert shard.maintenance.lsn_wanted == 7
    shard.durable = 6
    assert not shard.maintenance.slice(0.0)
    assert seen == []
    shard.durable = 7
    assert not shard.maintenance.slice(0.0)
    assert seen == ["durable"]
    assert shard.maintenance.lsn_wanted == 0


def test_one_activity_ends_before_another_is_planned_and_that_at_once() -> None:
    order: list[str] = []

    def steps(name: str) -> Steps:
        order.append(name)
        yield SLICE
        order.append(name)
        return True

    shard = Shard()
    shard.give(steps("a"))
    shard.give(steps("b"))
    while shard.maintenance.slice(0.0):
        pass
    assert order == ["a", "a", "b", "b"]


def test_planners_that_want_nothing_or_whose_activity_did_nothing_are_asked_now_and_then() -> None:
    def steps() -> Steps:
        yield from ()
        return False

    shard = Shard()
    shard.give(steps())
    assert not shard.maintenance.slice(0.0)
    assert not shard.maintenance.slice(PLAN_INTERVAL_S / 2)
    assert shard.asked == 1
    shard.maintenance.slice(PLAN_INTERVAL_S)
    assert shard.asked == 2


def test_planners_are_asked_at_once_when_somebody_knows_that_one_of_them_wants_something() -> None:
    shard = Shard()
    shard.maintenance.slice(0.0)
    shard.maintenance.hurry()
    shard.maintenance.slice(PLAN_INTERVAL_S / 4)
    assert shard.asked == 2
    shard.maintenance.slice(PLAN_INTERVAL_S / 2)
    assert shard.asked == 2, "it is said once"


def test_no_planner_keeps_another_waiting() -> None:
    order: list[str] = []

    def steps(name: str) -> Steps:
        order.append(name)
        yield SLICE
        return True

    shard = Shard(lambda _: Activity("greedy", steps("greedy")))
    for name in "ab":
        shard.give(steps(name))
    for _ in range(8):
        shard.maintenance.slice(0.0)
    assert order == ["a", "greedy", "b", "greedy"]


def test_an_activity_that_the_disk_fails_ends_and_planning_goes_on_later() -> None:
    def failing() -> Generator[Job, None, None]:
        yield Nothing()
        raise OSError(5, "the disk is broken")

    shard = Shard()
    shard.give(failing())
    shard.maintenance.slice(0.0)
    job = shard.maintenance.job()
    assert job is not None
    shard.maintenance.finish(job)
    assert not shard.maintenance.slice(1.0)
    assert shard.maintenance.name == ""
    shard.maintenance.hurry()
    shard.maintenance.slice(1.0 + RETRY_S / 2)
    assert shard.asked == 1, "nobody hurries a disk that has failed"
    shard.maintenance.slice(1.0 + RETRY_S)
    assert shard.asked == 2


def test_an_activity_that_is_given_up_cleans_up() -> None:
    cleaned: list[str] = []

    def steps() -> Steps:
        try:
            yield SLICE
        finally:
            cleaned.append("cleaned")
        return True

    shard = Shard()
    shard.give(steps())
    shard.maintenance.slice(0.0)
    shard.maintenance.stop()
    assert cleaned == ["cleaned"]
    assert shard.maintenance.job() is None
