# One operation on a key as a frame has it: its arguments read, its options checked against what it takes.
#
# Invariants:
#   * `key` and `value` point into the frame; nothing is copied but the few bytes of the options' arguments;
#   * what `read_call` accepts has flags that its operation takes, at most one of each group, arguments within their
#     bounds, in the form in which an op batch carries them (opbatch.py). Lengths of keys and values are not looked at.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio._opbatch cimport (
    EXPIRE_AT, IF_ABSENT, IF_PRESENT, IF_VERSION, KEEP_TTL, OP_APPEND, OP_DELETE, OP_EXPIRE, OP_GET, OP_INCR, OP_SET,
    TTL, WITH_OLD, WITH_VERSION,
)
from kio.frontdoor._msgpack cimport Reader, read_bytes, read_int, read_uint

cdef enum:
    #: Flags of which at most one may be given.
    EXPIRIES = TTL | EXPIRE_AT | KEEP_TTL
    CONDITIONS = IF_ABSENT | IF_PRESENT | IF_VERSION
    ANSWERS = WITH_OLD | WITH_VERSION
    #: Two times and a version would be 28; at most one of the times is there.
    ARGUMENT_BYTES_MAX = 20

    # limits.py: TTL_MS_MAX is 1 << this, EXPIRE_AT_MS_MAX is 1 below 1 << that.
    TTL_MS_BITS = 52
    EXPIRE_AT_MS_BITS = 53

cdef struct Call:
    const uint8_t* key
    const uint8_t* value
    uint32_t key_length
    uint32_t value_length
    uint8_t op
    uint8_t flags
    uint8_t argument_bytes
    uint8_t[ARGUMENT_BYTES_MAX] arguments


cdef inline uint8_t flags_of(uint8_t op, bint is_many) noexcept nogil:
    # The flags that an operation takes.
    if op == OP_SET:
        return EXPIRIES | IF_ABSENT | IF_PRESENT if is_many else EXPIRIES | CONDITIONS | ANSWERS
    if is_many:
        return 0
    if op == OP_GET:
        return WITH_VERSION
    if op == OP_DELETE:
        return IF_VERSION | ANSWERS
    return TTL | EXPIRE_AT if op == OP_EXPIRE else 0


cdef inline bint is_one_at_most(uint8_t flags) noexcept nogil:
    return flags & (flags - 1) == 0


cdef inline void call_add_argument(Call* call, const void* data, uint8_t n) noexcept nogil:
    memcpy(call.arguments + call.argument_bytes, data, n)
    call.argument_bytes += n


cdef inline bint read_options(Reader* r, uint32_t elements, bint is_many, Call* call) noexcept nogil:
    # `elements` arguments are left, of which all must be used.
    cdef uint64_t number, lsn
    cdef uint64_t given = 1
    cdef uint32_t epoch
    call.flags = 0
    call.argument_bytes = 0
    if elements == 0:
        return call.op != OP_EXPIRE
    if not read_uint(r, &number) or number & ~<uint64_t>flags_of(call.op, is_many):
        return False
    call.flags = <uint8_t>number
    if not (is_one_at_most(call.flags & EXPIRIES) and is_one_at_most(call.flags & CONDITIONS)
            and is_one_at_most(call.flags & ANSWERS)):
        return False
    if call.op == OP_EXPIRE and call.flags == 0:
        return False
    if call.flags & (TTL | EXPIRE_AT):
        if elements <= given or not read_uint(r, &number):
            return False
        if number == 0 or number > (<uint64_t>1 << TTL_MS_BITS if call.flags & TTL
                                    else (<uint64_t>1 << EXPIRE_AT_MS_BITS) - 1):
            return False
        call_add_argument(call, &number, 8)
        given += 1
    if call.flags & IF_VERSION:
        if elements <= given + 1 or not read_uint(r, &number) or number >> 32 or not read_uint(r, &lsn):
            return False
        epoch = <uint32_t>number
        call_add_argument(call, &epoch, 4)
        call_add_argument(call, &lsn, 8)
        given += 2
    return elements == given


cdef inline bint read_call(Reader* r, uint32_t elements, uint8_t op, bint has_options, Call* call) noexcept nogil:
    # The `elements` arguments of an operation behind its keyspace; moves past them.
    cdef int64_t delta
    cdef uint32_t fixed = 2 if op == OP_SET or op == OP_INCR or op == OP_APPEND else 1
    call.op = op
    call.value = NULL
    call.value_length = 0
    if elements < fixed or (elements > fixed and not has_options) or not read_bytes(r, &call.key, &call.key_length):
        return False
    if op == OP_SET or op == OP_APPEND:
        if not read_bytes(r, &call.value, &call.value_length):
            return False
    elif op == OP_INCR:
        if not read_int(r, &delta) or elements != fixed:
            return False
        call.flags = 0
        call.argument_bytes = 0
        call_add_argument(call, &delta, 8)
        return True
    return read_options(r, elements - fixed, False, call)
