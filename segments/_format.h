/* A record, a hint and an expiry in memory: format.py is their description, and a test holds the two together. Little-endian only. */
#ifndef KIO_FORMAT_H
#define KIO_FORMAT_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "kio's files are little-endian and its kernel reads them in place"
#endif

enum {
    KIO_RECORD_HEADER = 24,
    KIO_HINT_BYTES = 32,
    KIO_EXPIRY_BYTES = 24,
    KIO_FOOTER_BYTES = 136,
    KIO_PUT = 1,
    KIO_TOMBSTONE = 2,
    KIO_CLEAR = 3,
    KIO_DAMAGED = 7, /* in hints only */
    KIO_KIND = 0x07,
    KIO_EXPIRY = 0x08,
    KIO_REQUEST_ID = 0x10,
    KIO_BATCH_OPEN = 0x20,
    KIO_COLLIDES = 0x40,
    KIO_HIDES = 0x80,
};

struct __attribute__((packed)) kio_record {
    uint32_t crc;
    uint32_t value_length;
    uint64_t lsn;
    uint32_t epoch;
    uint16_t key_length;
    uint8_t kind;
    uint8_t keyspace;
};

struct __attribute__((packed)) kio_hint {
    uint64_t order;
    uint64_t lsn;
    uint32_t epoch;
    uint32_t offset; /* in units of 8 bytes */
    uint32_t units;  /* length of the record in units of 8 bytes */
    uint16_t key_length;
    uint8_t kind;
    uint8_t keyspace;
};

struct __attribute__((packed)) kio_expiry {
    uint64_t at; /* ms since 1970 */
    uint32_t order_high;
    uint32_t offset; /* in units of 8 bytes, as is the length */
    uint32_t units;
    uint8_t keyspace;
    uint8_t zero[3];
};

_Static_assert(sizeof(struct kio_record) == KIO_RECORD_HEADER, "record header");
_Static_assert(sizeof(struct kio_hint) == KIO_HINT_BYTES, "hint");
_Static_assert(sizeof(struct kio_expiry) == KIO_EXPIRY_BYTES, "expiry");

static inline uint64_t kio_order(uint64_t hash) { return (hash << 32) | (hash >> 32); }

static inline uint32_t kio_key_offset(uint8_t kind) {
    return KIO_RECORD_HEADER + (kind & KIO_EXPIRY ? 8 : 0) + (kind & KIO_REQUEST_ID ? 16 : 0);
}

static inline uint64_t kio_record_bytes(const struct kio_record *r) {
    return ((uint64_t)kio_key_offset(r->kind) + r->key_length + r->value_length + 7) & ~(uint64_t)7;
}

/* Whether a record of these fields can stand where `room` bytes are left: everything is checked before it is believed. */
static inline int kio_record_fits(const struct kio_record *r, uint64_t room) {
    uint8_t kind = r->kind & KIO_KIND;
    if (kind < KIO_PUT || kind > KIO_CLEAR || (r->value_length >> 28) != 0) return 0;
    if (kind == KIO_CLEAR ? r->key_length != 0 : r->key_length == 0) return 0;
    if (kind != KIO_PUT && r->value_length != 0) return 0;
    return kio_record_bytes(r) <= room;
}

#endif
