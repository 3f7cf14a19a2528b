# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The words of a checkpoint, beside the hints of the segments that they point into: for the offline examination."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio.segments._checkpoint cimport PageHeader, page_bytes, page_crc
from kio.segments._engine cimport Buffer, reserve
from kio.segments._format cimport HINT_BYTES, KIND_MASK, KIND_PUT, Hint
from kio.segments._keydir cimport PAGES, word_offset, word_slot, word_tag
from kio.segments._native cimport setup

from libc.stdlib cimport free

from kio.errors import Corrupt


setup()


cdef class Words:
    """The words of a checkpoint whose header has the checksum `seed`.

    Attributes:
        count: of the words in all pages that were added.
    """

    cdef Buffer pages
    cdef uint32_t seed, next
    cdef readonly uint64_t count

    def __cinit__(self, uint32_t seed):
        self.seed = seed

    def __dealloc__(self):
        free(self.pages.data)

    @property
    def is_whole(self):
        """Whether every page was added."""
        return self.next == PAGES

    def add(self, bytes data):
        """Take whole pages, which follow those of the last call.

        Raises: Corrupt when they are damaged; the message has the number of the page.
        """
        cdef const uint8_t* p = data
        cdef size_t size = len(data), at = 0, length
        cdef const PageHeader* head
        while at < size:
            head = <const PageHeader*>(p + at)
            length = page_bytes(p + at, size - at)
            if length == 0 or page_crc(self.seed, p + at) != head.crc or head.number != self.next:
                raise Corrupt(f"page {self.next} fails its checksum, or stands elsewhere")
            self.count += head.words
            self.next += 1
            at += length
        reserve(&self.pages, size)
        memcpy(self.pages.data + self.pages.size, p, size)
        self.pages.size += size

    def compare(self, uint32_t slot, const uint8_t[::1] hints):
        """(words of `slot` that point to no put among `hints`, bytes of the puts that the others point to).

        Args:
            hints: of one segment, sorted.
        """
        cdef const Hint* items = <const Hint*>&hints[0] if hints.shape[0] else NULL
        cdef size_t count = hints.shape[0] // HINT_BYTES
        cdef uint64_t lost = 0
        cdef int64_t live_bytes = 0
        with nogil:
            self._compare(slot, items, count, &lost, &live_bytes)
        return lost, live_bytes

    cdef void _compare(self, uint32_t slot, const Hint* items, size_t count, uint64_t* lost,
                       int64_t* live_bytes) noexcept nogil:
        cdef size_t at = 0, h = 0, i
        cdef const PageHeader* head
        cdef const uint64_t* words
        cdef uint64_t place
        cdef uint32_t w
        while at < self.pages.size:
            head = <const PageHeader*>(self.pages.data + at)
            words = <const uint64_t*>(head + 1)
            for w in range(head.words):
                if word_slot(words[w]) != slot:
                    continue
                # Page and tag: the highest bits of an order (format.py).
                place = (<uint64_t>head.number << 20) | word_tag(words[w])
                while h < count and items[h].order >> 35 < place:
                    h += 1
                i = h
                while i < count and items[i].order >> 35 == place and not (
                        items[i].kind & KIND_MASK == KIND_PUT and <uint64_t>items[i].offset << 3 == word_offset(words[w])):
                    i += 1
                if i < count and items[i].order >> 35 == place:
                    live_bytes[0] += <int64_t>items[i].units << 3
                else:
                    lost[0] += 1
            at += page_bytes(self.pages.data + at, self.pages.size - at)
