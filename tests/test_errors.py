"""The tree of errors: codes that never change, and what every class promises."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from kio import errors
from kio.errors import BY_CODE, KioError, PartialFailure, from_wire

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, KioError)]
LEAVES = [cls for cls in ALL if not cls.__subclasses__()]


def test_codes_are_those_that_clients_in_other_languages_know() -> None:
    assert {cls.__name__: code for code, cls in BY_CODE.items()} == {
        "KeyEmpty": 16,
        "KeyTooLarge": 17,
        "ValueTooLarge": 18,
        "FrameTooLarge": 19,
        "BadRequest": 20,
        "UnknownOperation": 21,
        "NotAnInteger": 22,
        "NumberOverflow": 23,
        "Aborted": 24,
        "NotAuthenticated": 25,
        "NotPermitted": 26,
        "ShardDown": 32,
        "Overloaded": 33,
        "Draining": 34,
        "ReplyTooLarge": 35,
        "Timeout": 36,
        "ConnectionLost": 37,
        "Corrupt": 48,
        "ShardReadOnly": 49,
        "DiskFull": 50,
        "FormatTooNew": 51,
        "DirectoryInUse": 52,
        "DirectoryInvalid": 53,
        "MemoryFull": 54,
        "ProtocolError": 64,
        "ConfigError": 65,
        "InternalError": 66,
        "PartialFailure": 67,
        "LockTimeout": 68,
        "LockLost": 69,
        "NotDecodable": 70,
    }


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    drawn = re.findall(r"── (\w+) +(\d*)", errors.__doc__ or "")
    assert {name for name, _ in drawn} == {cls.__name__ for cls in ALL} - {"KioError"}
    assert {int(code): name for name, code in drawn if code} == {code: cls.__name__ for code, cls in BY_CODE.items()}


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_every_error_says_when_it_is_raised_and_fits_a_status_byte(cls: type[KioError]) -> None:
    assert (cls.__doc__ or "").startswith("Raised ")
    assert 16 <= cls.code < 128, "bit 7 of a status says that the write may have been applied"
    assert cls.text
    assert cls.text[0].islower()
    assert not cls.text.endswith(".")
    assert 1 <= cls.exit_code <= 255


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_only_what_may_succeed_later_is_retryable(cls: type[KioError]) -> None:
    assert cls.retryable == issubclass(cls, errors.Unavailable)


@pytest.mark.parametrize("cls", [c for c in LEAVES if c not in errors.CLIENT_MADE], ids=lambda cls: cls.__name__)
def test_an_error_crosses_the_wire_as_its_code(cls: type[KioError]) -> None:
    error = from_wire(cls.code, "why", maybe_applied=True)
    assert type(error) is cls
    assert str(error) == "why"
    assert error.maybe_applied
    assert str(from_wire(cls.code)) == cls.text


@pytest.mark.parametrize("code", [0, 1, 31, 67, 68, 69, 70, 127, 1000, -1])
def test_a_code_that_nobody_sends_becomes_an_internal_error_that_names_it(code: int) -> None:
    error = from_wire(code, "why")
    assert type(error) is errors.InternalError
    assert f"unknown code {code}: why" in str(error)


def test_errors_are_the_builtins_that_they_stand_for() -> None:
    assert issubclass(errors.Timeout, TimeoutError)
    assert issubclass(errors.ConnectionLost, ConnectionError)
    assert issubclass(errors.LockTimeout, TimeoutError)


def test_a_partial_failure_tells_which_keys_failed_and_what_the_others_gave() -> None:
    failure = PartialFailure("1 of 2 keys failed", errors={b"k": errors.ShardDown()}, result=[b"v", None])
    assert isinstance(failure.errors[b"k"], errors.ShardDown)
    assert failure.result == [b"v", None]
    assert PartialFailure().errors == {}


def test_an_error_survives_the_way_between_processes_of_a_client_program() -> None:
    error = errors.ShardDown("shard 3 is away", maybe_applied=True)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.ShardDown
    assert str(again) == "shard 3 is away"
    assert again.maybe_applied
