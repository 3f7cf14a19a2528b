# Integers of 64 bits as decimal text: "0", or an optional "-", a digit other than 0, and digits; nothing else.
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    DECIMAL_BYTES_MAX = 20      # "-9223372036854775808"

cdef inline bint read_decimal(const uint8_t* text, uint32_t length, int64_t* out) noexcept nogil:
    # Whether it is one, and fits.
    cdef bint is_negative = length > 1 and text[0] == 45
    cdef uint32_t i = 1 if is_negative else 0
    cdef uint64_t number = 0, most = <uint64_t>INT64_MAX + (1 if is_negative else 0)
    if length == 0 or length > DECIMAL_BYTES_MAX or (text[i] == 48 and length > 1):
        return False
    while i < length:
        if text[i] < 48 or text[i] > 57 or number > (most - (text[i] - 48)) // 10:
            return False
        number = number * 10 + (text[i] - 48)
        i += 1
    out[0] = <int64_t>(0 - number) if is_negative else <int64_t>number
    return True

cdef inline bint add_overflows(int64_t a, int64_t b) noexcept nogil:
    if b >= 0:
        return a > INT64_MAX - b
    return a < INT64_MIN - b

cdef inline uint32_t write_decimal(int64_t number, uint8_t* out) noexcept nogil:
    # Into DECIMAL_BYTES_MAX bytes; how many were used.
    cdef uint8_t digits[DECIMAL_BYTES_MAX]
    cdef uint64_t left = 0 - <uint64_t>number if number < 0 else <uint64_t>number
    cdef uint32_t n = 0, i = 0
    while left or n == 0:
        digits[n] = <uint8_t>(48 + left % 10)
        left = left // 10
        n += 1
    if number < 0:
        out[0] = 45
        i = 1
    while n:
        n -= 1
        out[i] = digits[n]
        i += 1
    return i
