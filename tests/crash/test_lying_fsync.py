"""A disk whose fsync fails once and then says that all is well: no acknowledgement stands on the second one.

The disk is an ext4 without a journal, in an image on a tmpfs that is smaller than the image. When the tmpfs is full, a
write of pages fails: one fsync tells of it, the next one succeeds, and the pages read back as zeros once they have left
the cache. A store that tries a failed fsync again loses data in silence there. (The last fsync that succeeds before may
have lost its pages as well: that is seen with pwrite and fdatasync alone, and no program can know.)
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.cluster.conftest import Chance
from tests.cluster.daemon import Daemon, wait_until
from tests.cluster.rawwire import DISK_FULL, GET, OK, SET, SHARD_READ_ONLY, Wire
from tests.crash.loop_mounts import make_image, mounted, needs_mounts

TMPFS_BYTES = 12 << 20
IMAGE_BYTES = 64 << 20
VALUE = 70_000
#: More than the tmpfs holds.
WRITES = 400


def value_of(key: bytes) -> bytes:
    return key * (VALUE // len(key))


@needs_mounts
def test_nothing_is_acknowledged_behind_an_fsync_that_failed(tmp_path: Path, chance: Chance) -> None:
    with mounted("kio-test", tmp_path / "small", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}") as small:
        image = make_image(small / "image", IMAGE_BYTES, "-O", "^has_journal")
        acked: list[bytes] = []
        refused: list[bytes] = []
        with (
            mounted(image, tmp_path / "disk", "-o", "loop,errors=continue") as disk,
            Daemon(disk / "data", workers=1, shards=1, sync="always", flags=["--segment-mib", "1"]) as daemon,
        ):
            with Wire(daemon.url) as wire:
                for number in range(WRITES):
                    key = b"key-%d" % number
                    status, *rest = wire.request(SET, 0, key, value_of(key), deadline_ms=10_000)
                    if status == SHARD_READ_ONLY:
                        refused.append(key)
                    elif status != OK:
                        # No segment could be made, and nothing was written; no sync of records has failed yet.
                        assert (status, refused) == (DISK_FULL, []), f"{key!r}: {status} {rest!r}"
                        time.sleep(0.01)
                    else:
                        assert not refused, f"{key!r} was acknowledged behind a failed fsync\n{chance.repeat}"
                        acked.append(key)
                assert refused, "the disk did not get full; the test proves nothing"
                wait_until(lambda: "durable_lsn" in daemon.shard_stats()[0], 5, "the figures of the shard", 0.05)
                stats = daemon.shard_stats()[0]
                assert (stats["state"], "a sync failed" in stats["reason"]) == ("read-only", True)
                # The n-th write has the LSN n.
                for key in acked[: stats["durable_lsn"]]:
                    assert wire.call(GET, 0, key) == value_of(key)
            daemon.kill_everything()
        with mounted(image, tmp_path / "again", "-o", "loop,ro,noload") as disk:
            kept = b"".join(path.read_bytes() for path in sorted((disk / "data").glob("shard-*/*.seg")))
            for key in acked[:-1]:
                assert key + value_of(key) in kept, f"{key!r} was promised and is not on the disk\n{chance.repeat}"
    print(f"{len(acked)} acknowledged, {len(refused)} refused")
