"""A clear that a crash, or a disk that refuses, comes into; and one that is not durable yet."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import DiskFull
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.opened import checkpoints_in
from tests.segments.support import Driven, delete, get, operation, put
from tests.segments.test_purging import (
    CLEARED,
    NAMES,
    OPTIONS,
    clear,
    expect,
    expect_in_the_end,
    filled,
    one_word_a_slice,
)

__all__ = ["one_word_a_slice"]


@pytest.mark.parametrize("again", [Driven.reopen, Driven.restart])
@pytest.mark.parametrize("has_checkpoint", [False, True])
@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("slices", [0, 1, 20, 60])
def test_what_was_cleared_is_gone_after_a_crash_at_any_moment_of_the_walk(
    tmp_path: Path, slices: int, is_sealed: bool, has_checkpoint: bool, again: Callable[[Driven], Driven]
) -> None:
    driven = Driven(tmp_path / "shard", OPTIONS)
    model = filled(driven)
    if has_checkpoint:
        driven.one(operation(wire.OP_CHECKPOINT))
        driven.maintain()
        assert checkpoints_in(driven.path)
    clear(driven, model)
    driven.put(NAMES[CLEARED][3], b"new", CLEARED)
    model[CLEARED][NAMES[CLEARED][3]] = b"new"
    if is_sealed:
        driven.seal()
    for _ in range(slices):
        driven.store._purger.slice()
    again(driven)
    assert not driven.store._engine.has_floors
    expect_in_the_end(driven, model)
    driven.kill()


def test_a_clear_that_cannot_be_written_clears_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", OPTIONS, disk)
    model = filled(driven)
    disk.fail("write", error=errno.ENOSPC)
    (reply,) = driven.replies(operation(wire.OP_CLEAR, keyspace=CLEARED))
    assert isinstance(reply.error(), DiskFull)
    assert not driven.store._engine.has_floors
    expect_in_the_end(driven, model)
    driven.kill()


def test_writes_that_are_taken_back_bring_no_cleared_key_back(tmp_path: Path) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20), disk)
    model = filled(driven)
    clear(driven, model)
    names = NAMES[CLEARED][::2]
    disk.fail("write", error=errno.ENOSPC)
    replies = driven.replies(
        *(put(name, b"new", CLEARED) for name in names), *(delete(name, CLEARED) for name in names)
    )
    assert all(isinstance(reply.error(), DiskFull) for reply in replies)
    expect(driven, model)
    expect_in_the_end(driven, model)
    driven.kill()


@pytest.mark.parametrize("slices", [0, 60])
def test_with_sync_always_a_cleared_key_is_absent_when_the_clear_is_durable(tmp_path: Path, slices: int) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20, sync="always"))
    model = filled(driven)
    driven.sync()
    executed = driven.execute(operation(wire.OP_CLEAR, keyspace=CLEARED))
    assert (executed.replies, executed.parked_lsn > driven.store.durable_lsn) == (b"", True)
    for _ in range(slices):
        driven.store._purger.slice()
    for op in (wire.OP_GET, wire.OP_EXISTS, wire.OP_TTL, wire.OP_DELETE):
        executed = driven.execute(*(operation(op, name, b"", CLEARED) for name in NAMES[CLEARED]))
        assert executed.replies == b""
        assert len(opbatch.decode_replies(executed.parked)) == len(NAMES[CLEARED])
    driven.sync()
    executed = driven.execute(*(get(name, CLEARED) for name in NAMES[CLEARED]))
    assert executed.parked == b""
    model[CLEARED] = {}
    expect_in_the_end(driven, model)
    driven.kill()
