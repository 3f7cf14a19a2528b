"""Functions on a key, run in its shard; a sync and a checkpoint that are asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kio import opbatch, wire
from kio.commands.state import REGISTER
from kio.errors import BadRequest, Corrupt, DiskFull, KeyEmpty, ShardReadOnly, ValueTooLarge
from kio.limits import ATOMIC_BYTES_MAX, KIB, MIB
from kio.opbatch import ABSENT, DONE, EACH, EXPIRE_AT, NUMBER, VALUE, Operation, Reply
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.support import Driven, Timed, get, operation, put
from tests.segments.test_atomic import errors_of, inner

NOW = 1_700_000_000_000
ALWAYS = StoreOptions(segment_bytes=64 * KIB, sync="always")


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Timed]:
    driven = Timed(tmp_path / "shard").at(NOW)
    yield driven
    driven.store.close()


def apply(key: bytes, name: str, *arguments: Any) -> Operation:
    return operation(wire.OP_APPLY, key, msgpack.packb([name, *arguments]))


def each(*operations: Operation) -> Operation:
    return operation(wire.OP_ATOMIC, b"", opbatch.encode_batch(0, 7, operations))._replace(flags=EACH)


def atomic(*operations: Operation) -> Operation:
    return each(*operations)._replace(flags=0)


def told(reply: Reply) -> Any:
    """What a function answered."""
    error = reply.error()
    if error is not None:
        raise error
    assert reply.status == VALUE
    return msgpack.unpackb(reply.payload)


def expiry(driven: Driven, key: bytes) -> int | None:
    result = told(driven.one(apply(key, "expiry_time")))
    assert result is None or isinstance(result, int)
    return result


# --- what a function finds, and what it leaves


def test_a_function_finds_the_value_and_the_expiry_and_may_change_both(driven: Timed) -> None:
    assert told(driven.one(apply(b"k", "strlen"))) == 0
    assert told(driven.one(apply(b"k", "getex", NOW + 5))) is None
    assert driven.get(b"k") is None
    assert told(driven.one(apply(b"k", "setrange", 2, b"abc"))) == 5
    assert driven.get(b"k") == b"\0\0abc"
    assert expiry(driven, b"k") == -1
    assert told(driven.one(apply(b"k", "getex", NOW + 5_000))) == b"\0\0abc"
    assert told(driven.one(apply(b"k", "setrange", 0, b"x"))) == 5
    assert expiry(driven, b"k") == NOW + 5_000, "it keeps the expiry"
    driven.reopen()
    assert driven.get(b"k") == b"x\0abc"
    assert expiry(driven, b"k") == NOW + 5_000


def test_an_expired_record_is_none(driven: Timed) -> None:
    driven.one(put(b"k", b"old", flags={EXPIRE_AT: NOW + 10}))
    driven.at(NOW + 10)
    assert told(driven.one(apply(b"k", "strlen"))) == 0
    assert told(driven.one(apply(b"k", "setrange", 0, b"n"))) == 1
    assert (driven.get(b"k"), expiry(driven, b"k")) == (b"n", -1)


def test_a_time_that_has_passed_removes_the_key(driven: Timed) -> None:
    driven.put(b"k", b"v")
    assert told(driven.one(apply(b"k", "getex", NOW))) == b"v"
    assert driven.get(b"k") is None
    assert driven.count() == 0
    assert driven.reopen().get(b"k") is None


def test_a_function_that_removes_a_key_that_is_not_there_writes_nothing(driven: Timed) -> None:
    tail = driven.store._engine.tail
    assert told(driven.one(apply(b"k", "delex", "IFNE", b"x"))) in (False, True)
    assert driven.store._engine.tail == tail


def test_keyspaces_are_apart(driven: Timed) -> None:
    driven.put(b"k", b"zero")
    driven.put(b"k", b"three", 3)
    of_three = operation(wire.OP_APPLY, b"k", msgpack.packb(["setrange", 0, b"T"]), 3)
    assert told(driven.one(of_three)) == 5
    assert (driven.get(b"k"), driven.get(b"k", 3)) == (b"zero", b"Three")


def test_functions_stand_in_their_order_among_the_operations_of_a_batch(driven: Timed) -> None:
    replies = driven.replies(
        put(b"k", b"1"), apply(b"k", "setrange", 1, b"2"), get(b"k"), apply(b"k", "strlen"), put(b"k", b""),
        apply(b"k", "setrange", 0, b"z"), get(b"k"),
    )  # fmt: skip
    assert [reply.status for reply in replies] == [DONE, VALUE, VALUE, VALUE, DONE, VALUE, VALUE]
    assert (replies[2].payload, replies[6].payload) == (b"12", b"z")
    assert told(replies[3]) == 2


# --- what is refused


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xc1", b"\x90", msgpack.packb(5), msgpack.packb(None), msgpack.packb({}), msgpack.packb([[]]),
        msgpack.packb([{}]), msgpack.packb([None]), msgpack.packb(["nosuch"]), msgpack.packb(["strlen", 1]),
        msgpack.packb(["setrange", "a", b"b"]), msgpack.packb(["setrange", -1, b"b"]), msgpack.packb(["setrange"]),
        msgpack.packb(["strlen"]) + b"\x00", b"\x91" * 2_000, b"\xdd\xff\xff\xff\xff",
        msgpack.packb(["setrange", 1 << 63, b"b"]), msgpack.packb(["getrange", b"x", 1.5]),
    ],
)  # fmt: skip
def test_what_is_no_call_of_a_function_is_refused_and_the_worker_goes_on(driven: Timed, value: bytes) -> None:
    driven.put(b"k", b"v")
    replies = driven.replies(operation(wire.OP_APPLY, b"k", value), get(b"k"), put(b"l", b"1"))
    assert errors_of(replies) == [BadRequest, None, None]
    assert replies[1].payload == b"v"


@pytest.mark.parametrize("name", sorted(REGISTER.functions))
@pytest.mark.parametrize("value", [None, b"", b"12", bytes(100)])
def test_no_arguments_whatever_break_a_worker(driven: Timed, name: str, value: bytes | None) -> None:
    some = [0, -1, 1 << 40, (1 << 64) - 1, -(1 << 63), 1.5, float("nan"), None, True, b"", b"1", "NX", [], [b"x"], {}]
    for first in some:
        for arguments in ((first,), (first, first), (b"x", first), (first, b"x", first), (1, first, 1, 1, 1, 1)):
            if value is not None:
                driven.put(b"k", value)
            (reply,) = driven.replies(apply(b"k", name, *arguments))
            assert reply.status == VALUE or reply.error() is not None
    assert driven.delete(b"k") in (True, False)


def test_a_value_too_long_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB, value_bytes_max=1_000))
    driven.put(b"k", b"v")
    assert told(driven.one(apply(b"k", "setrange", 999, b"x"))) == 1_000
    for refused in (apply(b"k", "setrange", 1_000, b"x"), apply(b"new", "setrange", 990, bytes(11))):
        with pytest.raises(ValueTooLarge):
            driven.one(refused)
    assert driven.items().keys() == {b"k"}
    assert len(driven.get(b"k") or b"") == 1_000


def test_a_function_that_makes_no_bytes_changes_nothing(driven: Timed) -> None:
    for value in (1, "text", [], None):
        (reply,) = driven.replies(apply(b"k", "set_full", value, "", b"", 0, False, False))
        assert errors_of([reply]) == [BadRequest] or value is None
    assert driven.get(b"k") is None


def test_an_empty_key_is_refused(driven: Timed) -> None:
    assert errors_of(driven.replies(apply(b"", "strlen"), apply(b"", "setrange", 0, b"x"))) == [KeyEmpty] * 2


def test_a_corrupt_record_is_told_and_left(driven: Timed) -> None:
    driven.put(b"k", b"some value that is damaged")
    path = next(driven.path.glob("*.seg"))
    at = path.read_bytes().index(b"that is")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"THAT")
    for call in (apply(b"k", "strlen"), apply(b"k", "setrange", 0, b"x"), apply(b"k", "delex", "IFNE", b"x")):
        with pytest.raises(Corrupt):
            driven.one(call)
    replies = driven.replies(each(apply(b"k", "strlen"), put(b"l", b"1"), apply(b"l", "strlen")))
    assert errors_of(inner(replies[0])) == [Corrupt, None, None]


# --- rotation, the disk


def test_a_record_that_does_not_fit_goes_into_the_next_segment(driven: Timed) -> None:
    driven.put(b"k", bytes(600))
    slot = driven.store._chain.active.slot
    assert told(driven.one(apply(b"k", "setrange", 0, b"x"))) == 600
    assert driven.store._chain.active.slot != slot
    assert told(driven.one(apply(b"k", "setrange", 5_000, b"y"))) == 5_001, "longer than a segment"
    assert driven.reopen().get(b"k") == b"x" + bytes(4_999) + b"y"


def test_where_no_segment_can_be_made_it_is_refused_and_reading_functions_go_on(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 * KIB), disk)
    driven.put(b"k", b"old")
    disk.fail("create", error=28, times=3)
    replies = driven.replies(apply(b"k", "setrange", 0, bytes(2 * KIB)), apply(b"k", "strlen"), get(b"k"))
    assert errors_of(replies) == [DiskFull, None, None]
    assert told(replies[1]) == 3
    disk.heal()
    driven.look_for_room()
    assert told(driven.one(apply(b"k", "setrange", 0, bytes(2 * KIB)))) == 2 * KIB


def test_what_the_disk_refuses_is_met_again_and_refused(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ALWAYS, disk)
    driven.put(b"k", b"old")
    disk.fail("write", error=28, part=0.5)
    replies = driven.replies(put(b"a", b"1"), apply(b"k", "setrange", 0, b"new"), apply(b"k", "strlen"), get(b"k"))
    assert errors_of(replies) == [DiskFull, DiskFull, None, None]
    assert (told(replies[2]), replies[3].payload) == (3, b"old")
    assert driven.reopen().items() == {b"k": b"old"}


def test_a_shard_that_takes_no_writes_runs_functions_that_only_look(driven: Timed) -> None:
    driven.put(b"k", b"value")
    driven.store._become_read_only("a test says so")
    replies = driven.replies(
        apply(b"k", "strlen"), apply(b"k", "setrange", 0, b"x"), apply(b"k", "getex", NOW),
        apply(b"k", "getrange", 0, 1),
        each(apply(b"k", "strlen"), apply(b"k", "setrange", 0, b"x"), get(b"k")),
    )  # fmt: skip
    assert errors_of(replies[:4]) == [None, ShardReadOnly, ShardReadOnly, None]
    assert errors_of(inner(replies[4])) == [None, ShardReadOnly, None]
    assert driven.get(b"k") == b"value"


# --- within groups


def test_within_each_a_failure_stands_for_itself(driven: Timed) -> None:
    replies = inner(
        driven.one(
            each(
                put(b"a", b"1"), apply(b"a", "nosuch"), apply(b"a", "setrange", 1, b"2"), apply(b"", "strlen"),
                operation(wire.OP_INCR, b"a", struct.pack("<q", 1)), put(b"b", b"1", flags={opbatch.IF_PRESENT: None}),
                apply(b"b", "setrange", 0, b"3"), get(b"b"),
            )
        )
    )  # fmt: skip
    assert errors_of(replies) == [None, BadRequest, None, KeyEmpty, None, None, None, None]
    assert (told(replies[2]), replies[4].status, replies[5].status) == (2, NUMBER, opbatch.UNMET)
    assert driven.items() == {b"a": b"13", b"b": b"3"}
    assert driven.reopen().items() == {b"a": b"13", b"b": b"3"}


@pytest.mark.parametrize("place", range(3))
def test_in_a_plain_group_a_function_that_fails_takes_all_back(driven: Timed, place: int) -> None:
    driven.put(b"a", b"old")
    operations = [apply(b"a", "setrange", 0, b"new"), put(b"b", b"1")]
    operations.insert(place, apply(b"a", "nosuch"))
    replies = inner(driven.one(atomic(*operations)))
    assert [reply.status == BadRequest.code for reply in replies] == [index == place for index in range(3)]
    assert driven.items() == {b"a": b"old"}
    assert driven.reopen().items() == {b"a": b"old"}


def test_a_group_with_functions_is_run_anew_in_the_next_segment(driven: Timed) -> None:
    driven.put(b"fill", bytes(500))
    replies = inner(driven.one(each(apply(b"a", "setrange", 0, bytes(200)), apply(b"a", "setrange", 300, b"x"))))
    assert [told(reply) for reply in replies] == [200, 301]
    assert driven.reopen().get(b"a") == bytes(300) + b"x"


def test_a_group_of_functions_whose_records_are_too_many_is_refused_as_a_whole(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions())
    driven.put(b"a", b"old")
    grow = [apply(b"a", "setrange", 3 * MIB + number, b"x") for number in range(3)]
    assert 3 * 3 * MIB > ATOMIC_BYTES_MAX
    assert BadRequest in errors_of(inner(driven.one(each(*grow))))
    assert driven.get(b"a") == b"old"
    assert told(driven.one(grow[0])) == 3 * MIB + 1


def test_a_group_that_the_disk_refuses_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ALWAYS, disk)
    driven.put(b"a", b"old")
    disk.fail("write", error=28, part=0.5)
    (reply,) = driven.replies(each(apply(b"a", "strlen"), apply(b"a", "setrange", 0, b"new"), put(b"b", b"1")))
    assert errors_of(inner(reply)) == [None, DiskFull, DiskFull]
    assert driven.items() == {b"a": b"old"}
    disk.heal()
    assert driven.reopen().items() == {b"a": b"old"}


# --- what is parked


def indexes(message: bytes) -> list[int]:
    return [reply[0] for reply in opbatch.decode_replies(message)] if message else []


def test_what_a_function_wrote_or_saw_is_told_when_it_is_durable(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ALWAYS)
    driven.put(b"old", b"1")
    driven.sync()
    executed = driven.execute(
        apply(b"old", "strlen"), apply(b"k", "setrange", 0, b"x"), apply(b"k", "strlen"), get(b"old")
    )
    assert (indexes(executed.replies), indexes(executed.parked)) == ([0, 3], [1, 2])
    assert executed.parked_lsn > driven.store.durable_lsn
    driven.sync()
    assert executed.parked_lsn <= driven.store.durable_lsn
    executed = driven.execute(each(get(b"k"), apply(b"k", "setrange", 0, b"y")), apply(b"old", "strlen"))
    assert (indexes(executed.replies), indexes(executed.parked)) == ([], [0, 1])


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_sync_is_answered_when_all_that_was_written_before_it_is_on_the_disk(tmp_path: Path, sync: str) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB, sync=sync))
    executed = driven.execute(operation(wire.OP_SYNC))
    assert (indexes(executed.replies), indexes(executed.parked)) == ([0], []), "nothing was written"
    executed = driven.execute(put(b"k", b"v"), operation(wire.OP_SYNC), get(b"none"))
    assert 1 in indexes(executed.parked)
    assert (0 in indexes(executed.parked)) == (sync == "always")
    assert executed.parked_lsn > driven.store.durable_lsn
    assert driven.store.wants_sync
    driven.sync()
    assert executed.parked_lsn <= driven.store.durable_lsn
    assert not driven.store.wants_sync
    executed = driven.execute(operation(wire.OP_SYNC))
    assert (indexes(executed.replies), indexes(executed.parked)) == ([0], [])
    driven.store.close()


def test_a_sync_whose_writes_the_disk_refused_wants_nothing_for_ever(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB), disk)
    driven.put(b"a", b"1")
    driven.sync()
    disk.fail("write", error=28)
    executed = driven.execute(*(put(b"%d" % number, b"v") for number in range(5)), operation(wire.OP_SYNC))
    assert sorted(indexes(executed.replies) + indexes(executed.parked)) == list(range(6))
    disk.heal()
    driven.sync()
    assert not driven.store.wants_sync
    assert executed.parked_lsn <= driven.store.durable_lsn


def test_a_sync_of_a_shard_that_is_read_only_is_refused(driven: Timed) -> None:
    driven.put(b"k", b"v")
    driven.store._become_read_only("a test says so")
    with pytest.raises(ShardReadOnly):
        driven.one(operation(wire.OP_SYNC))


def test_a_sync_that_fails_is_not_answered_as_done(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB), disk)
    executed = driven.execute(put(b"k", b"v"), operation(wire.OP_SYNC))
    disk.fail("sync_data", times=3)
    driven.sync()
    assert driven.store.is_read_only
    assert driven.store.durable_lsn < executed.parked_lsn


def test_a_checkpoint_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB, checkpoint_interval_s=1e9))
    for number in range(100):
        driven.put(b"%d" % number, b"v")
    driven.seal()
    before = driven.store.stats()["checkpoint_at_ms"]
    assert driven.one(operation(wire.OP_CHECKPOINT)).status == NUMBER
    driven.maintain()
    assert driven.store.stats()["checkpoint_at_ms"] > before
    assert driven.reopen().count() == 100


def test_a_group_takes_functions_and_no_other_rare_operation(driven: Timed) -> None:
    for op in (wire.OP_SYNC, wire.OP_CHECKPOINT, wire.OP_CLEAR, wire.OP_ATOMIC, wire.OP_SCAN):
        assert errors_of(driven.replies(each(put(b"k", b"v"), operation(op)))) == [BadRequest]
    assert driven.count() == 0
    assert ABSENT in (driven.one(get(b"k")).status,)
