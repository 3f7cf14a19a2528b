# XXH64 in C, for the kernel: the same numbers as kio.hashing gives (Yann Collet's specification of xxHash, version 0.1.1).
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memchr

cdef inline uint64_t _rotl(uint64_t x, int r) noexcept nogil:
    return (x << r) | (x >> (64 - r))

cdef inline uint64_t _u64(const uint8_t* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return v

cdef inline uint32_t _u32(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v

cdef inline uint64_t _round(uint64_t acc, uint64_t lane) noexcept nogil:
    return _rotl(acc + lane * <uint64_t>0xC2B2AE3D27D4EB4FULL, 31) * <uint64_t>0x9E3779B185EBCA87ULL

cdef inline uint64_t _merge(uint64_t h, uint64_t acc) noexcept nogil:
    return (h ^ _round(0, acc)) * <uint64_t>0x9E3779B185EBCA87ULL + <uint64_t>0x85EBCA77C2B2AE63ULL

cdef inline uint64_t xxh64(const uint8_t* p, size_t n, uint64_t seed) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef uint64_t h, a, b, c, d
    if n >= 32:
        a = seed + <uint64_t>0x9E3779B185EBCA87ULL + <uint64_t>0xC2B2AE3D27D4EB4FULL
        b = seed + <uint64_t>0xC2B2AE3D27D4EB4FULL
        c = seed
        d = seed - <uint64_t>0x9E3779B185EBCA87ULL
        while p + 32 <= end:
            a = _round(a, _u64(p))
            b = _round(b, _u64(p + 8))
            c = _round(c, _u64(p + 16))
            d = _round(d, _u64(p + 24))
            p += 32
        h = _rotl(a, 1) + _rotl(b, 7) + _rotl(c, 12) + _rotl(d, 18)
        h = _merge(_merge(_merge(_merge(h, a), b), c), d)
    else:
        h = seed + <uint64_t>0x27D4EB2F165667C5ULL
    h += n
    while p + 8 <= end:
        h = _rotl(h ^ _round(0, _u64(p)), 27) * <uint64_t>0x9E3779B185EBCA87ULL + <uint64_t>0x85EBCA77C2B2AE63ULL
        p += 8
    if p + 4 <= end:
        h = _rotl(h ^ (<uint64_t>_u32(p) * <uint64_t>0x9E3779B185EBCA87ULL), 23) * <uint64_t>0xC2B2AE3D27D4EB4FULL \
            + <uint64_t>0x165667B19E3779F9ULL
        p += 4
    while p < end:
        h = _rotl(h ^ (<uint64_t>p[0] * <uint64_t>0x27D4EB2F165667C5ULL), 11) * <uint64_t>0x9E3779B185EBCA87ULL
        p += 1
    h = (h ^ (h >> 33)) * <uint64_t>0xC2B2AE3D27D4EB4FULL
    h = (h ^ (h >> 29)) * <uint64_t>0x165667B19E3779F9ULL
    return h ^ (h >> 32)

cdef inline uint64_t key_hash(const uint8_t* key, size_t n, uint64_t seed, uint8_t keyspace) noexcept nogil:
    return xxh64(key, n, seed + <uint64_t>keyspace * <uint64_t>0x9E3779B97F4A7C15ULL)

cdef inline uint64_t routed_hash(const uint8_t* key, size_t n, uint64_t seed, uint8_t keyspace) noexcept nogil:
    cdef uint64_t whole = key_hash(key, n, seed, keyspace)
    cdef const uint8_t* start = <const uint8_t*>memchr(key, 123, n)
    cdef const uint8_t* stop
    if start == NULL:
        return whole
    stop = <const uint8_t*>memchr(start + 1, 125, n - <size_t>(start + 1 - key))
    if stop == NULL or stop == start + 1:
        return whole
    return (key_hash(start + 1, stop - start - 1, seed, keyspace) & <uint64_t>0xFFFFFFFF00000000ULL) \
        | (whole & <uint64_t>0xFFFFFFFFULL)

cdef inline uint32_t shard_of(uint64_t routed, uint32_t shards) noexcept nogil:
    return <uint32_t>(((routed >> 32) * shards) >> 32)
