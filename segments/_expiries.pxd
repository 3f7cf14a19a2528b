# A list of expiries (format.py) in memory: what a scan gathers, and what a sweep walks.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort, realloc

from kio.segments._format cimport Expiry

cdef struct ExpiryList:
    Expiry* items
    size_t count
    size_t capacity

cdef inline int push_expiry(ExpiryList* l, uint64_t at, uint64_t order, uint64_t offset, uint64_t length,
                            uint8_t keyspace) except -1 nogil:
    cdef Expiry e
    e.at = at
    e.order_high, e.offset, e.units = <uint32_t>(order >> 32), <uint32_t>(offset >> 3), <uint32_t>(length >> 3)
    e.keyspace = keyspace
    e.zero[0], e.zero[1], e.zero[2] = 0, 0, 0
    return append_expiry(l, &e)

cdef inline int append_expiry(ExpiryList* l, const Expiry* e) except -1 nogil:
    cdef void* items
    cdef size_t capacity
    if l.count == l.capacity:
        capacity = max(l.capacity * 2, <size_t>256)
        items = realloc(l.items, capacity * sizeof(Expiry))
        if items == NULL:
            with gil:
                raise MemoryError(f"no memory for {capacity} expiries")
        l.items = <Expiry*>items
        l.capacity = capacity
    l.items[l.count] = e[0]
    l.count += 1
    return 0

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
