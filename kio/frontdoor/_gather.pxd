# From requests to operations, and from the shards' answers back to replies in their connections' order.
#
# Plain C over the structures of _request.pxd and _batch.pxd: nothing here can raise, so no request is ever left half
# way. Every operation of a request ends in `gather_settle`, once; the last one completes the request; a request that is
# complete and at the head of its connection leaves as bytes.
# A request is held open by one pending count between `gather_begin` and `gather_end`, so that it is not complete while
# its operations are being added. A rare request is held open the same way by its handle (_handles.pxd).
# Python's part (events, messages as bytes objects) is in _dispatch.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kio._opbatch cimport (
    ERROR, MAYBE_APPLIED, NUMBER, OP_APPLY, OP_ATOMIC, OP_GET, OP_RARE, REPLIES_MAGIC, VALUE, VERSIONED, Entry, Header,
    Operation,
)
from kio._xxh64 cimport shard_of
from kio.frontdoor._answer cimport is_answer, read_answers
from kio.frontdoor._batch cimport (
    Batch, Shard, Slot, batch_add, batch_answered, batch_begin, batch_find, batch_free, batch_seal, shard_free,
)
from kio.frontdoor._buffer cimport (
    Numbers, allocate, buffer_append, buffer_free, buffer_length, numbers_add, numbers_free, release, resize,
)
from kio.frontdoor._call cimport Call
from kio.frontdoor._handles cimport Handles, handle_drop, handle_find, handles_free
from kio.frontdoor._keyspaces cimport Keyspaces, keyspace_hash, keyspace_stored, keyspaces_init
from kio.frontdoor._native cimport (
    CODES, INTERNAL_ERROR, KEY_EMPTY, KEY_TOO_LARGE, OP_MANY, OVERLOADED, REPLY_TOO_LARGE, SHARD_DOWN,
    VALUE_TOO_LARGE, Text, is_write, put_reply,
)
from kio.frontdoor._resp_reply cimport ErrorText, put_resp
from kio.frontdoor._request cimport (
    GREETING, PENDING, RESP, TOKEN, Connection, Request, Result, Wheel, has_token,
    queue_pop, queue_push, request_leave, request_new, wheel_add, wheel_remove,
)

cdef enum:
    #: One batch message is closed at this size, or this many operations, and another one begun.
    BATCH_BYTES_MAX = 8 << 20
    BATCH_OPERATIONS_MAX = 65536
    #: A connection with more unsent replies than this takes no more requests.
    OUTPUT_BYTES_SOFT = 8 << 20
    KEY_BYTES_MAX = 65535
    #: A connection whose replies under way are expected to be longer than this in all takes no more requests.
    EXPECTED_BYTES_SOFT = 2 << 20
    #: How long the first reply of a connection is expected to be; half of it the second, and so on, if they are short.
    EXPECTED_BYTES_FIRST = 1 << 20
    #: While all connections hold too many unsent bytes, those that hold no more than this are spared.
    SPARED_OUTPUT_BYTES = 1 << 20

cdef struct Gather:
    # Set once.
    uint32_t shard_count
    uint64_t seed
    uint32_t value_bytes_max
    uint32_t connection_requests_max
    size_t connection_bytes_max
    uint32_t requests_per_s     # of one connection; 0 is no bound
    size_t shard_operations_max
    size_t shard_bytes_max
    size_t reply_bytes_max
    size_t unsent_bytes_max
    Text texts[CODES]           # of errors, where an answer brings none
    ErrorText error_texts[CODES]    # of RESP
    Keyspaces keyspaces         # changed by SWAPDB
    # Changed by requests and answers.
    Shard* shards
    Wheel wheel
    uint64_t turn               # counts `take`s of batches: what was built in an earlier turn is sent
    uint64_t now_ms
    size_t requests             # in all queues
    size_t unsent_bytes         # of all connections
    size_t expected_bytes       # of the replies to all reads in the queues
    uint64_t errors[CODES]      # how many of each were encoded
    uint64_t late               # operations answered when nobody waited any more
    Numbers dirty               # indices of connections with new output
    Handles handles             # of rare requests
    Request* gathered           # complete fan-outs, the first one first
    Request* gathered_last


cdef inline void gather_init(Gather* g, uint32_t shards) noexcept nogil:
    cdef uint32_t i
    memset(g, 0, sizeof(Gather))
    g.shard_count = shards
    g.shards = <Shard*>allocate(shards * sizeof(Shard))
    memset(g.shards, 0, shards * sizeof(Shard))
    keyspaces_init(&g.keyspaces)
    for i in range(shards):
        g.shards[i].is_up = True
        g.shards[i].first_id = g.shards[i].next_id = 1
    g.turn = 1


# --- replies


cdef inline void gather_account(Gather* g, Connection* c) noexcept nogil:
    # Bring the sum over all connections up to date.
    cdef size_t n = c.held_bytes + buffer_length(&c.output)
    g.unsent_bytes += n - c.unsent_bytes
    c.unsent_bytes = n


cdef inline void gather_expect(Gather* g, Connection* c, int64_t bytes) noexcept nogil:
    # Bring the sums of what is expected up to date.
    c.expected_bytes += bytes
    g.expected_bytes += bytes


cdef inline void gather_expect_reply(Gather* g, Request* r) noexcept nogil:
    # The reply to this request may be long.
    r.expected_bytes = max(r.connection.reply_bytes, r.connection.guessed_bytes, <uint32_t>1)
    gather_expect(g, r.connection, r.expected_bytes)


cdef inline bint gather_is_too_much(Gather* g, Connection* c, uint32_t length) noexcept nogil:
    # Whether a value is more than a connection, or all of them, may have waiting; one alone always passes.
    if c.unsent_bytes and c.unsent_bytes + length > g.reply_bytes_max:
        return True
    return c.unsent_bytes > SPARED_OUTPUT_BYTES and g.unsent_bytes + length > g.unsent_bytes_max


cdef inline void gather_reply(Gather* g, Connection* c, Request* r, const uint8_t* payload,
                              uint32_t length) noexcept nogil:
    # The head of the queue leaves it as bytes.
    if c.protocol == RESP:
        put_resp(&c.output, r, payload, length, g.error_texts, g.errors)
    else:
        put_reply(&c.output, r, payload, length, g.texts, g.errors)
    r.is_answered = True
    wheel_remove(&g.wheel, r)
    queue_pop(c)
    g.requests -= 1
    gather_expect(g, c, -<int64_t>r.expected_bytes)
    if r.expected_bytes:
        c.reply_bytes = max(length, c.reply_bytes - (c.reply_bytes >> 4))
        c.guessed_bytes >>= 1
    request_leave(r)
    gather_account(g, c)
    if not c.is_dirty:
        c.is_dirty = True
        numbers_add(&g.dirty, c.index)


cdef inline void gather_flush(Gather* g, Connection* c) noexcept nogil:
    # Encode what is answered at the head of the queue.
    cdef Request* r = c.head
    while r != NULL and r.is_answered:
        gather_reply(g, c, r, r.payload.data + r.payload.start, <uint32_t>buffer_length(&r.payload))
        r = c.head


cdef inline void gather_complete(Gather* g, Request* r) noexcept nogil:
    # The outcome of the request is known.
    r.is_answered = True
    wheel_remove(&g.wheel, r)
    if not r.is_fan_out:
        if r.connection.head == r:
            gather_flush(g, r.connection)
    elif handle_find(&g.handles, r.handle) == NULL:
        request_leave(r)
    else:
        r.pending += 1  # until Python has taken it
        if g.gathered == NULL:
            g.gathered = r
        else:
            g.gathered_last.next = r
        g.gathered_last = r


cdef inline Request* gather_pop_gathered(Gather* g) noexcept nogil:
    # The next complete fan-out, NULL when there is none; to be let go by `gather_let_go`.
    cdef Request* r = g.gathered
    if r != NULL:
        g.gathered = r.next
    return r


cdef inline void gather_let_go(Request* r) noexcept nogil:
    r.pending -= 1
    request_leave(r)


cdef inline void gather_settle(Gather* g, Request* r, uint32_t position, uint8_t status, const uint8_t* payload,
                               uint32_t length) noexcept nogil:
    # One operation of a request is answered.
    cdef Connection* c = r.connection
    cdef Result* result
    r.pending -= 1
    if r.is_answered:
        if r.pending == 0 and c == NULL:
            request_leave(r)
        return
    if length and c != NULL and (status == VALUE or status == VERSIONED) and gather_is_too_much(g, c, length):
        # A write that was to answer with the old value was applied; it must not be taken for one that was not.
        status = REPLY_TOO_LARGE | (MAYBE_APPLIED if r.is_write else 0)
        length = 0
    elif length and r.is_fan_out and buffer_length(&r.payload) and buffer_length(&r.payload) + length > g.reply_bytes_max:
        status = REPLY_TOO_LARGE
        if is_write(r.results[position].op) or r.results[position].op == OP_ATOMIC or r.results[position].op == OP_APPLY:
            status |= MAYBE_APPLIED
        length = 0
    if not r.is_batch:
        r.status = status
        if r.pending == 0 and c.head == r:
            gather_reply(g, c, r, payload, length)
            gather_flush(g, c)
            return
    else:
        result = &r.results[position]
        result.status = status
        result.offset = buffer_length(&r.payload)
        result.length = length
        r.failed += status >= ERROR
    if length:
        buffer_append(&r.payload, payload, length)
        if c != NULL:
            c.held_bytes += length
            gather_account(g, c)
    if r.pending == 0:
        gather_complete(g, r)


# --- requests and operations


cdef inline void gather_set_deadline(Gather* g, Request* r, uint64_t deadline) noexcept nogil:
    r.deadline = deadline
    if deadline:
        wheel_add(&g.wheel, r)


cdef inline Request* gather_begin(Gather* g, Connection* c, uint64_t id, uint8_t op, uint32_t deadline_ms, uint32_t n,
                                  bint is_batch, uint32_t count) noexcept nogil:
    # A request at the end of its connection's queue.
    cdef Request* r = request_new(op, is_batch, count)
    r.id = id
    r.turn = g.turn
    r.bytes = n
    r.pending = 1
    r.is_write = is_write(op)
    r.version = c.version
    c.taken += 1
    c.tokens -= TOKEN
    r.is_silent = c.is_silent or c.skips_reply
    c.skips_reply = False
    gather_set_deadline(g, r, g.now_ms + deadline_ms if deadline_ms else 0)
    queue_push(c, r)
    g.requests += 1
    if (op & <uint8_t>~OP_MANY) == OP_GET:
        gather_expect_reply(g, r)
    return r


cdef inline void gather_end(Gather* g, Request* r) noexcept nogil:
    r.pending -= 1
    if r.pending == 0:
        gather_complete(g, r)


cdef inline void gather_fail(Gather* g, Connection* c, uint64_t id, uint8_t status) noexcept nogil:
    # A request that is answered with an error and nothing else.
    cdef Request* r = gather_begin(g, c, id, CODES, 0, 0, False, 0)
    r.status = status
    gather_end(g, r)


cdef inline bint gather_is_full(Gather* g, Shard* shard, size_t n) noexcept nogil:
    # Whether a shard has so much in flight that `n` bytes more are refused.
    return shard.operations and (shard.operations >= g.shard_operations_max or shard.bytes + n > g.shard_bytes_max)


cdef inline void gather_add(Gather* g, Request* r, uint32_t position, uint32_t number, uint8_t keyspace, uint64_t hash,
                            const Call* call) noexcept nogil:
    # Queue one operation for a shard, or answer it at once.
    cdef Shard* shard = &g.shards[number]
    cdef Batch* batch
    cdef Operation head
    cdef size_t n = sizeof(Operation) + call.key_length + call.argument_bytes + call.value_length
    r.pending += 1
    if not shard.is_up:
        gather_settle(g, r, position, SHARD_DOWN, NULL, 0)
        return
    if not r.is_express and gather_is_full(g, shard, n):
        gather_settle(g, r, position, OVERLOADED, NULL, 0)
        return
    batch = shard.express if r.is_express else shard.building
    if batch != NULL and (batch.count >= BATCH_OPERATIONS_MAX or buffer_length(&batch.message) + n > BATCH_BYTES_MAX):
        batch_seal(shard, number, batch)
        batch = NULL
    if batch == NULL:
        batch = batch_begin(shard)
        batch.is_express = r.is_express
        if r.is_express:
            shard.express = batch
        else:
            shard.building = batch
    head.keyspace = keyspace_stored(&g.keyspaces, keyspace)
    head.hash = hash
    head.deadline = 0
    if r.deadline:
        head.deadline = <uint32_t>r.deadline
        head.deadline = head.deadline if head.deadline else 1
    batch_add(shard, batch, r, position, &head, call)
    if r.connection != NULL and (2 * shard.operations > g.shard_operations_max or 2 * shard.bytes > g.shard_bytes_max):
        r.connection.hot_shard = <int>number


cdef inline void gather_refuse(Gather* g, Request* r, uint32_t position, uint8_t status) noexcept nogil:
    # One operation is answered, and no shard hears of it.
    r.pending += 1
    gather_settle(g, r, position, status, NULL, 0)


cdef inline uint8_t gather_fault(Gather* g, const Call* call) noexcept nogil:
    # Which limit an operation is beyond, 0 when it keeps them all.
    if call.key_length == 0:
        return KEY_EMPTY
    if call.key_length > KEY_BYTES_MAX:
        return KEY_TOO_LARGE
    # What a function on a key is given is no value; the shard looks at what it makes of it.
    return VALUE_TOO_LARGE if call.value_length > g.value_bytes_max and call.op != OP_APPLY else 0


cdef inline void gather_key(Gather* g, Request* r, uint32_t position, uint8_t keyspace,
                            const Call* call) noexcept nogil:
    # One operation on a key, to the shard its hash says.
    cdef uint8_t fault = gather_fault(g, call)
    cdef uint64_t hash
    if fault:
        gather_refuse(g, r, position, fault)
        return
    hash = keyspace_hash(&g.keyspaces, call.key, call.key_length, g.seed, keyspace)
    gather_add(g, r, position, shard_of(hash, g.shard_count), keyspace, hash, call)


cdef inline bint gather_may_take(Gather* g, Connection* c, int divisor) noexcept nogil:
    # Whether a connection is within the soft bounds divided by `divisor`: a paused one is resumed well below them.
    cdef Shard* shard
    cdef size_t waiting
    if c.stage == GREETING or c.is_waiting:
        return False
    if g.requests_per_s and not has_token(c, g.requests_per_s, g.now_ms):
        return False
    if c.requests * divisor >= g.connection_requests_max:
        return False
    if c.requests and c.request_bytes * divisor >= g.connection_bytes_max:
        return False
    waiting = c.held_bytes + buffer_length(&c.output)
    if waiting * divisor > OUTPUT_BYTES_SOFT:
        return False
    if c.expected_bytes * divisor > EXPECTED_BYTES_SOFT:
        return False
    waiting += c.expected_bytes
    if waiting > SPARED_OUTPUT_BYTES and 2 * divisor * (g.unsent_bytes + g.expected_bytes) > g.unsent_bytes_max:
        return False
    if c.hot_shard >= 0:
        shard = &g.shards[c.hot_shard]
        if 2 * divisor * shard.operations > g.shard_operations_max or 2 * divisor * shard.bytes > g.shard_bytes_max:
            return False
        c.hot_shard = -1
    return True


cdef inline void gather_close(Gather* g, Connection* c) noexcept nogil:
    # Empty the queue of a connection that goes away; what is in flight for it lives on until it is answered.
    cdef Request* r
    while c.head != NULL:
        r = queue_pop(c)
        g.requests -= 1
        gather_expect(g, c, -<int64_t>r.expected_bytes)
        wheel_remove(&g.wheel, r)
        r.is_answered = True
        if r.handle:
            handle_drop(&g.handles, r)
        request_leave(r)


# --- what comes from the shards


cdef inline bint gather_is_answer(Request* r, uint32_t position, uint8_t status, const uint8_t* payload,
                                  uint32_t length) noexcept nogil:
    # Whether a worker may give this answer to an operation of this request.
    cdef Result* result
    if status >= ERROR:
        return (status & <uint8_t>~MAYBE_APPLIED) >= ERROR
    if r.is_fan_out:
        result = &r.results[position]
        if result.op >= OP_RARE:
            return status == VALUE or (status == NUMBER and length == 8)
        return is_answer(result.op, result.flags, status, length)
    if r.op == OP_ATOMIC:
        return status == VALUE and read_answers(r, payload, length)
    return is_answer(r.op & <uint8_t>~OP_MANY, r.flags, status, length)


cdef inline const char* gather_deliver(Gather* g, const uint8_t* p, size_t n) noexcept nogil:
    # Take one replies message. What is wrong with it, or NULL; every entry that makes sense is taken.
    cdef Header header
    cdef Entry entry
    cdef Shard* shard
    cdef Batch* batch
    cdef const char* fault = NULL
    cdef uint32_t i
    cdef size_t at = sizeof(Header)
    if n < sizeof(Header):
        return "are shorter than their header"
    memcpy(&header, p, sizeof(Header))
    if header.magic != REPLIES_MAGIC or header.shard >= g.shard_count:
        return "begin with another magic number or shard"
    shard = &g.shards[header.shard]
    batch = batch_find(shard, header.batch_id)
    if header.batch_id >= shard.next_id or (batch != NULL and not batch.is_taken):
        return "answer a batch that was never sent"
    if batch == NULL:
        g.late += header.count
        return NULL
    for i in range(header.count):
        if n - at < sizeof(Entry):
            return "end inside an entry"
        memcpy(&entry, p + at, sizeof(Entry))
        at += sizeof(Entry)
        if entry.payload_length > n - at:
            return "end inside a payload"
        if entry.index >= batch.count or batch.slots[entry.index].request == NULL:
            fault = "answer an operation that is not there, or twice"
        else:
            gather_take_entry(g, shard, batch, &entry, p + at)
        at += entry.payload_length
    if at != n:
        fault = "have bytes behind the last entry"
    if batch.answered == batch.count:
        batch_answered(shard, batch)
    return fault


cdef inline void gather_take_entry(Gather* g, Shard* shard, Batch* batch, Entry* entry,
                                   const uint8_t* payload) noexcept nogil:
    cdef Slot* slot = &batch.slots[entry.index]
    cdef Request* r = slot.request
    slot.request = NULL
    batch.answered += 1
    shard.operations -= 1
    shard.bytes -= slot.bytes
    if r.is_answered:
        g.late += 1
    elif not gather_is_answer(r, slot.position, entry.status, payload, entry.payload_length):
        gather_settle(g, r, slot.position, INTERNAL_ERROR | (MAYBE_APPLIED if r.is_write else 0), NULL, 0)
        return
    gather_settle(g, r, slot.position, entry.status, payload, entry.payload_length)


cdef inline void gather_fail_batch(Gather* g, Batch* batch) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t status
    cdef Request* r
    if batch == NULL:
        return
    for i in range(batch.count):
        r = batch.slots[i].request
        if r != NULL:
            status = SHARD_DOWN
            if r.is_write and batch.is_taken:
                status |= MAYBE_APPLIED
            gather_settle(g, r, batch.slots[i].position, status, NULL, 0)
    batch_free(batch)


cdef inline void gather_fail_shard(Gather* g, uint32_t number) noexcept nogil:
    # What its worker was to answer is answered ShardDown, and so is what comes until the shard is up again.
    cdef Shard* shard = &g.shards[number]
    cdef uint64_t id
    shard.is_up = False
    for id in range(shard.first_id, shard.next_id):
        gather_fail_batch(g, batch_find(shard, id))
    gather_fail_batch(g, shard.building)
    gather_fail_batch(g, shard.express)
    shard.building = shard.express = NULL
    shard.ready.count = shard.withheld.count = 0
    shard.first_id = shard.next_id
    shard.operations = 0
    shard.bytes = 0


cdef inline void gather_free(Gather* g) noexcept nogil:
    # To be called when every connection is closed: what is left are requests that wait for shards or for Python.
    cdef uint32_t i
    cdef Request* r
    for i in range(g.shard_count if g.shards != NULL else 0):
        gather_fail_shard(g, i)
        shard_free(&g.shards[i])
    r = gather_pop_gathered(g)
    while r != NULL:
        gather_let_go(r)
        r = gather_pop_gathered(g)
    release(g.shards)
    numbers_free(&g.dirty)
    handles_free(&g.handles)
