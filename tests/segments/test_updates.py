"""incr, append, expire, persist and ttl, and how long a record with an expiry is there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kio import opbatch, wire
from kio.errors import Corrupt, NotAnInteger, NumberOverflow, ValueTooLarge
from kio.opbatch import ABSENT, DONE, EXPIRE_AT, KEEP_TTL, NUMBER, TTL, UNMET, VERSIONED, WITH_VERSION, Operation
from kio.segments.options import StoreOptions
from tests.segments.support import Driven, Timed, delete, get, operation, put

NOW = 1_700_000_000_000
I64 = struct.Struct("<q")
LOW, HIGH = -(1 << 63), (1 << 63) - 1


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Timed]:
    driven = Timed(tmp_path / "shard").at(NOW)
    yield driven
    driven.store.close()


def incr(key: bytes, delta: int) -> Operation:
    return operation(wire.OP_INCR, key, I64.pack(delta))


def append(key: bytes, more: bytes) -> Operation:
    return operation(wire.OP_APPEND, key, more)


def expire(key: bytes, flag: int, time_ms: int) -> Operation:
    return operation(wire.OP_EXPIRE, key, flags={flag: time_ms})


def number(driven: Driven, op: Operation) -> int | None:
    """What an operation answers: a number, None when absent."""
    reply = driven.one(op)
    assert reply.status in (NUMBER, ABSENT)
    return I64.unpack(reply.payload)[0] if reply.status == NUMBER else None


def ttl(driven: Driven, key: bytes) -> int | None:
    return number(driven, operation(wire.OP_TTL, key))


# ---- incr ----


def test_incr_counts_from_zero_and_stores_decimal_text(driven: Driven) -> None:
    assert number(driven, incr(b"n", 0)) == 0
    assert driven.get(b"n") == b"0"
    assert number(driven, incr(b"n", -12)) == -12
    assert driven.get(b"n") == b"-12"
    assert number(driven, incr(b"n", 1000)) == 988
    replies = driven.replies(*(incr(b"n", 1) for _ in range(3)))
    assert [I64.unpack(reply.payload)[0] for reply in replies] == [989, 990, 991]
    driven.reopen()
    assert driven.get(b"n") == b"991"


@pytest.mark.parametrize(
    "text",
    [b"", b"-", b"+1", b" 1", b"1 ", b"01", b"-0", b"-01", b"1_0", b"1.0", b"0x1", b"1e3", b"\x00", "\u0661".encode(),
     b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"99999999999999999999", b"1" * 21],
)  # fmt: skip
def test_a_value_that_is_no_number_is_left_as_it_is(driven: Driven, text: bytes) -> None:
    driven.put(b"n", text)
    with pytest.raises(NotAnInteger):
        driven.one(incr(b"n", 1))
    assert driven.get(b"n") == text


@pytest.fixture(scope="module")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    driven = Driven(tmp_path_factory.mktemp("sums") / "shard", StoreOptions(segment_bytes=1 << 20))
    yield driven
    driven.store.close()


@settings(max_examples=200)
@given(start=st.integers(LOW, HIGH), delta=st.integers(LOW, HIGH))
def test_incr_is_addition_in_64_bits(adder: Driven, start: int, delta: int) -> None:
    driven = adder
    driven.put(b"n", b"%d" % start)
    total = start + delta
    if LOW <= total <= HIGH:
        assert number(driven, incr(b"n", delta)) == total
        assert driven.get(b"n") == b"%d" % total
    else:
        with pytest.raises(NumberOverflow):
            driven.one(incr(b"n", delta))
        assert driven.get(b"n") == b"%d" % start


@pytest.mark.parametrize(("start", "delta"), [(HIGH, 1), (LOW, -1), (1, HIGH), (-1, LOW), (LOW, LOW)])
def test_an_incr_that_would_not_fit_is_refused(driven: Driven, start: int, delta: int) -> None:
    driven.put(b"n", b"%d" % start)
    with pytest.raises(NumberOverflow):
        driven.one(incr(b"n", delta))
    assert driven.get(b"n") == b"%d" % start
    assert number(driven, incr(b"n", -start if start != LOW else HIGH)) == (0 if start != LOW else -1)


# ---- append ----


def test_append_answers_the_new_length(driven: Driven) -> None:
    assert number(driven, append(b"k", b"")) == 0
    assert driven.get(b"k") == b""
    assert number(driven, append(b"k", b"abc")) == 3
    # Its old value may stand in the same batch, not yet written, in a buffer that grows.
    driven.replies(*(append(b"k", bytes([i]) * 500) for i in range(20)))
    assert driven.get(b"k") == b"abc" + b"".join(bytes([i]) * 500 for i in range(20))


def test_append_does_not_go_past_the_longest_value(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(value_bytes_max=10))
    assert number(driven, append(b"k", b"12345678")) == 8
    assert number(driven, append(b"k", b"90")) == 10
    for more in (b"1", b"12345678901"):
        with pytest.raises(ValueTooLarge):
            driven.one(append(b"k", more))
    assert driven.get(b"k") == b"1234567890"


# ---- expiry ----


def test_a_record_is_there_until_its_time_and_not_at_it(driven: Driven) -> None:
    driven.one(put(b"ttl", b"v", flags={TTL: 100}))
    driven.one(put(b"at", b"v", flags={EXPIRE_AT: NOW + 100}))
    driven.at(NOW + 99)
    for key in (b"ttl", b"at"):
        assert driven.get(key) == b"v"
        assert driven.exists(key)
        assert ttl(driven, key) == 1
    assert driven.items().keys() == {b"ttl", b"at"}
    driven.at(NOW + 100)
    for key in (b"ttl", b"at"):
        assert driven.get(key) is None
        assert not driven.exists(key)
        assert ttl(driven, key) is None
        assert not driven.delete(key)
        assert driven.one(operation(wire.OP_PERSIST, key)).status == ABSENT
        assert driven.one(expire(key, TTL, 1000)).status == ABSENT
    assert driven.items() == {}
    assert driven.store._engine.expired_ms == NOW + 100


def test_an_expired_record_counts_as_absent_for_conditions_and_updates(driven: Driven) -> None:
    for key in (b"set", b"incr", b"append", b"present", b"keep"):
        driven.one(put(key, b"7", flags={TTL: 1}))
    driven.at(NOW + 1)
    reply = driven.one(put(b"present", b"v", flags={opbatch.IF_PRESENT: None}))
    assert (reply.status, reply.payload) == (UNMET, b"")
    assert driven.one(put(b"set", b"new", flags={opbatch.IF_ABSENT: None, opbatch.WITH_OLD: None})).status == ABSENT
    assert driven.one(put(b"keep", b"new", flags={KEEP_TTL: None})).status == DONE
    assert number(driven, incr(b"incr", 1)) == 1
    assert number(driven, append(b"append", b"x")) == 1
    driven.reopen()
    assert driven.items() == {b"set": b"new", b"incr": b"1", b"append": b"x", b"keep": b"new"}
    assert {ttl(driven, key) for key in driven.items()} == {-1}


def test_set_clears_the_expiry_unless_told_and_incr_and_append_keep_it(driven: Driven) -> None:
    for key in (b"plain", b"kept", b"incr", b"append"):
        driven.one(put(key, b"1", flags={EXPIRE_AT: NOW + 500}))
    driven.put(b"plain", b"2")
    driven.one(put(b"kept", b"2", flags={KEEP_TTL: None}))
    driven.one(incr(b"incr", 1))
    driven.one(append(b"append", b"2"))
    driven.reopen()
    assert {key: ttl(driven, key) for key in driven.items()} == {
        b"plain": -1,
        b"kept": 500,
        b"incr": 500,
        b"append": 500,
    }
    assert driven.one(put(b"new", b"v", flags={KEEP_TTL: None})).status == DONE
    assert ttl(driven, b"new") == -1


def test_expire_and_persist_rewrite_the_record(driven: Driven) -> None:
    driven.put(b"k", b"value")
    reply = driven.one(operation(wire.OP_PERSIST, b"k"))
    assert (reply.status, reply.payload) == (UNMET, opbatch.VERSION.pack(1, 1, 0))
    assert driven.one(expire(b"k", EXPIRE_AT, NOW + 1)).status == DONE
    assert driven.one(expire(b"k", TTL, 1000)).status == DONE
    driven.reopen()
    assert (driven.get(b"k"), ttl(driven, b"k")) == (b"value", 1000)
    assert driven.one(operation(wire.OP_PERSIST, b"k")).status == DONE
    driven.reopen()
    assert (driven.get(b"k"), ttl(driven, b"k")) == (b"value", -1)
    assert driven.one(operation(wire.OP_PERSIST, b"none")).status == ABSENT
    assert ttl(driven, b"none") is None


@pytest.mark.parametrize(("flag", "time_ms"), [(TTL, 0), (EXPIRE_AT, 0), (EXPIRE_AT, NOW), (EXPIRE_AT, NOW - 1)])
def test_a_time_in_the_past_deletes(driven: Driven, flag: int, time_ms: int) -> None:
    for key in (b"expire", b"set", b"version"):
        driven.put(key, b"old")
    assert driven.one(expire(b"expire", flag, time_ms)).status == DONE
    assert driven.one(put(b"set", b"new", flags={flag: time_ms})).status == DONE
    reply = driven.one(put(b"version", b"new", flags={flag: time_ms, WITH_VERSION: None}))
    assert (reply.status, reply.payload) == (VERSIONED, opbatch.VERSION.pack(0, 0, 0))
    lsn = driven.store.lsn
    assert driven.one(put(b"nothing there", b"new", flags={flag: time_ms})).status == DONE
    assert driven.store.lsn == lsn
    assert driven.count() == 0
    # Nothing of it comes back, whatever the clock says.
    driven.at(1).reopen()
    assert driven.items() == {}


def test_a_set_over_an_expired_record_hides_it_for_ever(driven: Driven) -> None:
    driven.put(b"k", b"oldest")
    driven.one(put(b"k", b"old", flags={TTL: 10}))
    driven.at(NOW + 10)
    driven.put(b"k", b"new")
    assert driven.count() == 1
    driven.delete(b"k")
    driven.reopen()
    assert driven.get(b"k") is None


def test_records_with_an_expiry_are_live_bytes_of_their_length(driven: Driven) -> None:
    driven.one(put(b"k", b"value", flags={TTL: 10}))
    assert driven.store.stats()["live_bytes"] == 24 + 8 + 8
    driven.one(expire(b"k", TTL, 20))
    stats = driven.store.stats()
    assert (stats["live_bytes"], stats["dead_bytes"]) == (40, 40)
    driven.restart()
    stats = driven.store.stats()
    assert (stats["live_bytes"], stats["dead_bytes"]) == (40, 40)


def test_a_damaged_record_is_not_taken_for_an_expired_one(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard").at(NOW)
    driven.one(put(b"key", b"value", flags={EXPIRE_AT: NOW + 1000}))
    path = next((tmp_path / "shard").glob("*.seg"))
    at = path.read_bytes().index((NOW + 1000).to_bytes(8, "little"))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(8))
    for op in (get(b"key"), operation(wire.OP_EXISTS, b"key"), operation(wire.OP_TTL, b"key")):
        with pytest.raises(Corrupt):
            driven.one(op)
    assert driven.one(delete(b"key")).status == DONE


def test_that_a_record_has_expired_is_told_when_the_record_is_durable(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(sync="always")).at(NOW)
    driven.put(b"k", b"durable")
    driven.sync()
    driven.execute(put(b"k", b"short", flags={TTL: 1}))
    driven.at(NOW + 1)
    reads = [get(b"k"), operation(wire.OP_EXISTS, b"k"), operation(wire.OP_TTL, b"k"), delete(b"k")]
    assert driven.execute(*reads).replies == b""
    driven.sync()
    assert driven.execute(*reads).parked == b""
