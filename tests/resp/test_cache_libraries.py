"""The caches of Python's web frameworks, on top of redis-py: each does what its users ask of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.resp.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_aiocache(server: Server) -> None:
    aiocache = pytest.importorskip("aiocache")
    from aiocache.serializers import PickleSerializer

    async def job() -> None:
        async with aiocache.Cache(
            aiocache.Cache.REDIS, endpoint="127.0.0.1", port=server.port, namespace="ns:", serializer=PickleSerializer()
        ) as cache:
            assert await cache.set("k", {"a": [1, 2]}, ttl=100)
            assert await cache.get("k") == {"a": [1, 2]}
            assert await cache.get("none", default="d") == "d"
            assert await cache.multi_set([("a", 1), ("b", 2)], ttl=50)
            assert await cache.multi_get(["a", "none", "b"]) == [1, None, 2]
            with pytest.raises(ValueError, match="already exists"):
                await cache.add("k", 1)
            assert await cache.exists("k")
            assert await cache.expire("k", 10)
            assert await cache.delete("k") == 1
            assert await cache.get("k") is None
            assert await cache.increment("n", 5) == 5
            assert await cache.clear(namespace="ns:")
            assert await cache.get("a") is None

    asyncio.run(job())


def test_dogpile(server: Server) -> None:
    dogpile = pytest.importorskip("dogpile.cache")
    region = dogpile.make_region().configure(
        "dogpile.cache.redis",
        expiration_time=100,
        arguments={"host": "127.0.0.1", "port": server.port, "redis_expiration_time": 200},
    )
    made = []

    def create() -> dict[str, int]:
        made.append(1)
        return {"a": 1}

    assert region.get_or_create("k", create) == {"a": 1}
    assert region.get_or_create("k", create) == {"a": 1}
    assert len(made) == 1
    region.set_multi({"x": 1, "y": 2})
    assert region.get_multi(["x", "none", "y"]) == [1, dogpile.api.NO_VALUE, 2]
    region.delete("k")
    assert region.get("k") is dogpile.api.NO_VALUE
    region.delete_multi(["x", "y"])
    with server.connect() as connection:
        assert connection.call("DBSIZE") == 0
    region.backend.reader_client.close()


def test_cachelib(server: Server) -> None:
    cachelib = pytest.importorskip("cachelib")
    cache = cachelib.RedisCache("127.0.0.1", server.port, key_prefix="lib:", default_timeout=100)
    assert cache.set("k", {"a": 1})
    assert cache.get("k") == {"a": 1}
    assert cache.add("k", 2) is False
    assert cache.add("new", 2, timeout=10) is True
    assert cache.has("new")
    cache.set_many({"a": 1, "b": [2]})
    assert cache.get_many("a", "none", "b") == [1, None, [2]]
    assert cache.get_dict("a", "b") == {"a": 1, "b": [2]}
    assert cache.inc("n", 3) == 3
    assert cache.dec("n") == 2
    assert cache.delete("k") is True
    assert cache.delete_many("a", "b") == ["a", "b"]
    assert cache.set("forever", 1, timeout=0)
    assert cache.clear()
    assert cache.get("forever") is None
    cache._read_client.close()
    cache._write_client.close()


def test_flask_caching(server: Server) -> None:
    flask = pytest.importorskip("flask")
    flask_caching = pytest.importorskip("flask_caching")
    app = flask.Flask("app")
    where = {"CACHE_REDIS_HOST": "127.0.0.1", "CACHE_REDIS_PORT": server.port}
    cache = flask_caching.Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_KEY_PREFIX": "flask:", **where})
    called = []

    @app.route("/")
    @cache.cached(timeout=50)
    def index() -> str:
        called.append(1)
        return "page"

    @cache.memoize(50)
    def double(number: int) -> int:
        called.append(number)
        return 2 * number

    client = app.test_client()
    assert client.get("/").data == client.get("/").data == b"page"
    assert called == [1]
    with app.app_context():
        assert double(4) == double(4) == 8
        assert called == [1, 4]
        cache.delete_memoized(double)
        assert double(4) == 8
        assert called == [1, 4, 4]
        assert cache.set_many({"a": 1, "b": 2})
        assert cache.get_many("a", "b") == [1, 2]
        assert cache.clear()
        assert cache.get("a") is None
        cache.cache._read_client.close()
        cache.cache._write_client.close()


@pytest.fixture
def django(server: Server) -> Iterator[object]:
    pytest.importorskip("django")
    from django.core.cache.backends.redis import RedisCache

    cache = RedisCache(f"redis://127.0.0.1:{server.port}/1", {"KEY_PREFIX": "dj", "TIMEOUT": 100})
    yield cache
    for pool in cache._cache._pools.values():
        pool.disconnect()


def test_django(django: object) -> None:
    from django.core.cache.backends.redis import RedisCache

    assert isinstance(django, RedisCache)
    cache = django
    cache.set("k", {"a": 1})
    assert cache.get("k") == {"a": 1}
    assert cache.add("k", 2) is False
    assert cache.add("new", 2) is True
    assert cache.get("none", "default") == "default"
    cache.set_many({"a": 1, "b": "text"}, timeout=30)
    assert cache.get_many(["a", "b", "none"]) == {"a": 1, "b": "text"}
    assert cache.incr("a", 5) == 6
    assert cache.decr("a") == 5
    with pytest.raises(ValueError, match="not found"):
        cache.incr("none")
    assert cache.touch("a", 1000) is True
    assert cache.touch("none") is False
    assert cache.has_key("a")
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.set("short", 1, timeout=1)
    cache.set("forever", 1, timeout=None)
    assert cache.get_or_set("made", lambda: 7) == 7
    assert cache.delete("k") is True
    cache.delete_many(["a", "b"])
    time.sleep(1.1)
    assert cache.get("short") is None
    assert cache.get("forever") == 1
    cache.clear()
    assert cache.get("forever") is None
