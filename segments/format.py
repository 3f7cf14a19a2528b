"""The segment file, format version 2.

    segment file = header, record*, [hint*, expiry*, footer]        what is in brackets: sealed segments only

Integers are little-endian, offsets count from the start of the file, and every part begins at a multiple of 8. A
segment that is still written to is longer than its records: what lies behind the last one is zero, reserved ahead.

Header, 64 bytes
    offset width
      0     8    magic "KIOSEG\\x1a\\n"
      8     2    format version
     10     2    0
     12     4    shard
     16     8    segment id, from 1, never used twice in a shard
     24    16    directory id
     40     8    salt, random
     48     4    epoch when the segment was made
     52     8    0
     60     4    CRC32C of bytes 0 to 59
    The manifest knows salt and epoch as well: a damaged header is reported and costs nothing.

Record, at least 32 bytes with its key
    offset width
      0     4    CRC32C of all that follows, padding included, continued from the segment's CRC seed
      4     4    value length; the 4 highest bits are 0
      8     8    LSN: per shard, rises by one with each record written, never used twice in one epoch
     16     4    epoch: (epoch, LSN) is the record's version, and the highest version of a key counts
     20     2    key length
     22     1    kind (bits 0 to 2) and flags
     23     1    keyspace
     24          [expiry, 8: ms since 1970] [request id, 16] key, value, zeros to a multiple of 8

    kind  1 put    2 tombstone: the key is deleted    3 clear: all older records of the keyspace are    0 is never valid
    flags   8 expiry is there    16 request id is there    32 more records of an atomic batch follow
           64 collides: another key of the same tag was there when this key came in (_hints.pyx says what for)
          128 hides: an older version of this key was live
    Only puts carry an expiry: from that moment on the key is absent, yet the record still hides older ones. Request ids
    are written by nobody so far, and stepped over.

The CRC seed is the CRC32C of (shard u32, segment id u64, salt u64). So a record read at the wrong place, from another
segment, or left behind by another file in the same blocks, does not pass. Value length 0 is a value; key length 0 is
only in a clear record. A zeroed page is no record, because kind 0 is none.

    >>> encode_record(1, Record(lsn=7, epoch=2, kind=PUT, keyspace=0, key=b"kio", value=b"fast")).hex(" ", 8)
    '14cc9d5404000000 0700000000000000 0200000003000100 6b696f6661737400'

Hint, 32 bytes, sorted by (order, epoch, LSN)
    offset width
      0     8    order: the routed hash (kio/hashing.py), its 32-bit halves swapped; 0 for the kinds without key
      8     8    LSN
     16     4    epoch
     20     4    offset of the record / 8
     24     4    length of the record / 8
     28     2    key length
     30     1    kind and flags; kind 7: bytes that could not be read, LSN = the highest that may be lost there
     31     1    keyspace

Expiry, 24 bytes, one for each put that has one, sorted by (time, offset): what the sweeper (expiry.py) walks
    offset width
      0     8    ms since 1970
      8     4    the upper half of the hint's order: KeyDir page and tag
     12     4    offset of the record / 8
     16     4    length of the record / 8
     20     1    keyspace
     21     3    0

Footer, the last 136 bytes: see FOOTER. It repeats shard, id and salt, says where records end and hints begin, counts
hints and expiries, and holds the content hash (BLAKE2b, 128 bits, of header and records) by which copies of a segment
are compared. The expiries stand directly behind the hints, the footer directly behind the expiries.

Reading
  * Lengths are checked against what is left of the segment before anything is read by them.
  * In a segment that was never sealed, bytes behind the last valid record are a torn tail when no valid record
    follows: it is cut. Damage with valid records behind it is corruption: the rest is served, nothing is cut.
  * In a sealed segment every mismatch is corruption.
  * A version above 2 is refused with FormatTooNew, and nothing is touched.

Downsides, and why they are accepted: hints repeat 32 bytes a record, a quarter of a 100-byte value's record, for a
restart that reads no value; expiries repeat 24 more, for a sweep that reads no record; a cold record costs a page read
even if only its key is compared.

Versions
    1   the first. No expiries: the footer has zeros where their count and checksum stand, so it reads as one without.
    2   records carry their expiry, sealed segments the list of expiries. A segment begun by version 1 may be sealed by
        version 2: header and footer tell their versions each for itself.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kio.errors import Corrupt, FormatTooNew
from kio.segments._hints import crc32c

VERSION: Final = 2
SEGMENT_MAGIC: Final = b"KIOSEG\x1a\n"
FOOTER_MAGIC: Final = b"KIOFOOT\n"

PUT: Final = 1
TOMBSTONE: Final = 2
CLEAR: Final = 3
DAMAGED: Final = 7
KIND_MASK: Final = 0x07
EXPIRY: Final = 0x08
REQUEST_ID: Final = 0x10
BATCH_OPEN: Final = 0x20
COLLIDES: Final = 0x40
HIDES: Final = 0x80

HEADER: Final = struct.Struct("<8sHHIQ16sQI8xI")
RECORD: Final = struct.Struct("<IIQIHBB")
HINT: Final = struct.Struct("<QQIIIHBB")
EXPIRY_ENTRY: Final = struct.Struct("<QIIIB3x")
#: magic, version, 0, shard, segment id, salt, end of records, offset of hints, hints, expiries, puts, tombstones,
#: live bytes and dead bytes at seal, lowest LSN, highest LSN, highest epoch, CRC32C of the hints, content hash,
#: CRC32C of the expiries, CRC32C of all that
FOOTER: Final = struct.Struct("<8sHHIQQQQIIQQQQQQII16sII")
SEED: Final = struct.Struct("<IQQ")

assert HEADER.size == 64
assert RECORD.size == 24
assert HINT.size == 32
assert EXPIRY_ENTRY.size == 24
assert FOOTER.size == 136


class Header(NamedTuple):
    """A segment's header."""

    shard: int
    segment: int
    directory_id: bytes
    salt: int
    epoch: int


class Record(NamedTuple):
    """One record; `kind` without flags, `expiry` in ms since 1970 where the flag EXPIRY is set."""

    lsn: int
    epoch: int
    kind: int
    keyspace: int
    key: bytes
    value: bytes
    flags: int = 0
    expiry: int = 0


class Footer(NamedTuple):
    """A sealed segment's footer; offsets and lengths in bytes."""

    shard: int
    segment: int
    salt: int
    end: int
    hints_offset: int
    hints: int
    expiries: int
    puts: int
    tombstones: int
    live_bytes: int
    dead_bytes: int
    lsn_min: int
    lsn_max: int
    epoch_max: int
    hints_crc: int
    content_hash: bytes
    expiries_crc: int

    @property
    def expiries_offset(self) -> int:
        """Where the expiries begin."""
        return self.hints_offset + self.hints * HINT.size

    @property
    def size(self) -> int:
        """The length of the whole file."""
        return self.expiries_offset + self.expiries * EXPIRY_ENTRY.size + FOOTER.size


def crc_seed(shard: int, segment: int, salt: int) -> int:
    """What the checksum of every record of this segment continues from."""
    return crc32c(SEED.pack(shard, segment, salt))


def encode_header(header: Header, version: int = VERSION) -> bytes:
    """The 64 bytes a segment begins with."""
    body = HEADER.pack(
        SEGMENT_MAGIC, version, 0, header.shard, header.segment, header.directory_id, header.salt, header.epoch, 0
    )[:60]
    return body + struct.pack("<I", crc32c(body))


def decode_header(data: bytes) -> Header:
    """The header at the start of `data`.

    Raises:
        Corrupt: when these are not the bytes of a header.
        FormatTooNew: when a newer kio wrote the segment.
    """
    if len(data) < HEADER.size:
        raise Corrupt(f"a segment of {len(data)} bytes is shorter than its header")
    magic, version, _, shard, segment, directory_id, salt, epoch, checksum = HEADER.unpack_from(data)
    if magic != SEGMENT_MAGIC or checksum != crc32c(data[:60]):
        raise Corrupt("the segment's header fails its checksum")
    if version > VERSION:
        raise FormatTooNew(f"the segment has format version {version}, this kio reads up to {VERSION}")
    return Header(shard, segment, directory_id, salt, epoch)


def encode_record(seed: int, record: Record) -> bytes:
    """One record of a segment whose CRC seed is `seed`: the reference for what the kernel writes."""
    head = RECORD.pack(
        0, len(record.value), record.lsn, record.epoch, len(record.key), record.kind | record.flags, record.keyspace
    )
    expiry = struct.pack("<Q", record.expiry) if record.flags & EXPIRY else b""
    body = head[4:] + expiry + record.key + record.value
    body += bytes(-(len(body) + 4) % 8)
    return struct.pack("<I", crc32c(body, seed)) + body


def decode_record(data: bytes, seed: int) -> tuple[Record, int]:
    """The record at the start of `data`, and its length in bytes.

    Raises:
        Corrupt: when it does not fit `data` or fails its checksum.
    """
    if len(data) < RECORD.size:
        raise Corrupt("a record's header is cut short")
    checksum, value_length, lsn, epoch, key_length, kind, keyspace = RECORD.unpack_from(data)
    key_at = RECORD.size + (8 if kind & EXPIRY else 0) + (16 if kind & REQUEST_ID else 0)
    expiry = int.from_bytes(data[RECORD.size : RECORD.size + 8], "little") if kind & EXPIRY else 0
    end = key_at + key_length + value_length
    size = end + -end % 8
    if kind & KIND_MASK not in (PUT, TOMBSTONE, CLEAR) or value_length >> 28 or size > len(data):
        raise Corrupt("a record's header is impossible")
    found = crc32c(data[4:size], seed)
    if found != checksum:
        raise Corrupt(f"a record fails its checksum: {found:08x}, header says {checksum:08x}")
    key = data[key_at : key_at + key_length]
    value = data[key_at + key_length : end]
    return Record(lsn, epoch, kind & KIND_MASK, keyspace, key, value, kind & ~KIND_MASK, expiry), size


def encode_footer(footer: Footer, version: int = VERSION) -> bytes:
    """The last 136 bytes of a sealed segment."""
    body = FOOTER.pack(FOOTER_MAGIC, version, 0, *footer, 0)[:-4]
    return body + struct.pack("<I", crc32c(body))


def decode_footer(data: bytes) -> Footer:
    """The footer in the last 136 bytes of `data`.

    Raises:
        Corrupt, FormatTooNew: as `decode_header`.
    """
    tail = data[-FOOTER.size :]
    if len(tail) < FOOTER.size:
        raise Corrupt("the segment is shorter than its footer")
    magic, version, _, *fields, checksum = FOOTER.unpack(tail)
    if magic != FOOTER_MAGIC or checksum != crc32c(tail[:-4]):
        raise Corrupt("the segment's footer fails its checksum")
    if version > VERSION:
        raise FormatTooNew(f"the segment's footer has format version {version}, this kio reads up to {VERSION}")
    return Footer(*fields)
