# Reading a sorted list of hints where it is mapped: forward, block by block, and by leaps. Everything goes through guarded
# copies, since a mapped page may be one that the disk cannot deliver.
from libc.errno cimport EIO
from libc.stdint cimport uint64_t

from kio.segments._format cimport Hint
from kio.segments._native cimport kio_guarded_copy

cdef enum:
    BLOCK = 64              # hints read at once

cdef struct Reader:
    # A sorted list of hints, read block by block.
    const Hint* hints
    size_t count
    size_t at
    size_t block_start
    size_t block_count
    Hint block[BLOCK]


cdef inline int load(Reader* r) except -1 nogil:
    r.block_start = r.at
    r.block_count = min(<size_t>BLOCK, r.count - r.at)
    if kio_guarded_copy(r.block, r.hints + r.at, r.block_count * sizeof(Hint)) != 1:
        with gil:
            raise OSError(EIO, "the hints of a segment cannot be read")
    return 0


cdef inline Hint* hint_at(Reader* r) except NULL nogil:
    # The hint at `at`, which is below `count`; valid until the next call.
    if r.at < r.block_start or r.at >= r.block_start + r.block_count:
        load(r)
    return &r.block[r.at - r.block_start]


cdef inline bint is_older(const Hint* a, const Hint* b) noexcept nogil:
    return a.epoch < b.epoch or (a.epoch == b.epoch and a.lsn < b.lsn)


cdef inline bint is_before(const Hint* a, const Hint* b) noexcept nogil:
    return a.order < b.order or (a.order == b.order and is_older(a, b))


cdef inline int seek(Reader* r, uint64_t order) except -1 nogil:
    # Go forward to the first hint that is not below `order`: in steps that double, then by halves.
    cdef size_t low = r.at, high, step = 1
    while low < r.count:
        r.at = low
        if hint_at(r).order >= order:
            return 0
        high = low + step
        if high >= r.count:
            high = r.count
            break
        r.at = high
        if hint_at(r).order >= order:
            break
        low = high
        step *= 2
    else:
        r.at = r.count
        return 0
    # The hint at `low` is below, the one at `high` is not, or `high` is the end.
    while high - low > 1:
        r.at = low + (high - low) // 2
        if hint_at(r).order < order:
            low = r.at
        else:
            high = r.at
    r.at = high
    return 0


cdef inline int rewind(Reader* r, uint64_t order) except -1 nogil:
    # Back to the first hint of `order`: the next candidate may have the same one.
    while r.at > 0:
        r.at -= 1
        if hint_at(r).order != order:
            r.at += 1
            break
    return 0
