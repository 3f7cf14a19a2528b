"""The KeyDir through the engine, against a dict: crowded tags, equal hashes, growth and shrinking, scans meanwhile."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import Driven, delete, hash_of, key_of_hash, put

ROOMY = StoreOptions(segment_bytes=8 << 20)
TAG_MAX = (1 << 20) - 1


def store(path: Path, options: StoreOptions = ROOMY) -> Driven:
    return Driven(path / "shard", options, CarelessDisk())


def put_all(driven: Driven, model: dict[bytes, bytes]) -> None:
    items = list(model.items())
    for i in range(0, len(items), 1000):
        assert all(reply.error() is None for reply in driven.replies(*(put(k, v) for k, v in items[i : i + 1000])))


@pytest.mark.parametrize("pages", [1, 512])
def test_random_puts_and_deletes_leave_what_a_dict_would_hold(tmp_path: Path, pages: int) -> None:
    chance = random.Random(pages)
    driven = store(tmp_path)
    keys = [
        key_of_hash(hash_of(chance.randrange(pages), chance.randrange(1 << 20), chance.randrange(9)), i)
        for i in range(6000)
    ]
    model: dict[bytes, bytes] = {}
    for share in (0.9, 0.2, 0.8, 0.05):
        for _ in range(6):
            batch = []
            for key in chance.sample(keys, 1500):
                if chance.random() < share:
                    model[key] = b"%d" % chance.randrange(10**6)
                    batch.append(put(key, model[key]))
                else:
                    model.pop(key, None)
                    batch.append(delete(key))
            assert all(reply.error() is None for reply in driven.replies(*batch))
        assert driven.count() == len(model)
        assert driven.items(limit=1000) == model
    for key in keys:
        assert driven.get(key) == model.get(key)
    figures = driven.store.stats()
    driven.reopen()
    assert driven.items() == model
    assert driven.count() == len(model)
    assert driven.store.stats()["live_bytes"] == figures["live_bytes"]


@pytest.mark.parametrize("tag", [0, 1, 12345, TAG_MAX * 3 // 4])
def test_many_keys_of_one_tag_are_told_apart(tmp_path: Path, tag: int) -> None:
    driven = store(tmp_path)
    crowd = [key_of_hash(hash_of(3, tag, i), i) for i in range(300)]
    around = [key_of_hash(hash_of(3, min(tag + i % 7, TAG_MAX), 1), 1000 + i) for i in range(20)]
    model = {key: b"%d" % i for i, key in enumerate([*crowd, *around])}
    put_all(driven, model)
    for key in crowd[::3]:
        assert driven.delete(key)
        del model[key]
    for key in crowd[1::3]:
        model[key] = b"again"
        driven.put(key, b"again")
    for again in (lambda: None, driven.reopen, driven.restart):
        again()
        assert driven.items(limit=7) == model
        assert driven.count() == len(model)
        assert [driven.get(key) for key in crowd[::3]] == [None] * 100


# ---- equal hashes ----

A, B, C = (key_of_hash(hash_of(9, 99, 5), nth) for nth in range(3))
STEPS = ["put A", "put B", "delete A", "delete B"]


def test_two_keys_of_one_hash_keep_their_values_through_any_history_and_restart(tmp_path: Path) -> None:
    for number, history in enumerate(itertools.product(STEPS, repeat=4)):
        restart = ("reopen", "restart")[number // 5 % 2]
        driven = store(tmp_path / str(number), StoreOptions(segment_bytes=200))
        model: dict[bytes, bytes] = {}
        for i, step in enumerate(history):
            key = {"A": A, "B": B}[step[-1]]
            if step.startswith("put"):
                model[key] = b"%d" % i
                driven.put(key, model[key])
            else:
                assert driven.delete(key) == (key in model)
                model.pop(key, None)
            if i == number % 5:
                driven.run_jobs()
                getattr(driven, restart)()
        for again in (lambda: None, getattr(driven, restart), driven.restart):
            again()
            assert driven.items() == model, history
            assert (driven.get(A), driven.get(B)) == (model.get(A), model.get(B)), history
            assert driven.count() == len(model), history
        driven.kill()


def test_three_keys_of_one_hash_in_random_histories_with_restarts(tmp_path: Path) -> None:
    chance = random.Random(1)
    for number in range(60):
        driven = store(tmp_path / str(number), StoreOptions(segment_bytes=300))
        model: dict[bytes, bytes] = {}
        for i in range(30):
            key = chance.choice([A, B, C])
            fate = chance.random()
            if fate < 0.5:
                model[key] = b"%d" % i
                driven.put(key, model[key])
            elif fate < 0.8:
                assert driven.delete(key) == (key in model)
                model.pop(key, None)
            elif fate < 0.84:
                assert driven.clear() == len(model)
                model.clear()
            elif fate < 0.9:
                driven.run_jobs()
            else:
                chance.choice([driven.reopen, driven.restart])()
            assert driven.items() == model, (number, i)
        driven.kill()


def test_the_same_key_in_two_keyspaces_is_two_keys(tmp_path: Path) -> None:
    driven = store(tmp_path)
    wanted = hash_of(9, 99, 5)
    other = key_of_hash(wanted, 0, keyspace=7)
    driven.put(A, b"in 0")
    driven.put(other, b"other key of the same hash, in 7", 7)
    driven.put(A, b"in 7", 7)
    for again in (driven.reopen, driven.restart):
        assert (driven.get(A), driven.get(A, 7)) == (b"in 0", b"in 7")
        assert driven.get(other, 7) == b"other key of the same hash, in 7"
        assert driven.get(other) is None
        again()
    assert driven.delete(A, 7)
    driven.reopen()
    assert (driven.get(A), driven.get(A, 7)) == (b"in 0", None)


# ---- memory, growth and scans ----


def test_memory_follows_the_number_of_keys_up_and_down(tmp_path: Path) -> None:
    driven = store(tmp_path)
    assert driven.store.stats()["keydir_bytes"] == 0
    keys = [b"%d" % i for i in range(120_000)]
    put_all(driven, dict.fromkeys(keys, b""))
    full = driven.store.stats()["keydir_bytes"]
    assert len(driven.store._engine.keydir) == len(keys)
    assert 8 * len(keys) < full < 45 * len(keys)
    for i in range(0, len(keys) - 100, 1000):
        driven.execute(*(delete(key) for key in keys[i : min(i + 1000, len(keys) - 100)]))
    assert driven.count() == 100
    assert driven.store.stats()["keydir_bytes"] <= full
    assert set(driven.items()) == set(keys[-100:])
    driven.clear()
    assert driven.store.stats()["keydir_bytes"] == 0


def test_a_scan_returns_each_key_that_stays_once_while_others_come_and_go(tmp_path: Path) -> None:
    chance = random.Random(2)
    driven = store(tmp_path)
    steady = {key_of_hash(hash_of(chance.randrange(4), chance.randrange(1 << 20)), i): b"s" for i in range(3000)}
    put_all(driven, steady)
    coming = iter(range(10**6))
    seen: list[bytes] = []
    cursor = 0
    while True:
        cursor, page = driven.page(cursor, 50)
        seen += page[::2]
        if cursor == 0:
            break
        fresh = [b"new %d" % next(coming) for _ in range(100)]
        driven.execute(*(put(key, b"") for key in fresh))
        driven.execute(*(delete(key) for key in fresh[:50]))
        driven.execute(*(put(key, b"overwritten") for key in chance.sample(list(steady), 20)))
        if len(seen) % 7 == 0:
            driven.reopen()
    assert len(seen) == len(set(seen))
    assert set(steady) <= set(seen)


def test_a_scan_with_a_prefix_returns_what_begins_so(tmp_path: Path) -> None:
    driven = store(tmp_path)
    model = {b"%s%d" % (prefix, i): b"v" for prefix in (b"a", b"ab", b"b", b"\xff") for i in range(100)}
    put_all(driven, model)
    for prefix in (b"", b"a", b"ab", b"ab1", b"\xff", b"none", b"x" * 300):
        wanted = {key for key in model if key.startswith(prefix)}
        assert set(driven.items(prefix, limit=3)) == wanted
    assert driven.page(0, 1)[0] != 0
    assert driven.page(2**64 - 1, 5) == (0, [])
