# The flags of an operation and their arguments (opbatch.py), taken from the bytes before its value. Everything is bounded.
from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio._opbatch cimport (
    EXPIRE_AT, IF_ABSENT, IF_PRESENT, IF_VERSION, KEEP_TTL, OP_APPEND, OP_DELETE, OP_EXISTS, OP_EXPIRE, OP_GET, OP_INCR, OP_SET, TTL,
    WITH_OLD, WITH_VERSION, Operation,
)

cdef enum:
    LIFETIME = TTL | EXPIRE_AT | KEEP_TTL
    CONDITION = IF_ABSENT | IF_PRESENT | IF_VERSION
    ANSWER = WITH_OLD | WITH_VERSION

cdef struct Arguments:
    bint expires            # a time was given
    uint64_t expiry         # that time, in ms since 1970
    uint32_t epoch          # of IF_VERSION
    uint64_t lsn
    const uint8_t* value
    uint32_t value_length

cdef inline uint32_t allowed_flags(uint8_t op) noexcept nogil:
    if op == OP_SET:
        return LIFETIME | CONDITION | ANSWER
    if op == OP_DELETE:
        return IF_VERSION | ANSWER
    if op == OP_GET or op == OP_EXISTS:
        return WITH_VERSION
    return TTL | EXPIRE_AT if op == OP_EXPIRE else 0

cdef inline bint is_one_of(uint32_t flags) noexcept nogil:
    return flags & (flags - 1) == 0     # at most one of them, in fact

cdef inline const char* take_arguments(const Operation* op, const uint8_t* key, uint64_t now_ms, Arguments* a) noexcept nogil:
    # Fill `a`; NULL, or why they are refused.
    cdef const uint8_t* p = key + op.key_length
    cdef uint32_t left = op.value_length
    cdef uint64_t ms
    if op.flags & ~allowed_flags(op.op):
        return "the operation does not take one of its flags"
    if not (is_one_of(op.flags & LIFETIME) and is_one_of(op.flags & CONDITION) and is_one_of(op.flags & ANSWER)):
        return "two flags of the operation exclude each other"
    if op.op == OP_EXPIRE and not op.flags & (TTL | EXPIRE_AT):
        return "an expire needs a time"
    if left < (8 if op.flags & (TTL | EXPIRE_AT) else 0) + (12 if op.flags & IF_VERSION else 0):
        return "an argument of the operation is missing"
    a.expires = op.flags & (TTL | EXPIRE_AT) != 0
    a.expiry = a.lsn = 0
    a.epoch = 0
    if a.expires:
        memcpy(&ms, p, 8)
        # An answer tells it as a number with a sign.
        if ms > <uint64_t>INT64_MAX or (op.flags & TTL and ms > <uint64_t>INT64_MAX - now_ms):
            return "the expiry is too far away"
        a.expiry = ms + (now_ms if op.flags & TTL else 0)
        p += 8
        left -= 8
    if op.flags & IF_VERSION:
        memcpy(&a.epoch, p, 4)
        memcpy(&a.lsn, p + 4, 8)
        p += 12
        left -= 12
    a.value = p
    a.value_length = left
    if op.op == OP_INCR and left != 8:
        return "an incr adds a number of 8 bytes"
    if left and op.op != OP_INCR and op.op != OP_SET and op.op != OP_APPEND:
        return "the operation takes no value"
    return NULL
