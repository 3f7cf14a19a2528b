# The C view of a record, a hint and an expiry; format.py describes them.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_format.h" nogil:
    enum:
        RECORD_HEADER "KIO_RECORD_HEADER"
        HINT_BYTES "KIO_HINT_BYTES"
        EXPIRY_BYTES "KIO_EXPIRY_BYTES"
        FOOTER_BYTES "KIO_FOOTER_BYTES"
        KIND_PUT "KIO_PUT"
        KIND_TOMBSTONE "KIO_TOMBSTONE"
        KIND_CLEAR "KIO_CLEAR"
        KIND_DAMAGED "KIO_DAMAGED"
        KIND_MASK "KIO_KIND"
        FLAG_EXPIRY "KIO_EXPIRY"
        FLAG_REQUEST_ID "KIO_REQUEST_ID"
        FLAG_BATCH_OPEN "KIO_BATCH_OPEN"
        FLAG_COLLIDES "KIO_COLLIDES"
        FLAG_HIDES "KIO_HIDES"

    ctypedef struct Record "struct kio_record":
        uint32_t crc
        uint32_t value_length
        uint64_t lsn
        uint32_t epoch
        uint16_t key_length
        uint8_t kind
        uint8_t keyspace

    ctypedef struct Hint "struct kio_hint":
        uint64_t order
        uint64_t lsn
        uint32_t epoch
        uint32_t offset
        uint32_t units
        uint16_t key_length
        uint8_t kind
        uint8_t keyspace

    ctypedef struct Expiry "struct kio_expiry":
        uint64_t at
        uint32_t order_high
        uint32_t offset
        uint32_t units
        uint8_t keyspace
        uint8_t zero[3]

    uint64_t order_of "kio_order"(uint64_t hash)
    uint32_t key_offset "kio_key_offset"(uint8_t kind)
    uint64_t record_bytes "kio_record_bytes"(const Record* r)
    bint record_fits "kio_record_fits"(const Record* r, uint64_t room)
