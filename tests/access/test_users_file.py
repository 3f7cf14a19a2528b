"""The file of users: what is read, what is refused, and how it is changed."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from kio.access import users_file
from kio.access.passwords import Cost, hashed
from kio.access.users import Right, User
from kio.errors import ConfigError

STORED = hashed(b"secret", Cost(10, 1, 1))
ADA = User("ada", Right.WRITE, (b"orders:", "zürich:".encode()), STORED)


def file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "users.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_users_stand_in_tables_with_right_prefixes_and_password(tmp_path: Path) -> None:
    text = (
        f'[ada]\nright = "write"\nprefixes = ["orders:", "zürich:"]\npassword = "{STORED}"\n[default]\nright = "read"\n'
    )
    assert users_file.read(file(tmp_path, text)) == {"ada": ADA, "default": User("default", Right.READ)}


def test_a_file_without_users_has_none(tmp_path: Path) -> None:
    assert users_file.read(file(tmp_path, "")) == {}


@pytest.mark.parametrize("mode", [0o604, 0o601, 0o644, 0o666, 0o620])
def test_a_file_that_others_can_read_or_its_group_can_write_is_refused_with_the_command_that_helps(
    tmp_path: Path, mode: int
) -> None:
    with pytest.raises(ConfigError, match=f"has mode {mode:o}.*chmod 600 .*users.toml"):
        users_file.read(file(tmp_path, "", mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_file_of_its_owner_and_a_group_that_reads_is_taken(tmp_path: Path, mode: int) -> None:
    assert users_file.read(file(tmp_path, "", mode)) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ada = 1", "user 'ada'.*a user is a table"),
        ('["a b"]\nright = "read"', "user 'a b'.*a name is 1 to 64"),
        ('[""]\nright = "read"', "a name is"),
        ("[default]", "right is not given.*read, write, admin"),
        ('[default]\nright = "root"', "right is 'root'"),
        ("[default]\nright = 3", "right is 3"),
        ('[default]\nright = "read"\nprefix = "a"', "no field 'prefix'"),
        ('[default]\nright = "read"\nprefixes = []', "at least one text; leave it out"),
        ('[default]\nright = "read"\nprefixes = "a"', "a list"),
        ('[default]\nright = "read"\nprefixes = [1]', "a list"),
        ('[default]\nright = "read"\nprefixes = [""]', "a prefix has 1 to 65535 bytes"),
        (f'[default]\nright = "read"\nprefixes = [{", ".join(map(repr, map(str, range(65))))}]', "at most 64"),
        ('[ada]\nright = "read"', "it has no password, which only default may"),
        ('[ada]\nright = "read"\npassword = 7', "not a text.*kio user password ada"),
        ('[ada]\nright = "read"\npassword = "clear text"', "not what.*stores.*kio user password ada"),
        ("[ada", "is not TOML"),
    ],
)
def test_one_fault_refuses_the_file_and_names_the_user(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        users_file.read(
            file(tmp_path, f'[first]\nright = "read"\npassword = "{STORED}"\n{text}' if "[" in text else text)
        )
    assert "clear text" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'users.toml cannot be read: No such file.*; "kio user add" makes it'):
        users_file.read(tmp_path / "users.toml")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "latin").chmod(0o600)
    with pytest.raises(ConfigError, match="latin is not UTF-8"):
        users_file.read(tmp_path / "latin")
    with pytest.raises(ConfigError, match="longer than"):
        users_file.read(file(tmp_path, "#" * (users_file.FILE_BYTES_MAX + 1)))


def test_what_is_written_is_read_again_whatever_the_prefixes_hold(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    odd = User("a.b@c-d_e", Right.ADMIN, tuple(text.encode() for text in ('"\\', "\n\t\x7f\x00", "]", "€😀")), STORED)
    users = {"ada": ADA, odd.name: odd, "default": User("default", Right.READ)}
    users_file.write(path, users)
    assert users_file.read(path) == users
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["users.toml"]


def test_a_change_keeps_the_mode_of_the_file_and_follows_a_link(tmp_path: Path) -> None:
    path = file(tmp_path, "", 0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    with users_file.changing(link) as users:
        users["ada"] = ADA
    assert link.is_symlink()
    assert users_file.read(path) == {"ada": ADA}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_nothing_is_written_when_nothing_changed_or_the_block_failed(tmp_path: Path) -> None:
    path = file(tmp_path, "# a comment of mine\n")
    with users_file.changing(path):
        pass
    with pytest.raises(KeyError), users_file.changing(path) as users:
        users["ada"] = ADA
        raise KeyError
    assert path.read_text() == "# a comment of mine\n"


def test_changes_of_two_commands_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"

    def add(name: str) -> None:
        with users_file.changing(path) as users:
            users[name] = User(name, Right.READ, (), STORED)

    threads = [threading.Thread(target=add, args=(f"user{i}",)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users_file.read(path)) == 16


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users.toml"
    users_file.write(path, {"ada": ADA})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="users.toml cannot be written: No space left"):
        users_file.write(path, {})
    monkeypatch.undo()
    assert users_file.read(path) == {"ada": ADA}
    assert [entry.name for entry in tmp_path.iterdir()] == ["users.toml"]


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="folder of the users file .* cannot be opened"),
        users_file.changing(tmp_path / "nowhere" / "users.toml"),
    ):
        pass
