"""A point: the state of a shard at one LSN, told as the segments that hold it.

A backup of a running shard needs no copy made by the shard: every segment named here stays as it is up to the end told
here, whatever is written, sealed or appended to meanwhile. What compaction unlinks meanwhile is gone; who copies asks
for another point then (backup.py).

    point (a msgpack map)
    lsn, epoch      of the last record in it
    next_id         higher than every segment id in use
    clock_ms        the shard's clock
    segments        the ids of all segments that count, as the manifest had them
    unsealed        [id, end, last LSN] of those among them that were not sealed: records up to `end` count
    floors          [keyspace, epoch, LSN]: older records of that keyspace were cleared

Where the next segment stands ready the active one is closed first, so that the next backup finds it sealed. Where not,
it is named with its end and grows on: making a segment would let requests wait for the disk.
Cost: some 50 ns a segment; no call to the disk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from kio.errors import InternalError, ShardReadOnly
from kio.segments.chain import SegmentChain
from kio.segments.clock import ShardClock


class Point(NamedTuple):
    """A point as it is told."""

    lsn: int
    epoch: int
    next_id: int
    clock_ms: int
    segments: list[int]
    unsealed: list[tuple[int, int, int]]
    floors: list[tuple[int, int, int]]


def take_point(chain: SegmentChain, clock: ShardClock, read_only_reason: str) -> bytes:
    """The point at the last LSN written, packed. For the store's thread.

    Args:
        read_only_reason: empty, or why the disk failed this shard.

    Raises:
        ShardReadOnly: when it did.
    """
    if read_only_reason:
        raise ShardReadOnly(f"{read_only_reason}; what the disk refused cannot be backed up, export instead")
    chain.seal_if_prepared()
    manifest = chain.manifest
    entries = manifest.entries()
    unsealed = chain.unsealed()
    growing = {number for number, _, _ in unsealed}
    # What is still "active" and holds nothing yet (the next segment, a fresh active one) is no part of the state.
    segments = [entry.id for entry in entries if entry.state != "active" or entry.id in growing]
    floors = [(keyspace, *floor) for keyspace, floor in dict(manifest.state.floors).items()]
    point = Point(chain.lsn, chain.epoch, manifest.state.next_id, clock.now_ms(), segments, unsealed, floors)
    packed: bytes = msgpack.packb(point._asdict())
    return packed


def read_point(told: dict[str, Any]) -> Point:
    """A point from what a daemon tells.

    Raises:
        InternalError: when it is none.
    """
    try:
        fields = {name: told[name] for name in Point._fields}
        fields["unsealed"] = [(int(number), int(end), int(lsn)) for number, end, lsn in fields["unsealed"]]
        fields["floors"] = [(int(keyspace), int(epoch), int(lsn)) for keyspace, epoch, lsn in fields["floors"]]
        return Point(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(f"the daemon told no point of a backup: {error!r}") from error
