"""Expiry, versions, conditions and atomic batches: what every client does with every daemon."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kio.client import Entry, Record, Version
from kio.errors import Aborted, BadRequest, NotAnInteger, NumberOverflow, RequestError, ValueTooLarge


def wait_until_absent(db: Any, key: str) -> None:
    until = time.monotonic() + 10
    while db.exists(key):
        assert time.monotonic() < until
        time.sleep(0.02)


class OperationSuite:
    """The store is empty when a test begins."""

    def test_a_key_with_a_ttl_is_gone_after_it(self, db: Any) -> None:
        assert db.set("k", b"v", ttl=0.2) is True
        assert db.set("stays", b"v", ttl=timedelta(hours=1)) is True
        assert db.get("k") == b"v" or db.ttl("k") is None
        wait_until_absent(db, "k")
        assert db.get_many(["k", "stays"]) == {"stays": b"v"}
        assert db.ttl("k") is None
        assert 3_500 < db.ttl("stays") <= 3_600

    def test_a_plain_set_clears_the_expiry_and_keep_ttl_does_not(self, db: Any) -> None:
        db.set("k", b"1", ttl=100)
        db.set("k", b"2", keep_ttl=True)
        assert 90 < db.ttl("k") <= 100
        db.set("k", b"3")
        assert db.ttl("k") == math.inf
        assert db.get("k") == b"3"

    def test_touch_and_persist_change_the_expiry_and_not_the_value(self, db: Any) -> None:
        assert db.touch("k", 5) is False
        assert db.persist("k") is False
        db.set("k", b"v")
        assert db.persist("k") is False
        assert db.touch("k", 100) is True
        assert 90 < db.ttl("k") <= 100
        assert db.touch("k", expire_at=datetime.now(UTC) + timedelta(days=2)) is True
        assert db.ttl("k") > 86_400
        assert db.persist("k") is True
        assert db.ttl("k") == math.inf
        assert db.touch("k", expire_at=1_000_000_000) is True
        assert db.get("k") is None

    def test_expire_at_is_told_as_it_was_given(self, db: Any) -> None:
        moment = datetime(2100, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
        db.set("k", b"v", expire_at=moment)
        assert datetime.fromtimestamp(db.entry("k").expire_at, UTC) == moment
        db.set("k", b"v")
        assert db.entry("k").expire_at is None

    def test_an_entry_is_value_version_and_expiry_in_one(self, db: Any) -> None:
        assert db.entry("k") is None
        version = db.set_with_version("k", b"v", ttl=100)
        found = db.entry("k")
        assert (found.value, found.version) == (b"v", version)
        assert 90 < found.ttl < 101, "the daemon's clock may be a little ahead of this one"
        assert found.expire_at - 100 == pytest.approx(time.time(), abs=10)
        db.persist("k")
        kept = db.entry("k")
        assert (kept.expire_at, kept.ttl) == (None, math.inf)
        assert Entry(b"v", version, 1.0).ttl == 0

    def test_set_if_absent_and_if_present(self, db: Any) -> None:
        assert db.set("k", b"1", if_present=True) is False
        assert db.set("k", b"1", if_absent=True, ttl=50) is True
        assert db.set("k", b"2", if_absent=True) is False
        assert db.get("k") == b"1"
        assert db.set("k", b"3", if_present=True) is True
        assert db.get("k") == b"3"

    def test_a_write_by_version_fails_when_another_came_between(self, db: Any) -> None:
        db.set("k", b"1")
        seen = db.entry("k")
        assert (seen.value, type(seen.version)) == (b"1", Version)
        assert db.set("k", b"2", if_version=seen.version) is True
        assert db.set("k", b"3", if_version=seen.version) is False
        assert db.delete("k", if_version=seen.version) is False
        assert db.get("k") == b"2"
        now = db.entry("k").version
        assert now > seen.version
        assert db.delete("k", if_version=now) is True
        assert db.set("k", b"4", if_version=now) is False
        assert db.entry("k") is None

    def test_set_with_version_tells_the_version_that_it_made(self, db: Any) -> None:
        first = db.set_with_version("k", b"1")
        assert first == db.entry("k").version
        second = db.set_with_version("k", b"2", if_version=first)
        assert second > first
        assert db.set_with_version("k", b"3", if_version=first) is None

    def test_get_and_set_and_get_and_delete_return_what_was_there(self, db: Any) -> None:
        assert db.get_and_set("k", b"1") is None
        assert db.get_and_set("k", b"", ttl=100) == b"1"
        assert db.get_and_delete("k") == b""
        assert db.get_and_delete("k") is None
        assert db.exists("k") is False

    def test_incr_counts_in_decimal_text_and_keeps_the_expiry(self, db: Any) -> None:
        assert db.incr("n") == 1
        db.set("n", b"-7", ttl=100)
        assert db.incr("n", 49) == 42
        assert db.incr("n", -43) == -1
        assert db.get("n") == b"-1"
        assert 90 < db.ttl("n") <= 100

    @pytest.mark.parametrize("value", [b"", b"x", b" 1", b"1 ", b"+1", b"01", b"-0", b"1.0", b"9223372036854775808"])
    def test_incr_of_what_is_no_number_changes_nothing(self, db: Any, value: bytes) -> None:
        db.set("n", value)
        with pytest.raises(NotAnInteger):
            db.incr("n")
        assert db.get("n") == value

    def test_incr_beyond_64_bits_changes_nothing(self, db: Any) -> None:
        db.set("n", b"9223372036854775807")
        with pytest.raises(NumberOverflow):
            db.incr("n")
        assert db.incr("n", -(2**63)) == -1
        with pytest.raises(NumberOverflow):
            db.incr("n", -(2**63))
        assert db.get("n") == b"-1"

    def test_append_grows_a_value_to_its_limit(self, db: Any) -> None:
        assert db.append("k", b"one") == 3
        assert db.append("k", memoryview(b"-two")) == 7
        assert db.get("k") == b"one-two"
        with pytest.raises(ValueTooLarge):
            db.append("k", bytes(64 << 20))
        assert db.get("k") == b"one-two"

    def test_set_many_takes_one_expiry_for_all(self, db: Any) -> None:
        assert db.set_many({f"k{i}": b"v" for i in range(300)}, ttl=100) == 300
        assert 90 < db.ttl("k299") <= 100
        assert db.set_many([("k1", b"w")], expire_at=4_000_000_000) == 1
        assert db.entry("k1").expire_at == 4_000_000_000

    def test_records_are_scanned_with_their_expiry(self, db: Any) -> None:
        db.set("p:a", b"1")
        db.set("p:b", b"2", expire_at=4_000_000_000.5)
        db.set("other", b"3")
        assert sorted(db.records("p:")) == [Record(b"p:a", b"1", None), Record(b"p:b", b"2", 4_000_000_000.5)]

    def test_a_pipeline_has_every_operation(self, db: Any) -> None:
        with db.pipeline() as p:
            p.set("k", b"1", ttl=100)
            p.set("k", b"2", if_absent=True)
            p.incr("k", 4)
            p.append("k", b"0")
            p.get_and_set("k", b"new", keep_ttl=True)
            p.touch("absent", 5)
            p.persist("k")
            p.ttl("k")
            p.entry("absent")
            p.delete("k", if_version=Version(0, 0))
            p.get_and_delete("k")
            p.set_with_version("k", b"v", if_present=True)
            p.set_with_version("k", b"v")
        assert p.results[:-1] == [True, False, 5, 2, b"50", False, True, math.inf, None, False, b"new", None]
        assert p.results[-1] == db.entry("k").version

    def test_an_atomic_batch_is_applied_whole(self, db: Any) -> None:
        with db.batch() as batch:
            batch.set("{t}name", b"Ada", if_absent=True)
            batch.incr("{t}edits")
            batch.get("{t}name")
            batch.ttl("{t}name")
            batch.entry("{t}absent")
            batch.set_with_version("{t}name", b"Ada L")
        assert batch.results[:-1] == [True, 1, b"Ada", math.inf, None]
        assert batch.results[-1] == db.entry("{t}name").version
        assert db.get_many(["{t}name", "{t}edits"]) == {"{t}name": b"Ada L", "{t}edits": b"1"}

    def test_an_atomic_batch_that_is_left_by_an_exception_is_not_sent(self, db: Any) -> None:
        with pytest.raises(ZeroDivisionError), db.batch() as batch:
            batch.set("{t}a", b"1")
            raise ZeroDivisionError
        assert db.count() == 0

    def test_an_atomic_batch_whose_condition_does_not_hold_is_not_applied_at_all(self, db: Any) -> None:
        db.set("{t}b", b"old")
        batch = db.batch()
        batch.set("{t}a", b"new")
        batch.set("{t}b", b"new", if_absent=True)
        with pytest.raises(Aborted, match=r"operation 1, the set of '\{t\}b'"):
            batch.execute()
        assert db.get_many(["{t}a", "{t}b"]) == {"{t}b": b"old"}

    def test_an_atomic_batch_with_an_error_is_not_applied_at_all(self, db: Any) -> None:
        db.set("{t}b", b"text")
        batch = db.batch()
        batch.set("{t}a", b"new")
        batch.delete("{t}b")
        batch.set("{t}b", b"other")
        batch.incr("{t}b")
        with pytest.raises(NotAnInteger, match="operation 3"):
            batch.execute()
        assert db.get_many(["{t}a", "{t}b"]) == {"{t}b": b"text"}

    def test_an_empty_atomic_batch_is_no_work(self, db: Any) -> None:
        assert db.batch().execute() == []

    def test_an_atomic_batch_has_a_bound(self, db: Any) -> None:
        batch = db.batch()
        for i in range(1_025):
            batch.set(f"{{t}}{i}", b"")
        with pytest.raises(RequestError, match="at most 1024 operations"):
            batch.execute()
        assert db.count() == 0


class ShardedSuite:
    """For a daemon with more than one shard."""

    def test_keys_of_two_shards_make_no_atomic_batch(self, db: Any) -> None:
        batch = db.batch()
        for i in range(64):
            batch.set(f"k{i}", b"")
        with pytest.raises(BadRequest, match=r"another shard.*\{tag\}"):
            batch.execute()
        assert db.count() == 0
