"""How tests/golden/checkpoint_v1.ckpt was made: a checkpoint of shard 0 of tests/golden/v2, by the reference encoders.

`make` gives the same bytes for ever: a format that no longer agrees with it is a new version, with a file of its own.
The lower half of the pages was copied one record earlier than the upper half; what had expired was not swept yet.
"""

from __future__ import annotations

from kio.hashing import routed_hash
from kio.segments import checkpoint, format
from kio.segments.checkpoint import Contents, Named, Page
from kio.segments.format import CLEAR, PUT, Record
from tests.golden.make_v2 import IDENTITY, RECORDS

SHARD, ID = 0, 7
#: The LSN of a page.
LSN_LOW, LSN_HIGH, HALF = 12, 13, 256
#: Segments have other slots than a start gives them.
SLOTS = {1: 30, 2: 20, 3: 10}


def make() -> tuple[Named, bytes]:
    """How the manifest has to name the file, and its bytes."""
    header = checkpoint.encode_header(SHARD, ID, IDENTITY.directory_id)
    seed = checkpoint.header_crc(header)
    live = dict.fromkeys(SLOTS, 0)
    keys: dict[int, int] = {}
    data, words = header, 0
    held = _held()
    for number in range(checkpoint.PAGES):
        lsn = LSN_LOW if number < HALF else LSN_HIGH
        newest: dict[tuple[int, bytes], tuple[Record, int, int, int]] = {}
        for page, record, tag, segment, offset in held:
            if page == number and record.lsn <= lsn:
                newest[record.keyspace, record.key] = (record, tag, segment, offset)
        there = [found for found in newest.values() if found[0].kind == PUT and found[0].keyspace != 9]
        for record, _, segment, _ in there:
            live[segment] += len(format.encode_record(0, record))
            keys[record.keyspace] = keys.get(record.keyspace, 0) + 1
        encoded = sorted(tag << 44 | SLOTS[segment] << 28 | offset for _, tag, segment, offset in there)
        words += len(encoded)
        data += checkpoint.encode_page(seed, Page(lsn, number, encoded))
    segments = {slot: (segment, live[segment]) for segment, slot in SLOTS.items()}
    data += checkpoint.encode_end(seed, len(data), Contents(words, LSN_LOW, LSN_HIGH, segments, keys))
    return Named(ID, LSN_HIGH, len(data), checkpoint.trailer_crc(data)), data


def _held() -> list[tuple[int, Record, int, int, int]]:
    """(page, record, tag, segment, offset) of each record with a key, oldest first."""
    found = []
    for segment, records in enumerate(RECORDS[SHARD], 1):
        offset = format.HEADER.size
        for record in records:
            hash = routed_hash(record.key, IDENTITY.seed, record.keyspace) & 0xFFFFFFFF
            if record.kind != CLEAR:
                found.append((hash >> 23, record, hash >> 3 & 0xFFFFF, segment, offset))
            offset += len(format.encode_record(0, record))
    return found
