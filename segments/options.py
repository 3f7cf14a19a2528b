"""What may be set of a store."""

from __future__ import annotations

from dataclasses import dataclass

from kio.limits import MIB, OPEN_SEGMENTS, SPACE_AMPLIFICATION, VALUE_BYTES_MAX


@dataclass(frozen=True)
class StoreOptions:
    """How a store behaves; none of it is written to disk."""

    #: A segment is sealed when the next record would pass this many bytes; a longer record gets a segment of its own.
    segment_bytes: int = 128 * MIB
    #: Cached descriptors of sealed segments.
    open_segments: int = OPEN_SEGMENTS
    value_bytes_max: int = VALUE_BYTES_MAX
    #: KeyDir and buffers: where the KeyDir would grow past it, new keys are refused with MemoryFull. 0: no bound.
    memory_bytes_max: int = 0
    #: "always" parks what is not durable; the other two answer at once.
    sync: str = "interval"
    #: Bytes of records per live byte above which the shard is compacted.
    space_amplification: float = SPACE_AMPLIFICATION
    #: The dead part above which a segment is compacted for itself; 0 is never.
    dead_ratio: float = 0.0
    #: Why the disk failed this shard in an earlier life of the worker: it is opened for reading, and not changed, until
    #: an operator has started the daemon anew. Empty: it takes writes.
    read_only_reason: str = ""
    #: A checkpoint is taken when so much time has passed since the last one, if anything was written.
    checkpoint_interval_s: float = 60.0
