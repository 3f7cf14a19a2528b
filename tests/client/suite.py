"""What every client does with every daemon; the modules that collect it say which."""

from __future__ import annotations

from typing import Any

import pytest

from kio.client import Record
from kio.errors import KeyEmpty, KeyTooLarge, ValueTooLarge


class MethodSuite:
    """The store is empty when a test begins."""

    def test_what_was_set_is_got_back(self, db: Any) -> None:
        db.set(b"k", b"v")
        assert db.get(b"k") == b"v"
        db.set(b"k", b"w")
        assert db.get(b"k") == b"w"

    def test_an_absent_key_is_none_and_an_empty_value_is_not(self, db: Any) -> None:
        db.set(b"empty", b"")
        assert db.get(b"empty") == b""
        assert db.get(b"absent") is None

    def test_delete_and_exists_tell_what_was_there(self, db: Any) -> None:
        db.set(b"k", b"v")
        assert db.exists(b"k") is True
        assert db.delete(b"k") is True
        assert db.delete(b"k") is False
        assert db.exists(b"k") is False
        assert db.get(b"k") is None

    def test_a_str_key_is_its_utf8_bytes(self, db: Any) -> None:
        db.set("schlüssel", b"v")
        assert db.get("schlüssel".encode()) == b"v"
        assert db.get_many(["schlüssel", "schlüssel".encode()]) == {"schlüssel": b"v", "schlüssel".encode(): b"v"}

    @pytest.mark.parametrize("value", [b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview")])
    def test_bytes_like_values_come_back_as_bytes(self, db: Any, value: Any) -> None:
        db.set("one", value)
        db.set_many({"many": value})
        assert db.get("one") == db.get("many") == bytes(value)
        assert type(db.get("one")) is bytes

    def test_a_memoryview_with_gaps_or_wide_items_is_its_bytes(self, db: Any) -> None:
        strided = memoryview(b"a-b-c-")[::2]
        wide = memoryview(b"12345678").cast("I")
        db.set_many([("strided", strided), ("wide", wide)])
        assert db.get_many(["strided", "wide"]) == {"strided": b"abc", "wide": b"12345678"}

    @pytest.mark.parametrize("key", [b"\x00", bytes(range(256)), b"\xff\xfe", b"k" * 65_535])
    def test_a_key_may_be_any_bytes(self, db: Any, key: bytes) -> None:
        db.set(key, b"v")
        assert db.get(key) == b"v"
        assert list(db.keys()) == [key]

    def test_batches_keep_the_order_and_the_keys_as_given(self, db: Any) -> None:
        assert db.set_many({"a": b"1", b"b": b"2", "c": b"3"}) == 3
        found = db.get_many(["c", b"absent", b"a", "b"])
        assert list(found.items()) == [("c", b"3"), (b"a", b"1"), ("b", b"2")]
        assert db.exists_many([b"a", "x"]) == {b"a": True, "x": False}
        assert db.delete_many(["a", "x", b"c"]) == 2
        assert db.count() == 1

    def test_empty_batches_are_no_work(self, db: Any) -> None:
        assert db.get_many([]) == {}
        assert db.set_many({}) == 0
        assert db.set_many([]) == 0
        assert db.delete_many(iter([])) == 0
        assert db.exists_many(()) == {}

    def test_of_two_equal_keys_the_last_set_wins(self, db: Any) -> None:
        assert db.set_many([("k", b"1"), (b"k", b"2"), ("other", b"x"), ("k", b"3")]) == 4
        assert db.get("k") == b"3"
        assert db.get_many(["k", "k"]) == {"k": b"3"}
        assert db.delete_many(["k", "k"]) == 1

    def test_batches_take_iterators(self, db: Any) -> None:
        assert db.set_many((f"k{i}", b"%d" % i) for i in range(10)) == 10
        assert len(db.get_many(f"k{i}" for i in range(20))) == 10

    def test_a_batch_of_many_frames_comes_back_whole(self, db: Any) -> None:
        pairs = {b"key:%06d" % i: b"%d" % i for i in range(50_000)}
        assert db.set_many(pairs) == len(pairs)
        assert db.get_many(list(pairs)) == pairs
        assert db.count() == len(pairs)
        assert db.delete_many(pairs) == len(pairs)
        assert db.count() == 0

    def test_a_batch_of_large_values_comes_back_whole(self, db: Any) -> None:
        pairs = {f"key:{i}": bytes([i]) * 700_000 for i in range(40)}
        assert db.set_many(pairs) == len(pairs)
        assert db.get_many(pairs) == pairs

    def test_scan_returns_every_key_once(self, db: Any) -> None:
        pairs = {b"key:%04d" % i: b"%d" % i for i in range(1_100)}
        db.set_many(pairs)
        db.set("other", b"x")
        assert sorted(db.scan(b"key:", limit=100)) == sorted(pairs.items())
        assert sorted(db.scan("key:", values=False)) == sorted(pairs)
        assert sorted(db.keys()) == sorted([*pairs, b"other"])
        assert sorted(db.values("key:")) == sorted(pairs.values())
        assert dict(db.items()) == {**pairs, b"other": b"x"}
        assert list(db.keys("nothing")) == []

    def test_a_scan_picks_the_keys_that_match_a_pattern(self, db: Any) -> None:
        pairs = {b"key:%04d" % i: b"%d" % i for i in range(300)} | {b"*": b"star", b"[x]": b"brackets"}
        db.set_many(pairs)
        assert sorted(db.scan(match="key:00[1-2]?", limit=50)) == [(b"key:%04d" % i, b"%d" % i) for i in range(10, 30)]
        assert sorted(db.keys(match=b"*9?")) == [b"key:%04d" % (i * 100 + 90 + j) for i in range(3) for j in range(10)]
        assert list(db.values(match="\\[x]")) == [b"brackets"]
        assert list(db.items(match="\\*")) == [(b"*", b"star")]
        assert list(db.records("key:", match="*0007")) == [Record(b"key:0007", b"7", None)]
        assert sorted(db.keys(match="*")) == sorted(pairs)
        assert list(db.keys(match="")) == []

    def test_a_prefix_and_a_pattern_hold_both(self, db: Any) -> None:
        db.set_many({"a:1": b"", "a:2": b"", "b:1": b""})
        assert list(db.keys("a:", match="*1")) == [b"a:1"]
        assert list(db.keys("a:", match="a*:2")) == [b"a:2"]
        assert list(db.keys("a", match="a:1*")) == [b"a:1"]
        assert list(db.keys("a:", match="b*")) == []

    def test_count_and_clear(self, db: Any) -> None:
        db.set_many({f"k{i}": b"v" for i in range(100)})
        assert db.count() == 100
        assert db.clear() == 100
        assert db.count() == 0
        assert list(db.keys()) == []

    def test_keyspaces_never_meet(self, db: Any) -> None:
        other = db.with_options(keyspace=7)
        db.set("k", b"here")
        other.set("k", b"there")
        other.set("only", b"there")
        assert (db.get("k"), other.get("k")) == (b"here", b"there")
        assert (db.count(), other.count()) == (1, 2)
        assert other.clear() == 2
        assert db.get("k") == b"here"

    def test_ping_tells_seconds_and_stats_tells_a_map(self, db: Any) -> None:
        assert 0 < db.ping() < 5
        assert isinstance(db.stats(), dict)
        assert db.compact() >= 0

    def test_a_pipeline_answers_in_order(self, db: Any) -> None:
        with db.pipeline() as p:
            p.set("a", b"1")
            p.get("a")
            p.set(b"a", b"2")
            p.get("a")
            p.exists("b")
            p.delete("a")
            p.get("a")
            assert len(p) == 7
        assert p.results == [True, b"1", True, b"2", False, True, None]

    def test_a_pipeline_may_be_longer_than_the_window(self, db: Any) -> None:
        with db.pipeline() as p:
            for i in range(3_000):
                p.set(f"k{i}", b"%d" % i)
            assert p.execute() == [True] * 3_000
            for i in range(3_000):
                p.get(f"k{i}")
        assert p.results == [b"%d" % i for i in range(3_000)]

    def test_limits_are_told_and_the_connection_lives_on(self, db: Any) -> None:
        with pytest.raises(KeyEmpty):
            db.set(b"", b"v")
        with pytest.raises(KeyTooLarge):
            db.set(b"k" * 65_536, b"v")
        with pytest.raises(ValueTooLarge):
            db.set(b"k", bytes(64 << 20))
        assert db.count() == 0
        db.set(b"k", b"v")
        assert db.get(b"k") == b"v"
