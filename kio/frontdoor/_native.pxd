# The native protocol (wire.py is its description): from a frame's bytes to a checked `Frame`, from an answered request
# to the bytes of its reply. Knows neither connections nor shards; another protocol stands beside this file with the
# same two halves.
#
# Invariants:
#   * `read_frame` looks at every element of a batch before its first key is used, so a malformed batch does nothing;
#   * nothing is allocated here for what a frame announces.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kio._opbatch cimport ABSENT, DONE, ERROR, MAYBE_APPLIED, OP_DELETE, OP_EXISTS, OP_GET, OP_SET, VALUE
from kio.frontdoor._buffer cimport Buffer, buffer_append, buffer_reserve
from kio.frontdoor._msgpack cimport (
    Reader, is_utf8, put_array, put_bin, put_bool, put_nil, put_str, put_uint, read_array, read_bytes, read_uint,
    store32,
)
from kio.frontdoor._request cimport ENCODED, Request, Result

cdef enum:
    # wire.py
    OP_HELLO = 0
    OP_MANY = 16
    OP_COUNT = 32
    OP_CLEAR = 33
    OP_SCAN = 34
    OP_STATS = 35
    OP_PING = 36
    STATUS_OK = 0
    STATUS_PARTIAL = 1
    # errors.py
    KEY_EMPTY = 16
    KEY_TOO_LARGE = 17
    VALUE_TOO_LARGE = 18
    FRAME_TOO_LARGE = 19
    BAD_REQUEST = 20
    UNKNOWN_OPERATION = 21
    SHARD_DOWN = 32
    OVERLOADED = 33
    DRAINING = 34
    REPLY_TOO_LARGE = 35
    TIMEOUT = 36
    PROTOCOL_ERROR = 64
    INTERNAL_ERROR = 66
    #: Codes are 7 bits, the eighth is MAYBE_APPLIED.
    CODES = 128

    #: An array head and a request id are at most this long.
    FRAME_HEAD_BYTES = 14
    #: Past this many milliseconds a deadline is taken as this: a batch's deadline is 32 bits that wrap around.
    DEADLINE_MS_MAX = 1 << 30

cdef struct Frame:
    uint64_t id
    uint64_t op
    uint32_t deadline_ms    # 0 is none
    uint32_t keys           # how many stand in `arguments`
    uint32_t elements       # of a rare operation: how many arguments stand in `arguments`
    uint8_t keyspace
    uint8_t error           # the code to answer with, 0 when the frame is good
    Reader arguments        # at the first key, or at the first argument of a rare operation

cdef struct Text:
    const uint8_t* data
    uint32_t length


cdef inline bint is_batch(uint64_t op) noexcept nogil:
    return OP_MANY + OP_GET <= op <= OP_MANY + OP_EXISTS


cdef inline bint is_single(uint64_t op) noexcept nogil:
    return OP_GET <= op <= OP_EXISTS


cdef inline bint is_rare(uint64_t op) noexcept nogil:
    return op == OP_HELLO or OP_COUNT <= op <= OP_PING


cdef inline bint is_write(uint64_t op) noexcept nogil:
    return (op & ~<uint64_t>OP_MANY) == OP_SET or (op & ~<uint64_t>OP_MANY) == OP_DELETE or op == OP_CLEAR


cdef inline bint read_frame_head(Reader* r, uint32_t* elements, uint64_t* id) noexcept nogil:
    return read_array(r, elements) and elements[0] > 0 and read_uint(r, id)


cdef inline bint read_frame(const uint8_t* p, size_t n, uint32_t keys_max, Frame* frame) noexcept nogil:
    # False when it is not this protocol at all: there is no request id to answer to.
    cdef Reader r
    cdef Reader ahead
    cdef const uint8_t* data
    cdef uint64_t number
    cdef uint32_t elements, length, i
    cdef uint32_t strings = 0
    r.at = p
    r.end = p + n
    if not read_frame_head(&r, &elements, &frame.id):
        return False
    frame.error = BAD_REQUEST
    frame.keys = 0
    frame.deadline_ms = 0
    frame.op = CODES
    if frame.id >> 63 or elements < 3 or not read_uint(&r, &frame.op) or not read_uint(&r, &number):
        return True
    frame.deadline_ms = <uint32_t>(number if number < DEADLINE_MS_MAX else DEADLINE_MS_MAX)
    if is_rare(frame.op):
        frame.elements = elements - 3
        frame.arguments = r
        frame.error = 0
        return True
    if is_single(frame.op):
        strings = 2 if frame.op == OP_SET else 1
        frame.keys = 1
        if elements != 4 + strings:
            return True
    elif is_batch(frame.op):
        if elements != 5:
            return True
    else:
        frame.error = UNKNOWN_OPERATION
        return True
    if not read_uint(&r, &number) or number > 255:
        return True
    frame.keyspace = <uint8_t>number
    if is_batch(frame.op):
        if not read_array(&r, &strings):
            return True
        frame.keys = strings
        if frame.op == OP_MANY + OP_SET:
            if strings & 1:
                return True
            frame.keys = strings >> 1
        if frame.keys > keys_max:
            return True
    frame.arguments = r
    ahead = r
    for i in range(strings):
        if not read_bytes(&ahead, &data, &length):
            return True
    if ahead.at == ahead.end:
        frame.error = 0
    return True


cdef inline tuple read_rare_arguments(Frame* frame):
    # The arguments of a rare operation as events.Asked has them, None when they are not those.
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


cdef inline void put_error(Buffer* out, uint8_t status, const uint8_t* message, uint32_t length, const Text* texts,
                           uint64_t* errors) noexcept nogil:
    # code, message, maybe_applied
    cdef uint8_t code = status & <uint8_t>~MAYBE_APPLIED
    errors[code] += 1
    put_uint(out, code)
    if length and is_utf8(message, length):
        put_str(out, message, length)
    else:
        put_str(out, texts[code].data, texts[code].length)
    put_bool(out, status & MAYBE_APPLIED)


cdef inline void put_result(Buffer* out, uint8_t op, uint8_t status, const uint8_t* payload,
                            uint32_t length) noexcept nogil:
    if status == VALUE:
        put_bin(out, payload, length)
    elif status == DONE:
        put_bool(out, True)
    elif status == ABSENT and op != OP_GET and op != OP_MANY + OP_GET:
        put_bool(out, False)
    elif status == ENCODED:
        buffer_append(out, payload, length)
    else:
        put_nil(out)


cdef inline void put_reply(Buffer* out, Request* r, const uint8_t* payload, uint32_t length, const Text* texts,
                           uint64_t* errors) noexcept nogil:
    # `payload` is that of a request with one operation; a batch has its own in `r.payload`.
    cdef size_t begin
    cdef uint32_t i
    cdef Result* result
    cdef const uint8_t* payloads = r.payload.data + r.payload.start
    buffer_reserve(out, 4 + length)
    begin = out.end - out.start
    out.end += 4
    if not r.is_batch:
        if r.status < ERROR:
            put_array(out, 3)
            put_uint(out, r.id)
            put_uint(out, STATUS_OK)
            put_result(out, r.op, r.status, payload, length)
        else:
            put_array(out, 4)
            put_uint(out, r.id)
            put_error(out, r.status, payload, length, texts, errors)
    else:
        buffer_reserve(out, 32 + r.payload.end - r.payload.start + <size_t>r.count * 5)
        put_array(out, 4 if r.failed else 3)
        put_uint(out, r.id)
        put_uint(out, STATUS_PARTIAL if r.failed else STATUS_OK)
        put_array(out, r.count)
        for i in range(r.count):
            result = &r.results[i]
            put_result(out, r.op, result.status, payloads + result.offset, result.length)
        if r.failed:
            put_array(out, r.failed)
            for i in range(r.count):
                result = &r.results[i]
                if result.status >= ERROR:
                    put_array(out, 4)
                    put_uint(out, i)
                    put_error(out, result.status, payloads + result.offset, result.length, texts, errors)
    store32(out.data + out.start + begin, <uint32_t>(out.end - out.start - begin - 4))
