"""`kio user`: the file of users is kept by four verbs, and no password is seen by anybody."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from kio.access import Access, Right, passwords, users_file
from kio.access.passwords import Cost
from kio.cli import users

from .conftest import Run


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The users file that KIO_USERS_FILE names; passwords are stored cheaply."""
    path = tmp_path / "users.toml"
    monkeypatch.setenv("KIO_USERS_FILE", str(path))
    monkeypatch.setattr(users, "hashed", lambda password: passwords.hashed(password, Cost(10, 1, 1)))
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the next verb read these bytes from stdin."""
    return lambda data: monkeypatch.setattr("sys.stdin", Stdin(data))


def test_a_user_is_added_listed_given_another_password_and_removed(kio: Run, file: Path, typed: Any) -> None:
    typed(b"secret\nnot this\n")
    ran = kio("user", "add", "ada", "--right", "write", "--prefix", "orders:", "--prefix", "zürich:")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.decode() == "user ada added: right=write prefixes=orders:,zürich:\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = Access.load(file).authenticate("ada", b"secret")
    assert found is not None
    assert (found.right, found.prefixes) == (Right.WRITE, (b"orders:", "zürich:".encode()))

    typed(b"")
    assert kio("user", "add", "default", "--right", "read", "--without-password").code == 0
    shown = kio("user", "list").out.decode()
    assert [line.split() for line in shown.splitlines()] == [
        ["user", "right", "prefixes", "password"],
        ["ada", "write", "orders:", "zürich:", "set"],
        ["default", "read", "all", "none"],
    ]
    assert json.loads(kio("user", "list", "--json").out) == {
        "users": [
            {"user": "ada", "right": "write", "prefixes": ["orders:", "zürich:"], "password": True},
            {"user": "default", "right": "read", "prefixes": [], "password": False},
        ]
    }

    typed(b"another")
    assert kio("user", "password", "ada").code == 0
    access = Access.load(file)
    assert access.authenticate("ada", b"secret") is None
    assert access.authenticate("ada", b"another") is not None

    before = file.read_bytes()
    assert (
        kio("user", "remove", "ada").out
        == b"user ada not removed, add --yes: right=write prefixes=orders:,z\xc3\xbcrich:\n"
    )
    assert file.read_bytes() == before
    assert json.loads(kio("user", "remove", "ada", "--yes", "--json").out)["done"] == "removed"
    assert list(users_file.read(file)) == ["default"]


def test_no_answer_shows_a_password_or_what_is_stored_of_it(kio: Run, file: Path, typed: Any) -> None:
    typed(b"secret\n")
    runs = [kio("user", "add", "ada", "--right", "read"), kio("user", "list"), kio("user", "list", "--json")]
    typed(b"secret\n")
    runs += [kio("user", "password", "ada", "--json"), kio("user", "add", "ada", "--right", "read")]
    stored = str(users_file.read(file)["ada"].password)
    for ran in runs:
        assert b"secret" not in ran.out + ran.err.encode()
        assert stored[-20:].encode() not in ran.out + ran.err.encode()


@pytest.mark.parametrize("password", [b"", b"\n", b"x" * 1025 + b"\n"])
def test_an_empty_or_endless_password_is_refused_and_nothing_is_changed(
    kio: Run, file: Path, typed: Any, password: bytes
) -> None:
    typed(password)
    ran = kio("user", "add", "ada", "--right", "read")
    assert (ran.code, ran.err) == (78, "kio: a password has 1 to 1024 bytes; nothing was changed\n")
    assert not file.exists()


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(
    kio: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["secret", "sceret", "secret", "secret"]
    monkeypatch.setattr("sys.stdin", Stdin(b"", is_terminal=True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    ran = kio("user", "add", "ada", "--right", "read")
    assert (ran.code, ran.err) == (78, "kio: the two differ; nothing was changed\n")
    assert kio("user", "add", "ada", "--right", "read").code == 0
    assert Access.load(file).authenticate("ada", b"secret") is not None


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["add", "a b", "--right", "read"], 2, "NAME is 1 to 64"),
        (["add", "ada", "--right", "root"], 2, "right is 'root'"),
        (["add", "ada"], 2, "missing option '--right'"),
        (["add", "ada", "--right", "read", "--prefix", ""], 2, "a prefix has 1 to 65535 bytes"),
        (["add", "ada", "--right", "read", "--prefix", "\udcff"], 2, "must be UTF-8"),
        (["add", "ada", "--right", "read", "--without-password"], 2, "user default only"),
        (["add", "bob", "--right", "read"], 78, 'there is a user bob already; "kio user password bob"'),
        (["remove", "ada", "--yes"], 1, "there is no user ada"),
        (["password", "ada"], 1, "there is no user ada"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(
    kio: Run, file: Path, typed: Any, arguments: list[str], code: int, told: str
) -> None:
    typed(b"secret\n")
    assert kio("user", "add", "bob", "--right", "read").code == 0
    before = file.read_bytes()
    typed(b"other\n")
    ran = kio("user", *arguments)
    assert ran.code == code
    assert told.lower() in ran.err.lower()
    assert ran.err.count("\n") == 1
    assert file.read_bytes() == before


def test_without_a_file_it_says_how_to_name_one(kio: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIO_USERS_FILE", raising=False)
    ran = kio("user", "list")
    assert (ran.code, ran.err.partition(";")[0]) == (78, "kio: users_file is not set")
    ran = kio("user", "list", "--users-file", str(tmp_path / "none.toml"))
    assert ran.code == 78
    assert '"kio user add" makes it' in ran.err
