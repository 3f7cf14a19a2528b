"""Users and certificates that change while the daemon runs, and a start that would let anybody in."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kio import wire
from kio.access import Right, User
from kio.errors import NotPermitted
from tests.access.doors import Native, Resp, logged, tls_flags, user, write_users
from tests.cluster.daemon import Daemon, run_cli, wait_until
from tests.tls import HERE


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    write_users(tmp_path / "users.toml", user("ada", Right.WRITE), user("bob", Right.WRITE), user("carl", Right.READ))
    flags = ["--users-file", str(tmp_path / "users.toml"), *tls_flags(tmp_path)]
    with Daemon(workers=1, flags=flags) as running:
        yield running


def reload(daemon: Daemon) -> None:
    os.kill(daemon.supervisor, signal.SIGHUP)


def serial(daemon: Daemon) -> str:
    parts = urlsplit(daemon.url)
    return ssl.get_server_certificate((parts.hostname or "", parts.port or 0))


def test_a_reload_takes_rights_away_and_ends_who_is_gone_and_keeps_the_others(daemon: Daemon, tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    with (
        Native(daemon, "ada") as ada,
        Native(daemon, "bob") as bob,
        Native(daemon, "carl") as carl,
        Resp(daemon, "ada") as resp_ada,
        Resp(daemon, "bob") as resp_bob,
        Resp(daemon, "carl") as resp_carl,
    ):
        assert ada.ask(wire.OP_SET, 0, b"k", b"v") == 0
        assert resp_ada.ask("SET", "k", "v") == "OK"
        assert resp_ada.ask("MULTI") == "OK"
        assert resp_ada.ask("SET", "k", "w") == "QUEUED"
        # As a reload keeps the hash where a password stays, ada's is taken over from the file.
        kept = {each.name: each for each in _read(users)}
        write_users(
            users,
            User("ada", Right.READ, (), kept["ada"].password),
            user("bob", Right.WRITE, password=b"another"),
            kept["carl"],
        )
        reload(daemon)
        assert bob.is_closed(), "it has another password"
        assert resp_bob.is_closed()
        wait_until(lambda: ada.ask(wire.OP_SET, 0, b"k", b"v") == NotPermitted.code, 5, "the reload")
        assert getattr(resp_ada.call("EXEC"), "items", [None])[0] != b"OK", "what was queued before"
        assert resp_ada.ask("SET", "k", "v") == "NOPERM"
        assert resp_ada.call("GET", "k") == b"v"
        assert carl.ask(wire.OP_GET, 0, b"k") == 0
        assert resp_carl.call("GET", "k") == b"v"
        with Native(daemon) as old:
            assert old.hello(user="bob", password="bob-word")[1] == 25
        with Native(daemon, "bob", "another"):
            pass


def _read(path: Path) -> list[User]:
    from kio.access import users_file

    return list(users_file.read(path).values())


@pytest.mark.parametrize("fault", ["[ada]\nright = ", "[ada]\nright = 'all'\n", ""])
def test_a_users_file_that_cannot_be_used_changes_nothing(daemon: Daemon, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(fault)
    if not fault:
        path.chmod(0o644)
    with Native(daemon, "ada") as ada:
        reload(daemon)
        logged(daemon, "reload refused")
        assert ada.ask(wire.OP_SET, 0, b"k", b"v") == 0
        with Native(daemon, "bob") as bob:
            assert bob.ask(wire.OP_GET, 0, b"k") == 0


def test_a_renewed_certificate_is_for_new_connections_and_a_wrong_one_is_refused(
    daemon: Daemon, tmp_path: Path
) -> None:
    before = serial(daemon)
    with Native(daemon, "ada") as ada:
        path = tmp_path / "server.pem"
        good = (HERE / "renewed.pem").read_text()
        path.write_text("no certificate")
        reload(daemon)
        logged(daemon, "reload refused")
        assert serial(daemon) == before
        path.write_text(good)
        reload(daemon)
        wait_until(lambda: serial(daemon) != before, 5, "the new certificate")
        assert ada.ask(wire.OP_PING, b"x") == 0


def test_a_router_that_is_started_again_has_the_same_locks(daemon: Daemon) -> None:
    pid = next(pid for pid in daemon.pids() if b"kio.router" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            with Native(daemon) as native:
                assert native.hello()[1] == 25
            with Native(daemon, "ada"):
                return True
        except (OSError, ConnectionError):
            return False

    wait_until(is_back, 10, "the router", 0.05)


@pytest.mark.parametrize("is_protected", [True, False])
def test_an_address_of_the_network_needs_a_password_of_everybody(tmp_path: Path, is_protected: bool) -> None:
    users = tmp_path / "users.toml"
    write_users(users, User("default", Right.READ))
    flags = ["--host", "0.0.0.0", "--users-file", str(users)]
    if is_protected:
        done = run_cli("serve", "--data", tmp_path / "data", "--port", "0", *flags, check=False)
        assert done.returncode == 78
        assert b"the user default has no password" in done.stderr
        assert not (tmp_path / "data").exists()
    else:
        with Daemon(workers=1, flags=[*flags, "--protected-mode", "false"]) as daemon:
            assert daemon.http.startswith("http://127.0.0.1:")


def test_limits_of_the_settings_hold_over_both_protocols(tmp_path: Path) -> None:
    flags = ["--idle-timeout-s", "1", "--client-requests-per-s", "20"]
    with (
        Daemon(workers=1, flags=[*flags, *tls_flags(tmp_path)]) as daemon,
        Native(daemon) as native,
        Resp(daemon) as resp,
    ):
        assert native.hello()[1] == 0
        assert [resp.ask("PING") for _ in range(30)] == ["PONG"] * 30
        assert native.is_closed()
        assert resp.is_closed()
