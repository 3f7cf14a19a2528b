"""One shard's store: executes batches and writes what they append.

Owns: the shard directory (locked), the manifest, the engine and the chain of segments under it (chain.py). Used by one
thread; what may take long is handed out as jobs.

Invariants:
  * when `execute` returns, every write it acknowledged stands in the page cache: a killed process loses none;
  * a write that the disk refuses leaves no trace in KeyDir or log; its batch is executed again with writes refused;
  * after a failed sync, or a failed write that cannot be taken back, the store is read-only until it is opened anew,
    and what was not durable is not served; a manifest that takes no more edits makes it read-only too.
Crash: recovery.py says what each moment leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from kio import opbatch
from kio.errors import DiskFull, Overloaded, ShardReadOnly
from kio.limits import KEY_BYTES_MAX, SEGMENT_BYTES_CEILING, VALUE_BYTES_MAX
from kio.log import Log, Repeats
from kio.segments import _engine, point
from kio.segments.chain import SegmentChain
from kio.segments.checkpointing import Checkpointer
from kio.segments.clock import ShardClock
from kio.segments.compaction import Compaction
from kio.segments.disk import DISK, Disk, UnchangingDisk, lock_file
from kio.segments.expiry import Sweeper
from kio.segments.identity import DirectoryIdentity
from kio.segments.jobs import Job
from kio.segments.maintenance import Maintenance, Planner
from kio.segments.manifest import Manifest
from kio.segments.opening import fill_keydir
from kio.segments.options import StoreOptions
from kio.segments.purging import Purger
from kio.segments.rare import RareOperations
from kio.segments.recovery import Recovery
from kio.segments.reserve import is_full
from kio.segments.rewrite import Parts
from kio.segments.segment import RECORDS_START, Descriptors

#: Whether compaction keeps up with the writes is looked at when so much was written.
LOOK_BYTES: Final = 1 << 20
#: What the engine counts, as `stats` tells it.
_COUNTED: Final = (
    *("gets", "hits", "misses", "sets", "deletes", "expired", "errors", "refused", "bytes_read", "bytes_written"),
)


class Executed(NamedTuple):
    """Replies of a batch, as messages (opbatch.py); b"" where there is none."""

    #: May leave at once.
    replies: bytes
    #: Must not leave before `durable_lsn` has reached `parked_lsn`.
    parked: bytes
    parked_lsn: int
    #: The batch is not at its end: to be sent before `go_on`, which must be called before anything else is executed.
    is_cut: bool


class Store:
    """An open shard. Made by `Store.open`."""

    def __init__(
        self,
        path: Path,
        identity: DirectoryIdentity,
        shard: int,
        options: StoreOptions,
        disk: Disk = DISK,
        clock: Callable[[int], ShardClock] = ShardClock,
    ) -> None:
        """For `open`, which says what is raised."""
        # Set once.
        self.path = path
        self.shard = shard
        self._identity = identity
        self._options = options
        self._disk = disk = UnchangingDisk() if options.read_only_reason else disk
        self._log = Log(__name__, shard=shard)
        self._repeats = Repeats(self._log)
        self._lock = lock_file(path / "LOCK")
        # Owned by the store's thread.
        self._read_only_reason = ""
        #: See `Compaction.arrears`; as it stood at most LOOK_BYTES ago.
        self.arrears = 0.0
        #: The shard has more dead bytes than it may, and maintenance should not wait: as old as `arrears`.
        self.wants_slice = False
        self._look_at_bytes = 0
        #: A client waits until this one is durable.
        self._lsn_asked = 0
        self._descriptors = Descriptors(disk, options.open_segments)
        try:
            self._manifest = Manifest.load(path, shard, identity.directory_id, disk)
            self._engine = _engine.Engine(
                shard,
                identity.seed,
                value_bytes_max=options.value_bytes_max,
                parks=options.sync == "always",
                memory_bytes_max=options.memory_bytes_max,
            )
            self._chain = SegmentChain(
                path,
                identity,
                shard,
                options.segment_bytes,
                options.sync == "os",
                disk,
                self._manifest,
                self._engine,
                self._descriptors,
            )
            self._clock = clock(self._manifest.state.clock_ms)
            self._sweeper = Sweeper(self._log, self._engine, self._manifest, self._clock, self._chain.segments)
            self._purger = Purger(self._log, self._engine)
            self._checkpointer = Checkpointer(
                disk,
                path,
                shard,
                self._manifest,
                self._engine,
                options.checkpoint_interval_s,
                lambda: self._chain.supply.is_full or not self._chain.supply.reserve.is_whole,
            )
            now_ms, fail = self._clock.now_ms, self._become_read_only
            parts = Parts(disk, shard, identity.seed, self._manifest, self._engine, self._chain, now_ms, fail)
            self._compaction = Compaction(parts, options.segment_bytes, options.space_amplification, options.dead_ratio)
            self._rare = RareOperations(
                self._engine,
                self._chain,
                shard,
                self._write_staged,
                self._make_room,
                self._compaction.ask,
                self._checkpointer.ask,
                self._ask_sync,
                lambda: point.take_point(self._chain, self._clock, self._read_only_reason),
                self.stats,
            )
            planners: list[Planner] = [self._checkpointer.plan, self._compaction.plan]
            self._maintenance = Maintenance(self._log, planners, lambda: self.durable_lsn)
            self._recover()
        except BaseException:
            self.abandon()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        identity: DirectoryIdentity,
        shard: int,
        options: StoreOptions,
        disk: Disk = DISK,
        clock: Callable[[int], ShardClock] = ShardClock,
    ) -> Store:
        """Lock the shard directory, recover, and begin a new active segment.

        Args:
            clock: makes the shard's clock, given the time that it has reached at least.

        Raises:
            DirectoryInUse: when another process has the shard.
            Corrupt: when it cannot be served; the message says what to do.
            FormatTooNew: when a newer kio wrote it; nothing was modified.
            OSError: when the disk refuses.
        Cost: reads the hints of sealed segments and the records of those never sealed; a handful of fsyncs.
        """
        return cls(path, identity, shard, options, disk, clock)

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
    def state(self) -> str:
        """What `stats` tells: "serving", "full" while puts find no room on the disk, or "read-only"."""
        if self._read_only_reason:
            return "read-only"
        return "full" if self._engine.misfits == _engine.REFUSE_MISFITS else "serving"

    def execute(self, batch: bytes) -> Executed:
        """Execute an op batch, up to so many bytes of replies. What a client can cause becomes a reply's status.

        Raises:
            ProtocolError: when the message is not a whole batch.
            MemoryError: when there is none for the replies; the process had better end.
        Cost: one write when anything was appended; no fsync, unless a segment has to be made because none is prepared.
        """
        self._engine.begin(batch)
        return self.go_on()

    def go_on(self) -> Executed:
        """Execute more of a batch that was cut; else as `execute`."""
        engine = self._engine
        now = opbatch.monotonic_ms()
        engine.now_ms = self._clock.now_ms()
        is_short_of_memory = False
        while True:
            try:
                stopped = engine.run(now)
            except MemoryError as error:
                if is_short_of_memory:
                    raise  # not even the reads fit: a new process begins with what the log holds
                is_short_of_memory = True
                engine.rollback()
                engine.refuse(Overloaded.code, str(error))
                continue
            if not self._write_staged():
                continue
            if stopped in (_engine.DONE_RUNNING, _engine.REPLIES_FULL):
                break
            if stopped == _engine.RARE_OPERATION:
                self._rare.execute(now)
            else:
                self._make_room(engine.needed_room)
        if self._read_only_reason:
            self._refuse_read_only()
        else:
            engine.refuse(0)
        if engine.bytes_written >= self._look_at_bytes:
            self._look_at_arrears()
        replies, parked = engine.take_replies()
        return Executed(replies, parked, engine.lsn, stopped == _engine.REPLIES_FULL)

    def _look_at_arrears(self) -> None:
        self._look_at_bytes = self._engine.bytes_written + LOOK_BYTES
        self.arrears = self._compaction.arrears()
        self.wants_slice = not self._read_only_reason and self._compaction.is_over
        if self.wants_slice:
            self._maintenance.hurry()

    def _write_staged(self) -> bool:
        """Write what was appended; when the disk refuses, take it back and refuse the batch's writes: False."""
        engine = self._engine
        staged = engine.staged()
        if staged is None:
            return True
        try:
            self._disk.write(self._chain.active.fd, staged, engine.written)
        except OSError as error:
            del staged
            engine.rollback()
            self._refuse_after(error)
            self._erase_behind(engine.tail)
            return False
        self._chain.wrote(len(staged))
        del staged
        engine.wrote()
        return True

    def _erase_behind(self, tail: int) -> None:
        """A write that failed may have left whole records behind the tail: they must not come back at recovery."""
        active = self._chain.active
        try:
            self._disk.truncate(active.fd, tail)
            self._disk.truncate(active.fd, active.capacity)
            # Not even after a power cut, which may undo a truncation that was not synced.
            self._disk.sync(active.fd)
        except OSError as error:
            self._engine.served_lsn_max = self.durable_lsn
            self._become_read_only(f"a failed write could not be taken back: {error}")
            self._refuse_read_only(opbatch.MAYBE_APPLIED)

    def _refuse_after(self, error: OSError) -> None:
        if is_full(error):
            self._chain.supply.write_refused()
            self._engine.refuse(DiskFull.code, f"no room for shard {self.shard} on the disk; nothing was applied")
            self._repeats.warning("write refused", fault=error.strerror)
        else:
            self._become_read_only(f"a write failed: {error}")

    def _become_read_only(self, reason: str) -> None:
        if not self._read_only_reason:
            self._read_only_reason = reason
            self._log.error("read-only", reason=reason, lsn=self.lsn, durable_lsn=self.durable_lsn, run="kio status")
        self._refuse_read_only()
        self._end_parking()

    def _end_parking(self) -> None:
        """Behind the last sync of a read-only shard no reply waits: what it did not cover is not served."""
        if self._options.sync == "always" and not self._chain.is_syncing:
            self._engine.serve_durable_only()

    def _refuse_read_only(self, flag: int = 0) -> None:
        reason = self._read_only_reason
        self._engine.refuse(
            ShardReadOnly.code | flag,
            f'shard {self.shard} is read-only: {reason}; mend the disk, then restart kio and run "kio check"',
        )

    def _make_room(self, room: int) -> None:
        """Find room for a record that takes `room` bytes; where there is none, what does not fit is refused."""
        try:
            self._chain.make_room(room)
        except OSError as error:
            self._note(self._manifest.failure or None)
            if self._read_only_reason:
                return
            if not is_full(error):
                self._refuse_after(error)
            elif self._chain.supply.prepared is not None:
                self._engine.refuse_misfits(_engine.REFUSE_MISFIT)
            else:
                self._engine.refuse_misfits(_engine.REFUSE_MISFITS)

    # ---- jobs ----

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way."""
        return self._chain.is_busy

    @property
    def unsynced_bytes(self) -> int:
        """Bytes of records that no finished sync covers."""
        return self._chain.unsynced_bytes

    @property
    def wants_sync(self) -> bool:
        """Whether maintenance, or a client, waits for records to be durable."""
        return max(self._maintenance.lsn_wanted, self._lsn_asked) > self.durable_lsn

    def _ask_sync(self) -> None:
        self._lsn_asked = self.lsn

    def sync_job(self) -> Job | None:
        """What makes every record up to `lsn` durable; None when all are, one is under way, or it is read-only."""
        return None if self._read_only_reason else self._chain.sync_job()

    def background_job(self) -> Job | None:
        """What a helper should run now, beside a sync; ask again until it is None."""
        if self._read_only_reason:
            return None
        job = self._chain.background_job() or self._maintenance.job() or self._sweeper.job()
        if job is None and self._options.sync == "os" and self.wants_sync:
            job = self._chain.sync_job()  # nobody else asks for one
        return job

    def finish(self, job: Job) -> None:
        """Take over the outcome of a job that has run. A second call for the same job changes nothing."""
        # A manifest whose last edit may or may not be on disk takes no other: nothing can be sealed or begun any more.
        self._note(self._chain.finish(job) or self._manifest.failure or None)
        if self._read_only_reason:
            self._end_parking()
        self._maintenance.finish(job)
        if self.arrears:
            self._look_at_arrears()
        self._sweeper.finish(job)

    def maintain(self, now_s: float) -> bool:
        """Run one slice of maintenance; True when another could run at once. Cost: see maintenance.SLICE_US."""
        if self._read_only_reason:
            # Keys still expire, unless some are lost anyway; nothing is written.
            return self._engine.served_lsn_max >= self.lsn and self._sweeper.slice(now_s)
        is_sweeping = self._sweeper.slice(now_s)
        is_purging = self._purger.slice()
        return self._maintenance.slice(now_s) or is_sweeping or is_purging

    def _note(self, failure: str | None) -> None:
        if failure is not None:
            self._become_read_only(failure)

    # ---- opening and closing ----

    def _recover(self) -> None:
        engine = self._engine
        chain = self._chain
        recovery = Recovery(self.path, self._identity, self.shard, self._manifest, self._disk, self._descriptors)
        recovered = recovery.run()
        chain.reserve_slots(recovered.sources)
        rebuilt = fill_keydir(self._log, recovery, recovered, engine.keydir)
        for source, live_bytes in zip(recovered.sources, rebuilt.live_bytes, strict=True):
            chain.adopt(source, live_bytes)
        engine.set_keys(rebuilt.keys)
        engine.suspect_lsn = recovered.suspect_lsn
        engine.start_at(recovered.lsn, recovered.lsn)
        epoch = recovered.epoch if recovered.was_clean else recovered.epoch + 1
        if self._options.read_only_reason:
            chain.epoch = recovered.epoch
            self._become_read_only(self._options.read_only_reason)
        else:
            self._begin(epoch)
        replayed_bytes = sum(source.record_bytes for source in recovered.sources if source.hints is not None)
        self._checkpointer.opened(replayed_bytes, recovered.checkpoint_fault)
        self._log.info(
            "open",
            keys=engine.count_keys(),
            segments=len(recovered.sources),
            scanned=sum(not s.is_sealed for s in recovered.sources) + recovered.scanned_sealed,
            hints=sum(s.is_sealed and s.hints is not None for s in recovered.sources),
            lsn=recovered.lsn,
            epoch=epoch,
            clean=recovered.was_clean,
        )

    def _begin(self, epoch: int) -> None:
        """Take writes, in a new epoch; a disk that has no block left, and no spare, leaves the shard to its readers."""
        try:
            self._manifest.append({"t": "open", "boot": self._disk.boot_id()}, {"t": "epoch", "epoch": epoch})
            self._chain.begin(epoch)
        except OSError as error:
            if not is_full(error):
                raise
            self._chain.epoch = epoch
            self._become_read_only(f"the disk was full at the start, and RESERVE used up: {error}; free some space")

    def close(self) -> None:
        """Stop cleanly: all durable, every segment sealed, the lock released. Blocks.

        Where the disk refuses, what it refused is left to the next recovery; the lock is released all the same.
        """
        try:
            self._compaction.stop()
            self._maintenance.stop()
            self._note(self._chain.finish_running())
            if not self._read_only_reason and self._chain.seal_all() is None:
                self._purger.finish()
                self._checkpointer.take()
                self._manifest.append(
                    {"t": "clock", "ms": self._clock.now_ms()},
                    {"t": "close", "epoch": self._chain.epoch, "lsn": self.lsn},
                )
        except OSError as error:
            self._log.error(
                "unclean stop", reason=str(error), lsn=self.lsn, durable_lsn=self.durable_lsn, run="kio check"
            )
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop as a killed process does: every descriptor and the lock are given up, and nothing is written."""
        with ExitStack() as stack:
            # Whatever fails, the rest is done too; the lock last.
            stack.callback(self._lock.release)
            if hasattr(self, "_manifest"):
                stack.callback(self._manifest.close)
            stack.callback(self._descriptors.close)
            if hasattr(self, "_chain"):
                stack.callback(self._chain.close)
            if hasattr(self, "_maintenance"):
                stack.callback(self._maintenance.stop)

    # ---- figures ----

    def _reason(self) -> str:
        if not self._read_only_reason and self._engine.suspect_lsn:
            return f'damaged records; what they may hide is answered Corrupt; run "kio check --shard {self.shard}"'
        return self._read_only_reason or self._chain.supply.why_full()

    def stats(self) -> dict[str, Any]:
        """What control.py lists for a shard, as far as the store knows it.

        To be called now and then: it writes the counts of log lines that were kept back.
        """
        self._repeats.tick()
        engine = self._engine
        segments, record_bytes, live_bytes, disk_bytes = self._chain.usage()
        return {
            "state": self.state,
            "reason": self._reason(),
            "keys": engine.count_keys(),
            "live_bytes": live_bytes,
            "dead_bytes": record_bytes - live_bytes,
            "disk_bytes": disk_bytes,
            "reserve_bytes": self._chain.supply.reserve.size,
            "segments": segments,
            "lsn": engine.lsn,
            "durable_lsn": engine.durable_lsn,
            "epoch": self._chain.epoch,
            "keydir_bytes": engine.keydir.allocated_bytes,
            "keys_fit": engine.keys_fit,
            **{name: getattr(engine, name) for name in _COUNTED},
            "syncs": self._chain.syncs,
            "sync_ms_last": round(self._chain.sync_ms_last, 3),
            "unsynced_bytes": self.unsynced_bytes,
            "amplification": round(record_bytes / live_bytes, 3) if live_bytes else 0.0,
            **self._compaction.stats(),
            **self._checkpointer.stats(),
        }


assert RECORDS_START + KEY_BYTES_MAX + VALUE_BYTES_MAX < SEGMENT_BYTES_CEILING
