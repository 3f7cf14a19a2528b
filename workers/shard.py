"""One shard: what happens to a batch, when its replies may leave, and when the log wants a sync.

Sans-I/O: a function of (state, event, now). The loop brings batches and finished jobs, and carries away replies and
jobs; `now` is the monotonic clock in seconds.

The three modes:
    always    a sync is wanted as soon as something is unsynced and no sync is under way. The store parks the replies
              that depend on it with the LSN they wait for; they leave when `durable_lsn` has reached it. A sync covers
              what was written before it *started*, so a write that arrives during one waits for the next.
    interval  a sync is wanted `interval_s` after the first write that no started sync covers, or when SYNC_BYTES_MAX
              are unsynced, or when maintenance waits for one. An idle shard wants none.
    os        never here; a segment is made durable when it is sealed.

Invariants:
  * parked replies leave in the order of their LSNs, each once;
  * an acknowledgement that can no longer become true (the sync failed) is turned into an error, never sent;
  * with interval, a sync that is OVERDUE_S + OVERDUE_INTERVALS x interval late is told in `reason` and logged, and past
    UNSYNCED_BYTES_MAX writes are refused, not executed: what a power cut can take stays bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kio import opbatch, wire
from kio.errors import KioError, Overloaded, ProtocolError, ShardReadOnly
from kio.limits import GIB, MIB
from kio.log import Log

if TYPE_CHECKING:
    from kio.segments.jobs import Job
    from kio.segments.store import Executed, Store

SYNC_BYTES_MAX: Final = 64 * MIB
UNSYNCED_BYTES_MAX: Final = GIB
#: Writes are slowed down to this rate, and less where they need not be, when compaction is behind them.
PACED_BYTES_PER_S: Final = 16 * MIB
OVERDUE_S: Final = 5.0
OVERDUE_INTERVALS: Final = 10
#: An error's message is repeated in each of a batch's replies.
MESSAGE_BYTES_MAX: Final = 240

_WRITES: Final = frozenset(
    {
        wire.OP_SET,
        wire.OP_DELETE,
        wire.OP_INCR,
        wire.OP_APPEND,
        wire.OP_EXPIRE,
        wire.OP_PERSIST,
        wire.OP_CLEAR,
        wire.OP_ATOMIC,
        wire.OP_APPLY,
    }
)

Stats = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """When a shard wants its log synced."""

    mode: str
    interval_s: float = 0.1

    @property
    def overdue_s(self) -> float:
        """How long a write may wait for its sync before the shard says so."""
        return OVERDUE_S + OVERDUE_INTERVALS * self.interval_s


class Shard:
    """A shard that is open and serves."""

    def __init__(self, shard: int, store: Store, policy: SyncPolicy) -> None:
        # Set once.
        self.shard = shard
        self._store = store
        self._policy = policy
        self._log = Log(__name__, shard=shard)
        # Owned by the loop.
        self._parked: deque[tuple[int, bytes]] = deque()
        self._lsn = store.lsn
        #: When the first write was made that no started sync covers; None when there is none.
        self._waits_since: float | None = None
        #: The same, as it stood when the sync under way was started.
        self._syncing_since: float | None = None
        self._is_sync_under_way = False
        self._is_overdue_logged = False
        #: How long the next batch should wait after the last one, for compaction to keep up with what it wrote.
        self.pause_s = 0.0
        #: Of the batch that is executed there is more.
        self.is_cut = False

    @property
    def is_idle(self) -> bool:
        """Whether no reply waits for a sync."""
        return not self._parked

    @property
    def is_behind(self) -> bool:
        """Whether writes wait for compaction: it cannot keep up with them, or the disk is full."""
        return self._store.arrears > 0 or self._store.state == "full"

    @property
    def wants_slice(self) -> bool:
        """Whether maintenance should run a slice behind what was executed last."""
        return self._store.wants_slice

    @property
    def state(self) -> str:
        """The state that `stats` tells."""
        return self._store.state

    def execute(self, batch: bytes, now: float) -> bytes:
        """Execute a batch; the replies that may leave now (b"" where none may). The others are parked.

        Where `is_cut` says so afterwards, the batch is not at its end: `go_on` comes next.
        """
        store = self._store
        if store.unsynced_bytes > UNSYNCED_BYTES_MAX and self._is_overdue(now):
            return self._execute_reads(batch)
        executed = store.execute(batch)
        self.pause_s = 0.0
        if store.lsn != self._lsn:
            self.pause_s = store.arrears * len(batch) / PACED_BYTES_PER_S
        return self._taken(executed, now)

    def go_on(self, now: float) -> bytes:
        """Execute more of a batch that was cut; as `execute`."""
        return self._taken(self._store.go_on(), now)

    def _taken(self, executed: Executed, now: float) -> bytes:
        self.is_cut = executed.is_cut
        if executed.parked:
            self._parked.append((executed.parked_lsn, executed.parked))
        lsn = self._store.lsn
        if lsn != self._lsn:
            self._lsn = lsn
            if self._waits_since is None:
                self._waits_since = now
        return executed.replies

    def pick_sync(self, now: float) -> Job | None:
        """The sync that is wanted now, or None."""
        since = self._waits_since
        if since is None or self._is_sync_under_way or self._policy.mode == "os":
            return None
        is_early = now < since + self._policy.interval_s and self._store.unsynced_bytes < SYNC_BYTES_MAX
        if is_early and self._policy.mode == "interval" and not self._store.wants_sync:
            return None
        job = self._store.sync_job()
        if job is not None:
            self._is_sync_under_way = True
            self._syncing_since = since
        self._waits_since = None
        return job

    def pick_background(self) -> Job | None:
        """The job beside syncs that is wanted now, or None; ask again until it is None."""
        return self._store.background_job()

    def maintain(self, now: float) -> bool:
        """Run one slice of maintenance; True when another could run at once."""
        return self._store.maintain(now)

    def wake_at(self) -> float | None:
        """When `pick_sync` will want a sync although nothing else happens."""
        if self._waits_since is None or self._is_sync_under_way or self._policy.mode != "interval":
            return None
        return self._waits_since + self._policy.interval_s

    def finish(self, job: Job) -> Iterator[bytes]:
        """Take over the outcome of a job that has run; the parked replies that may leave now."""
        if job.kind == "sync":
            self._is_sync_under_way = False
            self._syncing_since = None
            self._is_overdue_logged = False
        self._store.finish(job)
        yield from self._release()

    @property
    def gives_up(self) -> bool:
        """Whether replies are parked and no sync will come for them: see `release`."""
        return bool(self._parked) and self._store.is_read_only and not self._is_sync_under_way

    def release(self) -> Iterator[bytes]:
        """The parked replies that may leave now; all of them, as errors, where they wait for what will never be."""
        return self._release()

    def forget_parked(self) -> None:
        """Drop the parked replies: the router that waited for them is gone."""
        self._parked.clear()

    def close(self) -> Iterator[bytes]:
        """Make all durable, seal, release the lock; the parked replies that may leave now. Blocks."""
        self._store.close()
        yield from self._release()

    def stats(self, now: float) -> Stats:
        """The shard's figures, as control.py lists them."""
        stats: Stats = dict(self._store.stats())
        stats["state"] = self.state
        stats["sync"] = self._policy.mode
        stats.setdefault("reason", "")
        if self._is_overdue(now):
            stats["reason"] = f"a sync is overdue: writes wait for it since {self._waited_s(now):.1f} s"
            if not self._is_overdue_logged:
                self._is_overdue_logged = True
                self._log.warning("sync overdue", waited_s=self._waited_s(now), unsynced_bytes=stats["unsynced_bytes"])
        return stats

    def _release(self) -> Iterator[bytes]:
        durable = self._store.durable_lsn
        while self._parked and self._parked[0][0] <= durable:
            yield self._parked.popleft()[1]
        if self._parked and self._store.is_read_only:
            while self._parked:
                yield _never_durable(self._parked.popleft()[1])

    def _waited_s(self, now: float) -> float:
        since = self._waits_since if self._syncing_since is None else self._syncing_since
        return 0.0 if since is None else now - since

    def _is_overdue(self, now: float) -> bool:
        return self._policy.mode == "interval" and self._waited_s(now) > self._policy.overdue_s

    def _execute_reads(self, batch: bytes) -> bytes:
        """Execute the reads of a batch and refuse its writes. The rare path: it goes through Python objects."""
        _, batch_id, _ = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
        operations = opbatch.decode_batch(batch)
        replies = [
            opbatch.Reply(index, Overloaded.code, b"")
            for index, operation in enumerate(operations)
            if operation.op in _WRITES
        ]
        reads = [index for index, operation in enumerate(operations) if operation.op not in _WRITES]
        if reads:
            executed = self._store.execute(opbatch.encode_batch(self.shard, batch_id, [operations[i] for i in reads]))
            while True:
                answered = opbatch.decode_replies(executed.replies)
                replies += [reply._replace(index=reads[reply.index]) for reply in answered]
                if not executed.is_cut:
                    break
                executed = self._store.go_on()
        return opbatch.encode_replies(self.shard, batch_id, replies)


class FailedShard:
    """A shard whose store did not open: every operation gets the error that kept it from opening."""

    is_idle: Final = True
    is_behind: Final = False
    gives_up: Final = False
    wants_slice: Final = False
    is_cut: Final = False
    pause_s: Final = 0.0
    state: Final = "failed"

    def __init__(self, shard: int, error: KioError) -> None:
        self.shard = shard
        self.error = error

    def execute(self, batch: bytes, now: float) -> bytes:
        """The error, once for each operation of the batch."""
        return refuse(batch, self.error)

    def go_on(self, now: float) -> bytes:
        """Nothing: no batch is cut."""
        return b""

    def pick_sync(self, now: float) -> None:
        """None: nothing is written."""

    def pick_background(self) -> None:
        """None: nothing is sealed."""

    def maintain(self, now: float) -> bool:
        """False: there is nothing to maintain."""
        return False

    def wake_at(self) -> None:
        """None: nothing is waited for."""

    def finish(self, job: Job) -> Iterator[bytes]:
        """Nothing: it has no jobs."""
        yield from ()

    def release(self) -> Iterator[bytes]:
        """Nothing is parked."""
        yield from ()

    def forget_parked(self) -> None:
        """Nothing is parked."""

    def close(self) -> Iterator[bytes]:
        """Nothing is open."""
        yield from ()

    def stats(self, now: float) -> Stats:
        """State and reason."""
        return {"state": self.state, "reason": str(self.error), "error": type(self.error).__name__}


def refuse(batch: bytes, error: KioError) -> bytes:
    """Replies that give `error` to every operation of `batch`; nothing was applied.

    Raises:
        ProtocolError: when `batch` has no valid header, or one that counts more operations than can be in it.
    """
    shard, batch_id, count = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    if count * opbatch.OPERATION.size > len(batch):
        raise ProtocolError(f"an op batch of {len(batch)} bytes cannot hold {count} operations")
    message = str(error).encode()[:MESSAGE_BYTES_MAX]
    return opbatch.encode_replies(
        shard, batch_id, (opbatch.Reply(index, error.code, message) for index in range(count))
    )


def _never_durable(replies: bytes) -> bytes:
    """Parked replies whose sync failed: what they acknowledge may or may not be on disk, and is not served again."""
    shard, batch_id, _ = opbatch.decode_header(replies, opbatch.REPLIES_MAGIC)
    status = ShardReadOnly.code | opbatch.MAYBE_APPLIED
    return opbatch.encode_replies(
        shard, batch_id, (opbatch.Reply(reply.index, status, b"") for reply in opbatch.decode_replies(replies))
    )
