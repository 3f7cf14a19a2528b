# Handles: the names under which Python answers rare requests.
#
# Invariants:
#   * a handle is its place in `requests` and a generation that never repeats, so an old one finds nothing;
#   * a request with a handle is pending until the handle is taken (Python answers) or dropped (nobody waits any more);
#   * whatever was dropped stands in `dropped` until Python has been told.
from libc.stdint cimport uint32_t, uint64_t

from kio.frontdoor._buffer cimport Numbers, numbers_add, numbers_free, release, resize
from kio.frontdoor._request cimport Request

cdef struct Handles:
    Request** requests
    uint64_t capacity
    uint64_t generation
    Numbers free            # places in `requests`
    Numbers dropped         # handles


cdef inline void handle_new(Handles* handles, Request* r) noexcept nogil:
    cdef uint64_t place
    if handles.free.count:
        handles.free.count -= 1
        place = handles.free.data[handles.free.count]
    else:
        place = handles.capacity
        handles.capacity += 1
        handles.requests = <Request**>resize(handles.requests, handles.capacity * sizeof(Request*))
    handles.generation += 1
    handles.requests[place] = r
    r.handle = handles.generation << 32 | place


cdef inline Request* handle_find(Handles* handles, uint64_t handle) noexcept nogil:
    # NULL when it was taken or dropped.
    cdef uint64_t place = <uint32_t>handle
    if place >= handles.capacity or handles.requests[place] == NULL or handles.requests[place].handle != handle:
        return NULL
    return handles.requests[place]


cdef inline void handle_take(Handles* handles, Request* r) noexcept nogil:
    handles.requests[<uint32_t>r.handle] = NULL
    numbers_add(&handles.free, <uint32_t>r.handle)
    r.handle = 0


cdef inline void handle_drop(Handles* handles, Request* r) noexcept nogil:
    numbers_add(&handles.dropped, r.handle)
    handle_take(handles, r)
    r.pending -= 1


cdef inline void handles_free(Handles* handles) noexcept nogil:
    release(handles.requests)
    numbers_free(&handles.free)
    numbers_free(&handles.dropped)
