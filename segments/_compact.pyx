# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What compaction does record by record: which records of a segment survive, and their copies.

    Survivors.mark          the store's thread, in slices: a put is live when its KeyDir word names exactly this record, and
                            was not cleared: then the word is removed
    Survivors.mark_hiders   a helper thread, in pieces: the records without a word that must stay (rule 3)
    Survivors.copy          a helper thread, in pieces: the marked records, verified, as bytes for another segment

Rule 3. A tombstone hides every older put of its key, and so does a put that expired: without them the older put would
come back at the next recovery. Such a record has to stay as long as a segment that is not compacted with it holds an
older put of its hash, unless that one was cleared, or a newer record of the same key hides it as well:
  * a tombstone does;
  * a put does that never expires, or that is flagged FLAG_HIDES: once expired it stays by this same rule.
    A put that expires and is not flagged does not: it was written when the key was gone, and is forgotten when it expires.
A put that expired stays as a tombstone of the same version. A put that is dead for another reason needs nothing: what
made it dead is newer and hides more.

Cost: marks are bits, one for each 8 bytes of the segment: 2 MiB for 128 MiB. Hints are read where they are mapped,
through guarded copies; whoever makes a Survivors has verified their checksum.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from kio.segments._engine cimport Engine, is_below_floor, purge_word
from kio.segments._format cimport (
    FLAG_BATCH_OPEN, FLAG_COLLIDES, FLAG_EXPIRY, FLAG_HIDES, HINT_BYTES, KIND_MASK, KIND_PUT, KIND_TOMBSTONE, RECORD_HEADER,
    Hint, Record, key_offset, record_bytes,
)
from kio.segments._keydir cimport make_word
from kio.segments._native cimport kio_crc32c, kio_guarded_header, kio_guarded_read, setup
from kio.segments._reader cimport Reader, hint_at, is_older, rewind, seek

from kio.errors import Corrupt


setup()

cdef enum:
    #: No record is shorter than four units of 8 bytes, so the bit behind a marked one is free to say more.
    UNIT_BITS = 3

cdef struct Source:
    const uint8_t* base
    uint64_t end
    uint32_t crc_seed

cdef struct Neighbour:
    Source source
    Reader hints
    bint is_own             # of the segment itself: what is older there goes away with it


cdef class Survivors:
    """The records of one sealed segment that outlive it. At first none is marked.

    Args:
        hints, mapping: of the segment; `end` is where its records end. Borrows both.
        slot, crc_seed: the segment's.

    Attributes:
        live_records, live_bytes: marked by `mark`; live_expiries of them expire.
        kept_records, kept_bytes: marked by `mark_hiders`; their bytes are those of the copies.
        has_hiders: there is something for `mark_hiders` to look at; known when `mark` is done.
    """

    cdef readonly int64_t live_records, live_bytes, live_expiries, kept_records, kept_bytes
    cdef readonly bint has_hiders
    cdef Source source
    cdef uint32_t slot
    cdef Reader walk
    cdef Reader candidates
    cdef Neighbour* neighbours
    cdef uint32_t neighbour_count
    cdef uint64_t* bits
    cdef size_t unit_count
    cdef size_t copied_to           # the unit at which `copy` goes on
    cdef uint32_t floor_epoch[256]
    cdef uint64_t floor_lsn[256]
    cdef uint64_t unknown_lsn
    cdef uint64_t now_ms
    cdef list held

    def __cinit__(self, const uint8_t[::1] hints, const uint8_t[::1] mapping, uint64_t end, uint32_t slot, uint32_t crc_seed):
        if end > <uint64_t>mapping.shape[0]:
            raise ValueError(f"a mapping of {mapping.shape[0]} bytes holds no records up to {end}")
        self.source = Source(&mapping[0], end, crc_seed)
        self.slot = slot
        self.unit_count = end >> UNIT_BITS
        self.bits = <uint64_t*>calloc(self.unit_count // 64 + 1, 8)
        if self.bits == NULL:
            raise MemoryError("no memory to mark the records of a segment")
        memset(&self.walk, 0, sizeof(Reader))
        if hints.shape[0]:
            self.walk.hints = <const Hint*>&hints[0]
            self.walk.count = hints.shape[0] // HINT_BYTES
        self.candidates = self.walk
        self.unknown_lsn = 0xFFFFFFFFFFFFFFFFULL
        self.held = [hints, mapping]

    def __dealloc__(self):
        free(self.bits)
        free(self.neighbours)

    # ---- marks ----

    cdef inline bint _is_set(self, size_t unit) noexcept nogil:
        return (self.bits[unit >> 6] >> (unit & 63)) & 1

    cdef int _set(self, const Hint* h, bint as_tombstone) except -1 nogil:
        """Mark a record; what its hint says of offset and length was checked by the checksum of the hints alone."""
        cdef size_t unit = h.offset
        if unit + h.units > self.unit_count:
            with gil:
                raise Corrupt(f"a hint names offset {unit << UNIT_BITS}, behind the records")
        self.bits[unit >> 6] |= <uint64_t>1 << (unit & 63)
        if as_tombstone:
            unit += 1
            self.bits[unit >> 6] |= <uint64_t>1 << (unit & 63)
        return 0

    def mark(self, Engine engine, size_t budget):
        """Mark live puts among the next `budget` hints; True when all have been looked at.

        Raises: OSError (EIO) when hints cannot be read, Corrupt when one is impossible.
        Cost: a look into the KeyDir for each, in the order of its pages.
        """
        cdef Hint* h
        cdef uint8_t kind
        cdef uint32_t page
        cdef uint64_t word
        cdef int64_t at
        while self.walk.at < self.walk.count and budget:
            h = hint_at(&self.walk)
            kind = h.kind & KIND_MASK
            if kind == KIND_PUT:
                word = make_word(<uint32_t>(h.order >> 35) & 0xFFFFF, self.slot, <uint64_t>h.offset << 3)
                page = <uint32_t>(h.order >> 55)
                at = engine.keydir.find_word(page, word)
                if at >= 0 and engine.has_floors and is_below_floor(engine, h.keyspace, h.epoch, h.lsn):
                    purge_word(engine, page, <uint32_t>at, h.units << 3)
                    at = -1
                if at >= 0:
                    self._set(h, False)
                    self.live_records += 1
                    self.live_bytes += <int64_t>h.units << 3
                    self.live_expiries += h.kind & FLAG_EXPIRY != 0
                elif h.kind & FLAG_EXPIRY and h.kind & FLAG_HIDES:
                    self.has_hiders = True
            elif kind == KIND_TOMBSTONE:
                self.has_hiders = True
            self.walk.at += 1
            budget -= 1
        return self.walk.at >= self.walk.count

    # ---- rule 3 ----

    def compare(self, neighbours, floors, uint64_t unknown_lsn, uint64_t now_ms):
        """Tell `mark_hiders` against what it decides; once, after `mark`.

        Args:
            neighbours: [(hints, mapping, end, CRC seed)] of every sealed segment that is not compacted with this one.
            floors: keyspace -> (epoch, LSN): what is at or below it was cleared, durably.
            unknown_lsn: of some segment nobody knows what it holds; its records begin with this LSN. None: 2**64 - 1.
            now_ms: the shard's clock.
        """
        cdef const uint8_t[::1] view
        cdef Neighbour* n
        cdef uint32_t i = 0
        free(self.neighbours)
        self.neighbour_count = len(neighbours) + 1
        self.neighbours = <Neighbour*>calloc(self.neighbour_count, sizeof(Neighbour))
        if self.neighbours == NULL:
            raise MemoryError("no memory to compare a segment with the others")
        for hints, mapping, end, crc_seed in neighbours:
            n = &self.neighbours[i]
            view = mapping
            n.source = Source(&view[0], min(<uint64_t>end, <uint64_t>view.shape[0]), crc_seed)
            self.held.append(view)
            if len(hints):
                view = hints
                n.hints.hints = <const Hint*>&view[0]
                n.hints.count = view.shape[0] // HINT_BYTES
                self.held.append(view)
            i += 1
        n = &self.neighbours[i]
        n.source = self.source
        n.hints.hints, n.hints.count = self.walk.hints, self.walk.count
        n.is_own = True
        memset(self.floor_epoch, 0, sizeof(self.floor_epoch))
        memset(self.floor_lsn, 0, sizeof(self.floor_lsn))
        for keyspace, (epoch, lsn) in floors.items():
            self.floor_epoch[keyspace] = epoch
            self.floor_lsn[keyspace] = lsn
        self.unknown_lsn = unknown_lsn
        self.now_ms = now_ms

    def mark_hiders(self, size_t budget):
        """Mark what must stay without being live; True when all hints have been looked at. Without the GIL.

        Args:
            budget: how many hints are looked at, here and in the other segments, at the most.

        Raises: OSError (EIO) when hints cannot be read; Corrupt when a record that matters is damaged.
        """
        cdef bint is_done
        with nogil:
            is_done = self._mark_hiders(budget)
        return is_done

    cdef int _mark_hiders(self, size_t budget) except -1 nogil:
        cdef Reader* r = &self.candidates
        cdef Hint h
        cdef uint8_t kind
        cdef bint is_put
        while r.at < r.count:
            if budget == 0:
                return False
            budget -= 1
            h = hint_at(r)[0]
            r.at += 1
            kind = h.kind & KIND_MASK
            is_put = kind == KIND_PUT
            if is_put:
                if not (h.kind & FLAG_EXPIRY and h.kind & FLAG_HIDES) or self._is_set(h.offset):
                    continue
            elif kind != KIND_TOMBSTONE:
                continue
            if h.epoch < self.floor_epoch[h.keyspace] or \
                    (h.epoch == self.floor_epoch[h.keyspace] and h.lsn <= self.floor_lsn[h.keyspace]):
                continue
            if is_put and not self._has_expired(&h):
                continue
            budget -= min(budget, <size_t>self.neighbour_count)
            if self._must_stay(&h):
                self._set(&h, is_put)
                self.kept_records += 1
                self.kept_bytes += (RECORD_HEADER + h.key_length + 7) & ~7 if is_put else <int64_t>h.units << 3
        return True

    cdef int _has_expired(self, const Hint* h) except -1 nogil:
        cdef uint64_t expiry = 0
        cdef uint64_t offset = <uint64_t>h.offset << 3, size = <uint64_t>h.units << 3
        if offset + size > self.source.end or \
                kio_guarded_read(self.source.base + offset, size, self.source.crc_seed, &expiry, RECORD_HEADER, 8) != 1:
            return _raise_damaged(offset)
        return expiry <= self.now_ms

    cdef int _must_stay(self, const Hint* h) except -1 nogil:
        """Whether an older put of this hash may be elsewhere, and nothing newer hides it as well."""
        cdef bint hides = h.lsn >= self.unknown_lsn
        cdef uint32_t i
        cdef Neighbour* n
        cdef Hint* other
        cdef uint8_t kind
        for i in range(self.neighbour_count):
            n = &self.neighbours[i]
            seek(&n.hints, h.order)
            while n.hints.at < n.hints.count:
                other = hint_at(&n.hints)
                if other.order != h.order:
                    break
                kind = other.kind & KIND_MASK
                if is_older(other, h):
                    hides = hides or (kind == KIND_PUT and not n.is_own)
                elif is_older(h, other) and (kind == KIND_TOMBSTONE or kind == KIND_PUT and (
                        other.kind & FLAG_HIDES or not other.kind & FLAG_EXPIRY)):
                    if self._is_same_key(h, &n.source, other):
                        rewind(&n.hints, h.order)
                        return False
                n.hints.at += 1
            rewind(&n.hints, h.order)
        return hides

    cdef bint _is_same_key(self, const Hint* h, const Source* source, const Hint* other) noexcept nogil:
        """Whether both records are intact and of one key; an other one that is damaged hides nothing."""
        cdef uint8_t mine[65536]
        cdef uint8_t theirs[65536]
        cdef uint64_t at = <uint64_t>h.offset << 3, there = <uint64_t>other.offset << 3
        if h.key_length != other.key_length or h.keyspace != other.keyspace:
            return False
        if at + (<uint64_t>h.units << 3) > self.source.end or there + (<uint64_t>other.units << 3) > source.end:
            return False
        return kio_guarded_read(self.source.base + at, <uint64_t>h.units << 3, self.source.crc_seed, mine,
                                key_offset(h.kind), h.key_length) == 1 \
            and kio_guarded_read(source.base + there, <uint64_t>other.units << 3, source.crc_seed, theirs,
                                 key_offset(other.kind), h.key_length) == 1 \
            and memcmp(mine, theirs, h.key_length) == 0

    # ---- copies ----

    def copy(self, size_t limit, uint32_t crc_seed):
        """The next marked records, in the order of their offsets, as they stand in a segment of this CRC seed.

        Args:
            limit: bytes at the most; a single longer record is taken all the same.

        Returns: bytes; b"" when there are no more.
        Raises: Corrupt when a marked record is damaged: it would be lost.
        """
        cdef size_t size = 0
        cdef bytes out
        cdef uint8_t* p
        with nogil:
            size = self._size_copies(limit)
        out = PyBytes_FromStringAndSize(NULL, size)
        p = <uint8_t*>PyBytes_AS_STRING(out)
        with nogil:
            self._copy(p, size, crc_seed)
        return out

    cdef size_t _next_marked(self, size_t unit) noexcept nogil:
        cdef size_t word = unit >> 6, words = self.unit_count // 64 + 1
        cdef uint64_t bits
        if unit >= self.unit_count:
            return self.unit_count
        bits = self.bits[word] >> (unit & 63) << (unit & 63)
        while bits == 0:
            word += 1
            if word == words:
                return self.unit_count
            bits = self.bits[word]
        return (word << 6) + _lowest(bits)

    cdef uint64_t _look(self, size_t unit, Record* header) except 0 nogil:
        """Read the header of a marked record: its length in the segment, in bytes."""
        cdef uint64_t offset = <uint64_t>unit << UNIT_BITS
        if kio_guarded_header(header, self.source.base + offset, self.source.end - offset) != 1:
            _raise_damaged(offset)
        return record_bytes(header)

    cdef inline uint64_t _copied_bytes(self, size_t unit, const Record* header) noexcept nogil:
        if self._is_set(unit + 1):
            return (<uint64_t>RECORD_HEADER + header.key_length + 7) & ~<uint64_t>7
        return record_bytes(header)

    cdef size_t _size_copies(self, size_t limit) except? 1 nogil:
        cdef size_t unit = self._next_marked(self.copied_to), total = 0
        cdef uint64_t size, more
        cdef Record header
        while unit < self.unit_count:
            size = self._look(unit, &header)
            more = self._copied_bytes(unit, &header)
            if total and total + more > limit:
                break
            total += more
            unit = self._next_marked(unit + (size >> UNIT_BITS))
        return total

    cdef int _copy(self, uint8_t* to, size_t total, uint32_t crc_seed) except -1 nogil:
        cdef size_t unit, done = 0
        cdef uint64_t size, copied
        cdef Record header
        while done < total:
            unit = self._next_marked(self.copied_to)
            size = self._look(unit, &header)
            copied = self._copied_bytes(unit, &header)
            if done + copied > total:
                _raise_damaged(<uint64_t>unit << UNIT_BITS)
            self._copy_one(to + done, unit, size, copied, crc_seed)
            done += copied
            self.copied_to = unit + (size >> UNIT_BITS)
        return 0

    cdef int _copy_one(self, uint8_t* to, size_t unit, uint64_t size, uint64_t copied, uint32_t crc_seed) except -1 nogil:
        cdef const uint8_t* record = self.source.base + (<uint64_t>unit << UNIT_BITS)
        cdef Record* r = <Record*>to
        cdef Record header
        cdef uint8_t key[65536]
        if copied == size and not self._is_set(unit + 1):
            if kio_guarded_read(record, size, self.source.crc_seed, to, 0, size) != 1:
                return _raise_damaged(<uint64_t>unit << UNIT_BITS)
            # A batch that recovery has seen whole, or not at all, is no batch any more.
            r.kind &= ~FLAG_BATCH_OPEN
        else:
            if kio_guarded_header(&header, record, size) != 1 or kio_guarded_read(
                    record, size, self.source.crc_seed, key, key_offset(header.kind), header.key_length) != 1:
                return _raise_damaged(<uint64_t>unit << UNIT_BITS)
            memset(to, 0, copied)
            header.kind = KIND_TOMBSTONE | FLAG_HIDES | (header.kind & FLAG_COLLIDES)
            header.value_length = 0
            memcpy(to, &header, RECORD_HEADER)
            memcpy(to + RECORD_HEADER, key, header.key_length)
        r.crc = kio_crc32c(crc_seed, to + 4, copied - 4)
        return 0


cdef inline size_t _lowest(uint64_t bits) noexcept nogil:
    cdef size_t n = 0
    while not bits & 0xFF:
        bits >>= 8
        n += 8
    while not bits & 1:
        bits >>= 1
        n += 1
    return n


cdef int _raise_damaged(uint64_t offset) except -1 nogil:
    with gil:
        raise Corrupt(f"a record that must stay is damaged at offset {offset}")
