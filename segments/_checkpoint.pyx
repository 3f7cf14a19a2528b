# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pages of the KeyDir on their way to a checkpoint and back; checkpoint.py describes the file.

`Copier` copies whole pages, some in each slice, while the engine serves between slices. So that live bytes and key counts
are those of exactly the copied words, the engine keeps a shadow of them as long as a copier is at work: it starts equal
to the real ones, and a change to a page that is not copied yet is made to both, a change to a copied page to the real ones
only (`account` and `count`, _engine.pxd).

`Loader` fills an empty KeyDir from those pages and applies to each the records behind its LSN. Records are merged by
(order, epoch, LSN) as in _hints.pyx; which word of a page is the same key's is decided by the key bytes in the log. What
cannot be decided (a record that is damaged, so that nobody knows whose it was) makes the whole checkpoint unusable.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from kio.segments._engine cimport Buffer, Engine, reserve
from kio.segments._format cimport KIND_MASK, KIND_PUT, RECORD_HEADER, Hint, Record, record_bytes
from kio.segments._hints cimport Build, Item, gather, give_up, key_of, set_up, winners
from kio.segments._keydir cimport PAGES, KeyDir, Page, make_word, word_offset, word_slot, word_tag
from kio.segments._native cimport kio_guarded_header, kio_guarded_peek, kio_guarded_read, kio_prefetch, setup

from kio.errors import Corrupt
from kio.segments._hints import Rebuilt


setup()

cdef enum:
    SLICE_PLACES = 100_000      # of a KeyDir that one slice looks at, unless a single page has more: about 150 us
    SLOTS = 65536

assert sizeof(PageHeader) == 24


cdef class Copier:
    """Copies the KeyDir of `engine`, page by page; one at a time.

    Attributes:
        lsn_max: the highest LSN of a page copied so far.
        is_void: a keyspace was cleared meanwhile: what was copied is of no use.
    """

    cdef Engine engine
    cdef Buffer chunk
    cdef uint32_t next
    cdef uint64_t words
    cdef uint64_t lsn_min
    cdef readonly uint64_t lsn_max

    def __cinit__(self, Engine engine):
        cdef uint32_t slot
        memset(&self.chunk, 0, sizeof(Buffer))
        self.engine = engine
        for slot in range(engine.slot_max + 1):
            engine.segments[slot].shadow_bytes = engine.segments[slot].live_bytes
        memcpy(engine.shadow_keys, engine.keys, sizeof(engine.keys))
        engine.is_shadow_void = False
        engine.shadow_from = 0

    def __dealloc__(self):
        self.close()

    def close(self):
        """Let the engine keep no shadow any more. No view of a chunk may be in use."""
        if self.engine is not None:
            self.engine.shadow_from = PAGES
            self.engine = None
        free(self.chunk.data)
        memset(&self.chunk, 0, sizeof(Buffer))

    @property
    def is_void(self):
        return self.engine.is_shadow_void

    @property
    def is_done(self):
        """Whether the last page was copied."""
        return self.next == PAGES

    def copy(self, size_t chunk_bytes):
        """Copy some pages; True when the chunk holds `chunk_bytes`, or the last page: then it is to be written."""
        cdef Page* page
        cdef PageHeader* head
        cdef uint64_t* words
        cdef uint32_t looked_at = 0, n, i
        while self.next < PAGES and self.chunk.size < chunk_bytes and looked_at < SLICE_PLACES:
            page = &self.engine.keydir.pages[self.next]
            reserve(&self.chunk, sizeof(PageHeader) + (<size_t>page.used + 1) * 8)
            head = <PageHeader*>(self.chunk.data + self.chunk.size)
            words = <uint64_t*>(head + 1)
            n = 0
            for i in range(page.slots):
                words[n] = page.words[i]
                n += page.words[i] != 0
            head[0] = PageHeader(self.engine.lsn, self.next, n, 0, 0)
            self.chunk.size += sizeof(PageHeader) + <size_t>n * 8
            self.words += n
            self.lsn_max = self.engine.lsn
            if self.next == 0:
                self.lsn_min = self.engine.lsn
            looked_at += page.slots
            self.next += 1
            self.engine.shadow_from = self.next
        return self.next == PAGES or self.chunk.size >= chunk_bytes

    def seal(self, uint32_t seed):
        """Give each page of the chunk its checksum, without the GIL; the chunk. Borrows: valid until `clear` or `close`."""
        cdef size_t at = 0
        cdef PageHeader* head
        with nogil:
            while at < self.chunk.size:
                head = <PageHeader*>(self.chunk.data + at)
                head.crc = page_crc(seed, self.chunk.data + at)
                at += sizeof(PageHeader) + <size_t>head.words * 8
        return <const uint8_t[:self.chunk.size]>self.chunk.data

    def clear(self):
        """The chunk is written: begin another."""
        self.chunk.size = 0

    def contents(self):
        """(words, lowest LSN, highest LSN, {slot: (segment id, live bytes)}, {keyspace: keys}) of all pages, once they are copied."""
        cdef Engine engine = self.engine
        segments = {slot: (engine.segments[slot].id, engine.segments[slot].shadow_bytes)
                    for slot in range(1, engine.slot_max + 1) if engine.segments[slot].base != NULL}
        keys = {keyspace: engine.shadow_keys[keyspace] for keyspace in range(256) if engine.shadow_keys[keyspace]}
        return self.words, self.lsn_min, self.lsn_max, segments, keys


cdef struct Place:
    # A segment by its new slot.
    const uint8_t* base
    uint64_t end
    uint32_t crc_seed
    int64_t live_bytes

cdef enum:
    UNKNOWN_SLOT = 0xFFFF + 1
    GONE = 0

cdef enum Fault:
    CHECKSUM = 1
    PAGE_ORDER
    WORD_ORDER
    SLOT
    BEHIND_END
    UNREADABLE

cdef tuple FAULTS = (
    "", "a page fails its checksum", "a page is missing", "the words of a page are out of order",
    "a word names a segment that is not in its list", "a word points behind the records of its segment",
    "records of one tag cannot be told apart, since one of them is damaged",
)


cdef class Loader:
    """Fills an empty KeyDir from a checkpoint.

    Args:
        contents: as `Copier.contents` gave it.
        seed: the checksum of the checkpoint's header.
        sources: [(slot, segment id, sorted hints, mapping, end of the records, CRC seed)] of every segment there is now;
            hints may be empty where the segment is known to the checkpoint and holds nothing behind it.

    Attributes:
        is_behind_end: records that were durable are not there any more.
    """

    cdef KeyDir keydir
    cdef Build build
    cdef Place* places
    cdef uint32_t* new_slots        # by old slot
    cdef uint64_t* old              # the words of a page as copied, under their new slots
    cdef uint64_t* out              # the words of a page as they are to be
    cdef size_t old_capacity, out_capacity
    cdef uint32_t seed, next
    cdef uint64_t words, gone
    cdef Fault fault
    cdef object held, contents

    def __cinit__(self, KeyDir keydir, contents, uint32_t seed, sources):
        cdef const uint8_t[::1] view
        cdef Place* place
        memset(&self.build, 0, sizeof(Build))
        self.keydir = keydir
        self.contents = contents
        self.seed = seed
        known = {id: (slot, live) for slot, (id, live) in contents.segments.items()}
        self.places = <Place*>calloc(SLOTS, sizeof(Place))
        self.new_slots = <uint32_t*>calloc(SLOTS, 4)
        if self.places == NULL or self.new_slots == NULL:
            raise MemoryError("no memory to load a checkpoint")
        for slot in range(SLOTS):
            self.new_slots[slot] = UNKNOWN_SLOT
        for slot in contents.segments:
            self.new_slots[slot] = GONE
        self.held = set_up(&self.build, [(slot, hints, mapping, id in known)
                                         for slot, id, hints, mapping, _, _ in sources])
        for slot, id, _, mapping, end, crc_seed in sources:
            view = mapping
            self.held.append(view)
            place = &self.places[<uint32_t>slot]
            place.base, place.end, place.crc_seed = &view[0], end, crc_seed
            if id in known:
                self.new_slots[<uint32_t>known[id][0]] = slot
                place.live_bytes = known[id][1]
        for keyspace, keys in contents.keys.items():
            self.build.keys[<uint8_t>keyspace] = keys

    def __dealloc__(self):
        give_up(&self.build)
        free(self.places)
        free(self.new_slots)
        free(self.old)
        free(self.out)

    def give_up(self):
        """Leave the KeyDir empty, as it was."""
        self.keydir.reset()

    @property
    def is_behind_end(self):
        return self.fault == BEHIND_END

    def load(self, bytes pages):
        """Take whole pages, which follow those of the last call, without the GIL.

        Raises: Corrupt when they are damaged, or records that they need are.
        """
        cdef const uint8_t* p = pages
        cdef size_t size = len(pages), at = 0, length
        with nogil:
            while at < size and self.fault == 0:
                length = page_bytes(p + at, size - at)
                if length == 0:
                    self.fault = CHECKSUM
                else:
                    self._load_page(p + at)
                at += length
        self._raise_fault()

    def finish(self):
        """Keys and live bytes, as _hints.Rebuilt, when every page was loaded.

        Raises: Corrupt when it does not add up.
        """
        cdef uint32_t i
        if self.next != PAGES or self.words != <uint64_t>self.contents.words:
            self.fault = PAGE_ORDER
        self._raise_fault()
        if self.gone:
            # Whose keys they were nobody knows any more, unless there is only one answer.
            if len(self.contents.keys) != 1:
                raise Corrupt("segments of several keyspaces were compacted since")
            (keyspace,) = self.contents.keys
            self.build.keys[<uint8_t>keyspace] -= self.gone
        return Rebuilt([self.build.keys[i] for i in range(256)],
                       [self.places[self.build.sources[i].slot].live_bytes for i in range(self.build.source_count)])

    def _raise_fault(self):
        if self.fault:
            raise Corrupt(FAULTS[<int>self.fault])

    cdef int _load_page(self, const uint8_t* page) except -1 nogil:
        cdef const PageHeader* head = <const PageHeader*>page
        cdef const uint64_t* words = <const uint64_t*>(head + 1)
        cdef size_t items, n
        if page_crc(self.seed, page) != head.crc:
            self.fault = CHECKSUM
        elif head.number != self.next or head.number >= PAGES:
            self.fault = PAGE_ORDER
        if self.fault:
            return 0
        self.next += 1
        self.words += head.words
        items = gather(&self.build, head.number, head.lsn)
        _make_room(&self.old, &self.old_capacity, head.words)
        n = self._rename(words, head.words)
        if items and not self.fault:
            _make_room(&self.out, &self.out_capacity, n + items)
            self._prefetch(n, items)
            n = self._merge(n, items)
            if not self.fault:
                self.keydir.fill(head.number, self.out, <uint32_t>n)
        elif not self.fault:
            self.keydir.fill(head.number, self.old, <uint32_t>n)
        return 0

    cdef size_t _rename(self, const uint64_t* words, uint32_t count) noexcept nogil:
        """Copy the words of a page into `old` under their new slots, without those of segments that are gone."""
        cdef size_t n = 0
        cdef uint32_t i, slot, tag, tag_before = 0
        cdef uint64_t word
        for i in range(count):
            word = words[i]
            tag = word_tag(word)
            slot = self.new_slots[word_slot(word)]
            if tag < tag_before:
                self.fault = WORD_ORDER
            if slot == UNKNOWN_SLOT:
                self.fault = SLOT
            elif slot == GONE:
                self.gone += 1
            elif word_offset(word) + RECORD_HEADER > self.places[slot].end:
                self.fault = BEHIND_END
            if self.fault:
                return 0
            if slot != GONE:
                self.old[n] = make_word(tag, slot, word_offset(word))
                n += 1
            tag_before = tag
        return n

    cdef void _prefetch(self, size_t n, size_t items) noexcept nogil:
        """Ask for the records whose keys are about to be compared, so that the cache misses of a page overlap."""
        cdef size_t w = 0, i
        cdef uint32_t tag
        cdef Item* item
        for i in range(items):
            item = &self.build.items[i]
            tag = _item_tag(item)
            while w < n and word_tag(self.old[w]) < tag:
                w += 1
            if w < n and word_tag(self.old[w]) == tag:
                kio_prefetch(self.places[word_slot(self.old[w])].base + word_offset(self.old[w]))
                kio_prefetch(self.build.sources[item.source].base + (<uint64_t>item.hint.offset << 3))

    cdef size_t _merge(self, size_t n, size_t items) noexcept nogil:
        """Bring the `n` old words and the items together, in order, in `out`; how many words that makes."""
        cdef size_t w = 0, same = 0, i = 0, j, k, out = 0, end
        cdef uint32_t tag
        while i < items and not self.fault:
            tag = _item_tag(&self.build.items[i])
            while w < n and word_tag(self.old[w]) < tag:
                self.out[out] = self.old[w]
                out += 1
                w += 1
            same = 0
            while w + same < n and word_tag(self.old[w + same]) == tag:
                self.out[out + same] = self.old[w + same]
                same += 1
            end = out + same
            while i < items and _item_tag(&self.build.items[i]) == tag:
                j = i + 1
                while j < items and self.build.items[j].hint.order == self.build.items[i].hint.order:
                    j += 1
                for k in range(winners(&self.build, i, j, same > 0), j):
                    end = self._apply(&self.build.items[k], w, same, out, end)
                i = j
            for k in range(out, end):
                if self.out[k] != 0:
                    self.out[out] = self.out[k]
                    out += 1
            w += same
        memcpy(self.out + out, self.old + w, (n - w) * 8)
        return out + n - w

    cdef size_t _apply(self, const Item* item, size_t w, size_t same, size_t out, size_t end) noexcept nogil:
        """Let the newest record of a key stand for it among the words of its tag: old[w:w + same], copied to out[out:end]."""
        cdef const Hint* h = &item.hint
        cdef Place* place
        cdef Place* own = &self.places[self.build.sources[item.source].slot]
        cdef const uint8_t* key = key_of(&self.build, item)
        cdef bint is_put = h.kind & KIND_MASK == KIND_PUT
        cdef uint64_t word = make_word(_item_tag(item), self.build.sources[item.source].slot, <uint64_t>h.offset << 3), at
        cdef Record header
        cdef size_t i
        if key == NULL:
            self.fault = UNREADABLE
            return end
        for i in range(same):
            if self.out[out + i] != self.old[w + i]:
                continue            # it was another key's, and that one has been here
            place = &self.places[word_slot(self.old[w + i])]
            at = word_offset(self.old[w + i])
            if kio_guarded_peek(&header, place.base + at, place.end - at, key, h.key_length, h.keyspace) != 1:
                if not _is_intact(place, at) or not _is_intact(own, <uint64_t>h.offset << 3):
                    self.fault = UNREADABLE
                    return end
                continue
            if header.epoch > h.epoch or (header.epoch == h.epoch and header.lsn >= h.lsn):
                return end
            place.live_bytes -= record_bytes(&header)
            self.out[out + i] = word if is_put else 0
            if is_put:
                own.live_bytes += <int64_t>h.units << 3
            else:
                self.build.keys[h.keyspace] -= 1
            return end
        if is_put:
            self.out[end] = word
            end += 1
            own.live_bytes += <int64_t>h.units << 3
            self.build.keys[h.keyspace] += 1
        return end


cdef inline uint32_t _item_tag(const Item* item) noexcept nogil:
    return <uint32_t>(item.hint.order >> 35) & 0xFFFFF


cdef bint _is_intact(const Place* place, uint64_t at) noexcept nogil:
    cdef Record header
    return kio_guarded_header(&header, place.base + at, place.end - at) == 1 \
        and kio_guarded_read(place.base + at, record_bytes(&header), place.crc_seed, NULL, 0, 0) == 1


cdef int _make_room(uint64_t** words, size_t* capacity, size_t needed) except -1 nogil:
    cdef void* memory
    if needed > capacity[0]:
        memory = realloc(words[0], needed * 2 * 8)
        if memory == NULL:
            with gil:
                raise MemoryError(f"no memory to load a checkpoint's page of {needed} words")
        words[0] = <uint64_t*>memory
        capacity[0] = needed * 2
    return 0
