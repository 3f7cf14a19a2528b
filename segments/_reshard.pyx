# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The live records of a shard, dealt out to the shards of another count as op batches (opbatch.py).

A record is live when a word of the KeyDir names it. Words are marked by bits, one for each 8 bytes of a segment, for some
segments at a time; then these segments are walked from front to back, so that a log larger than memory is read once and
in order. Each record is verified as it is copied, and its key hashed anew: what the tag decides (hashing.py) holds.

Cost: bits for 2 GiB of log, 32 MiB; a pass over the KeyDir for each such window; without the GIL.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from kio._opbatch cimport BATCH_MAGIC, EXPIRE_AT, OP_SET, Header, Operation
from kio._xxh64 cimport routed_hash, shard_of
from kio.segments._engine cimport SLOTS, Buffer, Engine, reserve
from kio.segments._format cimport FLAG_EXPIRY, KIND_MASK, KIND_PUT, RECORD_HEADER, Record, key_offset, record_bytes
from kio.segments._keydir cimport PAGES, Page, word_offset, word_slot
from kio.segments._native cimport kio_guarded_header, kio_guarded_read, setup

from kio import errors


setup()

WINDOW_BYTES = 2 << 30

cdef enum:
    UNIT_BITS = 3


cdef class Dealer:
    """Deals out what `engine` holds, which nobody changes meanwhile.

    Args:
        shards: how many there will be.
        now_ms: what has expired by then is left out.
        window_bytes: of segments whose live records are marked at a time; one segment at the least.

    Attributes:
        records, record_bytes: looked at so far, of live records, those that have expired included.
    """

    cdef readonly int64_t records, record_bytes
    cdef Engine engine
    cdef uint32_t shards
    cdef uint64_t now_ms
    cdef size_t window_bytes
    cdef int64_t dealt[256]
    cdef int64_t expired[256]
    # The window: slots below `last`, down to `slot`, of which `slot` is being walked. A slot's bits begin at `start`.
    cdef uint32_t slot, last
    cdef size_t* starts
    cdef uint64_t* bits
    cdef size_t unit                # in the slot's segment, where the walk goes on
    cdef Buffer* batches
    cdef Buffer scratch

    def __cinit__(self, Engine engine not None, uint32_t shards, uint64_t now_ms, *, size_t window_bytes=WINDOW_BYTES):
        if shards == 0:
            raise ValueError("there is no shard to deal to")
        self.engine = engine
        self.shards = shards
        self.now_ms = now_ms
        self.window_bytes = window_bytes
        self.slot = self.last = 1
        self.starts = <size_t*>calloc(SLOTS + 1, sizeof(size_t))
        self.batches = <Buffer*>calloc(shards, sizeof(Buffer))
        if self.starts == NULL or self.batches == NULL:
            raise MemoryError("no memory to deal out records")

    def __dealloc__(self):
        cdef uint32_t shard
        if self.batches != NULL:
            for shard in range(self.shards):
                free(self.batches[shard].data)
        free(self.batches)
        free(self.scratch.data)
        free(self.bits)
        free(self.starts)

    def deal(self, size_t limit):
        """The next records as [(shard, op batch)], about `limit` bytes in all and at least one record; [] at the end.

        Raises: Corrupt when a live record is damaged.
        """
        cdef uint32_t shard
        cdef Header header
        cdef Buffer* b
        for shard in range(self.shards):
            self.batches[shard].size = sizeof(Header)
            self.batches[shard].count = 0
        with nogil:
            self._deal(limit)
        out = []
        for shard in range(self.shards):
            b = &self.batches[shard]
            if b.count:
                header = Header(BATCH_MAGIC, shard, 0, b.count, 0)
                memcpy(b.data, &header, sizeof(Header))
                out.append((shard, PyBytes_FromStringAndSize(<char*>b.data, b.size)))
        return out

    def counts(self, uint8_t keyspace):
        """(records dealt out, records left out because they have expired) of a keyspace so far."""
        return self.dealt[keyspace], self.expired[keyspace]

    cdef int _deal(self, size_t limit) except -1 nogil:
        cdef size_t done = 0, units
        cdef uint64_t offset
        while done < limit:
            if self.slot >= self.last and not self._open_window():
                return 0
            units = self.starts[self.slot + 1] - self.starts[self.slot]
            self.unit = self._next_marked(self.starts[self.slot], self.unit, units)
            if self.unit >= units:
                self.slot += 1
                self.unit = 0
                continue
            offset = <uint64_t>self.unit << UNIT_BITS
            done += self._take(offset)
        return 0

    # ---- marks ----

    cdef bint _open_window(self) except -1 nogil:
        """Mark the live records of the next segments; False when there are no more."""
        cdef size_t units = 0
        cdef uint32_t p, at, slot
        cdef uint64_t word, unit
        cdef Page* page
        self.slot = self.last
        while self.last <= self.engine.slot_max and (units == 0 or units << UNIT_BITS < self.window_bytes):
            self.starts[self.last] = units
            units += (self.engine.segments[self.last].end + 7) >> UNIT_BITS
            self.last += 1
        self.starts[self.last] = units
        self.unit = 0
        free(self.bits)
        self.bits = NULL
        if self.slot == self.last:
            return False
        self.bits = <uint64_t*>calloc(units // 64 + 1, 8)
        if self.bits == NULL:
            with gil:
                raise MemoryError("no memory to mark live records")
        for p in range(PAGES):
            page = &self.engine.keydir.pages[p]
            for at in range(page.slots):
                word = page.words[at]
                slot = word_slot(word)
                if word == 0 or slot < self.slot or slot >= self.last:
                    continue
                unit = self.starts[slot] + (word_offset(word) >> UNIT_BITS)
                if unit >= self.starts[slot + 1]:
                    return self._raise_damaged(slot, word_offset(word))
                self.bits[unit >> 6] |= <uint64_t>1 << (unit & 63)
        return True

    cdef size_t _next_marked(self, size_t start, size_t unit, size_t units) noexcept nogil:
        """The first marked unit from `unit` on of the segment whose bits begin at `start`; `units` when there is none."""
        cdef size_t at = start + unit, stop = start + units
        cdef uint64_t bits
        while at < stop:
            bits = self.bits[at >> 6] >> (at & 63)
            if bits:
                while not bits & 0xFF:
                    bits >>= 8
                    at += 8
                while not bits & 1:
                    bits >>= 1
                    at += 1
                return min(at, stop) - start
            at = (at | 63) + 1
        return units

    # ---- records ----

    cdef size_t _take(self, uint64_t offset) except 0 nogil:
        """Deal out the record at `offset` of the segment that is walked, and step over it; its length in bytes."""
        cdef Record header
        cdef const uint8_t* record = self.engine.segments[self.slot].base + offset
        cdef uint64_t room = self.engine.segments[self.slot].end - offset, size, hash, expiry = 0
        cdef uint32_t key_at, arguments
        cdef uint8_t* key
        cdef uint8_t* p
        cdef Buffer* b
        if kio_guarded_header(&header, record, room) != 1 or header.kind & KIND_MASK != KIND_PUT:
            self._raise_damaged(self.slot, offset)
        size = record_bytes(&header)
        self.scratch.size = 0
        reserve(&self.scratch, size)
        if kio_guarded_read(record, size, self.engine.segments[self.slot].crc_seed, self.scratch.data, RECORD_HEADER,
                            size - RECORD_HEADER) != 1:
            self._raise_damaged(self.slot, offset)
        self.unit += size >> UNIT_BITS
        self.records += 1
        self.record_bytes += size
        if header.kind & FLAG_EXPIRY:
            memcpy(&expiry, self.scratch.data, 8)
            if expiry <= self.now_ms:
                self.expired[header.keyspace] += 1
                return size
        key_at = key_offset(header.kind) - RECORD_HEADER
        key = self.scratch.data + key_at
        hash = routed_hash(key, header.key_length, self.engine.seed, header.keyspace)
        arguments = 8 if expiry else 0
        b = &self.batches[shard_of(hash, self.shards)]
        reserve(b, sizeof(Operation) + header.key_length + arguments + header.value_length)
        p = b.data + b.size
        (<Operation*>p)[0] = Operation(OP_SET, header.keyspace, header.key_length, arguments + header.value_length, hash, 0,
                                       EXPIRE_AT if expiry else 0)
        p += sizeof(Operation)
        memcpy(p, key, header.key_length)
        p += header.key_length
        if expiry:
            memcpy(p, &expiry, 8)
        memcpy(p + arguments, key + header.key_length, header.value_length)
        b.size += sizeof(Operation) + header.key_length + arguments + header.value_length
        b.count += 1
        self.dealt[header.keyspace] += 1
        return size

    cdef int _raise_damaged(self, uint32_t slot, uint64_t offset) except -1 nogil:
        with gil:
            raise errors.Corrupt(f"segment {self.engine.segments[slot].id} of shard {self.engine.shard} is corrupt at offset "
                                 f"{offset}; run \"kio check --shard {self.engine.shard}\"")
