"""The purger: words of cleared records leave the KeyDir, after a clear that has long been answered.

Owns: nothing; how far the walk is, the engine knows (_purge.pyx). A slice runs beside whatever other maintenance is
under way, as those of the sweeper do: it changes words only, and no word of a record that counts.
Until the walk has come by, a cleared record counts as live bytes, and its word takes memory; until the walk is done, no
checkpoint is taken (checkpointing.py). Then pages of the KeyDir that have lost many of their words give memory back.
Crash: nothing is kept. Recovery inserts no word of a cleared record.
"""

from __future__ import annotations

from typing import Final

from kio.clock import monotonic_s
from kio.log import Log
from kio.segments._engine import Engine
from kio.segments._purge import purge
from kio.segments._sweep import trim

#: What one slice takes at the most, in microseconds, and how many words it looks at.
SLICE_US: Final = 120
WORDS_PER_SLICE: Final = 4096
#: A clean stop waits so long for the rest of the walk, for the sake of a checkpoint.
STOP_S: Final = 0.5
_PAGES: Final = 512


class Purger:
    """The purger of one shard. Used by the store's thread only."""

    def __init__(self, log: Log, engine: Engine) -> None:
        # Set once.
        self._log = log
        self._engine = engine
        # The walk under way: when it was first seen, and how many words had been purged by then.
        self._is_walking = False
        self._started_s = 0.0
        self._purged = 0
        # The page that is trimmed next.
        self._trim_page = _PAGES

    def slice(self) -> bool:
        """Run one slice; True when another could run at once."""
        engine = self._engine
        if engine.has_floors:
            if not self._is_walking:
                self._is_walking = True
                self._started_s, self._purged = monotonic_s(), engine.purged
            purge(engine, SLICE_US, WORDS_PER_SLICE)
        elif self._trim_page < _PAGES:
            self._trim_page = trim(engine, self._trim_page, SLICE_US)
        if self._is_walking and not engine.has_floors:
            self._end()
        return engine.has_floors or self._trim_page < _PAGES

    def finish(self) -> None:
        """Run what is left of the walk, unless that takes longer than STOP_S. Blocks."""
        until_s = monotonic_s() + STOP_S
        while self._engine.has_floors and monotonic_s() < until_s:
            self.slice()

    def _end(self) -> None:
        self._is_walking = False
        self._trim_page = 0
        took_ms = round((monotonic_s() - self._started_s) * 1000)
        self._log.info("purge", words=self._engine.purged - self._purged, took_ms=took_ms)
