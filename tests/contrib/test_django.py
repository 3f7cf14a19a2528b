"""The Django backend does what Django wants of a cache, and what kio adds, on a real daemon."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from django.core.cache import CacheHandler
from django.core.cache.backends.base import CacheKeyWarning, InvalidCacheBackendError

import kio
from kio.contrib.django import KioCache
from kio.errors import ConfigError, ConnectionLost, NotDecodable, ValueTooLarge


def made(url: str, **params: Any) -> Any:
    """A cache as Django makes it of its settings."""
    settings = {"default": {"BACKEND": "kio.contrib.django.KioCache", "LOCATION": url, **params}}
    return CacheHandler(settings)["default"]


@pytest.fixture
def cache(url: str) -> Any:
    return made(url)


@pytest.fixture
def raw(url: str) -> Any:
    with kio.connect(url) as db:
        yield db


def wait_until_absent(cache: Any, key: str) -> None:
    until = time.monotonic() + 10
    while cache.has_key(key):
        assert time.monotonic() < until
        time.sleep(0.02)


class Custom:
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Custom({self.number})"


@pytest.mark.parametrize(
    "value",
    [
        "text", "Iñtërnâtiônàlizætiøn", b"\x00\xff", b"42", "42", "", b"", 0, -5, 2**70, 1.5, True, False, None,
        [1, {"a": (2, {3})}], date(2100, 1, 2), Custom(3),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_set_is_got_back_as_it_was(cache: Any, value: Any) -> None:
    cache.set("k", value)
    got = cache.get("k", "default")
    assert got == value
    assert type(got) is type(value)
    assert cache.get_many(["k"]) == {"k": value}
    assert cache.get_or_set("k", "other") == value


@pytest.mark.parametrize("key", ["plain", "ünïcode", "a:b/c?", "x" * 200])
def test_a_key_may_be_any_text(cache: Any, key: str) -> None:
    cache.set(key, "value")
    assert (cache.get(key), key in cache, cache.delete(key), key in cache) == ("value", True, True, False)


def test_an_absent_key_is_the_default(cache: Any) -> None:
    assert cache.get("absent") is None
    assert cache.get("absent", "default") == "default"
    cache.set("none", None)
    assert cache.get("none", "default") is None
    assert cache.has_key("none") is True
    assert "absent" not in cache


def test_add_stores_only_where_nothing_is(cache: Any) -> None:
    assert cache.add("k", 1) is True
    assert cache.add("k", 2) is False
    assert cache.get("k") == 1


def test_delete_tells_whether_it_was_there(cache: Any) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3})
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    cache.delete_many(["b", "absent"])
    assert cache.get_many(["a", "b", "c"]) == {"c": 3}


def test_set_many_and_get_many_are_one_request_each_and_tell_what_failed(cache: Any) -> None:
    assert cache.set_many({f"k{i}": i for i in range(1_000)}) == []
    assert cache.get_many(f"k{i}" for i in range(0, 2_000, 500)) == {"k0": 0, "k500": 500}
    assert cache.set_many({"fits": 1, "large": bytes(20 << 20)}) == ["large"]
    assert cache.get("fits") == 1
    with pytest.raises(ValueTooLarge):
        cache.set("large", bytes(20 << 20))


def test_the_timeout_of_the_settings_holds_unless_one_is_given(url: str, raw: Any) -> None:
    cache = made(url, TIMEOUT=100)
    cache.set("default", 1)
    cache.add("added", 1)
    cache.set("own", 1, timeout=1_000)
    cache.set("never", 1, timeout=None)
    cache.set_many({"many": 1}, timeout=500)
    ttls = {name: raw.ttl(f":1:{name}") for name in ("default", "added", "own", "never", "many")}
    assert ttls["never"] == float("inf")
    for name, seconds in {"default": 100, "added": 100, "own": 1_000, "many": 500}.items():
        assert seconds - 10 < ttls[name] <= seconds
    forever = made(url, TIMEOUT=None)
    forever.set("k", 1)
    assert raw.ttl(":1:k") == float("inf")


def test_a_value_is_gone_after_its_timeout(cache: Any) -> None:
    cache.set("k", 1, timeout=0.1)
    cache.set("stays", 1, timeout=sys.maxsize)
    wait_until_absent(cache, "k")
    assert cache.get("k") is None
    assert cache.add("k", 2) is True
    assert cache.get("stays") == 1


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_of_nothing_is_an_expiry_at_once(cache: Any, timeout: int) -> None:
    cache.set("k", 1)
    cache.set("k", 2, timeout=timeout)
    assert cache.get("k") is None
    assert cache.add("k", 3, timeout=timeout) is True
    assert cache.get("k") is None
    cache.set("k", 4)
    assert cache.add("k", 5, timeout=timeout) is False
    assert cache.touch("k", timeout=timeout) is True
    assert cache.touch("k", timeout=timeout) is False
    cache.set_many({"k": 6, "l": 7}, timeout=timeout)
    assert cache.get_many(["k", "l"]) == {}


def test_touch_gives_another_timeout(cache: Any, raw: Any) -> None:
    assert cache.touch("absent") is False
    assert cache.touch("absent", timeout=None) is False
    cache.set("k", 1, timeout=10)
    assert cache.touch("k", timeout=1_000) is True
    assert raw.ttl(":1:k") > 900
    assert cache.touch("k") is True
    assert 200 < raw.ttl(":1:k") <= 300
    for _ in range(2):
        assert cache.touch("k", timeout=None) is True
        assert raw.ttl(":1:k") == float("inf")


def test_incr_and_decr_count_and_leave_the_timeout(cache: Any, raw: Any) -> None:
    cache.set("n", 41, timeout=1_000)
    assert (cache.incr("n"), cache.incr("n", 10), cache.decr("n"), cache.decr("n", 10)) == (42, 52, 51, 41)
    assert cache.incr("n", -41) == cache.get("n") == 0
    assert raw.get(":1:n") == b"0"
    assert raw.ttl(":1:n") > 900
    assert raw.incr(":1:n", 7) == cache.get("n") == 7
    cache.set("large", 2**63)
    assert cache.incr("large") == 2**63 + 1


def test_incr_of_an_absent_key_is_a_value_error_and_makes_none(cache: Any) -> None:
    for call in (cache.incr, cache.decr, cache.incr_version, cache.decr_version):
        with pytest.raises(ValueError, match="Key 'absent' not found"):
            call("absent")
    assert "absent" not in cache


def test_incr_from_many_threads_loses_none(url: str) -> None:
    handler = CacheHandler({"default": {"BACKEND": "kio.contrib.django.KioCache", "LOCATION": url}})
    handler["default"].set("n", 0)

    def count(_: int) -> None:
        for _ in range(25):
            handler["default"].incr("n")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert handler["default"].get("n") == 100


def test_versions_keep_values_apart(url: str) -> None:
    one, two = made(url), made(url, VERSION=2)
    one.set("k", "of one")
    assert (one.get("k", version=1), one.get("k", version=2), two.get("k")) == ("of one", None, None)
    two.set("k", "of two")
    one.set_many({"m": 3}, version=3)
    assert (one.get("k"), one.get("k", version=2), two.get_many(["m"], version=3)) == ("of one", "of two", {"m": 3})
    assert one.has_key("k", version=2) is True
    assert one.delete("k", version=2) is True
    assert (two.get("k"), one.get("k")) == (None, "of one")
    one.add("n", 1, version=2)
    assert (two.incr("n"), one.incr("n", version=2)) == (2, 3)


def test_a_version_is_raised_with_its_timeout(cache: Any, raw: Any) -> None:
    cache.set("k", "value", timeout=1_000)
    assert cache.incr_version("k") == 2
    assert (cache.get("k"), cache.get("k", version=2)) == (None, "value")
    assert raw.ttl(":2:k") > 900
    assert cache.incr_version("k", 5, version=2) == 7
    assert cache.decr_version("k", version=7) == 6
    assert cache.incr_version("k", 0, version=6) == 6
    assert cache.get("k", version=6) == "value"


def test_a_prefix_and_a_function_make_the_keys(url: str, raw: Any) -> None:
    prefixed = made(url, KEY_PREFIX="site")
    prefixed.set("k", 1)
    assert made(url).get("k") is None
    assert list(raw.keys()) == [b"site:1:k"]
    own = made(url, KEY_FUNCTION=lambda key, prefix, version: f"own-{key}-{version}")
    own.set("k", 2)
    assert raw.get("own-k-1") == b"2"


def test_clear_empties_the_keyspace_and_no_other(cache: Any, daemon: Any) -> None:
    cache.set_many({"a": 1, "b": 2})
    cache.clear()
    assert cache.get_many(["a", "b"]) == {}
    with kio.connect(daemon.url) as db:
        assert db.get("other") == b"data"


def test_get_or_set_stores_what_is_absent(cache: Any) -> None:
    assert cache.get_or_set("k", "value") == "value"
    assert cache.get_or_set("k", "other") == "value"
    assert cache.get_or_set("called", lambda: "made") == "made"
    assert cache.get_or_set("none", None) is None
    assert cache.get("none", "default") is None
    assert cache.get_or_set("v", 1, version=5) == cache.get("v", version=5) == 1


@pytest.mark.parametrize("key", ["with space", "with\nnewline", "x" * 251])
def test_a_key_that_memcached_would_refuse_is_warned_of_and_works(cache: Any, key: str) -> None:
    with pytest.warns(CacheKeyWarning):
        cache.set(key, 1)
    with pytest.warns(CacheKeyWarning):
        assert cache.get(key) == 1
    for call in (cache.add, cache.set_many):
        with pytest.warns(CacheKeyWarning):
            call(*([key, 2] if call == cache.add else [{key: 1}]))


def test_a_value_that_cannot_be_read_is_an_error_that_names_its_key(cache: Any, raw: Any) -> None:
    raw.set(":1:k", b"no pickle")
    with pytest.raises(NotDecodable, match=":1:k"):
        cache.get("k")


def test_what_cannot_be_pickled_is_told_and_nothing_is_stored(cache: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        cache.set("k", threading.Lock())
    assert "k" not in cache


def test_the_awaited_methods_do_the_same(cache: Any) -> None:
    async def main() -> None:
        await cache.aset("k", 1)
        assert (await cache.aget("k"), await cache.aincr("k"), await cache.adecr("k", 2)) == (1, 2, 0)
        assert await cache.aadd("k", 5) is False
        assert await cache.aset_many({"a": 1, "b": 2}) == []
        assert await cache.aget_many(["a", "b", "absent"]) == {"a": 1, "b": 2}
        assert await cache.ahas_key("a") is True
        await cache.adelete_many(["a", "b"])
        assert await cache.ahas_key("a") is False
        assert await cache.aincr_version("k") == 2
        assert await cache.adecr_version("k", version=2) == 1
        assert await cache.atouch("k", 5) is True
        assert await cache.aget_or_set("new", 7) == 7
        assert await cache.adelete("k") is True
        with pytest.raises(ValueError, match="not found"):
            await cache.aincr("k")
        await cache.aclear()

    asyncio.run(main())


def test_threads_and_requests_share_the_connections(url: str) -> None:
    first, second = KioCache(url, {}), KioCache(url, {"OPTIONS": {"MAX_ENTRIES": 5}})
    first.set("k", 1)
    first.close()
    assert second.get("k") == 1
    assert first._db is second._db
    assert KioCache(url, {"OPTIONS": {"timeout": 1}})._db is not first._db


@pytest.mark.parametrize(
    ("url", "options"), [("redis://127.0.0.1", {}), ("kio://h", {"speed": 9}), ("kio://h", {"codec": "json"})]
)
def test_wrong_settings_are_told_when_the_cache_is_made(url: str, options: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, InvalidCacheBackendError)):
        made(url, OPTIONS=options)


def test_a_daemon_that_is_away_is_told_when_the_cache_is_used() -> None:
    cache = made("kio://127.0.0.1:1", OPTIONS={"timeout": 0.2, "retries": False})
    with pytest.raises(ConnectionLost):
        cache.get("k")
