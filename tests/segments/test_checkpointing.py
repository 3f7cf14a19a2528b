"""When a checkpoint is taken, what it waits for, and what it leaves in the directory."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kio.opbatch import TTL
from kio.segments import checkpointing
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.opened import checkpoints_in, held_by
from tests.segments.support import IDENTITY, Driven, Timed, hash_of, key_of_hash, put

INTERVAL_S = 50.0
ROOMY = StoreOptions(segment_bytes=1 << 20, checkpoint_interval_s=INTERVAL_S)


class Clock:
    """Runs the maintenance of a shard at times that a test names, from its opening on."""

    def __init__(self, driven: Driven) -> None:
        self.driven = driven
        self.start_s = driven.store._checkpointer._last_s

    def run(self, after_s: float) -> int:
        """Slices and jobs until there are none; how many checkpoints the shard has taken."""
        self.driven.run_jobs()
        while self.driven.store.maintain(self.start_s + after_s + 0.01) or self.driven.run_jobs():
            pass
        return taken(self.driven)


def taken(driven: Driven) -> int:
    return int(driven.store.stats()["checkpoints"])


def named(driven: Driven) -> list[str]:
    """The file that the manifest names, as a list to be compared with those in the directory."""
    checkpoint = Manifest.load(driven.path, 0, IDENTITY.directory_id).state.checkpoint
    return [] if checkpoint is None else [f"checkpoint-{checkpoint.id}.ckpt"]


def names(driven: Driven) -> list[str]:
    return [path.name for path in checkpoints_in(driven.path)]


def test_one_is_taken_when_the_interval_has_passed_and_something_was_written(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    clock = Clock(driven)
    assert clock.run(INTERVAL_S * 2) == 0
    driven.put(b"k", b"v")
    assert clock.run(INTERVAL_S * 2 + 1) == 1
    assert clock.run(INTERVAL_S * 4) == 1
    driven.put(b"k", b"w")
    assert clock.run(INTERVAL_S * 2.5) == 1
    assert clock.run(INTERVAL_S * 5) == 2
    assert names(driven) == named(driven) == ["checkpoint-2.ckpt"]
    driven.kill()


def test_one_is_taken_at_once_when_much_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "BYTES_WRITTEN", 1 << 20)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20, checkpoint_interval_s=INTERVAL_S))
    clock = Clock(driven)
    for i in range(20):
        driven.put(b"%d" % (i % 3), bytes(60_000))
        assert clock.run(1.0 + i) == (i >= 17)
    driven.kill()


def test_one_is_taken_at_once_when_a_start_would_have_many_records_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "RECORDS_WRITTEN", 200)
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20, checkpoint_interval_s=INTERVAL_S))
    clock = Clock(driven)
    for i, (records, expected) in enumerate([(190, 0), (10, 1), (190, 1), (10, 2)]):
        for _ in range(records):
            driven.put(b"k", bytes(10_000))
        assert clock.run(1.0 + i) == expected
    driven.kill()


def test_a_start_that_had_to_replay_is_followed_by_one_soon(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    driven.put(b"k", b"v")
    driven.reopen()
    assert Clock(driven).run(6.0) == 1
    driven.restart()
    driven.put(b"k", b"w")
    assert Clock(driven).run(6.0) == 0
    driven.kill()


def test_a_clean_stop_writes_one_unless_nothing_has_changed(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    driven.restart()
    assert names(driven) == []
    driven.put(b"k", b"v")
    driven.restart()
    assert names(driven) == named(driven) == ["checkpoint-1.ckpt"]
    driven.restart()
    assert names(driven) == named(driven) == ["checkpoint-1.ckpt"]
    assert driven.get(b"k") == b"v"
    driven.kill()


def test_a_start_from_one_reads_no_hints_of_what_it_covers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=4096))
    for i in range(100):
        driven.put(b"key %d" % i, bytes(200))
        driven.run_jobs()
    driven.store.close()
    content = {b"key %d" % i: bytes(200) for i in range(100)}
    segments = sorted(driven.path.glob("*.seg"))
    assert len(segments) > 3
    for path in segments:
        spoil_hints(path)
    driven.open()
    assert driven.items() == content
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    assert "damaged hints" not in caplog.text
    driven.kill()
    checkpoints_in(driven.path)[0].unlink()
    driven.open()
    assert driven.items() == content
    assert driven.store.stats()["checkpoint_fallbacks"] == 1
    assert caplog.text.count("damaged hints") == len(segments)
    driven.kill()


def spoil_hints(path: Path) -> None:
    """Overwrite the last hint of a sealed segment: whoever reads them notices."""
    data = bytearray(path.read_bytes())
    data[-136 - 32 : -136] = bytes(32)
    path.write_bytes(data)


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_it_is_named_only_when_the_records_it_speaks_of_are_durable(tmp_path: Path, sync: str) -> None:
    driven = Driven(tmp_path / "shard", StoreOptions(segment_bytes=1 << 20, sync=sync, checkpoint_interval_s=1.0))
    driven.put(b"k", b"v")
    now_s = driven.store._checkpointer._last_s + 10
    driven.store.maintain(now_s)
    while driven.store._maintenance.lsn_wanted == 0:
        job = driven.store.background_job()
        if job is not None:
            job.run()
            driven.store.finish(job)
        driven.store.maintain(now_s)
    assert driven.store.durable_lsn == 0
    assert not driven.store.maintain(now_s)
    assert named(driven) == []
    sync_job = driven.store.background_job() if sync == "os" else driven.store.sync_job()
    assert sync_job is not None
    assert sync_job.kind == "sync"
    sync_job.run()
    driven.store.finish(sync_job)
    driven.run_jobs()
    driven.store.maintain(now_s)
    driven.run_jobs()
    assert named(driven) == names(driven) == ["checkpoint-1.ckpt"]
    assert driven.store.stats()["checkpoint_lsn"] == 1
    driven.kill()


def test_one_during_which_a_keyspace_is_cleared_is_given_up_and_another_follows_soon(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    clock = Clock(driven)
    driven.put(b"k", b"v")
    driven.put(b"k", b"v", keyspace=3)
    driven.store.maintain(clock.start_s + INTERVAL_S + 0.01)
    assert driven.store._maintenance.name == "checkpoint"
    driven.clear(keyspace=3)
    assert clock.run(INTERVAL_S) == 0
    assert names(driven) == []
    assert clock.run(INTERVAL_S + 6) == 1
    assert held_by(driven).keys == {0: 1}
    driven.kill()


def test_a_stop_gives_up_one_under_way_and_writes_a_whole_one(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    driven.put(b"k", b"v")
    driven.store.maintain(driven.store._checkpointer._last_s + INTERVAL_S + 0.01)
    assert driven.store._maintenance.name == "checkpoint"
    driven.put(b"l", b"w")
    driven.restart()
    assert driven.store.stats()["checkpoint_lsn"] == 2
    assert names(driven) == named(driven)
    assert driven.items() == {b"k": b"v", b"l": b"w"}
    driven.kill()


@pytest.mark.parametrize("kind", ["create", "write", "sync", "sync_directory", "sync_data"])
def test_a_disk_that_refuses_one_leaves_the_last_and_no_file(tmp_path: Path, kind: str) -> None:
    disk = FaultyDisk()
    driven = Driven(tmp_path / "shard", ROOMY, disk)
    clock = Clock(driven)
    driven.put(b"k", b"v")
    assert clock.run(INTERVAL_S) == 1
    driven.put(b"k", b"w")
    driven.run_jobs()
    disk.fail(kind, error=errno.ENOSPC)
    assert clock.run(INTERVAL_S * 2) == 1
    disk.heal()
    if kind == "sync_data":
        # It was the manifest's: nobody knows whether the edit is on disk, so both files have to stay.
        assert names(driven) == ["checkpoint-1.ckpt", "checkpoint-2.ckpt"]
    else:
        assert names(driven) == named(driven) == ["checkpoint-1.ckpt"]
    assert driven.get(b"k") == b"w"
    driven.reopen()
    assert driven.items() == {b"k": b"w"}
    assert names(driven) == named(driven)
    driven.kill()


@pytest.mark.parametrize("ending", ["deleted", "expired"])
def test_a_key_that_ended_behind_it_stays_so_although_another_of_its_hash_came_later(
    tmp_path: Path, ending: str
) -> None:
    # The other one did not collide when it came, so its record does not say that there are two keys of this hash.
    first, other = (key_of_hash(hash_of(5, 77), i) for i in range(2))
    driven = Timed(tmp_path / "shard", ROOMY)
    driven.put(first, b"old")
    driven.restart()
    assert named(driven) == ["checkpoint-1.ckpt"]
    if ending == "deleted":
        driven.delete(first)
    else:
        driven.execute(put(first, b"new", flags={TTL: 1_000}))
        driven.time.pass_by(2_000)
        driven.maintain()
    assert driven.count() == 0
    driven.put(other, b"other")
    driven.sync()
    driven.kill()
    driven.open()
    assert named(driven) == ["checkpoint-1.ckpt"]
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    assert driven.items() == {other: b"other"}
    assert driven.get(first) is None
    assert driven.count() == 1
    driven.kill()
