"""What set, get and delete do with flags: conditions, versions, the old value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kio import opbatch, wire
from kio.errors import BadRequest, Corrupt, DiskFull, ReplyTooLarge, ValueTooLarge
from kio.limits import MIB
from kio.opbatch import (
    ABSENT,
    DONE,
    EXPIRE_AT,
    IF_ABSENT,
    IF_PRESENT,
    IF_VERSION,
    KEEP_TTL,
    TTL,
    UNMET,
    VALUE,
    VERSIONED,
    WITH_OLD,
    WITH_VERSION,
    Operation,
    Reply,
)
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.support import SMALL, Driven, Timed, delete, get, hash_of, key_of_hash, operation, put, replies_of

NOW = 1_700_000_000_000
Flags = dict[int, Any]


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Driven]:
    driven = Timed(tmp_path / "shard").at(NOW)
    yield driven
    driven.store.close()


def erase(key: bytes, flags: Flags) -> Operation:
    return operation(wire.OP_DELETE, key, flags=flags)


def version(reply: Reply) -> tuple[int, int, int]:
    assert reply.status in (VERSIONED, UNMET)
    epoch, lsn, expiry = opbatch.VERSION.unpack_from(reply.payload)
    return epoch, lsn, expiry


def version_of(driven: Driven, key: bytes) -> tuple[int, int]:
    """Epoch and LSN of the record that is there."""
    reply = driven.one(operation(wire.OP_GET, key, flags={WITH_VERSION: None}))
    return version(reply)[:2]


def test_if_absent_sets_a_new_key_and_leaves_one_that_is_there(driven: Driven) -> None:
    assert driven.one(put(b"k", b"first", flags={IF_ABSENT: None})).status == DONE
    reply = driven.one(put(b"k", b"second", flags={IF_ABSENT: None}))
    assert (reply.status, version(reply)) == (UNMET, (1, 1, 0))
    assert len(reply.payload) == opbatch.VERSION.size
    assert driven.get(b"k") == b"first"
    assert driven.store.lsn == 1


def test_if_present_sets_only_a_key_that_is_there(driven: Driven) -> None:
    reply = driven.one(put(b"k", b"v", flags={IF_PRESENT: None}))
    assert (reply.status, reply.payload) == (UNMET, b"")
    driven.put(b"k", b"first")
    assert driven.one(put(b"k", b"second", flags={IF_PRESENT: None})).status == DONE
    assert driven.get(b"k") == b"second"


def test_if_version_sets_and_deletes_that_very_record_only(driven: Driven) -> None:
    driven.put(b"k", b"first")
    seen = version_of(driven, b"k")
    driven.put(b"k", b"second")
    for late in (put(b"k", b"lost update", flags={IF_VERSION: seen}), erase(b"k", {IF_VERSION: seen})):
        reply = driven.one(late)
        assert (reply.status, version(reply)[:2]) == (UNMET, version_of(driven, b"k"))
    seen = version_of(driven, b"k")
    assert driven.one(put(b"k", b"third", flags={IF_VERSION: (seen[0] + 1, seen[1])})).status == UNMET
    assert driven.one(put(b"k", b"third", flags={IF_VERSION: seen})).status == DONE
    assert driven.get(b"k") == b"third"
    assert driven.one(erase(b"k", {IF_VERSION: version_of(driven, b"k")})).status == DONE
    for late in (put(b"k", b"v", flags={IF_VERSION: seen}), erase(b"k", {IF_VERSION: seen})):
        reply = driven.one(late)
        assert (reply.status, reply.payload) == (UNMET, b"")
    assert driven.get(b"k") is None


def test_a_version_stays_over_a_restart_and_a_new_epoch_makes_another(driven: Driven) -> None:
    driven.put(b"k", b"v")
    before = version_of(driven, b"k")
    driven.reopen()
    assert version_of(driven, b"k") == before
    driven.put(b"k", b"v")
    assert version_of(driven, b"k") == (before[0] + 1, before[1] + 1)


def test_with_old_answers_what_was_replaced_or_deleted(driven: Driven) -> None:
    with_old: Flags = {WITH_OLD: None}
    assert driven.one(put(b"k", b"first", flags=with_old)).status == ABSENT
    reply = driven.one(put(b"k", b"", flags=with_old))
    assert (reply.status, reply.payload) == (VALUE, b"first")
    reply = driven.one(erase(b"k", with_old))
    assert (reply.status, reply.payload) == (VALUE, b"")
    assert driven.one(erase(b"k", with_old)).status == ABSENT
    assert driven.get(b"k") is None
    # The old value may stand in the same batch, not yet written.
    replies = driven.replies(put(b"k", b"one"), put(b"k", b"two" * 3000, flags=with_old), erase(b"k", with_old))
    assert [reply.payload for reply in replies] == [b"", b"one", b"two" * 3000]


def test_with_version_answers_the_version_that_was_read_or_made(driven: Driven) -> None:
    with_version: Flags = {WITH_VERSION: None}
    made = driven.one(put(b"k", b"value", flags={TTL: 5000, WITH_VERSION: None}))
    assert (made.status, made.payload) == (VERSIONED, opbatch.VERSION.pack(1, 1, NOW + 5000))
    read = driven.one(operation(wire.OP_GET, b"k", flags=with_version))
    assert (read.status, read.payload) == (VERSIONED, made.payload + b"value")
    gone = driven.one(erase(b"k", with_version))
    assert (gone.status, gone.payload) == (VERSIONED, opbatch.VERSION.pack(1, 2, 0))
    assert driven.one(erase(b"k", with_version)).status == ABSENT
    assert driven.one(operation(wire.OP_GET, b"k", flags=with_version)).status == ABSENT


def test_flags_that_exclude_each_other_or_are_not_the_operations_are_refused(driven: Driven) -> None:
    driven.put(b"k", b"v")
    arguments = {TTL: 1000, EXPIRE_AT: NOW + 1, IF_VERSION: (1, 1)}
    groups = [(TTL, EXPIRE_AT, KEEP_TTL), (IF_ABSENT, IF_PRESENT, IF_VERSION), (WITH_OLD, WITH_VERSION)]
    pairs = [pair for group in groups for pair in itertools.combinations(group, 2)]
    refused = [put(b"k", b"w", flags={flag: arguments.get(flag) for flag in pair}) for pair in pairs]
    allowed = {
        wire.OP_GET: WITH_VERSION,
        wire.OP_SET: 255,
        wire.OP_DELETE: IF_VERSION | WITH_OLD | WITH_VERSION,
        wire.OP_EXPIRE: TTL | EXPIRE_AT,
    }
    for op in range(wire.OP_GET, wire.OP_TTL + 1):
        for bit in range(32):
            if not (1 << bit) & allowed.get(op, 0):
                refused.append(operation(op, b"k", b"12345678" * 3)._replace(flags=1 << bit))
    for reply in driven.replies(*refused):
        assert isinstance(reply.error(), BadRequest), refused[reply.index]
    assert driven.store.lsn == 1


def test_arguments_that_are_missing_or_out_of_range_are_refused(driven: Driven) -> None:
    driven.put(b"k", b"v")
    refused = [
        *(put(b"k", bytes(n))._replace(flags=TTL) for n in range(8)),
        *(put(b"k", bytes(n))._replace(flags=IF_VERSION) for n in range(12)),
        *(put(b"k", bytes(n))._replace(flags=EXPIRE_AT | IF_VERSION) for n in range(20)),
        put(b"k", b"v", flags={EXPIRE_AT: 1 << 63}),
        put(b"k", b"v", flags={TTL: (1 << 63) - NOW}),
        put(b"k", b"v", flags={TTL: (1 << 64) - 1}),
        operation(wire.OP_EXPIRE, b"k"),
        operation(wire.OP_EXPIRE, b"k", b"more", flags={TTL: 1}),
        operation(wire.OP_PERSIST, b"k", b"more"),
        operation(wire.OP_TTL, b"k", b"more"),
        *(operation(wire.OP_INCR, b"k", bytes(n)) for n in (0, 1, 7, 9)),
    ]
    for reply in driven.replies(*refused):
        assert isinstance(reply.error(), BadRequest), refused[reply.index]
    assert driven.store.lsn == 1
    assert driven.one(put(b"k", b"", flags={EXPIRE_AT: NOW + 1, IF_VERSION: (1, 1)})).status == DONE
    assert driven.one(put(b"k", b"v", flags={TTL: (1 << 63) - 1 - NOW})).status == DONE


def test_arguments_do_not_count_as_part_of_the_value(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(value_bytes_max=100)).at(NOW)
    flags: Flags = {EXPIRE_AT: NOW + 1, IF_VERSION: (0, 0)}
    assert driven.one(put(b"k", bytes(100), flags={EXPIRE_AT: NOW + 1})).status == DONE
    assert driven.replies(put(b"k", bytes(101), flags=flags))[0].status == ValueTooLarge.code
    assert driven.get(b"k") == bytes(100)


def test_an_old_value_that_does_not_fit_the_reply_keeps_the_write_from_being_applied(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(segment_bytes=64 * MIB)).at(NOW)
    keys = [b"%d" % i for i in range(9)]
    for key in keys:
        driven.put(key, bytes(8 * MIB))
    replies = driven.replies(*(put(key, b"new", flags={WITH_OLD: None}) for key in keys))
    errors = [reply.error() for reply in replies]
    assert [type(error) for error in errors if error] == [ReplyTooLarge, ReplyTooLarge]
    for key, error in zip(keys, errors, strict=True):
        assert len(driven.get(key) or b"") == (3 if error is None else 8 * MIB)


@pytest.mark.parametrize(
    "operations",
    [
        [put(b"k", b"new", flags={IF_PRESENT: None})],
        [put(b"k", b"new", flags={WITH_OLD: None})],
        [put(b"k", b"new", flags={KEEP_TTL: None})],
        [erase(b"k", {WITH_OLD: None})],
        [operation(wire.OP_APPEND, b"k", b"x")],
        [operation(wire.OP_TTL, b"k")],
        [operation(wire.OP_EXPIRE, b"k", flags={TTL: 1})],
    ],
    ids=["if present", "old", "keep ttl", "delete", "append", "ttl", "expire"],
)
def test_what_depends_on_a_damaged_record_is_answered_corrupt(tmp_path: Path, operations: list[Operation]) -> None:
    driven = Timed(tmp_path / "shard").at(NOW)
    driven.put(b"k", b"old value")
    path = next((tmp_path / "shard").glob("*.seg"))
    content = bytearray(path.read_bytes())
    at = content.index(b"old value")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"OLD")
    assert isinstance(driven.replies(*operations)[0].error(), Corrupt)
    assert driven.store.lsn == 1
    # The way out: what says nothing of the old record replaces it.
    driven.put(b"k", b"new value")
    assert driven.get(b"k") == b"new value"


def test_a_condition_is_decided_by_the_keys_bytes_not_by_its_hash(driven: Driven) -> None:
    one, other = (key_of_hash(hash_of(3, 9), i) for i in range(2))
    driven.put(one, b"v")
    assert driven.one(put(other, b"w", flags={IF_PRESENT: None})).status == UNMET
    assert driven.one(put(other, b"w", flags={IF_ABSENT: None})).status == DONE
    assert driven.one(erase(one, {IF_VERSION: version_of(driven, one)})).status == DONE
    driven.reopen()
    assert (driven.get(one), driven.get(other)) == (None, b"w")


def test_writes_with_flags_that_the_disk_refuses_leave_no_trace(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Timed(tmp_path / "shard", SMALL, disk).at(NOW)
    driven.put(b"k", b"old")
    before = driven.store.stats()
    disk.fail("write", error=28)
    flags: Flags = {TTL: 1000, WITH_OLD: None}
    replies = driven.replies(
        put(b"k", b"new", flags=flags),
        erase(b"k", {WITH_OLD: None}),
        get(b"k"),
        put(b"n", b"", flags={IF_ABSENT: None}),
    )
    assert [type(reply.error()) for reply in replies] == [DiskFull, DiskFull, type(None), DiskFull]
    assert replies[2].payload == b"old"
    after = driven.store.stats()
    assert {name: after[name] for name in ("keys", "live_bytes", "lsn")} == {
        name: before[name] for name in ("keys", "live_bytes", "lsn")
    }


def test_an_answer_that_tells_of_what_is_not_durable_waits_for_it(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(sync="always")).at(NOW)
    tells = [
        put(b"k", b"w", flags={IF_ABSENT: None}),
        operation(wire.OP_INCR, b"k", bytes(8)),
        operation(wire.OP_TTL, b"k"),
        operation(wire.OP_PERSIST, b"k"),
        operation(wire.OP_GET, b"k", flags={WITH_VERSION: None}),
    ]
    absent = [
        put(b"gone", b"w", flags={IF_PRESENT: None}),
        operation(wire.OP_TTL, b"gone"),
        erase(b"gone", {WITH_OLD: None}),
    ]
    driven.put(b"gone", b"v")
    driven.execute(put(b"k", b"v"), delete(b"gone"))
    executed = driven.execute(*tells, *absent)
    assert executed.replies == b""
    assert len(opbatch.decode_replies(executed.parked)) == len(tells) + len(absent)
    driven.sync()
    executed = driven.execute(*tells, *absent)
    assert executed.parked == b""
    assert len(opbatch.decode_replies(executed.replies)) == len(tells) + len(absent)


def test_a_set_that_has_expired_when_it_comes_is_seen_by_who_watches_the_absent_key(driven: Driven) -> None:
    watch = operation(wire.OP_EXISTS, b"k", flags={WITH_VERSION: None})
    before = version(driven.one(watch))
    assert version(driven.one(watch)) == before
    assert driven.one(operation(wire.OP_SET, b"k", b"v", flags={EXPIRE_AT: NOW - 1})).status == DONE
    assert driven.one(get(b"k")).status == ABSENT
    assert version(driven.one(watch)) != before


def test_the_version_of_an_absent_key_stays_while_other_keys_come(driven: Driven) -> None:
    watch = operation(wire.OP_EXISTS, b"k", flags={WITH_VERSION: None})
    before = version(driven.one(watch))
    driven.execute(*(put(b"other %d" % i, b"") for i in range(20_000)))
    assert version(driven.one(watch)) == before
    driven.execute(put(b"k", b"v"), delete(b"k"))
    assert version(driven.one(watch)) != before


def test_a_version_of_an_absent_key_is_never_told_twice(driven: Driven) -> None:
    keys = [b"%d" % i for i in range(20_000)]
    watches = [operation(wire.OP_EXISTS, key, flags={WITH_VERSION: None}) for key in keys]
    told = {version(reply) for reply in driven.replies(*watches)}
    assert len(told) == len(keys)
    driven.execute(*(put(key, b"") for key in keys))
    driven.execute(*(delete(key) for key in keys))
    told |= {version(reply) for reply in driven.replies(*watches)}
    assert len(told) == 2 * len(keys)
    driven.reopen()
    told |= {version(reply) for reply in driven.replies(*watches)}
    assert len(told) == 3 * len(keys)


def test_a_batch_of_more_values_than_one_message_may_hold_is_answered_in_several(tmp_path: Path) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(segment_bytes=64 * MIB)).at(NOW)
    keys = [b"%d" % i for i in range(20)]
    for key in keys:
        driven.put(key, key * (4 * MIB))
    batch = []
    for key in keys:
        batch += [get(key), put(key, b"new " + key), get(key)]
    executed = driven.execute(*batch)
    replies: list[Reply] = []
    messages = 1
    while True:
        part = replies_of(executed)
        assert sum(len(reply.payload) for reply in part) <= 64 * MIB
        replies += part
        if not executed.is_cut:
            break
        executed = driven.store.go_on()
        messages += 1
    assert messages > 1
    replies.sort(key=lambda reply: reply.index)
    assert [reply.index for reply in replies] == list(range(len(batch)))
    for number, key in enumerate(keys):
        old, written, new = replies[3 * number : 3 * number + 3]
        assert (old.payload, written.status, new.payload) == (key * (4 * MIB), DONE, b"new " + key)
