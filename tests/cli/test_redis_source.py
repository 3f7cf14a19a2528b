"""`kio import --redis`, from a real redis-server into a real daemon: what comes over, what is told, how it fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from kio import client
from kio.cli import redis_source
from kio.cli.redis_source import RedisSource
from kio.cli.transfer import Tally
from kio.errors import ConfigError, ConnectionLost, KioError, NotAuthenticated, NotPermitted, ProtocolError
from kio.limits import EXPIRE_AT_MS_MAX
from tests.cluster.daemon import Daemon, run_cli
from tests.resp.servers import Server, redis_server

KEYS = 20_000
VALUE_BYTES_MAX = 1 << 20


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2, flags=["--max-value-bytes", str(VALUE_BYTES_MAX)]) as running:
        yield running


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("redis") / "sock"
    with redis_server("--proto-max-bulk-len", "512mb", "--unixsocket", str(path)) as running:
        yield running


@pytest.fixture
def there(origin: Server, daemon: Daemon) -> Iterator[redis_py.Redis]:
    """The Redis to read from, empty, as the daemon is too."""
    origin.flush()
    for keyspace in (0, 5, 7):
        with client.connect(daemon.url, keyspace=keyspace) as db:
            db.clear()
    with redis_py.Redis(port=origin.port) as connected:
        yield connected


def source(port: int, *, tally: Tally | None = None, url: str = "") -> RedisSource:
    url = url or f"redis://127.0.0.1:{port}"
    return RedisSource(url, timeout_s=5.0, value_bytes_max=VALUE_BYTES_MAX, tally=tally or Tally())


def test_all_string_keys_come_over_with_their_times_and_a_second_run_changes_nothing(
    there: redis_py.Redis, origin: Server, daemon: Daemon
) -> None:
    wanted = {b"key:%d\xff\r\n\0" % number: b"\0\xfe%d" % number * (number % 50) for number in range(KEYS)}
    with there.pipeline(transaction=False) as pipe:
        for number, (key, value) in enumerate(wanted.items()):
            pipe.set(key, value, px=10_000_000 + number if number % 2 else None)
        pipe.execute()
    there.hset("a-hash", "field", "x")
    there.rpush("a-list", 1, 2)
    there.rpush("another-list", 1, 2)
    url = f"redis://127.0.0.1:{origin.port}/0"
    for _ in range(2):
        ran = daemon.cli("import", "--redis", url, "--json")
        told = json.loads(ran.stdout)
        assert ran.stderr == b""
        assert (told["records"], told["failed"], told["skipped"]) == (KEYS, 0, 3)
        assert told["skipped_kinds"] == {"list": 2, "hash": 1}
        assert told["bytes"] == sum(map(len, wanted.values()))
        now = time.time()
        with client.connect(daemon.url, codec="bytes") as db:
            found = {key: (value, expire_at) for key, value, expire_at in db.records()}
        assert {key: value for key, (value, _) in found.items()} == wanted
        for number, key in enumerate(wanted):
            expire_at = found[key][1]
            if number % 2:
                # Never longer than there; what the run took until this key may be missing.
                assert expire_at is not None
                assert 9_940.0 < expire_at - now <= (10_000_000 + number) / 1000
            else:
                assert expire_at is None
    text = daemon.cli("import", "--redis", url).stdout
    assert text.startswith(b"imported 20,000 records, ")
    assert text.endswith(b" 3 skipped (2 list, 1 hash)\n")


def test_what_kio_cannot_hold_is_told_and_the_rest_comes_over(
    there: redis_py.Redis, origin: Server, daemon: Daemon
) -> None:
    there.set(b"", "empty key")
    there.set(b"k" * 65_536, "long key")
    there.set(b"k" * 65_535, "the longest key")
    there.set("long value", b"v" * (VALUE_BYTES_MAX + 1))
    there.set("the longest value", b"v" * VALUE_BYTES_MAX)
    there.set("for ever", "nearly")
    there.execute_command("PEXPIREAT", "for ever", 1 << 60)
    ran = daemon.cli("import", "--redis", f"redis://127.0.0.1:{origin.port}", check=False)
    assert ran.returncode == 1
    told = sorted(ran.stderr.decode().splitlines())
    assert len(told) == 3
    assert all(line.startswith(f"kio: redis 127.0.0.1:{origin.port} database 0: key ") for line in told)
    assert told[0].endswith("key : it has 0 bytes, a key of kio has 1 to 65,535")
    assert told[1].endswith("k: it has 65,536 bytes, a key of kio has 1 to 65,535")
    assert told[2].endswith("its value has 1,048,577 bytes, more than max_value_bytes, which is 1,048,576")
    with client.connect(daemon.url) as db:
        assert db.count() == 3
        assert db.entry("for ever").expire_at == pytest.approx(EXPIRE_AT_MS_MAX / 1000)
        assert db.exists(b"k" * 65_535)
        assert db.exists("the longest value")


def test_a_database_goes_to_the_keyspace_of_its_number_unless_another_is_named(
    there: redis_py.Redis, origin: Server, daemon: Daemon
) -> None:
    with redis_py.Redis(port=origin.port, db=5) as five:
        five.set("k", "five")
    url = f"redis://127.0.0.1:{origin.port}/5"
    for more, keyspace in (((), 5), (("--keyspace", "7"), 7), (("--keyspace", "0"), 0), (("--prefix", "p:"), 5)):
        daemon.cli("import", "--redis", url, *more)
        with client.connect(daemon.url, keyspace=keyspace, codec="str") as db:
            assert db.get("p:k" if "--prefix" in more else "k") == "five"
            db.clear()
    run_cli("import", "--redis", url, url=f"{daemon.url}/7")
    with client.connect(daemon.url, keyspace=7, codec="str") as db:
        assert db.get("k") == "five"


def test_a_unix_socket_and_another_kio_are_read_too(there: redis_py.Redis, origin: Server, daemon: Daemon) -> None:
    there.set("k", "v")
    path = there.config_get("unixsocket")["unixsocket"]
    with source(0, url=f"unix://{path}?db=0") as opened:
        assert [(record.key, record.value) for record in opened] == [(b"k", b"v")]
        assert opened.where == f"redis {path} database 0"
    with client.connect(daemon.url) as db:
        db.set("k", b"w", expire_at=2_000_000_000)
    with source(int(daemon.cli_status()["ports"]["resp"])) as opened:
        assert opened.total() == 1
        (record,) = opened
        assert record.value == b"w"
        assert record.expire_at == pytest.approx(2_000_000_000, abs=2)


def test_values_are_asked_for_in_groups_that_are_not_too_large(
    there: redis_py.Redis, origin: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_source, "GROUP_BYTES_MAX", 1000)
    for number in range(20):
        there.set(f"k{number}", b"v" * 300)
    there.set("large", b"v" * 5000)
    there.config_resetstat()
    with source(origin.port) as opened:
        assert len(list(opened)) == 21
        assert opened.done == 21
    groups = there.info("commandstats")["cmdstat_exec"]["calls"]
    assert 7 <= groups <= 9


def test_a_key_that_goes_or_changes_its_type_meanwhile_is_left_out(there: redis_py.Redis, origin: Server) -> None:
    there.mset({f"k{number}": "v" for number in range(10)})
    tally = Tally()
    with source(origin.port, tally=tally) as opened:
        found = opened._strings([b"k0", b"k1", b"k2"])
        there.delete("k0", "k1")
        there.rpush("k1", 1)
        assert [record.key for record in opened._values(found)] == [b"k2"]
        assert opened._strings([b"k0", b"k1"]) == []
    assert dict(tally.kinds) == {"list": 1}


def test_a_server_that_is_lost_ends_the_run_even_if_it_comes_back(there: redis_py.Redis, origin: Server) -> None:
    there.mset({f"k{number}": "v" for number in range(5000)})
    with source(origin.port) as opened:
        records = iter(opened)
        next(records)
        there.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(ConnectionLost, match="to run the import again is safe"):
            list(records)
        with pytest.raises(ConnectionLost):
            opened.total()


@pytest.mark.parametrize(
    ("user", "error"),
    [
        ("", NotAuthenticated),
        (":wrong@", NotAuthenticated),
        ("blind:secret@", NotPermitted),
        ("halfblind:secret@", NotPermitted),
    ],
)
def test_a_server_that_does_not_let_us_in_is_an_error_without_the_password(user: str, error: type[KioError]) -> None:
    with redis_server() as guarded:
        with redis_py.Redis(port=guarded.port) as admin:
            admin.set("k", "v")
            admin.execute_command("ACL", "SETUSER", "blind", "on", ">secret", "allkeys", "+ping", "+select")
            admin.execute_command("ACL", "SETUSER", "halfblind", "on", ">secret", "allkeys", "+@all", "-get", "-type")
            admin.config_set("requirepass", "secret")
        with pytest.raises(error) as told, source(0, url=f"redis://{user}127.0.0.1:{guarded.port}/0") as opened:
            list(opened)
        assert "secret" not in str(told.value)
        assert f"redis 127.0.0.1:{guarded.port} database 0" in str(told.value)
        with source(0, url=f"redis://:secret@127.0.0.1:{guarded.port}") as opened:
            assert len(list(opened)) == 1


@pytest.mark.parametrize(
    ("url", "error", "why"),
    [
        ("http://127.0.0.1", ConfigError, "bad URL of a Redis: "),
        ("redis://127.0.0.1/first", ConfigError, "its database is a number, not 'first'"),
        ("redis://127.0.0.1:none", ConfigError, "bad URL of a Redis: "),
        ("redis://127.0.0.1?nonsense=1", ConfigError, "nonsense"),
        ("redis://127.0.0.1:1", ConnectionLost, "redis 127.0.0.1:1 database 0 cannot be reached"),
        ("unix:///no/such/socket", ConnectionLost, "redis /no/such/socket database 0 cannot be reached"),
    ],
)
def test_a_bad_url_and_a_server_that_is_not_there_are_typed_errors(url: str, error: type[KioError], why: str) -> None:
    with pytest.raises(error) as told:
        source(0, url=url)
    assert why in str(told.value)


def test_what_is_no_redis_is_a_typed_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        subprocess_code = (
            "import socket, sys\n"
            f"listening = socket.socket(fileno={listening.fileno()})\n"
            "for _ in range(2):\n"
            "    connection, _ = listening.accept()\n"
            "    connection.sendall(b'SSH-2.0-server\\r\\n')\n"
        )
        child = subprocess.Popen([sys.executable, "-c", subprocess_code], pass_fds=[listening.fileno()])
        try:
            with pytest.raises((ProtocolError, ConnectionLost)):
                source(listening.getsockname()[1])
        finally:
            child.kill()
            child.wait()


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r'pip install "kio\[redis\]"'):
        source(0)


def test_a_database_without_a_keyspace_wants_one_named() -> None:
    with pytest.raises(ConfigError, match="--keyspace"):
        redis_source.check_database(256)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for wrong in (
        ["--redis", "redis://127.0.0.1", "--tree", str(tmp_path)],
        ["--redis", "redis://127.0.0.1", "--key", "id"],
        ["--tree", str(tmp_path), "--keyspace", "1"],
        ["--redis", "redis://127.0.0.1", "--keyspace", "256"],
    ):
        assert run_cli("import", *wrong, check=False).returncode == 2
