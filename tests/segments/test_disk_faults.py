"""A full or failing disk: what is refused leaves no trace, what was acknowledged stays, and room brings writes back."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import DiskFull, KioError, ShardReadOnly
from kio.segments.identity import create_or_load
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.support import SMALL, Driven, delete, get, open_descriptors, operation, put

ROOMY = StoreOptions(segment_bytes=64 * 1024)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def driven(tmp_path: Path, disk: FaultyDisk) -> Driven:
    return Driven(tmp_path / "shard", ROOMY, disk)


def errors_of(driven: Driven, *operations: opbatch.Operation) -> list[type[KioError] | None]:
    """The class of each reply's error, None where it succeeded."""
    errors = [reply.error() for reply in driven.replies(*operations)]
    return [None if error is None else type(error) for error in errors]


# ---- a full disk ----


def test_writes_of_a_batch_that_found_no_room_are_refused_and_its_reads_are_answered(
    driven: Driven, disk: FaultyDisk
) -> None:
    driven.put(b"a", b"1")
    driven.put(b"b", b"2")
    disk.fail("write", error=errno.ENOSPC)
    batch = (get(b"a"), put(b"a", b"9"), put(b"c", b"3"), delete(b"b"), get(b"b"), delete(b"none"))
    assert errors_of(driven, *batch) == [None, DiskFull, DiskFull, DiskFull, None, DiskFull]
    for _ in range(2):
        assert driven.items() == {b"a": b"1", b"b": b"2"}
        assert driven.count() == 2
        assert driven.get(b"c") is None
        driven.reopen()
    lsn = driven.store.lsn
    driven.put(b"c", b"3")
    assert driven.store.lsn == lsn + 1
    driven.reopen()
    assert driven.items() == {b"a": b"1", b"b": b"2", b"c": b"3"}


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_records_of_a_write_that_failed_halfway_do_not_come_back(
    driven: Driven, disk: FaultyDisk, part: float, error: int
) -> None:
    model = {b"key %d" % i: b"old" for i in range(8)}
    for key, value in model.items():
        driven.put(key, value)
    disk.fail("write", error=error, part=part)
    refused = errors_of(driven, *(put(key, b"new" * 9) for key in model), delete(b"key 1"))
    assert set(refused) == {DiskFull if error == errno.ENOSPC else ShardReadOnly}
    assert driven.items() == model
    if error == errno.ENOSPC:
        driven.put(b"key 7", b"newer")
        model[b"key 7"] = b"newer"
    driven.reopen()
    assert driven.items() == model


@pytest.mark.parametrize("seed", range(6))
def test_records_of_a_write_that_failed_halfway_do_not_come_back_with_a_power_cut_either(
    tmp_path: Path, driven: Driven, disk: FaultyDisk, seed: int
) -> None:
    driven.put(b"key", b"old")
    driven.sync()
    disk.fail("write", error=errno.ENOSPC, part=1.0)
    assert errors_of(driven, put(b"key", b"refused"), put(b"other", b"refused")) == [DiskFull, DiskFull]
    disk.power_cut(tmp_path, tmp_path / "after", random.Random(seed))
    driven.kill()
    after = Driven(tmp_path / "after" / "shard", ROOMY)
    assert after.items() == {b"key": b"old"}


def test_what_a_batch_did_before_the_write_that_failed_stays_done_and_is_told_so(
    driven: Driven, disk: FaultyDisk
) -> None:
    for i in range(5):
        driven.put(b"key %d" % i, b"v")
    count = operation(wire.OP_COUNT)
    disk.fail("write", nth=3, error=errno.ENOSPC)
    batch = (put(b"key 5", b"v"), count, operation(wire.OP_CLEAR), count, put(b"new", b"v"), count, get(b"new"))
    replies = driven.replies(*batch)
    numbers = [int.from_bytes(replies[i].payload, "little") for i in (1, 2, 3, 5)]
    assert numbers == [6, 6, 0, 0]
    assert [type(reply.error()) for reply in replies if reply.error()] == [DiskFull]
    assert (replies[0].status, replies[6].status) == (opbatch.DONE, opbatch.ABSENT)
    driven.reopen()
    assert driven.items() == {}


def test_a_full_disk_is_logged_once_and_not_for_each_write(
    driven: Driven, disk: FaultyDisk, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        disk.fail("write", error=errno.ENOSPC)
        assert errors_of(driven, put(b"a", b"1")) == [DiskFull]
    assert [record.getMessage() for record in caplog.records if "write refused" in record.getMessage()] == [
        'shard=0 write refused: fault="No space left on device"'
    ]


def test_a_clear_that_finds_no_room_clears_nothing(driven: Driven, disk: FaultyDisk) -> None:
    driven.put(b"key", b"v")
    disk.fail("write", error=errno.ENOSPC)
    with pytest.raises(DiskFull):
        driven.clear()
    assert driven.items() == {b"key": b"v"}
    driven.reopen()
    assert driven.items() == {b"key": b"v"}


def fill(driven: Driven, prefix: bytes = b"key", value: bytes = bytes(100)) -> dict[bytes, bytes]:
    """Put until a put is refused or 100 are there; what was acknowledged."""
    model = {}
    for i in range(100):
        key = prefix + b" %d" % i
        try:
            driven.put(key, value)
        except KioError:
            break
        model[key] = value
    return model


@pytest.mark.parametrize("kind", ["create", "allocate", "write", "sync", "sync_directory", "sync_data"])
@pytest.mark.parametrize("is_ahead", [False, True], ids=["at once", "ahead"])
def test_no_room_for_the_next_segment_refuses_writes_until_there_is_room(
    tmp_path: Path, disk: FaultyDisk, kind: str, is_ahead: bool
) -> None:
    driven = Driven(tmp_path / "shard", SMALL, disk)
    model = {}
    if is_ahead:
        while driven.store.background_job() is None:
            key = b"first %d" % len(model)
            driven.put(key, b"v")
            model[key] = b"v"
        job = driven.store._chain.supply.making
        assert job is not None
        assert job.kind == "prepare"
        disk.fail(kind, error=errno.ENOSPC, times=1000)
        job.run()
        driven.store.finish(job)
        assert job.error is not None
    else:
        model |= fill(driven, b"first", bytes(400))
        driven.run_jobs()
        if driven.store._chain.supply.prepared is not None:
            driven.put(b"rotates", bytes(900))
            model[b"rotates"] = bytes(900)
        disk.fail(kind, error=errno.ENOSPC, times=1000)
    if kind == "write":
        disk.heal()
        disk.fail(kind, nth=2, error=errno.ENOSPC, times=1000)
    descriptors = open_descriptors()
    refused = [errors_of(driven, put(b"big", bytes(1100)))[0] for _ in range(5)]
    assert set(refused) <= ({DiskFull} if kind != "sync_data" else {DiskFull, ShardReadOnly})
    assert open_descriptors() <= descriptors
    assert driven.items() == model
    disk.heal()
    if not driven.store.is_read_only and kind != "sync_data":
        driven.look_for_room()
        driven.put(b"big", bytes(1100))
        model[b"big"] = bytes(1100)
        model |= fill(driven, b"last")
        assert len(model) > 100
    driven.reopen()
    assert driven.items() == model
    driven.put(b"new", b"v")
    driven.restart()
    assert driven.items() == model | {b"new": b"v"}


def test_a_prepared_segment_that_cannot_grow_is_kept_for_smaller_records(tmp_path: Path, disk: FaultyDisk) -> None:
    driven = Driven(tmp_path / "shard", SMALL, disk)
    driven.put(b"a", bytes(500))
    driven.run_jobs()
    assert driven.store._chain.supply.prepared is not None
    descriptors = open_descriptors()
    disk.fail("allocate", error=errno.ENOSPC, times=1000)
    for _ in range(5):
        assert errors_of(driven, put(b"big", bytes(5000)), get(b"a")) == [DiskFull, None]
    assert open_descriptors() == descriptors
    driven.put(b"b", bytes(500))
    disk.heal()
    driven.put(b"big", bytes(5000))
    driven.reopen()
    assert driven.items() == {b"a": bytes(500), b"b": bytes(500), b"big": bytes(5000)}


def test_an_empty_segment_that_cannot_be_dropped_does_not_keep_a_large_record_out(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    for kind, nth in (("unlink", 1), ("write", 3), ("sync_data", 2)):
        driven = Driven(tmp_path / f"shard {kind}", SMALL, disk)
        disk.fail(kind, nth)
        errors_of(driven, put(b"big", bytes(5000)))
        disk.heal()
        errors_of(driven, put(b"a", b"1"))
        assert driven.answers([b"never"]) == {b"never": None}
        model = driven.items()
        driven.reopen()
        assert driven.items() == model
        driven.put(b"b", b"2")
        driven.store.close()


# ---- a failing disk ----


def test_a_write_error_makes_the_shard_read_only_and_reads_go_on(driven: Driven, disk: FaultyDisk) -> None:
    driven.put(b"a", b"1")
    disk.fail("write")
    assert errors_of(driven, put(b"a", b"2"), get(b"a"), delete(b"a")) == [ShardReadOnly, None, ShardReadOnly]
    assert driven.store.is_read_only
    assert errors_of(driven, put(b"b", b"2"), operation(wire.OP_CLEAR)) == [ShardReadOnly, ShardReadOnly]
    assert driven.items() == {b"a": b"1"}
    assert "write failed" in driven.store.stats()["reason"]
    driven.store.close()
    driven.open()
    assert driven.items() == {b"a": b"1"}
    driven.put(b"b", b"2")


@pytest.mark.parametrize("kind", ["sync_data", "write"])
def test_a_read_only_shard_answers_what_is_durable_and_lets_nothing_wait(
    tmp_path: Path, disk: FaultyDisk, kind: str
) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=64 * 1024, sync="always"), disk)
    driven.put(b"a", b"1")
    driven.sync()
    driven.put(b"b", b"2")
    disk.fail(kind, error=errno.EIO)
    driven.execute(put(b"c", b"3"))
    driven.sync()
    assert driven.store.is_read_only
    executed = driven.execute(
        get(b"a"), get(b"b"), get(b"c"), get(b"never"), operation(wire.OP_STATS), operation(wire.OP_COUNT)
    )
    assert executed.parked == b""
    replies = opbatch.decode_replies(executed.replies)
    assert [reply.index for reply in replies] == [0, 1, 2, 3, 4, 5]
    assert replies[0].payload == b"1"
    if kind == "sync_data":
        assert isinstance(replies[1].error(), ShardReadOnly)
    assert not replies[4].error()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_manifest_that_takes_no_more_edits_makes_the_shard_read_only_and_says_so(tmp_path: Path, error: int) -> None:
    class ManifestDisk(FaultyDisk):
        """Fails every sync of the manifest's edits once it is told to."""

        is_failing = False

        def sync_data(self, fd: int) -> None:
            if self.is_failing and self.is_name_of(tmp_path / "shard" / "MANIFEST", fd):
                raise OSError(error, os.strerror(error))
            super().sync_data(fd)

    disk = ManifestDisk()
    driven = Driven(tmp_path / "shard", SMALL, disk)
    driven.put(b"a", b"1")
    disk.is_failing = True
    for i in range(40):
        if errors_of(driven, put(b"k%d" % i, b"v" * 60)) != [None]:
            break
        driven.run_jobs()
    assert errors_of(driven, put(b"b", b"2"), delete(b"a"), get(b"a")) == [ShardReadOnly, ShardReadOnly, None]
    stats = driven.store.stats()
    assert stats["state"] == "read-only"
    assert f"the manifest could not be written: [Errno {error}]" in stats["reason"]
    disk.is_failing = False
    driven.reopen()
    assert driven.items() == {b"a": b"1"} | {b"k%d" % n: b"v" * 60 for n in range(i)}
    driven.put(b"b", b"2")


def test_a_write_that_cannot_be_taken_back_may_have_been_applied_and_later_ones_were_not(
    driven: Driven, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "truncate")

    monkeypatch.setattr(disk, "truncate", refuse)
    disk.fail("write", part=1.0)
    error = driven.replies(put(b"a", b"1"))[0].error()
    assert isinstance(error, ShardReadOnly)
    assert error.maybe_applied
    error = driven.replies(put(b"a", b"2"))[0].error()
    assert isinstance(error, ShardReadOnly)
    assert not error.maybe_applied


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_whichever_call_of_the_disk_fails_what_was_acknowledged_stays_and_what_was_refused_does_not(
    tmp_path: Path, error: int
) -> None:
    nth = 0
    while True:
        nth += 1
        disk = FaultyDisk()
        driven = Driven(tmp_path / f"shard {nth}", SMALL, disk)
        disk.fail("any", nth, error)
        model: dict[bytes, bytes] = {}
        for i in range(30):
            key, value = b"key %d" % (i % 7), b"%d " % i * (i * 7 % 120)
            if i % 10 == 9:
                op, after = delete(key), {k: v for k, v in model.items() if k != key}
            elif i == 20:
                op, after = operation(wire.OP_CLEAR), {}
            else:
                op, after = put(key, value), model | {key: value}
            try:
                driven.one(op)
                model = after
            except KioError as failure:
                assert isinstance(failure, ShardReadOnly | DiskFull)
            if i % 4 == 3:
                driven.run_jobs()
        struck = disk.calls["any"]
        if not driven.store.is_read_only:
            assert driven.items() == model, nth
        disk.heal()
        driven.reopen()
        assert driven.items() == model, nth
        driven.put(b"new", b"v")
        driven.restart()
        assert driven.items() == model | {b"new": b"v"}, nth
        driven.kill()
        if struck < nth:
            assert nth > 100
            break


def test_a_close_that_fails_gives_the_lock_up_and_loses_nothing(tmp_path: Path) -> None:
    nth = 0
    while True:
        nth += 1
        disk = FaultyDisk()
        driven = Driven(tmp_path / f"shard {nth}", SMALL, disk)
        model = fill(driven, b"key", bytes(300))
        before = disk.calls["any"]
        disk.fail("any", nth)
        driven.store.close()
        struck = disk.calls["any"] - before
        disk.heal()
        descriptors = open_descriptors()
        driven.open()
        assert driven.items() == model, nth
        driven.store.close()
        assert open_descriptors() <= descriptors, nth
        if struck < nth:
            break
        if nth > 40:
            break


def test_a_directory_that_was_cut_off_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    nth = 0
    is_new = False
    while not is_new:
        nth += 1
        data = tmp_path / f"data {nth}"
        disk = FaultyDisk()
        disk.fail("any", nth)
        try:
            _, is_new = create_or_load(data, 3, disk)
        except OSError:
            disk.heal()
            identity, _ = create_or_load(data, 3, disk)
            assert create_or_load(data, 5, disk) == (identity, False)
            assert identity.shards == 3
    assert nth > 10
