"""A shard that is only read: recovered like any other, and not one byte of its directory changes.

What recovery mends at a start (a torn tail, leftovers of a crash) is left out here, or left as it is; where it would
have to answer Corrupt for keys that nobody knows, the shard is refused.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from kio.errors import Corrupt
from kio.limits import OPEN_SEGMENTS
from kio.log import Log
from kio.segments._engine import Engine
from kio.segments.disk import UnchangingDisk, lock_file
from kio.segments.identity import DirectoryIdentity
from kio.segments.manifest import Manifest
from kio.segments.opening import fill_keydir
from kio.segments.recovery import Recovery
from kio.segments.segment import Descriptors


class ShardReader:
    """The shard, locked, with every segment attached to `engine`; close it, or use it in a with statement.

    Attributes:
        engine: for reading; nothing is ever appended to it.
        epoch: no record has a higher one, and no start of this directory has given out versions of a higher one.
        clock_ms: the time that the shard's clock is known to have reached.
        live_bytes: of all records that words of the KeyDir name.

    Raises:
        DirectoryInUse: when another process has the shard.
        Corrupt: when it cannot be read whole.
        FormatTooNew: when a newer kio wrote it.
        OSError: when the disk does not deliver it.
    Cost: what a start costs.
    """

    def __init__(self, path: Path, identity: DirectoryIdentity, shard: int) -> None:
        self.engine = Engine(shard, identity.seed)
        with ExitStack() as stack:
            stack.callback(lock_file(path / "LOCK").release)
            disk = UnchangingDisk()
            manifest = Manifest.load(path, shard, identity.directory_id, disk)
            stack.callback(manifest.close)
            descriptors = Descriptors(disk, OPEN_SEGMENTS)
            stack.callback(descriptors.close)
            recovery = Recovery(path, identity, shard, manifest, disk, descriptors)
            found = recovery.run()
            segments = [source.segment for source in found.sources]
            for slot, segment in enumerate(segments, 1):
                segment.slot = slot
                stack.callback(segment.close, disk)
            if found.suspect_lsn:
                raise Corrupt(f'records of shard {shard} are damaged; run "kio check --shard {shard}"')
            rebuilt = fill_keydir(Log(__name__, shard=shard), recovery, found, self.engine.keydir)
            for source, live_bytes in zip(found.sources, rebuilt.live_bytes, strict=True):
                segment = source.segment
                self.engine.attach(
                    segment.slot, segment.id, segment.mapping, segment.end, segment.crc_seed, source.record_bytes,
                    live_bytes,
                )  # fmt: skip
            self.engine.set_keys(rebuilt.keys)
            self.epoch = found.epoch + (not found.was_clean)
            self.clock_ms = manifest.state.clock_ms
            self.live_bytes = sum(rebuilt.live_bytes)
            self._opened = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up every descriptor and the lock; the mappings go with the engine."""
        self._opened.close()
