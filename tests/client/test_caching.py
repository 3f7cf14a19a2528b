"""Results that are kept, on the reference server: the suite, keys of arguments, a store that is away, many callers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kio
from kio.client.caching import written
from kio.errors import ConnectionLost, Overloaded
from tests.client.caching_suite import CachingSuite, Kept, double
from tests.client.reference import Fail, ReferenceServer


class TestCaching(CachingSuite):
    """Every test of the suite, asked of the reference server."""


class Colour(Enum):
    RED = 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def shape(value: Any) -> Any:
    """What tells a value from another: 1, 1.0 and True are equal, and not the same argument."""
    if isinstance(value, list | tuple):
        return type(value), [shape(each) for each in value]
    if isinstance(value, dict):
        return dict, {name: shape(each) for name, each in value.items()}
    return type(value), repr(value)


@given(PLAIN, PLAIN)
def test_different_arguments_have_different_bytes_and_equal_ones_the_same(one: Any, other: Any) -> None:
    assert (written(one) == written(other)) == (shape(one) == shape(other))


@pytest.mark.parametrize(
    "value", [{1, 2}, frozenset("ab"), Decimal("1.0"), UUID(int=5), datetime(2100, 1, 1, tzinfo=UTC), Colour.RED]
)
def test_other_plain_values_may_be_arguments(value: Any) -> None:
    assert written(value)
    assert written(value) != written(repr(value))


def test_the_order_of_a_dict_or_a_set_makes_no_difference() -> None:
    assert written({"a": 1, "b": 2}) == written({"b": 2, "a": 1})
    assert written({"a": 1}) != written({"a": 2})


def test_an_argument_that_makes_no_key_is_a_type_error_that_says_what_to_do(db: Any) -> None:
    kept = Kept(db, double, ttl=1)
    with pytest.raises(TypeError, match=r"double: a object cannot be part of a key; tell cached the key"):
        kept(object())
    with pytest.raises(TypeError, match="missing a required argument"):
        kept()


def test_a_method_is_kept_with_a_key_of_its_own(url: str) -> None:
    with kio.connect(url) as db:

        class Book:
            title = "Ada"

            @db.cached(ttl=100, key=lambda book, page: f"book:{book.title}:{page}")
            def page(self, page: int) -> str:
                """A page."""
                return f"{self.title} {page}"

        assert (Book().page(1), Book().page(1)) == ("Ada 1", "Ada 1")
        assert list(db.keys()) == [b"book:Ada:1"]
        assert (Book.page.__name__, Book.page.__doc__) == ("page", "A page.")
        assert Book.page.key_of(Book(), 2) == "book:Ada:2"
        assert Book.page.invalidate(Book(), 1) is True


def test_the_wrong_kind_of_function_is_a_type_error(url: str) -> None:
    async def coroutine() -> None: ...

    with kio.connect(url) as db, pytest.raises(TypeError, match=r"kio\.aio"):
        db.cached(ttl=1)(coroutine)
    client = kio.aio.connect(url)
    with pytest.raises(TypeError, match=r"kio\.connect"):
        client.cached(ttl=1)(double)


def away(*_: Any) -> Fail:
    return Fail(Overloaded.code, "no room")


def test_a_store_that_is_away_breaks_no_function_and_is_told_once(
    connect: Callable[..., Any], server: ReferenceServer, caplog: pytest.LogCaptureFixture
) -> None:
    db = connect(server.url, retries=False)
    kept = Kept(db, double, ttl=100, single_flight=True)
    server.script = away
    with caplog.at_level(logging.WARNING):
        assert kept(1) == kept(1) == [2, ""]
    assert [record.message.partition(" function=")[0] for record in caplog.records] == ["cache unavailable:"]
    assert "error=Overloaded" in caplog.text
    with pytest.raises(Overloaded):
        kept.invalidate(1)
    server.script = lambda op, arguments: None
    assert kept(1) == kept(1) == [2, ""]
    assert len(kept.calls) == 3
    server.script = away
    with caplog.at_level(logging.WARNING):
        kept(1)
    assert len(caplog.records) == 2


def test_a_store_that_is_away_is_an_error_where_that_is_wanted(
    connect: Callable[..., Any], server: ReferenceServer
) -> None:
    db = connect(server.url, retries=False)
    kept = Kept(db, double, ttl=100, fail_open=False)
    server.stop()
    try:
        with pytest.raises(ConnectionLost):
            kept(1)
    finally:
        server.start()
    assert kept.calls == []


def test_of_many_threads_and_clients_one_computes_and_all_get_it(url: str) -> None:
    calls = []
    begin = threading.Barrier(8)

    def slow(number: int) -> int:
        calls.append(number)
        time.sleep(0.1)
        return number

    def ask(_: int) -> int:
        with kio.connect(url) as db:
            kept = db.cached(ttl=100, single_flight=True)(slow)
            begin.wait(10)
            return kept(7)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [7] * 8
    assert calls == [7]


def test_of_many_tasks_one_computes_and_one_that_is_cancelled_gives_up_its_turn(url: str) -> None:
    async def main() -> None:
        calls = []
        async with kio.aio.connect(url) as db:

            @db.cached(ttl=100, single_flight=True)
            async def slow(number: int) -> int:
                calls.append(number)
                await asyncio.sleep(0.1)
                return number

            assert await asyncio.gather(*(slow(7) for _ in range(20))) == [7] * 20
            assert calls == [7]
            first = asyncio.create_task(slow(8))
            await asyncio.sleep(0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            started_s = time.monotonic()
            assert await slow(8) == 8
            assert time.monotonic() - started_s < 5
            assert await slow.invalidate(8) is True
            assert await slow.invalidate(8) is False

    asyncio.run(main())
