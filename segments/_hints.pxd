# The merge of many segments' hints, page by page; _hints.pyx holds the behaviour.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kio.segments._format cimport Hint

cdef struct Item:
    Hint hint
    uint32_t source

cdef struct Source:
    uint32_t slot
    const Hint* hints
    size_t count
    size_t at
    const uint8_t* base
    uint64_t size
    int64_t live_bytes
    bint is_known           # to the checkpoint under it: what that one covers is left out

cdef struct Build:
    Source* sources
    uint32_t source_count
    Item* items
    Item* spare
    size_t capacity
    size_t* bounds          # where each source's run begins in `items`
    uint64_t* words
    uint32_t floor_epoch[256]
    uint64_t floor_lsn[256]
    int64_t keys[256]

cdef list set_up(Build* b, sources)
cdef void give_up(Build* b) noexcept
cdef ssize_t gather(Build* b, uint32_t page, uint64_t covered_lsn) except -1 nogil
cdef size_t winners(Build* b, size_t first, size_t stop, bint is_over) noexcept nogil
cdef const uint8_t* key_of(Build* b, const Item* item) noexcept nogil
