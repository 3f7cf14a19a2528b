"""Which segments a compaction rewrites. Pure: figures in, a choice out.

What was compacted before has proven to be cold and is not mixed with what comes from clients: so there are two streams,
and a segment's records die at about the same pace.

A segment's worth is (1 - u) * sqrt(age) / u: what is gained, for how long it stays gained, by what it costs. u is the
part of it that has to be copied, age how many records were written since its newest one.
Source: the cost-benefit cleaner of Rosenblum and Ousterhout, "The design and implementation of a log-structured file
system" (1992), which has no root. Measured on uniform and zipf 0.99 overwrites at 1.4 times the live bytes, the root
writes least of all powers of the age: plain age keeps rewriting what is cold, no age rewrites what is about to die.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Final, NamedTuple

#: A segment of which less than this part would be gained is left alone, unless somebody asks.
GAIN_MIN: Final = 0.05
#: Segments in one compaction at the most: their hints stay mapped until their words are relocated.
VICTIMS_MAX: Final = 64
#: An output is at least this part of a full segment, where there is enough to compact.
FILL_MIN: Final = 0.25


class Candidate(NamedTuple):
    """A sealed segment, in bytes of records."""

    id: int
    record_bytes: int
    live_bytes: int
    #: Of tombstones that had to stay when it was last looked at.
    kept_bytes: int
    lsn_min: int
    lsn_max: int
    #: It is itself the output of a compaction.
    is_compacted: bool

    @property
    def cost_bytes(self) -> int:
        """What a compaction would have to copy."""
        return self.live_bytes + self.kept_bytes

    @property
    def gain_bytes(self) -> int:
        """What a compaction would get back."""
        return self.record_bytes - self.live_bytes - self.kept_bytes

    def worth(self, lsn: int) -> float:
        """How much it is worth to compact it now that `lsn` is the last LSN."""
        return self.gain_bytes * sqrt(lsn - self.lsn_max + 1) / (self.cost_bytes + 1)


def is_worth_it(candidate: Candidate) -> bool:
    """Whether enough would be gained."""
    return candidate.gain_bytes >= candidate.record_bytes * GAIN_MIN


def pick_fitting(candidates: list[Candidate], room_bytes: int) -> list[Candidate]:
    """Those whose survivors have room; where none has, the one that needs least: something has to be done."""
    fitting = [candidate for candidate in candidates if candidate.cost_bytes <= room_bytes]
    return fitting or sorted(candidates, key=lambda c: c.cost_bytes)[:1]


def pick_gains(candidates: Iterable[Candidate], room_bytes: int) -> list[Candidate]:
    """What gives back most in one run, for a disk that is full: age and cost do not count then.

    Args:
        room_bytes: of the spare, into which the survivors have to fit.

    Returns: as `pick_victims`.
    """
    victims: list[Candidate] = []
    survivors = 0
    for candidate in sorted(candidates, key=lambda c: c.gain_bytes, reverse=True):
        if candidate.gain_bytes <= 0 or len(victims) == VICTIMS_MAX:
            break
        if survivors + candidate.cost_bytes <= room_bytes:
            victims.append(candidate)
            survivors += candidate.cost_bytes
    return sorted(victims, key=lambda c: c.lsn_min)


def pick_victims(candidates: Iterable[Candidate], lsn: int, room_bytes: int, gain_bytes: int) -> list[Candidate]:
    """The most worthy candidate, and the next ones of its stream whose survivors fit into one segment with its own.

    Args:
        room_bytes: the length of that segment; the first candidate is taken even if it alone needs more.
        gain_bytes: no more are taken when so much is gained, unless the output would be short: who rewrites later finds
            more that is dead, but many short segments cost more than that.

    Returns: them in the order of their oldest records: a tombstone comes after what it hides.
    """
    victims: list[Candidate] = []
    survivors = gained = 0
    for candidate in sorted(candidates, key=lambda c: c.worth(lsn), reverse=True):
        if victims and candidate.is_compacted != victims[0].is_compacted:
            continue
        survivors += candidate.cost_bytes
        if victims and (survivors > room_bytes or len(victims) == VICTIMS_MAX):
            break
        victims.append(candidate)
        gained += candidate.gain_bytes
        if gained >= gain_bytes and survivors >= room_bytes * FILL_MIN:
            break
    return sorted(victims, key=lambda c: c.lsn_min)
