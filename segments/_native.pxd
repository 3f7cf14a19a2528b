# What _native.h gives to the kernel. Each extension that uses it calls `setup` once, when it is loaded.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from kio.segments._format cimport Record

cdef extern from "_native.h" nogil:
    int FAULT "KIO_FAULT"
    void kio_crc_setup()
    void kio_memory_setup()
    int kio_guard_setup()
    void kio_prefetch(const void* p)
    uint32_t kio_crc32c(uint32_t crc, const uint8_t* p, size_t n)
    int kio_guarded_peek(Record* out, const uint8_t* record, uint64_t room, const uint8_t* key, uint16_t key_length,
                         uint8_t keyspace)
    int kio_guarded_read(const uint8_t* record, uint64_t size, uint32_t crc_seed, void* to, uint64_t start, uint64_t n)
    int kio_guarded_header(Record* out, const uint8_t* record, uint64_t room)
    int kio_guarded_crc(uint32_t* out, uint32_t crc, const uint8_t* start, uint64_t n)
    int kio_guarded_copy(void* to, const void* start, uint64_t n)

cdef inline int setup() except -1:
    kio_crc_setup()
    kio_memory_setup()
    if kio_guard_setup() != 0:
        raise OSError("no handler for SIGBUS could be installed")
    return 0
