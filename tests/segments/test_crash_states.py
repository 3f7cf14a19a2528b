"""Every crash state of a shard's history is right, and each of six bugs that were put in on purpose is found.

A history that fails is repeated with the same mode, seed and segment size: all chance comes from them.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from kio.segments import _engine, checkpointing, copying, jobs, manifest, sealing
from kio.segments.disk import Disk
from kio.segments.maintenance import SLICE
from kio.segments.recovery import Recovery
from kio.segments.segment import Segment, segment_name
from kio.segments.store import StoreOptions
from tests.segments.crash_history import History
from tests.segments.crash_states import FATES, HEADER_UNCHECKED, CrashStates, Fate
from tests.segments.faulty_disk import FaultyDisk

MODES: Final = ["always", "interval"]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: nothing here needs a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="kio-crash-", dir=memory if memory.is_dir() else tmp_path) as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def _small_manifest_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The manifest is written anew often; thousands of recoveries log nothing."""
    monkeypatch.setattr(manifest, "REWRITE_BYTES", 1500)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def enumerate_states(
    path: Path,
    sync: str,
    seed: int,
    *,
    steps: int = 40,
    segment_bytes: int = 600,
    disk: FaultyDisk | None = None,
    **how: Any,
) -> tuple[CrashStates, History]:
    """The states of one history, judged."""
    disk = disk or FaultyDisk()
    options = StoreOptions(segment_bytes=segment_bytes, open_segments=3, sync=sync, checkpoint_interval_s=1.0)
    history = History(path / "shard", options, disk, seed)
    states = CrashStates(path, options, history, **how)
    states.watch(disk, path / "shard")
    try:
        history.run(steps)
    finally:
        disk.on_change = None
        history.driven.kill()
    return states, history


# ---- all is well ----


@pytest.mark.parametrize(("segment_bytes", "share"), [(600, 0.04), (9000, 0.12)])
@pytest.mark.parametrize("sync", MODES)
def test_whatever_a_crash_leaves_is_a_prefix_and_holds_what_was_promised(
    room: Path, sync: str, segment_bytes: int, share: float
) -> None:
    states, _ = enumerate_states(room, sync, 1, segment_bytes=segment_bytes, share=share)
    assert states.violations == []
    assert states.states >= 50


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_thousands_of_crash_states_are_right(room: Path) -> None:
    wanted = 50_000 if os.environ.get("FULL") else 5_000
    share = 0.3 if os.environ.get("FULL") else 0.15
    total = moments = suspects = seed = 0
    while total < wanted:
        for sync in MODES:
            for segment_bytes in (400, 1024, 9000):
                seed += 1
                path = room / str(seed)
                path.mkdir()
                states, history = enumerate_states(path, sync, seed, steps=60, segment_bytes=segment_bytes, share=share)
                assert states.violations == [], (sync, seed, segment_bytes)
                assert {"_execute", "_sync"} <= history.done.keys()
                total, moments = total + states.states, moments + states.moments
                suspects += states.suspects
    print(f"{total} crash states of {moments} moments were right; {suspects} of them called records damaged")


# ---- the six bugs, and a few more ----


class WithoutDirectorySync(FaultyDisk):
    """Names are never made durable."""

    def sync_directory(self, path: Path) -> None:
        pass


class UnlinksFirst(FaultyDisk):
    """Makes room for the new file by removing the old one, instead of renaming over it."""

    def rename(self, source: Path, target: Path) -> None:
        if target.exists():
            self.unlink(target)
        super().rename(source, target)


class Unsynced:
    """Another disk, without its fsync."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def sync(self, fd: int) -> None:
        pass


def fates(*names: str) -> tuple[Fate, ...]:
    """Those of FATES that this bug shows itself with: the others only take time."""
    return tuple(fate for fate in FATES if fate.name in names)


def found(path: Path, sync: str, *, disk: FaultyDisk | None = None, chosen: tuple[Fate, ...] = FATES) -> str:
    """The first violation that a few histories show."""
    for seed in range(1, 7):
        work = path / str(seed)
        work.mkdir()
        states, _ = enumerate_states(
            work, sync, seed, disk=disk and type(disk)(), fates=chosen, share=0.3, nested=0.0, stops_early=True
        )
        if states.violations:
            return states.violations[0]
    return ""


def test_a_missing_sync_of_the_directory_is_found(room: Path) -> None:
    violation = found(room, "always", disk=WithoutDirectorySync())
    assert "opening raised Corrupt" in violation
    assert "is missing" in violation


def test_an_unlink_before_the_rename_is_found(room: Path) -> None:
    violation = found(room, "interval", disk=UnlinksFirst(), chosen=fates("all"))
    assert "the manifest of shard 0 is missing" in violation


def test_an_acknowledgement_before_the_fsync_is_found(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine.Engine
    monkeypatch.setattr(_engine, "Engine", lambda *args, parks, **rest: engine(*args, parks=False, **rest))
    assert "were right" in found(room, "always")


def test_a_manifest_that_names_a_compaction_s_output_before_it_is_on_disk_is_found(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_end: Callable[..., Any] = sealing.write_end
    monkeypatch.setattr(copying, "write_end", lambda disk, *rest: write_end(Unsynced(disk), *rest))
    assert found(room, "always", chosen=fates("none", "names, no bytes")) != ""


def test_a_manifest_that_calls_records_durable_which_are_not_is_found(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.SyncJob, "_work", lambda self: None)
    assert "were right" in found(room, "interval")


def test_a_checkpoint_of_records_that_are_not_on_disk_is_found(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "Durable", lambda lsn: SLICE)
    assert found(room, "interval", chosen=fates("none", "names, no bytes")) != ""


def test_a_segment_that_is_unlinked_before_the_edit_that_drops_it_is_found(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = copying.InstallJob._work

    def unlinks_first(job: copying.InstallJob) -> None:
        for number in job._drops:
            job._disk.unlink(job._manifest.path.with_name(segment_name(number)))
        install(job)

    monkeypatch.setattr(copying.InstallJob, "_work", unlinks_first)
    monkeypatch.setattr(copying.RemoveJob, "_work", lambda job: None)
    assert "is missing" in found(room, "always", chosen=fates("all"))


def test_a_recovery_that_a_second_one_does_not_repeat_is_found(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_edit(recovery: Recovery, segment: Segment, scan: Any) -> None:
        segment.close(recovery._disk)
        recovery._disk.rename(segment.path, segment.path.with_name(segment.path.name + ".aside"))

    monkeypatch.setattr(Recovery, "_set_aside", forgets_the_edit)
    assert "is missing" in found(room, "interval", chosen=fates("some files"))


def test_a_checksum_that_leaves_the_header_out_is_found(room: Path) -> None:
    assert found(room, "interval", chosen=(HEADER_UNCHECKED,)) != ""
