"""Who comes in with which password, and who without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kio import wire
from kio.access import Access, Right, User, users_file
from kio.access.passwords import PASSWORD_BYTES_MAX, Cost, Hashed, hashed
from kio.access.users import RIGHT_BY_OP, WHOLE_KEYSPACE_OPS
from kio.errors import ConfigError

CHEAP = Cost(10, 1, 1)


def user(name: str, password: bytes, right: Right = Right.WRITE, prefixes: tuple[bytes, ...] = ()) -> User:
    return User(name, right, prefixes, hashed(password, CHEAP))


@pytest.fixture
def access() -> Access:
    return Access({"ada": user("ada", b"secret"), "bob": user("bob", b"other")})


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Cost]:
    """The cost of each hash that is computed."""
    made: list[Cost] = []
    real = Hashed.is_of

    def is_of(self: Hashed, password: bytes) -> bool:
        made.append(self.cost)
        return real(self, password)

    monkeypatch.setattr(Hashed, "is_of", is_of)
    return made


def test_a_user_comes_in_with_its_own_password_only(access: Access) -> None:
    ada = access.authenticate("ada", b"secret")
    assert ada is not None
    assert (ada.name, ada.right) == ("ada", Right.WRITE)
    for name, password in [("ada", b"other"), ("ada", b""), ("bob", b"secret"), ("eve", b"secret"), ("Ada", b"secret")]:
        assert access.authenticate(name, password) is None


def test_a_name_that_nobody_has_costs_as_much_as_a_wrong_password(checks: list[Cost]) -> None:
    access = Access({"ada": User("ada", Right.READ, (), hashed(b"secret", Cost(11, 2, 1)))})
    assert access.authenticate("ada", b"wrong") is None
    assert access.authenticate("eve", b"wrong") is None
    assert access.authenticate("eve", b"wrong") is None
    assert access.authenticate("", b"wrong") is None
    assert checks == [Cost(11, 2, 1)] * 4


def test_a_password_that_was_right_is_known_again_without_its_cost(access: Access, checks: list[Cost]) -> None:
    assert access.recall("ada", b"secret") is None
    assert access.authenticate("ada", b"secret") is not None
    assert access.authenticate("ada", b"secret") is access.recall("ada", b"secret") is not None
    assert len(checks) == 1
    assert access.recall("ada", b"wrong") is None
    assert access.recall("bob", b"secret") is None
    assert access.authenticate("ada", b"wrong") is None
    assert len(checks) == 2
    assert access.recall("ada", b"secret") is not None


def test_a_password_that_is_too_long_is_wrong_for_free(access: Access, checks: list[Cost]) -> None:
    assert access.authenticate("ada", b"x" * (PASSWORD_BYTES_MAX + 1)) is None
    assert checks == []


def test_without_a_file_everybody_may_do_everything() -> None:
    access = Access.load(None)
    assert access.is_open
    assert access.default is not None
    assert access.default.may(Right.ADMIN)
    assert access.default.may_touch_all
    access.reload()
    assert access.is_open


def test_with_users_nobody_comes_in_without_a_password_unless_the_default_user_has_none(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    users_file.write(path, {"ada": user("ada", b"secret")})
    access = Access.load(path)
    assert not access.is_open
    assert access.default is None
    users_file.write(path, {"default": User("default", Right.READ, (b"public:",))})
    access.reload()
    assert access.default == User("default", Right.READ, (b"public:",))
    users_file.write(path, {"default": user("default", b"secret")})
    access.reload()
    assert access.default is None
    assert access.authenticate("", b"secret") == access.authenticate("default", b"secret") is not None


def test_a_default_user_without_a_password_is_nobody_to_authenticate_as() -> None:
    access = Access.load(None)
    assert access.authenticate("default", b"") is None
    assert access.authenticate("", b"anything") is None


def test_reading_anew_forgets_what_was_verified_and_what_it_cannot_read_changes_nothing(
    tmp_path: Path, checks: list[Cost]
) -> None:
    path = tmp_path / "users.toml"
    before = user("ada", b"secret")
    users_file.write(path, {"ada": before})
    access = Access.load(path)
    known = access.authenticate("ada", b"secret")
    assert known is not None
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        access.reload()
    assert access.generation == 0
    assert access.recall("ada", b"secret") is not None
    path.chmod(0o600)
    users_file.write(path, {"ada": User("ada", Right.READ, (b"a:",), before.password)})
    access.reload()
    assert access.generation == 1
    assert access.recall("ada", b"secret") is None
    assert access.current(known) == User("ada", Right.READ, (b"a:",), before.password)
    users_file.write(path, {"ada": user("ada", b"changed")})
    access.reload()
    assert access.current(known) is None
    assert access.authenticate("ada", b"secret") is None
    users_file.write(path, {"bob": user("bob", b"secret")})
    access.reload()
    assert access.current(known) is None


@pytest.mark.parametrize(
    ("users", "is_exposed", "is_protected", "is_refused"),
    [
        (None, True, True, True),
        (None, False, True, False),
        (None, True, False, False),
        ({"default": User("default", Right.READ)}, True, True, True),
        ({}, True, True, False),
    ],
)
def test_protected_mode_refuses_an_open_door_that_other_machines_reach(
    users: Any, is_exposed: bool, is_protected: bool, is_refused: bool
) -> None:
    access = Access(users)
    if is_refused:
        with pytest.raises(ConfigError, match="default has no password.*protected_mode"):
            access.protect(is_exposed=is_exposed, is_protected=is_protected)
    else:
        access.protect(is_exposed=is_exposed, is_protected=is_protected)


def test_a_right_holds_those_below_it() -> None:
    writer = user("ada", b"x", Right.WRITE)
    assert writer.may(Right.READ)
    assert writer.may(Right.WRITE)
    assert not writer.may(Right.ADMIN)


def test_a_user_with_prefixes_touches_keys_that_begin_with_one_of_them() -> None:
    limited = user("ada", b"x", prefixes=(b"a:", b"orders:"))
    assert limited.may_touch(b"a:")
    assert limited.may_touch(b"orders:7")
    for key in (b"", b"a", b"b:a:", b"orders", b"A:1"):
        assert not limited.may_touch(key)
    assert not limited.may_touch_all
    assert user("bob", b"x").may_touch(b"")


def test_every_operation_of_a_client_but_hello_and_ping_has_a_right() -> None:
    ops = {value for name, value in vars(wire).items() if name.startswith("OP_") and name != "OP_MANY"}
    assert ops - RIGHT_BY_OP.keys() == {
        wire.OP_HELLO,
        wire.OP_PING,
        wire.OP_APPLY,
        wire.OP_CHECKPOINT,
        wire.OP_SYNC,
    }
    assert RIGHT_BY_OP.keys() >= WHOLE_KEYSPACE_OPS


def test_no_repr_shows_what_is_stored_of_a_password(access: Access) -> None:
    found = access.authenticate("ada", b"secret")
    assert found is not None
    assert str(found.password) not in repr(found)
    assert "secret" not in repr(vars(access)) + repr(found)
