"""The sweeper: keys whose time has come leave the KeyDir, and the clock that said so is kept.

Owns: nothing but what it has yet to do. Each segment has its list of expiries (_expiries.pyx); every SWEEP_INTERVAL_S
the sweeper asks all lists for what has expired, and removes it in slices (_sweep.pyx). So a count is right within a
second, and expired bytes are dead bytes within one, without any access.
Invariants:
  * a record that expired is never served again: reads hide it from its first moment on (_engine.pyx), and the time at
    which it was removed is durable PERSIST_INTERVAL_S later, so that no clock set back revives it;
  * the sweep runs beside whatever maintenance is under way: it changes words only, and finds them by their exact value;
  * an entry is taken once, so at any time the word of a record that expires is named by an entry that has yet to be
    taken: a compaction's output gets its list when all words have been relocated, not before.
Crash: nothing is kept but the clock. Recovery inserts the words of expired records, and the first sweep removes them.
The records themselves stay until a compaction drops them: they may hide older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from kio.log import Log
from kio.segments._engine import Engine
from kio.segments._expiries import ExpiryRun
from kio.segments._sweep import sweep, trim
from kio.segments.clock import ShardClock
from kio.segments.jobs import Job
from kio.segments.manifest import Manifest
from kio.segments.segment import Segment

SWEEP_INTERVAL_S: Final = 0.5
#: What one slice takes at the most, in microseconds.
SLICE_US: Final = 120
#: Segments that one slice looks at, when nothing has expired in them.
SEGMENTS_PER_SLICE: Final = 1000
#: The KeyDir is trimmed when so many keys of those that are left have expired since the last time.
TRIM_AT: Final = 1 / 4
_PAGES: Final = 512
PERSIST_INTERVAL_S: Final = 0.5
PERSIST_RETRY_S: Final = 5.0


class ClockJob(Job):
    """Make durable that the clock has reached `ms`."""

    kind = "clock"

    def __init__(self, manifest: Manifest, ms: int) -> None:
        super().__init__()
        self.ms = ms
        self._manifest = manifest

    def _work(self) -> None:
        self._manifest.append({"t": "clock", "ms": self.ms})


class Sweeper:
    """The sweeper of one shard. Used by the store's thread only.

    Args:
        segments: tells the attached segments.
        clock: the shard's.
    """

    def __init__(
        self,
        log: Log,
        engine: Engine,
        manifest: Manifest,
        clock: ShardClock,
        segments: Callable[[], Iterable[Segment]],
    ) -> None:
        # Set once.
        self._log = log
        self._engine = engine
        self._manifest = manifest
        self._clock = clock
        self._segments = segments
        # The sweep under way: what it has not looked at yet, and the time that it goes by.
        self._waiting: list[Segment] = []
        self._now_ms = 0
        self._sweep_at_s = 0.0
        # The page that is trimmed next, and how many keys had expired when trimming began.
        self._trim_page = _PAGES
        self._trimmed = 0
        # The clock.
        self._persist_at_s = 0.0
        self._wants_clock = False
        self._job: ClockJob | None = None

    def slice(self, now_s: float) -> bool:
        """Run one slice; True when another could run at once."""
        self._look_at_clock(now_s)
        if self._trim_page < _PAGES:
            self._trim_page = trim(self._engine, self._trim_page, SLICE_US)
            return self._trim_page < _PAGES
        if not self._waiting:
            if now_s < self._sweep_at_s:
                return False
            self._sweep_at_s = now_s + SWEEP_INTERVAL_S
            self._now_ms = self._clock.now_ms()
            self._waiting = list(self._segments())
        for _ in range(min(SEGMENTS_PER_SLICE, len(self._waiting))):
            segment = self._waiting[-1]
            if segment.expiries.next_ms <= self._now_ms:
                if not self._sweep(segment):
                    self._waiting.pop()
                break
            self._waiting.pop()
        if not self._waiting:
            self._look_at_memory()
        return bool(self._waiting) or self._trim_page < _PAGES

    def _look_at_memory(self) -> None:
        expired = self._engine.expired
        if expired - self._trimmed > len(self._engine.keydir) * TRIM_AT:
            self._trimmed = expired
            self._trim_page = 0

    def _sweep(self, segment: Segment) -> bool:
        """One slice of one segment; True when there is more."""
        try:
            return sweep(self._engine, segment.slot, segment.id, segment.expiries, self._now_ms, SLICE_US)
        except OSError as error:
            # Reads hide what has expired all the same; it counts as live until the next start.
            self._log.error("sweep failed", segment=segment.id, reason=str(error), run="kio check")
            segment.expiries = ExpiryRun(b"")
            return False

    # ---- the clock ----

    def job(self) -> ClockJob | None:
        """What makes the clock durable, when a key has expired since that was last done."""
        if not self._wants_clock or self._job is not None:
            return None
        self._wants_clock = False
        self._job = ClockJob(self._manifest, self._clock.now_ms())
        return self._job

    def finish(self, job: Job) -> None:
        """Take over the outcome of a job that has run."""
        if job is not self._job:
            return
        self._job = None
        if job.error is not None:
            self._log.warning("clock not kept", reason=str(job.error))
            self._persist_at_s += PERSIST_RETRY_S

    def _look_at_clock(self, now_s: float) -> None:
        if now_s >= self._persist_at_s and self._engine.expired_ms > self._manifest.state.clock_ms:
            self._persist_at_s = now_s + PERSIST_INTERVAL_S
            self._wants_clock = True
