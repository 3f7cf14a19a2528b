"""When a child is started again: the policy as a table of what happened and when."""

from __future__ import annotations

import signal

import pytest

from kio.daemon import children
from kio.daemon.children import Lifecycle, describe_exit

CRASH = -signal.SIGSEGV
KILL = -signal.SIGKILL


def live(life: Lifecycle, now: float, *, ready_after: float | None, lasts: float, returncode: int) -> float:
    """One life that begins when it is due; the moment it ended."""
    assert life.start_at is not None
    begin = max(now, life.start_at)
    assert life.is_due(begin)
    life.started()
    if ready_after is not None:
        life.ready(begin + ready_after)
    life.exited(returncode, begin + lasts)
    return begin + lasts


def test_a_child_is_due_at_once_and_serves_when_it_says_so():
    life = Lifecycle(now=5.0)
    assert life.is_due(5.0)
    life.started()
    assert (life.state, life.start_at, life.incarnation) == ("starting", None, 1)
    life.ready(5.1)
    assert (life.state, life.restarts) == ("serving", 0)


def test_a_serving_child_that_is_killed_every_second_keeps_coming_back_at_once():
    life = Lifecycle(now=0.0)
    now = 0.0
    for _ in range(200):
        now = live(life, now, ready_after=0.3, lasts=1.0, returncode=KILL)
        assert life.start_at == now
    assert life.restarts == 199


def test_kills_that_sometimes_hit_a_child_while_it_starts_do_not_give_it_up():
    life = Lifecycle(now=0.0)
    now = 0.0
    for number in range(200):
        ready_after = 0.5 if number % 10 == 0 else None
        now = live(life, now, ready_after=ready_after, lasts=0.6, returncode=KILL)
        assert life.start_at is not None
        assert life.start_at - now <= children.BACKOFF_S + 1e-6
        assert life.state != "broken"


def test_a_child_that_is_killed_before_it_ever_served_is_given_up_in_the_end():
    life = Lifecycle(now=0.0)
    now = 0.0
    for _ in range(children.KILLS_MAX):
        assert life.state != "broken"
        now = live(life, now, ready_after=None, lasts=1.0, returncode=KILL)
    assert life.state == "broken"


@pytest.mark.parametrize("ready_after", [None, 0.1], ids=["before it was ready", "soon after"])
def test_a_child_that_crashes_backs_off_twice_as_long_each_time_and_then_the_breaker_opens(ready_after: float | None):
    life = Lifecycle(now=0.0)
    now = 0.0
    delays = []
    for _ in range(children.FAILURES_MAX):
        now = live(life, now, ready_after=ready_after, lasts=0.2, returncode=CRASH)
        assert life.start_at is not None
        delays.append(life.start_at - now)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, children.BROKEN_RETRY_S])
    assert life.state == "broken"
    assert life.reason == "killed by SIGSEGV"


def test_an_open_breaker_gives_one_chance_a_minute_and_closes_when_the_child_serves():
    life = Lifecycle(now=0.0)
    now = 0.0
    for _ in range(children.FAILURES_MAX):
        now = live(life, now, ready_after=None, lasts=0.0, returncode=1)
    assert not life.is_due(now + children.BROKEN_RETRY_S - 1)
    now = live(life, now, ready_after=None, lasts=0.0, returncode=1)
    assert life.state == "broken", "one failure is enough while it is open"
    now = live(life, now, ready_after=1.0, lasts=100.0, returncode=CRASH)
    assert life.start_at == now, "it had served for long"
    now = live(life, now, ready_after=None, lasts=0.0, returncode=CRASH)
    assert (life.state, life.start_at) == ("backing-off", now + children.BACKOFF_S)


def test_crashes_far_apart_are_not_held_against_a_child():
    life = Lifecycle(now=0.0)
    now = 0.0
    for _ in range(50):
        now = live(life, now, ready_after=0.1, lasts=1.0, returncode=CRASH)
        now += 20.0
        assert life.state == "backing-off"


def test_the_router_is_never_given_up():
    life = Lifecycle(now=0.0, breaks=False)
    now = 0.0
    for _ in range(50):
        now = live(life, now, ready_after=None, lasts=0.0, returncode=CRASH)
        assert life.state == "backing-off"
        assert life.start_at is not None
        assert life.start_at - now <= children.BACKOFF_MAX_S + 1e-6


def test_what_a_child_said_of_its_failure_is_the_reason():
    life = Lifecycle(now=0.0)
    life.started()
    life.exited(1, 0.1, "OSError: no space left on device")
    assert life.reason == "OSError: no space left on device"
    life.started()
    life.ready(0.5)
    assert life.reason == ""


@pytest.mark.parametrize("when", ["waiting", "starting", "serving"])
def test_a_child_that_is_not_wanted_any_more_stays_ended(when: str):
    life = Lifecycle(now=0.0)
    if when != "waiting":
        life.started()
    if when == "serving":
        life.ready(0.1)
    life.stop()
    if when != "waiting":
        assert life.state == "stopping"
        life.exited(KILL, 1.0)
    assert (life.state, life.start_at, life.is_due(1e9)) == ("stopped", None, False)


def test_ends_are_described_for_people():
    assert describe_exit(9) == "exited with 9"
    assert describe_exit(-11) == "killed by SIGSEGV"
    assert describe_exit(-63) == "killed by signal 63"
