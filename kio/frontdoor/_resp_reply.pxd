# RESP as it goes out: an answered request, told in the style of its command and the version of its connection.
#
# Invariant: one request is one reply, whatever its parts were answered; where one part failed the reply is its error.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcpy

from kio._opbatch cimport ABSENT, DONE, ERROR, MAYBE_APPLIED, NUMBER, UNMET, VALUE
from kio.frontdoor._buffer cimport Buffer, buffer_append, buffer_length, buffer_reserve
from kio.frontdoor._request cimport ENCODED, Request, Result

cdef enum:
    STYLE_RAW = 0           # Python has encoded it
    STYLE_BULK = 1          # a value or null
    STYLE_OK = 2
    STYLE_OK_OR_NULL = 3    # null where its condition did not hold
    STYLE_BOOL = 4          # 1 or 0
    STYLE_NUMBER = 5
    STYLE_TTL_S = 6         # seconds, rounded; -1 without expiry, -2 without the key
    STYLE_TTL_MS = 7
    STYLE_ARRAY = 8         # values or nulls
    STYLE_ALL_OK = 9
    STYLE_SUM = 10          # how many of them were there
    STYLE_PONG = 11
    STYLE_ECHO = 12

    NUMBER_BYTES_MAX = 24

cdef struct ErrorText:
    # Of one code of errors.py: what RESP's clients know it by.
    const char* prefix      # "ERR " and the like
    const char* text        # told where there is no message
    bint is_fixed           # and also where there is one


cdef inline void put_text(Buffer* out, const char* text, size_t n) noexcept nogil:
    buffer_append(out, text, n)


cdef inline void put_integer(Buffer* out, char kind, int64_t number) noexcept nogil:
    # ":7\r\n" and the like.
    cdef char* p = <char*>buffer_reserve(out, NUMBER_BYTES_MAX)
    cdef uint64_t left = 0 - <uint64_t>number if number < 0 else <uint64_t>number
    cdef char[NUMBER_BYTES_MAX] digits
    cdef uint32_t n = 0
    cdef uint32_t at = 1
    p[0] = kind
    if number < 0:
        p[1] = 45
        at = 2
    while True:
        digits[n] = <char>(48 + left % 10)
        left //= 10
        n += 1
        if left == 0:
            break
    while n:
        n -= 1
        p[at] = digits[n]
        at += 1
    p[at] = 13
    p[at + 1] = 10
    out.end += at + 2


cdef inline void put_bulk(Buffer* out, const uint8_t* data, uint32_t n) noexcept nogil:
    put_integer(out, 36, n)
    buffer_reserve(out, n + 2)
    buffer_append(out, data, n)
    buffer_append(out, b"\r\n", 2)


cdef inline void put_null(Buffer* out, uint8_t version) noexcept nogil:
    if version >= 3:
        buffer_append(out, b"_\r\n", 3)
    else:
        buffer_append(out, b"$-1\r\n", 5)


cdef inline void put_failure(Buffer* out, uint8_t status, const uint8_t* message, uint32_t n, const ErrorText* texts,
                             uint64_t* errors) noexcept nogil:
    # "-ERR ...": one line.
    cdef uint8_t code = status & <uint8_t>~MAYBE_APPLIED
    cdef const ErrorText* error = &texts[code]
    cdef uint8_t* p
    cdef uint32_t i
    errors[code] += 1
    buffer_append(out, b"-", 1)
    put_c_text(out, error.prefix)
    if n == 0 or error.is_fixed:
        put_c_text(out, error.text)
    else:
        p = buffer_reserve(out, n)
        for i in range(n):
            p[i] = message[i] if message[i] != 13 and message[i] != 10 else 32
        out.end += n
    if status & MAYBE_APPLIED:
        put_c_text(out, b"; it may have been applied")
    buffer_append(out, b"\r\n", 2)


cdef inline void put_c_text(Buffer* out, const char* text) noexcept nogil:
    cdef size_t n = 0
    while text != NULL and text[n]:
        n += 1
    buffer_append(out, text, n)


cdef inline void put_answer(Buffer* out, uint8_t style, uint8_t version, uint8_t status, const uint8_t* payload,
                            uint32_t n) noexcept nogil:
    # The answer to one operation, which is no error.
    cdef int64_t number = 0
    if style == STYLE_RAW or status == ENCODED:
        buffer_append(out, payload, n)
    elif style == STYLE_BULK or style == STYLE_ARRAY:
        if status == VALUE:
            put_bulk(out, payload, n)
        else:
            put_null(out, version)
    elif style == STYLE_OK or (style == STYLE_OK_OR_NULL and status == DONE):
        buffer_append(out, b"+OK\r\n", 5)
    elif style == STYLE_OK_OR_NULL:
        put_null(out, version)
    elif style == STYLE_BOOL:
        buffer_append(out, b":1\r\n" if status == DONE else b":0\r\n", 4)
    elif status == NUMBER:
        memcpy(&number, payload, 8)
        if style == STYLE_TTL_S and number > 0:
            number = (number + 500) // 1000
        put_integer(out, 58, number)
    else:
        buffer_append(out, b":-2\r\n", 5)


cdef inline void put_resp(Buffer* out, Request* r, const uint8_t* payload, uint32_t n, const ErrorText* texts,
                          uint64_t* errors) noexcept nogil:
    # `payload` is that of a request with one operation; one with several has its own in `r.payload`.
    cdef uint32_t i
    cdef int64_t there = 0
    cdef Result* result
    cdef const uint8_t* payloads = r.payload.data + r.payload.start
    if r.is_silent:
        return
    if not r.is_batch:
        if r.status >= ERROR:
            put_failure(out, r.status, payload, n, texts, errors)
        elif r.style == STYLE_PONG:
            buffer_append(out, b"+PONG\r\n", 7)
        elif r.style == STYLE_ECHO:
            put_bulk(out, payload, n)
        else:
            put_answer(out, r.style, r.version, r.status, payload, n)
        return
    for i in range(r.count):
        result = &r.results[i]
        if result.status >= ERROR:
            put_failure(out, result.status, payloads + result.offset, result.length, texts, errors)
            return
        there += result.status == DONE
    if r.style == STYLE_ARRAY:
        put_integer(out, 42, r.count)
        for i in range(r.count):
            result = &r.results[i]
            put_answer(out, STYLE_ARRAY, r.version, result.status, payloads + result.offset, result.length)
    elif r.style == STYLE_SUM:
        put_integer(out, 58, there)
    else:
        buffer_append(out, b"+OK\r\n", 5)
