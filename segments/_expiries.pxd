# Lists of expiries (format.py) in memory; _expiries.pyx says what they are for.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort, realloc

from kio.segments._format cimport Expiry

cdef struct ExpiryList:
    Expiry* items
    size_t count
    size_t capacity

cdef inline int reserve_expiries(ExpiryList* l, size_t more) except -1 nogil:
    cdef void* items
    cdef size_t capacity
    if l.count + more > l.capacity:
        capacity = max(l.capacity * 2, max(l.count + more, <size_t>256))
        items = realloc(l.items, capacity * sizeof(Expiry))
        if items == NULL:
            with gil:
                raise MemoryError(f"no memory for {capacity} expiries")
        l.items = <Expiry*>items
        l.capacity = capacity
    return 0

cdef inline void add_expiry(ExpiryList* l, uint64_t at, uint64_t order, uint64_t offset, uint64_t length,
                            uint8_t keyspace) noexcept nogil:
    # Its room was reserved.
    cdef Expiry* e = &l.items[l.count]
    e.at = at
    e.order_high, e.offset, e.units = <uint32_t>(order >> 32), <uint32_t>(offset >> 3), <uint32_t>(length >> 3)
    e.keyspace = keyspace
    e.zero[0], e.zero[1], e.zero[2] = 0, 0, 0
    l.count += 1

cdef inline bint expires_before(const Expiry* a, const Expiry* b) noexcept nogil:
    return a.at < b.at or (a.at == b.at and a.offset < b.offset)

cdef inline int compare_expiries(const void* a, const void* b) noexcept nogil:
    if expires_before(<const Expiry*>a, <const Expiry*>b):
        return -1
    return 1 if expires_before(<const Expiry*>b, <const Expiry*>a) else 0

cdef inline void sort_expiries(ExpiryList* l) noexcept nogil:
    # Where every record was given the same time to live, they are in order as they come.
    cdef size_t i
    for i in range(1, l.count):
        if expires_before(&l.items[i], &l.items[i - 1]):
            qsort(l.items, l.count, sizeof(Expiry), compare_expiries)
            return


cdef class Expiries:
    cdef readonly uint64_t next_ms
    cdef int64_t take(self, uint64_t until_ms, Expiry* out, uint32_t limit) except -1 nogil
    cdef int first(self, Expiry* out) except -1 nogil


cdef class ExpiryRun(Expiries):
    cdef object holder
    cdef const uint8_t* base
    cdef size_t count, at

    cdef int _look(self) except -1 nogil
    cdef int _copy(self, Expiry* out, uint32_t n) except -1 nogil


cdef class ExpiryQueue(Expiries):
    cdef ExpiryList line        # in order of time, taken from the front
    cdef size_t at
    cdef ExpiryList heap        # the others: each before those at twice its place

    cdef int reserve(self, size_t more) except -1 nogil
    cdef void add(self, const Expiry* e) noexcept nogil
    cdef void _look(self) noexcept nogil
    cdef bint _is_heap_next(self) noexcept nogil
    cdef void _push(self, const Expiry* e) noexcept nogil
    cdef void _pop(self) noexcept nogil
