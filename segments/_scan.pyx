"""Scanning: pages of keys in the order of the KeyDir.

A scan walks the KeyDir instead of looking up keys, and reads every record it passes. Cursors are positions in the order of
(page, tag), which no growth, overwrite or restart changes: so a key that stays is returned exactly once, and no state is
kept between pages. A tag's words are never parted by a page's end.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memset

from kio.segments._engine cimport Buffer, Engine, cleared_bytes, expiry_of, has_expired, reserve
from kio.segments._format cimport FLAG_EXPIRY, Record, key_offset, record_bytes
from kio.segments._keydir cimport PAGES, TAG_BITS, Page, first_of, word_offset, word_slot, word_tag
from kio.segments._native cimport kio_guarded_copy, kio_guarded_header, kio_guarded_read, kio_prefetch, setup

from kio import errors


setup()

cdef enum:
    EXAMINED_MAX = 16384    # words that one page looks at: a bound on its time
    BYTES_MAX = 8 << 20
    HEAD = 5                # msgpack array 32
    UINT = 9                # msgpack uint 64
    AHEAD = 16              # words between a prefetch and its use
    # `what`: parts of a record behind its key (wire.py)
    WITH_VALUE = 1
    WITH_EXPIRY = 2


def scan(Engine engine, uint64_t cursor, uint32_t limit, uint8_t what, bytes prefix, uint8_t keyspace):
    """One page of the keys that begin with `prefix`: (next cursor, a msgpack array of keys and what belongs to them).

    Args:
        cursor: 0 begins, and as next cursor ends.
        limit: keys, at least 1; keys of one tag may take the page past it. A page may be empty before the end.
        what: 1: each key is followed by its value, 2: and then by its expiry in ms since 1970, 0 for none.

    Raises:
        Corrupt: when a record on the way is damaged.
        ShardReadOnly: when one on the way was lost by a failed sync.
        BadRequest: when `limit` is 0, or `what` is not one of these.
    """
    cdef Buffer out
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(prefix)
    cdef size_t length = PyBytes_GET_SIZE(prefix)
    memset(&out, 0, sizeof(out))
    if limit == 0:
        raise errors.BadRequest("a scan page holds at least 1 key")
    if what > WITH_EXPIRY:
        raise errors.BadRequest(f"a scan gives keys, values or expiries (0, 1, 2), not {what}")
    try:
        with nogil:
            _scan(engine, &cursor, limit, what, start, length, keyspace, &out)
        return cursor, PyBytes_FromStringAndSize(<char*>out.data, out.size) if out.size > HEAD else b"\x90"
    finally:
        free(out.data)


cdef int _scan(Engine engine, uint64_t* cursor, uint32_t limit, uint8_t what, const uint8_t* prefix, size_t prefix_length,
               uint8_t keyspace, Buffer* out) except -1 nogil:
    cdef uint64_t start = cursor[0] - 1 if cursor[0] else 0
    cdef uint32_t p = <uint32_t>(start >> TAG_BITS), tag = <uint32_t>start & ((1 << TAG_BITS) - 1)
    cdef uint32_t at, examined = 0, found = 0
    cdef Page* page
    cdef uint64_t word, room
    cdef bint is_full
    reserve(out, HEAD)
    out.size = HEAD
    cursor[0] = 0
    while p < PAGES:
        page = &engine.keydir.pages[p]
        at = first_of(page, tag)
        while at < page.slots:
            word = page.words[at]
            if word == 0:
                at += 1
                continue
            is_full = found >= limit or out.size >= BYTES_MAX or examined >= EXAMINED_MAX
            if is_full and word_tag(word) != tag:
                cursor[0] = ((<uint64_t>p << TAG_BITS) | word_tag(word)) + 1
                break
            tag = word_tag(word)
            if at + AHEAD < page.slots and page.words[at + AHEAD] != 0:
                kio_prefetch(engine.address(page.words[at + AHEAD], &room))
            found += _take(engine, word, what, prefix, prefix_length, keyspace, out)
            examined += 1
            at += 1
        if cursor[0]:
            break
        p += 1
        tag = 0
        if p < PAGES and (found >= limit or out.size >= BYTES_MAX or examined >= EXAMINED_MAX):
            cursor[0] = (<uint64_t>p << TAG_BITS) + 1
            break
    found *= 1 + what
    out.data[0] = 0xDD
    out.data[1], out.data[2], out.data[3], out.data[4] = found >> 24, (found >> 16) & 255, (found >> 8) & 255, found & 255
    return 0


cdef int _take(Engine engine, uint64_t word, uint8_t what, const uint8_t* prefix, size_t prefix_length, uint8_t keyspace,
               Buffer* out) except -1 nogil:
    """Append the key of one word, and `what` belongs to it; 1, or 0 when it is not wanted."""
    cdef Record header
    cdef uint64_t room, expiry
    cdef const uint8_t* record = engine.address(word, &room)
    cdef size_t before = out.size
    if kio_guarded_header(&header, record, room) != 1:
        return _raise_corrupt(engine, word)
    if engine.has_floors and cleared_bytes(engine, record, room):
        return 0
    if header.lsn > engine.served_lsn_max:
        with gil:
            raise errors.ShardReadOnly("a key on this page was lost by a failed sync")
    if header.keyspace != keyspace or header.key_length < prefix_length or has_expired(engine, &header, record):
        # Passed over by fields that may be damaged themselves: a key must not go missing in silence.
        if not engine._is_intact(record, room, word_slot(word)):
            return _raise_corrupt(engine, word)
        return 0
    reserve(out, 2 * HEAD + UINT + header.key_length + header.value_length)
    _bin_head(out, header.key_length)
    # The whole record is verified as the key is copied out of it; only then is the key compared.
    if kio_guarded_read(record, record_bytes(&header), engine.segments[word_slot(word)].crc_seed, out.data + out.size,
                        key_offset(header.kind), header.key_length) != 1:
        return _raise_corrupt(engine, word)
    if prefix_length and memcmp(out.data + out.size, prefix, prefix_length) != 0:
        out.size = before
        return 0
    out.size += header.key_length
    if what >= WITH_VALUE:
        _bin_head(out, header.value_length)
        if kio_guarded_copy(out.data + out.size, record + key_offset(header.kind) + header.key_length,
                            header.value_length) != 1:
            return _raise_corrupt(engine, word)
        out.size += header.value_length
        engine.bytes_read += header.value_length
    if what >= WITH_EXPIRY:
        expiry = expiry_of(&header, record)
        if expiry == 0 and header.kind & FLAG_EXPIRY:
            return _raise_corrupt(engine, word)
        _uint(out, expiry)
    return 1


cdef void _bin_head(Buffer* out, uint32_t n) noexcept nogil:
    cdef uint8_t* p = out.data + out.size
    if n < 256:
        p[0], p[1] = 0xC4, n
        out.size += 2
    elif n < 65536:
        p[0], p[1], p[2] = 0xC5, n >> 8, n & 255
        out.size += 3
    else:
        p[0], p[1], p[2], p[3], p[4] = 0xC6, n >> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255
        out.size += 5


cdef void _uint(Buffer* out, uint64_t n) noexcept nogil:
    cdef uint8_t* p = out.data + out.size
    cdef int i
    if n < 0x80:
        p[0] = <uint8_t>n
        out.size += 1
        return
    p[0] = 0xCF
    for i in range(8):
        p[1 + i] = (n >> (56 - 8 * i)) & 255
    out.size += UINT


cdef int _raise_corrupt(Engine engine, uint64_t word) except -1 nogil:
    with gil:
        raise errors.Corrupt(f"segment {engine.segments[word_slot(word)].id} of shard {engine.shard} is corrupt at offset "
                             f"{word_offset(word)}; run \"kio check --shard {engine.shard}\"")
