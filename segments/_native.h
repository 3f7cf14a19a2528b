/* What the kernel needs and Cython cannot say: CRC32C, and reads of a mapping that survive an I/O error.
 *
 * A page of a mapped segment that the disk cannot deliver, or that lies behind a file somebody cut short, raises SIGBUS.
 * kio_guarded_* catch it and return KIO_FAULT: the record is then answered as corrupt, and the worker lives on. Outside of
 * them SIGBUS keeps its default action. The jump buffer is per thread; a guarded read never holds a lock or half a change.
 */
#ifndef KIO_NATIVE_H
#define KIO_NATIVE_H

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include "_format.h"
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

#define KIO_FAULT (-1)

/* Not every extension uses every function. */
#define KIO_FUNCTION __attribute__((noinline, unused)) static

static inline void kio_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }

/* ---- CRC32C (Castagnoli, reflected 0x82F63B78), as in RFC 3720 ---- */

static uint32_t kio_crc_table[8][256];
static int kio_crc_hardware;

static void kio_crc_setup(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c >> 1) ^ (0x82F63B78u & (0u - (c & 1)));
        kio_crc_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++)
            kio_crc_table[t][i] = (kio_crc_table[t - 1][i] >> 8) ^ kio_crc_table[0][kio_crc_table[t - 1][i] & 255];
#if defined(__x86_64__)
    kio_crc_hardware = __builtin_cpu_supports("sse4.2") != 0;
#elif defined(__aarch64__)
    kio_crc_hardware = (getauxval(AT_HWCAP) & (1 << 7)) != 0;
#endif
}

static uint32_t kio_crc_software(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8); /* the store runs on little-endian machines only: setup of the kernel checks it */
        v ^= crc;
        crc = kio_crc_table[7][v & 255] ^ kio_crc_table[6][(v >> 8) & 255] ^ kio_crc_table[5][(v >> 16) & 255] ^
              kio_crc_table[4][(v >> 24) & 255] ^ kio_crc_table[3][(v >> 32) & 255] ^ kio_crc_table[2][(v >> 40) & 255] ^
              kio_crc_table[1][(v >> 48) & 255] ^ kio_crc_table[0][v >> 56];
    }
    while (n--) crc = (crc >> 8) ^ kio_crc_table[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t kio_crc_fast(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t c = (uint32_t)~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    while (n--) c = _mm_crc32_u8((uint32_t)c, *p++);
    return ~(uint32_t)c;
}
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t kio_crc_fast(uint32_t crc, const uint8_t *p, size_t n) {
    uint32_t c = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = __crc32cd(c, v);
    }
    while (n--) c = __crc32cb(c, *p++);
    return ~c;
}
#else
#define kio_crc_fast kio_crc_software
#endif

static inline uint32_t kio_crc32c(uint32_t crc, const uint8_t *p, size_t n) {
    return kio_crc_hardware ? kio_crc_fast(crc, p, n) : kio_crc_software(crc, p, n);
}

/* ---- memory ---- */

/* Large buffers (hints while a segment is sealed, long values) go back to the system when they are freed. glibc would raise
 * its threshold up to 32 MiB with the first of them, and keep them, fragmented, in its heaps. */
KIO_FUNCTION void kio_memory_setup(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
    mallopt(M_ARENA_MAX, 1); /* a heap for each helper thread would keep what it freed */
#endif
}

/* ---- guarded reads ---- */

static __thread sigjmp_buf kio_jump;
static __thread volatile sig_atomic_t kio_guarding;
static struct sigaction kio_before; /* whose turn it is when the access was not guarded here */

/* Every extension that includes this file has its own copy of all this, and the last one to be loaded gets the signal: so
 * each asks the one before it, down to the default action. */
static void kio_on_sigbus(int number, siginfo_t *info, void *context) {
    if (kio_guarding) siglongjmp(kio_jump, 1);
    if (kio_before.sa_flags & SA_SIGINFO) kio_before.sa_sigaction(number, info, context);
    else sigaction(number, &kio_before, NULL); /* the access is repeated when this returns, and ends as it would have */
}

/* SA_NODEFER: the jump leaves the handler without restoring the signal mask. */
static int kio_guard_setup(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = kio_on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGBUS, &action, &kio_before);
}

#define KIO_GUARDED(body)                  \
    do {                                   \
        if (sigsetjmp(kio_jump, 0)) {      \
            kio_guarding = 0;              \
            return KIO_FAULT;              \
        }                                  \
        kio_guarding = 1;                  \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        body;                              \
        __atomic_signal_fence(__ATOMIC_SEQ_CST); \
        kio_guarding = 0;                  \
    } while (0)

/* Read a record's header into *out, and compare its key. `room` is what is left of the segment from `record` on.
 * 1: the key is `key`; 0: it is another, or these are not the bytes of a record. */
KIO_FUNCTION int kio_guarded_peek(struct kio_record *out, const uint8_t *record, uint64_t room,
                                                      const uint8_t *key, uint16_t key_length, uint8_t keyspace) {
    int equal = 0;
    KIO_GUARDED({
        if (room >= KIO_RECORD_HEADER) {
            memcpy(out, record, KIO_RECORD_HEADER);
            equal = out->key_length == key_length && out->keyspace == keyspace && kio_record_fits(out, room) &&
                    memcmp(record + kio_key_offset(out->kind), key, key_length) == 0;
        } else {
            memset(out, 0, KIO_RECORD_HEADER);
        }
    });
    return equal;
}

/* Verify the checksum of the `bytes` long record, and copy n bytes at `from` in it to `to` (n may be 0).
 * 1: intact and copied; 0: damaged. */
KIO_FUNCTION int kio_guarded_read(const uint8_t *record, uint64_t bytes, uint32_t crc_seed, void *to,
                                                      uint64_t from, uint64_t n) {
    int intact = 0;
    KIO_GUARDED({
        uint32_t stored;
        memcpy(&stored, record, 4);
        intact = kio_crc32c(crc_seed, record + 4, bytes - 4) == stored;
        if (intact && n) memcpy(to, record + from, n);
    });
    return intact;
}

/* Read a record's header into *out: 1 when a record of these fields fits into `room`, else 0. */
KIO_FUNCTION int kio_guarded_header(struct kio_record *out, const uint8_t *record, uint64_t room) {
    int fits = 0;
    if (room < KIO_RECORD_HEADER) return 0;
    KIO_GUARDED({
        memcpy(out, record, KIO_RECORD_HEADER);
        fits = kio_record_fits(out, room);
    });
    return fits;
}

/* CRC32C of n bytes of a mapping, into *out. */
KIO_FUNCTION int kio_guarded_crc(uint32_t *out, uint32_t crc, const uint8_t *from, uint64_t n) {
    uint32_t result = 0;
    KIO_GUARDED(result = kio_crc32c(crc, from, n));
    *out = result;
    return 1;
}

/* Copy n bytes out of a mapping. */
KIO_FUNCTION int kio_guarded_copy(void *to, const void *from, uint64_t n) {
    KIO_GUARDED(memcpy(to, from, n));
    return 1;
}

#endif
