"""Requests in, batches out; replies in, frames out: the front door without its sockets.

Owns: every connection's unread half frame, its requests in their order, and its unsent replies; for every shard the batch
that is being built and the operations in flight. Python touches a turn or a batch here, never an operation; the rare
operations come out as events (events.py).
Invariants:
  * the replies of a connection leave in the order of its requests;
  * every operation that was queued is answered once: by its worker, by `fail_shard`, or it outlives its request;
  * nothing is queued beyond the hard bounds: such an operation is answered Overloaded, and was not applied;
  * a connection beyond a soft bound is not parsed; its bytes wait, and `is_paused` tells its owner to read no more;
  * half frames and unsent replies are bounded per connection, and their sums over all connections are.
Crash: all of this is lost with the process; clients see the connection break and know that writes may be applied.
Not here: sockets (door.py), the frames' encoding (_native.pxd), batches in flight (_batch.pxd), queues and deadlines
(_request.pxd). Time comes in as `now_ms`, CLOCK_MONOTONIC in milliseconds.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kio._opbatch cimport ABSENT, DONE, ERROR, MAYBE_APPLIED, NUMBER, OP_GET, OP_SET, REPLIES_MAGIC, VALUE
from kio._opbatch cimport Entry, Header, Operation
from kio._xxh64 cimport routed_hash, shard_of
from kio.frontdoor._batch cimport (
    Batch, Shard, Slot, batch_add, batch_answered, batch_begin, batch_find, batch_free, batch_seal, shard_free,
)
from kio.frontdoor._buffer cimport (
    Buffer, Indices, allocate, buffer_append, buffer_consume, buffer_free, buffer_length, indices_add, indices_free,
    live_blocks, live_bytes, release, resize,
)
from kio.frontdoor._msgpack cimport Reader, load32, read_bytes, read_uint
from kio.frontdoor._native cimport *
from kio.frontdoor._request cimport (
    CLOSING, ENCODED, GREETING, NEW, PENDING, READY, WHEEL_BUCKETS, WHEEL_SHIFT, Connection, Request, Result, Wheel,
    queue_pop, queue_push, request_drop_payload, request_leave, request_new, wheel_add, wheel_remove,
)

from kio import errors, limits
from kio.errors import ProtocolError
from kio.frontdoor.events import Asked, Dropped, Gathered, Refused

cdef extern from "Python.h":
    enum:
        PyBUF_READ

cdef enum:
    #: One batch message is closed at this size, or this many operations, and another one begun.
    BATCH_BYTES_MAX = 8 << 20
    BATCH_OPERATIONS_MAX = 65536
    #: A rare operation's frame: the longest prefix, cursor or payload, and some room.
    RARE_BYTES_MAX = 128 << 10
    #: A connection with more unsent replies than this is not read.
    OUTPUT_BYTES_SOFT = 8 << 20
    #: While all connections hold too much, those that hold no more than this of it are spared.
    SPARED_INPUT_BYTES = 256 << 10
    SPARED_OUTPUT_BYTES = 1 << 20
    OPS = 64

cdef uint32_t KEY_BYTES_MAX = limits.KEY_BYTES_MAX
cdef uint32_t FRAME_SKIP_BYTES_MAX = limits.FRAME_SKIP_BYTES_MAX
cdef uint32_t HELLO_BYTES_MAX = limits.HELLO_BYTES_MAX
cdef uint32_t FRAME_KEYS_MAX = limits.FRAME_KEYS_MAX


def live_allocations() -> tuple:
    """(blocks, bytes) that all dispatches of this process hold outside of the Python heap."""
    return live_blocks, live_bytes


cdef class Dispatch:
    """The state of one front door.

    Args:
        shards: how many there are; all are up at first.
        seed: of the data directory, for the hash of keys (hashing.py).
        value_bytes_max: a longer value is answered ValueTooLarge.
        frame_bytes_max: a longer frame is skipped and answered FrameTooLarge.
        connection_requests_max, connection_bytes_max: what one connection may have in flight before it is not parsed.
        shard_operations_max, shard_bytes_max: what a shard may have in flight before Overloaded is answered; at half of
            that, connections that use the shard are not parsed.
        reply_bytes_max: past this many bytes of unsent replies on one connection a value is answered ReplyTooLarge.
        half_frames_bytes_max, unsent_bytes_max: the same for all connections together (limits.py).
    """

    cdef Shard* _shards
    cdef uint32_t _shard_count
    cdef uint64_t _seed
    cdef uint32_t _value_bytes_max
    cdef uint32_t _frame_bytes_max
    cdef uint32_t _connection_requests_max
    cdef size_t _connection_bytes_max
    cdef size_t _shard_operations_max
    cdef size_t _shard_bytes_max
    cdef size_t _reply_bytes_max
    cdef size_t _half_frames_bytes_max
    cdef size_t _unsent_bytes_max

    cdef Connection** _connections
    cdef uint32_t _connection_count       # slots of _connections
    cdef uint32_t _generation
    cdef Indices _free                    # slots of _connections
    cdef Indices _dirty
    cdef Indices _paused
    cdef Wheel _wheel
    cdef uint64_t _turn
    cdef uint64_t _now_ms
    cdef size_t _input_bytes              # of all connections
    cdef size_t _unsent_bytes             # of all connections

    cdef list _sealed                     # (shard, batch message) not yet taken
    cdef list _events
    cdef dict _handles                    # handle -> address of the rare request that waits for Python
    cdef uint64_t _next_handle
    cdef dict _text_bytes
    cdef Text[CODES] _texts

    cdef uint64_t[OPS] _op_counts
    cdef uint64_t[CODES] _error_counts
    cdef uint64_t _bytes_in
    cdef uint64_t _bytes_out
    cdef uint64_t _late

    #: True: every new request is answered Draining.
    cdef public bint draining
    #: Requests that are not answered yet, or whose reply waits for an earlier one of its connection.
    cdef readonly size_t requests
    #: Open connections.
    cdef readonly uint32_t connections

    def __cinit__(
        self,
        uint32_t shards,
        uint64_t seed,
        *,
        uint32_t value_bytes_max=limits.VALUE_BYTES_MAX,
        frame_bytes_max=None,
        uint32_t connection_requests_max=limits.CONNECTION_REQUESTS_MAX,
        size_t connection_bytes_max=limits.CONNECTION_BYTES_MAX,
        size_t shard_operations_max=limits.SHARD_OPERATIONS_MAX,
        size_t shard_bytes_max=limits.SHARD_BYTES_MAX,
        size_t reply_bytes_max=limits.REPLY_BYTES_MAX,
        size_t half_frames_bytes_max=limits.HALF_FRAMES_BYTES_MAX,
        size_t unsent_bytes_max=limits.UNSENT_BYTES_MAX,
    ):
        cdef uint32_t i
        if not 1 <= shards <= limits.SHARDS_MAX:
            raise ValueError(f"a front door has 1 to {limits.SHARDS_MAX} shards, not {shards}")
        self._shard_count = shards
        self._seed = seed
        self._value_bytes_max = value_bytes_max
        self._frame_bytes_max = limits.frame_bytes_max(value_bytes_max) if frame_bytes_max is None else frame_bytes_max
        self._connection_requests_max = connection_requests_max
        self._connection_bytes_max = connection_bytes_max
        self._shard_operations_max = shard_operations_max
        self._shard_bytes_max = shard_bytes_max
        self._reply_bytes_max = reply_bytes_max
        self._half_frames_bytes_max = half_frames_bytes_max
        self._unsent_bytes_max = unsent_bytes_max
        self._shards = <Shard*>allocate(shards * sizeof(Shard))
        memset(self._shards, 0, shards * sizeof(Shard))
        for i in range(shards):
            self._shards[i].is_up = True
            self._shards[i].first_id = self._shards[i].next_id = 1
        self._turn = 1
        self._next_handle = 1
        self._sealed = []
        self._events = []
        self._handles = {}
        self._text_bytes = {code: error.text.encode() for code, error in errors.BY_CODE.items() if code < CODES}
        for i in range(CODES):
            text = self._text_bytes.setdefault(i, b"")
            self._texts[i].data = <const uint8_t*><const char*>text
            self._texts[i].length = <uint32_t>len(text)

    def __dealloc__(self):
        cdef uint32_t i
        cdef uint64_t id
        cdef Shard* shard
        # Pending operations first, so that closing the connections then frees every request.
        for i in range(self._shard_count if self._shards != NULL else 0):
            shard = &self._shards[i]
            for id in range(shard.first_id, shard.next_id):
                self._forget(batch_find(shard, id))
            self._forget(shard.building)
            shard_free(shard)
        for i in range(self._connection_count):
            if self._connections[i] != NULL:
                self._close(self._connections[i])
        release(self._shards)
        release(self._connections)
        indices_free(&self._free)
        indices_free(&self._dirty)
        indices_free(&self._paused)

    cdef void _forget(self, Batch* batch) noexcept:
        cdef uint32_t i
        cdef Request* r
        if batch == NULL:
            return
        for i in range(batch.count):
            r = batch.slots[i].request
            if r != NULL:
                r.pending -= 1
                if r.pending == 0 and r.connection == NULL:
                    wheel_remove(&self._wheel, r)
                    request_leave(r)

    # ---- connections ------------------------------------------------------------------------------------------------

    def open(self) -> int:
        """A new connection; its id is never used again. The first frame must be a hello."""
        cdef Connection* c = <Connection*>allocate(sizeof(Connection))
        memset(c, 0, sizeof(Connection))
        if self._free.count:
            self._free.count -= 1
            c.index = self._free.data[self._free.count]
        else:
            c.index = self._connection_count
            self._connection_count += 1
            self._connections = <Connection**>resize(self._connections, self._connection_count * sizeof(Connection*))
        self._generation += 1
        c.generation = self._generation
        c.hot_shard = -1
        self._connections[c.index] = c
        self.connections += 1
        return self._id(c)

    def close(self, uint64_t connection) -> None:
        """Forget a connection. What it asked for may still be applied; the replies are dropped.

        Raises:
            KeyError: when it is not open.
        """
        self._close(self._find(connection))

    cdef void _close(self, Connection* c) noexcept:
        cdef Request* r
        while c.head != NULL:
            r = self._pop(c)
            wheel_remove(&self._wheel, r)
            r.is_answered = True
            if r.handle:
                self._drop_handle(r)
            request_leave(r)
        self._input_bytes -= buffer_length(&c.input)
        buffer_free(&c.input)
        buffer_free(&c.output)
        self._account(c)
        self._connections[c.index] = NULL
        indices_add(&self._free, c.index)
        self.connections -= 1
        release(c)

    cdef void _drop_handle(self, Request* r) noexcept:
        # Nobody waits any more for what Python was to answer.
        if self._handles is not None:
            self._handles.pop(r.handle, None)
            self._events.append(Dropped(r.handle))
        r.handle = 0
        r.pending -= 1

    cdef inline uint64_t _id(self, Connection* c) noexcept:
        return <uint64_t>c.generation << 32 | c.index

    cdef Connection* _find(self, uint64_t connection) except NULL:
        cdef uint32_t index = <uint32_t>connection
        cdef Connection* c = NULL
        if index < self._connection_count:
            c = self._connections[index]
        if c == NULL or c.generation != connection >> 32:
            raise KeyError(connection)
        return c

    cdef inline void _account(self, Connection* c) noexcept:
        # Bring the sum over all connections up to date.
        cdef size_t n = c.held_bytes + buffer_length(&c.output)
        self._unsent_bytes += n - c.unsent_bytes
        c.unsent_bytes = n

    cdef inline Request* _pop(self, Connection* c) noexcept:
        self.requests -= 1
        return queue_pop(c)

    # ---- bytes in ---------------------------------------------------------------------------------------------------

    def feed(self, uint64_t connection, data, uint64_t now_ms, Py_ssize_t size=-1) -> None:
        """Take the first `size` bytes of `data` (all, when negative) that came from a connection.

        Every whole frame is parsed and queued; the rest is copied. Nothing of `data` is kept.

        Raises:
            KeyError: when the connection is not open.
        Cost: no system call; about 0.1 us a key.
        """
        cdef Connection* c = self._find(connection)
        cdef Py_buffer view
        cdef size_t n, used
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            n = view.len if size < 0 or size > view.len else size
            self._now_ms = now_ms
            self._bytes_in += n
            if buffer_length(&c.input) == 0:
                used = self._parse(c, <const uint8_t*>view.buf, n)
                if used < n:
                    buffer_append(&c.input, <const uint8_t*>view.buf + used, n - used)
                    self._input_bytes += n - used
            else:
                buffer_append(&c.input, view.buf, n)
                self._input_bytes += n
                self._parse_input(c)
            if self._input_bytes > self._half_frames_bytes_max:
                self._shed(c)
        finally:
            PyBuffer_Release(&view)

    cdef int _parse_input(self, Connection* c) except -1:
        cdef size_t used = self._parse(c, c.input.data + c.input.start, buffer_length(&c.input))
        buffer_consume(&c.input, used)
        self._input_bytes -= used
        return 0

    cdef int _shed(self, Connection* c) except -1:
        # Answer a large half frame now, and skip what is still to come of it.
        cdef Reader r
        cdef uint32_t elements
        cdef uint64_t id
        cdef size_t n = buffer_length(&c.input)
        if c.is_paused or n <= SPARED_INPUT_BYTES:
            return 0
        c.skip_bytes = 4 + load32(c.input.data + c.input.start) - n
        r.at = c.input.data + c.input.start + 4
        r.end = r.at + FRAME_HEAD_BYTES
        if read_frame_head(&r, &elements, &id):
            self._refuse_frame(c, id, OVERLOADED)
        else:
            self._refuse(c, "a frame is not an array that begins with a request id", c.input.data + c.input.start, n)
        self._input_bytes -= n
        buffer_free(&c.input)
        return 0

    cdef int _refuse_frame(self, Connection* c, uint64_t id, uint8_t status) except -1:
        cdef Request* r = self._begin(c, id, CODES, 0, 0, 0)
        r.status = status
        return self._end(r)

    cdef bint _may_take(self, Connection* c, int divisor) noexcept:
        # Within the soft bounds divided by `divisor`, so that a paused connection is resumed well below them.
        cdef Shard* shard
        if c.stage == GREETING:
            return False
        if c.requests * divisor >= self._connection_requests_max:
            return False
        if c.requests and c.request_bytes * divisor >= self._connection_bytes_max:
            return False
        if (c.held_bytes + buffer_length(&c.output)) * divisor > OUTPUT_BYTES_SOFT:
            return False
        if c.hot_shard >= 0:
            shard = &self._shards[c.hot_shard]
            if 2 * divisor * shard.operations > self._shard_operations_max:
                return False
            if 2 * divisor * shard.bytes > self._shard_bytes_max:
                return False
            c.hot_shard = -1
        return True

    cdef Py_ssize_t _parse(self, Connection* c, const uint8_t* p, size_t n) except -1:
        # How many of the bytes were used up; stops before a frame that is not whole, or when paused.
        cdef size_t at = 0
        cdef size_t left
        cdef uint32_t length, elements
        cdef uint64_t id
        cdef Reader reader
        while at < n:
            left = n - at
            if c.skip_bytes:
                left = left if left < c.skip_bytes else c.skip_bytes
                c.skip_bytes -= left
                at += left
                continue
            if c.stage == CLOSING:
                return n
            if not self._may_take(c, 1):
                if not c.is_paused:
                    c.is_paused = True
                    indices_add(&self._paused, c.index)
                break
            if left < 4:
                break
            length = load32(p + at)
            if length > (HELLO_BYTES_MAX if c.stage == NEW else self._frame_bytes_max):
                if c.stage == NEW:
                    self._refuse(c, "the first frame is not a hello", p + at, left)
                    return n
                if length > FRAME_SKIP_BYTES_MAX:
                    self._refuse(c, "a frame announces more than 256 MiB", p + at, left)
                    return n
                if left < 4 + FRAME_HEAD_BYTES:
                    break
                reader.at = p + at + 4
                reader.end = reader.at + FRAME_HEAD_BYTES
                if not read_frame_head(&reader, &elements, &id):
                    self._refuse(c, "a frame is not an array that begins with a request id", p + at, left)
                    return n
                self._refuse_frame(c, id, FRAME_TOO_LARGE)
                c.skip_bytes = length
                at += 4
                continue
            if left - 4 < length:
                break
            self._take(c, p + at + 4, length)
            at += 4 + <size_t>length
        return at

    cdef int _take(self, Connection* c, const uint8_t* p, uint32_t n) except -1:
        # One whole frame.
        cdef Frame frame
        cdef Request* r
        if not read_frame(p, n, FRAME_KEYS_MAX, &frame):
            self._refuse(c, "a frame is not an array that begins with a request id", p, n)
            return 0
        if c.stage == NEW and (frame.op != OP_HELLO or frame.error):
            self._refuse(c, "the first frame is not a hello", p, n)
            return 0
        self._op_counts[frame.op if frame.op < OPS else OPS - 1] += 1
        if self.draining:
            frame.error = DRAINING
        if frame.error == 0 and is_rare(frame.op):
            return self._ask(c, &frame, n)
        r = self._begin(c, frame.id, <uint8_t>frame.op, frame.deadline_ms, n, 0 if frame.error else frame.keys)
        if frame.error:
            r.status = frame.error
        elif is_single(frame.op):
            self._add_next(c, r, &frame, 0)
        else:
            self._add_all(c, r, &frame)
        return self._end(r)

    cdef int _add_all(self, Connection* c, Request* r, Frame* frame) except -1:
        cdef uint32_t i
        for i in range(frame.keys):
            self._add_next(c, r, frame, i)
        if frame.keys == 0:
            # A batch of nothing: results must not be NULL, which would make it a single operation.
            r.results = <Result*>allocate(0)
        return 0

    cdef inline int _add_next(self, Connection* c, Request* r, Frame* frame, uint32_t position) except -1:
        cdef const uint8_t* key
        cdef const uint8_t* value = NULL
        cdef uint32_t key_length
        cdef uint32_t value_length = 0
        cdef uint8_t op = <uint8_t>(frame.op & ~<uint64_t>OP_MANY)
        cdef uint8_t status = 0
        cdef uint64_t hash
        read_bytes(&frame.arguments, &key, &key_length)
        if op == OP_SET:
            read_bytes(&frame.arguments, &value, &value_length)
        if key_length == 0:
            status = KEY_EMPTY
        elif key_length > KEY_BYTES_MAX:
            status = KEY_TOO_LARGE
        elif value_length > self._value_bytes_max:
            status = VALUE_TOO_LARGE
        if status:
            r.pending += 1
            return self._settle(r, position, status, NULL, 0)
        hash = routed_hash(key, key_length, self._seed, frame.keyspace)
        return self._add(r, position, shard_of(hash, self._shard_count), op, frame.keyspace, hash, key, <uint16_t>key_length,
                         value, value_length)

    # ---- requests and operations ------------------------------------------------------------------------------------

    cdef Request* _begin(self, Connection* c, uint64_t id, uint8_t op, uint32_t deadline_ms, uint32_t n, uint32_t count) noexcept:
        # A request at the end of its connection's queue; one is pending until `_end`, so it is not answered before.
        cdef Request* r = request_new(op, count)
        r.id = id
        r.turn = self._turn
        r.bytes = n
        r.pending = 1
        r.is_write = is_write(op)
        if deadline_ms:
            r.deadline = self._now_ms + deadline_ms
            wheel_add(&self._wheel, r)
        queue_push(c, r)
        self.requests += 1
        return r

    cdef int _end(self, Request* r) except -1:
        r.pending -= 1
        if r.pending == 0:
            self._complete(r)
        return 0

    cdef int _add(self, Request* r, uint32_t position, uint32_t number, uint8_t op, uint8_t keyspace, uint64_t hash,
                  const uint8_t* key, uint16_t key_length, const uint8_t* value, uint32_t value_length) except -1:
        # Queue one operation for a shard, or answer it at once.
        cdef Shard* shard = &self._shards[number]
        cdef Operation head
        cdef size_t n = sizeof(Operation) + key_length + value_length
        cdef size_t queued
        r.pending += 1
        if not shard.is_up:
            return self._settle(r, position, SHARD_DOWN, NULL, 0)
        if shard.operations and (shard.operations >= self._shard_operations_max or shard.bytes + n > self._shard_bytes_max):
            return self._settle(r, position, OVERLOADED, NULL, 0)
        if shard.building != NULL:
            queued = buffer_length(&shard.message)
            if shard.building.count >= BATCH_OPERATIONS_MAX or queued + n > BATCH_BYTES_MAX:
                self._seal(number)
        if shard.building == NULL:
            batch_begin(shard, self._turn)
        head.op = op
        head.keyspace = keyspace
        head.key_length = key_length
        head.value_length = value_length
        head.hash = hash
        head.deadline = 0
        if r.deadline:
            head.deadline = <uint32_t>r.deadline
            head.deadline = head.deadline if head.deadline else 1
        head.flags = 0
        batch_add(shard, r, position, &head, key, value)
        if r.connection != NULL and (2 * shard.operations > self._shard_operations_max
                                     or 2 * shard.bytes > self._shard_bytes_max):
            r.connection.hot_shard = <int>number
        return 0

    cdef int _seal(self, uint32_t number) except -1:
        cdef Shard* shard = &self._shards[number]
        batch_seal(shard, number)
        self._sealed.append((number, PyBytes_FromStringAndSize(
            <const char*>shard.message.data + shard.message.start, buffer_length(&shard.message))))
        buffer_consume(&shard.message, buffer_length(&shard.message))
        return 0

    cdef int _settle(self, Request* r, uint32_t position, uint8_t status, const uint8_t* payload, uint32_t length) except -1:
        # One operation of a request is answered.
        cdef Connection* c = r.connection
        cdef Result* result
        r.pending -= 1
        if r.is_answered:
            if r.pending == 0 and c == NULL:
                release(r)
            return 0
        if length and c != NULL and status == VALUE and self._is_too_much(c, length):
            status = REPLY_TOO_LARGE
            length = 0
        if r.results == NULL:
            r.status = status
            if r.pending == 0 and c.head == r:
                self._reply(c, r, payload, length)
                self._flush(c)
                return 0
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
                self._account(c)
        if r.pending == 0:
            self._complete(r)
        return 0

    cdef inline bint _is_too_much(self, Connection* c, uint32_t length) noexcept:
        # Whether a value is more than a connection, or all of them, may have waiting; one alone always passes.
        if c.unsent_bytes and c.unsent_bytes + length > self._reply_bytes_max:
            return True
        return c.unsent_bytes > SPARED_OUTPUT_BYTES and self._unsent_bytes + length > self._unsent_bytes_max

    cdef int _complete(self, Request* r) except -1:
        # The outcome of the request is known.
        r.is_answered = True
        wheel_remove(&self._wheel, r)
        if r.is_fan_out:
            if r.handle in self._handles:
                self._events.append(Gathered(r.handle, [
                    (r.results[i].status, (<const char*>r.payload.data + r.payload.start + r.results[i].offset)[
                        :r.results[i].length] if r.results[i].length else b"")
                    for i in range(r.count)]))
            request_leave(r)
        elif r.connection.head == r:
            self._flush(r.connection)
        return 0

    cdef void _flush(self, Connection* c) noexcept:
        # Encode what is answered at the head of the queue.
        cdef Request* r = c.head
        while r != NULL and r.is_answered:
            self._reply(c, r, r.payload.data + r.payload.start if r.payload.data != NULL else NULL,
                        <uint32_t>buffer_length(&r.payload))
            r = c.head

    cdef inline void _reply(self, Connection* c, Request* r, const uint8_t* payload, uint32_t length) noexcept:
        # The head of the queue leaves it as bytes.
        put_reply(&c.output, r, payload, length, self._texts, self._error_counts)
        r.is_answered = True
        wheel_remove(&self._wheel, r)
        self._pop(c)
        request_leave(r)
        self._account(c)
        if not c.is_dirty:
            c.is_dirty = True
            indices_add(&self._dirty, c.index)

    cdef int _refuse(self, Connection* c, str reason, const uint8_t* p, size_t n) except -1:
        cdef Request* r
        cdef bytes text = reason.encode()
        self._events.append(Refused(self._id(c), reason, PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>(n if n < 32 else 32))))
        r = self._begin(c, 0, CODES, 0, 0, 0)
        r.status = PROTOCOL_ERROR
        buffer_append(&r.payload, <const char*>text, len(text))
        c.held_bytes += len(text)
        c.stage = CLOSING
        return self._end(r)

    # ---- rare operations --------------------------------------------------------------------------------------------

    cdef int _ask(self, Connection* c, Frame* frame, uint32_t n) except -1:
        # A rare operation becomes an event; it is pending until Python answers.
        cdef Request* r
        cdef tuple arguments = self._arguments(frame) if n <= RARE_BYTES_MAX else None
        if arguments is None and c.stage == NEW:
            return self._refuse(c, "the first frame is not a hello", frame.arguments.at, 0)
        r = self._begin(c, frame.id, <uint8_t>frame.op, frame.deadline_ms, n, 0)
        if arguments is None or (frame.op == OP_HELLO and c.stage != NEW):
            r.status = BAD_REQUEST
            return self._end(r)
        r.handle = self._next_handle
        self._next_handle += 1
        self._handles[r.handle] = <size_t>r
        self._events.append(Asked(r.handle, self._id(c), frame.op, arguments))
        if frame.op == OP_HELLO:
            c.stage = GREETING
        return 0

    cdef tuple _arguments(self, Frame* frame):
        # The arguments of a rare operation, None when they are not those.
        cdef Reader r = frame.arguments
        cdef uint64_t keyspace, limit, what
        cdef const uint8_t* a
        cdef const uint8_t* b
        cdef uint32_t n, m
        if frame.op == OP_HELLO:
            return (PyBytes_FromStringAndSize(<const char*>r.at, r.end - r.at),) if frame.elements == 1 else None
        if frame.op == OP_STATS:
            return () if frame.elements == 0 and r.at == r.end else None
        if frame.op == OP_PING:
            if frame.elements == 1 and read_bytes(&r, &a, &n) and r.at == r.end:
                return (PyBytes_FromStringAndSize(<const char*>a, n),)
            return None
        if not read_uint(&r, &keyspace) or keyspace > 255:
            return None
        if frame.op == OP_COUNT or frame.op == OP_CLEAR:
            return (keyspace,) if frame.elements == 1 and r.at == r.end else None
        if (
            frame.elements == 5
            and read_bytes(&r, &a, &n)
            and read_bytes(&r, &b, &m)
            and read_uint(&r, &limit)
            and read_uint(&r, &what)
            and r.at == r.end
        ):
            return (keyspace, PyBytes_FromStringAndSize(<const char*>a, n), PyBytes_FromStringAndSize(<const char*>b, m),
                    limit, what)
        return None

    cdef Request* _take_handle(self, uint64_t handle) except? NULL:
        # NULL when the request is gone.
        cdef Request* r
        address = self._handles.pop(handle, None)
        if address is None:
            return NULL
        r = <Request*><size_t>address
        r.handle = 0
        return r

    def answer(self, uint64_t handle, bytes result) -> None:
        """Answer a rare operation with `result`, one msgpack value. Nothing happens when it was dropped meanwhile.

        The answer to a hello opens its connection for requests.
        """
        cdef Request* r = self._take_handle(handle)
        if r == NULL:
            return
        r.status = ENCODED
        buffer_append(&r.payload, <const char*>result, len(result))
        r.connection.held_bytes += len(result)
        if r.op == OP_HELLO:
            r.connection.stage = READY
        self._end(r)

    def fail(self, uint64_t handle, uint8_t code, str message="", bint maybe_applied=False) -> None:
        """Answer a rare operation with an error; an empty `message` stands for the error's own text.

        The refusal of a hello closes its connection once it is flushed.
        """
        cdef Request* r = self._take_handle(handle)
        cdef bytes text = message.encode()
        if r == NULL:
            return
        r.status = code | (MAYBE_APPLIED if maybe_applied else 0)
        buffer_append(&r.payload, <const char*>text, len(text))
        r.connection.held_bytes += len(text)
        if r.op == OP_HELLO:
            r.connection.stage = CLOSING
        self._end(r)

    def fan_out(self, uint64_t handle, uint8_t op, list shards, bytes value=b"", uint8_t keyspace=0, uint32_t limit_ms=0) -> None:
        """Send one operation without a key to each of `shards` for a rare request; the replies come as one `Gathered`.

        Args:
            limit_ms: after this long the shards that have not answered are reported as Timeout; 0 waits as long as the
                request does.
        Raises:
            IndexError: when a shard does not exist.
        """
        cdef uint32_t i
        cdef Request* r
        address = self._handles.get(handle)
        if address is None:
            return
        if not shards or not all(0 <= shard < self._shard_count for shard in shards):
            raise IndexError(f"a fan-out to shards {shards}, of {self._shard_count}")
        r = request_new(op, <uint32_t>len(shards))
        r.is_fan_out = True
        r.handle = handle
        r.turn = self._turn
        r.is_write = is_write(op)
        r.deadline = (<Request*><size_t>address).deadline
        if limit_ms and (r.deadline == 0 or self._now_ms + limit_ms < r.deadline):
            r.deadline = self._now_ms + limit_ms
        if r.deadline:
            wheel_add(&self._wheel, r)
        r.pending = 1
        for i in range(r.count):
            self._add(r, i, shards[i], op, keyspace, 0, NULL, 0, <const uint8_t*><const char*>value, <uint32_t>len(value))
        self._end(r)

    def take_events(self) -> list:
        """The events since the last call (events.py), in their order."""
        cdef list events = self._events
        if events:
            self._events = []
        return events

    @property
    def has_news(self) -> bool:
        """Whether `take_events`, `take_batches` or `outputs` has something to give."""
        cdef uint32_t number
        if self._events or self._sealed or self._dirty.count:
            return True
        for number in range(self._shard_count):
            if self._shards[number].building != NULL:
                return True
        return False

    # ---- shards -----------------------------------------------------------------------------------------------------

    def take_batches(self) -> list:
        """(shard, batch message) for all that was queued since the last call; from here on it counts as sent."""
        cdef uint32_t number
        cdef list batches
        for number in range(self._shard_count):
            if self._shards[number].building != NULL:
                self._seal(number)
        batches = self._sealed
        if batches:
            self._sealed = []
            self._turn += 1
        return batches

    def deliver(self, message) -> None:
        """Take one replies message of a worker. Replies to what nobody waits for any more are dropped.

        Raises:
            ProtocolError: when the message is malformed; the entries before the fault were taken.
        Cost: no system call; about 0.1 us an entry.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self._deliver(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int _deliver(self, const uint8_t* p, size_t n) except -1:
        cdef Header header
        cdef Entry entry
        cdef Shard* shard
        cdef Batch* batch
        cdef Slot* slot
        cdef Request* r
        cdef uint32_t i
        cdef size_t at = sizeof(Header)
        if n < sizeof(Header):
            raise ProtocolError(f"op replies of {n} bytes are shorter than their header")
        memcpy(&header, p, sizeof(Header))
        if header.magic != REPLIES_MAGIC or header.shard >= self._shard_count:
            raise ProtocolError(f"op replies begin with {header.magic:08x} for shard {header.shard}")
        shard = &self._shards[header.shard]
        if header.batch_id >= shard.next_id:
            raise ProtocolError(f"op replies of shard {header.shard} to batch {header.batch_id}, which was never sent")
        batch = batch_find(shard, header.batch_id)
        if batch == NULL:
            self._late += header.count
            return 0
        for i in range(header.count):
            if n - at < sizeof(Entry):
                raise ProtocolError(f"op replies of shard {header.shard} end inside an entry")
            memcpy(&entry, p + at, sizeof(Entry))
            at += sizeof(Entry)
            if entry.payload_length > n - at or entry.index >= batch.count:
                raise ProtocolError(f"op replies of shard {header.shard} hold an entry that is out of bounds")
            slot = &batch.slots[entry.index]
            r = slot.request
            if r == NULL:
                raise ProtocolError(f"op replies of shard {header.shard} answer operation {entry.index} twice")
            slot.request = NULL
            batch.answered += 1
            shard.operations -= 1
            shard.bytes -= slot.bytes
            if not self._is_answer(r, entry.status):
                entry.status = INTERNAL_ERROR | (MAYBE_APPLIED if r.is_write else 0)
                entry.payload_length = 0
            self._settle(r, slot.position, entry.status, p + at, entry.payload_length)
            at += entry.payload_length
            if batch.answered == batch.count:
                batch_answered(shard, batch)
                if i + 1 < header.count:
                    raise ProtocolError(f"op replies of shard {header.shard} hold more entries than the batch operations")
        if at != n:
            raise ProtocolError(f"op replies of shard {header.shard} have {n - at} bytes behind the last entry")
        return 0

    cdef inline bint _is_answer(self, Request* r, uint8_t status) noexcept:
        # Whether a worker may give this status to an operation of this request.
        cdef uint8_t op = r.op & <uint8_t>~OP_MANY
        if status >= ERROR:
            return (status & <uint8_t>~MAYBE_APPLIED) >= ERROR
        if r.is_fan_out:
            return status == VALUE or status == NUMBER
        if op == OP_GET:
            return status == VALUE or status == ABSENT
        return status == DONE or (status == ABSENT and op != OP_SET)

    def fail_shard(self, uint32_t number) -> None:
        """The worker of a shard is away: what it was to answer, and what comes until `shard_up`, is answered ShardDown.

        A write that was taken by `take_batches` may have been applied, and is answered so.
        """
        cdef Shard* shard
        cdef uint64_t id
        self._check(number)
        shard = &self._shards[number]
        shard.is_up = False
        self._sealed = [sealed for sealed in self._sealed if sealed[0] != number]
        for id in range(shard.first_id, shard.next_id):
            self._fail_batch(batch_find(shard, id))
        self._fail_batch(shard.building)
        buffer_free(&shard.message)
        shard.building = NULL
        shard.first_id = shard.next_id
        shard.operations = 0
        shard.bytes = 0

    cdef int _fail_batch(self, Batch* batch) except -1:
        cdef uint32_t i
        cdef Request* r
        if batch == NULL:
            return 0
        for i in range(batch.count):
            r = batch.slots[i].request
            if r != NULL:
                self._settle(r, batch.slots[i].position,
                             SHARD_DOWN | (MAYBE_APPLIED if r.is_write and batch.turn != self._turn else 0), NULL, 0)
        batch_free(batch)
        return 0

    def shard_up(self, uint32_t number) -> None:
        """Operations of this shard are queued again."""
        self._check(number)
        self._shards[number].is_up = True

    def is_shard_up(self, uint32_t number) -> bool:
        """Whether operations of this shard are queued."""
        self._check(number)
        return self._shards[number].is_up

    def shard_in_flight(self, uint32_t number) -> tuple:
        """(operations, bytes) that are queued or sent and not answered."""
        self._check(number)
        return self._shards[number].operations, self._shards[number].bytes

    cdef int _check(self, uint32_t number) except -1:
        if number >= self._shard_count:
            raise IndexError(f"shard {number} of {self._shard_count}")
        return 0

    # ---- time -------------------------------------------------------------------------------------------------------

    @property
    def has_deadlines(self) -> bool:
        """Whether anything waits that `expire` could end."""
        return self._wheel.requests > 0

    def expire(self, uint64_t now_ms) -> None:
        """Answer Timeout to what is past its deadline; call it every 50 ms or so while `has_deadlines`.

        A write whose operations were sent may have been applied, and is answered so.
        """
        cdef uint64_t last = now_ms >> WHEEL_SHIFT
        cdef uint64_t tick = self._wheel.tick
        cdef Request* r
        cdef Request* next
        self._now_ms = now_ms
        if self._wheel.requests:
            if last - tick >= WHEEL_BUCKETS:
                tick = last - WHEEL_BUCKETS + 1
            while tick <= last:
                r = self._wheel.buckets[tick & (WHEEL_BUCKETS - 1)]
                while r != NULL:
                    next = r.wheel_next
                    if r.deadline <= now_ms:
                        self._expire(r)
                    r = next
                tick += 1
        self._wheel.tick = last

    cdef int _expire(self, Request* r) except -1:
        cdef uint8_t status = TIMEOUT
        cdef uint32_t i
        if r.is_write and r.turn != self._turn:
            status |= MAYBE_APPLIED
        if r.results == NULL:
            r.status = status
            if r.handle:
                self._drop_handle(r)
        else:
            for i in range(r.count):
                if r.results[i].status == PENDING:
                    r.results[i].status = status
                    r.results[i].length = 0
                    r.results[i].offset = 0
                    r.failed += 1
        return self._complete(r)

    def resume(self, uint64_t now_ms) -> list:
        """Parse what waits on the paused connections that are within their bounds again; they are to be read again.

        Returns: the ids of the connections that are not paused any more.
        """
        cdef Indices paused = self._paused
        cdef Connection* c
        cdef size_t i
        cdef list resumed = []
        if paused.count == 0:
            return resumed
        self._now_ms = now_ms
        memset(&self._paused, 0, sizeof(Indices))
        for i in range(paused.count):
            c = self._connections[paused.data[i]]
            if c == NULL or not c.is_paused:
                continue
            if not self._may_take(c, 2):
                indices_add(&self._paused, c.index)
                continue
            c.is_paused = False
            self._parse_input(c)
            if not c.is_paused:
                resumed.append(self._id(c))
        indices_free(&paused)
        return resumed

    # ---- bytes out --------------------------------------------------------------------------------------------------

    def outputs(self) -> list:
        """The connections that got output since the last call."""
        cdef list ids = []
        cdef Connection* c
        cdef size_t i
        for i in range(self._dirty.count):
            c = self._connections[self._dirty.data[i]]
            if c != NULL and c.is_dirty:
                c.is_dirty = False
                ids.append(self._id(c))
        self._dirty.count = 0
        return ids

    def output(self, uint64_t connection):
        """The bytes to send on a connection, as a memoryview that is valid until the next call of any method."""
        cdef Connection* c = self._find(connection)
        if c.output.data == NULL:
            return memoryview(b"")
        return PyMemoryView_FromMemory(<char*>c.output.data + c.output.start, buffer_length(&c.output), PyBUF_READ)

    def consumed(self, uint64_t connection, size_t n) -> int:
        """The first `n` bytes of `output` were sent; how many are left."""
        cdef Connection* c = self._find(connection)
        if n > buffer_length(&c.output):
            raise ValueError(f"{n} bytes sent of {buffer_length(&c.output)}")
        self._bytes_out += n
        buffer_consume(&c.output, n)
        self._account(c)
        return buffer_length(&c.output)

    def is_paused(self, uint64_t connection) -> bool:
        """Whether the connection is beyond a soft bound and must not be read until `resume` names it."""
        return self._find(connection).is_paused

    def is_finished(self, uint64_t connection) -> bool:
        """Whether all is said on a connection that was refused: it is to be closed."""
        cdef Connection* c = self._find(connection)
        return c.stage == CLOSING and c.head == NULL and buffer_length(&c.output) == 0

    def is_greeted(self, uint64_t connection) -> bool:
        """Whether the connection's hello was answered."""
        return self._find(connection).stage == READY

    def has_half_frame(self, uint64_t connection) -> bool:
        """Whether the connection owes the rest of a frame."""
        cdef Connection* c = self._find(connection)
        return c.skip_bytes > 0 or (buffer_length(&c.input) > 0 and not c.is_paused)

    def in_flight(self, uint64_t connection) -> tuple:
        """(requests, bytes of their frames) of a connection that are not answered."""
        cdef Connection* c = self._find(connection)
        return c.requests, c.request_bytes

    def counters(self) -> dict:
        """What happened since the start: requests by operation (`per_op`), errors by code, bytes, late replies."""
        cdef uint32_t i
        return {
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "late_replies": self._late,
            "errors": {i: self._error_counts[i] for i in range(CODES) if self._error_counts[i]},
            "per_op": {i: self._op_counts[i] for i in range(OPS) if self._op_counts[i]},
        }


assert (errors.KeyEmpty.code, errors.KeyTooLarge.code, errors.ValueTooLarge.code) == (KEY_EMPTY, KEY_TOO_LARGE, VALUE_TOO_LARGE)
assert (errors.FrameTooLarge.code, errors.BadRequest.code) == (FRAME_TOO_LARGE, BAD_REQUEST)
assert (errors.UnknownOperation.code, errors.ShardDown.code) == (UNKNOWN_OPERATION, SHARD_DOWN)
assert (errors.Overloaded.code, errors.Draining.code, errors.Timeout.code) == (OVERLOADED, DRAINING, TIMEOUT)
assert (errors.ReplyTooLarge.code, errors.ProtocolError.code) == (REPLY_TOO_LARGE, PROTOCOL_ERROR)
assert errors.InternalError.code == INTERNAL_ERROR
