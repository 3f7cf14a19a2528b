"""One shard's store: executes batches, writes what they append, and keeps the log in order.

Owns: the shard directory (locked), the manifest, the segments and the engine over them. Used by one thread; what may
take long is handed out as jobs (jobs.py), whose outcome only `finish` brings in.

The life of a segment:  prepared -> active -> sealing -> sealed
    prepared   made ahead by a job when the active one is an eighth full; in the manifest, empty
    active     takes every new record, in one order
    sealing    takes none; its records are synced like the active one's; then a job writes hints and footer
    sealed     immutable

Invariants:
  * when `execute` returns, every write it acknowledged stands in the page cache: a killed process loses none;
  * an LSN counts as durable only after an fdatasync that began after its write, and only if every earlier one
    succeeded;
  * a write that the disk refuses leaves no trace in KeyDir or log; its batch is executed again with writes refused;
  * after a failed sync, or a failed write that cannot be taken back, the store is read-only until it is opened anew,
    and what was not durable is not served.
Crash: recovery.py says what each moment leaves.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from kio import opbatch, wire
from kio.errors import BadRequest, DiskFull, KioError, Overloaded, ShardReadOnly
from kio.limits import KEY_BYTES_MAX, MIB, OPEN_SEGMENTS, SEGMENT_BYTES_CEILING, SEGMENTS_PER_SHARD_MAX, VALUE_BYTES_MAX
from kio.log import Log
from kio.segments import _engine, _hints, _scan
from kio.segments.disk import DISK, Disk, lock_file
from kio.segments.identity import DirectoryIdentity
from kio.segments.jobs import Job, PrepareJob, SealJob, SyncJob
from kio.segments.manifest import Manifest
from kio.segments.recovery import Recovery
from kio.segments.segment import RECORDS_START, Descriptors, Segment, make_segment, new_entry

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_U64: Final = struct.Struct("<Q")
_I64: Final = struct.Struct("<q")


@dataclass(frozen=True)
class StoreOptions:
    """How a store behaves; none of it is written to disk."""

    #: A segment is sealed when the next record would pass this many bytes; a longer record gets a segment of its own.
    segment_bytes: int = 128 * MIB
    #: Cached descriptors of sealed segments.
    open_segments: int = OPEN_SEGMENTS
    value_bytes_max: int = VALUE_BYTES_MAX
    #: "always" parks what is not durable; the other two answer at once.
    sync: str = "interval"


class Executed(NamedTuple):
    """The replies of a batch, as messages (opbatch.py); b"" where there is none."""

    #: May leave at once.
    replies: bytes
    #: Must not leave before `durable_lsn` has reached `parked_lsn`.
    parked: bytes
    parked_lsn: int


class Store:
    """An open shard. Made by `Store.open`."""

    def __init__(
        self, path: Path, identity: DirectoryIdentity, shard: int, options: StoreOptions, disk: Disk = DISK
    ) -> None:
        """For `open`, which says what is raised."""
        # Set once.
        self.path = path
        self.shard = shard
        self._identity = identity
        self._options = options
        self._disk = disk
        self._log = Log(__name__, shard=shard)
        self._lock = lock_file(path / "LOCK")
        # Owned by the store's thread.
        self._segments: dict[int, Segment] = {}
        self._free_slots = list(range(SEGMENTS_PER_SHARD_MAX, 0, -1))
        self._sealing: list[Segment] = []
        self._prepared: Segment | None = None
        self._running: dict[str, Job] = {}
        self._finished: set[int] = set()
        self._read_only_reason = ""
        self._syncs = 0
        self._sync_ms_last = 0.0
        self.unsynced_bytes = 0
        self._descriptors = Descriptors(disk, options.open_segments)
        try:
            self._manifest = Manifest.load(path, shard, identity.directory_id, disk)
            self._engine = _engine.Engine(
                shard, identity.seed, value_bytes_max=options.value_bytes_max, parks=options.sync == "always"
            )
            self._recover()
        except BaseException:
            self._abandon()
            raise

    @classmethod
    def open(
        cls, path: Path, identity: DirectoryIdentity, shard: int, options: StoreOptions, disk: Disk = DISK
    ) -> Store:
        """Lock the shard directory, recover, and begin a new active segment.

        Raises:
            DirectoryInUse: when another process has the shard.
            Corrupt: when it cannot be served; the message says what to do.
            FormatTooNew: when a newer kio wrote it; nothing was modified.
            OSError: when the disk refuses.
        Cost: reads the hints of sealed segments and the records of those never sealed; a handful of fsyncs.
        """
        return cls(path, identity, shard, options, disk)

    # ---- serving ----

    @property
    def lsn(self) -> int:
        """The last LSN issued."""
        return self._engine.lsn

    @property
    def durable_lsn(self) -> int:
        """Everything up to it is on disk."""
        return self._engine.durable_lsn

    @property
    def is_read_only(self) -> bool:
        """Whether the disk failed this shard: it takes no write until it is opened anew."""
        return bool(self._read_only_reason)

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._running)

    def execute(self, batch: bytes) -> Executed:
        """Execute an op batch. What a client can cause becomes a reply's status.

        Raises:
            ProtocolError: when the message is not a whole batch.
        Cost: one write when anything was appended; no fsync, unless a segment has to be made because none is prepared.
        """
        engine = self._engine
        now = opbatch.monotonic_ms()
        engine.begin(batch)
        while True:
            try:
                stopped = engine.run(now)
            except MemoryError as error:
                engine.rollback()
                engine.refuse(Overloaded.code, str(error))
                continue
            if not self._write_staged():
                continue
            if stopped == _engine.DONE_RUNNING:
                break
            if stopped == _engine.RARE_OPERATION:
                self._execute_rare()
            else:
                self._rotate(engine.needed_bytes)
        if not self._read_only_reason:
            engine.refuse(0)
        replies, parked = engine.take_replies()
        return Executed(replies, parked, engine.lsn)

    def _write_staged(self) -> bool:
        """Write what was appended; when the disk refuses, take it back and refuse the batch's writes: False."""
        engine = self._engine
        staged = engine.staged()
        if staged is None:
            return True
        active = self._active
        try:
            self._disk.write(active.fd, staged, engine.written)
        except OSError as error:
            del staged
            engine.rollback()
            self._refuse_after(error)
            self._erase_behind(engine.tail)
            return False
        self.unsynced_bytes += len(staged)
        active.is_synced = False
        del staged
        engine.wrote()
        return True

    def _erase_behind(self, tail: int) -> None:
        """A write that failed may have left whole records behind the tail: they must not come back at recovery."""
        try:
            self._disk.truncate(self._active.fd, tail)
            self._disk.truncate(self._active.fd, self._active.capacity)
        except OSError as error:
            self._become_read_only(f"a failed write could not be taken back: {error}")

    def _refuse_after(self, error: OSError) -> None:
        if error.errno in _FULL:
            self._engine.refuse(DiskFull.code, f"no room for shard {self.shard} on the disk; nothing was applied")
            self._log.warning("write refused", reason=error.strerror)
        else:
            self._become_read_only(f"a write failed: {error}")

    def _become_read_only(self, reason: str) -> None:
        if not self._read_only_reason:
            self._read_only_reason = reason
            self._log.error("read-only", reason=reason, lsn=self.lsn, durable_lsn=self.durable_lsn, run="kio status")
        self._engine.refuse(
            ShardReadOnly.code,
            f'shard {self.shard} is read-only: {reason}; mend the disk, then restart kio and run "kio check"',
        )

    # ---- rare operations ----

    def _execute_rare(self) -> None:
        op, keyspace, value = self._engine.rare()
        try:
            if op == wire.OP_COUNT:
                self._engine.reply(opbatch.NUMBER, _I64.pack(self._engine.count_keys(keyspace)))
            elif op == wire.OP_CLEAR:
                self._clear(keyspace)
            elif op == wire.OP_SCAN:
                self._scan(keyspace, value)
            elif op == wire.OP_STATS:
                self._engine.reply(opbatch.VALUE, msgpack.packb(self.stats()))
            else:
                raise BadRequest(f"a shard does not know operation {op}")
        except KioError as error:
            self._engine.reply(error.code, str(error).encode())

    def _clear(self, keyspace: int) -> None:
        engine = self._engine
        if self._read_only_reason:
            raise ShardReadOnly(self._read_only_reason)
        if not engine.stage_clear(keyspace):
            self._rotate(RECORDS_START)
            if not engine.stage_clear(keyspace):
                raise DiskFull(f"no room for shard {self.shard} on the disk; nothing was applied")
        if not self._write_staged():
            if self._read_only_reason:
                raise ShardReadOnly(self._read_only_reason)
            raise DiskFull(f"no room for shard {self.shard} on the disk; nothing was applied")
        is_alone = engine.count_keys(keyspace) == engine.count_keys()
        if not is_alone:
            _scan.remove_keyspace(engine, keyspace)
        engine.reply(opbatch.NUMBER, _I64.pack(engine.forget(keyspace, is_alone)))

    def _scan(self, keyspace: int, value: bytes) -> None:
        if len(value) < opbatch.SCAN_ARGUMENTS.size:
            raise BadRequest("a scan needs cursor, limit and what")
        cursor, limit, what = opbatch.SCAN_ARGUMENTS.unpack_from(value)
        prefix = value[opbatch.SCAN_ARGUMENTS.size :]
        following, page = _scan.scan(self._engine, cursor, limit, what == wire.SCAN_ITEMS, prefix, keyspace)
        self._engine.reply(opbatch.VALUE, _U64.pack(following) + page)

    # ---- segments ----

    def _attach(self, segment: Segment, record_bytes: int, live_bytes: int) -> None:
        if not segment.slot:
            segment.slot = self._free_slots.pop()
        self._engine.attach(
            segment.slot, segment.id, segment.mapping, segment.end, segment.crc_seed, record_bytes, live_bytes
        )
        self._segments[segment.id] = segment

    def _activate(self, segment: Segment) -> None:
        self._attach(segment, 0, 0)
        self._engine.activate(segment.slot, segment.capacity, segment.epoch)
        self._active = segment

    def _rotate(self, needed_bytes: int) -> None:
        """Begin the next active segment, with room for `needed_bytes` of record; where that fails, refuse writes."""
        try:
            following = self._take_prepared(RECORDS_START + needed_bytes)
        except OSError as error:
            self._refuse_after(error)
            return
        old = self._active
        old.end, _, _ = self._engine.usage(old.slot)
        old.lsn_last = self._engine.lsn
        if old.end == RECORDS_START:
            self._engine.detach(old.slot)
            self._free_slots.append(old.slot)
            del self._segments[old.id]
            self._drop_empty(old)
        else:
            self._sealing.append(old)
        self._activate(following)

    def _take_prepared(self, capacity_min: int) -> Segment:
        """The next segment: the one prepared ahead, or one made now."""
        job = self._running.get("prepare")
        if job is not None:
            job.run()
            self.finish(job)
        segment, self._prepared = self._prepared, None
        if segment is None:
            return self._make_segment(max(self._options.segment_bytes, capacity_min))
        if segment.capacity < capacity_min:
            segment.grow(self._disk, capacity_min)
        return segment

    def _make_segment(self, capacity: int) -> Segment:
        manifest = self._manifest
        entry = new_entry(manifest.state.next_id, self._epoch)
        segment = make_segment(self._disk, self.path, self.shard, self._identity.directory_id, entry, capacity)
        manifest.append({"t": "create", "id": entry.id, "salt": entry.salt, "epoch": entry.epoch})
        return segment

    def _drop_empty(self, segment: Segment) -> None:
        segment.close(self._disk)
        self._manifest.append({"t": "drop", "id": segment.id})
        self._disk.unlink(segment.path)

    # ---- jobs ----

    def sync_job(self) -> Job | None:
        """What makes every record up to `lsn` durable; None when all are, one is under way, or it is read-only."""
        if "sync" in self._running or self._read_only_reason:
            return None
        segments = [s for s in [*self._sealing, self._active] if not s.is_synced]
        if not segments:
            return None
        for segment in segments:
            # What is written from now on makes it unsynced again.
            segment.is_synced = True
        self._engine.sync_started()
        job = SyncJob(self._disk, segments, self._engine.lsn, self.unsynced_bytes)
        self._running["sync"] = job
        return job

    def background_job(self) -> Job | None:
        """The seal or preparation that waits; None when nothing waits or one is under way."""
        if self._read_only_reason or self._running.keys() & {"seal", "prepare"}:
            return None
        job: Job
        if self._prepared is None and self._engine.tail * 8 > self._active.capacity:
            manifest = self._manifest
            entry = new_entry(manifest.state.next_id, self._epoch)
            job = PrepareJob(self._disk, self.path, self.shard, manifest, entry, self._options.segment_bytes)
        elif self._sealing and self._options.sync == "os" and not self._sealing[0].is_synced:
            # Without syncs of its own, this mode makes a segment durable when it is sealed.
            return self.sync_job()
        elif self._sealing and self._sealing[0].is_synced and self._sealing[0].lsn_last <= self.durable_lsn:
            job = self._seal_job(self._sealing[0])
        else:
            return None
        self._running[job.kind] = job
        return job

    def _seal_job(self, segment: Segment) -> SealJob:
        _, record_bytes, live_bytes = self._engine.usage(segment.slot)
        dead_bytes = record_bytes - live_bytes
        return SealJob(self._disk, self.shard, self._identity.seed, self._manifest, segment, live_bytes, dead_bytes)

    def finish(self, job: Job) -> None:
        """Take over the outcome of a job that has run. A second call for the same job changes nothing."""
        if self._running.get(job.kind) is not job:
            return
        del self._running[job.kind]
        if isinstance(job, SyncJob):
            self._finish_sync(job)
        elif isinstance(job, PrepareJob):
            self._prepared = job.segment
            if job.error is not None:
                self._log.warning("prepare failed", reason=str(job.error))
        elif isinstance(job, SealJob):
            self._finish_seal(job)

    def _finish_sync(self, job: SyncJob) -> None:
        if job.error is not None:
            for segment in job.segments:
                segment.is_synced = False
            self._engine.served_lsn_max = self.durable_lsn
            self._become_read_only(f"a sync failed: {job.error}")
            return
        self._syncs += 1
        self._sync_ms_last = job.took_ms
        self.unsynced_bytes -= job.unsynced_bytes
        self._engine.sync_finished(job.lsn)

    def _finish_seal(self, job: SealJob) -> None:
        if job.error is not None:
            # The records are safe; without a footer the next recovery scans them.
            self._sealing.remove(job.segment)
            self._log.error("seal failed", segment=job.segment.id, reason=str(job.error), run="kio check")
            return
        assert job.entry is not None
        self._sealing.remove(job.segment)
        self._descriptors.keep(job.segment.path, job.segment.fd)
        job.segment.fd = -1
        entry = job.entry
        self._log.info("seal", segment=entry.id, records=entry.records, bytes=entry.size, took_ms=round(job.took_ms))

    # ---- opening and closing ----

    def _recover(self) -> None:
        engine = self._engine
        recovered = Recovery(self.path, self._identity, self.shard, self._manifest, self._disk, self._descriptors).run()
        for source in recovered.sources:
            source.segment.slot = self._free_slots.pop()
        rebuilt = _hints.rebuild(
            engine.keydir, [(s.segment.slot, s.hints, s.segment.mapping) for s in recovered.sources], recovered.floors
        )
        for source, live_bytes in zip(recovered.sources, rebuilt.live_bytes, strict=True):
            self._attach(source.segment, source.record_bytes, live_bytes)
            if not source.is_sealed:
                self._sealing.append(source.segment)
        engine.set_keys(rebuilt.keys)
        engine.suspect_lsn = recovered.suspect_lsn
        engine.start_at(recovered.lsn, recovered.lsn)
        self._epoch = recovered.epoch if recovered.was_clean else recovered.epoch + 1
        self._manifest.append({"t": "open"}, {"t": "epoch", "epoch": self._epoch})
        self._activate(self._make_segment(self._options.segment_bytes))
        self._active.is_synced = True
        self._log.info(
            "open",
            keys=engine.count_keys(),
            segments=len(recovered.sources),
            scanned=len(self._sealing) + recovered.scanned_sealed,
            lsn=recovered.lsn,
            epoch=self._epoch,
            clean=recovered.was_clean,
        )

    def close(self) -> None:
        """Stop cleanly: all durable, every segment sealed, the lock released. Blocks.

        Where the disk refuses, what it refused is left to the next recovery; the lock is released all the same.
        """
        try:
            self._finish_running()
            if not self._read_only_reason:
                self._seal_all()
        finally:
            self._abandon()

    def _finish_running(self) -> None:
        for job in list(self._running.values()):
            job.run()
            self.finish(job)

    def _seal_all(self) -> None:
        active = self._active
        active.end, _, _ = self._engine.usage(active.slot)
        active.lsn_last = self._engine.lsn
        if active.end > RECORDS_START:
            self._sealing.append(active)
        self._run_inline(self.sync_job())
        for segment in list(self._sealing):
            if self._read_only_reason:
                return
            self._running["seal"] = job = self._seal_job(segment)
            self._run_inline(job)
        if active.end == RECORDS_START:
            self._drop_empty(active)
        if self._prepared is not None:
            self._drop_empty(self._prepared)
            self._prepared = None
        if not self._read_only_reason and not self._sealing:
            self._manifest.append({"t": "close", "epoch": self._epoch, "lsn": self.lsn})

    def _run_inline(self, job: Job | None) -> None:
        if job is not None:
            job.run()
            self.finish(job)

    def _abandon(self) -> None:
        """Give up every descriptor and the lock."""
        for segment in self._open_for_writing():
            segment.close(self._disk)
        self._descriptors.close()
        if hasattr(self, "_manifest"):
            self._manifest.close()
        self._lock.release()

    def _open_for_writing(self) -> Iterable[Segment]:
        yield from self._segments.values()
        if self._prepared is not None:
            yield self._prepared

    # ---- figures ----

    def stats(self) -> dict[str, Any]:
        """What control.py lists for a shard, as far as the store knows it."""
        engine = self._engine
        record_bytes = live_bytes = 0
        for segment in self._segments.values():
            _, records, live = engine.usage(segment.slot)
            record_bytes += records
            live_bytes += live
        state = self._manifest.state
        return {
            "state": "read-only" if self._read_only_reason else "serving",
            "reason": self._read_only_reason,
            "keys": engine.count_keys(),
            "live_bytes": live_bytes,
            "dead_bytes": record_bytes - live_bytes,
            "disk_bytes": sum(s.size or self._options.segment_bytes for s in state.segments.values()),
            "segments": len(self._segments),
            "lsn": engine.lsn,
            "durable_lsn": engine.durable_lsn,
            "epoch": self._epoch,
            "keydir_bytes": engine.keydir.allocated_bytes,
            "gets": engine.gets,
            "hits": engine.hits,
            "misses": engine.misses,
            "sets": engine.sets,
            "deletes": engine.deletes,
            "errors": engine.errors,
            "bytes_read": engine.bytes_read,
            "bytes_written": engine.bytes_written,
            "syncs": self._syncs,
            "sync_ms_last": round(self._sync_ms_last, 3),
            "unsynced_bytes": self.unsynced_bytes,
        }


assert RECORDS_START + KEY_BYTES_MAX + VALUE_BYTES_MAX < SEGMENT_BYTES_CEILING
