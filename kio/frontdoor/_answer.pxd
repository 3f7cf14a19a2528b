# What a shard may answer to an operation on a key, and the replies within the answer to an atomic batch.
#
# Invariants:
#   * what passes `is_answer` has the payload that its encoder (_native.pxd) reads without looking again;
#   * `read_answers` accepts a replies message that answers each operation of the atomic once, and nothing else: then
#     `results` say where in the payload each answer stands.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio._opbatch cimport (
    ABSENT, DONE, ERROR, IF_ABSENT, IF_PRESENT, IF_VERSION, MAYBE_APPLIED, NUMBER, OP_APPEND, OP_DELETE, OP_EXISTS,
    OP_EXPIRE, OP_GET, OP_INCR, OP_PERSIST, OP_SET, OP_TTL, REPLIES_MAGIC, UNMET, VALUE, VERSIONED, WITH_OLD,
    WITH_VERSION, Entry, Header, Versioned,
)
from kio.frontdoor._request cimport PENDING, Request, Result


cdef inline bint is_answer(uint8_t op, uint8_t flags, uint8_t status, uint32_t length) noexcept nogil:
    if status == UNMET:
        if length != 0 and length != sizeof(Versioned):
            return False
        return op == OP_PERSIST or ((op == OP_SET or op == OP_DELETE) and flags & (IF_ABSENT | IF_PRESENT | IF_VERSION))
    if status == NUMBER:
        return length == 8 and (op == OP_INCR or op == OP_APPEND or op == OP_TTL)
    if status == VERSIONED:
        if op == OP_GET:
            return flags & WITH_VERSION and length >= sizeof(Versioned)
        return length == sizeof(Versioned) and flags & WITH_VERSION
    if status == VALUE:
        return flags & WITH_OLD or (op == OP_GET and not flags & WITH_VERSION)
    if status == ABSENT:
        return flags & WITH_OLD or (op != OP_SET and op != OP_INCR and op != OP_APPEND)
    if status != DONE or flags & (WITH_OLD | WITH_VERSION):
        return False
    return op == OP_SET or op == OP_DELETE or op == OP_EXISTS or op == OP_EXPIRE or op == OP_PERSIST


cdef inline bint read_answers(Request* r, const uint8_t* payload, uint32_t length) noexcept nogil:
    # Whether `payload` is the replies message to the atomic batch `r`; its results are filled in then.
    cdef Header header
    cdef Entry entry
    cdef Result* result
    cdef uint32_t i
    cdef size_t at = sizeof(Header)
    if length < sizeof(Header):
        return False
    memcpy(&header, payload, sizeof(Header))
    if header.magic != REPLIES_MAGIC or header.count != r.count:
        return False
    for i in range(r.count):
        r.results[i].status = PENDING
    for i in range(r.count):
        if length - at < sizeof(Entry):
            return False
        memcpy(&entry, payload + at, sizeof(Entry))
        at += sizeof(Entry)
        if entry.payload_length > length - at or entry.index >= r.count:
            return False
        result = &r.results[entry.index]
        if result.status != PENDING or PENDING <= entry.status < ERROR:
            return False
        if entry.status < ERROR and not is_answer(result.op, result.flags, entry.status, entry.payload_length):
            return False
        if entry.status >= ERROR and (entry.status & <uint8_t>~MAYBE_APPLIED) < ERROR:
            return False
        result.status = entry.status
        result.offset = at
        result.length = entry.payload_length
        at += entry.payload_length
    return at == length
