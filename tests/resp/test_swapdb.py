"""SWAPDB of a running daemon: over both protocols, a kill, a restart, a backup, and a disk that refuses."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from kio.segments.keyspaces import NAME
from tests.cluster.daemon import wait_until
from tests.cluster.rawwire import COUNT, GET, Wire
from tests.resp.resp_codec import NULL_ARRAY, NULL_BULK, Array, Connection, Error, Reply, Simple
from tests.resp.servers import Server, kio_server, resp_port

OK, QUEUED = Simple(b"OK"), Simple(b"QUEUED")
KEYS = [b"key %d" % number for number in range(40)]


@pytest.fixture
def server() -> Iterator[Server]:
    with kio_server() as running:
        yield running


def fill(connection: Connection) -> None:
    """Forty keys in 0 that say so, twenty of them in 1, none in 2."""
    for keyspace, keys in ((b"1", KEYS[:20]), (b"0", KEYS)):
        assert connection.call("SELECT", keyspace) == OK
        assert connection.call("MSET", *(word for key in keys for word in (key, key + b" of " + keyspace))) == OK


def held(connection: Connection, keyspace: int) -> set[bytes]:
    """From which keyspaces what is in this one has come, with how many keys."""
    assert connection.call("SELECT", keyspace) == OK
    values = connection.call("MGET", *KEYS)
    assert isinstance(values, Array)
    found = [value for value in values.items if isinstance(value, bytes)]
    assert connection.call("DBSIZE") == len(found)
    listed = connection.call("KEYS", "*")
    assert isinstance(listed, Array)
    assert sorted(listed.items) == sorted(value.partition(b" of ")[0] for value in found)  # type: ignore[type-var]
    return {b"%d of %s" % (len(found), value.partition(b" of ")[2]) for value in found}


def keyspaces(connection: Connection) -> list[set[bytes]]:
    return [held(connection, number) for number in range(3)]


FILLED = [{b"40 of 0"}, {b"20 of 1"}, set[bytes]()]
SWAPPED = [{b"20 of 1"}, {b"40 of 0"}, set[bytes]()]
TWICE = [{b"20 of 1"}, set[bytes](), {b"40 of 0"}]


def test_clients_of_both_protocols_see_it(server: Server) -> None:
    assert server.daemon is not None
    with server.connect() as first, server.connect() as second, Wire(server.daemon.url) as native:
        fill(first)
        assert keyspaces(second) == FILLED
        assert first.call("SWAPDB", 0, 1) == OK
        assert keyspaces(second) == SWAPPED
        assert [native.call(COUNT, number) for number in (0, 1, 2)] == [20, 40, 0]
        assert native.call(GET, 1, KEYS[30]) == KEYS[30] + b" of 0"
        assert first.call("SWAPDB", 1, 2) == OK
        assert keyspaces(second) == TWICE
        info = second.call("INFO", "keyspace")
        assert isinstance(info, bytes)
        assert b"db0:keys=20," in info
        assert b"db2:keys=40," in info
        assert b"db1:" not in info
        second.call("SELECT", 2)
        assert second.call("FLUSHDB") == OK
        assert keyspaces(second) == [{b"20 of 1"}, set(), set()]
        assert first.call("FLUSHALL") == OK
        assert keyspaces(second) == [set(), set(), set()]


@pytest.mark.parametrize("who", ["router", "worker", "all", "stop"])
def test_it_outlives_whoever_is_killed(server: Server, who: str) -> None:
    daemon = server.daemon
    assert daemon is not None
    with server.connect() as connection:
        fill(connection)
        assert connection.call("SWAPDB", 0, 1) == OK
    if who == "all":
        daemon.kill_everything()
        daemon.restart()
    elif who == "stop":
        daemon.stop()
        daemon.restart()
    else:
        find = daemon.router_pid if who == "router" else partial(daemon.worker_pid, 0)
        pid = find()

        def is_another_there() -> bool:
            # The supervisor's word of readiness may be from before it knew.
            with suppress(OSError, AssertionError):
                return find() != pid and daemon.is_ready()
            return False

        os.kill(pid, signal.SIGKILL)
        wait_until(is_another_there, 10, "the start of another one")
    with Connection(resp_port(daemon)) as connection:
        assert keyspaces(connection) == SWAPPED
        assert connection.call("SWAPDB", 1, 2) == OK
        assert keyspaces(connection) == TWICE


def test_a_backup_has_the_keyspaces_of_its_moment_and_a_reshard_keeps_them(server: Server) -> None:
    daemon = server.daemon
    assert daemon is not None
    backup, restored = daemon.home / "backup", daemon.home / "restored"
    with server.connect() as connection:
        fill(connection)
        assert connection.call("SWAPDB", 0, 1) == OK
        daemon.cli("backup", backup)
        assert connection.call("SWAPDB", 1, 2) == OK
    daemon.stop()
    daemon.cli("check", backup)
    daemon.cli("restore", backup, "--data", restored)
    daemon.cli("check", restored)
    daemon.data.rename(daemon.home / "before")
    restored.rename(daemon.data)
    daemon.restart()
    with Connection(resp_port(daemon)) as connection:
        assert keyspaces(connection) == SWAPPED
        assert connection.call("SWAPDB", 0, 1) == OK
        assert connection.call("SWAPDB", 2, 0) == OK
    daemon.stop()
    daemon.cli("reshard", daemon.data, "--shards", "3")
    daemon.cli("check", daemon.data)
    daemon.shards = 3
    daemon.restart()
    with Connection(resp_port(daemon)) as connection:
        assert keyspaces(connection) == [set(), {b"20 of 1"}, {b"40 of 0"}]


def test_where_the_disk_refuses_the_client_is_told_and_nothing_changes(server: Server) -> None:
    daemon = server.daemon
    assert daemon is not None
    in_the_way = daemon.data / f"{NAME}.tmp"
    in_the_way.mkdir()
    with server.connect() as connection:
        fill(connection)
        refused = connection.call("SWAPDB", 0, 1)
        assert isinstance(refused, Error)
        assert refused.text.startswith(b"ERR the keyspaces are as before: ")
        assert refused.text.endswith(b"Is a directory")
        assert keyspaces(connection) == FILLED
        assert "keyspaces not swapped" in daemon.log_tail()
        in_the_way.rmdir()
        assert connection.call("SWAPDB", 0, 1) == OK
        assert keyspaces(connection) == SWAPPED


@pytest.mark.parametrize("key", [KEYS[5], KEYS[30]])
def test_who_watches_a_key_of_either_keyspace_is_stopped_and_nobody_else(server: Server, key: bytes) -> None:
    def executed(connection: Connection, keyspace: int, watched: bytes) -> Reply:
        assert connection.call("SELECT", keyspace) == OK
        assert connection.call("WATCH", watched) == OK
        assert other.call("SWAPDB", 0, 1) == OK
        assert connection.call("MULTI") == OK
        assert connection.call("GET", "absent") == QUEUED
        return connection.call("EXEC")

    with server.connect() as connection, server.connect() as other:
        fill(other)
        for keyspace in (0, 1, 0, 1):
            assert executed(connection, keyspace, key) == NULL_ARRAY
        assert executed(connection, 2, key) == Array((NULL_BULK,))
        for keyspace in (0, 1):
            assert executed(connection, keyspace, b"absent") == Array((NULL_BULK,))
