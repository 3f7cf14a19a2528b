"""kio's own clients, both of them, and `kio`, at a daemon that has users and speaks TLS."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kio.access import Right
from kio.errors import NotAuthenticated, NotPermitted, PartialFailure, ProtocolError
from tests.access.doors import tls_flags, user, write_users
from tests.client.conftest import connect
from tests.cluster.daemon import Daemon, run_cli, wait_until
from tests.tls import AUTHORITY, STRANGER

__all__ = ["connect"]

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kio-test-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    users = folder / "users.toml"
    write_users(users, user("ada", Right.WRITE), user("bob", Right.READ), user("eve", Right.WRITE, b"eve:"))
    with Daemon(workers=1, shards=2, flags=["--users-file", str(users), *tls_flags(folder)]) as running:
        assert running.url.startswith("kios://")
        yield running


def url(daemon: Daemon, user: str, authority: Path = AUTHORITY) -> str:
    """A URL of the daemon that says `user`: a name, and a password or not."""
    return f"{daemon.url.replace('://', f'://{user}@' if user else '://')}?tls_ca_file={authority}"


def test_who_has_the_right_password_comes_in_over_tls(connect: Connect, daemon: Daemon) -> None:
    db = connect(url(daemon, "ada:ada-word"), codec="json")
    db.set("k", {"who": "ada"})
    assert db.get("k") == {"who": "ada"}
    db = connect(url(daemon, ""), user="ada", password=b"ada-word")
    values = {b"%d" % i: bytes([i]) * 100_000 for i in range(100)}
    assert db.set_many(values) == 100
    assert db.get_many(values) == values


@pytest.mark.parametrize("who", ["ada:bob-word", ""])
def test_who_has_another_password_or_none_is_not_authenticated(connect: Connect, daemon: Daemon, who: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        connect(url(daemon, who))
    assert "bob-word" not in str(caught.value)


def test_a_daemon_that_the_authority_does_not_know_is_told_no_password(connect: Connect, daemon: Daemon) -> None:
    with pytest.raises(ProtocolError, match="certificate verify failed"):
        connect(url(daemon, "ada:ada-word", STRANGER))


def test_a_reader_reads_and_every_write_is_not_permitted(connect: Connect, daemon: Daemon) -> None:
    connect(url(daemon, "ada:ada-word")).set("kept", b"v")
    db = connect(url(daemon, "bob:bob-word"))
    for write in (
        lambda: db.set("kept", b"w"),
        lambda: db.set("kept", b"w", if_present=True),
        lambda: db.delete("kept"),
        lambda: db.incr("n"),
        db.clear,
    ):
        with pytest.raises(NotPermitted) as caught:
            write()
        assert not caught.value.maybe_applied
    assert db.get("kept") == b"v"


def test_a_batch_tells_which_keys_are_not_its_users(connect: Connect, daemon: Daemon) -> None:
    db = connect(url(daemon, "eve:eve-word"))
    with pytest.raises(PartialFailure) as caught:
        db.set_many({"eve:1": b"v", "ada:1": b"v"})
    assert {key: type(error) for key, error in caught.value.errors.items()} == {"ada:1": NotPermitted}
    assert db.get("eve:1") == b"v"


def test_the_commands_take_the_password_from_a_file(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("bob-word\n")
    where = f"{url(daemon, 'bob')}&password_file={file}"
    found = run_cli("get", "nothing", url=where, check=False)
    assert (found.returncode, found.stderr) == (1, b"kio: there is no key nothing\n")
    refused = run_cli("set", "k", "v", url=where, check=False)
    assert refused.returncode == NotPermitted.exit_code
    file.write_text("hunter2\n")
    stranger = run_cli("get", "k", url=where, check=False)
    assert stranger.returncode == NotAuthenticated.exit_code
    assert b"bob-word" not in refused.stderr
    assert b"hunter2" not in stranger.stderr


def test_a_client_whose_password_is_changed_is_told_so_by_its_next_call(
    connect: Connect, daemon: Daemon, folder: Path
) -> None:
    users = folder / "users.toml"
    before = users.read_bytes()
    db = connect(url(daemon, "ada:ada-word"))
    db.set("k", b"v")
    write_users(users, user("ada", Right.WRITE, password=b"another"))
    os.kill(daemon.supervisor, signal.SIGHUP)

    def is_out() -> bool:
        try:
            db.get("k")
        except NotAuthenticated:
            return True
        return False

    try:
        wait_until(is_out, 5, "the reload")
        connect(url(daemon, "ada:another")).get("k")
    finally:
        users.write_bytes(before)
        os.kill(daemon.supervisor, signal.SIGHUP)
        wait_until(lambda: not is_out(), 90, "the users of before", every_s=0.5)
