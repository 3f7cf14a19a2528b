"""Taking checkpoints while the shard serves: when, in which steps, and what the figures say.

    slices   copy pages of the KeyDir into a chunk          (_checkpoint.pyx; other activities and requests in between)
    jobs     write the chunk, sync now and then
    Durable  until every record that a copied word points to is on disk
    job      sync file and directory, name it in the manifest, remove the one before

Invariants:
  * the manifest names a checkpoint only when its bytes, its name and the records it speaks of are on disk;
  * while one is under way no compaction is (maintenance.py): so what a later compaction installs was decided with a
    KeyDir that is at least as new as every page;
  * none is taken of a shard that has lost records, or of one that waits for room on a full disk, and one during which
    a keyspace was cleared is given up;
  * none is taken before the words of cleared records are gone (purging.py): a checkpoint that is newer than a clear is
    believed without a look at what was cleared.
Crash: a file that the manifest does not name is removed by recovery; until the edit is durable the last one holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kio.clock import monotonic_s, wall_ms
from kio.log import Log
from kio.segments._checkpoint import Copier
from kio.segments._engine import Engine
from kio.segments.checkpoint import (
    HEADER,
    Contents,
    Named,
    checkpoint_name,
    encode_end,
    encode_header,
    header_crc,
    trailer_crc,
)
from kio.segments.disk import Disk
from kio.segments.jobs import Job
from kio.segments.maintenance import SLICE, Activity, Durable, Steps
from kio.segments.manifest import Manifest, checkpoint_edit

#: What one job writes, unless a single page is longer.
CHUNK_BYTES: Final = 1 << 20
#: A job syncs when so much was written since the last sync, so that none has to wait for much.
SYNC_BYTES: Final = 8 << 20
#: Beside the interval, a checkpoint is due when a start would have so many records to read again, or so many bytes of
#: them, which takes it some tenths of a second each; but so many times the KeyDir's memory have to be written first, so
#: that the log takes more of the disk's time than checkpoints do.
RECORDS_WRITTEN: Final = 1_000_000
BYTES_WRITTEN: Final = 1 << 30
KEYDIRS_WRITTEN: Final = 2
#: What was replayed, or cannot be used any more, is covered by a new checkpoint after this time already.
HURRY_S: Final = 5.0


class Checkpointer:
    """Plans and takes the checkpoints of one shard. Used by the store's thread only.

    Args:
        interval_s: the longest time that changes stay without a checkpoint.
        is_full: tells whether the disk has no room, or the spare (reserve.py) is missing.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        shard: int,
        manifest: Manifest,
        engine: Engine,
        interval_s: float,
        is_full: Callable[[], bool],
    ) -> None:
        # Set once.
        self._disk = disk
        self._directory = directory
        self._shard = shard
        self._manifest = manifest
        self._engine = engine
        self._interval_s = interval_s
        self._is_full = is_full
        self._log = Log(__name__, shard=shard)
        # What was at the start of the last one that was taken, or that the shard was opened with.
        self._version = (0, 0)
        self._bytes = 0
        self._is_stale = False
        self._last_s = monotonic_s()
        self._is_asked = False
        # Figures.
        self._taken = 0
        self._taken_ms = 0
        self._fallbacks = 0
        self._ms_last = 0.0

    def opened(self, replayed_bytes: int, fault: str) -> None:
        """The shard was opened.

        Args:
            replayed_bytes: of the segments whose records had to be looked at beside the checkpoint.
            fault: why the checkpoint was not used; empty when it was, or there was none.
        """
        self._fallbacks += bool(fault)
        self._is_stale = replayed_bytes > 0 or bool(fault)
        self._bytes = -replayed_bytes
        if not self._is_stale:
            self._version = self._current()

    def ask(self) -> None:
        """Take one soon, unless nothing has changed."""
        self._is_asked = True

    def stats(self) -> dict[str, Any]:
        """What control.py lists of checkpoints."""
        named = self._manifest.state.checkpoint
        return {
            "checkpoint_lsn": named.lsn_max if named is not None else 0,
            "checkpoint_bytes": named.size if named is not None else 0,
            "checkpoint_age_s": round(monotonic_s() - self._last_s, 3),
            "checkpoint_ms_last": round(self._ms_last, 3),
            "checkpoint_at_ms": self._taken_ms,
            "checkpoints": self._taken,
            "checkpoint_fallbacks": self._fallbacks,
        }

    def plan(self, now_s: float) -> Activity | None:
        """A checkpoint, when one is due."""
        engine = self._engine
        if engine.has_floors:
            return None
        if not self._may_take():
            self._is_asked = False
            return None
        waited_s = now_s - self._last_s
        due_s = min(self._interval_s, HURRY_S) if self._is_stale or engine.is_shadow_void else self._interval_s
        if waited_s < due_s and not self._is_asked and not self._is_much_written():
            return None
        return Activity("checkpoint", self._steps(now_s))

    def _is_much_written(self) -> bool:
        """Whether what is not covered is much for a start to read, and much beside a checkpoint."""
        named = self._manifest.state.checkpoint
        records = self._engine.lsn - (named.lsn_max if named is not None else 0)
        written = self._engine.bytes_written - self._bytes
        if written < KEYDIRS_WRITTEN * self._engine.keydir.allocated_bytes:
            return False
        return records / RECORDS_WRITTEN + written / BYTES_WRITTEN >= 1

    def take(self) -> None:
        """Take one now, unless nothing has changed, of a shard that is durable and does not serve any more. Blocks.

        What the disk refuses of it costs the next start some time, and no more.
        """
        if self._engine.has_floors or not self._may_take():
            return
        try:
            for step in self._steps(monotonic_s()):
                if isinstance(step, Job):
                    step.run()
        except OSError as error:
            self._log.warning("checkpoint failed", reason=str(error))

    def _may_take(self) -> bool:
        return not (self._engine.suspect_lsn or self._is_full() or self._manifest.has_failed) and self._has_changed()

    def _current(self) -> tuple[int, int]:
        """Changes with every record, and with every segment that a compaction writes."""
        return self._engine.lsn, self._manifest.state.next_id

    def _has_changed(self) -> bool:
        lsn, next_id = self._current()
        return lsn > 0 and (self._is_stale or self._engine.is_shadow_void or (lsn, next_id) != self._version)

    def _steps(self, now_s: float) -> Steps:
        started_s = monotonic_s()
        self._is_asked = False
        version, written = self._current(), self._engine.bytes_written
        named = self._manifest.state.checkpoint
        file = _File(self._disk, self._directory, self._shard, self._manifest, named.id + 1 if named else 1)
        self._is_stale = self._is_stale or self._engine.is_shadow_void
        copier = Copier(self._engine)
        try:
            while not copier.is_done:
                while not copier.copy(CHUNK_BYTES):
                    yield SLICE
                if copier.is_void:
                    return False
                yield from file.run(_WriteJob(file, copier))
                copier.clear()
            contents = Contents(*copier.contents())
            yield Durable(contents.lsn_max)
            if copier.is_void:
                return False
            yield from file.run(_InstallJob(file, contents))
        finally:
            copier.close()
            file.close()
        self._version, self._bytes = version, written
        self._is_stale = False
        self._last_s = now_s
        self._taken += 1
        self._taken_ms = wall_ms()
        self._ms_last = (monotonic_s() - started_s) * 1000
        self._log.info(
            "checkpoint", keys=contents.words, lsn=contents.lsn_max, bytes=file.size, took_ms=round(self._ms_last)
        )
        return True


class _File:
    """The file of a checkpoint that is being written. Jobs use it one after the other; `close` when none does."""

    def __init__(self, disk: Disk, directory: Path, shard: int, manifest: Manifest, checkpoint: int) -> None:
        # Set once.
        self._disk = disk
        self._directory = directory
        self._manifest = manifest
        self._id = checkpoint
        self._path = directory / checkpoint_name(checkpoint)
        self._header = encode_header(shard, checkpoint, manifest.directory_id)
        self.seed = header_crc(self._header)
        # Changed by the jobs.
        self._fd = -1
        self._unsynced = 0
        self._may_be_named = False
        self.size = 0

    def run(self, job: Job) -> Iterator[Job]:
        """The step that waits for `job`.

        Raises:
            OSError: when the disk refused what the job did.
        """
        yield job
        job.check()

    def write(self, data: bytes | memoryview) -> None:
        """Append to the file, which is made at the first call."""
        if self._fd < 0:
            self._fd = self._create()
            self._append(self._header)
        self._append(data)
        if self._unsynced >= SYNC_BYTES:
            self._disk.sync_data(self._fd)
            self._unsynced = 0

    def _create(self) -> int:
        try:
            return self._disk.create(self._path)
        except FileExistsError:
            # Of a try that failed, and could not be removed then; no edit names this id.
            self._disk.unlink(self._path)
            return self._disk.create(self._path)

    def install(self, contents: Contents) -> None:
        """Complete the file, make it durable, and name it instead of the one before."""
        end = encode_end(self.seed, self.size, contents)
        self._append(end)
        self._disk.sync(self._fd)
        self._disk.sync_directory(self._directory)
        before = self._manifest.state.checkpoint
        named = Named(self._id, contents.lsn_max, self.size, trailer_crc(end))
        try:
            self._manifest.append(checkpoint_edit(named))
        except OSError:
            self._may_be_named = self._manifest.has_failed
            raise
        self._may_be_named = True
        if before is not None:
            with suppress(OSError):  # else the next recovery removes it
                self._disk.unlink(self._directory / checkpoint_name(before.id))

    def close(self) -> None:
        """Give the descriptor up; remove the file, unless the manifest may name it."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(OSError):  # what matters was synced
            self._disk.close(fd)
        if not self._may_be_named:
            with suppress(OSError):  # else the next recovery removes it
                self._disk.unlink(self._path)

    def _append(self, data: bytes | memoryview) -> None:
        self._disk.write(self._fd, data, self.size)
        self.size += len(data)
        self._unsynced += len(data)


class _WriteJob(Job):
    """Write one chunk of pages."""

    kind = "checkpoint"

    def __init__(self, file: _File, copier: Copier) -> None:
        super().__init__()
        self._file = file
        self._copier = copier

    def _work(self) -> None:
        self._file.write(self._copier.seal(self._file.seed))


class _InstallJob(Job):
    """Make the checkpoint the one that recovery begins with."""

    kind = "checkpoint"

    def __init__(self, file: _File, contents: Contents) -> None:
        super().__init__()
        self._file = file
        self._contents = contents

    def _work(self) -> None:
        self._file.install(self._contents)


assert HEADER.size < CHUNK_BYTES
