# The part of msgpack that frames are made of: integers, bin and str, arrays; nil, booleans and str to write.
#
# Readers take every legal encoding, answer False at the first byte that is not what was asked for or not there, and
# allocate nothing: a length is compared with what is left before it is used. Writers use the shortest encoding, as
# the msgpack package does.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio.frontdoor._buffer cimport Buffer, buffer_append, buffer_reserve

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t)
    uint32_t be32toh(uint32_t)
    uint64_t be64toh(uint64_t)
    uint16_t htobe16(uint16_t)
    uint32_t htobe32(uint32_t)
    uint64_t htobe64(uint64_t)

cdef struct Reader:
    const uint8_t* at
    const uint8_t* end


cdef inline uint16_t load16(const uint8_t* p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return be16toh(v)


cdef inline uint32_t load32(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return be32toh(v)


cdef inline uint64_t load64(const uint8_t* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return be64toh(v)


cdef inline void store32(uint8_t* p, uint32_t v) noexcept nogil:
    v = htobe32(v)
    memcpy(p, &v, 4)


cdef inline bint read_head(Reader* r, size_t width, uint64_t* number) noexcept nogil:
    # The number of `width` bytes behind the type byte; moves past both.
    if <size_t>(r.end - r.at) < 1 + width:
        return False
    if width == 0:
        number[0] = 0
    elif width == 1:
        number[0] = r.at[1]
    elif width == 2:
        number[0] = load16(r.at + 1)
    elif width == 4:
        number[0] = load32(r.at + 1)
    else:
        number[0] = load64(r.at + 1)
    r.at += 1 + width
    return True


cdef inline bint read_uint(Reader* r, uint64_t* number) noexcept nogil:
    # Signed encodings are taken when their sign bit is clear.
    cdef uint8_t kind
    cdef size_t width
    if r.at >= r.end:
        return False
    kind = r.at[0]
    if kind < 0x80:
        number[0] = kind
        r.at += 1
        return True
    if 0xCC <= kind <= 0xCF:
        return read_head(r, <size_t>1 << (kind - 0xCC), number)
    if 0xD0 <= kind <= 0xD3:
        width = <size_t>1 << (kind - 0xD0)
        return read_head(r, width, number) and not (number[0] >> (8 * width - 1)) & 1
    return False


cdef inline bint read_int(Reader* r, int64_t* number) noexcept nogil:
    # Any integer that fits into 64 bits with sign.
    cdef uint8_t kind
    cdef uint64_t n
    if r.at >= r.end:
        return False
    kind = r.at[0]
    if kind >= 0xE0:
        number[0] = <int8_t>kind
        r.at += 1
        return True
    if not 0xD0 <= kind <= 0xD3:
        if not read_uint(r, &n) or n >> 63:
            return False
        number[0] = <int64_t>n
        return True
    if not read_head(r, <size_t>1 << (kind - 0xD0), &n):
        return False
    if kind == 0xD0:
        number[0] = <int8_t>n
    elif kind == 0xD1:
        number[0] = <int16_t>n
    elif kind == 0xD2:
        number[0] = <int32_t>n
    else:
        number[0] = <int64_t>n
    return True


cdef inline bint read_bytes(Reader* r, const uint8_t** data, uint32_t* length) noexcept nogil:
    # bin or str; `data` points into what is read.
    cdef uint8_t kind
    cdef uint64_t n
    if r.at >= r.end:
        return False
    kind = r.at[0]
    if 0xA0 <= kind <= 0xBF:
        n = kind & 0x1F
        r.at += 1
    elif 0xC4 <= kind <= 0xC6:
        if not read_head(r, <size_t>1 << (kind - 0xC4), &n):
            return False
    elif 0xD9 <= kind <= 0xDB:
        if not read_head(r, <size_t>1 << (kind - 0xD9), &n):
            return False
    else:
        return False
    if <uint64_t>(r.end - r.at) < n:
        return False
    data[0] = r.at
    length[0] = <uint32_t>n
    r.at += n
    return True


cdef inline bint read_array(Reader* r, uint32_t* count) noexcept nogil:
    # Only the head: the elements follow.
    cdef uint8_t kind
    cdef uint64_t n
    if r.at >= r.end:
        return False
    kind = r.at[0]
    if 0x90 <= kind <= 0x9F:
        n = kind & 0x0F
        r.at += 1
    elif kind == 0xDC or kind == 0xDD:
        if not read_head(r, 2 if kind == 0xDC else 4, &n):
            return False
    else:
        return False
    count[0] = <uint32_t>n
    return True


cdef inline void put_byte(Buffer* out, uint8_t byte) noexcept nogil:
    buffer_reserve(out, 1)[0] = byte
    out.end += 1


cdef inline void put_head(Buffer* out, uint8_t kind, size_t width, uint64_t number) noexcept nogil:
    cdef uint8_t* p = buffer_reserve(out, 9)
    cdef uint16_t two
    cdef uint32_t four
    p[0] = kind
    if width == 1:
        p[1] = <uint8_t>number
    elif width == 2:
        two = htobe16(<uint16_t>number)
        memcpy(p + 1, &two, 2)
    elif width == 4:
        four = htobe32(<uint32_t>number)
        memcpy(p + 1, &four, 4)
    else:
        number = htobe64(number)
        memcpy(p + 1, &number, 8)
    out.end += 1 + width


cdef inline void put_uint(Buffer* out, uint64_t number) noexcept nogil:
    if number < 0x80:
        put_byte(out, <uint8_t>number)
    elif number <= 0xFF:
        put_head(out, 0xCC, 1, number)
    elif number <= 0xFFFF:
        put_head(out, 0xCD, 2, number)
    elif number >> 32 == 0:
        put_head(out, 0xCE, 4, number)
    else:
        put_head(out, 0xCF, 8, number)


cdef inline void put_int(Buffer* out, int64_t number) noexcept nogil:
    if number >= 0:
        put_uint(out, <uint64_t>number)
    elif number >= -32:
        put_byte(out, <uint8_t>number)
    elif number >= -128:
        put_head(out, 0xD0, 1, <uint64_t>number)
    elif number >= -32768:
        put_head(out, 0xD1, 2, <uint64_t>number)
    elif number >= -2147483648:
        put_head(out, 0xD2, 4, <uint64_t>number)
    else:
        put_head(out, 0xD3, 8, <uint64_t>number)


cdef inline void put_bool(Buffer* out, bint value) noexcept nogil:
    put_byte(out, 0xC3 if value else 0xC2)


cdef inline void put_nil(Buffer* out) noexcept nogil:
    put_byte(out, 0xC0)


cdef inline void put_bin(Buffer* out, const uint8_t* data, uint32_t length) noexcept nogil:
    if length <= 0xFF:
        put_head(out, 0xC4, 1, length)
    elif length <= 0xFFFF:
        put_head(out, 0xC5, 2, length)
    else:
        put_head(out, 0xC6, 4, length)
    buffer_append(out, data, length)


cdef inline void put_str_head(Buffer* out, uint32_t length) noexcept nogil:
    if length < 32:
        put_byte(out, <uint8_t>(0xA0 | length))
    elif length <= 0xFF:
        put_head(out, 0xD9, 1, length)
    elif length <= 0xFFFF:
        put_head(out, 0xDA, 2, length)
    else:
        put_head(out, 0xDB, 4, length)


cdef inline void put_str(Buffer* out, const uint8_t* data, uint32_t length) noexcept nogil:
    put_str_head(out, length)
    buffer_append(out, data, length)


cdef inline bint is_utf8(const uint8_t* p, uint32_t n) noexcept nogil:
    # Whether a str may hold these bytes; a reader may refuse a whole message for one that is not.
    cdef uint32_t i = 0
    cdef uint32_t more, point
    while i < n:
        if p[i] < 0x80:
            i += 1
            continue
        if 0xC2 <= p[i] <= 0xDF:
            more = 1
            point = p[i] & 0x1F
        elif 0xE0 <= p[i] <= 0xEF:
            more = 2
            point = p[i] & 0x0F
        elif 0xF0 <= p[i] <= 0xF4:
            more = 3
            point = p[i] & 0x07
        else:
            return False
        if n - i <= more:
            return False
        for i in range(i + 1, i + 1 + more):
            if p[i] & 0xC0 != 0x80:
                return False
            point = point << 6 | (p[i] & 0x3F)
        i += 1
        if (more == 2 and point < 0x800) or (more == 3 and point < 0x10000):
            return False  # longer than it needs to be
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            return False
    return True


cdef inline void put_array(Buffer* out, uint32_t count) noexcept nogil:
    if count < 16:
        put_byte(out, <uint8_t>(0x90 | count))
    elif count <= 0xFFFF:
        put_head(out, 0xDC, 2, count)
    else:
        put_head(out, 0xDD, 4, count)
