# RESP as it comes in: from the bytes of a connection to the arguments of one command.
#
# A command is an array of bulk strings, or a line ("inline", for people with telnet). Versions 2 and 3 are alike here.
# Invariants:
#   * nothing is allocated for what a length announces, and no byte is looked at twice, however small the pieces are in
#     which a command comes: `Incoming` knows where it stands;
#   * lengths are within their bounds before they are used;
#   * where arguments stand is remembered while the command is being read, and for a few arguments only after it;
#   * a command beyond a bound that is the daemon's own (the length of an argument, of the whole) is read to its end
#     and dropped, piece by piece, so that the connection can go on; what is beyond RESP's own bounds is a fault, and
#     the connection ends.
# Not here: what a command means (_commands.pxd).
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memset

from kio.frontdoor._buffer cimport Numbers, numbers_add, numbers_free

cdef enum:
    # What `resp_read` has found.
    RESP_PARTIAL = 0        # the rest is still to come
    RESP_WHOLE = 1          # a command: `places` say where its arguments stand
    RESP_LINE = 2           # an inline command of `line` bytes
    RESP_EMPTY = 3          # nothing, in so many bytes
    RESP_DROPPED = 4        # a command that was beyond a bound: `too_large` says which
    RESP_FAULT = 5          # no RESP: `fault` says why

    # `Incoming.too_large`: what was, as a code of errors.py.
    KEPT = 0

    LINE_BYTES_MAX = 65536
    #: A header: a type, a length that is far too long already, CR and LF.
    HEADER_BYTES_MAX = 64
    ARGUMENTS_MAX = 1048576
    #: Between commands the memory for so many places is kept.
    KEPT_PLACES = 512
    BULK_BYTES_MAX = 536870912
    # Before a password was given.
    STRANGER_ARGUMENTS_MAX = 10
    STRANGER_BULK_BYTES_MAX = 16384

cdef struct Incoming:
    uint32_t count          # arguments announced; 0: no command has begun
    uint32_t seen           # arguments that are whole
    size_t at               # behind them; offsets count from the beginning of the command
    Numbers places          # offset << 32 | length of each argument
    uint8_t too_large       # not KEPT: it is being dropped
    size_t skip             # of a dropped one: what is left of an argument
    size_t line
    const char* fault


cdef inline void incoming_clear(Incoming* i) noexcept nogil:
    # A new command begins.
    i.count = i.seen = 0
    i.at = i.skip = 0
    i.places.count = 0
    if i.places.capacity > KEPT_PLACES:
        numbers_free(&i.places)
    i.too_large = KEPT


cdef inline void incoming_drop(Incoming* i, uint8_t too_large) noexcept nogil:
    # The command is not wanted: what is still to come of it is only counted.
    i.too_large = too_large
    numbers_free(&i.places)


cdef inline void incoming_free(Incoming* i) noexcept nogil:
    numbers_free(&i.places)


cdef inline int resp_fault(Incoming* i, const char* why) noexcept nogil:
    i.fault = why
    return RESP_FAULT


cdef inline bint read_number(const uint8_t* p, size_t n, int64_t* out) noexcept nogil:
    # An integer as RESP and its commands write it: an optional minus, digits, no zero in front; 18 digits at most.
    cdef bint is_negative = n > 0 and p[0] == 45
    cdef size_t k = 1 if is_negative else 0
    cdef int64_t number = 0
    if n == k or n - k > 18 or (p[k] == 48 and n > 1):
        return False
    while k < n:
        if p[k] < 48 or p[k] > 57:
            return False
        number = number * 10 + (p[k] - 48)
        k += 1
    out[0] = -number if is_negative else number
    return True


cdef inline int resp_line(const uint8_t* p, size_t n, size_t at, size_t* end) noexcept nogil:
    # A header's line from `at`: 1, and `end` is where its CR stands; 0: it is not whole; -1: it is too long.
    cdef const uint8_t* cr = <const uint8_t*>memchr(p + at, 13, n - at if n - at < HEADER_BYTES_MAX else HEADER_BYTES_MAX)
    if cr == NULL:
        return -1 if n - at >= HEADER_BYTES_MAX else 0
    end[0] = cr - p
    return 1 if end[0] + 2 <= n else 0


cdef inline int resp_read_line(Incoming* i, const uint8_t* p, size_t n, size_t* used) noexcept nogil:
    # An inline command.
    cdef const uint8_t* lf = <const uint8_t*>memchr(p + i.at, 10, n - i.at)
    if lf == NULL:
        i.at = n
        return resp_fault(i, "too big inline request") if n > LINE_BYTES_MAX else RESP_PARTIAL
    used[0] = lf - p + 1
    i.line = lf - p
    i.at = 0
    if i.line and p[i.line - 1] == 13:
        i.line -= 1
    if i.line > LINE_BYTES_MAX:
        return resp_fault(i, "too big inline request")
    return RESP_LINE if i.line else RESP_EMPTY


cdef inline int resp_begin(Incoming* i, const uint8_t* p, size_t n, bint is_stranger, size_t* used) noexcept nogil:
    # The header of a command: RESP_WHOLE when it was taken.
    cdef size_t end = 0
    cdef int64_t number = 0
    cdef int found = resp_line(p, n, 1, &end)
    if found <= 0:
        return resp_fault(i, "too big mbulk count string") if found else RESP_PARTIAL
    if not read_number(p + 1, end - 1, &number) or number > ARGUMENTS_MAX:
        return resp_fault(i, "invalid multibulk length")
    if is_stranger and number > STRANGER_ARGUMENTS_MAX:
        return resp_fault(i, "unauthenticated multibulk length")
    if number <= 0:
        used[0] = end + 2
        return RESP_EMPTY
    i.count = <uint32_t>number
    i.seen = 0
    i.places.count = 0
    i.at = end + 2
    return RESP_WHOLE


cdef inline int resp_read(Incoming* i, const uint8_t* p, size_t n, uint32_t bulk_bytes_max, size_t bytes_max,
                          uint8_t too_large_bulk, uint8_t too_large, bint is_stranger, size_t* used) noexcept nogil:
    # Read on in the `n` bytes from the beginning of a command; of a dropped one from where `used` left off. `used`:
    # how many of them are done with; the others are to be given again, with more behind them.
    cdef size_t end = 0, at
    cdef int64_t length = 0
    cdef int found
    used[0] = 0
    if n == 0:
        return RESP_PARTIAL
    if i.count == 0:
        if p[0] != 42:
            return resp_read_line(i, p, n, used)
        found = resp_begin(i, p, n, is_stranger, used)
        if found != RESP_WHOLE:
            return found
    at = i.at
    while True:
        if i.skip:
            if i.skip > n - at:
                i.skip -= n - at
                used[0] = n
                i.at = 0
                return RESP_PARTIAL
            at += i.skip
            i.skip = 0
            i.seen += 1
        if i.seen == i.count:
            break
        if at >= n:
            break
        if p[at] != 36:
            return resp_fault(i, "expected '$'")
        found = resp_line(p, n, at + 1, &end)
        if found < 0:
            return resp_fault(i, "too big bulk count string")
        if found == 0:
            break
        if not read_number(p + at + 1, end - at - 1, &length) or length < 0 or length > BULK_BYTES_MAX:
            return resp_fault(i, "invalid bulk length")
        if is_stranger and length > STRANGER_BULK_BYTES_MAX:
            return resp_fault(i, "unauthenticated bulk length")
        end += 2
        if i.too_large == KEPT:
            if length > bulk_bytes_max:
                incoming_drop(i, too_large_bulk)
            elif end + <size_t>length > bytes_max:
                incoming_drop(i, too_large)
        if i.too_large != KEPT:
            at = end
            i.skip = <size_t>length + 2
            continue
        if n - end < <size_t>length + 2:
            break
        numbers_add(&i.places, end << 32 | <size_t>length)
        i.seen += 1
        at = end + <size_t>length + 2
        i.at = at
    if i.seen == i.count:
        used[0] = at
        return RESP_WHOLE if i.too_large == KEPT else RESP_DROPPED
    if i.too_large != KEPT:
        used[0] = at
        i.at = 0
    else:
        i.at = at
    return RESP_PARTIAL
