"""Clearing a keyspace: its keys are gone, for good, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kio.segments.options import StoreOptions
from tests.segments.support import SMALL, Driven


@pytest.mark.parametrize("segment_bytes", [1024, 64 * 1024])
def test_a_clear_takes_the_keys_of_its_keyspace_and_no_others(tmp_path: Path, segment_bytes: int) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=segment_bytes))
    models = {keyspace: {b"key %d" % i: b"%d" % keyspace * i for i in range(30)} for keyspace in (0, 1, 255)}
    for keyspace, model in models.items():
        for key, value in model.items():
            driven.put(key, value, keyspace)
    assert driven.clear(1) == 30
    models[1] = {}
    for _ in range(2):
        for keyspace, model in models.items():
            assert driven.items(keyspace=keyspace) == model
            assert driven.count(keyspace) == len(model)
            assert driven.answers([b"key 7"], keyspace) == {b"key 7": model.get(b"key 7")}
        live = sum((24 + len(k) + len(v) + 7) // 8 * 8 for model in models.values() for k, v in model.items())
        while driven.store._purger.slice():
            pass
        assert driven.store.stats()["live_bytes"] == live
        driven.run_jobs()
        driven.reopen()
    driven.put(b"key 7", b"after", 1)
    driven.restart()
    assert driven.items(keyspace=1) == {b"key 7": b"after"}
    assert driven.clear(0) == 30
    assert driven.clear(0) == 0
    driven.restart()
    assert (driven.count(0), driven.count(1), driven.count(255)) == (0, 1, 30)


def test_a_clear_of_the_only_keyspace_gives_the_memory_back_and_stays(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    for i in range(3000):
        driven.put(b"key %d" % i, b"")
    grown = driven.store.stats()["keydir_bytes"]
    assert driven.clear() == 3000
    assert driven.store.stats()["keydir_bytes"] < grown
    assert driven.items() == {}
    driven.put(b"key 1", b"new")
    for again in (driven.reopen, driven.restart):
        again()
        assert driven.items() == {b"key 1": b"new"}


def test_a_clear_and_what_stands_around_it_in_one_batch_keep_their_order(tmp_path: Path) -> None:
    from kio import wire
    from tests.segments.support import operation, put

    driven = Driven(tmp_path / "shard", SMALL)
    clear = operation(wire.OP_CLEAR)
    driven.replies(put(b"a", b"1"), clear, put(b"a", b"2"), put(b"b", b"3"), clear, put(b"b", b"4"))
    for again in (driven.reopen, driven.restart):
        assert driven.items() == {b"b": b"4"}
        again()
