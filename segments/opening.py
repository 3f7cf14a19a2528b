"""The KeyDir of a shard that is being opened: from its checkpoint and what was written behind it, or from every hint.

Both ways give the same keys, counts and live bytes. The checkpoint is the short one: eight bytes a key are read, and of
the log only the segments that hold records behind it. Whatever is wrong with it, or with a record that has to be read
to apply what came later, leads to the long way, which asks nothing of it.
"""

from __future__ import annotations

from contextlib import closing

from kio.errors import Corrupt
from kio.log import Log
from kio.segments import _hints
from kio.segments._checkpoint import Loader
from kio.segments._keydir import KeyDir
from kio.segments.checkpoint import CheckpointFile
from kio.segments.recovery import Recovered, Recovery


def fill_keydir(log: Log, recovery: Recovery, found: Recovered, keydir: KeyDir) -> _hints.Rebuilt:
    """Fill the empty `keydir` with what `recovery` found; the segments have their slots.

    Returns: keys, and live bytes in the order of `found.sources`.

    Raises:
        MemoryError: when there is none.
    """
    if found.checkpoint is not None:
        loader = _loader(found, found.checkpoint, keydir)
        try:
            with closing(found.checkpoint):
                for pages in found.checkpoint.chunks():
                    loader.load(pages)
                return loader.finish()
        except (Corrupt, OSError) as error:
            loader.give_up()
            if loader.is_behind_end:
                lsn = found.checkpoint.contents.lsn_max
                log.error("corruption", lsn=lsn, reason=str(error), run="kio check")
                found.suspect_lsn = max(found.suspect_lsn, lsn + 1)
            recovery.refuse_checkpoint(str(error))
    return _hints.rebuild(
        keydir, [(s.segment.slot, s.hints or b"", s.segment.mapping, False) for s in found.sources], found.floors
    )


def _loader(found: Recovered, checkpoint: CheckpointFile, keydir: KeyDir) -> Loader:
    sources = [
        (s.segment.slot, s.segment.id, s.hints or b"", s.segment.mapping, s.segment.end, s.segment.crc_seed)
        for s in found.sources
    ]
    return Loader(keydir, checkpoint.contents, checkpoint.seed, sources)
