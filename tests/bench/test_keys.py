"""The text of keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kio.bench.keys import ids_max, key_of, key_template
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


@pytest.mark.parametrize("key_bytes", ["8", "8-20", "64:1,8:1"])
def test_keys_too_short_for_the_highest_id_are_refused_with_the_least_that_fits(key_bytes: str) -> None:
    with pytest.raises(ConfigError, match="at least --key-bytes 9"):
        key_of(replace(PLAN, key_bytes=key_bytes))
    assert key_of(replace(PLAN, key_bytes="9"))(999) == b"bench:999"


def test_keys_longer_than_a_key_may_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 65535"):
        key_of(replace(PLAN, key_bytes="100-70000"))


@pytest.mark.parametrize("prefix", ["a\rb", "a\nb", "a*b"])
def test_a_prefix_that_looks_like_framing_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        key_of(replace(PLAN, prefix=prefix))


def test_ids_leave_room_for_every_insert() -> None:
    assert ids_max(PLAN) == 1000
    inserting = replace(PLAN, mix={"read": 0.5, "insert": 0.5})
    assert ids_max(replace(inserting, rate=100, seconds=10)) >= 2000
    assert ids_max(replace(inserting, count=5000, processes=3, pipeline=7)) >= 6000 + 3 * 7
    assert ids_max(replace(inserting, rate=0, seconds=10)) > 3_000_000
