# Memory outside of the Python heap for the front door: counted blocks, growable buffers, growable lists of numbers.
#
# Invariants:
#   * whatever `allocate` or `resize` gave is counted until `release`: `live_blocks`, `live_bytes`;
#   * a buffer grows by what has arrived, never by what a length field promises.
# A failed allocation ends the process: the supervisor starts another one, and a half-made reply is worse than none.
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove

cdef extern from * nogil:
    """
    #include <malloc.h>
    #include <stdlib.h>
    static size_t kio_live_blocks = 0, kio_live_bytes = 0;
    static void* kio_resize(void* block, size_t n) {
        if (block == NULL) kio_live_blocks++;
        else kio_live_bytes -= malloc_usable_size(block);
        block = realloc(block, n ? n : 1);
        if (block == NULL) abort();
        kio_live_bytes += malloc_usable_size(block);
        return block;
    }
    static void kio_release(void* block) {
        if (block == NULL) return;
        kio_live_blocks--;
        kio_live_bytes -= malloc_usable_size(block);
        free(block);
    }
    """
    size_t live_blocks "kio_live_blocks"
    size_t live_bytes "kio_live_bytes"
    void* resize "kio_resize"(void* block, size_t n)
    void release "kio_release"(void* block)

cdef enum:
    #: An empty buffer keeps its memory up to this size.
    KEEP_BYTES = 4096
    #: From here on a buffer grows by a quarter, not by its double.
    COARSE_BYTES = 1048576

cdef struct Buffer:
    uint8_t* data
    size_t start        # the first byte that is not consumed
    size_t end          # one past the last byte
    size_t capacity

cdef struct Numbers:
    uint64_t* data
    size_t count
    size_t capacity


cdef inline void* allocate(size_t n) noexcept nogil:
    return resize(NULL, n)


cdef inline size_t buffer_length(const Buffer* b) noexcept nogil:
    return b.end - b.start


cdef inline void buffer_free(Buffer* b) noexcept nogil:
    release(b.data)
    b.data = NULL
    b.start = b.end = b.capacity = 0


cdef inline void buffer_grow(Buffer* b, size_t n) noexcept nogil:
    cdef size_t length = b.end - b.start
    cdef size_t wanted
    if b.start > 0:
        memmove(b.data, b.data + b.start, length)
        b.start = 0
        b.end = length
        if b.capacity - length >= n and length <= b.capacity // 2:
            return
    wanted = length + n
    b.capacity = wanted + (wanted // 4 if wanted >= COARSE_BYTES else wanted)
    b.data = <uint8_t*>resize(b.data, b.capacity)


cdef inline uint8_t* buffer_reserve(Buffer* b, size_t n) noexcept nogil:
    # Room for `n` bytes behind the end; the caller moves `end`.
    if b.capacity - b.end < n:
        buffer_grow(b, n)
    return b.data + b.end


cdef inline void buffer_append(Buffer* b, const void* source, size_t n) noexcept nogil:
    if n:
        memcpy(buffer_reserve(b, n), source, n)
        b.end += n


cdef inline void buffer_consume(Buffer* b, size_t n) noexcept nogil:
    b.start += n
    if b.start == b.end:
        if b.capacity > KEEP_BYTES:
            buffer_free(b)
        else:
            b.start = b.end = 0


cdef inline void numbers_add(Numbers* list, uint64_t value) noexcept nogil:
    if list.count == list.capacity:
        list.capacity = 2 * list.capacity + 16
        list.data = <uint64_t*>resize(list.data, list.capacity * sizeof(uint64_t))
    list.data[list.count] = value
    list.count += 1


cdef inline void numbers_free(Numbers* list) noexcept nogil:
    release(list.data)
    list.data = NULL
    list.count = list.capacity = 0
