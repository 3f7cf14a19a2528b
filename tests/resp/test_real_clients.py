"""Programs that speak to a Redis speak to kio: redis-py in both protocols, its asyncio half, the command-line tools,
ioredis.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import redis.asyncio as redis_aio
from redis.exceptions import LockNotOwnedError, ResponseError, WatchError

from tests.resp.resp_codec import Error, command
from tests.resp.servers import Server

LIMIT_S = 30.0


@pytest.fixture(params=[None, 2, 3], ids=["default", "resp2", "resp3"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[redis_py.Redis]:
    """redis-py as it is by default, and told which protocol to speak."""
    with redis_py.Redis(port=server.port, protocol=request.param) as connected:
        yield connected


def test_redis_py_takes_its_usual_steps(client: redis_py.Redis) -> None:
    assert client.ping() is True
    assert client.set("k", "v", ex=1000) is True
    assert client.get("k") == b"v"
    assert 998 <= client.ttl("k") <= 1000
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", get=True) == b"v"
    assert client.get("none") is None
    assert client.mset({"a": 1, "b": 2.5, "c": b"\r\n"}) is True
    assert client.mget("a", "none", "b", "c") == [b"1", None, b"2.5", b"\r\n"]
    assert client.incr("a", 41) == 42
    assert client.incrbyfloat("b", 0.5) == 3.0
    assert client.append("k", "xyz") == 4
    assert client.getrange("k", 1, 2) == b"xy"
    assert client.setrange("k", 2, "!") == 4
    assert client.exists("a", "b", "a") == 3
    assert client.delete("a", "none") == 1
    assert client.expire("b", 100) is True
    assert client.persist("b") is True
    assert client.expireat("b", 4_000_000_000) is True
    assert client.expiretime("b") == 4_000_000_000
    assert client.type("k") == b"string"
    assert client.rename("k", "l") is True
    assert client.copy("l", "k") is True
    assert client.dbsize() == 4
    assert sorted(client.keys("*")) == sorted(client.scan_iter(count=1)) == [b"b", b"c", b"k", b"l"]
    assert client.setbit("bits", 7, 1) == 0
    assert client.bitcount("bits") == 1
    assert client.bitpos("bits", 1) == 7
    assert client.bitfield("bits").incrby("u8", 0, 5).get("u4", 0).execute() == [6, 0]
    assert client.getdel("bits") == b"\x06"
    assert client.getex("b", persist=True) == b"3"
    assert client.object("encoding", "b") in (b"int", b"embstr", b"raw")
    assert client.echo("hello") == b"hello"
    assert client.client_setname("somebody") is True
    assert client.client_id() > 0
    assert client.flushdb() is True
    assert client.dbsize() == 0


def test_redis_py_is_told_of_errors_as_it_expects_them(client: redis_py.Redis) -> None:
    client.set("k", "text")
    with pytest.raises(ResponseError, match="not an integer"):
        client.incr("k")
    with pytest.raises(ResponseError, match="unknown command"):
        client.execute_command("NOSUCH")
    with pytest.raises(ResponseError, match="wrong number of arguments"):
        client.execute_command("GET")
    with pytest.raises(ResponseError, match="no such key"):
        client.rename("none", "k")
    assert client.get("k") == b"text"


@pytest.mark.parametrize("is_transaction", [True, False])
def test_redis_py_pipelines(client: redis_py.Redis, is_transaction: bool) -> None:
    with client.pipeline(transaction=is_transaction) as pipe:
        pipe.set("k", 1).incr("k").get("k").get("none").mget("k", "none")
        assert pipe.execute() == [True, 2, b"2", None, [b"2", None]]
        pipe.set("k", "text").incr("k").set("after", 1)
        with pytest.raises(ResponseError, match="not an integer"):
            pipe.execute()
        assert client.get("after") == b"1"
        for number in range(5000):
            pipe.set(f"many:{number}", number)
        assert pipe.execute() == [True] * 5000


def test_redis_py_transactions_watch_and_run_again(client: redis_py.Redis) -> None:
    client.set("k", 0)
    tries: list[int] = []

    def increment(pipe: Any) -> None:
        value = int(pipe.get("k"))
        if not tries:
            client.set("k", 10)
        tries.append(value)
        pipe.multi()
        pipe.set("k", value + 1)

    assert client.transaction(increment, "k") == [True]
    assert tries == [0, 10]
    assert client.get("k") == b"11"
    with client.pipeline() as pipe:
        pipe.watch("k")
        client.delete("k")
        pipe.multi()
        pipe.get("k")
        with pytest.raises(WatchError):
            pipe.execute()


def test_many_threads_share_a_redis_py(client: redis_py.Redis) -> None:
    def count() -> None:
        for _ in range(200):
            client.incr("counter")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert client.get("counter") == b"1600"


def test_a_redis_py_lock_is_held_by_one(server: Server) -> None:
    """Its release is a script: where there are none, the lock ends with its time."""
    with server.connect() as connection:
        has_scripts = not isinstance(connection.call("EVAL", "return 1", 0), Error)
    with redis_py.Redis(port=server.port) as client:
        first, second = client.lock("lock", timeout=0.5), client.lock("lock", timeout=0.5, blocking=False)
        assert first.acquire() is True
        assert second.acquire() is False
        assert first.locked() is True
        assert first.owned() is True
        if has_scripts:
            first.release()
        else:
            with pytest.raises(ResponseError, match="unknown command"):
                first.release()
            time.sleep(0.6)
        assert second.acquire() is True
        if has_scripts:
            client.delete("lock")
            with pytest.raises(LockNotOwnedError):
                second.release()


def test_databases_are_apart_for_redis_py(server: Server) -> None:
    with redis_py.Redis(port=server.port, db=0) as zero, redis_py.Redis(port=server.port, db=5) as five:
        zero.set("k", 0)
        five.set("k", 5)
        assert zero.get("k") == b"0"
        assert five.get("k") == b"5"
        assert zero.move("k", 5) is False
        five.flushdb()
        assert zero.get("k") == b"0"


def run(job: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(job, LIMIT_S)

    asyncio.run(limited())


@pytest.mark.parametrize("protocol", [None, 2, 3])
def test_redis_py_in_asyncio(server: Server, protocol: int | None) -> None:
    async def job() -> None:
        async with redis_aio.Redis(port=server.port, protocol=protocol) as client:
            assert await client.set("k", "v")
            assert await client.get("k") == b"v"
            await asyncio.gather(*(client.incr("counter") for _ in range(100)))
            assert await client.get("counter") == b"100"
            async with client.pipeline(transaction=True) as pipe:
                assert await pipe.set("a", 1).incr("a").get("none").execute() == [True, 2, None]
            assert sorted([key async for key in client.scan_iter()]) == [b"a", b"counter", b"k"]

    run(job())


def test_hiredis_parses_what_is_answered(server: Server) -> None:
    hiredis = pytest.importorskip("hiredis")
    with server.connect() as connection:
        for protocol in (2, 3):
            reader = hiredis.Reader()
            connection.call("SET", "k", b"\r\n")
            for words, wanted in ((("MGET", "k", "none"), [b"\r\n", None]), (("STRLEN", "k"), 2)):
                connection.call("HELLO", protocol)
                connection.send(command(*words))
                reader.feed(connection.receive_bytes())
                assert reader.gets() == wanted


def test_redis_py_takes_hiredis_where_it_is_installed() -> None:
    pytest.importorskip("hiredis")
    assert redis_py.connection.DefaultParser.__name__ == "_HiredisParser"


def test_redis_py_with_its_own_parser(server: Server) -> None:
    from redis._parsers import _RESP2Parser, _RESP3Parser

    for protocol, parser in ((2, _RESP2Parser), (3, _RESP3Parser)):
        pool = redis_py.ConnectionPool(port=server.port, protocol=protocol, parser_class=parser)
        with redis_py.Redis.from_pool(pool) as client:
            client.set("k", b"\r\n")
            assert client.mget("k", "none") == [b"\r\n", None]
            assert client.lcs("k", "k", idx=True)


def tool(name: str, server: Server, *arguments: str, typed: bytes = b"") -> str:
    """What a command-line tool prints."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [program, "-h", "127.0.0.1", "-p", str(server.port), *arguments],
        input=typed,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stderr == b"", done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("protocol", [(), ("-3",)], ids=["resp2", "resp3"])
def test_redis_cli_prints_what_is_answered(server: Server, protocol: tuple[str, ...]) -> None:
    assert tool("redis-cli", server, *protocol, "SET", "k", "v") == "OK\n"
    assert tool("redis-cli", server, *protocol, "GET", "k") == "v\n"
    assert tool("redis-cli", server, *protocol, "GET", "none") == "\n"
    assert tool("redis-cli", server, *protocol, "--no-raw", "MGET", "k", "none") == '1) "v"\n2) (nil)\n'
    assert tool("redis-cli", server, *protocol, "--no-raw", "INCR", "n") == "(integer) 1\n"
    assert tool("redis-cli", server, *protocol, "-n", "3", "GET", "k") == "\n"
    typed = b"MULTI\nSET a 1\nINCR a\nEXEC\n"
    assert tool("redis-cli", server, *protocol, typed=typed).split() == ["OK", "QUEUED", "QUEUED", "OK", "2"]
    tool("redis-cli", server, *protocol, "MSET", *(word for at in range(100) for word in (f"scan:{at}", "v")))
    listed = tool("redis-cli", server, *protocol, "--scan", "--pattern", "scan:*").split()
    assert sorted(listed) == sorted(f"scan:{at}" for at in range(100))
    assert tool("redis-cli", server, *protocol, "-x", "SET", "k", typed=b"from stdin") == "OK\n"
    assert tool("redis-cli", server, *protocol, "STRLEN", "k") == "10\n"


def test_redis_cli_loads_in_bulk(server: Server) -> None:
    typed = b"".join(b"*3\r\n$3\r\nSET\r\n$6\r\nk%05d\r\n$1\r\nv\r\n" % number for number in range(10_000))
    assert "errors: 0, replies: 10000" in tool("redis-cli", server, "--pipe", typed=typed)
    assert tool("redis-cli", server, "DBSIZE") == "10000\n"


@pytest.mark.parametrize("more", [(), ("-P", "16"), ("-3",)], ids=["plain", "pipelined", "resp3"])
def test_redis_benchmark_runs_without_an_error(server: Server, more: tuple[str, ...]) -> None:
    printed = tool("redis-benchmark", server, "-t", "ping,set,get,incr,mset", "-q", "-n", "2000", *more)
    results = [line for line in printed.replace("\r", "\n").splitlines() if "requests per second" in line]
    names = [line.split(":")[0].split()[0] for line in results]
    assert names == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"]
    assert "rror" not in printed


IOREDIS = """
const Redis = require("ioredis");
const client = new Redis(Number(process.argv[2]), "127.0.0.1", { maxRetriesPerRequest: 1 });
(async () => {
  const out = [];
  out.push(await client.set("k", "v", "EX", 1000), await client.get("k"), await client.get("none"));
  out.push(await client.mset({ a: 1, b: 2 }), await client.mget("a", "b", "none"), await client.incr("a"));
  out.push(await client.multi().set("m", 1).incr("m").exec(), await client.pipeline().get("k").strlen("k").exec());
  out.push((await client.getBuffer("k")).length, (await client.scan(0, "COUNT", 1000))[1].sort());
  out.push(await client.incr("k").catch((error) => error.message), await client.quit());
  console.log(JSON.stringify(out));
})();
"""


@pytest.fixture(scope="session")
def ioredis() -> Iterator[Path]:
    """A directory with ioredis in it; skips where node or npm is not there, or npm cannot fetch."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed")
    with tempfile.TemporaryDirectory(prefix="ioredis-") as home:
        command = [
            npm,
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--fetch-retries=0",
            "ioredis@5",
        ]
        try:
            done = subprocess.run(command, cwd=home, capture_output=True, timeout=45, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not install ioredis within 45 s")
        if done.returncode:
            pytest.skip(f"npm cannot install ioredis: {done.stderr.decode(errors='replace')[-200:]}")
        Path(home, "job.js").write_text(IOREDIS)
        yield Path(home)


def test_ioredis_takes_its_usual_steps(server: Server, ioredis: Path) -> None:
    done = subprocess.run(
        ["node", "job.js", str(server.port)], cwd=ioredis, capture_output=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [
        *("OK", "v", None),
        *("OK", ["1", "2", None], 2),
        *([[None, "OK"], [None, 2]], [[None, "v"], [None, 1]]),
        *(1, ["a", "b", "k", "m"]),
        *("ERR value is not an integer or out of range", "OK"),
    ]
