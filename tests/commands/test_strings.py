"""Commands on the value of one key, where no real server is at hand that knows them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from kio.commands import longdouble
from kio.commands.functions import REGISTER
from kio.commands.state import REMOVED, Outcome, State
from kio.errors import BadRequest, ValueTooLarge
from kio.limits import EXPIRE_AT_MS_MAX, TTL_MS_MAX, VALUE_BYTES_CEILING
from tests.commands.shard_model import Refused, ShardModel

NOW = 1_800_000_000_000


def call(name: str, state: State | None, *arguments: object) -> Outcome:
    return REGISTER.call(name, state, NOW, list(arguments))


def test_set_if_equal_writes_only_over_that_value(kio: ShardModel) -> None:
    assert kio("SET", "a", "1", "IFEQ", "1") is None
    assert kio("SET", "a", "1") == "OK"
    assert kio("SET", "a", "2", "IFEQ", "0") is None
    assert kio("SET", "a", "2", "ifeq", "1") == "OK"
    assert kio("SET", "a", "3", "IFEQ", "0", "GET") == b"2"
    assert kio("SET", "a", "3", "GET", "IFEQ", "2") == b"2"
    assert kio("GET", "a") == b"3"


def test_set_if_not_equal_also_writes_where_the_key_is_absent(kio: ShardModel) -> None:
    assert kio("SET", "a", "1", "IFNE", "1") == "OK"
    assert kio("SET", "a", "2", "IFNE", "1") is None
    assert kio("SET", "a", "2", "IFNE", "0") == "OK"
    assert kio("SET", "b", "1", "IFNE", "1", "GET") is None
    assert kio("GET", "b") == b"1"


def test_set_compares_digests_in_any_case(kio: ShardModel) -> None:
    digest = kio("SET", "a", "hello") and kio("DIGEST", "a")
    assert digest == b"9555e8555c62dcfd"
    assert kio("SET", "a", "x", "IFDNE", digest) is None
    assert kio("SET", "a", "x", "IFDEQ", digest.upper()) == "OK"
    assert kio("SET", "a", "y", "IFDEQ", digest) is None
    assert kio("SET", "none", "y", "IFDEQ", digest) is None
    assert kio("SET", "none", "y", "IFDNE", digest) == "OK"
    assert kio("DIGEST", "absent") is None
    for bad in ("", "123", "z" * 16, "0" * 17):
        with pytest.raises(Refused, match=r"^ERR must be exactly 16 hexadecimal characters$"):
            kio("SET", "a", "x", "IFDEQ", bad)


@pytest.mark.parametrize("rest", ["IFEQ", "IFEQ 1 NX", "NX IFEQ 1", "IFEQ 1 IFNE 2", "XX IFDNE 0123456789abcdef"])
def test_set_takes_one_condition(rest: str, kio: ShardModel) -> None:
    with pytest.raises(Refused, match=r"^ERR syntax error$"):
        kio("SET", "a", "1", *rest.split())


def test_set_with_a_condition_keeps_or_sets_the_expiry(kio: ShardModel) -> None:
    kio("SET", "a", "1", "PX", 500)
    assert kio("SET", "a", "2", "IFEQ", "1", "KEEPTTL") == "OK"
    assert kio.state(b"a") == State(b"2", NOW + 500)
    assert kio("SET", "a", "3", "IFEQ", "2", "EX", "7") == "OK"
    assert kio.state(b"a") == State(b"3", NOW + 7000)
    assert kio("SET", "a", "4", "XX", "GET", "PXAT", NOW + 9) == b"3"
    assert kio.state(b"a") == State(b"4", NOW + 9)
    assert kio("SET", "a", "5", "IFEQ", "4") == "OK"
    assert kio.state(b"a") == State(b"5")
    assert kio("SET", "a", "6", "IFEQ", "5", "PXAT", NOW) == "OK"
    assert kio.state(b"a") is None


@pytest.mark.parametrize("option", ["PX", "PXAT"])
def test_times_that_kio_cannot_say_are_its_last_and_beyond_64_bits_are_refused(option: str, kio: ShardModel) -> None:
    latest = TTL_MS_MAX if option == "PX" else EXPIRE_AT_MS_MAX
    for time in (latest, latest + 1, 1 << 62):
        assert kio("SET", "a", "1", option, time) == "OK"
        assert kio.state(b"a") == State(b"1", latest + (NOW if option == "PX" else 0))
        assert kio("GETEX", "a", option, time) == b"1"
    beyond = (1 << 63) - 1 if option == "PX" else 1 << 63
    text = r"^ERR (invalid expire time in 'set' command|value is not an integer or out of range)$"
    with pytest.raises(Refused, match=text):
        kio("SET", "a", "1", option, beyond)


def test_getex_sets_and_takes_away_the_expiry(kio: ShardModel) -> None:
    kio("SET", "a", "1")
    assert kio("GETEX", "a", "PX", 20) == b"1"
    assert kio.state(b"a") == State(b"1", NOW + 20)
    assert kio("GETEX", "a") == b"1"
    assert kio.state(b"a") == State(b"1", NOW + 20)
    assert kio("GETEX", "a", "PERSIST") == b"1"
    assert kio.state(b"a") == State(b"1")
    assert kio("GETEX", "a", "PXAT", NOW) == b"1"
    assert kio.state(b"a") is None


def test_delex_removes_where_its_condition_holds(kio: ShardModel) -> None:
    assert kio("DELEX", "a") == 0
    assert kio("DELEX", "a", "IFNE", "x") == 0
    kio("SET", "a", "1")
    digest = kio("DIGEST", "a")
    assert kio("DELEX", "a", "IFEQ", "2") == 0
    assert kio("DELEX", "a", "IFNE", "1") == 0
    assert kio("DELEX", "a", "IFDNE", digest) == 0
    assert kio("DELEX", "a", "ifdeq", digest) == 1
    assert kio.state(b"a") is None
    kio("SET", "a", "1")
    assert kio("DELEX", "a") == 1
    for words, text in (
        (("IFEQ",), "wrong number of arguments for 'delex' command"),
        (("NX", "1"), "syntax error"),
        (("IFDEQ", "1"), "must be exactly 16 hexadecimal characters"),
    ):
        with pytest.raises(Refused, match=text):
            kio("DELEX", "a", *words)


def test_updates_keep_the_expiry() -> None:
    assert call("setrange", State(b"abc", 5), 1, b"X").change == State(b"aXc", 5)
    assert call("incrbyfloat", State(b"1", 5), b"1").change == State(b"2", 5)


def test_a_string_too_long_is_refused_before_it_is_made() -> None:
    with pytest.raises(ValueTooLarge):
        call("setrange", None, VALUE_BYTES_CEILING, b"x")
    with pytest.raises(BadRequest, match=r"^string exceeds maximum allowed size \(proto-max-bulk-len\)$"):
        call("setrange", None, 512 * 1024 * 1024, b"x")


def test_a_value_longer_than_the_daemon_takes_says_so(kio: ShardModel) -> None:
    with pytest.raises(Refused, match=r"^ERR string exceeds maximum allowed size \(max_value_bytes\)$"):
        kio("SETRANGE", "a", 20 * 1024 * 1024, "x")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("strlen", [1]), ("getrange", ["x", 1]), ("incrbyfloat", [1]), ("set_full", [b"v", "IF"]), ("nothing", [])],
)
def test_arguments_of_another_kind_are_a_bad_request(name: str, arguments: list[object]) -> None:
    with pytest.raises(BadRequest):
        call(name, State(b"1"), *arguments)


def test_functions_that_change_nothing_say_so() -> None:
    state = State(b"v", NOW + 9)
    for outcome in (
        call("strlen", state),
        call("getrange", state, 0, -1),
        call("setrange", state, 7, b""),
        call("digest", state),
        call("getex", state, NOW + 9),
        call("delex", state, "IFEQ", b"w"),
        call("set_full", state, b"w", "NX", b"", 0, False, True),
    ):
        assert outcome.change is None
    assert call("delex", state, "IFEQ", b"v").change is REMOVED


@pytest.mark.parametrize(
    "text", [b"0x", b"0x.", b"1e5 ", b"--1", b"1" + b"0" * 5000 + b"e-1", b"1e99999999999", b"1e" + b"9" * 5000]
)
def test_text_that_is_no_number_is_refused(text: bytes) -> None:
    assert longdouble.parse(text) is None


def test_numbers_have_64_bits_of_mantissa() -> None:
    assert longdouble.rounded(Fraction(2**64 - 1)) == 2**64 - 1
    assert longdouble.rounded(Fraction(2**64 + 1)) == 2**64
    assert longdouble.rounded(Fraction(2**65 + 3)) == 2**65 + 4
    assert longdouble.rounded(Fraction(1, 2**16_445)) == Fraction(1, 2**16_445)
    assert longdouble.rounded(Fraction(1, 2**16_447)) == 0
    with pytest.raises(longdouble.Infinite):
        longdouble.rounded(Fraction(2**16_384))
