# The map of keyspaces: clients name one, records stand in another, where SWAPDB has exchanged some.
#
# Requests name keyspaces as clients do until they are queued for a shard (_gather.pxd, _atomic.pxd): there, and wherever
# a key is hashed, these two functions are the one place where the one becomes the other.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kio._xxh64 cimport routed_hash

cdef struct Keyspaces:
    uint8_t[256] places     # by the keyspace that clients name: the one that stands in records


cdef inline void keyspaces_init(Keyspaces* k) noexcept nogil:
    # Each is what it is called.
    cdef uint32_t i
    for i in range(256):
        k.places[i] = <uint8_t>i


cdef inline uint8_t keyspace_stored(const Keyspaces* k, uint8_t keyspace) noexcept nogil:
    # The keyspace as it stands in records, of one that clients name.
    return k.places[keyspace]


cdef inline uint64_t keyspace_hash(const Keyspaces* k, const uint8_t* key, uint32_t length, uint64_t seed,
                                   uint8_t keyspace) noexcept nogil:
    # The routed hash of a key in a keyspace that clients name.
    return routed_hash(key, length, seed, k.places[keyspace])
