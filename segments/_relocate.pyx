# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The words of the KeyDir that follow copied records, and what the slots of the engine hold in all.

A word is changed only where it still names the old record (`KeyDir.find_word`): what a client did since the copy was
made stands, and the copy is dead then. Lists of hints are all sorted alike, so this is one merge of them.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from kio.segments._engine cimport Engine, replace_word
from kio.segments._format cimport HINT_BYTES, KIND_MASK, KIND_PUT, Hint
from kio.segments._keydir cimport make_word
from kio.segments._native cimport setup
from kio.segments._reader cimport Reader, hint_at, is_before


setup()


def totals(Engine engine, uint32_t slots):
    """(bytes of records, bytes of live records, [slot with records, and none of them live]) of slots 1 to `slots`."""
    cdef int64_t records = 0, live = 0
    cdef uint32_t slot
    dead = []
    for slot in range(1, slots + 1):
        records += engine.segments[slot].record_bytes
        live += engine.segments[slot].live_bytes
        if engine.segments[slot].record_bytes > 0 and engine.segments[slot].live_bytes <= 0:
            dead.append(slot)
    return records, live, dead


cdef class Relocation:
    """The words of copied records, which go from the old segments to the new one.

    Args:
        hints: of the new segment, which is attached to the engine as `slot`.
        sources: [(hints, slot)] of the old ones.

    Attributes:
        words: how many have been changed.
    """

    cdef readonly int64_t words
    cdef uint32_t slot
    cdef Reader target
    cdef Reader* sources
    cdef uint32_t* slots
    cdef uint32_t source_count
    cdef list held

    def __cinit__(self, const uint8_t[::1] hints, uint32_t slot, sources):
        cdef const uint8_t[::1] view
        cdef uint32_t i = 0
        self.slot = slot
        self.source_count = len(sources)
        self.sources = <Reader*>calloc(self.source_count + 1, sizeof(Reader))
        self.slots = <uint32_t*>calloc(self.source_count + 1, sizeof(uint32_t))
        if self.sources == NULL or self.slots == NULL:
            raise MemoryError("no memory to relocate words")
        memset(&self.target, 0, sizeof(Reader))
        self.held = [hints]
        if hints.shape[0]:
            self.target.hints = <const Hint*>&hints[0]
            self.target.count = hints.shape[0] // HINT_BYTES
        for source, source_slot in sources:
            self.slots[i] = source_slot
            if len(source):
                view = source
                self.held.append(view)
                self.sources[i].hints = <const Hint*>&view[0]
                self.sources[i].count = view.shape[0] // HINT_BYTES
            i += 1

    def __dealloc__(self):
        free(self.sources)
        free(self.slots)

    def run(self, Engine engine, size_t budget):
        """Relocate words, looking at `budget` hints or a few more; True when all are done.

        A word is changed only where it still names the old record: what a client did since the copy was made stands.
        Raises: OSError (EIO) when hints cannot be read.
        """
        cdef Hint h
        cdef Hint* old
        cdef Reader* r
        cdef uint32_t i
        cdef bint is_there
        while self.target.at < self.target.count:
            h = hint_at(&self.target)[0]
            if h.kind & KIND_MASK == KIND_PUT:
                for i in range(self.source_count):
                    r = &self.sources[i]
                    is_there = False
                    while r.at < r.count:
                        if budget == 0:
                            return False
                        old = hint_at(r)
                        if not is_before(old, &h):
                            is_there = not is_before(&h, old)
                            break
                        r.at += 1
                        budget -= 1
                    if is_there:
                        self._relocate(engine, &h, old, self.slots[i])
                        break
            self.target.at += 1
            if budget == 0:
                return self.target.at >= self.target.count
            budget -= 1
        return True

    cdef void _relocate(self, Engine engine, const Hint* h, const Hint* old, uint32_t old_slot) noexcept nogil:
        cdef uint32_t page = <uint32_t>(h.order >> 55), tag = <uint32_t>(h.order >> 35) & 0xFFFFF
        cdef int64_t at = engine.keydir.find_word(page, make_word(tag, old_slot, <uint64_t>old.offset << 3))
        if at >= 0:
            replace_word(engine, page, <uint32_t>at, make_word(tag, self.slot, <uint64_t>h.offset << 3), h.units << 3,
                         old.units << 3)
            self.words += 1
