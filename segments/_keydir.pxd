# KeyDir's memory layout and its inline parts: _keydir.pyx describes them.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int64_t

cdef enum:
    PAGE_BITS = 9
    PAGES = 512
    TAG_BITS = 20
    TAG_SHIFT = 44
    SLOT_SHIFT = 28
    OFFSET_SHIFT = 3
    OFFSET_MASK = 0x1FFFFFF
    #: Words behind the last home, so that a run at the end of a page has room; the last one is always empty.
    SLACK = 33
    #: Words in 4 KiB: the least a page grows by.
    STEP = 512

cdef struct Page:
    uint64_t* words
    uint32_t slots      # words allocated
    uint32_t homes      # words that are somebody's home: at most slots - SLACK
    uint32_t used
    uint32_t used_max   # the page grows before it holds more

cdef inline uint32_t page_of(uint64_t hash) noexcept nogil:
    return <uint32_t>hash >> (32 - PAGE_BITS)

cdef inline uint32_t tag_of(uint64_t hash) noexcept nogil:
    return (<uint32_t>hash >> (32 - PAGE_BITS - TAG_BITS)) & ((1 << TAG_BITS) - 1)

cdef inline uint32_t home_of(const Page* page, uint32_t tag) noexcept nogil:
    return <uint32_t>((<uint64_t>tag * page.homes) >> TAG_BITS)

cdef inline uint64_t make_word(uint32_t tag, uint32_t slot, uint64_t offset) noexcept nogil:
    return (<uint64_t>tag << TAG_SHIFT) | (<uint64_t>slot << SLOT_SHIFT) | ((offset >> 3) << OFFSET_SHIFT)

cdef inline uint32_t word_tag(uint64_t word) noexcept nogil:
    return <uint32_t>(word >> TAG_SHIFT)

cdef inline uint32_t word_slot(uint64_t word) noexcept nogil:
    return <uint32_t>(word >> SLOT_SHIFT) & 0xFFFF

cdef inline uint64_t word_offset(uint64_t word) noexcept nogil:
    return ((word >> OFFSET_SHIFT) & OFFSET_MASK) << 3

cdef inline uint32_t first_of(const Page* page, uint32_t tag) noexcept nogil:
    # The position of the first word with this tag, or where it would be inserted.
    cdef uint32_t at = home_of(page, tag)
    cdef uint64_t floor = <uint64_t>tag << TAG_SHIFT
    cdef uint64_t word = page.words[at]
    while word != 0 and word < floor:
        at += 1
        word = page.words[at]
    return at

cdef inline int64_t growth_of(const Page* page) noexcept nogil:
    # By how many bytes the page grows when one more word is inserted.
    return <int64_t>(page.slots // 16 + STEP) * 8 if page.used >= page.used_max else 0


cdef class KeyDir:
    cdef Page pages[PAGES]
    cdef readonly int64_t used
    cdef readonly int64_t allocated_bytes

    cdef int insert(self, uint32_t page, uint64_t word) except -1 nogil
    cdef void remove_at(self, uint32_t page, uint32_t at) noexcept nogil
    cdef int64_t find_word(self, uint32_t page, uint64_t word) noexcept nogil
    cdef int fill(self, uint32_t page, const uint64_t* words, uint32_t count) except -1 nogil
    cdef int _spread(self, Page* page, uint32_t slots) except -1 nogil
    cdef int _resize(self, Page* page, uint32_t slots) except -1 nogil
    cdef void _arrange(self, Page* page, uint32_t slots, uint32_t homes) noexcept nogil
    cdef bint _is_arranged(self, const Page* page) noexcept nogil
    cdef void reset(self) noexcept nogil
