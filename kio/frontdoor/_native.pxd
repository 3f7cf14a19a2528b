# The native protocol (wire.py is its description): from a frame's bytes to a checked `Frame`, from an answered request
# to the bytes of its reply. Knows neither connections nor shards; another protocol stands beside this file with the
# same two halves. Of the protocol's versions it is told one, and takes the requests of that one only.
#
# Invariants:
#   * `read_frame` looks at every element of a batch before its first key is used, so a malformed batch does nothing;
#   * nothing is allocated here for what a frame announces.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kio._opbatch cimport (
    ABSENT, DONE, ERROR, MAYBE_APPLIED, NUMBER, OP_ATOMIC, OP_DELETE, OP_EXISTS, OP_GET, OP_SET, OP_TTL, UNMET, VALUE,
    VERSIONED, WITH_OLD, Versioned,
)
from kio.frontdoor._buffer cimport Buffer, buffer_append, buffer_reserve
from kio.frontdoor._call cimport Call, read_call, read_options
from kio.frontdoor._msgpack cimport (
    Reader, is_utf8, put_array, put_bin, put_bool, put_int, put_nil, put_str, put_str_head, put_uint, read_array,
    read_bytes, read_uint, store32,
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
    OP_SEAL = 38
    OP_COMPACT = 39
    STATUS_OK = 0
    STATUS_PARTIAL = 1
    STATUS_UNMET = 2
    # errors.py
    KEY_EMPTY = 16
    KEY_TOO_LARGE = 17
    VALUE_TOO_LARGE = 18
    FRAME_TOO_LARGE = 19
    BAD_REQUEST = 20
    UNKNOWN_OPERATION = 21
    ABORTED = 24
    NOT_PERMITTED = 26
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
    #: Of an atomic, and of its frame.
    ATOMIC_OPERATIONS_MAX = 1024
    ATOMIC_BYTES_MAX = 8 << 20

cdef struct Frame:
    uint64_t id
    uint64_t op
    uint32_t deadline_ms    # 0 is none
    uint32_t keys           # how many stand in `arguments`, or operations of an atomic
    uint32_t elements       # of a rare operation: how many arguments stand in `arguments`
    uint8_t keyspace
    uint8_t error           # the code to answer with, 0 when the frame is good
    Reader arguments        # at the first key, operation of an atomic, or argument of a rare operation
    Call call               # a single operation; of a batch what its keys have in common

cdef struct Text:
    const uint8_t* data
    uint32_t length


cdef inline bint is_batch(uint64_t op) noexcept nogil:
    return OP_MANY + OP_GET <= op <= OP_MANY + OP_EXISTS


cdef inline bint is_single(uint64_t op, uint8_t version) noexcept nogil:
    return OP_GET <= op <= (OP_TTL if version >= 2 else OP_EXISTS)


cdef inline bint is_rare(uint64_t op, uint8_t version) noexcept nogil:
    return op == OP_HELLO or OP_COUNT <= op <= OP_PING or (OP_SEAL <= op <= OP_COMPACT and version >= 2)


cdef inline bint is_write(uint64_t op) noexcept nogil:
    op = op if op == OP_CLEAR else op & ~<uint64_t>OP_MANY
    return op == OP_CLEAR or (OP_SET <= op < OP_TTL and op != OP_EXISTS)


cdef inline bint read_frame_head(Reader* r, uint32_t* elements, uint64_t* id) noexcept nogil:
    return read_array(r, elements) and elements[0] > 0 and read_uint(r, id)


cdef inline bint read_frame(const uint8_t* p, size_t n, uint32_t keys_max, uint8_t version,
                            Frame* frame) noexcept nogil:
    # False when it is not this protocol at all: there is no request id to answer to.
    cdef Reader r
    cdef uint64_t number
    cdef uint32_t elements
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
    elements -= 3
    if is_rare(frame.op, version):
        frame.elements = elements
        frame.arguments = r
        frame.error = 0
        return True
    if not is_single(frame.op, version) and not is_batch(frame.op) and (frame.op != OP_ATOMIC or version < 2):
        frame.error = UNKNOWN_OPERATION
        return True
    if elements < 2 or not read_uint(&r, &number) or number > 255:
        return True
    frame.keyspace = <uint8_t>number
    elements -= 1
    if is_batch(frame.op):
        if read_batch(&r, elements, keys_max, version, frame) and r.at == r.end:
            frame.error = 0
    elif frame.op == OP_ATOMIC:
        if n > ATOMIC_BYTES_MAX:
            frame.error = FRAME_TOO_LARGE
        elif elements == 1 and read_atomic(&r, frame) and r.at == r.end:
            frame.error = 0
    else:
        frame.keys = 1
        if read_call(&r, elements, <uint8_t>frame.op, version >= 2, &frame.call) and r.at == r.end:
            frame.error = 0
    return True


cdef inline bint read_batch(Reader* r, uint32_t elements, uint32_t keys_max, uint8_t version,
                            Frame* frame) noexcept nogil:
    # The keys of a batch, which are looked at here and read again when they are used, and its options.
    cdef const uint8_t* data
    cdef uint32_t strings, length, i
    if elements != 1 and version < 2 or not read_array(r, &strings):
        return False
    frame.keys = strings
    if frame.op == OP_MANY + OP_SET:
        if strings & 1:
            return False
        frame.keys = strings >> 1
    if frame.keys > keys_max:
        return False
    frame.arguments = r[0]
    for i in range(strings):
        if not read_bytes(r, &data, &length):
            return False
    frame.call.op = <uint8_t>(frame.op & ~<uint64_t>OP_MANY)
    frame.call.value = NULL
    frame.call.value_length = 0
    return read_options(r, elements - 1, True, &frame.call)


cdef inline bint read_atomic(Reader* r, Frame* frame) noexcept nogil:
    # The operations of an atomic, which are looked at here and read again when they are used.
    cdef Call call
    cdef uint32_t i
    if not read_array(r, &frame.keys) or not 1 <= frame.keys <= ATOMIC_OPERATIONS_MAX:
        return False
    frame.arguments = r[0]
    for i in range(frame.keys):
        if not read_atomic_call(r, &call):
            return False
    return True


cdef inline bint read_atomic_call(Reader* r, Call* call) noexcept nogil:
    cdef uint32_t elements
    cdef uint64_t op
    return (read_array(r, &elements) and elements > 1 and read_uint(r, &op) and is_single(op, 2)
            and read_call(r, elements - 1, <uint8_t>op, True, call))


cdef inline tuple read_rare_arguments(Frame* frame):
    # The arguments of a rare operation as events.Asked has them, None when they are not those.
    cdef Reader r = frame.arguments
    cdef uint64_t keyspace, limit, what
    cdef const uint8_t* a
    cdef const uint8_t* b
    cdef uint32_t n, m
    if frame.op == OP_HELLO:
        return (PyBytes_FromStringAndSize(<const char*>r.at, r.end - r.at),) if frame.elements == 1 else None
    if frame.op == OP_STATS or OP_SEAL <= frame.op <= OP_COMPACT:
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


cdef inline void put_version(Buffer* out, const uint8_t* payload, uint32_t elements) noexcept nogil:
    # [epoch, lsn, expire_at], or its elements behind those that an array of this many has already.
    cdef Versioned version
    memcpy(&version, payload, sizeof(Versioned))
    if elements == 3:
        put_array(out, 3)
    put_uint(out, version.epoch)
    put_uint(out, version.lsn)
    put_int(out, version.expire_at_ms)


cdef inline void put_result(Buffer* out, uint8_t op, uint8_t flags, uint8_t status, const uint8_t* payload,
                            uint32_t length) noexcept nogil:
    cdef int64_t number
    if status == VALUE:
        put_bin(out, payload, length)
    elif status == DONE:
        put_bool(out, True)
    elif status == ABSENT:
        if op == OP_GET or op == OP_MANY + OP_GET or op == OP_TTL or flags & WITH_OLD:
            put_nil(out)
        else:
            put_bool(out, False)
    elif status == NUMBER:
        memcpy(&number, payload, 8)
        put_int(out, number)
    elif status == VERSIONED and op == OP_GET:
        put_array(out, 4)
        put_bin(out, payload + sizeof(Versioned), length - <uint32_t>sizeof(Versioned))
        put_version(out, payload, 4)
    elif status == VERSIONED:
        put_version(out, payload, 3)
    elif status == UNMET and op == OP_MANY + OP_SET:
        put_bool(out, False)
    elif status == UNMET and length:
        put_version(out, payload, 3)
    elif status == ENCODED:
        buffer_append(out, payload, length)
    else:
        put_nil(out)


cdef inline void put_atomic(Buffer* out, Request* r, const uint8_t* payload, const Text* texts,
                            uint64_t* errors) noexcept nogil:
    # The results when all was applied; else what the first operation was answered that did not fail for another one.
    cdef Result* result
    cdef Result* cause = NULL
    cdef uint32_t i
    for i in range(r.count):
        result = &r.results[i]
        if result.status != UNMET and result.status < ERROR:
            continue
        if cause == NULL or (cause.status == ABORTED and result.status != ABORTED):
            cause = result
    put_array(out, 3 if cause == NULL or cause.status == UNMET else 4)
    put_uint(out, r.id)
    if cause == NULL:
        put_uint(out, STATUS_OK)
        put_array(out, r.count)
        for i in range(r.count):
            result = &r.results[i]
            put_result(out, result.op, result.flags, result.status, payload + result.offset, result.length)
    elif cause.status == UNMET:
        put_uint(out, STATUS_UNMET)
        put_array(out, 2)
        put_uint(out, cause - r.results)
        put_result(out, cause.op, cause.flags, UNMET, payload + cause.offset, cause.length)
    else:
        put_indexed_error(out, cause.status, <uint32_t>(cause - r.results), payload + cause.offset, cause.length,
                          texts, errors)


cdef inline void put_indexed_error(Buffer* out, uint8_t status, uint32_t index, const uint8_t* message,
                                   uint32_t length, const Text* texts, uint64_t* errors) noexcept nogil:
    # As `put_error`, of the operation `index` of an atomic: "operation 3: ...".
    cdef char[24] begins
    cdef uint8_t code = status & <uint8_t>~MAYBE_APPLIED
    cdef uint32_t n = <uint32_t>snprintf(begins, sizeof(begins), "operation %u: ", index)
    errors[code] += 1
    put_uint(out, code)
    if length == 0 or not is_utf8(message, length):
        message = texts[code].data
        length = texts[code].length
    put_str_head(out, n + length)
    buffer_append(out, begins, n)
    buffer_append(out, message, length)
    put_bool(out, status & MAYBE_APPLIED)


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
        if r.op == OP_ATOMIC and r.status == VALUE:
            put_atomic(out, r, payload, texts, errors)
        elif r.status < ERROR:
            put_array(out, 3)
            put_uint(out, r.id)
            put_uint(out, STATUS_UNMET if r.status == UNMET else STATUS_OK)
            put_result(out, r.op, r.flags, r.status, payload, length)
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
            put_result(out, r.op, r.flags, result.status, payloads + result.offset, result.length)
        if r.failed:
            put_array(out, r.failed)
            for i in range(r.count):
                result = &r.results[i]
                if result.status >= ERROR:
                    put_array(out, 4)
                    put_uint(out, i)
                    put_error(out, result.status, payloads + result.offset, result.length, texts, errors)
    store32(out.data + out.start + begin, <uint32_t>(out.end - out.start - begin - 4))
