"""The backend of cachelib, alone and under Flask-Caching, on a real daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask_caching import Cache

import kio
from kio.contrib.cachelib import KioCache
from kio.errors import ConfigError, ConnectionLost, NotAnInteger


@pytest.fixture
def cache(url: str) -> Iterator[KioCache]:
    with closing(KioCache(url, key_prefix="site:")) as cache:
        yield cache


@pytest.fixture
def raw(url: str) -> Any:
    with kio.connect(url) as db:
        yield db


@pytest.mark.parametrize(
    "value", ["text", b"\xff", b"7", 7, -7, 0, 2**70, 1.5, True, [1, {"a": None}], {1, 2}], ids=repr
)
def test_what_is_set_is_got_back_as_it_was(cache: KioCache, value: Any) -> None:
    assert cache.set("k", value) is True
    assert cache.get("k") == value
    assert type(cache.get("k")) is type(value)
    assert cache.get_many("k", "absent") == [value, None]
    assert cache.get_dict("absent", "k") == {"absent": None, "k": value}


def test_add_delete_and_has(cache: KioCache) -> None:
    assert (cache.add("k", 1), cache.add("k", 2), cache.get("k")) == (True, False, 1)
    assert (cache.has("k"), cache.delete("k"), cache.delete("k"), cache.has("k")) == (True, True, False, False)


def test_many_at_once(cache: KioCache) -> None:
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many("b", "a") == [2, 1]
    assert cache.set_many({"c": 3, "large": bytes(20 << 20)}) == ["c"]
    assert cache.delete_many("a", "absent") == ["a", "absent"]
    assert cache.get_many("a", "b", "c") == [None, 2, 3]


def test_timeouts(cache: KioCache, raw: Any) -> None:
    cache.set("default", 1)
    cache.set("own", 1, timeout=1_000)
    cache.add("delta", 1, timeout=timedelta(hours=1))
    cache.set_many({"never": 1}, timeout=0)
    assert 200 < raw.ttl("site:default") <= 300
    assert 900 < raw.ttl("site:own") <= 1_000
    assert 3_500 < raw.ttl("site:delta") <= 3_600
    assert raw.ttl("site:never") == float("inf")
    cache.set("short", 1, timeout=1)
    until = time.monotonic() + 10
    while cache.has("short"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert cache.get("short") is None


def test_counters_are_atomic_and_begin_at_nothing(cache: KioCache) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: cache.inc("n"), range(100)))
    assert (cache.get("n"), cache.inc("n", 5), cache.dec("n"), cache.dec("other", 3)) == (100, 105, 104, -3)
    cache.set("text", "x")
    with pytest.raises(NotAnInteger):
        cache.inc("text")


def test_clear_removes_what_has_the_prefix_and_without_one_the_keyspace(cache: KioCache, url: str, raw: Any) -> None:
    cache.set_many({"a": 1, "b": 2})
    raw.set("elsewhere", b"x")
    assert cache.clear() is True
    assert list(raw.keys()) == [b"elsewhere"]
    with closing(KioCache(url)) as bare:
        assert bare.clear() is True
    assert raw.count() == 0


def test_what_cannot_be_read_is_none(cache: KioCache, raw: Any) -> None:
    raw.set("site:k", b"no pickle")
    assert cache.get("k") is None
    assert cache.get_many("k") == [None]


def test_wrong_options_and_a_daemon_that_is_away_are_told() -> None:
    with pytest.raises(ConfigError):
        KioCache("kio://h", codec="json")
    with pytest.raises(ConfigError):
        KioCache("redis://h")
    with pytest.raises(ConnectionLost):
        KioCache("kio://127.0.0.1:1", timeout=0.2, retries=False).get("k")


def test_flask_caching_caches_views_and_functions(url: str, raw: Any) -> None:
    app = Flask("site")
    app.config.from_mapping(
        CACHE_TYPE="kio.contrib.cachelib.KioCache",
        CACHE_ARGS=[url],
        CACHE_OPTIONS={"key_prefix": "site:", "timeout": 2},
        CACHE_DEFAULT_TIMEOUT=100,
    )
    cache = Cache(app)
    calls: list[str] = []

    @app.get("/page")
    @cache.cached(timeout=50)
    def page() -> str:
        calls.append("page")
        return "content"

    @cache.memoize()
    def double(number: int) -> int:
        calls.append("double")
        return 2 * number

    with app.test_client() as client, app.app_context():
        assert [client.get("/page").text for _ in range(3)] == ["content"] * 3
        assert [double(4), double(4), double(5)] == [8, 8, 10]
        assert calls == ["page", "double", "double"]
        cache.delete_memoized(double, 4)
        assert double(4) == 8
        assert calls.count("double") == 3
        cache.set("k", [1])
        assert (cache.get("k"), cache.has("k"), cache.inc("n") if hasattr(cache, "inc") else 1) == ([1], True, 1)
        assert all(key.startswith(b"site:") for key in raw.keys(match="*"))
        assert 40 < raw.ttl("site:view//page") <= 50
        cache.clear()
        assert raw.count() == 0
        client.get("/page")
        assert calls.count("page") == 2
    app.extensions["cache"][cache].close()
