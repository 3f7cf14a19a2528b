# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Hints: the list of a segment's records without keys and values, and the KeyDir that many such lists make.

`scan` reads a segment record by record, verifies each, and gives the hints; `rebuild` merges the hints of all segments into
an empty KeyDir. Hints are sorted by (order, epoch, LSN), where `order` is the hash with its halves swapped: so sorted lists
run in the order of KeyDir pages and tags, and rebuilding is one pass over all lists, page by page, with the memory of one
page; nothing is read from the log.

Which record wins: the highest (epoch, LSN) of a key. Records of equal hash are of one key, unless one of them carries
FLAG_COLLIDES: the engine sets it on a record when another key of its tag was there, and every later record of that key
inherits it. So as long as two keys of equal hash live, the younger one is flagged, and only such groups need their key bytes.

Damage: a record that fails its checksum is skipped by searching for the next valid record, with a higher LSN; what lies
between becomes a hint of kind "damaged", since nobody knows whose it was. Where no valid record follows, it is a torn tail.
Both functions run without the GIL, so they belong into helper threads.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from kio._xxh64 cimport routed_hash
from kio.segments._expiries cimport Expiry, ExpiryList, add_expiry, reserve_expiries, sort_expiries
from kio.segments._format cimport (
    FLAG_BATCH_OPEN, FLAG_COLLIDES, FLAG_EXPIRY, HINT_BYTES, KIND_CLEAR, KIND_DAMAGED, KIND_MASK, KIND_PUT, KIND_TOMBSTONE, RECORD_HEADER, Hint, Record,
    key_offset, order_of, record_bytes,
)
from kio.segments._keydir cimport PAGES, KeyDir, make_word
from kio.segments._native cimport FAULT, kio_crc32c, kio_guarded_copy, kio_guarded_crc, kio_guarded_header, kio_guarded_read, setup

import errno
from typing import NamedTuple


setup()

cdef enum:
    BUCKETS = 4096


class Scan(NamedTuple):
    """What `scan` found in a segment."""

    #: The hints, sorted: `count` times 32 bytes.
    hints: bytes
    #: Offset behind the last valid record.
    end: int
    #: Bytes behind `end` that are not zero: a torn tail, if the segment was active.
    torn_bytes: int
    #: (offset, bytes) of what is damaged with valid records behind it.
    damaged: list
    records: int
    puts: int
    tombstones: int
    lsn_first: int
    lsn_min: int
    lsn_max: int
    epoch_max: int
    #: (keyspace, epoch, LSN) of each clear record.
    clears: list
    #: The expiries of puts, sorted: as they stand in a sealed segment.
    expiries: bytes


class Rebuilt(NamedTuple):
    """What `rebuild` counted."""

    #: Keys in each keyspace: 256 numbers.
    keys: list
    #: Bytes of live records in each source, in the order of the sources.
    live_bytes: list


def crc32c(data, uint32_t seed=0):
    """CRC32C of a bytes-like object, continuing from `seed`.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    cdef const uint8_t[::1] view = data
    cdef uint32_t crc
    cdef const uint8_t* p
    cdef size_t n = view.shape[0]
    if n == 0:
        return seed
    p = &view[0]
    with nogil:
        crc = kio_crc32c(seed, p, n)
    return crc


def crc32c_mapped(const uint8_t[::1] mapped):
    """CRC32C of a part of a mapping, without the GIL.

    Raises: OSError (EIO) when the disk does not deliver it.
    """
    cdef uint32_t crc = 0
    cdef int outcome = 1
    if mapped.shape[0]:
        with nogil:
            outcome = kio_guarded_crc(&crc, 0, &mapped[0], mapped.shape[0])
    if outcome != 1:
        raise OSError(errno.EIO, "a mapped file could not be read")
    return crc


def hash_key(bytes key, uint64_t seed, uint8_t keyspace=0):
    """The routed hash as the kernel computes it: the same number as `kio.hashing.routed_hash`."""
    cdef const uint8_t* p = key
    return routed_hash(p, len(key), seed, keyspace)


cdef struct HintList:
    Hint* items
    size_t count
    size_t capacity


cdef int _push(HintList* l, const Hint* h) except -1 nogil:
    cdef void* items
    cdef size_t capacity
    if l.count == l.capacity:
        capacity = max(l.capacity * 2, <size_t>1024)
        items = realloc(l.items, capacity * sizeof(Hint))
        if items == NULL:
            with gil:
                raise MemoryError(f"no memory for {capacity} hints")
        l.items = <Hint*>items
        l.capacity = capacity
    l.items[l.count] = h[0]
    l.count += 1
    return 0


cdef inline bint _before(const Hint* a, const Hint* b) noexcept nogil:
    if a.order != b.order:
        return a.order < b.order
    if a.epoch != b.epoch:
        return a.epoch < b.epoch
    return a.lsn < b.lsn


cdef int _compare(const void* a, const void* b) noexcept nogil:
    if _before(<const Hint*>a, <const Hint*>b):
        return -1
    return 1 if _before(<const Hint*>b, <const Hint*>a) else 0


cdef int _sort(const HintList* l, Hint* out) except -1 nogil:
    """Sort `l` into `out`: one distribution by the highest bits, then each small bucket."""
    cdef size_t* starts = <size_t*>malloc((BUCKETS + 1) * sizeof(size_t))
    cdef size_t i, b
    if starts == NULL:
        with gil:
            raise MemoryError("no memory to sort hints")
    memset(starts, 0, (BUCKETS + 1) * sizeof(size_t))
    for i in range(l.count):
        starts[(l.items[i].order >> 52) + 1] += 1
    for b in range(BUCKETS):
        starts[b + 1] += starts[b]
    for i in range(l.count):
        b = l.items[i].order >> 52
        out[starts[b]] = l.items[i]
        starts[b] += 1
    b = 0
    for i in range(BUCKETS):
        if starts[i] - b > 1:
            qsort(out + b, starts[i] - b, sizeof(Hint), _compare)
        b = starts[i]
    free(starts)
    return 0


cdef uint64_t _torn_bytes(const uint8_t* base, uint64_t at, uint64_t stop) noexcept nogil:
    """How many bytes from `at` on, up to the last one that is not zero; unreadable ones count."""
    cdef uint8_t chunk[4096]
    cdef uint64_t n, i, last = 0, start = at
    while at < stop:
        n = min(stop - at, <uint64_t>sizeof(chunk))
        if kio_guarded_copy(chunk, base + at, n) != 1:
            return stop - start
        for i in range(n):
            if chunk[i] != 0:
                last = at + i + 1 - start
        at += n
    return last


def scan(const uint8_t[::1] mapping, uint64_t start, uint64_t stop, uint32_t crc_seed, uint64_t seed, bint is_ordered=True,
         uint32_t epoch_max=0xFFFFFFFF, data_end=None):
    """Read the records of `mapping` from offset `start` to `stop`, without the GIL.

    Args:
        crc_seed: the segment's, see format.py.
        seed: the directory's hash seed.
        is_ordered: LSNs rise through the segment, as they do in every segment that was active; and an atomic batch at its end
            that is not whole was never acknowledged: it is not among the records, and counts as torn.
        epoch_max: no record can have a higher epoch; bytes that look like a header are then cheap to tell from one.
        data_end: from here to `stop` the file is a hole: no record begins there, but one may reach into it, where a
            sparse copy made a hole of its last zeros. None when that is not known.
    Raises: OSError (EIO) when the disk does not deliver the bytes: that says nothing about what they are.
    Cost: about 60 ms for 128 MiB that are in memory; a hole costs nothing, or 2.6 ms a MiB where it is not known.
    """
    cdef HintList l
    cdef ExpiryList expiries
    cdef const uint8_t* base = &mapping[0]
    cdef uint64_t last_start = stop if data_end is None else min(stop, <uint64_t>data_end)
    cdef uint64_t at = start, end = start, torn = 0, first = 0, low = 0, high = 0, puts = 0, tombstones = 0, records = 0
    cdef uint32_t epoch = 0
    cdef size_t i
    cdef bytes hints
    cdef Hint* out
    memset(&l, 0, sizeof(l))
    memset(&expiries, 0, sizeof(expiries))
    if stop > <uint64_t>mapping.shape[0] or start > stop:
        raise ValueError(f"a segment of {mapping.shape[0]} bytes cannot be scanned from {start} to {stop}")
    try:
        with nogil:
            end = _scan(&l, &expiries, base, start, stop, last_start, crc_seed, seed, is_ordered, epoch_max)
            torn = _torn_bytes(base, end, last_start)
            if l.count:
                first = l.items[0].lsn
            for i in range(l.count):
                if l.items[i].kind & KIND_MASK == KIND_DAMAGED:
                    continue
                records += 1
                puts += l.items[i].kind & KIND_MASK == KIND_PUT
                tombstones += l.items[i].kind & KIND_MASK == KIND_TOMBSTONE
                low = l.items[i].lsn if low == 0 or l.items[i].lsn < low else low
                high = max(high, l.items[i].lsn)
                epoch = max(epoch, l.items[i].epoch)
        hints = PyBytes_FromStringAndSize(NULL, l.count * sizeof(Hint))
        out = <Hint*>PyBytes_AS_STRING(hints)
        with nogil:
            _sort(&l, out)
            sort_expiries(&expiries)
        clears, damaged = _specials(out, l.count)
        return Scan(hints, end, torn,
                    [(offset, size) for offset, size, _ in damaged], records, puts, tombstones, first, low, high, epoch,
                    clears, PyBytes_FromStringAndSize(<char*>expiries.items, expiries.count * sizeof(Expiry)))
    finally:
        free(l.items)
        free(expiries.items)


cdef uint64_t _scan(HintList* l, ExpiryList* expiries, const uint8_t* base, uint64_t at, uint64_t stop,
                    uint64_t last_start, uint32_t crc_seed, uint64_t seed, bint is_ordered,
                    uint32_t epoch_max) except? 0 nogil:
    cdef Record r
    cdef Hint h
    cdef uint64_t size, last = 0, end = at, bad = 0, group = 0      # where an atomic batch begins that is not whole yet
    cdef size_t group_hints = 0, group_expiries = 0
    cdef int outcome
    cdef uint32_t optional
    cdef uint8_t* fields = <uint8_t*>malloc(24 + 65536)     # what stands between header and value
    cdef const uint8_t* key
    if fields == NULL:
        with gil:
            raise MemoryError("no memory for a key")
    while at < last_start and at + RECORD_HEADER <= stop:
        outcome = kio_guarded_header(&r, base + at, stop - at)
        if outcome == 1 and r.epoch <= epoch_max and \
                (not is_ordered or (r.lsn > last and _is_near(&r, last, bad))):
            size = record_bytes(&r)
            optional = key_offset(r.kind) - RECORD_HEADER
            outcome = kio_guarded_read(base + at, size, crc_seed, fields, RECORD_HEADER, optional + r.key_length)
            if outcome == 1:
                if bad:
                    h = Hint(0, r.lsn - 1, r.epoch, <uint32_t>(bad >> 3), <uint32_t>((at - bad) >> 3), 0, KIND_DAMAGED, 0)
                    _push(l, &h)
                    bad = group = 0
                if group == 0 and r.kind & FLAG_BATCH_OPEN:
                    group, group_hints, group_expiries = at, l.count, expiries.count
                key = fields + optional
                h = Hint(order_of(routed_hash(key, r.key_length, seed, r.keyspace)), r.lsn, r.epoch, <uint32_t>(at >> 3),
                         <uint32_t>(size >> 3), r.key_length, r.kind, r.keyspace)
                if r.kind & KIND_MASK == KIND_CLEAR:
                    h.order = 0
                elif r.kind & FLAG_EXPIRY and r.kind & KIND_MASK == KIND_PUT:
                    reserve_expiries(expiries, 1)
                    add_expiry(expiries, (<const uint64_t*>fields)[0], h.order, at, size, r.keyspace)
                _push(l, &h)
                last = r.lsn
                at += size
                end = at
                if not r.kind & FLAG_BATCH_OPEN:
                    group = 0
                continue
        if outcome == FAULT:
            free(fields)
            with gil:
                raise OSError(errno.EIO, f"a segment cannot be read at offset {at}")
        if bad == 0:
            bad = at
        at += 8
    free(fields)
    if group and is_ordered:
        l.count, expiries.count = group_hints, group_expiries
        return group
    return end


cdef inline bint _is_near(const Record* r, uint64_t last, uint64_t bad) noexcept nogil:
    """While searching behind damage, believe only LSNs that could follow: it keeps bytes that look like headers cheap."""
    return bad == 0 or last == 0 or r.lsn - last <= <uint64_t>1 << 24


cdef _specials(const Hint* items, size_t count):
    """(clears, damaged) among sorted hints: they stand first, with order 0."""
    clears = []
    damaged = []
    cdef size_t i = 0
    while i < count and items[i].order == 0:
        kind = items[i].kind & KIND_MASK
        if kind == KIND_CLEAR:
            clears.append((items[i].keyspace, items[i].epoch, items[i].lsn))
        elif kind == KIND_DAMAGED:
            damaged.append((items[i].offset << 3, items[i].units << 3, items[i].lsn))
        i += 1
    return clears, damaged


def specials(const uint8_t[::1] hints):
    """Of sorted hints: (clears, damaged), as [(keyspace, epoch, LSN)] and [(offset, bytes, highest LSN lost there)]."""
    if hints.shape[0] == 0:
        return [], []
    return _specials(<const Hint*>&hints[0], hints.shape[0] // HINT_BYTES)


def iterate(const uint8_t[::1] hints):
    """Yield (offset, bytes, kind, LSN) of each hint, in their sorted order."""
    cdef size_t i
    for i in range(hints.shape[0] // HINT_BYTES):
        h = (<const Hint*>&hints[0])[i]
        yield h.offset << 3, h.units << 3, h.kind & KIND_MASK, h.lsn


def rebuild(KeyDir keydir, sources, floors):
    """Fill an empty KeyDir from the hints of all segments, without the GIL.

    Args:
        sources: [(slot, sorted hints, mapping of the segment, False)], in any order.
        floors: keyspace -> (epoch, LSN): records at or below it were cleared.
    Cost: one pass over all hints; keys are read only where hashes collide. 10 M records: about a second.
    """
    cdef Build b
    cdef uint32_t i
    held = None
    memset(&b, 0, sizeof(b))
    try:
        held = set_up(&b, sources)
        for keyspace, (epoch, lsn) in floors.items():
            b.floor_epoch[keyspace] = epoch
            b.floor_lsn[keyspace] = lsn
        with nogil:
            for i in range(PAGES):
                _build_page(&b, keydir, i)
        return Rebuilt([b.keys[i] for i in range(256)], [b.sources[i].live_bytes for i in range(b.source_count)])
    finally:
        give_up(&b)


cdef list set_up(Build* b, sources):
    """Begin to merge `sources`, as `rebuild` and _checkpoint.pyx take them; what is returned has to live as long as `b`."""
    cdef const uint8_t[::1] view
    cdef uint32_t i = 0
    held = []
    b.source_count = len(sources)
    b.sources = <Source*>malloc(b.source_count * sizeof(Source) + 1)
    b.bounds = <size_t*>malloc((b.source_count + 2) * sizeof(size_t))
    if b.sources == NULL or b.bounds == NULL:
        raise MemoryError("no memory to rebuild a KeyDir")
    for slot, hints, mapping, is_known in sources:
        b.sources[i] = Source(slot, NULL, len(hints) // HINT_BYTES, 0, NULL, 0, 0, is_known)
        if b.sources[i].count:
            view = hints
            held.append(view)
            b.sources[i].hints = <const Hint*>&view[0]
            view = mapping
            held.append(view)
            b.sources[i].base = &view[0]
            b.sources[i].size = view.shape[0]
        i += 1
    return held


cdef void give_up(Build* b) noexcept:
    """Free what a merge took; it may have failed anywhere."""
    free(b.sources)
    free(b.bounds)
    free(b.items)
    free(b.spare)
    free(b.words)


cdef ssize_t gather(Build* b, uint32_t page, uint64_t covered_lsn) except -1 nogil:
    """Bring the records of one page into `b.items`, in order; how many. Pages are asked for one after the other.

    Left out is what a checkpoint says already: records up to `covered_lsn`, but not puts in segments that it does not know.
    """
    cdef size_t n = 0, k, i
    cdef uint32_t s, runs = 0
    cdef Source* source
    cdef const Hint* h
    for s in range(b.source_count):
        source = &b.sources[s]
        k = source.at
        while k < source.count and source.hints[k].order >> 55 == page:
            k += 1
        if k == source.at:
            continue
        if n + k - source.at > b.capacity:
            _grow(b, n + k - source.at)
        b.bounds[runs] = n
        runs += 1
        for i in range(source.at, k):
            h = &source.hints[i]
            if h.kind & KIND_MASK <= KIND_TOMBSTONE and (
                    h.lsn > covered_lsn or (not source.is_known and h.kind & KIND_MASK == KIND_PUT)):
                b.items[n].hint = h[0]
                b.items[n].source = s
                n += 1
        source.at = k
    b.bounds[runs] = n
    _merge_runs(b, runs)
    return n


cdef int _build_page(Build* b, KeyDir keydir, uint32_t page) except -1 nogil:
    cdef size_t n = gather(b, page, 0), i = 0, j, k
    cdef uint32_t words = 0
    while i < n:
        j = i + 1
        while j < n and b.items[j].hint.order == b.items[i].hint.order:
            j += 1
        for k in range(winners(b, i, j, False), j):
            words = _take(b, &b.items[k], words)
        i = j
    keydir.fill(page, b.words, words)
    return 0


cdef int _grow(Build* b, size_t needed) except -1 nogil:
    cdef size_t capacity = max(needed, b.capacity * 2, <size_t>4096)
    cdef void* items = realloc(b.items, capacity * sizeof(Item))
    cdef void* spare
    cdef void* words
    if items != NULL:
        b.items = <Item*>items
    spare = realloc(b.spare, capacity * sizeof(Item))
    if spare != NULL:
        b.spare = <Item*>spare
    words = realloc(b.words, capacity * 8)
    if words != NULL:
        b.words = <uint64_t*>words
    if items == NULL or spare == NULL or words == NULL:
        with gil:
            raise MemoryError(f"no memory to rebuild a KeyDir page of {capacity} records")
    b.capacity = capacity
    return 0


cdef void _merge_runs(Build* b, uint32_t runs) noexcept nogil:
    """Make one sorted run of `runs` sorted ones, two by two."""
    cdef uint32_t r, out
    cdef size_t i, j, k, middle, end
    cdef Item* swap
    while runs > 1:
        out = 0
        r = 0
        while r < runs:
            i = k = b.bounds[r]
            middle = b.bounds[r + 1] if r + 1 < runs else b.bounds[runs]
            end = b.bounds[r + 2] if r + 2 < runs else b.bounds[runs]
            j = middle
            while i < middle and j < end:
                if _before(&b.items[j].hint, &b.items[i].hint):
                    b.spare[k] = b.items[j]
                    j += 1
                else:
                    b.spare[k] = b.items[i]
                    i += 1
                k += 1
            memcpy(&b.spare[k], &b.items[i], (middle - i) * sizeof(Item))
            memcpy(&b.spare[k + middle - i], &b.items[j], (end - j) * sizeof(Item))
            b.bounds[out] = b.bounds[r]
            out += 1
            r += 2
        b.bounds[out] = b.bounds[runs]
        runs = out
        swap = b.items
        b.items = b.spare
        b.spare = swap


cdef inline uint32_t _take(Build* b, const Item* item, uint32_t words) noexcept nogil:
    """Let the newest record of a key stand for it: a word, unless it is a tombstone or was cleared."""
    cdef const Hint* h = &item.hint
    cdef Source* source = &b.sources[item.source]
    if h.kind & KIND_MASK != KIND_PUT:
        return words
    if h.epoch < b.floor_epoch[h.keyspace] or (h.epoch == b.floor_epoch[h.keyspace] and h.lsn <= b.floor_lsn[h.keyspace]):
        return words
    b.words[words] = make_word(<uint32_t>(h.order >> 35) & 0xFFFFF, source.slot, <uint64_t>h.offset << 3)
    source.live_bytes += <int64_t>h.units << 3
    b.keys[h.keyspace] += 1
    return words + 1


cdef const uint8_t* key_of(Build* b, const Item* item) noexcept nogil:
    """The key bytes of a record, NULL when they lie outside of the segment."""
    cdef Source* source = &b.sources[item.source]
    cdef uint64_t at = (<uint64_t>item.hint.offset << 3) + key_offset(item.hint.kind)
    return source.base + at if at + item.hint.key_length <= source.size else NULL


cdef size_t winners(Build* b, size_t first, size_t stop, bint is_over) noexcept nogil:
    """Of the items of one hash, `first` to `stop`: the newest of each key, gathered at the end; where they begin.

    Args:
        is_over: older records of that hash, which are not among them, may count: those of a checkpoint. Then what ended a
            key's life is not to be forgotten for the sake of another key, which came later and so did not collide.
    """
    cdef size_t i
    for i in range(first, stop - 1):
        if (b.items[i].hint.kind | b.items[i + 1].hint.kind) & FLAG_COLLIDES:
            return _decide_by_keys(b, first, stop)
        if is_over and (b.items[i].hint.kind & KIND_MASK == KIND_TOMBSTONE or b.items[i].hint.kind & FLAG_EXPIRY):
            return _decide_by_keys(b, first, stop)
    return stop - 1


cdef size_t _decide_by_keys(Build* b, size_t first, size_t stop) noexcept nogil:
    """Records of equal hash and perhaps different keys: the newest of each key wins."""
    cdef size_t kept = stop, i = stop, j
    cdef Item item
    cdef bint is_older
    cdef const uint8_t* key
    cdef const uint8_t* other
    cdef uint8_t mine[65536]
    cdef uint8_t theirs[65536]
    while i > first:
        i -= 1
        item = b.items[i]
        key = key_of(b, &item)
        is_older = False
        if key != NULL and kio_guarded_copy(mine, key, item.hint.key_length) == 1:
            for j in range(kept, stop):
                other = key_of(b, &b.items[j])
                if b.items[j].hint.key_length == item.hint.key_length and b.items[j].hint.keyspace == item.hint.keyspace \
                        and other != NULL and kio_guarded_copy(theirs, other, item.hint.key_length) == 1 \
                        and memcmp(mine, theirs, item.hint.key_length) == 0:
                    is_older = True
                    break
        if not is_older:
            kept -= 1
            b.items[kept] = item
    return kept
