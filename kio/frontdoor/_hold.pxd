# Shards of which one command has all the attention: it needs answers before it can say what else is to be done.
#
# Invariants:
#   * what was queued before `gather_hold` reaches the shard first, then what is express, then, after `gather_release`,
#     what was queued meanwhile: each in its own order;
#   * what is withheld counts towards the shard's bounds, so nobody's memory grows by another one's command.
from libc.stdint cimport uint32_t

from kio.frontdoor._batch cimport Shard, batch_seal
from kio.frontdoor._buffer cimport numbers_add
from kio.frontdoor._gather cimport Gather


cdef inline void gather_seal(Gather* g, uint32_t number) noexcept nogil:
    # What was queued for a shard gets its place in the order.
    cdef Shard* shard = &g.shards[number]
    if shard.express != NULL:
        batch_seal(shard, number, shard.express)
    if shard.building != NULL:
        batch_seal(shard, number, shard.building)


cdef inline void gather_hold(Gather* g, uint32_t number) noexcept nogil:
    # From here on only what is express reaches the shard; what was queued before goes first.
    gather_seal(g, number)
    g.shards[number].is_held = True


cdef inline void gather_release(Gather* g, uint32_t number) noexcept nogil:
    # What was queued meanwhile comes behind what was express.
    cdef Shard* shard = &g.shards[number]
    cdef size_t i
    gather_seal(g, number)
    shard.is_held = False
    for i in range(shard.withheld.count):
        numbers_add(&shard.ready, shard.withheld.data[i])
    shard.withheld.count = 0
