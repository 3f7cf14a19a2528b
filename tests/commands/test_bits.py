"""Bits and fields of bits, against models that are slow and plain."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kio.commands import bits
from kio.commands.bitfield import Field
from kio.commands.functions import REGISTER
from kio.commands.state import Outcome, State
from kio.errors import BadRequest, ValueTooLarge
from kio.limits import VALUE_BYTES_CEILING
from tests.commands.real_server import RealServer
from tests.commands.shard_model import Refused, ShardModel

VALUES = st.binary(max_size=6) | st.lists(st.sampled_from([b"\0", b"\xff", b"\x10"]), max_size=6).map(b"".join)
INDEXES = st.integers(-60, 60)
I64 = st.integers(-(2**63), 2**63 - 1)
FIELDS = st.builds(
    lambda kind, signed, width, offset, value, overflow: Field(
        kind, signed, min(width, 64 if signed else 63), offset, 0 if kind == "GET" else value, overflow
    ),
    st.sampled_from(["GET", "SET", "INCRBY"]),
    st.booleans(),
    st.integers(1, 64),
    st.integers(0, 70),
    I64 | st.integers(-5, 5),
    st.sampled_from(["WRAP", "SAT", "FAIL"]),
)


def call(name: str, value: bytes | None, *arguments: Any) -> Outcome:
    return REGISTER.call(name, None if value is None else State(value), 0, list(arguments))


def digits(value: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in value)


def part(length: int, start: int, end: int) -> range:
    first = max(0, start + length) if start < 0 else start
    last = max(0, end + length) if end < 0 else end
    return range(first, min(last, length - 1) + 1)


@given(VALUES, INDEXES, INDEXES, st.booleans())
def test_bitcount_counts_the_ones_of_the_range(value: bytes, start: int, end: int, is_bits: bool) -> None:
    text = digits(value)
    if start < 0 and end < 0 and start > end:
        expected = 0
    elif is_bits:
        expected = sum(text[i] == "1" for i in part(len(text), start, end))
    else:
        expected = sum(value[i].bit_count() for i in part(len(value), start, end))
    assert call("bitcount", value, start, end, is_bits).reply == expected


@given(VALUES, st.sampled_from([0, 1]), INDEXES, INDEXES, st.booleans())
def test_bitpos_finds_the_first_of_the_range(value: bytes, bit: int, start: int, end: int, is_bits: bool) -> None:
    text = digits(value)
    if is_bits:
        places = list(part(len(text), start, end))
    else:
        places = [8 * i + j for i in part(len(value), start, end) for j in range(8)]
    expected = next((i for i in places if text[i] == str(bit)), -1)
    assert call("bitpos", value, bit, start, end, is_bits, True).reply == expected


@given(st.binary(max_size=6), st.integers(0, 70), st.sampled_from([0, 1]))
def test_setbit_changes_one_bit_and_getbit_reads_it(value: bytes, offset: int, bit: int) -> None:
    outcome = call("setbit", value, offset, bit)
    assert outcome.reply == call("getbit", value, offset).reply
    new = outcome.change.value if isinstance(outcome.change, State) else value
    expected = list(digits(value).ljust((offset // 8 + 1) * 8, "0"))
    expected[offset] = str(bit)
    assert digits(new) == "".join(expected)
    assert call("getbit", new, offset).reply == bit


@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from(bits.COMBINATIONS))
def test_bitop_combines_bit_by_bit(values: list[bytes], operation: str) -> None:
    length = max(map(len, values))
    columns = zip(*(digits(value.ljust(length, b"\0")) for value in values), strict=True)

    def one(first: str, *others: str) -> bool:
        a, any_other = first == "1", "1" in others
        return {
            "AND": a and "0" not in others,
            "OR": a or any_other,
            "XOR": (a + others.count("1")) % 2 == 1,
            "NOT": not a,
            "DIFF": a and not any_other,
            "DIFF1": any_other and not a,
            "ANDOR": a and any_other,
            "ONE": a + others.count("1") == 1,
        }[operation]

    found = bits.combine(operation, values)
    assert len(found) == length
    assert digits(found) == "".join(str(int(one(*column))) for column in columns)


class FieldsModel:
    """A value as a string of digits, long enough for all."""

    def __init__(self, value: bytes) -> None:
        self.text = digits(value)

    def do(self, field: Field) -> int | None:
        end = field.offset + field.bits
        text = self.text.ljust(end, "0")
        before = int(text[field.offset : end], 2)
        if field.is_signed and text[field.offset] == "1":
            before -= 2**field.bits
        if field.kind == "GET":
            return before
        lowest, highest = (
            (-(2 ** (field.bits - 1)), 2 ** (field.bits - 1) - 1) if field.is_signed else (0, 2**field.bits - 1)
        )
        wanted = before + field.value if field.kind == "INCRBY" else field.value
        if field.kind == "SET" and not field.is_signed and wanted < 0:
            wanted += 2**64
        number = wanted
        if not lowest <= wanted <= highest:
            if field.overflow == "FAIL":
                return None
            number = (wanted - lowest) % 2**field.bits + lowest
            if field.overflow == "SAT":
                number = min(max(wanted, lowest), highest)
        self.text = text[: field.offset] + f"{number % 2**field.bits:0{field.bits}b}" + text[end:]
        return number if field.kind == "INCRBY" else before


@given(VALUES, st.lists(FIELDS, max_size=5))
def test_fields_are_what_their_bits_say(value: bytes, fields: list[Field]) -> None:
    model = FieldsModel(value)
    expected = [model.do(field) for field in fields]
    outcome = call("bitfield", value, [list(field) for field in fields])
    assert outcome.reply == expected
    new = outcome.change.value if isinstance(outcome.change, State) else value
    written = [(field.offset + field.bits + 7) // 8 for field in fields if field.kind != "GET"]
    assert len(new) == max([len(value), *written])
    assert digits(new) == model.text.ljust(len(new) * 8, "0")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FIELDS, min_size=1, max_size=6))
def test_fields_are_what_a_real_server_makes_of_them(redis: RealServer, fields: list[Field]) -> None:
    # A real server reckons with 64 bits: the lowest numbers overflow there, and saturate at the highest.
    fields = [field._replace(value=field.value // 2) for field in fields]
    kio = ShardModel()
    redis("DEL", "f")
    words: list[str | int] = []
    for field in fields:
        words += ["OVERFLOW", field.overflow, field.kind, f"{'ui'[field.is_signed]}{field.bits}", field.offset]
        words += [] if field.kind == "GET" else [field.value]
    assert kio("BITFIELD", "f", *words) == redis("BITFIELD", "f", *words)
    assert kio("GET", "f") == redis("GET", "f")


def test_ranges_of_bits_are_those_of_a_real_server(redis: RealServer, kio: ShardModel) -> None:
    chance = random.Random(7)
    for _ in range(500):
        value = bytes(chance.choice((0, 255, 255, 0x18, 0xF0)) for _ in range(chance.randrange(1, 6)))
        redis("SET", "b", value)
        kio("SET", "b", value)
        start, end = chance.randrange(-50, 50), chance.randrange(-50, 50)
        unit = chance.choice(("BIT", "BYTE"))
        for words in (
            ("BITCOUNT", "b", start, end, unit),
            ("BITPOS", "b", 0, start, end, unit),
            ("BITPOS", "b", 1, start, end, unit),
            ("BITPOS", "b", 0, start),
            ("GETRANGE", "b", start, end),
        ):
            assert kio(*words) == redis(*words), (value, words)


def test_newer_combinations_need_their_sources(kio: ShardModel) -> None:
    kio("SET", "a", b"\xf0")
    kio("SET", "b", b"\x3c")
    for operation, expected in (("DIFF", 0xC0), ("DIFF1", 0x0C), ("ANDOR", 0x30), ("ONE", 0xCC)):
        assert kio("BITOP", operation, "r", "a", "b") == 1
        assert kio("GET", "r") == bytes((expected,))
    assert kio("BITOP", "ONE", "r", "a") == 1
    for operation in ("DIFF", "DIFF1", "ANDOR"):
        with pytest.raises(Refused, match=f"^ERR BITOP {operation} must be called with at least two source keys.$"):
            kio("BITOP", operation, "r", "a")


def test_what_is_wrong_is_refused_though_the_key_is_absent(kio: ShardModel) -> None:
    for words in (
        ("BITCOUNT", "none", "0"),
        ("BITCOUNT", "none", "0", "1", "FOO"),
        ("BITPOS", "none", "1", "0", "1", "FOO"),
        ("BITPOS", "none", "1", "0", "1", "BIT", "BIT"),
    ):
        with pytest.raises(Refused, match=r"^ERR syntax error$"):
            kio(*words)


def test_values_too_long_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueTooLarge):
        call("setbit", None, VALUE_BYTES_CEILING * 8, 1)
    with pytest.raises(ValueTooLarge):
        call("bitfield", None, [["SET", False, 8, VALUE_BYTES_CEILING * 8, 1, "WRAP"]])
    assert call("bitfield", None, [["GET", False, 8, VALUE_BYTES_CEILING * 8, 0, "WRAP"]]).reply == [0]


@pytest.mark.parametrize(
    "operation",
    [
        ["PUT", False, 8, 0, 0, "WRAP"],
        ["SET", False, 64, 0, 0, "WRAP"],
        ["SET", True, 0, 0, 0, "WRAP"],
        ["SET", True, 8, -1, 0, "WRAP"],
        ["SET", True, 8, 1 << 32, 0, "WRAP"],
        ["SET", True, 8, 0, 0, "BEND"],
        ["SET", True],
    ],
)
def test_what_is_no_operation_is_a_bad_request(operation: list[object]) -> None:
    with pytest.raises(BadRequest):
        call("bitfield", b"", [operation])


def test_writing_what_is_there_changes_nothing() -> None:
    assert call("setbit", b"\x80", 0, 1).change is None
    assert call("bitfield", b"\x80", [["SET", False, 1, 0, 1, "WRAP"]]).change is None
    assert call("setbit", None, 0, 0).change == State(b"\0")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("getbit", [-1]),
        ("getbit", [1 << 32]),
        ("setbit", [1 << 32, 1]),
        ("setbit", [0, 2]),
        ("bitpos", [2, 0, -1, False, False]),
        ("setrange", [-1, b"x"]),
    ],
)
def test_arguments_out_of_range_are_a_bad_request(name: str, arguments: list[object]) -> None:
    with pytest.raises(BadRequest):
        call(name, b"v", *arguments)
