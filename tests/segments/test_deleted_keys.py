"""Deleted keys stay deleted, in whatever order the shard is sealed, compacted, checkpointed, killed and stopped."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from kio import wire
from kio.opbatch import ABSENT, DONE, Operation
from kio.segments.options import StoreOptions
from tests.cluster.daemon import FULL, scaled
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.opened import checkpoints_in
from tests.segments.support import Driven, delete, operation, put

#: Half of the keys are deleted, some of them soon after they were written, most when all were.
KEYS: Final = 2_000_000 if FULL else 600
SOON: Final = 0.1
OPTIONS: Final = StoreOptions(
    segment_bytes=KEYS * 60 // (30 if FULL else 8) // 8 * 8, space_amplification=1000.0, checkpoint_interval_s=86_400.0
)
BATCH: Final = 1_000
#: Every so-maniest order is tried.
STEP: Final = 1 if FULL else 5
#: Keys that are asked for one by one.
ASKED: Final = 20_000 if FULL else KEYS


class Deleted(NamedTuple):
    """A directory that was killed when its last key was deleted, and what is to be in it."""

    path: Path
    alive: dict[bytes, bytes]
    gone: list[bytes]


def in_batches(driven: Driven, operations: Iterator[Operation]) -> None:
    while some := list(itertools.islice(operations, BATCH)):
        assert {reply.status for reply in driven.replies(*some)} == {DONE}
        driven.run_jobs()


@pytest.fixture(scope="module")
def deleted(tmp_path_factory: pytest.TempPathFactory) -> Deleted:
    """The shard before anything but seals has happened to it."""
    chance = random.Random(KEYS)
    driven = Driven(tmp_path_factory.mktemp("deleted") / "shard", OPTIONS, CarelessDisk())
    keys = [b"key %d" % number for number in range(KEYS)]
    values = {key: b"value of " + key for key in keys}
    doomed = chance.sample(keys, KEYS // 2)
    soon = set(doomed[: int(len(doomed) * SOON)])

    def written() -> Iterator[Operation]:
        for key, value in values.items():
            yield put(key, value)
            if key in soon:
                yield delete(key)

    in_batches(driven, written())
    in_batches(driven, (delete(key) for key in doomed if key not in soon))
    driven.kill()
    for key in doomed:
        del values[key]
    return Deleted(driven.path, values, doomed)


# ---- what may happen ----


def seal(driven: Driven) -> None:
    driven.seal()


def compact(driven: Driven) -> None:
    """The newer half of the segments: their tombstones hide what is in the older half."""
    sealed = driven.sealed_ids()
    driven.rewrite(*sealed[len(sealed) // 2 :])
    assert driven.store.stats()["compactions"] > 0


def checkpoint(driven: Driven) -> None:
    driven.run_jobs()
    driven.store._checkpointer.take()


def crash(driven: Driven) -> None:
    driven.reopen()


def restart(driven: Driven) -> None:
    driven.restart()


HAPPENINGS: Final[tuple[Callable[[Driven], None], ...]] = (seal, compact, checkpoint, crash, restart)


def expect(driven: Driven, deleted: Deleted) -> None:
    assert driven.count() == len(deleted.alive)
    assert driven.items(limit=BATCH) == deleted.alive
    some = deleted.gone[:ASKED]
    for at in range(0, len(some), BATCH):
        asked = [operation(wire.OP_EXISTS, key) for key in some[at : at + BATCH]]
        assert {reply.status for reply in driven.replies(*asked)} == {ABSENT}


@scaled
@pytest.mark.timeout(3600 if FULL else 60)
@pytest.mark.parametrize("first", HAPPENINGS, ids=lambda happening: happening.__name__)
def test_deleted_keys_stay_deleted_in_every_order(
    tmp_path: Path, deleted: Deleted, first: Callable[[Driven], None]
) -> None:
    orders = [order for order in itertools.permutations(HAPPENINGS) if order[0] is first]
    for order in orders[HAPPENINGS.index(first) % STEP :: STEP]:
        path = tmp_path / "shard"
        shutil.copytree(deleted.path, path)
        driven = Driven(path, OPTIONS, CarelessDisk())
        for happening in order:
            happening(driven)
        expect(driven, deleted)
        # A start that reads every hint and record again.
        driven.kill()
        for file in checkpoints_in(path):
            file.unlink()
        driven.open()
        expect(driven, deleted)
        assert driven.compact() > 0
        expect(driven.reopen(), deleted)
        driven.kill()
        shutil.rmtree(path)
