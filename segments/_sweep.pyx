# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The sweep: the KeyDir's words of expired records are removed, and their bytes count as dead.

An entry of a list of expiries (_expiries.pyx) names a word: page, tag, segment and offset. Where the KeyDir still holds
exactly that word, its record is the newest of its key, and has expired. Where it does not, the record was overwritten,
deleted or moved, and there is nothing to do. No key is needed, and no record is read, but while some may have been cleared:
their keys are not counted any more.

A KeyDir page that loses words shrinks by itself only when it is nearly empty (_keydir.pyx). Where many keys expire at once,
`trim` gives back what they took.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from kio.segments._engine cimport Engine, cleared_bytes, purge_word, remove_word
from kio.segments._expiries cimport Expiries
from kio.segments._format cimport Expiry, Record
from kio.segments._keydir cimport PAGES, SLACK, Page, home_of, make_word
from kio.segments._native cimport kio_guarded_header, kio_prefetch, setup


setup()

cdef enum:
    GROUP = 32      # entries whose places in the KeyDir are fetched together, between two looks at the clock
    STEP = 512      # a KeyDir page is whole pages of memory


def sweep(Engine engine, uint32_t slot, uint64_t segment, Expiries source, uint64_t now_ms, uint32_t budget_us):
    """Remove what `source`, the list of the attached segment `segment`, says has expired by `now_ms`.

    With sync = "always" it ends where a record is not durable yet: else a key would be absent for a reason that a power cut
    can undo.

    Returns: whether the budget has ended it: there may be more at once.

    Raises: OSError (EIO) when the disk does not deliver the list.
    Cost: about `budget_us` at the most.
    """
    cdef bint is_more = False
    if engine.segments[slot].base != NULL and engine.segments[slot].id == segment:
        with nogil:
            is_more = _sweep(engine, slot, source, now_ms, budget_us)
    return is_more


cdef inline int64_t _now_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef int _sweep(Engine engine, uint32_t slot, Expiries source, uint64_t now_ms, uint32_t budget_us) except -1 nogil:
    cdef Expiry entries[GROUP]
    cdef int64_t n, i, until_us = _now_us() + budget_us
    cdef uint32_t group
    cdef Page* page
    while source.next_ms <= now_ms:
        # Of records that are not durable one is looked at after the other.
        group = GROUP
        if engine.parks and engine.lsn > engine.durable_lsn:
            source.first(&entries[0])
            if not _is_durable(engine, _word(&entries[0], slot)):
                return 0
            group = 1
        n = source.take(now_ms, entries, group)
        for i in range(n):
            page = &engine.keydir.pages[entries[i].order_high >> 23]
            kio_prefetch(page.words + home_of(page, _tag(&entries[i])))
        for i in range(n):
            _remove(engine, slot, &entries[i])
        if _now_us() >= until_us:
            return 1
    return 0


cdef inline uint32_t _tag(const Expiry* e) noexcept nogil:
    return (e.order_high >> 3) & 0xFFFFF


cdef inline uint64_t _word(const Expiry* e, uint32_t slot) noexcept nogil:
    return make_word(_tag(e), slot, <uint64_t>e.offset << 3)


cdef void _remove(Engine engine, uint32_t slot, const Expiry* e) noexcept nogil:
    cdef uint32_t page = e.order_high >> 23
    cdef int64_t at = engine.keydir.find_word(page, _word(e, slot))
    cdef uint64_t room
    cdef const uint8_t* record
    if at < 0:
        return
    if engine.has_floors:
        record = engine.address(_word(e, slot), &room)
        if cleared_bytes(engine, record, room):
            purge_word(engine, page, <uint32_t>at, e.units << 3)
            return
    remove_word(engine, page, <uint32_t>at, e.units << 3, e.keyspace)
    engine.expired += 1
    engine.expired_ms = max(engine.expired_ms, e.at)


cdef bint _is_durable(Engine engine, uint64_t word) noexcept nogil:
    cdef Record header
    cdef uint64_t room
    cdef const uint8_t* record = engine.address(word, &room)
    return kio_guarded_header(&header, record, room) != 1 or header.lsn <= engine.durable_lsn


def trim(Engine engine, uint32_t first_page, uint32_t budget_us):
    """Give back the memory of KeyDir pages that are less than 0.7 full, from `first_page` on; the page to go on with, or 512.

    Cost: about `budget_us` at the most; a page that is trimmed costs a pass over its words.
    """
    cdef int64_t until_us = _now_us() + budget_us
    cdef uint32_t number = first_page
    while number < PAGES:
        _trim(engine, &engine.keydir.pages[number])
        number += 1
        if _now_us() >= until_us:
            break
    return number


cdef int _trim(Engine engine, Page* page) except -1 nogil:
    cdef uint32_t slots = (page.used + page.used // 5 + SLACK + STEP) // STEP * STEP
    if page.slots > slots and page.used < page.homes // 10 * 7:
        engine.keydir._spread(page, slots)
    return 0
