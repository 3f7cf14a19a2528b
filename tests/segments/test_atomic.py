"""Atomic batches: all of it or nothing, for readers, over refusals of the disk, and whatever a crash leaves."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import (
    Aborted,
    BadRequest,
    Corrupt,
    DiskFull,
    MemoryFull,
    NotAnInteger,
    ShardReadOnly,
    Timeout,
    UnknownOperation,
)
from kio.limits import ATOMIC_OPERATIONS_MAX, KIB, MIB
from kio.opbatch import ABSENT, DONE, IF_ABSENT, IF_VERSION, NUMBER, TTL, UNMET, VALUE, WITH_OLD, Operation, Reply
from kio.segments import format
from kio.segments.segment import RECORDS_START
from kio.segments.store import StoreOptions
from tests.segments.faulty_disk import Died, FaultyDisk
from tests.segments.support import Driven, delete, get, hash_of, key_of_hash, operation, put, unopened

ROOMY = StoreOptions(segment_bytes=64 * KIB)


def atomic(*operations: Operation) -> Operation:
    return operation(wire.OP_ATOMIC, b"", opbatch.encode_batch(0, 7, operations))


def inner(reply: Reply) -> list[Reply]:
    """The replies to the operations of an atomic batch, in their order."""
    error = reply.error()
    if error is not None:
        raise error
    assert reply.status == VALUE
    replies = opbatch.decode_replies(reply.payload)
    assert [r.index for r in replies] == list(range(len(replies)))
    return replies


def run(driven: Driven, *operations: Operation) -> list[Reply]:
    (reply,) = driven.replies(atomic(*operations))
    return inner(reply)


def errors_of(replies: list[Reply]) -> list[type[Exception] | None]:
    return [None if reply.error() is None else type(reply.error()) for reply in replies]  # type: ignore[misc]


def records_of(driven: Driven) -> list[format.Record]:
    """The records of the active segment, as its file holds them."""
    active = driven.store._chain.active
    data = active.path.read_bytes()[RECORDS_START : driven.store._engine.tail]
    records = []
    while data:
        record, size = format.decode_record(data, active.crc_seed)
        records.append(record)
        data = data[size:]
    return records


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Driven]:
    driven = Driven(tmp_path / "shard", ROOMY)
    yield driven
    driven.store.close()


def test_a_group_is_applied_in_order_and_sees_its_own_writes(driven: Driven) -> None:
    replies = run(
        driven,
        put(b"a", b"1"),
        get(b"a"),
        operation(wire.OP_INCR, b"a", (5).to_bytes(8, "little")),
        put(b"a", b"x", flags={WITH_OLD: None}),
        delete(b"a"),
        get(b"a"),
        put(b"b", b"2", flags={IF_ABSENT: None}),
    )
    assert [(reply.status, reply.payload) for reply in replies] == [
        (DONE, b""),
        (VALUE, b"1"),
        (NUMBER, (6).to_bytes(8, "little")),
        (VALUE, b"6"),
        (DONE, b""),
        (ABSENT, b""),
        (DONE, b""),
    ]
    assert driven.items() == {b"b": b"2"}
    assert driven.reopen().items() == {b"b": b"2"}


def test_a_group_stands_between_the_other_operations_of_its_batch(driven: Driven) -> None:
    replies = driven.replies(
        put(b"a", b"before"), atomic(get(b"a"), put(b"a", b"in it"), put(b"b", b"1")), get(b"a"), put(b"a", b"after"),
        atomic(get(b"a"), delete(b"b")), get(b"b"),
    )  # fmt: skip
    assert [reply.status for reply in replies] == [DONE, VALUE, VALUE, DONE, VALUE, ABSENT]
    assert inner(replies[1])[0].payload == b"before"
    assert replies[2].payload == b"in it"
    assert inner(replies[4])[0].payload == b"after"
    assert driven.reopen().items() == {b"a": b"after"}


def test_all_records_of_a_group_but_the_last_say_that_more_follow(driven: Driven) -> None:
    driven.put(b"k", b"alone")
    run(driven, put(b"a", b"1"), get(b"a"), put(b"b", b"2" * 100, flags={TTL: 10**6}), delete(b"k"), get(b"a"))
    run(driven, put(b"only", b"one"))
    run(driven, get(b"a"))
    open_ = format.BATCH_OPEN
    assert [(r.key, r.flags & open_) for r in records_of(driven)] == [
        (b"k", 0), (b"a", open_), (b"b", open_), (b"k", 0), (b"only", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (put(b"there", b"x", flags={IF_ABSENT: None}), None),
        (put(b"there", b"x", flags={IF_VERSION: (9, 9)}), None),
        (operation(wire.OP_PERSIST, b"there"), None),
        (operation(wire.OP_INCR, b"there", bytes(8)), NotAnInteger),
        (operation(12, b"there"), UnknownOperation),
        (put(b"there", b"")._replace(deadline=opbatch.monotonic_ms() - 1000 & 0xFFFFFFFF or 1), Timeout),
        (put(b"there", b"")._replace(flags=3), BadRequest),
    ],
    ids=["if absent", "if version", "persist", "not an integer", "unknown", "timeout", "bad request"],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_where_one_operation_fails_nothing_is_applied(
    driven: Driven, failing: Operation, error: type[Exception] | None, place: int
) -> None:
    driven.put(b"there", b"not a number")
    before = driven.store.stats()
    operations = [put(b"new", b"1"), delete(b"there"), put(b"there", b"not a number"), get(b"new")]
    operations.insert(place, failing)
    if place == 2:
        # Its condition is looked at when its turn comes: here the key is gone by then.
        operations[1] = put(b"there", b"still not")
    replies = run(driven, *operations)
    assert len(replies) == 5
    assert errors_of(replies) == [error if i == place else Aborted for i in range(5)]
    if error is None:
        assert (replies[place].status, len(replies[place].payload)) == (UNMET, opbatch.VERSION.size)
    assert driven.items() == {b"there": b"not a number"}
    after = driven.store.stats()
    for name in ("keys", "live_bytes", "dead_bytes", "lsn"):
        assert after[name] == before[name]
    assert run(driven, put(b"new", b"2"))[0].status == DONE
    assert driven.reopen().items() == {b"there": b"not a number", b"new": b"2"}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"junk" * 20,
        opbatch.encode_batch(0, 1, []),
        opbatch.encode_batch(0, 1, [put(b"k", b"v")])[:-1],
        opbatch.encode_batch(0, 1, [put(b"k", b"v"), operation(wire.OP_CLEAR)]),
        opbatch.encode_batch(0, 1, [put(b"k", b"v"), atomic(put(b"k", b"v"))]),
        opbatch.encode_batch(0, 1, [put(b"k", b"v")] * (ATOMIC_OPERATIONS_MAX + 1)),
    ],
    ids=["empty", "junk", "no operation", "cut", "clear", "nested", "too many"],
)
def test_what_is_no_group_is_refused_and_the_batch_goes_on(driven: Driven, value: bytes) -> None:
    replies = driven.replies(put(b"a", b"1"), operation(wire.OP_ATOMIC, b"", value), get(b"a"), put(b"a", b"2"))
    assert errors_of(replies) == [None, BadRequest, None, None]
    assert driven.items() == {b"a": b"2"}


def test_a_group_that_does_not_fit_the_active_segment_goes_into_the_next_as_a_whole(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=4 * KIB))
    for round in range(40):
        active = driven.store._chain.active.id
        group = [put(b"%d" % i, b"%d." % round * 60) for i in range(8)]
        assert errors_of(run(driven, *group)) == [None] * 8
        # Its records are side by side, at the end of the active segment.
        records = records_of(driven)[-8:]
        assert [record.key for record in records] == [op.key for op in group]
        assert driven.store._chain.active.id >= active
        driven.run_jobs()
    assert driven.store._chain.active.id > 10
    large = [put(b"%d" % i, b"large" * 1000) for i in range(8)]
    assert errors_of(run(driven, *large)) == [None] * 8
    expected = {op.key: op.value for op in large}
    assert driven.items() == expected
    assert driven.reopen().items() == expected
    assert driven.restart().items() == expected


def test_a_group_makes_at_most_8_mib_of_records(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * KIB))
    driven.put(b"k", bytes(3 * MIB))
    replies = run(driven, put(b"a", bytes(4 * MIB)), put(b"b", bytes(5 * MIB)), put(b"c", b""))
    assert errors_of(replies) == [Aborted, BadRequest, Aborted]
    replies = run(driven, *(operation(wire.OP_APPEND, b"k", b"x") for _ in range(3)))
    assert errors_of(replies) == [Aborted, Aborted, BadRequest]
    assert driven.count() == 1
    assert errors_of(run(driven, put(b"a", bytes(4 * MIB)), put(b"b", bytes(4 * MIB - 200)))) == [None, None]
    assert driven.reopen().count() == 3


def test_what_the_disk_refuses_is_refused_as_a_whole(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk)
    driven.put(b"a", b"old")
    disk.fail("write", nth=2, error=28, part=0.6)
    replies = driven.replies(
        put(b"first", b"written before"),
        atomic(get(b"a"), put(b"a", b"new"), delete(b"first")),
        get(b"a"),
        put(b"z", b""),
    )
    assert errors_of(replies) == [None, None, None, DiskFull]
    assert errors_of(inner(replies[1])) == [Aborted, DiskFull, Aborted]
    assert replies[2].payload == b"old"
    assert driven.items() == {b"a": b"old", b"first": b"written before"}
    disk.heal()
    assert errors_of(run(driven, put(b"a", b"new"), delete(b"first"))) == [None, None]
    assert driven.reopen().items() == {b"a": b"new"}


def test_a_later_write_that_fails_does_not_apply_the_group_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk)
    one = (1).to_bytes(8, "little")
    disk.fail("write", nth=2, error=28)
    replies = driven.replies(atomic(operation(wire.OP_INCR, b"n", one)), put(b"a", b"1"))
    assert errors_of(replies) == [None, DiskFull]
    assert driven.get(b"n") == b"1"


def test_a_group_is_refused_where_no_segment_can_be_made_and_where_the_shard_is_read_only(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 * KIB), disk)
    driven.put(b"a", b"old")
    disk.fail("create", error=28, times=3)
    assert errors_of(run(driven, put(b"b", b"1"), put(b"a", bytes(2 * KIB)))) == [DiskFull, Aborted]
    disk.heal()
    driven.store._become_read_only("a test says so")
    assert errors_of(run(driven, get(b"a"), put(b"a", b"new"))) == [Aborted, ShardReadOnly]
    assert errors_of(run(driven, get(b"a"))) == [None]
    assert driven.items() == {b"a": b"old"}


def test_a_group_is_refused_past_the_bound_of_memory(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(memory_bytes_max=40 * KIB))
    driven.put(key_of_hash(hash_of(0, 5)), b"v")
    replies = run(driven, *(put(key_of_hash(hash_of(page, 5)), b"w") for page in range(30)))
    errors = errors_of(replies)
    assert errors.count(MemoryFull) == 1
    assert errors.count(Aborted) == 29
    assert driven.items() == {key_of_hash(hash_of(0, 5)): b"v"}


def test_a_group_is_answered_when_it_is_durable(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(sync="always"))
    executed = driven.execute(get(b"other"), atomic(put(b"a", b"1"), get(b"a")))
    assert [reply.index for reply in opbatch.decode_replies(executed.replies)] == [0]
    (reply,) = opbatch.decode_replies(executed.parked)
    assert errors_of(inner(reply)) == [None, None]
    driven.sync()
    assert driven.execute(atomic(get(b"a"))).parked == b""
    # Read-modify-write goes on as before.
    driven.put(b"b", b"1")
    assert driven.execute(get(b"b")).replies == b""


def test_of_a_group_whose_file_is_cut_anywhere_all_or_nothing_is_recovered(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    driven.put(b"a", b"old")
    driven.put(b"gone", b"old")
    start = driven.store._engine.tail
    run(driven, put(b"a", b"new"), put(b"b", b"new" * 9), delete(b"gone"), put(b"c", b"", flags={TTL: 10**9}))
    end = driven.store._engine.tail
    path = driven.store._chain.active.path
    driven.kill()
    for cut in range(start, end + 8, 8):
        shutil.copytree(driven.path, tmp_path / "cut" / "shard")
        with (tmp_path / "cut" / "shard" / path.name).open("r+b") as file:
            file.seek(cut)
            file.write(bytes(4096))
        other = unopened(tmp_path / "cut" / "shard", ROOMY, driven.disk).open()
        expected = {b"a": b"old", b"gone": b"old"}
        if cut >= end:
            expected = {b"a": b"new", b"b": b"new" * 9, b"c": b""}
        assert other.items() == expected
        assert other.store.lsn == (6 if cut >= end else 2)
        # The next writes go where the group was; nothing of it ever comes back.
        other.put(b"next", b"1")
        assert other.reopen().items() == expected | {b"next": b"1"}
        assert other.restart().items() == expected | {b"next": b"1"}
        other.store.close()
        shutil.rmtree(tmp_path / "cut")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99, 1.0])
def test_a_process_that_dies_while_it_writes_a_group_leaves_all_or_nothing(tmp_path: Path, part: float) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk)
    driven.put(b"a", b"old")
    disk.die("write", part=part)
    with pytest.raises(Died):
        run(driven, put(b"a", b"new" * 50), put(b"b", b"new" * 50), delete(b"a"), put(b"c", b"new"))
    disk.heal()
    driven.reopen()
    assert driven.items() == ({b"b": b"new" * 50, b"c": b"new"} if part == 1.0 else {b"a": b"old"})


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_a_power_cut_leaves_all_of_a_group_or_nothing(tmp_path: Path, sync: str) -> None:
    for seed in range(25):
        disk = FaultyDisk(forgets=False)
        before, after = tmp_path / f"{seed}" / "before", tmp_path / f"{seed}" / "after"
        driven = Driven(before / "shard", StoreOptions(segment_bytes=64 * KIB, sync=sync), disk)
        for number in range(6):
            run(driven, *(put(b"%d" % i, b"%d" % number * 3000) for i in range(5)))
            if number == 2:
                driven.sync()
        driven.kill()
        disk.power_cut(before, after, random.Random(seed), in_order=True)
        other = unopened(after / "shard", driven.options, FaultyDisk()).open()
        found = set(other.answers([b"%d" % i for i in range(5)]).values()) - {Corrupt}
        assert len(found) <= 1, "values of two groups"
        assert found <= {b"%d" % number * 3000 for number in range(2, 6)}
        other.kill()
        shutil.rmtree(tmp_path / f"{seed}")
