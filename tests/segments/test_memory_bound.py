"""Past max_memory_mib new keys are refused, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import MemoryFull
from kio.limits import KIB, MIB
from kio.opbatch import DONE, IF_ABSENT, TTL, WITH_OLD
from kio.segments.store import StoreOptions
from tests.segments.support import Driven, hash_of, key_of_hash, operation, put

BOUND = 256 * KIB


def filled(path: Path) -> tuple[Driven, list[bytes], list[bytes]]:
    """A store at its bound, the keys that it took and those that it refused: each has a KeyDir page of its own."""
    driven = Driven(path / "shard", StoreOptions(memory_bytes_max=BOUND))
    taken, refused = [], []
    for page in range(100):
        key = key_of_hash(hash_of(page, 5))
        (reply,) = driven.replies(put(key, b"value"))
        (taken if reply.error() is None else refused).append(key)
        assert driven.store._engine.memory_bytes <= BOUND
    return driven, taken, refused


def test_new_keys_are_refused_past_the_bound_whatever_operation_brings_them(tmp_path: Path) -> None:
    driven, taken, refused = filled(tmp_path)
    assert len(taken) > 20
    assert len(refused) > 20
    for key in refused:
        for op in (
            put(key, b"v"),
            put(key, b"v", flags={TTL: 1000}),
            put(key, b"v", flags={IF_ABSENT: None}),
            put(key, b"v", flags={WITH_OLD: None}),
            operation(wire.OP_INCR, key, bytes(8)),
            operation(wire.OP_APPEND, key, b"v"),
        ):
            with pytest.raises(MemoryFull):
                driven.one(op)
        assert driven.get(key) is None
    assert driven.count() == driven.store.lsn == len(taken)


def test_reads_overwrites_and_deletes_go_on_past_the_bound(tmp_path: Path) -> None:
    driven, taken, refused = filled(tmp_path)
    for key in taken:
        assert driven.get(key) == b"value"
        driven.put(key, b"new value")
        assert driven.one(operation(wire.OP_APPEND, key, b"!")).status == opbatch.NUMBER
        assert driven.one(operation(wire.OP_EXPIRE, key, flags={TTL: 10**9})).status == DONE
        assert driven.get(key) == b"new value!"
    for key in taken[::2]:
        assert driven.delete(key)
    # Where a key was deleted, another has room at once.
    driven.put(taken[0], b"back")
    with pytest.raises(MemoryFull):
        driven.put(refused[0], b"v")
    driven.reopen()
    assert driven.count() == len(taken) - len(taken[::2]) + 1


def test_a_shard_with_more_keys_than_its_bound_allows_opens_and_serves(tmp_path: Path) -> None:
    driven, taken, _ = filled(tmp_path)
    driven.store.close()
    driven.options = StoreOptions(memory_bytes_max=BOUND // 4)
    driven.open()
    assert driven.items() == dict.fromkeys(taken, b"value")
    driven.put(taken[0], b"overwritten")
    with pytest.raises(MemoryFull):
        driven.put(key_of_hash(hash_of(400, 5)), b"v")


def test_keys_fit_tells_how_many_keys_there_can_be(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "none")
    assert driven.store.stats()["keys_fit"] == 0
    driven = Driven(tmp_path / "shard", StoreOptions(memory_bytes_max=5 * MIB // 2, segment_bytes=64 * MIB, sync="os"))
    told = driven.store.stats()["keys_fit"]
    first_refused = 0
    for start in range(0, 320_000, 4000):
        replies = driven.replies(*(put(b"%d" % i, b"") for i in range(start, start + 4000)))
        if not first_refused and any(reply.error() for reply in replies):
            first_refused = driven.count()
    # Pages are not equally full: the fewer their keys, the earlier the first of them has no room.
    assert 0.7 * told < first_refused <= driven.count() < 1.15 * told
    assert driven.count() > 0.75 * told
    assert driven.store._engine.memory_bytes <= 5 * MIB // 2
