"""The text of keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kio.bench.keys import LOAD_SURPLUS_MAX, ids_max, key_of, key_template
from kio.bench.operations import Operations
from kio.bench.plan import Plan
from kio.errors import ConfigError

PLAN = Plan(url="kio://127.0.0.1", records=1000)


def test_a_key_is_the_prefix_and_the_id_padded_to_its_length() -> None:
    key = key_of(replace(PLAN, key_bytes="16", prefix="bench:"))
    assert key(0) == b"bench:0000000000"
    assert key(4711) == b"bench:0000004711"


def test_a_prefix_may_hold_what_formatting_would_read() -> None:
    assert key_of(replace(PLAN, prefix="50%d:"))(7) == b"50%d:00000000007"
    assert key_of(replace(PLAN, prefix="50%d:", key_bytes="10-12"))(7)[:5] == b"50%d:"


def test_a_prefix_counts_in_bytes() -> None:
    assert len(key_of(replace(PLAN, prefix="schlüssel:"))(7)) == 16


def test_distributed_lengths_follow_from_the_id_and_keys_stay_unique() -> None:
    plan = replace(PLAN, key_bytes="10:1,20:3", records=1000)
    key = key_of(plan)
    keys = [key(id) for id in range(1000)]
    assert keys == [key_of(plan)(id) for id in range(1000)]
    assert len(set(keys)) == 1000
    lengths = Counter(map(len, keys))
    assert set(lengths) == {10, 20}
    assert lengths[20] == pytest.approx(750, abs=60)
    assert [int(text.removeprefix(b"bench:")) for text in keys] == list(range(1000))


def test_a_template_stands_for_keys_of_fixed_length_only() -> None:
    template = key_template(PLAN)
    assert template is not None
    assert template % 12 == key_of(PLAN)(12)
    assert key_template(replace(PLAN, key_bytes="10-20")) is None


@pytest.mark.parametrize("key_bytes", ["9", "9-20", "64:1,9:1"])
def test_keys_too_short_for_the_highest_id_are_refused_with_the_least_that_fits(key_bytes: str) -> None:
    full = replace(PLAN, records=10_000 - LOAD_SURPLUS_MAX)
    with pytest.raises(ConfigError, match="ids up to 9999; say at least --key-bytes 10"):
        key_of(replace(full, key_bytes=key_bytes))
    assert key_of(replace(full, key_bytes="10"))(9999) == b"bench:9999"


def test_keys_longer_than_a_key_may_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 65535"):
        key_of(replace(PLAN, key_bytes="100-70000"))


@pytest.mark.parametrize("prefix", ["a\rb", "a\nb", "a*b"])
def test_a_prefix_that_looks_like_framing_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        key_of(replace(PLAN, prefix=prefix))


def test_ids_leave_room_for_every_insert() -> None:
    plan = replace(PLAN, mix={"insert": 1.0}, processes=3, pipeline=7, rate=100, seconds=50)
    for changed in (plan, replace(plan, count=5000), replace(plan, rate=0.0, count=5000)):
        # 715 requests: 239 for the process that has most.
        highest = max(max(Operations(changed, process).take(239 * 7)[1]) for process in range(3))
        assert highest < ids_max(changed) < highest + 100


@pytest.mark.parametrize("records", [1, 950, 8_999, 9_001, 99_950])
def test_ids_leave_room_for_what_the_load_phase_writes_too_much(records: int) -> None:
    plan = replace(PLAN, records=records)
    requests = -(-records // 100)
    load = replace(plan, records=0, mix={"insert": 1.0}, rate=0.0, count=requests * 100, pipeline=100)
    assert load.count <= ids_max(load) <= ids_max(plan)


def test_a_closed_loop_leaves_room_for_more_inserts_than_any_generator_can_send() -> None:
    assert ids_max(replace(PLAN, mix={"insert": 1.0}, rate=0.0, seconds=10)) >= 10_000_000
