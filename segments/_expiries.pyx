# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What expires when: the entries of one segment, to be taken in the order of their time.

    ExpiryQueue   of a segment that takes records: entries come in as records are written
    ExpiryRun     of a segment that takes none: the sorted list at its end, read in place; or what a scan has found

An entry says where its record stands, not whether that still counts: the KeyDir's word decides (_sweep.pyx). So taking an
entry twice, as it happens when a queue is replaced by the run of the sealed segment, is harmless.

A queue is a line and a heap. Records that get the same time to live come in the order of their expiry, and stand in line:
adding and taking is one copy. An entry that expires before the last in line goes to the heap.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from kio.segments._format cimport Expiry
from kio.segments._native cimport kio_guarded_copy, setup

import errno


setup()

#: `next_ms` of a list that has no more entries.
cdef uint64_t NEVER = <uint64_t>0xFFFFFFFFFFFFFFFFULL


cdef class Expiries:
    """Entries to be taken by time.

    Attributes:
        next_ms: the time of the next entry; the highest number when there is none.
    """

    def __cinit__(self):
        self.next_ms = NEVER

    cdef int64_t take(self, uint64_t until_ms, Expiry* out, uint32_t limit) except -1 nogil:
        """Take at most `limit` entries whose time is `until_ms` or before; how many were there.

        Raises: OSError (EIO) when the disk does not deliver them.
        """
        return 0

    cdef int first(self, Expiry* out) except -1 nogil:
        """Look at the next entry without taking it: 1, or 0 when there is none."""
        return 0


cdef class ExpiryRun(Expiries):
    """A sorted list (format.py), none of it taken yet.

    Borrows: `entries`, for as long as the run lives.
    Raises: OSError (EIO) when the disk does not deliver them.
    """

    def __cinit__(self, const uint8_t[::1] entries):
        self.holder = entries
        self.count = entries.shape[0] // sizeof(Expiry)
        self.at = 0
        if self.count:
            self.base = &entries[0]
        self._look()

    def __len__(self):
        return self.count - self.at

    cdef int _look(self) except -1 nogil:
        cdef Expiry e
        self.next_ms = NEVER
        if self.at < self.count:
            self._copy(&e, 1)
            self.next_ms = e.at
        return 0

    cdef int _copy(self, Expiry* out, uint32_t n) except -1 nogil:
        """Copy the next n entries; 1."""
        if kio_guarded_copy(out, self.base + self.at * sizeof(Expiry), n * sizeof(Expiry)) != 1:
            self.at = self.count
            self.next_ms = NEVER
            with gil:
                raise OSError(errno.EIO, "a segment's expiries cannot be read")
        return 1

    cdef int first(self, Expiry* out) except -1 nogil:
        return 0 if self.at == self.count else self._copy(out, 1)

    cdef int64_t take(self, uint64_t until_ms, Expiry* out, uint32_t limit) except -1 nogil:
        cdef uint32_t n = <uint32_t>min(<size_t>limit, self.count - self.at), i = 0
        if n == 0 or self.next_ms > until_ms:
            return 0
        self._copy(out, n)
        while i < n and out[i].at <= until_ms:
            i += 1
        self.at += i
        self._look()
        return i


cdef class ExpiryQueue(Expiries):
    """No entry yet."""

    def __dealloc__(self):
        free(self.line.items)
        free(self.heap.items)

    def __len__(self):
        return self.line.count - self.at + self.heap.count

    cdef int reserve(self, size_t more) except -1 nogil:
        """Make sure that `more` entries can be added."""
        reserve_expiries(&self.line, more)
        return reserve_expiries(&self.heap, more)

    cdef void add(self, const Expiry* e) noexcept nogil:
        """Add an entry whose room was reserved."""
        if self.at == self.line.count:
            self.at = self.line.count = 0
        if self.line.count == 0 or self.line.items[self.line.count - 1].at <= e.at:
            self.line.items[self.line.count] = e[0]
            self.line.count += 1
        else:
            self._push(e)
        self._look()

    cdef int first(self, Expiry* out) except -1 nogil:
        if self.next_ms == NEVER:
            return 0
        out[0] = self.heap.items[0] if self._is_heap_next() else self.line.items[self.at]
        return 1

    cdef bint _is_heap_next(self) noexcept nogil:
        return self.heap.count > 0 and (
            self.at == self.line.count or self.heap.items[0].at < self.line.items[self.at].at)

    cdef void _look(self) noexcept nogil:
        if self._is_heap_next():
            self.next_ms = self.heap.items[0].at
        else:
            self.next_ms = self.line.items[self.at].at if self.at < self.line.count else NEVER

    cdef int64_t take(self, uint64_t until_ms, Expiry* out, uint32_t limit) except -1 nogil:
        cdef uint32_t n = 0
        while n < limit and self.next_ms != NEVER and self.next_ms <= until_ms:
            if self._is_heap_next():
                out[n] = self.heap.items[0]
                self._pop()
            else:
                out[n] = self.line.items[self.at]
                self.at += 1
            n += 1
            self._look()
        return n

    cdef void _push(self, const Expiry* e) noexcept nogil:
        cdef Expiry* items = self.heap.items
        cdef size_t at = self.heap.count, above
        self.heap.count += 1
        while at > 0:
            above = (at - 1) // 2
            if items[above].at <= e.at:
                break
            items[at] = items[above]
            at = above
        items[at] = e[0]

    cdef void _pop(self) noexcept nogil:
        cdef Expiry* items = self.heap.items
        cdef Expiry last
        cdef size_t at = 0, below = 1
        self.heap.count -= 1
        last = items[self.heap.count]
        while below < self.heap.count:
            if below + 1 < self.heap.count and items[below + 1].at < items[below].at:
                below += 1
            if last.at <= items[below].at:
                break
            items[at] = items[below]
            at = below
            below = 2 * at + 1
        items[at] = last
