"""A shard opened from its checkpoint is the shard opened from its records: keys, counts, live bytes, answers."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.opened import held_by, opened_copy, opened_without
from tests.segments.support import Driven, delete, hash_of, key_of_hash, put

INTERVAL_S = 500.0
OPTIONS = StoreOptions(segment_bytes=2048, checkpoint_interval_s=INTERVAL_S)

#: Keys of one hash, of one tag, of one page, in the first and the last page, and some without anything in common.
KEYS = [
    *(key_of_hash(hash_of(5, 77, 9), i) for i in range(4)),
    *(key_of_hash(hash_of(5, 77, i), 7) for i in range(3)),
    *(key_of_hash(hash_of(page, tag)) for page in (0, 5, 511) for tag in (0, 1 << 19, (1 << 20) - 1)),
    *(b"key %d" % i for i in range(10)),
]
KEYSPACES = [0, 0, 0, 1, 255]

STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(KEYSPACES), st.integers(0, 300)),
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.just(0), st.integers(0, 300)),
    st.tuples(st.just("delete"), st.sampled_from(KEYS), st.sampled_from(KEYSPACES), st.just(0)),
    st.tuples(st.just("clear"), st.just(b""), st.sampled_from(KEYSPACES), st.just(0)),
    st.tuples(
        st.sampled_from(["jobs", "slice", "checkpoint", "checkpoint", "seal", "compact", "compact", "kill", "restart"]),
        st.just(b""), st.just(0), st.just(0),
    ),
)  # fmt: skip


class Run:
    """A shard that steps are made with; it takes a checkpoint when a step says so, and soon after a kill."""

    def __init__(self, path: Path) -> None:
        self.driven = Driven(path, OPTIONS, CarelessDisk())
        self.now_s = 1e6
        self.written = 0

    def step(self, name: str, key: bytes, keyspace: int, size: int) -> None:
        driven = self.driven
        if name == "put":
            self.written += 1
            driven.put(key, (b"%d." % self.written * size)[:size], keyspace)
        elif name == "delete":
            driven.delete(key, keyspace)
        elif name == "clear":
            driven.clear(keyspace)
        elif name == "jobs":
            driven.run_jobs()
        elif name == "slice":
            self.now_s += INTERVAL_S / 10
            driven.store.maintain(self.now_s)
        elif name == "checkpoint":
            self.now_s += INTERVAL_S * 2
            driven.maintain(self.now_s)
        elif name == "seal":
            driven.seal()
        elif name == "compact":
            driven.compact()
        elif name == "kill":
            driven.reopen()
        elif name == "restart":
            driven.restart()


def assert_opens_alike(driven: Driven, scratch: Path) -> bool:
    """Both ways of opening it give the same; whether the checkpoint was used."""
    with_it = opened_copy(driven.path, scratch / "with", OPTIONS, CarelessDisk())
    without = opened_without(driven.path, scratch / "without", OPTIONS)
    try:
        assert held_by(with_it) == held_by(without)
        for keyspace in set(KEYSPACES):
            assert with_it.items(keyspace=keyspace) == without.items(keyspace=keyspace)
            assert with_it.count(keyspace) == without.count(keyspace)
        return with_it.store.stats()["checkpoint_fallbacks"] == 0
    finally:
        with_it.kill()
        without.kill()
        shutil.rmtree(scratch)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=1, max_size=60))
def test_with_and_without_its_checkpoint_a_shard_opens_alike(
    steps: list[tuple[str, bytes, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("shard")
    run = Run(root / "shard")
    try:
        for step in steps:
            run.step(*step)
        assert_opens_alike(run.driven, root / "copies")
    finally:
        run.driven.kill()
        shutil.rmtree(root)


def test_a_start_finds_what_a_compaction_moved_after_the_checkpoint(tmp_path: Path) -> None:
    dice = random.Random(3)
    run = Run(tmp_path / "shard")
    driven = run.driven
    state: dict[bytes, bytes] = {}
    for generation in range(4):
        for i in range(60):
            key = b"key %d" % dice.randrange(90)
            state[key] = b"%d.%d " % (generation, i) * 8
            driven.put(key, state[key])
        if generation == 1:
            run.step("checkpoint", b"", 0, 0)
            known = set(driven.sealed_ids())
        for key in dice.sample(sorted(state), 12):
            driven.delete(key)
            del state[key]
    driven.seal()
    lsn = driven.store.stats()["checkpoint_lsn"]
    driven.compact()
    driven.put(b"key 1", b"behind the compaction")
    state[b"key 1"] = b"behind the compaction"
    stats = driven.store.stats()
    assert stats["checkpoint_lsn"] == lsn < stats["lsn"]
    assert stats["compactions"] > 0
    assert known - set(driven.sealed_ids())  # words of the checkpoint point into segments that are gone
    assert assert_opens_alike(driven, tmp_path / "copies")
    driven.reopen()
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    assert driven.items() == state
    assert driven.count() == len(state)
    driven.kill()


@pytest.mark.parametrize("number", range(7))
def test_what_came_later_replaces_its_own_key_among_those_of_one_hash_or_one_tag(tmp_path: Path, number: int) -> None:
    run = Run(tmp_path / "shard")
    driven = run.driven
    alike = KEYS[:7]  # four of one hash, three of its tag only: all in one place of one page
    state = {key: b"before %d" % i for i, key in enumerate(alike)}
    for key, value in state.items():
        driven.put(key, value)
    run.step("checkpoint", b"", 0, 0)
    overwritten, deleted = alike[number], alike[number - 1]
    driven.put(overwritten, b"after")
    driven.delete(deleted)
    state[overwritten] = b"after"
    del state[deleted]
    assert assert_opens_alike(driven, tmp_path / "copies")
    driven.reopen()
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    assert driven.items() == state
    driven.kill()


def test_slices_of_one_checkpoint_between_any_writes_give_exactly_what_the_words_say(tmp_path: Path) -> None:
    dice = random.Random(5)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20, checkpoint_interval_s=1.0), CarelessDisk())
    driven.execute(*(put(b"%d" % i, b"v" * dice.randrange(60)) for i in range(30_000)))
    now_s = 1e6
    slices = 0
    while driven.store.stats()["checkpoints"] < 3:
        driven.store.maintain(now_s)
        slices += 1
        driven.run_jobs()
        keys = [b"%d" % dice.randrange(40_000) for _ in range(200)]
        driven.execute(*(put(key, b"w" * dice.randrange(60)) if dice.random() < 0.7 else delete(key) for key in keys))
        now_s += 1
    assert slices > 6
    assert assert_opens_alike(driven, tmp_path / "copies")
    driven.kill()
