"""Requests in, batches out; replies in, frames out: the front door without its sockets.

Owns: every connection's unread half frame, its requests in their order, and its unsent replies; for every shard the
batch that is being built and the operations in flight. Python touches a turn or a batch here, never an operation; the
rare operations come out as events (events.py).
Invariants:
  * the replies of a connection leave in the order of its requests;
  * every operation that was queued is answered once: by its worker, by `fail_shard`, or it outlives its request;
  * nothing is queued beyond the hard bounds: such an operation is answered Overloaded, and was not applied;
  * a connection beyond a soft bound is not parsed; its bytes wait, and `is_paused` tells its owner to read no more;
  * nor is one that has had its share of a turn: it goes on at the next one (`go_on`), behind those that wait longer;
  * half frames and unsent replies are bounded per connection, and their sums over all connections are.
Crash: all of this is lost with the process; clients see the connection break and know that writes may be applied.
Here: connections, the cutting of their bytes into frames, and what Python sees. Not here: sockets (door.py), the
encoding of frames (_native.pxd), what becomes of a request between its frame and its reply (_gather.pxd). Time comes in
as `now_ms`, CLOCK_MONOTONIC in milliseconds.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from kio._opbatch cimport (
    EXPIRE_AT, IF_VERSION, MAYBE_APPLIED, OP_ATOMIC, OP_SET, OP_TTL, TTL, VALUE, Operation,
)
from kio._xxh64 cimport shard_of
from kio.frontdoor._atomic cimport atomic_queue
from kio.frontdoor._batch cimport Batch, Shard, batch_find, batch_taken
from kio.frontdoor._buffer cimport (
    Numbers, allocate, buffer_append, buffer_consume, buffer_free, buffer_length, live_blocks, live_bytes, numbers_add,
    numbers_free, release, resize,
)
from kio.frontdoor._call cimport EXPIRE_AT_MS_BITS, TTL_MS_BITS, Call, call_add_argument
from kio.frontdoor._commands cimport Fast, argument, fast_plan
from kio.frontdoor._deadlines cimport gather_expire
from kio.frontdoor._gather cimport (
    EXPECTED_BYTES_FIRST, KEY_BYTES_MAX, Gather, gather_account, gather_add, gather_begin, gather_close, gather_deliver,
    gather_end, gather_expect_reply, gather_fail, gather_fail_shard, gather_fault, gather_free, gather_init,
    gather_is_too_much, gather_key, gather_let_go, gather_may_take, gather_pop_gathered, gather_refuse,
    gather_set_deadline,
)
from kio.frontdoor._grant cimport Grant, grant_allows, grants_sweep
from kio.frontdoor._handles cimport handle_find, handle_new, handle_take
from kio.frontdoor._hold cimport gather_hold, gather_release, gather_seal
from kio.frontdoor._keyspaces cimport keyspace_hash, keyspace_stored
from kio.frontdoor._msgpack cimport Reader, load32, read_bytes
from kio.frontdoor._native cimport *
from kio.frontdoor._request cimport (
    CLOSING, ENCODED, GREETING, NEW, READY, RESP, Connection, Request, request_new,
)
from kio.frontdoor._resp cimport (
    RESP_DROPPED, RESP_EMPTY, RESP_FAULT, RESP_LINE, RESP_PARTIAL, RESP_WHOLE, incoming_clear, incoming_drop, incoming_free,
    resp_read,
)
from kio.frontdoor._resp_reply cimport STYLE_ALL_OK, STYLE_ARRAY, STYLE_BOOL, STYLE_ECHO, STYLE_OK, STYLE_SUM
from kio.frontdoor._share cimport COST_BYTES, COST_OF_ANY, COST_OF_PYTHON, Share, clock_ns, share_begin, share_is_over

from kio import errors, limits
from kio.errors import ProtocolError
from kio.frontdoor.events import Asked, Dropped, Gathered, Refused

cdef extern from "Python.h":
    enum:
        PyBUF_READ

cdef enum:
    #: A rare operation's frame: the longest prefix, cursor or payload, and some room.
    RARE_BYTES_MAX = 128 << 10
    #: While all connections hold too many half frames, those that hold no more than this are spared.
    SPARED_INPUT_BYTES = 256 << 10
    OPS = 64
    #: What an argument of RESP may have beyond a value: RESTORE's has a head and a checksum.
    ARGUMENT_OVERHEAD_BYTES = 1024
    #: Where `_op_counts` counts the commands of RESP that go through Python.
    OP_COMMAND = OPS - 2

cdef uint32_t FRAME_SKIP_BYTES_MAX = limits.FRAME_SKIP_BYTES_MAX
cdef uint32_t HELLO_BYTES_MAX = limits.HELLO_BYTES_MAX
cdef uint32_t FRAME_KEYS_MAX = limits.FRAME_KEYS_MAX

#: Error texts, kept for as long as a Dispatch may point into them.
cdef dict TEXTS = {code: error.text.encode() for code, error in errors.BY_CODE.items() if code < CODES}


def live_allocations() -> tuple:
    """(blocks, bytes) that all dispatches of this process hold outside of the Python heap."""
    return live_blocks, live_bytes


# It is part of a cycle with its `commands`, and needs what it refers to until its end.
@cython.no_gc_clear
cdef class Dispatch:
    """The state of one front door.

    Args:
        shards: how many there are; all are up at first.
        seed: of the data directory, for the hash of keys (hashing.py).
        value_bytes_max: a longer value is answered ValueTooLarge.
        frame_bytes_max: a longer frame is skipped and answered FrameTooLarge.
        connection_requests_max, connection_bytes_max: what one connection may have in flight before it is not parsed.
        connection_requests_per_s: past this many a connection is not parsed until its time has come; 0 is no bound.
        share_us: after so many microseconds of a turn a connection is not parsed until the next one; 0 is no bound.
        shard_operations_max, shard_bytes_max: what a shard may have in flight before Overloaded is answered; at half of
            that, connections that use the shard are not parsed.
        reply_bytes_max: past this many bytes of unsent replies on one connection a value is answered ReplyTooLarge.
        half_frames_bytes_max, unsent_bytes_max: the same for all connections together (limits.py).
    """

    # Set once.
    cdef uint32_t _frame_bytes_max
    cdef size_t _half_frames_bytes_max
    # Changed by what comes in.
    cdef Gather _gather
    cdef Connection** _connections
    cdef uint32_t _connection_capacity
    cdef uint32_t _generation
    cdef Numbers _free                    # indices of _connections
    cdef Numbers _paused                  # the same
    cdef Numbers _spent                   # the same: who had his share of a turn, longest ago first
    cdef Share _share                     # of the connection that is parsed
    cdef size_t _input_bytes              # of all connections
    cdef list _events
    cdef list _texts
    cdef Grant* _grants                   # all that there are
    cdef uint64_t[OPS] _op_counts
    cdef uint64_t _bytes_in
    cdef uint64_t _bytes_out

    #: True: every new request is answered Draining.
    cdef public bint draining
    #: Who answers the commands of RESP that are not the common ones: `command(handle, connection, arguments)`;
    #: `split(line)`, the arguments of an inline command; `refused(connection)`: one was too long, and is answered.
    cdef public object commands

    def __cinit__(
        self,
        uint32_t shards,
        uint64_t seed,
        *,
        uint32_t value_bytes_max=limits.VALUE_BYTES_MAX,
        frame_bytes_max=None,
        uint32_t connection_requests_max=limits.CONNECTION_REQUESTS_MAX,
        size_t connection_bytes_max=limits.CONNECTION_BYTES_MAX,
        uint32_t connection_requests_per_s=0,
        uint32_t share_us=0,
        size_t shard_operations_max=limits.SHARD_OPERATIONS_MAX,
        size_t shard_bytes_max=limits.SHARD_BYTES_MAX,
        size_t reply_bytes_max=limits.REPLY_BYTES_MAX,
        size_t half_frames_bytes_max=limits.HALF_FRAMES_BYTES_MAX,
        size_t unsent_bytes_max=limits.UNSENT_BYTES_MAX,
    ):
        if not 1 <= shards <= limits.SHARDS_MAX:
            raise ValueError(f"a front door has 1 to {limits.SHARDS_MAX} shards, not {shards}")
        self._frame_bytes_max = limits.frame_bytes_max(value_bytes_max) if frame_bytes_max is None else frame_bytes_max
        self._half_frames_bytes_max = half_frames_bytes_max
        self._share.length_ns = <uint64_t>share_us * 1000
        self._events = []
        gather_init(&self._gather, shards)
        self._gather.seed = seed
        self._gather.value_bytes_max = value_bytes_max
        self._gather.connection_requests_max = connection_requests_max
        self._gather.connection_bytes_max = connection_bytes_max
        self._gather.requests_per_s = connection_requests_per_s
        self._gather.shard_operations_max = shard_operations_max
        self._gather.shard_bytes_max = shard_bytes_max
        self._gather.reply_bytes_max = reply_bytes_max
        self._gather.unsent_bytes_max = unsent_bytes_max
        for code, text in TEXTS.items():
            self._gather.texts[<int>code].data = <const uint8_t*><const char*>(<bytes>text)
            self._gather.texts[<int>code].length = <uint32_t>len(text)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self._connection_capacity):
            if self._connections[i] != NULL:
                self._close(self._connections[i])
        grants_sweep(&self._grants)
        self._end_all()
        gather_free(&self._gather)
        release(self._connections)
        numbers_free(&self._free)
        numbers_free(&self._paused)
        numbers_free(&self._spent)

    cdef void _end_all(self) noexcept:
        # The handles that are nobody's request.
        cdef uint64_t place
        cdef Request* r
        for place in range(self._gather.handles.capacity):
            r = self._gather.handles.requests[place]
            if r != NULL and r.connection == NULL:
                handle_take(&self._gather.handles, r)
                gather_let_go(r)

    # ---- connections ------------------------------------------------------------------------------------------------

    def open(self, bint is_resp=False) -> int:
        """A new connection; its id is never used again. The first frame must be a hello, where it is not RESP."""
        cdef Connection* c = <Connection*>allocate(sizeof(Connection))
        memset(c, 0, sizeof(Connection))
        if self._free.count:
            self._free.count -= 1
            c.index = <uint32_t>self._free.data[self._free.count]
        else:
            c.index = self._connection_capacity
            self._connection_capacity += 1
            self._connections = <Connection**>resize(self._connections, self._connection_capacity * sizeof(Connection*))
        self._generation += 1
        c.generation = self._generation
        c.hot_shard = -1
        c.guessed_bytes = EXPECTED_BYTES_FIRST
        c.rights = 255
        if is_resp:
            c.protocol = RESP
            c.stage = READY
            c.version = 2
        self._connections[c.index] = c
        return self._id(c)

    def close(self, uint64_t connection) -> None:
        """Forget a connection. What it asked for may still be applied; the replies are dropped.

        Raises:
            KeyError: when it is not open.
        """
        self._close(self._find(connection))

    cdef void _close(self, Connection* c) noexcept:
        gather_close(&self._gather, c)
        self._input_bytes -= buffer_length(&c.input)
        buffer_free(&c.input)
        buffer_free(&c.output)
        incoming_free(&c.incoming)
        if c.grant != NULL:
            c.grant.connections -= 1
        gather_account(&self._gather, c)
        self._connections[c.index] = NULL
        numbers_add(&self._free, c.index)
        release(c)

    def limit(self, uint64_t connection, bint may_write, tuple prefixes) -> None:
        """From now on a connection of the native protocol may do no more than this to keys: else NotPermitted.

        Args:
            prefixes: what its keys begin with; empty where it may touch all.
        Raises:
            KeyError: when the connection is not open.
        """
        cdef Connection* c = self._find(connection)
        cdef Grant* grant = NULL
        if not may_write or prefixes:
            grant = self._grant(may_write, prefixes)
            grant.connections += 1
        if c.grant != NULL:
            c.grant.connections -= 1
        c.grant = grant

    cdef Grant* _grant(self, bint may_write, tuple prefixes) except NULL:
        # The grant that says this: one that there is, or a new one; those that nobody has any more are freed.
        cdef bytes together = b"".join(prefixes)
        cdef Grant* grant = grants_sweep(&self._grants)
        cdef uint32_t i
        while grant != NULL:
            if grant.may_write == may_write and grant.count == <uint32_t>len(prefixes) and _are_those(grant, prefixes):
                return grant
            grant = grant.next
        grant = <Grant*>allocate(sizeof(Grant))
        memset(grant, 0, sizeof(Grant))
        grant.may_write = may_write
        grant.count = <uint32_t>len(prefixes)
        grant.lengths = <uint32_t*>allocate(grant.count * sizeof(uint32_t))
        grant.prefixes = <uint8_t*>allocate(len(together))
        for i in range(grant.count):
            grant.lengths[i] = <uint32_t>len(prefixes[i])
        memcpy(grant.prefixes, <const char*>together, len(together))
        grant.next = self._grants
        self._grants = grant
        return grant

    def taken(self, uint64_t connection) -> int:
        """How many requests were ever taken from a connection."""
        return self._find(connection).taken

    cdef inline uint64_t _id(self, Connection* c) noexcept:
        return <uint64_t>c.generation << 32 | c.index

    cdef Connection* _find(self, uint64_t connection) except NULL:
        cdef uint32_t index = <uint32_t>connection
        cdef Connection* c = NULL
        if index < self._connection_capacity:
            c = self._connections[index]
        if c == NULL or c.generation != connection >> 32:
            raise KeyError(connection)
        return c

    # ---- bytes in ---------------------------------------------------------------------------------------------------

    def feed(self, uint64_t connection, data, uint64_t now_ms, Py_ssize_t size=-1) -> None:
        """Take the first `size` bytes of `data` (all, when negative) that came from a connection.

        Every whole frame is parsed and queued; the rest is copied. Nothing of `data` is kept.

        Raises:
            KeyError: when the connection is not open.
        Cost: no system call; about 0.05 us a key.
        """
        cdef Connection* c = self._find(connection)
        cdef Py_buffer view
        cdef size_t n, used
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            n = view.len if size < 0 or size > view.len else size
            self._gather.now_ms = now_ms
            self._bytes_in += n
            share_begin(&self._share)
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
        if c.protocol == RESP:
            incoming_drop(&c.incoming, OVERLOADED)
            return self._parse_input(c)
        c.skip_bytes = 4 + load32(c.input.data + c.input.start) - n
        r.at = c.input.data + c.input.start + 4
        r.end = r.at + FRAME_HEAD_BYTES
        if read_frame_head(&r, &elements, &id):
            gather_fail(&self._gather, c, id, OVERLOADED)
        else:
            self._refuse(c, "a frame is not an array that begins with a request id", c.input.data + c.input.start, n)
        self._input_bytes -= n
        buffer_free(&c.input)
        return 0

    cdef Py_ssize_t _parse(self, Connection* c, const uint8_t* p, size_t n) except -1:
        # How many of the bytes were used up; stops before a frame that is not whole, or when paused.
        cdef size_t at = 0
        cdef size_t left
        cdef uint32_t length, elements
        cdef uint64_t id
        cdef Reader reader
        if c.protocol == RESP:
            return self._parse_resp(c, p, n)
        while at < n:
            left = n - at
            if c.skip_bytes:
                left = left if left < c.skip_bytes else c.skip_bytes
                c.skip_bytes -= left
                at += left
                continue
            if c.stage == CLOSING:
                return n
            if self._pauses(c):
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
                gather_fail(&self._gather, c, id, FRAME_TOO_LARGE)
                c.skip_bytes = length
                at += 4
                continue
            if left - 4 < length:
                break
            self._take(c, p + at + 4, length)
            at += 4 + <size_t>length
            if self._has_had_share(c, COST_OF_ANY, length):
                break
        return at

    cdef bint _pauses(self, Connection* c) noexcept:
        # Whether no more is taken from a connection now; `resume` will see to it.
        if gather_may_take(&self._gather, c, 1):
            return False
        if not c.is_paused:
            c.is_paused = True
            numbers_add(&self._paused, c.index)
        return True

    cdef bint _has_had_share(self, Connection* c, uint64_t cost, uint64_t n) noexcept:
        # Whether no more is taken from a connection in this turn; `go_on` will see to it. It was paused meanwhile, perhaps.
        if not share_is_over(&self._share, cost + n // COST_BYTES):
            return False
        if not c.is_paused:
            c.is_paused = c.is_spent = True
            numbers_add(&self._spent, c.index)
        return True

    cdef int _take(self, Connection* c, const uint8_t* p, uint32_t n) except -1:
        # One whole frame.
        cdef Frame frame
        cdef Request* r
        cdef uint32_t i
        if not read_frame(p, n, FRAME_KEYS_MAX, c.version, &frame):
            self._refuse(c, "a frame is not an array that begins with a request id", p, n)
            return 0
        if c.stage == NEW and (frame.op != OP_HELLO or frame.error):
            self._refuse(c, "the first frame is not a hello", p, n)
            return 0
        self._op_counts[frame.op if frame.op < OPS else OPS - 1] += 1
        if self.draining:
            frame.error = DRAINING
        if frame.error == 0 and is_rare(frame.op, c.version):
            return self._ask(c, &frame, n)
        if frame.error:
            gather_fail(&self._gather, c, frame.id, frame.error)
            return 0
        r = gather_begin(&self._gather, c, frame.id, <uint8_t>frame.op, frame.deadline_ms, n, is_batch(frame.op),
                         frame.keys)
        if frame.op == OP_ATOMIC:
            atomic_queue(&self._gather, r, &frame)
        else:
            r.flags = frame.call.flags
            for i in range(frame.keys):
                if r.is_batch:
                    read_bytes(&frame.arguments, &frame.call.key, &frame.call.key_length)
                    if frame.call.op == OP_SET:
                        read_bytes(&frame.arguments, &frame.call.value, &frame.call.value_length)
                if c.grant != NULL and not grant_allows(c.grant, r.is_write, frame.call.key, frame.call.key_length):
                    gather_refuse(&self._gather, r, i, NOT_PERMITTED)
                    continue
                gather_key(&self._gather, r, i, frame.keyspace, &frame.call)
        gather_end(&self._gather, r)
        return 0

    # ---- RESP -------------------------------------------------------------------------------------------------------

    cdef Py_ssize_t _parse_resp(self, Connection* c, const uint8_t* p, size_t n) except -1:
        # As `_parse`.
        cdef size_t at = 0
        cdef size_t used = 0
        cdef uint64_t before
        cdef int found
        while at < n:
            if c.stage == CLOSING:
                return n
            if self._pauses(c):
                break
            found = resp_read(&c.incoming, p + at, n - at, self._gather.value_bytes_max + ARGUMENT_OVERHEAD_BYTES,
                              self._frame_bytes_max, VALUE_TOO_LARGE, FRAME_TOO_LARGE, c.rights == 0, &used)
            if found == RESP_FAULT:
                self._part(c, c.incoming.fault, p + at, n - at)
                return n
            before = self._op_counts[OP_COMMAND]
            if found == RESP_WHOLE:
                self._take_command(c, p + at, used)
            elif found == RESP_LINE:
                self._take_line(c, p + at, used)
            elif found == RESP_DROPPED:
                gather_fail(&self._gather, c, 0, c.incoming.too_large)
                self.commands.refused(self._id(c))
            at += used
            if found == RESP_PARTIAL:
                break
            incoming_clear(&c.incoming)
            if self._has_had_share(c, COST_OF_ANY if self._op_counts[OP_COMMAND] == before else COST_OF_PYTHON, used):
                break
        return at

    cdef int _part(self, Connection* c, const char* fault, const uint8_t* p, size_t n) except -1:
        # A connection that does not speak RESP is told so, as RESP says it, and ends.
        cdef str reason = (<bytes>fault).decode()
        cdef bytes beginning = PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>(n if n < 32 else 32))
        self._events.append(Refused(self._id(c), f"this is not RESP: {reason}", beginning))
        cdef Request* r = gather_begin(&self._gather, c, 0, CODES, 0, 0, False, 0)
        c.stage = CLOSING
        self._answer(r, ENCODED, f"-ERR Protocol error: {reason}\r\n".encode())
        return 0

    cdef int _take_command(self, Connection* c, const uint8_t* p, size_t n) except -1:
        # One whole command: one of the common ones, or it goes through Python.
        cdef Fast f
        cdef uint32_t i, length
        cdef const uint8_t* data
        if not c.is_slow and not self.draining and fast_plan(&f, &c.incoming, p) and self._fits(c, &f, p):
            return self._queue(c, &f, p, n)
        arguments = []
        for i in range(c.incoming.count):
            data = argument(&c.incoming, p, i, &length)
            arguments.append(PyBytes_FromStringAndSize(<const char*>data, length))
        return self._command(c, arguments, n)

    cdef int _take_line(self, Connection* c, const uint8_t* p, size_t n) except -1:
        # An inline command.
        cdef bytes line = PyBytes_FromStringAndSize(<const char*>p, c.incoming.line)
        if line.endswith((b"HTTP/1.1", b"HTTP/1.0")):
            return self._part(c, b"this is HTTP", p, n)
        arguments = self.commands.split(line)
        if arguments is None:
            return self._part(c, b"unbalanced quotes in request", p, n)
        return self._command(c, arguments, n) if arguments else 0

    cdef bint _fits(self, Connection* c, Fast* f, const uint8_t* p) noexcept:
        # Whether a command on several keys that writes can surely be done as a whole: else Python looks, and says why not.
        cdef Call call = f.call
        cdef uint32_t i
        cdef size_t n = 0
        cdef Shard* shard
        if f.keys < 2 or not is_write(f.call.op):
            return True
        for i in range(f.keys):
            call.key = argument(&c.incoming, p, f.first + i * f.step, &call.key_length)
            if f.style == STYLE_ALL_OK:
                call.value = argument(&c.incoming, p, f.first + i * f.step + 1, &call.value_length)
            n += call.key_length + call.value_length + sizeof(Operation)
            if gather_fault(&self._gather, &call):
                return False
        for i in range(self._gather.shard_count):
            shard = &self._gather.shards[i]
            if not shard.is_up or shard.bytes + n > self._gather.shard_bytes_max:
                return False
            if shard.operations + f.keys > self._gather.shard_operations_max:
                return False
        return True

    cdef int _queue(self, Connection* c, Fast* f, const uint8_t* p, size_t n) except -1:
        # One of the common commands.
        cdef bint is_batch = f.keys > 1 or f.style == STYLE_ARRAY
        cdef Request* r
        cdef uint32_t i
        self._op_counts[f.call.op + (16 if is_batch else 0)] += 1
        r = gather_begin(&self._gather, c, 0, f.call.op, 0, <uint32_t>n, is_batch, f.keys)
        r.style = f.style
        r.flags = f.call.flags
        if f.style == STYLE_SUM and not is_batch:
            r.style = STYLE_BOOL
        elif f.style == STYLE_ALL_OK and not is_batch:
            r.style = STYLE_OK
        if f.keys == 0:
            r.status = VALUE
            if f.style == STYLE_ECHO:
                buffer_append(&r.payload, f.call.key, f.call.key_length)
                c.held_bytes += f.call.key_length
        for i in range(f.keys):
            f.call.key = argument(&c.incoming, p, f.first + i * f.step, &f.call.key_length)
            if f.style == STYLE_ALL_OK:
                f.call.value = argument(&c.incoming, p, f.first + i * f.step + 1, &f.call.value_length)
            gather_key(&self._gather, r, i, c.keyspace, &f.call)
        gather_end(&self._gather, r)
        return 0

    cdef int _command(self, Connection* c, list arguments, size_t n) except -1:
        # A command that Python answers, at once or later; `commands` may call what it likes of this class but `feed`,
        # `close`, `resume` and `go_on`.
        cdef Request* r
        self._op_counts[OP_COMMAND] += 1
        r = gather_begin(&self._gather, c, 0, OP_COMMAND, 0, <uint32_t>n, False, 0)
        gather_expect_reply(&self._gather, r)
        handle_new(&self._gather.handles, r)
        self.commands.command(r.handle, self._id(c), arguments)
        return 0

    def run(self, uint64_t handle, list operations, uint8_t keyspace, bint is_express=False, uint32_t limit_ms=0) -> None:
        """Queue operations for a command, all at this point of the order; the results come as one `Gathered`.

        Args:
            operations: (op, key, flags, value, shard, keyspace) each, as kio.commands.ops.Operation; what is for all
                shards stands there once for each.
            is_express: the shards are held, by this command.
            limit_ms: after so long what was not answered fails with Timeout; 0 is never.
        Raises:
            IndexError: when a shard does not exist.
        """
        cdef uint32_t i = 0
        cdef Request* r
        cdef Call call
        cdef bytes key, value
        cdef int shard
        if handle_find(&self._gather.handles, handle) == NULL:
            return
        for operation in operations:
            if operation[4] >= <int>self._gather.shard_count:
                raise IndexError(f"an operation for shard {operation[4]}, of {self._gather.shard_count}")
        r = request_new(OP_COMMAND, True, <uint32_t>len(operations))
        r.is_fan_out = True
        r.is_express = is_express
        r.handle = handle
        r.turn = self._gather.turn
        r.pending = 1
        gather_set_deadline(&self._gather, r, self._gather.now_ms + limit_ms if limit_ms else 0)
        for op, key, flags, value, shard, other in operations:
            read_operation(op, key, flags, value, &call)
            r.results[i].op = call.op
            r.results[i].flags = call.flags
            r.is_write |= is_write(call.op) or call.op >= OP_ATOMIC
            if shard < 0:
                gather_key(&self._gather, r, i, keyspace if other is None else other, &call)
            else:
                gather_add(&self._gather, r, i, shard, keyspace if other is None else other, 0, &call)
            i += 1
        gather_end(&self._gather, r)

    def begin(self) -> int:
        """A handle that is nobody's request, for operations that are to be done whatever becomes of who asked."""
        cdef Request* r = request_new(OP_COMMAND, False, 0)
        r.pending = 1
        handle_new(&self._gather.handles, r)
        return r.handle

    def end(self, uint64_t handle) -> None:
        """Give back what `begin` gave."""
        cdef Request* r = handle_find(&self._gather.handles, handle)
        if r != NULL:
            handle_take(&self._gather.handles, r)
            gather_let_go(r)

    def map_keyspaces(self, bytes places not None) -> None:
        """From here on the keyspace that clients call n is the one that records call `places[n]`.

        What was queued before keeps its place and its keyspace. Whoever changes this while a command holds shards has
        it go on in other keyspaces than it began in (kio.frontdoor.resp.keyspaces).

        Raises:
            ValueError: when it is not each of the 256 keyspaces once.
        """
        if sorted(places) != list(range(256)):
            raise ValueError("a map of keyspaces has each of the 256 once")
        memcpy(self._gather.keyspaces.places, <const char*>places, 256)

    def stored_keyspace(self, uint8_t keyspace) -> int:
        """What records call the keyspace that clients call so."""
        return keyspace_stored(&self._gather.keyspaces, keyspace)

    def shard_of(self, bytes key not None, uint8_t keyspace) -> int:
        """The shard that a key is of, in a keyspace that clients call so."""
        return shard_of(self.hash_of(key, keyspace), self._gather.shard_count)

    def hash_of(self, bytes key not None, uint8_t keyspace) -> int:
        """The routed hash of a key, in a keyspace that clients call so."""
        return keyspace_hash(&self._gather.keyspaces, <const uint8_t*><const char*>key, <uint32_t>len(key),
                             self._gather.seed, keyspace)

    def hold(self, shards) -> None:
        """From now on only express operations reach these shards, behind what was queued before."""
        for number in shards:
            self._check(number)
            gather_hold(&self._gather, number)

    def release(self, shards) -> None:
        """The contrary of `hold`."""
        for number in shards:
            self._check(number)
            gather_release(&self._gather, number)

    def refusal(self, list operations, uint8_t keyspace, bint is_each=False) -> int:
        """Why some of these operations, and not the others, would be refused if all were run now: an error's code, or 0.

        Args:
            operations: as those of `run`; what is for all shards stands there once.
            is_each: those whose key or value is beyond a limit are to be answered so, each for itself.
        """
        cdef size_t* counts = <size_t*>allocate(2 * self._gather.shard_count * sizeof(size_t))
        memset(counts, 0, 2 * self._gather.shard_count * sizeof(size_t))
        try:
            return self._refusal(operations, keyspace, is_each, counts, counts + self._gather.shard_count)
        finally:
            release(counts)

    cdef int _refusal(self, list operations, uint8_t keyspace, bint is_each, size_t* counts, size_t* sizes) except -1:
        # What each shard would have more: operations, bytes.
        cdef Gather* g = &self._gather
        cdef Call call
        cdef Shard* shard
        cdef bytes key, value
        cdef int of
        cdef uint8_t fault
        cdef uint32_t number, first, last
        cdef size_t n
        for op, key, flags, value, of, other in operations:
            read_operation(op, key, flags, value, &call)
            if of < -1:
                first, last = 0, g.shard_count
            else:
                if of < 0:
                    fault = gather_fault(g, &call)
                    if fault and not is_each:
                        return fault
                    if fault:
                        continue
                    of = self.shard_of(key, keyspace if other is None else other)
                self._check(of)
                first, last = of, of + 1
            n = sizeof(Operation) + call.key_length + call.argument_bytes + call.value_length
            for number in range(first, last):
                shard = &g.shards[number]
                if not shard.is_up:
                    return SHARD_DOWN
                if shard.operations + counts[number] and (
                    shard.operations + counts[number] >= g.shard_operations_max
                    or shard.bytes + sizes[number] + n > g.shard_bytes_max
                ):
                    return OVERLOADED
                counts[number] += 1
                sizes[number] += n
        return 0

    def tune(self, uint64_t connection, *, keyspace=None, version=None, slow=None, waiting=None, silent=None,
             skips_reply=None, rights=None) -> None:
        """What a command has changed of its RESP connection.

        Args:
            slow: every command of it goes through Python.
            waiting: no more is taken from it, until this is said to be over.
            silent, skips_reply: it wants no replies; none to its next command.
            rights: 0: it is a stranger, and long commands of it are refused.
        Raises:
            KeyError: when the connection is not open.
        """
        cdef Connection* c = self._find(connection)
        if keyspace is not None:
            c.keyspace = keyspace
        if version is not None:
            c.version = version
        if slow is not None:
            c.is_slow = slow
        if waiting is not None:
            c.is_waiting = waiting
        if silent is not None:
            c.is_silent = silent
        if skips_reply is not None:
            c.skips_reply = skips_reply
        if rights is not None:
            c.rights = rights

    def mute(self, uint64_t connection, bint is_silent) -> None:
        """Whether the command that came last on a connection is to be answered with nothing at all."""
        cdef Connection* c = self._find(connection)
        if c.tail != NULL and c.head != NULL:
            c.tail.is_silent = is_silent

    def finish(self, uint64_t connection) -> None:
        """Take nothing more from a connection; it is to be closed when all is said."""
        self._find(connection).stage = CLOSING

    cdef int _refuse(self, Connection* c, str reason, const uint8_t* p, size_t n) except -1:
        cdef Request* r
        cdef bytes text = reason.encode()
        cdef bytes beginning = PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>(n if n < 32 else 32))
        self._events.append(Refused(self._id(c), reason, beginning))
        r = gather_begin(&self._gather, c, 0, CODES, 0, 0, False, 0)
        c.stage = CLOSING
        self._answer(r, PROTOCOL_ERROR, text)
        return 0

    cdef void _answer(self, Request* r, uint8_t status, bytes payload) noexcept:
        # The end of a request whose outcome Python has made.
        r.status = status
        buffer_append(&r.payload, <const char*>payload, len(payload))
        r.connection.held_bytes += len(payload)
        gather_end(&self._gather, r)

    # ---- rare operations --------------------------------------------------------------------------------------------

    cdef int _ask(self, Connection* c, Frame* frame, uint32_t n) except -1:
        # A rare operation becomes an event; it is pending until Python answers.
        cdef Request* r
        cdef tuple arguments = read_rare_arguments(frame) if n <= RARE_BYTES_MAX else None
        if arguments is None and c.stage == NEW:
            return self._refuse(c, "the first frame is not a hello", frame.arguments.at, 0)
        if arguments is None or (frame.op == OP_HELLO and c.stage != NEW):
            gather_fail(&self._gather, c, frame.id, BAD_REQUEST)
            return 0
        r = gather_begin(&self._gather, c, frame.id, <uint8_t>frame.op, frame.deadline_ms, n, False, 0)
        handle_new(&self._gather.handles, r)
        if frame.op == OP_HELLO:
            c.stage = GREETING
        self._events.append(Asked(r.handle, self._id(c), frame.op, arguments))
        return 0

    def answer(self, uint64_t handle, bytes result) -> None:
        """Answer a rare operation with `result`, one msgpack value. Nothing happens when it was dropped meanwhile."""
        cdef Request* r = handle_find(&self._gather.handles, handle)
        if r == NULL:
            return
        handle_take(&self._gather.handles, r)
        if r.connection.protocol == RESP and gather_is_too_much(&self._gather, r.connection, <uint32_t>len(result)):
            self._answer(r, REPLY_TOO_LARGE | (MAYBE_APPLIED if r.is_write else 0), b"")
            return
        self._answer(r, ENCODED, result)

    def greet(self, uint64_t handle, bytes result, uint8_t version) -> None:
        """Answer a hello with `result`, one msgpack value; its connection's requests are of protocol `version` then."""
        cdef Request* r = handle_find(&self._gather.handles, handle)
        if r != NULL:
            r.connection.stage = READY
            r.connection.version = version
        self.answer(handle, result)

    def tell_errors(self, list texts) -> None:
        """How RESP tells errors: (code, prefix, text, is_fixed) of each."""
        self._texts = texts
        for code, prefix, text, is_fixed in texts:
            self._gather.error_texts[<int>code].prefix = <const char*>(<bytes>prefix)
            self._gather.error_texts[<int>code].text = <const char*>(<bytes>text)
            self._gather.error_texts[<int>code].is_fixed = is_fixed

    def fail(self, uint64_t handle, uint8_t code, str message="", bint maybe_applied=False) -> None:
        """Answer a rare operation with an error; an empty `message` stands for the error's own text.

        The refusal of a hello closes its connection once it is flushed.
        """
        cdef Request* r = handle_find(&self._gather.handles, handle)
        cdef bytes text = message.encode()
        if r == NULL:
            return
        handle_take(&self._gather.handles, r)
        if r.op == OP_HELLO:
            r.connection.stage = CLOSING
        self._answer(r, code | (MAYBE_APPLIED if maybe_applied else 0), text)

    def fan_out(
        self, uint64_t handle, uint8_t op, list shards, bytes value=b"", uint8_t keyspace=0, uint32_t limit_ms=0
    ) -> None:
        """Send one operation without a key to each of `shards` for a rare request; the replies come as one `Gathered`.

        Args:
            limit_ms: after this long the shards that have not answered are reported as Timeout; 0 waits as long as the
                request does.
        Raises:
            IndexError: when a shard does not exist.
        """
        cdef uint32_t i
        cdef uint64_t deadline
        cdef Request* r
        cdef Call call
        cdef Request* asked = handle_find(&self._gather.handles, handle)
        if not shards or not all(0 <= shard < self._gather.shard_count for shard in shards):
            raise IndexError(f"a fan-out to shards {shards}, of {self._gather.shard_count}")
        if asked == NULL:
            return
        deadline = asked.deadline
        if limit_ms and (deadline == 0 or self._gather.now_ms + limit_ms < deadline):
            deadline = self._gather.now_ms + limit_ms
        r = request_new(op, True, <uint32_t>len(shards))
        r.is_fan_out = True
        r.handle = handle
        r.turn = self._gather.turn
        r.is_write = is_write(op)
        r.pending = 1
        gather_set_deadline(&self._gather, r, deadline)
        memset(&call, 0, sizeof(Call))
        call.op = op
        call.value = <const uint8_t*><const char*>value
        call.value_length = <uint32_t>len(value)
        for i in range(r.count):
            r.results[i].op = op
            gather_add(&self._gather, r, i, shards[i], keyspace, 0, &call)
        gather_end(&self._gather, r)

    def take_events(self) -> list:
        """The events since the last call (events.py). What is about one request comes in its order."""
        cdef list events = self._events
        cdef Request* r
        cdef size_t i
        if self._gather.gathered != NULL:
            while True:
                r = gather_pop_gathered(&self._gather)
                if r == NULL:
                    break
                events.append(Gathered(r.handle, _replies_of(r)))
                gather_let_go(r)
        for i in range(self._gather.handles.dropped.count):
            events.append(Dropped(self._gather.handles.dropped.data[i]))
        self._gather.handles.dropped.count = 0
        if events:
            self._events = []
        return events

    @property
    def has_news(self) -> bool:
        """Whether `take_events`, `take_batches` or `outputs` has something to give."""
        cdef uint32_t number
        cdef Shard* shard
        if self._events or self._gather.gathered != NULL or self._gather.handles.dropped.count:
            return True
        if self._gather.dirty.count:
            return True
        for number in range(self._gather.shard_count):
            shard = &self._gather.shards[number]
            if shard.express != NULL or shard.ready.count or (shard.building != NULL and not shard.is_held):
                return True
        return False

    # ---- shards -----------------------------------------------------------------------------------------------------

    def take_batches(self) -> list:
        """(shard, batch message) for all that was queued since the last call; from here on it counts as sent."""
        cdef uint32_t number
        cdef size_t i
        cdef Shard* shard
        cdef Batch* batch
        cdef list batches = []
        for number in range(self._gather.shard_count):
            shard = &self._gather.shards[number]
            gather_seal(&self._gather, number)
            for i in range(shard.ready.count):
                batch = batch_find(shard, shard.ready.data[i])
                batches.append((number, PyBytes_FromStringAndSize(
                    <const char*>batch.message.data + batch.message.start, buffer_length(&batch.message))))
                batch_taken(shard, batch)
            shard.ready.count = 0
        if batches:
            self._gather.turn += 1
        return batches

    def deliver(self, message) -> None:
        """Take one replies message of a worker. Replies to what nobody waits for any more are dropped.

        Raises:
            ProtocolError: when the message is malformed; the entries that made sense were taken.
        Cost: no system call; about 0.05 us an entry, and a copy of its payload.
        """
        cdef Py_buffer view
        cdef const char* fault
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            fault = gather_deliver(&self._gather, <const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if fault != NULL:
            raise ProtocolError(f"op replies {fault.decode()}")

    def fail_shard(self, uint32_t number) -> None:
        """The worker of a shard is away: what it was to answer, and what comes until `shard_up`, is answered ShardDown.

        A write that was taken by `take_batches` may have been applied, and is answered so.
        """
        self._check(number)
        gather_fail_shard(&self._gather, number)

    def shard_up(self, uint32_t number) -> None:
        """Operations of this shard are queued again."""
        self._check(number)
        self._gather.shards[number].is_up = True

    def shard_in_flight(self, uint32_t number) -> tuple:
        """(operations, bytes) that are queued or sent and not answered."""
        self._check(number)
        return self._gather.shards[number].operations, self._gather.shards[number].bytes

    cdef int _check(self, uint32_t number) except -1:
        if number >= self._gather.shard_count:
            raise IndexError(f"shard {number} of {self._gather.shard_count}")
        return 0

    @property
    def requests(self) -> int:
        """Requests that are not answered yet, or whose reply waits for an earlier one of its connection."""
        return self._gather.requests

    # ---- time -------------------------------------------------------------------------------------------------------

    @property
    def has_deadlines(self) -> bool:
        """Whether anything waits that `expire` could end."""
        return self._gather.wheel.requests > 0

    def expire(self, uint64_t now_ms) -> None:
        """Answer Timeout to what is past its deadline; call it every 50 ms or so while `has_deadlines`.

        A write whose operations were sent may have been applied, and is answered so.
        """
        self._gather.now_ms = now_ms
        gather_expire(&self._gather)

    def resume(self, uint64_t now_ms) -> list:
        """Parse what waits on the paused connections that are within their bounds again; they are to be read again.

        Returns: the ids of the connections that are not paused any more.
        """
        cdef Numbers paused = self._paused
        cdef Connection* c
        cdef size_t i
        cdef list resumed = []
        if paused.count == 0:
            return resumed
        self._gather.now_ms = now_ms
        memset(&self._paused, 0, sizeof(Numbers))
        for i in range(paused.count):
            c = self._connections[paused.data[i]]
            if c == NULL or not c.is_paused:
                continue
            if not gather_may_take(&self._gather, c, 2):
                numbers_add(&self._paused, c.index)
                continue
            c.is_paused = False
            share_begin(&self._share)
            self._parse_input(c)
            if not c.is_paused:
                resumed.append(self._id(c))
        numbers_free(&paused)
        return resumed

    @property
    def has_more(self) -> bool:
        """Whether `go_on` has something to do: the next turn should not wait."""
        return self._spent.count > 0

    def go_on(self, uint64_t now_ms) -> list:
        """Parse on what waits on the connections that had their share of an earlier turn; call it once a turn.

        Together they get one share, or a little more: whoever does not get his turn is the first of the next one.

        Returns: the ids of the connections that are not paused any more: they are to be read again.
        """
        cdef Connection* c
        cdef size_t i = 0, count = self._spent.count
        cdef uint64_t end_ns = clock_ns() + self._share.length_ns
        cdef list resumed = []
        self._gather.now_ms = now_ms
        while i < count and (i == 0 or clock_ns() < end_ns):
            c = self._connections[self._spent.data[i]]
            i += 1
            if c == NULL or not c.is_spent:
                continue
            c.is_spent = c.is_paused = False
            share_begin(&self._share)
            self._parse_input(c)
            if not c.is_paused:
                resumed.append(self._id(c))
        self._spent.count -= i
        memmove(self._spent.data, self._spent.data + i, self._spent.count * sizeof(uint64_t))
        return resumed

    # ---- bytes out --------------------------------------------------------------------------------------------------

    def outputs(self) -> list:
        """The connections that got output since the last call."""
        cdef list ids = []
        cdef Connection* c
        cdef size_t i
        for i in range(self._gather.dirty.count):
            c = self._connections[self._gather.dirty.data[i]]
            if c != NULL and c.is_dirty:
                c.is_dirty = False
                ids.append(self._id(c))
        self._gather.dirty.count = 0
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
        gather_account(&self._gather, c)
        return buffer_length(&c.output)

    def is_paused(self, uint64_t connection) -> bool:
        """Whether the connection is beyond a soft bound and must not be read until `resume` names it."""
        return self._find(connection).is_paused

    def is_finished(self, uint64_t connection) -> bool:
        """Whether all is said on a connection that was refused: it is to be closed."""
        cdef Connection* c = self._find(connection)
        return c.stage == CLOSING and c.head == NULL and buffer_length(&c.output) == 0

    def is_greeted(self, uint64_t connection) -> bool:
        """Whether the connection's hello was answered, or will never be since it was refused."""
        cdef Connection* c = self._find(connection)
        return c.stage == READY or c.stage == CLOSING

    def has_half_frame(self, uint64_t connection) -> bool:
        """Whether the connection owes the rest of a frame."""
        cdef Connection* c = self._find(connection)
        return c.skip_bytes > 0 or c.incoming.too_large or (buffer_length(&c.input) > 0 and not c.is_paused)

    def in_flight(self, uint64_t connection) -> tuple:
        """(requests, bytes of their frames) of a connection that are not answered."""
        cdef Connection* c = self._find(connection)
        return c.requests, c.request_bytes

    def counters(self) -> dict:
        """What happened since the start: requests by operation (`per_op`), errors by code, bytes, late replies.

        Operations that nobody knows are counted together as 63.
        """
        cdef uint32_t i
        return {
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "late_replies": self._gather.late,
            "errors": {i: self._gather.errors[i] for i in range(CODES) if self._gather.errors[i]},
            "per_op": {i: self._op_counts[i] for i in range(OPS) if self._op_counts[i]},
        }


cdef int read_operation(int op, bytes key, int flags, bytes value, Call* call) except -1:
    # An operation as Python has it (kio.commands.ops): the arguments of its flags stand before its value.
    cdef uint32_t n = 0
    memset(call, 0, sizeof(Call))
    call.op = <uint8_t>op
    call.flags = <uint8_t>flags
    call.key = <const uint8_t*><const char*>key
    call.key_length = <uint32_t>len(key)
    call.value = <const uint8_t*><const char*>value
    call.value_length = <uint32_t>len(value)
    if op <= OP_TTL:
        n = (8 if flags & (TTL | EXPIRE_AT) else 0) + (12 if flags & IF_VERSION else 0)
    if n > call.value_length:
        raise ValueError(f"operation {op} has flags {flags} and {call.value_length} bytes behind them")
    call_add_argument(call, call.value, <uint8_t>n)
    call.value += n
    call.value_length -= n
    return 0


cdef bint _are_those(Grant* grant, tuple prefixes) except -1:
    cdef size_t at = 0
    cdef uint32_t i
    for i in range(grant.count):
        if PyBytes_FromStringAndSize(<const char*>grant.prefixes + at, grant.lengths[i]) != prefixes[i]:
            return False
        at += grant.lengths[i]
    return True


cdef list _replies_of(Request* r):
    # (status, payload) of each shard of a fan-out.
    cdef uint32_t i
    cdef const char* payloads = <const char*>r.payload.data + r.payload.start
    return [
        (r.results[i].status, PyBytes_FromStringAndSize(payloads + r.results[i].offset, r.results[i].length))
        for i in range(r.count)
    ]


assert KEY_BYTES_MAX == limits.KEY_BYTES_MAX
assert (errors.KeyEmpty.code, errors.KeyTooLarge.code) == (KEY_EMPTY, KEY_TOO_LARGE)
assert (errors.ValueTooLarge.code, errors.FrameTooLarge.code) == (VALUE_TOO_LARGE, FRAME_TOO_LARGE)
assert (errors.BadRequest.code, errors.NotPermitted.code) == (BAD_REQUEST, NOT_PERMITTED)
assert (errors.UnknownOperation.code, errors.ShardDown.code) == (UNKNOWN_OPERATION, SHARD_DOWN)
assert (errors.Overloaded.code, errors.Draining.code, errors.Timeout.code) == (OVERLOADED, DRAINING, TIMEOUT)
assert (errors.ReplyTooLarge.code, errors.ProtocolError.code) == (REPLY_TOO_LARGE, PROTOCOL_ERROR)
assert (errors.InternalError.code, errors.Aborted.code) == (INTERNAL_ERROR, ABORTED)
assert (limits.ATOMIC_OPERATIONS_MAX, limits.ATOMIC_BYTES_MAX) == (ATOMIC_OPERATIONS_MAX, ATOMIC_BYTES_MAX)
assert limits.TTL_MS_MAX == (<object>1) << TTL_MS_BITS
assert limits.EXPIRE_AT_MS_MAX == ((<object>1) << EXPIRE_AT_MS_BITS) - 1
