# Requests and the connections they came from: their order, their results, their deadlines.
#
# A request stands in its connection's queue from the moment it was parsed until its reply is in the output; replies
# leave in the order of that queue. It is also pointed to by every operation under way for it, `pending` of them.
# Invariants:
#   * a request lives while it stands in a queue or while something is pending for it, whichever ends last;
#   * `connection` is NULL when it stands in no queue: its reply left, its connection was closed, or it is a fan-out;
#   * it stands in the wheel exactly while it has a deadline and is not answered;
#   * `is_answered` never goes back: what comes later for it is dropped.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from kio.frontdoor._buffer cimport Buffer, allocate, buffer_free, buffer_length, release
from kio.frontdoor._grant cimport Grant
from kio.frontdoor._resp cimport Incoming

cdef enum:
    #: `Result.status` of an operation that is under way; no status on the wire is this one.
    PENDING = 15
    #: `Request.status` of a request whose payload is its encoded result.
    ENCODED = 14

    #: The wheel: requests by deadline, 1,024 buckets of 32 ms; a bucket also holds deadlines of its later turns.
    WHEEL_BUCKETS = 1024
    WHEEL_SHIFT = 5

    #: What a request costs of a connection's tokens.
    TOKEN = 1000

cdef struct Result:
    uint64_t offset         # of the payload in `Request.payload`
    uint32_t length
    uint8_t status          # as in opbatch.py
    uint8_t op              # of an atomic's operation; the others have their request's
    uint8_t flags           # the same

cdef struct Request:
    Connection* connection
    Request* next           # in the connection's queue
    Request* wheel_next
    Request** wheel_link    # what points to this request in the wheel, NULL when it stands in none
    uint64_t id             # the client's
    uint64_t handle         # of a rare request that waits for Python; of a fan-out, the request it serves
    uint64_t deadline       # CLOCK_MONOTONIC in ms, 0 is none
    uint64_t turn           # when its operations were queued; they are sent when a later turn has begun
    uint32_t pending
    uint32_t count          # of results, also those of an atomic, which is no batch: its shard answers them as one
    uint32_t failed         # how many of them are errors
    uint32_t bytes          # of its frame
    uint32_t expected_bytes # how long its reply was thought to be when it came; 0 where it is no read
    uint8_t op
    uint8_t flags           # as in opbatch.py
    uint8_t status          # of a request that is not a batch
    uint8_t version         # of its protocol, when it came
    uint8_t style           # how RESP tells its result, see _resp_reply.pxd
    bint is_silent          # nothing is told of it
    bint is_express         # its operations go to shards that are held, see _batch.pxd
    bint is_batch           # it has results, one for each operation; else it is one operation, or none
    bint is_answered
    bint is_write
    bint is_fan_out
    Result* results
    Buffer payload

ctypedef enum Stage:
    NEW                     # nothing but a hello is taken
    GREETING                # the hello waits for its answer
    READY
    CLOSING                 # nothing is taken any more; closed when all is answered and flushed

ctypedef enum Protocol:
    NATIVE
    RESP

cdef struct Connection:
    uint32_t index
    uint32_t generation
    Stage stage
    Protocol protocol
    uint8_t version         # of the protocol, as its hello was answered
    uint8_t keyspace        # of RESP, as it was selected
    uint8_t rights          # of RESP: 0 while it is a stranger
    Grant* grant            # what it may do; NULL: everything, or Python sees to it
    uint64_t taken          # requests that were ever taken from it
    int64_t tokens          # thousandths of requests that it may make now, see has_token
    uint64_t tokens_at      # when they were last counted, in ms
    bint is_slow            # every command of it goes through Python
    bint is_waiting         # nothing is taken until Python has brought a command to its end
    bint is_silent          # it wants no replies
    bint skips_reply        # nor one to its next command
    Incoming incoming       # of RESP: the command whose bytes have not all come
    bint is_paused          # not read until `resume` or `go_on` says so
    bint is_spent           # it had its share of a turn, and stands in the list of those
    bint is_dirty           # stands in the list of connections with new output
    int hot_shard           # the shard beyond its soft bound that paused it, -1 if none
    uint32_t requests       # in the queue
    size_t request_bytes
    size_t held_bytes       # payloads of its requests that wait for their turn
    size_t unsent_bytes     # held_bytes and output, as last added to Dispatch's sum of them
    size_t expected_bytes   # of the replies to the reads in the queue
    uint32_t reply_bytes    # how long that to its next read may be, by those before it,
    uint32_t guessed_bytes  # and while there were few
    size_t skip_bytes       # what is left of a frame that is not taken
    Request* head
    Request* tail
    Buffer input            # what follows the last whole frame
    Buffer output

cdef struct Wheel:
    uint64_t tick           # every earlier bucket of this turn was looked through
    size_t requests
    Request* buckets[WHEEL_BUCKETS]


cdef inline Request* request_new(uint8_t op, bint is_batch, uint32_t count) noexcept nogil:
    cdef Request* r = <Request*>allocate(sizeof(Request))
    cdef uint32_t i
    memset(r, 0, sizeof(Request))
    r.op = op
    r.status = PENDING
    r.is_batch = is_batch
    if is_batch:
        r.count = count
        r.results = <Result*>allocate(count * sizeof(Result))
        for i in range(count):
            r.results[i].status = PENDING
    return r


cdef inline void request_drop_payload(Request* r) noexcept nogil:
    if r.connection != NULL:
        r.connection.held_bytes -= buffer_length(&r.payload)
    buffer_free(&r.payload)
    release(r.results)
    r.results = NULL


cdef inline void request_leave(Request* r) noexcept nogil:
    # It stands in no queue from now on; freed unless something is pending.
    request_drop_payload(r)
    r.connection = NULL
    if r.pending == 0:
        release(r)


cdef inline void queue_push(Connection* c, Request* r) noexcept nogil:
    r.connection = c
    if c.head == NULL:
        c.head = r
    else:
        c.tail.next = r
    c.tail = r
    c.requests += 1
    c.request_bytes += r.bytes


cdef inline Request* queue_pop(Connection* c) noexcept nogil:
    cdef Request* r = c.head
    c.head = r.next
    c.requests -= 1
    c.request_bytes -= r.bytes
    return r


cdef inline bint has_token(Connection* c, uint32_t requests_per_s, uint64_t now_ms) noexcept nogil:
    # Whether a connection may make a request now. Tokens come by the millisecond; a second's worth is kept at most.
    cdef int64_t most = <int64_t>TOKEN * requests_per_s
    cdef uint64_t passed = now_ms - c.tokens_at
    if now_ms > c.tokens_at:
        c.tokens = (c.tokens if c.tokens > 0 else 0) + <int64_t>(passed if passed < 1000 else 1000) * requests_per_s
        c.tokens = c.tokens if c.tokens < most else most
        c.tokens_at = now_ms
    return c.tokens >= TOKEN


cdef inline void wheel_add(Wheel* wheel, Request* r) noexcept nogil:
    cdef uint64_t tick = r.deadline >> WHEEL_SHIFT
    cdef Request** link = &wheel.buckets[(tick if tick > wheel.tick else wheel.tick) & (WHEEL_BUCKETS - 1)]
    r.wheel_next = link[0]
    if r.wheel_next != NULL:
        r.wheel_next.wheel_link = &r.wheel_next
    link[0] = r
    r.wheel_link = link
    wheel.requests += 1


cdef inline void wheel_remove(Wheel* wheel, Request* r) noexcept nogil:
    if r.wheel_link == NULL:
        return
    r.wheel_link[0] = r.wheel_next
    if r.wheel_next != NULL:
        r.wheel_next.wheel_link = r.wheel_link
    r.wheel_link = NULL
    wheel.requests -= 1
