# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The purge: the KeyDir's words of cleared records are removed, and their bytes count as dead.

A clear takes effect by a number: the floor of its keyspace (`Engine.cleared`), at or below which every record is absent.
The words stay behind, uncounted, and whoever comes upon one takes its record for absent:

    lookups, the sweep, compaction's marks     remove the word on the spot
    scans                                      pass it by
    compaction's relocation                    moves it: the copy has the version of the original, so it is below the floor too
    checkpoints                                are not taken, until no word is left

The walk removes the rest, page by page from wherever it stands, until it has seen every page from its start to its end
since the last clear: words of cleared records are never added, so then there is none, and the floors go. Where it stands
is a place in the order of (page, tag), which no growth and no removal between two slices changes.
Crash: nothing is kept. Recovery knows the floors from the clear records and the manifest.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from kio.segments._engine cimport Engine, cleared_bytes, drop_floors, purge_word
from kio.segments._keydir cimport PAGES, Page, first_of, word_tag
from kio.segments._native cimport kio_prefetch, setup


setup()

cdef enum:
    GROUP = 16      # words between two looks at the clock
    AHEAD = 16      # words between a prefetch and its use


def purge(Engine engine, uint32_t budget_us, uint32_t words_max):
    """One slice of the walk; how many words it has looked at. `Engine.has_floors` tells whether there is more.

    Cost: about `budget_us`, and `words_max` words or the rest of one tag's, at the most.
    """
    cdef uint32_t looked_at = 0
    if engine.has_floors:
        with nogil:
            looked_at = _purge(engine, _now_us() + budget_us, words_max)
    return looked_at


cdef inline int64_t _now_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef uint32_t _purge(Engine engine, int64_t until_us, uint32_t words_max) noexcept nogil:
    cdef uint32_t looked_at = 0
    cdef bint is_over = False
    while not is_over:
        is_over = _purge_page(engine, until_us, words_max, &looked_at)
        if not is_over:
            engine.purge_page = (engine.purge_page + 1) % PAGES
            engine.purge_tag = 0
            engine.purge_left -= 1
            if engine.purge_left == 0:
                drop_floors(engine)
                break
            is_over = looked_at >= words_max or _now_us() >= until_us
    return looked_at


cdef bint _purge_page(Engine engine, int64_t until_us, uint32_t words_max, uint32_t* looked_at) noexcept nogil:
    """Go on with the page; whether the slice has to end within it, and then between two tags."""
    cdef Page* page = &engine.keydir.pages[engine.purge_page]
    cdef uint32_t at = first_of(page, engine.purge_tag), tag = engine.purge_tag, slots, length
    cdef uint64_t word, room
    cdef const uint8_t* record
    cdef bint is_over = False
    while at < page.slots:
        word = page.words[at]
        if word == 0:
            at += 1
            continue
        if word_tag(word) != tag:
            tag = word_tag(word)
            if is_over:
                engine.purge_tag = tag
                return True
        if at + AHEAD < page.slots and page.words[at + AHEAD] != 0:
            kio_prefetch(engine.address(page.words[at + AHEAD], &room))
        record = engine.address(word, &room)
        length = cleared_bytes(engine, record, room)
        if length == 0:
            at += 1
        else:
            slots = page.slots
            purge_word(engine, engine.purge_page, at, length)
            if page.slots != slots:
                at = first_of(page, tag)    # the page has shrunk; elsewise what stood behind the word is in its place
        looked_at[0] += 1
        is_over = is_over or looked_at[0] >= words_max or (looked_at[0] % GROUP == 0 and _now_us() >= until_us)
    return False
