"""Who may do what, over both protocols, plain and over TLS: each lock is tried from the outside."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio import wire
from kio.access import Right
from kio.errors import NotAuthenticated, NotPermitted, ProtocolError
from tests.access.doors import Native, Resp, tls_flags, user, write_users
from tests.cluster.daemon import Daemon
from tests.resp.resp_codec import Array, Error, Simple, command

REFUSED = NotPermitted.code
WRONG = b"WRONGPASS invalid username-password pair or user is disabled."
OK = Simple(b"OK")


@pytest.fixture(scope="module", params=["plain", "tls"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="kio-test-") as name:
        folder = Path(name)
        users = folder / "users.toml"
        write_users(
            users,
            user("root", Right.ADMIN),
            user("ada", Right.WRITE, b"ada:", b"{ada}"),
            user("bob", Right.READ),
            user("eve", Right.ADMIN, b"eve:"),
        )
        flags = ["--users-file", str(users)]
        with Daemon(
            workers=1, shards=2, flags=flags + (tls_flags(folder) if request.param == "tls" else [])
        ) as running:
            for each in ("root", "ada", "bob", "eve"):  # known from now on, whatever is guessed in these tests
                with Native(running, each):
                    pass
            yield running


# --- who comes in


def test_nobody_does_anything_without_a_name(daemon: Daemon) -> None:
    with Native(daemon) as native:
        assert native.hello()[:2] == [1, NotAuthenticated.code]
        assert native.is_closed()
    with Native(daemon) as native:
        assert native.ask(wire.OP_GET, 0, b"k") == ProtocolError.code
    with Resp(daemon) as resp:
        for words in (("GET", "k"), ("PING",), ("SHUTDOWN",), ("MULTI",), ("CLIENT", "LIST"), ("NONESUCH",), ("INFO",)):
            assert resp.ask(*words) == "NOAUTH", words
        assert resp.ask("HELLO", "3") == "NOAUTH"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", b"wrong"),
        ("ada", b"bob-word"),
        ("ada", b""),
        ("ada", b"ada-word\0"),
        ("ada", b"ada-wor"),
        ("Ada", b"ada-word"),
        ("nobody", b"ada-word"),
        ("default", b""),
        ("", b"ada-word"),
        ("ada", b"x" * 2_000),
    ],
)
def test_every_wrong_password_and_every_unknown_name_get_the_same_answer(
    daemon: Daemon, name: str, password: bytes
) -> None:
    with Native(daemon) as native:
        id, code, message, maybe_applied = native.hello(user=name, password=password)
        assert (id, code, maybe_applied) == (1, NotAuthenticated.code, False)
        assert b"ada" not in str(message).encode()
        assert native.is_closed()
    with Resp(daemon) as resp:
        assert resp.call("AUTH", name, password) == Error(WRONG)
        assert resp.call("HELLO", "3", "AUTH", name, password) == Error(WRONG)
        assert resp.ask("GET", "ada:1") == "NOAUTH"


def test_what_comes_behind_a_password_waits_for_its_answer(daemon: Daemon) -> None:
    with Resp(daemon) as resp:
        replies = resp.calls(
            ("SET", "ada:p", "0"), ("AUTH", "ada", "no"), ("SET", "ada:p", "1"), ("AUTH", "ada", "ada-word"),
            ("SET", "ada:p", "2"), ("SET", "eve:p", "3"), ("GET", "ada:p"),
        )  # fmt: skip
        shown = [reply if isinstance(reply, bytes) else getattr(reply, "text", b"").split()[0] for reply in replies]
        assert shown == [b"NOAUTH", b"WRONGPASS", b"NOAUTH", b"OK", b"OK", b"NOPERM", b"2"]


def test_a_failed_password_leaves_who_one_was_and_reset_makes_a_stranger(daemon: Daemon) -> None:
    with Resp(daemon, "bob") as resp:
        assert resp.ask("AUTH", "root", "no") == "WRONGPASS"
        assert resp.ask("SET", "k", "v") == "NOPERM"
        assert resp.ask("AUTH", "root", "root-word") == "OK"
        assert resp.ask("SET", "k", "v") == "OK"
        assert resp.ask("AUTH", "bob", "bob-word") == "OK"
        assert resp.ask("SET", "k", "v") == "NOPERM", "the fast way is closed again"
        assert resp.call("RESET") == Simple(b"RESET")
        assert resp.ask("GET", "k") == "NOAUTH"


def test_hello_tells_who_one_is_and_the_version_at_once(daemon: Daemon) -> None:
    with Resp(daemon) as resp:
        assert resp.ask("HELLO", "3", "AUTH", "ada", "ada-word", "SETNAME", "mine") == ""
        assert resp.call("CLIENT", "GETNAME") == b"mine"
        assert b"user=ada" in getattr(resp.call("CLIENT", "INFO"), "text", b"")


# --- rights

READS = (("GET", "k"), ("MGET", "k", "l"), ("EXISTS", "k"), ("TTL", "k"), ("STRLEN", "k"), ("DBSIZE",), ("KEYS", "*"))
WRITES = (
    ("SET", "k", "v"), ("SETNX", "k", "v"), ("MSET", "k", "v"), ("MSETNX", "k", "v"), ("DEL", "k"), ("UNLINK", "k"),
    ("INCR", "n"), ("INCRBY", "n", "1"), ("APPEND", "k", "v"), ("EXPIRE", "k", "9"), ("PERSIST", "k"), ("GETDEL", "k"),
    ("GETSET", "k", "v"), ("GETEX", "k"), ("SETRANGE", "k", "0", "v"), ("RENAME", "k", "l"), ("COPY", "k", "l"),
    ("MOVE", "k", "1"), ("SETBIT", "k", "0", "1"), ("BITOP", "NOT", "k", "l"), ("RESTORE", "k", "0", "x"),
    ("SETEX", "k", "9", "v"), ("MSETEX", "1", "k", "v"),
)  # fmt: skip
ADMINS = (
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "dir"), ("SHUTDOWN",), ("SAVE",), ("BGSAVE",),
    ("DEBUG", "SLEEP", "0"),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "PAUSE", "5000"), ("CLIENT", "UNPAUSE"),
    ("SLOWLOG", "GET"), ("LATENCY", "RESET"), ("FUNCTION", "FLUSH"), ("SWAPDB", "0", "1"),
)  # fmt: skip


def test_who_may_read_may_not_write_by_any_command(daemon: Daemon) -> None:
    with Resp(daemon, "bob") as resp, Native(daemon, "bob") as native:
        for words in READS:
            assert resp.ask(*words) == "", words
        for words in (*WRITES, *ADMINS):
            assert resp.ask(*words) == "NOPERM", words
        assert native.ask(wire.OP_GET, 0, b"k") == 0
        assert native.ask(wire.OP_COUNT, 0) == 0
        assert native.ask(wire.OP_SET, 0, b"k", b"v") == REFUSED
        assert native.ask(wire.OP_CLEAR, 0) == REFUSED
        assert native.ask(wire.OP_ATOMIC, 0, [[wire.OP_GET, b"k"], [wire.OP_DELETE, b"k"]]) == REFUSED


def test_who_may_write_is_no_admin(daemon: Daemon) -> None:
    with Resp(daemon, "ada") as resp, Native(daemon, "ada") as native:
        assert resp.call("SET", "ada:1", "v") == OK
        for words in ADMINS:
            assert resp.ask(*words) == "NOPERM", words
        for op, *arguments in ((wire.OP_CLEAR, 0), (wire.OP_SEAL,), (wire.OP_COMPACT,)):
            assert native.ask(op, *arguments) == REFUSED
        assert native.ask(wire.OP_STATS) == 0
        assert native.ask(wire.OP_PING, b"x") == 0


def test_a_user_touches_no_key_but_its_own_by_any_command(daemon: Daemon) -> None:
    with Resp(daemon, "ada") as resp:
        foreign = [
            *READS, *WRITES, ("MGET", "ada:1", "k"), ("MSET", "ada:1", "v", "k", "v"), ("RENAME", "ada:1", "k"),
            ("RENAME", "k", "ada:1"), ("COPY", "k", "ada:1"), ("BITOP", "AND", "ada:1", "ada:2", "k"),
            ("LCS", "ada:1", "k"), ("DEL", "ada:1", "k"), ("WATCH", "k"), ("OBJECT", "ENCODING", "k"),
            ("MEMORY", "USAGE", "k"), ("DUMP", "k"), ("MSETEX", "2", "ada:1", "v", "k", "v"), ("RANDOMKEY",),
            ("SCAN", "0"), ("SCAN", "0", "MATCH", "*"), ("SCAN", "0", "MATCH", "a*"), ("KEYS", "[ae]*"),
            ("SCAN", "0", "MATCH", "ada:*", "MATCH", "*"), ("KEYS", "ada?*"), ("GET", "ADA:1"), ("GET", "ada"),
        ]  # fmt: skip
        for words in foreign:
            assert resp.ask(*words) == "NOPERM", words
        for words in (("WATCH", "ada:1"), ("UNWATCH",), ("OBJECT", "ENCODING", "ada:1"), ("INFO",), ("SELECT", "3"),
                      ("SCAN", "0", "MATCH", "ada:*"), ("KEYS", "ada:*"), ("SELECT", "0")):  # fmt: skip
            assert resp.ask(*words) in ("", "OK", "ERR"), words
        assert resp.call("KEYS", "ada:9*") == Array(())
    with Native(daemon, "ada") as native:
        assert native.ask(wire.OP_GET, 0, b"k") == REFUSED
        assert native.ask(wire.OP_GET, 255, b"k") == REFUSED
        assert native.ask(wire.OP_SET_MANY, 0, [b"ada:1", b"v", b"k", b"v"]) == 1
        assert native.ask(wire.OP_ATOMIC, 0, [[wire.OP_SET, b"{ada}", b"v"], [wire.OP_GET, b"{x}"]]) == REFUSED
        assert native.ask(wire.OP_COUNT, 0) == REFUSED
        for prefix in (b"", b"a", b"ada", b"eve:"):
            assert native.ask(wire.OP_SCAN, 0, b"", prefix, 10, 0) == REFUSED
        assert native.ask(wire.OP_SCAN, 0, b"", b"ada:", 10, 0) == 0


def test_an_admin_with_prefixes_does_nothing_to_all_keys(daemon: Daemon) -> None:
    with Resp(daemon, "eve") as resp, Native(daemon, "eve") as native:
        for words in ADMINS:
            assert resp.ask(*words) == "NOPERM", words
        assert native.ask(wire.OP_CLEAR, 0) == REFUSED
        assert native.ask(wire.OP_COUNT, 0) == REFUSED


def test_a_transaction_is_no_way_around(daemon: Daemon) -> None:
    with Resp(daemon, "ada") as resp:
        assert resp.call("MULTI") == OK
        assert resp.call("SET", "ada:t", "1") == Simple(b"QUEUED")
        assert resp.ask("SET", "eve:t", "1") == "NOPERM"
        assert resp.ask("EXEC") == "EXECABORT"
        assert resp.call("EXISTS", "ada:t") == 0
        # Whoever is somebody else by EXEC has that one's rights.
        assert resp.calls(("MULTI",), ("AUTH", "bob", "bob-word"), ("SET", "ada:t", "1"))[0] == OK
        reply = resp.call("EXEC")
        assert isinstance(reply, Array)
        assert isinstance(reply.items[0], Error), "a password within MULTI would have to wait"
        assert reply.items[1] == OK, "so it is still ada"
        assert resp.call("DEL", "ada:t") == 1


def test_root_may_do_everything(daemon: Daemon) -> None:
    with Resp(daemon, "root") as resp, Native(daemon, "root") as native:
        for words in (("SET", "k", "v"), ("DBSIZE",), ("CONFIG", "GET", "dir"), ("CLIENT", "LIST"), ("FLUSHDB",)):
            assert resp.ask(*words) in ("", "OK"), words
        for op, *arguments in ((wire.OP_SET, 0, b"k", b"v"), (wire.OP_COUNT, 0), (wire.OP_SEAL,), (wire.OP_CLEAR, 0)):
            assert native.ask(op, *arguments) == 0


def test_guessing_takes_longer_each_time_and_holds_nobody_back_who_is_known(daemon: Daemon) -> None:
    with Resp(daemon) as guesser, Native(daemon, "root") as native:
        for number in range(20):
            assert guesser.ask("AUTH", "root", f"guess {number}") == "WRONGPASS"
        began = time.monotonic()
        assert native.ask(wire.OP_PING, b"x") == 0
        with Native(daemon, "ada"):
            pass
        assert time.monotonic() - began < 1


def test_a_long_command_of_a_stranger_is_refused(daemon: Daemon) -> None:
    with Resp(daemon) as resp:
        resp.send(command("SET", "k", b"x" * 100_000)[:200])
        assert isinstance(resp.receive(), Error)
