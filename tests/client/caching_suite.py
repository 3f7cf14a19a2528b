"""Results of functions that are kept: what every client does with every daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

import kio
from kio.errors import KeyEmpty, RequestError
from tests.client.awaited import Awaited


class Kept:
    """A function whose results are kept, either client behind the same face; `calls` are the arguments it ran with."""

    def __init__(self, db: Any, function: Callable[..., Any], **settings: Any) -> None:
        self.calls: list[Any] = []
        self._db = db

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(args)
            return function(*args, **kwargs)

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return counted(*args, **kwargs)

        self.made = db.cached(**settings)(awaited if isinstance(db, Awaited) else counted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._finished(self.made(*args, **kwargs))

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return self._finished(self.made.invalidate(*args, **kwargs))

    def _finished(self, made: Any) -> Any:
        return self._db._plain(made) if isinstance(self._db, Awaited) else made


def double(number: int, *, note: str = "") -> list[Any]:
    return [2 * number, note]


def fail(number: int) -> None:
    raise ZeroDivisionError(number)


class CachingSuite:
    """The store is empty when a test begins."""

    @pytest.mark.parametrize("single_flight", [False, True])
    def test_a_result_is_computed_once_for_the_same_arguments(self, db: Any, single_flight: bool) -> None:
        kept = Kept(db, double, ttl=100, single_flight=single_flight)
        assert kept(1) == kept(1) == kept(number=1) == kept(1, note="") == [2, ""]
        assert kept(2, note="x") == kept(2, note="x") == [4, "x"]
        assert kept.calls == [(1,), (2,)]
        assert db.count() == 2, "no lock is left"
        assert all(90 < db.ttl(key) <= 100 for key in db.scan(values=False))

    def test_none_is_a_result_and_an_error_is_not(self, db: Any) -> None:
        nothing = Kept(db, lambda: None, ttl=100)
        assert nothing() is nothing() is None
        assert len(nothing.calls) == 1
        failing = Kept(db, fail, ttl=100, single_flight=True)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                failing(1)
        assert len(failing.calls) == 2
        assert db.count() == 1, "no lock is left"

    @pytest.mark.parametrize("single_flight", [False, True])
    def test_invalidate_forgets_the_result_for_these_arguments(self, db: Any, single_flight: bool) -> None:
        kept = Kept(db, double, ttl=100, single_flight=single_flight)
        kept(1)
        kept(2)
        assert kept.invalidate(1) is True
        assert kept.invalidate(number=1) is False
        kept(1)
        kept(2)
        assert kept.calls == [(1,), (2,), (1,)]

    def test_what_is_invalidated_while_it_is_computed_is_not_kept(self, db: Any, url: str) -> None:
        def outdated() -> str:
            with kio.connect(url) as other:
                assert other.cached(ttl=1, key=lambda: "page")(outdated).invalidate() is False
            return "outdated"

        kept = Kept(db, outdated, ttl=100, single_flight=True, key=lambda: "page")
        assert kept() == "outdated"
        assert db.count() == 0

    def test_an_expired_result_is_computed_anew(self, db: Any) -> None:
        kept = Kept(db, double, ttl=0.1)
        kept(1)
        until = time.monotonic() + 10
        while db.count():
            assert time.monotonic() < until
        kept(1)
        assert len(kept.calls) == 2

    def test_a_stale_result_is_given_while_another_computes_and_then_the_new_one(self, db: Any) -> None:
        kept = Kept(db, double, ttl=0.2, stale=100, key=lambda number: f"double:{number}")
        kept(1)
        assert kept(1) == [2, ""]
        time.sleep(0.3)
        db.set("double:1\0lock", b"somebody else computes", ttl=100)
        assert kept(1) == [2, ""]
        assert len(kept.calls) == 1
        db.delete("double:1\0lock")
        assert kept(1) == [2, ""]
        assert len(kept.calls) == 2
        assert 99 < db.ttl("double:1") <= 101
        assert db.count() == 1

    def test_who_waits_in_vain_computes_after_the_flight(self, db: Any) -> None:
        kept = Kept(db, double, ttl=100, single_flight=True, flight=0.3, key=lambda number: f"double:{number}")
        db.set("double:1\0lock", b"somebody else computes, and died")
        started_s = time.monotonic()
        assert kept(1) == [2, ""]
        assert 0.3 <= time.monotonic() - started_s < 5
        assert kept(1) == [2, ""]
        assert len(kept.calls) == 1

    def test_a_key_and_a_codec_may_be_given(self, db: Any) -> None:
        kept = Kept(db.with_options(codec="json"), double, ttl=100, key=lambda number: f"double:{number}")
        kept(3)
        assert db.get("double:3") == b'[6,""]'
        raw = Kept(db, lambda: b"raw", ttl=100, key=lambda: b"raw", codec="bytes")
        assert raw() == raw() == db.get("raw") == b"raw"
        empty = Kept(db, double, ttl=100, key=lambda number: "")
        with pytest.raises(KeyEmpty):
            empty(1)

    def test_what_cannot_be_decoded_is_computed_anew(self, db: Any) -> None:
        kept = Kept(db, double, ttl=100, key=lambda number: "k")
        db.set("k", b"\xc1")
        assert kept(1) == [2, ""]
        assert kept(1) == [2, ""]
        assert len(kept.calls) == 1

    def test_a_result_that_cannot_be_encoded_is_told_and_leaves_no_lock(self, db: Any) -> None:
        kept = Kept(db, lambda: {object()}, ttl=100, single_flight=True)
        with pytest.raises(TypeError):
            kept()
        assert db.count() == 0

    def test_a_result_that_is_too_large_is_returned_and_leaves_no_lock(self, db: Any) -> None:
        kept = Kept(db, lambda: bytes(20 << 20), ttl=100, single_flight=True)
        assert len(kept()) == 20 << 20
        assert db.count() == 0

    @pytest.mark.parametrize("settings", [{"ttl": 0}, {"ttl": 1, "stale": -1}, {"ttl": 1, "flight": 0}])
    def test_settings_out_of_range_are_told_at_once(self, db: Any, settings: dict[str, Any]) -> None:
        with pytest.raises(RequestError):
            Kept(db, double, **settings)
