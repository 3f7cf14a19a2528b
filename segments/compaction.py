"""When a shard is compacted, and which segments: the planner. How it is done: rewrite.py.

What asks for a compaction, in this order:
    dead       a sealed segment without a live record: it costs next to nothing
    asked      `kio compact`: every segment that had dead bytes when it was asked for
    full       the disk has no room for a next segment: whatever gives anything back, most first; and where only the
               active segment would, it is sealed and a short one begun in what the spare gives up (reserve.py)
    tight      the disk is nearly full, so another shard may wait for room: whatever is worth it, most first
    amplified  the records of all segments, and what a compaction is writing, take more than `space_amplification` times
               the live bytes, less a little for what is written until the compaction has begun
    dead_ratio a sealed segment of which a larger part is dead; off unless it is set
    active     the limit is passed, and what is dead is the better part of the active segment: it is sealed early

What was prepared for writing (supply.py) comes on top: with it, the files of a shard whose dead bytes may be many
segments should pass the limit by two segments at the most; where the cores are taken by others, what is written until a
compaction has begun can make it half of one more. So nothing may be late. The planner is asked as soon as the limit is
passed (maintenance.py), an output that has no room is left for a moment when it has (`_output_room`), and where writes
are faster than all this, they are told to wait a little (`arrears`; workers/loop.py does it).
Invariants: never while records are missing (`suspect_lsn`) or the shard is read-only; never a damaged segment. A
segment whose tombstones have to stay is not rewritten again for what they take, until a segment with older records was
dropped.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from kio.clock import monotonic_s, wall_ms
from kio.log import Log
from kio.segments import _relocate
from kio.segments.maintenance import SLICE, Activity, Pause, Steps
from kio.segments.manifest import SegmentEntry
from kio.segments.reserve import is_full
from kio.segments.rewrite import Outcome, Parts, Rewrite
from kio.segments.segment import RECORDS_START, Segment
from kio.segments.victims import GAIN_MIN, Candidate, is_worth_it, pick_fitting, pick_gains, pick_victims

#: How often the room on the disk is looked at; on a full one, after a run that gave back little, the next one waits so
#: long for more to be deleted.
IDLE_S: Final = 1.0
#: The active segment is sealed early only when it is at least this part of a full one.
ROTATE_AT: Final = 1 / 8
#: Segments that one slice looks at.
_SEGMENTS_PER_SLICE: Final = 64
#: At the limit the copying pauses so many times as long as it works; this many segments above the limit not at all.
_PAUSE_MAX: Final = 2.0
_OVER_SEGMENTS: Final = 0.1
#: From there on the writes wait; so many segments further on they are slowed down as much as they ever are.
_ARREARS_SEGMENTS: Final = 0.3
#: So much of a segment is left free under the limit, for what is written until the compaction has begun; and an output
#: is begun only where all files then pass the limit by no more than so many segments, what is written meanwhile apart.
_SLACK_SEGMENTS: Final = 0.15
_FILES_SEGMENTS: Final = 1.8
#: The next segment is expected to be prepared while an output is written, if so much of the active one is used.
_NEXT_AT: Final = 1 / 4
#: An output may always be so long a part of a full one.
_OUTPUT_MIN: Final = 0.35
#: In a small shard no more than one part in so many, of what may be dead, is kept free for what is being written: it
#: would be compacted for every byte otherwise.
_AHEAD_PARTS: Final = 8
_EVERYTHING: Final = 1 << 62


class Compaction:
    """The compaction of one shard; `plan` is its planner. Used by the store's thread only.

    Args:
        segment_bytes: how long an output may become.
        space_amplification: bytes of records per live byte that are allowed.
        dead_ratio: the dead part of a segment above which it is compacted; 0 is never.
    """

    def __init__(self, parts: Parts, segment_bytes: int, space_amplification: float, dead_ratio: float) -> None:
        # Set once.
        self._log = Log(__name__, shard=parts.shard)
        self._parts = parts
        self._segment_bytes = segment_bytes
        self._space_amplification = space_amplification
        self._dead_ratio = dead_ratio
        # What is known of segments, by id.
        self._kept: dict[int, int] = {}
        self._damaged: set[int] = set()
        self._asked: set[int] = set()
        self._floors: dict[int, tuple[int, int]] = {}
        #: Live bytes of segments that did not fit into the spare: they are left alone until they have fewer.
        self._unfit: dict[int, int] = {}
        self._rewrite: Rewrite | None = None
        self._rewriting: Steps
        self._idle_until_s = 0.0
        self._is_tight = False
        self._look_at_s = 0.0
        #: It found nothing to do when it was planned last, or the disk refused it.
        self._is_helpless = True
        # Figures.
        self._runs = 0
        self._bytes_read = 0
        self._bytes_written = 0
        self._dropped = 0
        self._took_ms = 0.0
        self._ended_ms = 0

    def plan(self, now_s: float) -> Activity | None:
        """A compaction, if one is wanted now."""
        if self._parts.engine.suspect_lsn or now_s < self._idle_until_s:
            return None
        chain = self._parts.chain
        self._look_at_disk(now_s)
        is_wanted = self._asked or self._dead_ratio or chain.supply.is_full or self._is_tight
        if not (is_wanted or self._excess_bytes() > 0 or chain.wholly_dead() or self._is_active_dead()):
            return None
        self._idle_until_s = 0.0
        return Activity("compaction", self._steps(now_s))

    def ask(self) -> int:
        """Compact whatever has dead bytes now; how many those are. The caller has sealed the active segment."""
        chain = self._parts.chain
        usages = {segment.id: self._parts.engine.usage(segment.slot) for segment in chain.segments()}
        self._asked = {number for number, (_, records, live) in usages.items() if records > live}
        self._idle_until_s = 0.0
        return sum(records - live for _, records, live in usages.values())

    def _look_at_disk(self, now_s: float) -> None:
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + IDLE_S
            self._is_tight = self._parts.chain.supply.is_tight()

    def arrears(self) -> float:
        """How far behind the writes it is: from 0, while it keeps the limit or can do nothing about it, to 1.

        Cost: some 10 ns a segment.
        """
        if self._is_helpless:
            return 0.0
        over = self._excess_bytes() / self._segment_bytes
        return min(1.0, max(0.0, (over - _OVER_SEGMENTS) / _ARREARS_SEGMENTS))

    @property
    def is_over(self) -> bool:
        """Whether the limit is passed. Cost: as `arrears`."""
        return self._excess_bytes() > 0

    def stop(self) -> None:
        """End what is under way; nothing resumes it any more. Blocks."""
        if self._rewrite is not None:
            self._rewrite.stop(self._rewriting)
            self._rewrite = None

    def stats(self) -> dict[str, Any]:
        """What control.py lists of it."""
        return {
            "compactions": self._runs,
            "compacted_bytes_read": self._bytes_read,
            "compacted_bytes_written": self._bytes_written,
            "segments_dropped": self._dropped,
            "compaction_arrears": round(self.arrears(), 3),
            "compaction_ms_last": round(self._took_ms, 3),
            "compaction_at_ms": self._ended_ms,
        }

    # ---- what to do ----

    def _excess_bytes(self) -> int:
        """How many bytes of records are too many outside of the active segment; negative where there is room."""
        records, live, _ = _relocate.totals(self._parts.engine, self._parts.chain.slots_used)
        _, active, _ = self._parts.engine.usage(self._parts.chain.active.slot)
        allowed = int(live * self._space_amplification)
        output = self._parts.chain.supply.output
        ahead = active + (output.capacity if output is not None else 0) + int(_SLACK_SEGMENTS * self._segment_bytes)
        return records - active + min(ahead, (allowed - live) // _AHEAD_PARTS) - allowed

    def _is_amplified(self) -> bool:
        """Whether the active segment's records, if they were sealed, would be too many."""
        _, active, _ = self._parts.engine.usage(self._parts.chain.active.slot)
        return self._excess_bytes() + active > 0

    def _output_room(self) -> int:
        """How many bytes an output may take now, so that all files together pass the limit by less than two segments;
        negative where they do so already.
        """
        chain = self._parts.chain
        records, live, _ = _relocate.totals(self._parts.engine, chain.slots_used)
        end, active, _ = self._parts.engine.usage(chain.active.slot)
        following = 0
        if chain.supply.prepared is not None:
            following = chain.supply.prepared.capacity
        elif end > chain.active.capacity * _NEXT_AT:
            following = self._segment_bytes
        files = records - active + chain.active.capacity + following
        return int(live * self._space_amplification) + int(_FILES_SEGMENTS * self._segment_bytes) - files

    def _steps(self, now_s: float) -> Steps:
        segments = dict[int, tuple[Segment, SegmentEntry]]()
        candidates = yield from self._candidates(segments)
        room = self._segment_bytes - RECORDS_START
        chosen = self._choose(candidates)
        if chosen:
            self._is_helpless = False
            victims = [segments[candidate.id] for candidate in chosen]
            if (yield from self._compact(victims, is_asked=bool(self._asked))):
                if self._parts.chain.supply.is_full and sum(c.gain_bytes for c in chosen) < room * GAIN_MIN:
                    self._idle_until_s = now_s + IDLE_S  # more may be deleted meanwhile
                return True
        elif self._is_active_dead():
            self._parts.chain.rotate(0, is_short=self._parts.chain.supply.is_full)
            return True
        self._is_helpless = True
        return False

    def _candidates(self, segments: dict[int, tuple[Segment, SegmentEntry]]) -> Generator[Pause, None, list[Candidate]]:
        """What could be compacted; `segments` gets them by id."""
        if self._floors != self._parts.manifest.state.floors:
            self._floors = dict(self._parts.manifest.state.floors)
            self._kept.clear()
        found = []
        for i, (segment, entry) in enumerate(self._parts.chain.sealed()):
            if i % _SEGMENTS_PER_SLICE == _SEGMENTS_PER_SLICE - 1:
                yield SLICE
            if entry.damaged or entry.id in self._damaged:
                continue
            _, records, live = self._parts.engine.usage(segment.slot)
            kept = self._kept.get(entry.id, 0)
            found.append(Candidate(entry.id, records, live, kept, entry.lsn_min, entry.lsn_max, entry.compacted))
            segments[entry.id] = (segment, entry)
        return found

    def _choose(self, candidates: list[Candidate]) -> list[Candidate]:
        lsn = self._parts.engine.lsn
        room = self._segment_bytes - RECORDS_START
        if self._asked and not self._parts.chain.supply.is_full:
            waiting = {segment.id for segment in self._parts.chain.segments()} - {c.id for c in candidates}
            asked = [c for c in candidates if c.id in self._asked and c.gain_bytes > 0]
            self._asked &= {c.id for c in asked} | waiting
            if asked:
                return pick_victims(asked, lsn, room, _EVERYTHING)
        worthy = [c for c in candidates if is_worth_it(c)]
        dead = [c for c in worthy if c.live_bytes == 0]
        if dead:
            return pick_victims(dead, lsn, room, _EVERYTHING)
        if self._parts.chain.supply.is_full:
            fitting = [c for c in candidates if c.live_bytes < self._unfit.get(c.id, _EVERYTHING)]
            return pick_gains(fitting, min(room, self._parts.chain.supply.reserve.size))
        self._unfit.clear()
        if self._is_tight:
            return pick_gains(worthy, room)
        excess = self._excess_bytes()
        if excess > 0:
            room = max(min(room, self._output_room()), int(room * _OUTPUT_MIN))
            return pick_victims(pick_fitting(worthy, room), lsn, room, excess)
        rotten = [c for c in worthy if self._dead_ratio and c.gain_bytes > c.record_bytes * self._dead_ratio]
        return pick_victims(rotten, lsn, room, _EVERYTHING)

    def _is_active_dead(self) -> bool:
        """Whether sealing the active segment early would help: the limit is passed, and it is most of the shard.

        Where the disk is full: it is no short one, and so much of it is dead that a long one is not far.
        """
        engine, active = self._parts.engine, self._parts.chain.active
        end, records, live = engine.usage(active.slot)
        if self._parts.chain.supply.is_full:
            return bool(
                active.capacity > self._parts.chain.supply.short_bytes and records - live >= active.capacity * ROTATE_AT
            )
        if not self._is_amplified() or end < active.capacity * ROTATE_AT or live * 2 > records:
            return False
        total, _, _ = _relocate.totals(engine, self._parts.chain.slots_used)
        return bool(records * 2 > total)

    # ---- doing it ----

    def _compact(self, victims: list[tuple[Segment, SegmentEntry]], *, is_asked: bool) -> Steps:
        """Rewrite the victims; whether any of them is gone."""
        started_s = monotonic_s()
        gain_min = 0.0 if is_asked or self._parts.chain.supply.is_full else GAIN_MIN
        self._rewrite = rewrite = Rewrite(
            self._parts,
            victims,
            self._segment_bytes,
            self._damaged,
            lambda size, gain: gain > 0 and gain >= size * gain_min,
            self._pause,
        )
        self._rewriting = rewrite.steps()
        try:
            has_dropped = yield from self._rewriting
        except OSError as error:
            self._is_helpless = True
            if is_full(error):
                segment = rewrite.current
                _, _, self._unfit[segment.id] = self._parts.engine.usage(segment.slot)
            self._end(rewrite.outcome, started_s)
            if is_full(error):
                return False
            raise
        self._end(rewrite.outcome, started_s)
        return has_dropped

    def _pause(self) -> float:
        if self._parts.chain.supply.is_full:
            return 0.0
        over = max(0, self._excess_bytes()) / self._segment_bytes
        return max(0.0, _PAUSE_MAX * (1 - over / _OVER_SEGMENTS))

    def _end(self, outcome: Outcome, started_s: float) -> None:
        self._rewrite = None
        self._damaged.update(outcome.damaged)
        self._kept.update(outcome.kept)
        self._asked.difference_update(outcome.kept, outcome.damaged)
        if not outcome.drops:
            return
        entries = self._parts.manifest.state.segments
        for number in list(self._kept):
            entry = entries.get(number)
            if entry is None or (entry.lsn_max > outcome.lsn_min and entry.id not in outcome.kept):
                del self._kept[number]
        self._runs += 1
        self._dropped += len(outcome.drops)
        self._bytes_read += outcome.bytes_read
        self._bytes_written += outcome.bytes_written
        self._took_ms = (monotonic_s() - started_s) * 1000
        self._ended_ms = wall_ms()
        self._log.info(
            "compaction",
            segments=len(outcome.drops),
            read=outcome.bytes_read,
            written=outcome.bytes_written,
            took_ms=round(self._took_ms),
        )
