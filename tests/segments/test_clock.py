"""A shard's clock: the wall clock, but never back."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from kio.segments.clock import ShardClock
from tests.segments.support import Time

DAY_MS = 86_400_000


def test_it_is_the_wall_clock() -> None:
    before = time.time_ns() // 1_000_000
    now = ShardClock(0).now_ms()
    assert before <= now <= time.time_ns() // 1_000_000


def test_it_follows_the_wall_clock_ahead_and_goes_on_alone_when_that_is_set_back() -> None:
    fake = Time(wall_ms=1000)
    clock = fake.clock(0)
    assert clock.now_ms() == 1000
    fake.wall_ms += 10 * DAY_MS
    assert clock.now_ms() == 1000 + 10 * DAY_MS
    fake.wall_ms -= 5 * DAY_MS
    assert clock.now_ms() == 1000 + 10 * DAY_MS
    fake.pass_by(3)
    assert clock.now_ms() == 1003 + 10 * DAY_MS
    fake.wall_ms += 6 * DAY_MS
    assert clock.now_ms() == 1003 + 11 * DAY_MS


def test_it_begins_where_it_is_known_to_have_been() -> None:
    fake = Time(wall_ms=1000)
    assert fake.clock(2000).now_ms() == 2000
    clock = fake.clock(2000)
    fake.pass_by(500)
    assert clock.now_ms() == 2500
    fake.pass_by(1500)
    assert clock.now_ms() == 4000
    assert fake.clock(100).now_ms() == 3000


@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 1000), st.integers(-(10**6), 10**6)), max_size=30))
def test_it_never_goes_back_and_never_stands_still(floor_ms: int, steps: list[tuple[int, int]]) -> None:
    fake = Time(wall_ms=10**6)
    clock = fake.clock(floor_ms)
    last = clock.now_ms()
    assert last >= floor_ms
    for passed_ms, step_ms in steps:
        fake.pass_by(passed_ms)
        fake.wall_ms += step_ms
        now = clock.now_ms()
        assert now >= max(last + passed_ms, fake.wall_ms)
        last = now
