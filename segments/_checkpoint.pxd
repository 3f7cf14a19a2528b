# A checkpoint's page as it lies in the file; checkpoint.py describes it.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kio.segments._native cimport kio_crc32c

cdef struct PageHeader:
    uint64_t lsn
    uint32_t number
    uint32_t words
    uint32_t zero
    uint32_t crc

cdef inline uint32_t page_crc(uint32_t seed, const uint8_t* page) noexcept nogil:
    cdef size_t words = <size_t>(<const PageHeader*>page).words * 8
    return kio_crc32c(kio_crc32c(seed, page, sizeof(PageHeader) - 4), page + sizeof(PageHeader), words)

cdef inline size_t page_bytes(const uint8_t* page, size_t room) noexcept nogil:
    # The length of the page that begins here; 0 when it does not fit.
    cdef size_t size = sizeof(PageHeader)
    if size <= room:
        size += <size_t>(<const PageHeader*>page).words * 8
    return size if size <= room else 0
