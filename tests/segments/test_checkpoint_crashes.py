"""A process that dies, or a power cut, at each call of the disk that a checkpoint makes: the next start finds all.

Rule 6 (a checkpoint never refers to bytes that are not on disk) and rule 9 (recovery gives the same state twice).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kio.segments import checkpointing
from kio.segments.options import StoreOptions
from tests.segments.faulty_disk import CarelessDisk, Died, FaultyDisk
from tests.segments.opened import checkpoints_in, held_by
from tests.segments.support import Driven, unopened
from tests.segments.test_recovery import manifest_of

OPTIONS = StoreOptions(segment_bytes=4096, sync="interval", checkpoint_interval_s=50.0)
State = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "CHUNK_BYTES", 3000)
    monkeypatch.setattr(checkpointing, "SYNC_BYTES", 6000)


#: How many power cuts are tried at each moment. Each file keeps a prefix of what was not synced: any subset of a
#: segment's writes may look like rot (test_model.py), and is not a checkpoint's business.
CUTS = 4


class DyingDisk(FaultyDisk):
    """Keeps what stands in `watched` at the moment at which it lets the process die, before anybody cleans up.

    KEPT/shard is what the page cache has, KEPT/cut.N what a power cut might leave of it.
    """

    def __init__(self, watched: Path, kept: Path) -> None:
        super().__init__()
        self._watched = watched
        self._kept = kept

    def _enter(self, kind: str):  # type: ignore[no-untyped-def]
        fault = super()._enter(kind)
        if fault is not None and fault.error is None:
            shutil.copytree(self._watched, self._kept / "shard")
            for cut in range(CUTS):
                dice = random.Random(f"{self.calls['any']}.{cut}")
                self.power_cut(self._watched, self._kept / f"cut.{cut}", dice, in_order=True)
        return fault


class Shard:
    """A shard with one checkpoint and writes behind it, all durable but the last; `states` is what it held, by LSN."""

    def __init__(self, root: Path) -> None:
        self.kept = root / "kept"
        self.disk = DyingDisk(root / "live", self.kept)
        self.driven = Driven(root / "live", OPTIONS, self.disk)
        self.now_s = self.driven.store._checkpointer._last_s
        self.states: list[State] = [{}]
        for i in range(60):
            self.put(b"key %d" % (i % 40), b"%d" % i * 20)
            if i % 10 == 0:
                self.driven.run_jobs()
        self.checkpoint()
        for i in range(30):
            self.put(b"key %d" % (i % 50), b"again %d" % i * 10)
            if i % 10 == 0:
                self.driven.run_jobs()

    def put(self, key: bytes, value: bytes) -> None:
        self.driven.put(key, value)
        self.states.append(self.states[-1] | {key: value})

    def checkpoint(self) -> None:
        """Take one, with a write between its steps."""
        self.now_s += 60
        store = self.driven.store
        while store.maintain(self.now_s) or store._maintenance.name:
            if len(self.states) % 3 == 0:
                self.put(b"meanwhile", b"%d" % len(self.states))
            job = store.background_job() or store.sync_job()
            if job is not None:
                job.run()
                store.finish(job)

    def stop(self) -> None:
        self.driven.store.close()


def deaths(root: Path, act: Callable[[Shard], None]) -> list[Shard]:
    """The shard as it was when it died at the first, second, ... call of the disk that `act` makes."""
    found = []
    nth = 0
    while True:
        nth += 1
        shard = Shard(root / str(nth))
        shard.disk.die("any", nth, part=0.5)
        try:
            act(shard)
        except Died:
            found.append(shard)
        shard.disk.heal()
        with suppress(OSError):  # a stop has given up the lock by itself
            shard.driven.kill()
        if len(found) < nth:
            return found


@pytest.mark.parametrize("act", [Shard.checkpoint, Shard.stop], ids=["serving", "stopping"])
def test_a_process_that_dies_at_any_call_leaves_a_shard_that_opens_whole(
    tmp_path: Path, act: Callable[[Shard], None]
) -> None:
    names: set[tuple[int, ...]] = set()
    found = deaths(tmp_path, act)
    assert len(found) > 15
    for shard in found:
        path = shard.kept / "shard"
        names.add(tuple(int(file.stem.split("-")[1]) for file in checkpoints_in(path)))
        driven = unopened(path, OPTIONS, CarelessDisk()).open()
        assert driven.items() == shard.states[driven.store.lsn] == shard.states[-1]
        assert driven.store.stats()["checkpoint_fallbacks"] == 0
        # Whatever the crash left, one is named, and no other is there.
        named = manifest_of(driven).state.checkpoint
        assert named is not None
        assert [file.name for file in checkpoints_in(path)] == [f"checkpoint-{named.id}.ckpt"]
        held = held_by(driven)
        driven.reopen()
        assert held_by(driven) == held
        driven.restart()
        assert driven.items() == shard.states[-1]
        driven.kill()
    # With the last one only, with both, with the new one only: each moment was met.
    assert names >= {(1,), (1, 2), (2,)}


def test_a_power_cut_at_any_call_never_leaves_a_checkpoint_ahead_of_its_records(tmp_path: Path) -> None:
    used = 0
    for shard in deaths(tmp_path, Shard.checkpoint):
        for cut in range(CUTS):
            disk = CarelessDisk()
            disk.boot_id = lambda: "another"  # type: ignore[method-assign]
            driven = unopened(shard.kept / f"cut.{cut}", OPTIONS, disk).open()
            named = manifest_of(driven).state.checkpoint
            assert named is not None
            assert named.lsn_max <= driven.store.lsn
            assert driven.store.stats()["checkpoint_fallbacks"] == 0
            assert driven.items() == shard.states[driven.store.lsn]
            used += named.id == 2
            driven.kill()
    assert used > 0


def test_recovery_gives_the_same_state_twice(tmp_path: Path) -> None:
    shard = Shard(tmp_path)
    shard.driven.kill()
    copies = [tmp_path / "once", tmp_path / "again"]
    for copy in copies:
        shutil.copytree(shard.driven.path, copy)
    once = unopened(copies[0], OPTIONS, CarelessDisk()).open()
    first = held_by(once)
    for _ in range(3):
        once.reopen()
        assert held_by(once) == first
        assert once.items() == shard.states[-1]
    # Another directory, the same start: the same words at the same places.
    again = unopened(copies[1], OPTIONS, CarelessDisk()).open()
    assert held_by(again) == first
    once.kill()
    again.kill()
