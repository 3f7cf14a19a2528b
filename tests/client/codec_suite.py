"""Values that are more than bytes: what every client does with every daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kio.client import Record
from kio.errors import NotDecodable, PartialFailure

VALUES = {
    "str": ["", "Grüße", "\x00"],
    "json": [None, True, 7, 1.5, "Grüße", [1, [2]], {"a": {"b": None}}],
    "msgpack": [None, False, -7, 1.5, "Grüße", b"\xff", [1, [2]], {1: b"x", "a": {"b": None}}],
}


class Reversed:
    """A codec of one's own, for lists of small numbers."""

    def encode(self, value: list[int]) -> bytes:
        return bytes(reversed(value))

    def decode(self, data: bytes) -> list[int]:
        return list(reversed(data))


class CodecSuite:
    """The store is empty when a test begins."""

    @pytest.mark.parametrize("codec", VALUES)
    def test_what_is_encoded_on_the_way_in_is_decoded_on_the_way_out(self, db: Any, codec: str) -> None:
        coded = db.with_options(codec=codec)
        for value in VALUES[codec]:
            assert coded.set("k", value) is True
            assert coded.get("k") == coded.entry("k").value == value
            assert coded.get_and_set("k", VALUES[codec][0]) == value
            assert coded.get_and_delete("k") == VALUES[codec][0]
            version = coded.set_with_version("k", value)
            assert coded.entry("k")[:2] == (value, version)
            assert coded.set_many({"a": value, "b": value}) == 2
            assert coded.get_many(["a", "b", "absent"]) == {"a": value, "b": value}
            assert dict(coded.scan()) == dict(coded.items()) == {b"k": value, b"a": value, b"b": value}
            assert list(coded.values("k")) == [value]
            assert list(coded.records("a")) == [Record(b"a", value, None)]
            assert sorted(coded.keys()) == [b"a", b"b", b"k"]
        assert coded.get("absent") is None
        assert coded.entry("absent") is None
        assert coded.get_and_delete("absent") is None

    def test_pipelines_and_batches_encode_and_decode(self, db: Any) -> None:
        coded = db.with_options(codec="json")
        for queue in (coded.pipeline(), coded.batch()):
            with queue as q:
                q.set("{t}a", {"n": 1})
                q.get("{t}a")
                q.entry("{t}a")
                q.get_and_set("{t}a", [2])
                q.get_and_delete("{t}a")
            assert [q.results[1], q.results[2].value, *q.results[3:]] == [{"n": 1}, {"n": 1}, {"n": 1}, [2]]

    def test_the_codec_of_the_url_and_of_an_argument(self, connect: Any, url: str) -> None:
        assert connect(f"{url}?codec=json").set("k", [1]) is True
        assert connect(url, codec="json").get("k") == [1]
        assert connect(f"{url}?codec=json", codec="bytes").get("k") == b"[1]"

    def test_a_codec_of_ones_own(self, db: Any) -> None:
        own = db.with_options(codec=Reversed())
        own.set("k", [1, 2, 3])
        assert (own.get("k"), db.get("k")) == ([1, 2, 3], b"\x03\x02\x01")
        assert own.with_options(codec="bytes").get("k") == b"\x03\x02\x01"

    def test_json_is_stored_as_short_as_it_goes_and_counters_stay_raw(self, db: Any) -> None:
        coded = db.with_options(codec="json")
        coded.set("k", {"ä": [1, 2]})
        assert db.get("k") == '{"ä":[1,2]}'.encode()
        assert (coded.incr("n"), coded.get("n"), coded.append("n", b"0"), coded.get("n")) == (1, 1, 2, 10)

    @pytest.mark.parametrize(
        ("codec", "value"), [("str", b"x"), ("json", b"x"), ("json", float("nan")), ("msgpack", object()), ("str", 5)]
    )
    def test_a_value_that_a_codec_does_not_take_is_told_before_anything_is_sent(
        self, db: Any, codec: str, value: Any
    ) -> None:
        coded = db.with_options(codec=codec)
        for write in (lambda: coded.set("k", value), lambda: coded.set_many({"k": value})):
            with pytest.raises((TypeError, ValueError)):
                write()
        assert db.count() == 0

    @pytest.mark.parametrize(
        ("codec", "data"), [("str", b"\xff-secret"), ("json", b"{secret"), ("msgpack", b"\xc1secret")]
    )
    def test_a_value_that_cannot_be_decoded_is_an_error_that_names_the_key_and_not_the_value(
        self, db: Any, codec: str, data: bytes
    ) -> None:
        coded = db.with_options(codec=codec)
        db.set("bad", data)
        for read in (lambda: coded.get("bad"), lambda: coded.entry("bad"), lambda: list(coded.scan())):
            with pytest.raises(NotDecodable, match=rf"bad' is not what the codec {codec} takes") as caught:
                read()
            assert "secret" not in str(caught.value)
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert not caught.value.maybe_applied

    def test_of_a_batch_the_values_that_can_be_decoded_are_told(self, db: Any) -> None:
        db.set_many({"a": b"1", "b": b"?", "c": b"3"})
        coded = db.with_options(codec="json")
        with pytest.raises(PartialFailure) as caught:
            coded.get_many(["a", "b", "c", "absent"])
        assert caught.value.result == {"a": 1, "c": 3}
        assert type(caught.value.errors["b"]) is NotDecodable
        pipeline = coded.pipeline(raise_on_error=False)
        for key in "abc":
            pipeline.get(key)
        first, second, third = pipeline.execute()
        assert (first, type(second), third) == (1, NotDecodable, 3)

    def test_what_was_replaced_or_removed_and_cannot_be_decoded_says_that_it_is_gone(self, db: Any) -> None:
        coded = db.with_options(codec="json")
        db.set("k", b"?")
        with pytest.raises(NotDecodable) as caught:
            coded.get_and_set("k", 1)
        assert caught.value.maybe_applied
        assert coded.get("k") == 1
        db.set("k", b"?")
        batch = coded.batch()
        batch.get_and_delete("k")
        batch.set("k", {"new": True})
        with pytest.raises(NotDecodable):
            batch.execute()
        assert (type(batch.results[0]), batch.results[1]) == (NotDecodable, True)
        assert json.loads(db.get("k")) == {"new": True}
