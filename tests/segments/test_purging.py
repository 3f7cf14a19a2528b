"""A clear takes effect at once, beside other keys as well: the words leave the KeyDir later, and nobody sees them.

Each test drives the walk by hand, some words at a time; what may happen between two slices happens there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from kio import opbatch, wire
from kio.clock import monotonic_s
from kio.opbatch import IF_ABSENT, IF_PRESENT, KEEP_TTL, TTL, WITH_OLD, WITH_VERSION, Operation
from kio.segments import purging
from kio.segments._purge import purge
from kio.segments.expiry import SWEEP_INTERVAL_S
from kio.segments.options import StoreOptions
from tests.segments.opened import checkpoints_in, held_by
from tests.segments.operations_model import I64, OperationsModel
from tests.segments.support import Driven, Timed, delete, get, hash_of, key_of_hash, operation, put

CLEARED: Final = 1
KEPT: Final = 0
#: Compacted is what is asked for, and segments with nothing live in them.
OPTIONS: Final = StoreOptions(segment_bytes=2048, space_amplification=1000.0, checkpoint_interval_s=1.0)
#: One hash in both keyspaces, one tag, and plain ones.
HASH: Final = hash_of(5, 77, 9)
NAMES: Final = {
    keyspace: [
        *(key_of_hash(HASH, i, keyspace) for i in range(3)),
        *(key_of_hash(hash_of(5, 77, i), keyspace=keyspace) for i in range(3)),
        *(b"key %d" % i for i in range(20)),
    ]
    for keyspace in (KEPT, CLEARED)
}
A_MINUTE_MS: Final = 60_000

Model = dict[int, dict[bytes, bytes]]


@pytest.fixture(autouse=True)
def one_word_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of the walk when a store is closed, unless a test wants it."""
    monkeypatch.setattr(purging, "WORDS_PER_SLICE", 1)
    monkeypatch.setattr(purging, "STOP_S", 0.0)


def filled(driven: Driven) -> Model:
    """A value for each name, in turns: each segment holds records of both keyspaces."""
    model: Model = {KEPT: {}, CLEARED: {}}
    for i in range(len(NAMES[KEPT])):
        for keyspace, names in NAMES.items():
            value = b"%d of %d;" % (i, keyspace) * 4
            driven.put(names[i], value, keyspace)
            model[keyspace][names[i]] = value
        driven.run_jobs()
    return model


def clear(driven: Driven, model: Model, keyspace: int = CLEARED) -> None:
    assert driven.clear(keyspace) == len(model[keyspace])
    model[keyspace] = {}
    assert driven.store._engine.has_floors


def expect(driven: Driven, model: Model) -> None:
    """All that can be asked of both keyspaces; without a lookup, which would take words out of the walk's hands."""
    for keyspace, held in model.items():
        assert driven.count(keyspace) == len(held)
        assert driven.items(keyspace=keyspace, limit=7) == held
    assert driven.store.stats()["keys"] == sum(map(len, model.values()))


def expect_in_the_end(driven: Driven, model: Model) -> None:
    """The same when the walk is done, and from then on: no word is left over, and no byte."""
    while driven.store._purger.slice():
        expect(driven, model)
    for look in (lambda: None, driven.maintain, driven.reopen, driven.restart):
        look()
        expect(driven, model)
        for keyspace, names in NAMES.items():
            assert driven.answers(names, keyspace) == {name: model[keyspace].get(name) for name in names}
        live = sum((24 + len(k) + len(v) + 7) // 8 * 8 for held in model.values() for k, v in held.items())
        assert driven.store.stats()["live_bytes"] == live
        assert len(driven.store._engine.keydir) == sum(map(len, model.values()))


# ---- before the walk ----

OPERATIONS: Final[list[tuple[int, bytes, dict[int, Any]]]] = [
    (wire.OP_GET, b"", {}),
    (wire.OP_GET, b"", {WITH_VERSION: ()}),
    (wire.OP_EXISTS, b"", {}),
    (wire.OP_TTL, b"", {}),
    (wire.OP_INCR, I64.pack(3), {}),
    (wire.OP_APPEND, b"more", {}),
    (wire.OP_EXPIRE, b"", {TTL: A_MINUTE_MS}),
    (wire.OP_PERSIST, b"", {}),
    (wire.OP_SET, b"v", {}),
    (wire.OP_SET, b"v", {IF_ABSENT: ()}),
    (wire.OP_SET, b"v", {IF_PRESENT: ()}),
    (wire.OP_SET, b"v", {KEEP_TTL: ()}),
    (wire.OP_SET, b"v", {WITH_OLD: ()}),
    (wire.OP_SET, b"v", {TTL: 0}),
    (wire.OP_DELETE, b"", {}),
    (wire.OP_DELETE, b"", {WITH_OLD: ()}),
]


@pytest.mark.parametrize("is_atomic", [False, True])
@pytest.mark.parametrize("nth", [0, 1, 5])
def test_every_operation_finds_a_cleared_key_absent_and_another_as_it_was(
    tmp_path: Path, nth: int, is_atomic: bool
) -> None:
    driven = Timed(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20))
    model = OperationsModel()
    model.now_ms = driven.time.wall_ms
    model.epoch = driven.store.stats()["epoch"]

    def apply(op: Operation) -> None:
        reply = driven.one(operation(wire.OP_ATOMIC, b"", opbatch.encode_batch(0, 1, [op])) if is_atomic else op)
        if is_atomic:
            (reply,) = opbatch.decode_replies(reply.payload)
        assert (reply.status, reply.payload) == model.apply(op), op
        for keyspace in (KEPT, CLEARED):
            assert driven.items(keyspace=keyspace) == model.visible(keyspace)
            assert driven.count(keyspace) == sum(space == keyspace for space, _ in model.records)

    for op, value, flags in OPERATIONS:
        for keyspace in (KEPT, CLEARED):
            for name in NAMES[keyspace][:6]:
                apply(put(name, b"7", keyspace, {TTL: A_MINUTE_MS}))
        assert model.clear(CLEARED) == driven.clear(CLEARED)
        for keyspace in (CLEARED, KEPT, CLEARED):
            apply(operation(op, NAMES[keyspace][nth], value, keyspace, flags))
        assert driven.store._engine.has_floors
        while driven.store._purger.slice():
            pass
    driven.kill()


def test_names_that_are_used_again_stay_while_the_walk_goes_on(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    words = len(driven.store._engine.keydir)
    clear(driven, model)
    assert (driven.store._engine.purged, len(driven.store._engine.keydir)) == (0, words)
    for i, name in enumerate(NAMES[CLEARED]):
        driven.store._purger.slice()
        if i % 2:
            driven.put(name, b"new", CLEARED)
            model[CLEARED][name] = b"new"
        if i % 10 == 1:
            assert driven.delete(name, CLEARED)
            del model[CLEARED][name]
        expect(driven, model)
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_clear_between_the_writes_of_a_batch_takes_what_is_before_it(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    a, b = NAMES[CLEARED][:2]
    count, clears = operation(wire.OP_COUNT, keyspace=CLEARED), operation(wire.OP_CLEAR, keyspace=CLEARED)
    replies = driven.replies(
        put(a, b"1", CLEARED), clears, count, put(a, b"2", CLEARED), get(b, CLEARED), delete(b, CLEARED), count,
        put(b, b"3", CLEARED), clears, put(b, b"4", CLEARED), count,
    )  # fmt: skip
    assert [int.from_bytes(replies[i].payload, "little") for i in (1, 2, 6, 8, 10)] == [len(NAMES[CLEARED]), 0, 1, 2, 1]
    assert (replies[4].status, replies[5].status) == (opbatch.ABSENT, opbatch.ABSENT)
    model[CLEARED] = {b: b"4"}
    expect(driven, model)
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_cleared_record_that_is_damaged_is_missed_by_nobody(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20))
    driven.put(b"kept", b"v")
    driven.put(b"k", b"a value to be damaged", CLEARED)
    file = driven.store._chain.active.path
    content = file.read_bytes()
    file.write_bytes(content.replace(b"to be damaged", b"that is so...", 1))
    clear(driven, {CLEARED: {b"k": b""}})
    assert driven.items(keyspace=CLEARED) == {}
    assert driven.get(b"k", CLEARED) is None
    assert driven.items() == {b"kept": b"v"}
    driven.kill()


# ---- the walk ----


def test_a_slice_is_bounded_in_words_and_in_time(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20))
    for i in range(0, 6000, 100):
        driven.replies(*(put(b"key %d" % j, b"", j % 2) for j in range(i, i + 100)))
    engine = driven.store._engine
    assert driven.clear(CLEARED) == 3000
    assert purge(engine, 1_000_000, 50) == 50
    assert 0 < purge(engine, 0, 1_000_000) <= 16
    looks = []
    while engine.has_floors:
        looks.append(purge(engine, 1_000_000, 100))
        assert driven.count(KEPT) == 3000
    assert max(looks) == 100
    assert sum(looks) <= 6000
    assert (engine.purged, len(engine.keydir)) == (3000, 3000)
    assert purge(engine, 1_000_000, 100) == 0
    driven.kill()


def test_the_words_of_one_tag_are_more_than_a_slice_looks_at_and_the_walk_goes_on(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20))
    for i in range(40):
        driven.put(key_of_hash(HASH, i, i % 2), b"", i % 2)
    assert driven.clear(CLEARED) == 20
    for _ in range(2):
        driven.store._purger.slice()
    assert not driven.store._engine.has_floors
    assert (len(driven.store._engine.keydir), driven.count()) == (20, 20)
    driven.kill()


@pytest.mark.parametrize("second", [KEPT, CLEARED])
@pytest.mark.parametrize("slices", [1, 9, 30])
def test_a_second_clear_during_the_walk_begins_it_anew(tmp_path: Path, slices: int, second: int) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    model[2] = {b"two": b"2"}
    driven.put(b"two", b"2", 2)
    clear(driven, model)
    for _ in range(slices):
        driven.store._purger.slice()
    for name in NAMES[CLEARED][::3]:
        driven.put(name, b"new", CLEARED)
        model[CLEARED][name] = b"new"
    clear(driven, model, second)
    for name in NAMES[second][::2]:
        driven.put(name, b"newer", second)
        model[second][name] = b"newer"
    expect(driven, model)
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_second_clear_takes_what_stands_before_the_walk_in_its_page(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    names = [key_of_hash(hash_of(3, i << 10), keyspace=CLEARED) for i in range(20)]
    driven.put(b"stays", b"v")
    for _ in range(2):
        driven.replies(*(put(name, b"v", CLEARED) for name in names))
        assert driven.clear(CLEARED) == len(names)
        for _ in range(10):
            driven.store._purger.slice()
    assert driven.store._engine.has_floors
    while driven.store._purger.slice():
        pass
    assert len(driven.store._engine.keydir) == 1
    driven.kill()


def test_a_clear_of_the_last_keyspace_with_keys_ends_the_walk(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    clear(driven, model)
    driven.store._purger.slice()
    assert driven.clear(KEPT) == len(model[KEPT])
    assert not driven.store._engine.has_floors
    assert len(driven.store._engine.keydir) == 0
    driven.put(NAMES[KEPT][0], b"new", KEPT)
    expect_in_the_end(driven, {KEPT: {NAMES[KEPT][0]: b"new"}, CLEARED: {}})
    driven.kill()


def test_a_clear_of_a_keyspace_without_keys_begins_no_walk(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    driven.put(b"k", b"v")
    assert driven.clear(CLEARED) == 0
    assert not driven.store._engine.has_floors
    driven.kill()


@pytest.mark.parametrize("part", [2, 10])
def test_the_memory_of_what_was_cleared_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """All of one page, which shrinks under the walk where little is left."""
    monkeypatch.setattr(purging, "WORDS_PER_SLICE", 4096)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 << 20))
    spaces = [CLEARED if i % part else KEPT for i in range(20_000)]
    names = [key_of_hash(hash_of(3, i * 32), keyspace=keyspace) for i, keyspace in enumerate(spaces)]
    for i in range(0, len(names), 1000):
        driven.replies(*(put(names[j], b"", spaces[j]) for j in range(i, i + 1000)))
    grown = driven.store.stats()["keydir_bytes"]
    left = len(names) // part
    assert driven.clear(CLEARED) == len(names) - left
    # Without time a slice ends where it looks at the clock: behind a page, and behind so many words.
    assert [purge(driven.store._engine, 0, 1_000_000) for _ in range(5)] == [0, 0, 0, 16, 16]
    while driven.store._purger.slice():
        pass
    assert driven.store.stats()["keydir_bytes"] < grown * 0.75
    assert driven.count() == len(driven.store._engine.keydir) == left
    driven.kill()


# ---- what else goes on meanwhile ----


def sweep(driven: Driven) -> None:
    driven._clock_s += SWEEP_INTERVAL_S
    while driven.store._sweeper.slice(driven._clock_s):
        pass


@pytest.mark.parametrize("slices", [0, 5])
def test_what_expires_after_it_was_cleared_is_not_counted_once_more(tmp_path: Path, slices: int) -> None:
    driven = Timed(tmp_path / "shard", OPTIONS)
    for keyspace, names in NAMES.items():
        driven.replies(*(put(name, b"v", keyspace, {TTL: 1000}) for name in names[3:]))
    driven.put(b"stays", b"v")
    assert driven.clear(CLEARED) == len(NAMES[CLEARED]) - 3
    driven.put(NAMES[CLEARED][0], b"new", CLEARED)
    for _ in range(slices):
        driven.store._purger.slice()
    driven.time.pass_by(1000)
    sweep(driven)
    assert driven.store.stats()["expired"] == len(NAMES[KEPT]) - 3
    expect_in_the_end(driven, {KEPT: {b"stays": b"v"}, CLEARED: {NAMES[CLEARED][0]: b"new"}})
    driven.kill()


@pytest.mark.parametrize("before", range(0, 24, 3))
@pytest.mark.parametrize("slices", [0, 9])
def test_a_compaction_that_a_clear_comes_into_brings_nothing_back(tmp_path: Path, before: int, slices: int) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    driven.put(b"stays", b"v")
    model[KEPT][b"stays"] = b"v"
    driven.seal()
    driven.store._compaction._asked = set(driven.sealed_ids())
    for name in NAMES[KEPT][::2]:
        assert driven.delete(name)
        del model[KEPT][name]
    clock_s = driven._clock_s

    def step() -> None:
        nonlocal clock_s
        clock_s += 10
        driven.store._maintenance.slice(clock_s)
        driven.run_jobs()

    for _ in range(before):
        step()
    clear(driven, model)
    for _ in range(slices):
        driven.store._purger.slice()
    for _ in range(40):
        step()
        expect(driven, model)
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_compaction_copies_nothing_that_was_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging.Purger, "slice", lambda _: False)
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    clear(driven, model)
    for name in NAMES[KEPT][::2]:
        assert driven.delete(name)
        del model[KEPT][name]
    driven.seal()
    for number in driven.sealed_ids():
        driven.rewrite(number)
    engine = driven.store._engine
    assert (len(engine.keydir), driven.store.stats()["compacted_bytes_written"] > 0) == (len(model[KEPT]), True)
    expect(driven, model)
    driven.reopen()
    expect(driven, model)
    driven.kill()


def test_no_checkpoint_is_taken_before_the_words_are_gone(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", replace(OPTIONS, checkpoint_interval_s=100.0))
    model = filled(driven)
    clear(driven, model)
    driven.one(operation(wire.OP_CHECKPOINT))
    for _ in range(3):
        driven._clock_s += 100
        driven.store._maintenance.slice(driven._clock_s)
        driven.run_jobs()
    assert checkpoints_in(driven.path) == []
    driven.restart()
    assert checkpoints_in(driven.path) == []
    expect(driven, model)
    driven.put(b"k", b"v", CLEARED)
    model[CLEARED] = {b"k": b"v"}
    clear(driven, model)
    driven.one(operation(wire.OP_CHECKPOINT))
    now_s = monotonic_s()
    driven.store._maintenance.slice(now_s)
    while driven.store._purger.slice():
        pass
    driven.store._maintenance.slice(now_s + 1)
    assert driven.store._maintenance.name == "checkpoint", "it was asked for"
    driven.maintain()
    assert len(checkpoints_in(driven.path)) == 1
    before = held_by(driven)
    driven.restart()
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    assert held_by(driven).keys == before.keys == {KEPT: len(model[KEPT])}
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_clean_stop_ends_the_walk_and_takes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "STOP_S", 60.0)
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    clear(driven, model)
    driven.restart()
    assert len(checkpoints_in(driven.path)) == 1
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    expect_in_the_end(driven, model)
    driven.kill()
