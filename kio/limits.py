"""Every bound of kio in one place, and the relations between them that other code relies on.

Values with a name in the configuration (config.py) are defaults here; the rest is fixed by a format.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

#: A key's length is 16 bits in the record header.
KEY_BYTES_MAX: Final = 65_535
#: Default of `max_value_bytes`.
VALUE_BYTES_MAX: Final = 16 * MIB
#: The highest `max_value_bytes` that can be configured: a record must fit a segment.
VALUE_BYTES_CEILING: Final = 128 * MIB

#: Default of `segment_mib`, and the largest: a KeyDir word holds a 25-bit offset in units of 8 bytes.
SEGMENT_MIB: Final = 128
SEGMENT_MIB_MAX: Final = 256
SEGMENT_BYTES_CEILING: Final = 8 << 25
#: Segments a shard can hold: a KeyDir word holds a 16-bit slot, slot 0 is never used.
SEGMENTS_PER_SHARD_MAX: Final = 65_535
SHARDS_MAX: Final = 1024
#: The highest `max_memory_mib` that can be configured.
MEMORY_MIB_MAX: Final = 16 * MIB
KEYSPACES: Final = 256

#: Frames of the client protocol: what a frame may hold beside one value (key, array heads, request id).
FRAME_OVERHEAD_BYTES: Final = 128 * KIB
#: The least that `frame_bytes_max` is, whatever `max_value_bytes`, so that a batch of small values fits.
FRAME_BYTES_FLOOR: Final = 8 * MIB
#: Before the hello is done a frame is at most this long.
HELLO_BYTES_MAX: Final = 4 * KIB
#: A frame that is too long but not longer than this is skipped and answered; past it the connection is closed.
FRAME_SKIP_BYTES_MAX: Final = 256 * MIB
#: Keys in one frame; a client splits longer batches.
FRAME_KEYS_MAX: Final = 65_536
#: Operations of one atomic batch, and bytes of it: the whole must fit a segment.
ATOMIC_OPERATIONS_MAX: Final = 1_024
ATOMIC_BYTES_MAX: Final = 8 * MIB
#: A time to live, and a time since 1970, in milliseconds: any language's numbers hold them, and the sum of the two.
TTL_MS_MAX: Final = 2**52
EXPIRE_AT_MS_MAX: Final = 2**53 - 1
#: Values of one op batch's replies; the keys beyond it are answered ReplyTooLarge.
REPLY_BYTES_MAX: Final = 64 * MIB

#: All connections together, of frames that are not whole; past it a large half frame is answered Overloaded, skipped.
HALF_FRAMES_BYTES_MAX: Final = 512 * MIB
#: All connections together, of replies that are not sent; past it a connection that already has some of them waiting
#: gets ReplyTooLarge instead of values.
UNSENT_BYTES_MAX: Final = 1 * GIB

#: What may be in flight: past the soft bound a socket is not read, past the hard one Overloaded is answered.
CONNECTION_REQUESTS_MAX: Final = 1_024
CONNECTION_BYTES_MAX: Final = 64 * MIB
SHARD_OPERATIONS_MAX: Final = 262_144
SHARD_BYTES_MAX: Final = 256 * MIB

#: How long the commands of one connection may keep the others waiting, before it is their turn.
SHARE_US: Final = 500

CONNECTIONS_MAX: Final = 10_000
HELLO_TIMEOUT_S: Final = 10.0
#: A connection whose half frame, or whose unread replies, make no progress for this long is closed.
STALL_TIMEOUT_S: Final = 60.0

#: Default of `space_amplification`: bytes of records that the disk may hold for each live byte.
SPACE_AMPLIFICATION: Final = 1.4

#: Default of `open_segments`: cached descriptors of sealed segments in one worker.
OPEN_SEGMENTS: Final = 16


def frame_bytes_max(value_bytes_max: int) -> int:
    """The longest frame a daemon with this `max_value_bytes` takes: one value and one key always fit."""
    return max(FRAME_BYTES_FLOOR, value_bytes_max + FRAME_OVERHEAD_BYTES)


assert KEY_BYTES_MAX == 2**16 - 1
assert SEGMENT_MIB_MAX * MIB == SEGMENT_BYTES_CEILING
assert KEY_BYTES_MAX + KIB < FRAME_OVERHEAD_BYTES
assert VALUE_BYTES_CEILING + FRAME_OVERHEAD_BYTES < SEGMENT_BYTES_CEILING
assert frame_bytes_max(VALUE_BYTES_CEILING) <= FRAME_SKIP_BYTES_MAX
assert frame_bytes_max(VALUE_BYTES_MAX) < SHARD_BYTES_MAX
