"""The checkpoint file, format version 1: the KeyDir on disk, so that a start need not read the hints of every segment.

    checkpoint file = header, page * 512, segment*, keyspace*, trailer

Integers are little-endian, and every part begins at a multiple of 8. A shard has at most one checkpoint that its
manifest names, `checkpoint-N.ckpt`, and it is never changed once it is named; any other is a leftover of a crash.

Header, 64 bytes
    offset width
      0     8    magic "KIOCKPT\\n"
      8     2    format version
     10     2    0
     12     4    shard
     16     8    checkpoint id, from 1, rising
     24    16    directory id
     40     4    pages: 512
     44     4    bits of a word's tag: 20
     48    12    0
     60     4    CRC32C of bytes 0 to 59

Page, 24 bytes and its words; page 0 first
    offset width
      0     8    LSN: the page is as the records up to this one made it, and no later one
      8     4    page number
     12     4    number of words
     16     4    0
     20     4    CRC32C of bytes 0 to 19 and of the words, continued from the header's checksum
     24          words of the KeyDir (_keydir.pyx), in its order, without the empty places; the slots are those below

    >>> encode_page(0, Page(lsn=9, number=3, words=[1 << 44 | 2 << 28 | 64])).hex(" ", 8)
    '0900000000000000 0300000001000000 000000001eaeef8d 4000002000100000'

Segment, 24 bytes, one for each segment that the shard had when the last page was copied
      0     8    segment id
      8     8    bytes of live records in it, as the words above count them
     16     4    slot, 1 to 65,535: what the words call it
     20     4    0

Keyspace, 16 bytes, one for each that has keys
      0     8    number of keys
      8     4    keyspace
     12     4    0

Trailer, the last 64 bytes
      0     8    magic "KIOCEND\\n"
      8     8    offset of the first segment
     16     8    words in all pages
     24     8    lowest LSN of a page
     32     8    highest LSN of a page
     40     4    number of segments
     44     4    number of keyspaces
     48     4    CRC32C of segments and keyspaces, continued from the header's checksum
     52     8    0
     60     4    CRC32C of bytes 0 to 59, continued from the header's checksum

The pages are copied one after the other while the shard serves, so each has an LSN of its own; live bytes and key
counts are those of exactly these words (_checkpoint.pyx says how). The header's checksum binds every part to its file.

Reading (opening.py)
  * The manifest names the file by id, size and trailer checksum. Where it names none, or the file is missing, damaged
    anywhere, or another, the KeyDir is rebuilt from the hints of all segments: a checkpoint is never half believed.
  * Records behind a page's LSN are applied to it, from the segments that hold any.
  * A segment that the checkpoint does not know and that holds records up to a page's LSN is the output of a later
    compaction: every put in it was live when that page was copied, or is newer, and is applied.
  * A segment that it knows and that is gone was compacted: words that point there are left out.
  * A version above 1 is refused with FormatTooNew, and nothing is touched.

Downsides, and why they are accepted: it repeats eight bytes a key that hints hold too, written anew each time; in
return a start reads eight bytes a key instead of 32 for each record of the log.

Versions
    1   the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kio.errors import Corrupt, FormatTooNew
from kio.segments._hints import crc32c
from kio.segments.disk import Disk

VERSION: Final = 1
MAGIC: Final = b"KIOCKPT\n"
END_MAGIC: Final = b"KIOCEND\n"
PAGES: Final = 512
TAG_BITS: Final = 20

HEADER: Final = struct.Struct("<8sHHIQ16sII12xI")
PAGE: Final = struct.Struct("<QIIII")
SEGMENT: Final = struct.Struct("<QqII")
KEYSPACE: Final = struct.Struct("<QII")
TRAILER: Final = struct.Struct("<8sQQQQIII8xI")
WORD_BYTES: Final = 8

assert HEADER.size == 64
assert PAGE.size == 24
assert SEGMENT.size == 24
assert KEYSPACE.size == 16
assert TRAILER.size == 64

#: What is read at once, unless a page is longer: little enough to come from memory that was used before.
_CHUNK_BYTES: Final = 512 << 10


class Page(NamedTuple):
    """One page of the KeyDir as it was after the record `lsn`."""

    lsn: int
    number: int
    words: Sequence[int]


class Named(NamedTuple):
    """How the manifest names a checkpoint; `lsn_max` is the highest LSN of a page, `crc` the trailer's checksum."""

    id: int
    lsn_max: int
    size: int
    crc: int


class Contents(NamedTuple):
    """What stands behind the pages: what the checkpoint is about."""

    #: Words in all pages.
    words: int
    lsn_min: int
    lsn_max: int
    #: slot -> (segment id, live bytes)
    segments: Mapping[int, tuple[int, int]]
    #: keyspace -> keys
    keys: Mapping[int, int]


def checkpoint_name(checkpoint: int) -> str:
    """The file name of a checkpoint."""
    return f"checkpoint-{checkpoint}.ckpt"


def is_checkpoint_name(name: str) -> bool:
    """Whether a file of this name is a checkpoint."""
    return name.startswith("checkpoint-") and name.endswith(".ckpt")


def encode_header(shard: int, checkpoint: int, directory_id: bytes) -> bytes:
    """The 64 bytes a checkpoint begins with."""
    body = HEADER.pack(MAGIC, VERSION, 0, shard, checkpoint, directory_id, PAGES, TAG_BITS, 0)[:60]
    return body + struct.pack("<I", crc32c(body))


def header_crc(header: bytes) -> int:
    """What every other checksum of the file continues from."""
    return int(HEADER.unpack_from(header)[-1])


def encode_page(seed: int, page: Page) -> bytes:
    """One page of a checkpoint whose header has the checksum `seed`: the reference for what the kernel writes."""
    head = PAGE.pack(page.lsn, page.number, len(page.words), 0, 0)[:20]
    words = struct.pack(f"<{len(page.words)}Q", *page.words)
    return head + struct.pack("<I", crc32c(words, crc32c(head, seed))) + words


def encode_end(seed: int, offset: int, contents: Contents) -> bytes:
    """Segments, keyspaces and trailer, at `offset` of a checkpoint whose header has the checksum `seed`."""
    segments = sorted((id, live, slot) for slot, (id, live) in contents.segments.items())
    tables = b"".join(SEGMENT.pack(*segment, 0) for segment in segments)
    tables += b"".join(KEYSPACE.pack(keys, keyspace, 0) for keyspace, keys in sorted(contents.keys.items()))
    counts = len(contents.segments), len(contents.keys), crc32c(tables, seed)
    body = TRAILER.pack(END_MAGIC, offset, contents.words, contents.lsn_min, contents.lsn_max, *counts, 0)[:60]
    return tables + body + struct.pack("<I", crc32c(body, seed))


def trailer_crc(end: bytes) -> int:
    """The checksum that the manifest names a checkpoint by, from its last bytes."""
    return int(TRAILER.unpack(end[-TRAILER.size :])[-1])


class CheckpointFile:
    """A checkpoint opened for reading; header, trailer and what they say were verified, the pages were not.

    Attributes:
        seed: the header's checksum.
        contents: what it is about.
        ids: the segments that it knows.

    Raises:
        Corrupt: when it is not the checkpoint that `named` says, or damaged.
        FormatTooNew: when a newer kio wrote it.
        OSError: when it is missing or cannot be read.
    """

    def __init__(self, disk: Disk, path: Path, shard: int, directory_id: bytes, named: Named) -> None:
        self._disk = disk
        self._fd = disk.open(path)
        try:
            self._read_ends(shard, directory_id, named)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the descriptor up."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.close(fd)

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the pages, in order; no chunk begins or ends inside a page.

        Raises:
            Corrupt: when the pages do not fill the room they have.
        """
        at = HEADER.size
        rest = b""
        while at < self._pages_end:
            size = min(_CHUNK_BYTES, self._pages_end - at)
            data = rest + self._disk.read(self._fd, size, at)
            if len(data) != len(rest) + size:
                raise Corrupt("the checkpoint is shorter than it was")
            at += size
            whole = _whole_pages(data)
            yield data[:whole]
            rest = data[whole:]
        if rest:
            raise Corrupt("the checkpoint's last page is cut short")

    def _read_ends(self, shard: int, directory_id: bytes, named: Named) -> None:
        size = self._disk.size(self._fd)
        head = self._disk.read(self._fd, HEADER.size, 0)
        if len(head) < HEADER.size or size < HEADER.size + TRAILER.size:
            raise Corrupt(f"the checkpoint has only {size} bytes")
        self.seed = header_crc(head)
        magic, version, *_ = HEADER.unpack(head)
        if magic != MAGIC or self.seed != crc32c(head[:60]):
            raise Corrupt("the checkpoint's header fails its checksum")
        if version > VERSION:
            raise FormatTooNew(f"the checkpoint has format version {version}, this kio reads up to {VERSION}")
        trailer = self._disk.read(self._fd, TRAILER.size, size - TRAILER.size)
        if head != encode_header(shard, named.id, directory_id) or (size, trailer_crc(trailer)) != (
            named.size,
            named.crc,
        ):
            raise Corrupt("the checkpoint is not the one that the manifest names")
        magic, offset, words, lsn_min, lsn_max, segments, keyspaces, crc, own_crc = TRAILER.unpack(trailer)
        length = segments * SEGMENT.size + keyspaces * KEYSPACE.size
        if magic != END_MAGIC or own_crc != crc32c(trailer[:60], self.seed) or offset + length != size - TRAILER.size:
            raise Corrupt("the checkpoint's trailer fails its checksum")
        tables = self._disk.read(self._fd, length, offset)
        if len(tables) != length or crc32c(tables, self.seed) != crc:
            raise Corrupt("the checkpoint's list of segments fails its checksum")
        split = segments * SEGMENT.size
        self._pages_end = offset
        self.contents = Contents(
            words,
            lsn_min,
            lsn_max,
            {slot: (id, live) for id, live, slot, _ in SEGMENT.iter_unpack(tables[:split])},
            {keyspace: keys for keys, keyspace, _ in KEYSPACE.iter_unpack(tables[split:])},
        )
        self.ids = frozenset(id for id, _ in self.contents.segments.values())


def _whole_pages(data: bytes) -> int:
    """How many of these bytes are whole pages."""
    at = 0
    while at + PAGE.size <= len(data):
        following = at + PAGE.size + PAGE.unpack_from(data, at)[2] * WORD_BYTES
        if following > len(data):
            break
        at = following
    return at
