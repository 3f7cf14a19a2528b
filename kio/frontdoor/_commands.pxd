# The common commands of RESP, in their common forms: from arguments to operations without Python. Whatever else a
# command may say (an option that is not here, a number out of range, a wrong count of arguments) is left to the command's
# one description in Python (kio/commands), which also runs within MULTI: so here is nothing that refuses.
#
# Invariant: what is taken here does and answers exactly what its description does.
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kio._opbatch cimport (
    IF_ABSENT, IF_PRESENT, KEEP_TTL, OP_APPEND, OP_DELETE, OP_EXISTS, OP_EXPIRE, OP_GET, OP_INCR, OP_PERSIST, OP_SET,
    OP_TTL, TTL, WITH_OLD,
)
from kio.frontdoor._call cimport Call, call_add_argument
from kio.frontdoor._resp cimport Incoming, read_number
from kio.frontdoor._resp_reply cimport (
    STYLE_ARRAY, STYLE_BULK, STYLE_BOOL, STYLE_ECHO, STYLE_NUMBER, STYLE_OK, STYLE_OK_OR_NULL, STYLE_PONG, STYLE_SUM,
    STYLE_TTL_MS, STYLE_TTL_S, STYLE_ALL_OK,
)

cdef enum:
    NAME_BYTES_MAX = 8
    #: A lifetime beyond this may overflow when the clock is added; its description in Python knows what to say.
    TTL_FAST_BITS = 50

cdef struct Fast:
    uint8_t style
    uint32_t keys           # how many, from argument `first`, each `step` arguments apart; 0: it is answered at once
    uint32_t first
    uint32_t step
    Call call               # what they have in common; one key is in it already


cdef inline const uint8_t* argument(const Incoming* i, const uint8_t* p, uint32_t at, uint32_t* length) noexcept nogil:
    cdef uint64_t place = i.places.data[at]
    length[0] = <uint32_t>place
    return p + (place >> 32)


cdef inline uint64_t word_of(const uint8_t* p, uint32_t n) noexcept nogil:
    # A name of at most 8 letters in upper case as a number; 0 when it is none. A NUL would be no letter of the number.
    cdef uint64_t word = 0
    cdef uint32_t i
    cdef uint8_t letter
    if n > NAME_BYTES_MAX:
        return 0
    for i in range(n):
        if p[i] == 0:
            return 0
        letter = p[i] & 0xDF if 97 <= p[i] <= 122 else p[i]
        word = word << 8 | letter
    return word


cdef extern from *:
    """
    #define KIO_W2(a,b) ((uint64_t)(a) << 8 | (b))
    #define KIO_W3(a,b,c) (KIO_W2(a,b) << 8 | (c))
    #define KIO_W4(a,b,c,d) (KIO_W3(a,b,c) << 8 | (d))
    #define KIO_W5(a,b,c,d,e) (KIO_W4(a,b,c,d) << 8 | (e))
    #define KIO_W6(a,b,c,d,e,f) (KIO_W5(a,b,c,d,e) << 8 | (f))
    #define KIO_W7(a,b,c,d,e,f,g) (KIO_W6(a,b,c,d,e,f) << 8 | (g))
    enum {
        KIO_EX = KIO_W2('E','X'), KIO_PX = KIO_W2('P','X'), KIO_NX = KIO_W2('N','X'), KIO_XX = KIO_W2('X','X'),
    };
    #define KIO_GET KIO_W3('G','E','T')
    #define KIO_SET KIO_W3('S','E','T')
    #define KIO_DEL KIO_W3('D','E','L')
    #define KIO_TTL KIO_W3('T','T','L')
    #define KIO_MGET KIO_W4('M','G','E','T')
    #define KIO_MSET KIO_W4('M','S','E','T')
    #define KIO_INCR KIO_W4('I','N','C','R')
    #define KIO_DECR KIO_W4('D','E','C','R')
    #define KIO_PTTL KIO_W4('P','T','T','L')
    #define KIO_PING KIO_W4('P','I','N','G')
    #define KIO_ECHO KIO_W4('E','C','H','O')
    #define KIO_SETNX KIO_W5('S','E','T','N','X')
    #define KIO_SETEX KIO_W5('S','E','T','E','X')
    #define KIO_TOUCH KIO_W5('T','O','U','C','H')
    #define KIO_UNLINK KIO_W6('U','N','L','I','N','K')
    #define KIO_EXISTS KIO_W6('E','X','I','S','T','S')
    #define KIO_INCRBY KIO_W6('I','N','C','R','B','Y')
    #define KIO_DECRBY KIO_W6('D','E','C','R','B','Y')
    #define KIO_APPEND KIO_W6('A','P','P','E','N','D')
    #define KIO_EXPIRE KIO_W6('E','X','P','I','R','E')
    #define KIO_GETDEL KIO_W6('G','E','T','D','E','L')
    #define KIO_GETSET KIO_W6('G','E','T','S','E','T')
    #define KIO_PSETEX KIO_W6('P','S','E','T','E','X')
    #define KIO_PERSIST KIO_W7('P','E','R','S','I','S','T')
    #define KIO_PEXPIRE KIO_W7('P','E','X','P','I','R','E')
    """
    const uint64_t KIO_EX, KIO_PX, KIO_NX, KIO_XX
    const uint64_t KIO_GET, KIO_SET, KIO_DEL, KIO_TTL, KIO_MGET, KIO_MSET, KIO_INCR, KIO_DECR, KIO_PTTL, KIO_PING, KIO_ECHO
    const uint64_t KIO_SETNX, KIO_SETEX, KIO_TOUCH, KIO_UNLINK, KIO_EXISTS, KIO_INCRBY, KIO_DECRBY, KIO_APPEND, KIO_EXPIRE
    const uint64_t KIO_GETDEL, KIO_GETSET, KIO_PSETEX, KIO_PERSIST, KIO_PEXPIRE


cdef inline bint fast_lifetime(Fast* f, const uint8_t* text, uint32_t n, int64_t unit_ms) noexcept nogil:
    cdef int64_t number = 0
    cdef uint64_t ms
    if not read_number(text, n, &number) or number <= 0 or number > (<int64_t>1 << TTL_FAST_BITS) // unit_ms:
        return False
    ms = <uint64_t>(number * unit_ms)
    f.call.flags |= TTL
    call_add_argument(&f.call, &ms, 8)
    return True


cdef inline bint fast_set(Fast* f, const Incoming* i, const uint8_t* p) noexcept nogil:
    # SET key value, with NX or XX, with EX or PX.
    cdef uint32_t at = 3
    cdef uint32_t n = 0
    cdef uint64_t word
    cdef const uint8_t* text
    f.style = STYLE_OK
    f.call.value = argument(i, p, 2, &f.call.value_length)
    while at < i.count:
        text = argument(i, p, at, &n)
        word = word_of(text, n)
        at += 1
        if word == KIO_NX or word == KIO_XX:
            if f.call.flags & (IF_ABSENT | IF_PRESENT):
                return False
            f.call.flags |= IF_ABSENT if word == KIO_NX else IF_PRESENT
            f.style = STYLE_OK_OR_NULL
        elif word == KIO_EX or word == KIO_PX:
            if at == i.count or f.call.flags & TTL:
                return False
            text = argument(i, p, at, &n)
            at += 1
            if not fast_lifetime(f, text, n, 1000 if word == KIO_EX else 1):
                return False
        else:
            return False
    return True


cdef inline bint fast_count(Fast* f, const Incoming* i, const uint8_t* p, bint is_negative) noexcept nogil:
    # The argument of INCRBY and DECRBY.
    cdef uint32_t n = 0
    cdef int64_t delta = 0
    cdef const uint8_t* text = argument(i, p, 2, &n)
    if not read_number(text, n, &delta):
        return False
    delta = -delta if is_negative else delta
    call_add_argument(&f.call, &delta, 8)
    return True


cdef inline bint fast_plan(Fast* f, const Incoming* i, const uint8_t* p) noexcept nogil:
    # Whether the command is one of these, and what it asks for.
    cdef uint32_t n = 0
    cdef const uint8_t* text = argument(i, p, 0, &n)
    cdef uint64_t word = word_of(text, n)
    cdef uint32_t count = i.count
    cdef int64_t one = 1
    memset(&f.call, 0, sizeof(Call))
    f.keys = f.first = f.step = 1
    if word == 0:
        return False
    if count == 1:
        f.keys = 0
        f.style = STYLE_PONG
        return word == KIO_PING
    f.call.key = argument(i, p, 1, &f.call.key_length)
    if word == KIO_GET and count == 2:
        f.call.op = OP_GET
        f.style = STYLE_BULK
        return True
    if word == KIO_SET and count >= 3:
        f.call.op = OP_SET
        return fast_set(f, i, p)
    if word == KIO_MGET:
        f.call.op = OP_GET
        f.style = STYLE_ARRAY
        f.keys = count - 1
        return True
    if word == KIO_MSET and count & 1:
        f.call.op = OP_SET
        f.style = STYLE_ALL_OK
        f.keys = count >> 1
        f.step = 2
        return True
    if word == KIO_DEL or word == KIO_UNLINK or word == KIO_EXISTS or word == KIO_TOUCH:
        f.call.op = OP_DELETE if word == KIO_DEL or word == KIO_UNLINK else OP_EXISTS
        f.style = STYLE_SUM
        f.keys = count - 1
        return True
    if count == 2:
        return fast_of_key(f, word, &one)
    if count == 3:
        f.call.value = argument(i, p, 2, &f.call.value_length)
        return fast_of_value(f, word, i, p)
    if count == 4 and (word == KIO_SETEX or word == KIO_PSETEX):
        f.call.op = OP_SET
        f.style = STYLE_OK
        f.call.value = argument(i, p, 3, &f.call.value_length)
        text = argument(i, p, 2, &n)
        return fast_lifetime(f, text, n, 1000 if word == KIO_SETEX else 1)
    return False


cdef inline bint fast_of_key(Fast* f, uint64_t word, const int64_t* one) noexcept nogil:
    # Commands that have a key and nothing else.
    cdef int64_t minus = -1
    if word == KIO_INCR or word == KIO_DECR:
        f.call.op = OP_INCR
        f.style = STYLE_NUMBER
        call_add_argument(&f.call, one if word == KIO_INCR else &minus, 8)
    elif word == KIO_TTL or word == KIO_PTTL:
        f.call.op = OP_TTL
        f.style = STYLE_TTL_S if word == KIO_TTL else STYLE_TTL_MS
    elif word == KIO_PERSIST:
        f.call.op = OP_PERSIST
        f.style = STYLE_BOOL
    elif word == KIO_GETDEL:
        f.call.op = OP_DELETE
        f.call.flags = WITH_OLD
        f.style = STYLE_BULK
    elif word == KIO_PING or word == KIO_ECHO:
        f.keys = 0
        f.style = STYLE_ECHO
    else:
        return False
    return True


cdef inline bint fast_of_value(Fast* f, uint64_t word, const Incoming* i, const uint8_t* p) noexcept nogil:
    # Commands that have a key and one more argument, which stands as the value already.
    cdef const uint8_t* text = f.call.value
    cdef uint32_t n = f.call.value_length
    if word == KIO_APPEND:
        f.call.op = OP_APPEND
        f.style = STYLE_NUMBER
        return True
    if word == KIO_SETNX or word == KIO_GETSET:
        f.call.op = OP_SET
        f.call.flags = IF_ABSENT if word == KIO_SETNX else WITH_OLD
        f.style = STYLE_BOOL if word == KIO_SETNX else STYLE_BULK
        return True
    f.call.value = NULL
    f.call.value_length = 0
    if word == KIO_EXPIRE or word == KIO_PEXPIRE:
        f.call.op = OP_EXPIRE
        f.style = STYLE_BOOL
        return fast_lifetime(f, text, n, 1000 if word == KIO_EXPIRE else 1)
    if word == KIO_INCRBY or word == KIO_DECRBY:
        f.call.op = OP_INCR
        f.style = STYLE_NUMBER
        return fast_count(f, i, p, word == KIO_DECRBY)
    return False
