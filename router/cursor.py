"""Where a scan over all shards has come to: a cursor as clients see it.

    offset width
      0     1     version, 1
      1     2     shard, big-endian
      3     8     the cursor within that shard, big-endian; 0 begins it

A scan walks the shards in their order. The shard count of a data directory never changes, so a cursor stays valid
across restarts as long as the shard's own does.
"""

from __future__ import annotations

import struct
from typing import Final

from kio.errors import BadRequest

VERSION: Final = 1
_CURSOR: Final = struct.Struct(">BHQ")


def encode(shard: int, within: int) -> bytes:
    """The cursor of a scan that goes on in `shard` at `within`."""
    return _CURSOR.pack(VERSION, shard, within)


def decode(cursor: bytes, shards: int) -> tuple[int, int]:
    """(shard, cursor within it); an empty cursor begins with the first shard.

    Raises:
        BadRequest: when it is no cursor of a daemon with this many shards.
    """
    if not cursor:
        return 0, 0
    if len(cursor) == _CURSOR.size:
        version, shard, within = _CURSOR.unpack(cursor)
        if version == VERSION and shard < shards:
            return shard, within
    raise BadRequest("this is not a scan's cursor of this daemon; begin again with an empty one")
