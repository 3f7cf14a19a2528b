# The operations of one shard: the batch that is being built, and the batches whose replies have not all come.
#
# Invariants:
#   * batch ids of a shard rise by one and are never used again, so a late reply of a dead worker meets no batch;
#   * `in_flight[id % capacity]` is the batch of that id while first_id <= id < next_id, NULL once it is answered;
#   * a batch is built, then sealed, then taken by whoever sends it, in the order of `ready`;
#   * while the shard is held, only what is express gets ready: all else is built and sealed, and waits in `withheld`;
#   * `operations` and `bytes` count what was queued or sent and is not answered: the shard's credit.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kio._opbatch cimport BATCH_MAGIC, Header, Operation
from kio.frontdoor._buffer cimport (
    Buffer, Numbers, allocate, buffer_consume, buffer_free, buffer_length, buffer_reserve, numbers_add, numbers_free,
    release, resize,
)
from kio.frontdoor._call cimport Call
from kio.frontdoor._request cimport Request

cdef struct Slot:
    Request* request        # NULL once the operation is answered
    uint32_t position       # among the results of its request
    uint32_t bytes

cdef struct Batch:
    uint64_t id
    bint is_express
    bint is_taken
    uint32_t count
    uint32_t capacity
    uint32_t answered
    Slot* slots
    Buffer message          # until it is taken

cdef struct Shard:
    bint is_up
    bint is_held            # one command alone speaks to it, see _gather.pxd
    Batch* building         # NULL when nothing is queued
    Batch* express          # the same, of whoever holds the shard
    Numbers ready           # ids of sealed batches that are to be taken
    Numbers withheld        # the same, when the shard is held no more
    Buffer spare            # an empty message's memory, for the next batch
    uint64_t first_id
    uint64_t next_id
    size_t capacity         # of in_flight, a power of 2
    Batch** in_flight
    size_t operations
    size_t bytes


cdef inline void batch_free(Batch* batch) noexcept nogil:
    if batch != NULL:
        buffer_free(&batch.message)
        release(batch.slots)
        release(batch)


cdef inline Batch* batch_begin(Shard* shard) noexcept nogil:
    cdef Batch* batch = <Batch*>allocate(sizeof(Batch))
    memset(batch, 0, sizeof(Batch))
    batch.message = shard.spare
    memset(&shard.spare, 0, sizeof(Buffer))
    buffer_reserve(&batch.message, sizeof(Header))
    batch.message.end += sizeof(Header)
    return batch


cdef inline uint32_t operation_put(Buffer* out, Operation* head, const Call* call) noexcept nogil:
    # One operation behind what is there; how long it is. `head` has its hash, keyspace and deadline already.
    cdef uint32_t n
    cdef uint8_t* p
    head.op = call.op
    head.flags = call.flags
    head.key_length = <uint16_t>call.key_length
    head.value_length = call.argument_bytes + call.value_length
    n = <uint32_t>sizeof(Operation) + head.key_length + head.value_length
    p = buffer_reserve(out, n)
    memcpy(p, head, sizeof(Operation))
    p += sizeof(Operation)
    if call.key_length:
        memcpy(p, call.key, call.key_length)
        p += call.key_length
    if call.argument_bytes:
        memcpy(p, call.arguments, call.argument_bytes)
        p += call.argument_bytes
    if call.value_length:
        memcpy(p, call.value, call.value_length)
    out.end += n
    return n


cdef inline void batch_add(Shard* shard, Batch* batch, Request* request, uint32_t position, Operation* head,
                           const Call* call) noexcept nogil:
    cdef Slot* slot
    cdef uint32_t n = operation_put(&batch.message, head, call)
    if batch.count == batch.capacity:
        batch.capacity = 2 * batch.capacity + 8
        batch.slots = <Slot*>resize(batch.slots, batch.capacity * sizeof(Slot))
    slot = &batch.slots[batch.count]
    slot.request = request
    slot.position = position
    slot.bytes = n
    batch.count += 1
    shard.operations += 1
    shard.bytes += n


cdef inline void batch_seal(Shard* shard, uint32_t number, Batch* batch) noexcept nogil:
    # A batch under construction gets its id and its header and stands in flight, its message is whole.
    cdef Header header
    cdef Batch** wider
    cdef size_t capacity
    cdef uint64_t id
    if shard.next_id - shard.first_id == shard.capacity:
        capacity = 2 * shard.capacity if shard.capacity else 16
        wider = <Batch**>allocate(capacity * sizeof(Batch*))
        for id in range(shard.first_id, shard.next_id):
            wider[id & (capacity - 1)] = shard.in_flight[id & (shard.capacity - 1)]
        release(shard.in_flight)
        shard.in_flight = wider
        shard.capacity = capacity
    batch.id = shard.next_id
    shard.next_id += 1
    shard.in_flight[batch.id & (shard.capacity - 1)] = batch
    if batch == shard.express:
        shard.express = NULL
    else:
        shard.building = NULL
    numbers_add(&shard.withheld if shard.is_held and not batch.is_express else &shard.ready, batch.id)
    header.magic = BATCH_MAGIC
    header.shard = number
    header.batch_id = batch.id
    header.count = batch.count
    header.reserved = 0
    memcpy(batch.message.data + batch.message.start, &header, sizeof(Header))


cdef inline void batch_taken(Shard* shard, Batch* batch) noexcept nogil:
    # Its message was copied; the memory serves the next batch.
    buffer_consume(&batch.message, buffer_length(&batch.message))
    if shard.spare.data == NULL:
        shard.spare = batch.message
    else:
        buffer_free(&batch.message)
    memset(&batch.message, 0, sizeof(Buffer))
    batch.is_taken = True


cdef inline Batch* batch_find(Shard* shard, uint64_t id) noexcept nogil:
    if id < shard.first_id or id >= shard.next_id:
        return NULL
    return shard.in_flight[id & (shard.capacity - 1)]


cdef inline void batch_answered(Shard* shard, Batch* batch) noexcept nogil:
    # Every operation of the batch was answered.
    shard.in_flight[batch.id & (shard.capacity - 1)] = NULL
    batch_free(batch)
    while shard.first_id < shard.next_id and shard.in_flight[shard.first_id & (shard.capacity - 1)] == NULL:
        shard.first_id += 1


cdef inline void shard_free(Shard* shard) noexcept nogil:
    cdef uint64_t id
    for id in range(shard.first_id, shard.next_id):
        batch_free(shard.in_flight[id & (shard.capacity - 1)])
    batch_free(shard.building)
    batch_free(shard.express)
    numbers_free(&shard.ready)
    numbers_free(&shard.withheld)
    buffer_free(&shard.spare)
    release(shard.in_flight)
    shard.in_flight = NULL
