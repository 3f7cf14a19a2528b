# An atomic batch on its way to its shard: its operations become one batch message, the value of one operation.
#
# Invariant: what is queued has keys and values within their limits, all of one shard; else nothing is, and the request
# has the error of the first operation that is at fault.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from kio._opbatch cimport BATCH_MAGIC, OP_ATOMIC, Header, Operation
from kio._xxh64 cimport shard_of
from kio.frontdoor._batch cimport operation_put
from kio.frontdoor._buffer cimport (
    Buffer, allocate, buffer_append, buffer_free, buffer_length, buffer_reserve,
)
from kio.frontdoor._call cimport Call
from kio.frontdoor._gather cimport Gather, gather_add, gather_fault
from kio.frontdoor._grant cimport Grant, grant_allows
from kio.frontdoor._keyspaces cimport keyspace_hash, keyspace_stored
from kio.frontdoor._native cimport BAD_REQUEST, NOT_PERMITTED, Frame, is_write, read_atomic_call
from kio.frontdoor._request cimport PENDING, Request, Result

cdef extern from *:
    """
    #define KIO_OTHER_SHARD "its key is of another shard than the first; " \\
                            "keys that hold the same {tag}, as in {user:42}name, are of one"
    """
    const char* KIO_OTHER_SHARD


cdef inline void atomic_refuse(Gather* g, Request* r, uint32_t index, uint8_t code, const char* text) noexcept nogil:
    cdef char[256] message
    cdef int n
    if text == NULL:
        n = snprintf(message, sizeof(message), "operation %u: %.*s", index, <int>g.texts[code].length,
                     <const char*>g.texts[code].data)
    else:
        n = snprintf(message, sizeof(message), "operation %u: %s", index, text)
    r.status = code
    buffer_append(&r.payload, message, n)
    r.connection.held_bytes += n


cdef inline void atomic_queue(Gather* g, Request* r, Frame* frame) noexcept nogil:
    # `r` is held open by the caller.
    cdef Buffer message
    cdef Header header
    cdef Operation head
    cdef Call call
    cdef Result* result
    cdef const Grant* grant = r.connection.grant
    cdef uint8_t fault
    cdef uint32_t i
    cdef uint32_t number = 0
    cdef uint64_t first = 0
    memset(&message, 0, sizeof(Buffer))
    buffer_reserve(&message, sizeof(Header))
    message.end += sizeof(Header)
    r.count = frame.keys
    r.results = <Result*>allocate(r.count * sizeof(Result))
    head.keyspace = keyspace_stored(&g.keyspaces, frame.keyspace)
    head.deadline = 0
    for i in range(r.count):
        read_atomic_call(&frame.arguments, &call)
        result = &r.results[i]
        result.status = PENDING
        result.op = call.op
        result.flags = call.flags
        r.is_write |= is_write(call.op)
        if grant != NULL and not grant_allows(grant, is_write(call.op), call.key, call.key_length):
            atomic_refuse(g, r, i, NOT_PERMITTED, NULL)
            break
        fault = gather_fault(g, &call)
        if fault:
            atomic_refuse(g, r, i, fault, NULL)
            break
        head.hash = keyspace_hash(&g.keyspaces, call.key, call.key_length, g.seed, frame.keyspace)
        if i == 0:
            first = head.hash
            number = shard_of(first, g.shard_count)
        elif shard_of(head.hash, g.shard_count) != number:
            atomic_refuse(g, r, i, BAD_REQUEST, KIO_OTHER_SHARD)
            break
        operation_put(&message, &head, &call)
    else:
        header.magic = BATCH_MAGIC
        header.shard = number
        header.batch_id = 0
        header.count = r.count
        header.reserved = 0
        memcpy(message.data + message.start, &header, sizeof(Header))
        memset(&call, 0, sizeof(Call))
        call.op = OP_ATOMIC
        call.value = message.data + message.start
        call.value_length = <uint32_t>buffer_length(&message)
        gather_add(g, r, 0, number, frame.keyspace, first, &call)
    buffer_free(&message)
