# What a connection may do, where that is not everything: whether it may write, and what its keys begin with.
#
# A grant is shared by all connections that have the same one, and freed by Dispatch when none has it any more.
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from kio.frontdoor._buffer cimport release

cdef struct Grant:
    Grant* next
    uint32_t connections    # that have it
    bint may_write
    uint32_t count          # of prefixes; 0: it may touch all keys
    uint32_t* lengths
    uint8_t* prefixes       # one after the other


cdef inline bint grant_allows(const Grant* grant, bint is_write, const uint8_t* key, uint32_t length) noexcept nogil:
    cdef const uint8_t* prefix = grant.prefixes
    cdef uint32_t i
    if is_write and not grant.may_write:
        return False
    for i in range(grant.count):
        if length >= grant.lengths[i] and memcmp(key, prefix, grant.lengths[i]) == 0:
            return True
        prefix += grant.lengths[i]
    return grant.count == 0


cdef inline Grant* grants_sweep(Grant** grants) noexcept nogil:
    # Free those of a list that no connection has any more; the first one that is left.
    cdef Grant** link = grants
    cdef Grant* grant
    while link[0] != NULL:
        grant = link[0]
        if grant.connections:
            link = &grant.next
            continue
        link[0] = grant.next
        release(grant.lengths)
        release(grant.prefixes)
        release(grant)
    return grants[0]
