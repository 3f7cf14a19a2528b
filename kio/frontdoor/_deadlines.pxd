# Requests whose time has passed: answered Timeout, whatever becomes of their operations.
#
# Invariant: a write whose operations may have been sent may have been applied, and is answered so.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kio._opbatch cimport MAYBE_APPLIED
from kio.frontdoor._gather cimport Gather, gather_complete
from kio.frontdoor._handles cimport handle_drop
from kio.frontdoor._native cimport TIMEOUT
from kio.frontdoor._request cimport PENDING, WHEEL_BUCKETS, WHEEL_SHIFT, Request


cdef inline void gather_expire_one(Gather* g, Request* r) noexcept nogil:
    cdef uint8_t status = TIMEOUT
    cdef uint32_t i
    if r.is_write and r.turn != g.turn:
        status |= MAYBE_APPLIED
    if not r.is_batch:
        r.status = status
        if r.handle:
            handle_drop(&g.handles, r)
    else:
        for i in range(r.count):
            if r.results[i].status == PENDING:
                r.results[i].status = status
                r.results[i].length = 0
                r.results[i].offset = 0
                r.failed += 1
    gather_complete(g, r)


cdef inline void gather_expire(Gather* g) noexcept nogil:
    # Look through the buckets since the last time, the present one included.
    cdef uint64_t last = g.now_ms >> WHEEL_SHIFT
    cdef uint64_t tick = g.wheel.tick
    cdef Request* r
    cdef Request* next
    if g.wheel.requests:
        if last >= tick + WHEEL_BUCKETS:
            tick = last - WHEEL_BUCKETS + 1
        while tick <= last:
            r = g.wheel.buckets[tick & (WHEEL_BUCKETS - 1)]
            while r != NULL:
                next = r.wheel_next
                if r.deadline <= g.now_ms:
                    gather_expire_one(g, r)
                r = next
            tick += 1
    g.wheel.tick = last
