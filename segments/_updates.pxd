# Operations that make the new record of what the old one holds: incr, append, expire, persist; and ttl, which only looks.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kio._opbatch cimport ABSENT, DONE, NUMBER, OP_APPEND, OP_EXPIRE, OP_INCR, OP_PERSIST, Operation
from kio.segments._arguments cimport Arguments
from kio.segments._decimal cimport DECIMAL_BYTES_MAX, add_overflows, read_decimal, write_decimal
from kio.segments._engine cimport (
    CODE_NOT_AN_INTEGER, CODE_NUMBER_OVERFLOW, CODE_VALUE_TOO_LARGE, RUN_DONE, RUN_ROTATE, THERE, Buffer, Engine, Found,
)
from kio.segments._format cimport key_offset
from kio.segments._native cimport kio_guarded_copy
from kio.segments._options cimport answer_unmet
from kio.segments._writing cimport ANSWERED, buffer_of, look, write_put, write_tombstone

cdef inline int fail_by(Engine e, uint32_t i, const Operation* op, const Found* f, uint8_t code) except -1 nogil:
    # An error that the record's value is to blame for: it tells of a state, so it may have to wait until that is durable.
    e.errors += 1
    return e._reply(buffer_of(e, op, f), i, code, NULL, 0)

cdef inline int answer_number(Engine e, uint32_t i, Buffer* b, int64_t number) except -1 nogil:
    return e._reply(b, i, NUMBER, <const uint8_t*>&number, 8)

cdef inline int incr(Engine e, uint32_t i, const Operation* op, const uint8_t* key, const Arguments* a, Found* f,
                     bint is_there, int64_t* number) except -1 nogil:
    cdef uint8_t text[DECIMAL_BYTES_MAX]
    cdef int64_t delta
    number[0] = 0
    memcpy(&delta, a.value, 8)
    if is_there:
        if f.header.value_length > DECIMAL_BYTES_MAX:
            fail_by(e, i, op, f, CODE_NOT_AN_INTEGER)
            return ANSWERED
        if kio_guarded_copy(text, f.record + key_offset(f.header.kind) + f.header.key_length, f.header.value_length) != 1:
            e._fail_corrupt(i, f.word)
            return ANSWERED
        if not read_decimal(text, f.header.value_length, number):
            fail_by(e, i, op, f, CODE_NOT_AN_INTEGER)
            return ANSWERED
        if add_overflows(number[0], delta):
            fail_by(e, i, op, f, CODE_NUMBER_OVERFLOW)
            return ANSWERED
    number[0] += delta
    return write_put(e, i, op, key, f, f.expiry if is_there else 0, 0, text, write_decimal(number[0], text))

cdef inline int append(Engine e, uint32_t i, const Operation* op, const uint8_t* key, const Arguments* a, Found* f,
                       bint is_there, int64_t* length) except -1 nogil:
    cdef uint32_t kept = f.header.value_length if is_there else 0
    length[0] = <int64_t>kept + a.value_length
    if <uint64_t>length[0] > e.value_bytes_max:
        fail_by(e, i, op, f, CODE_VALUE_TOO_LARGE)
        return ANSWERED
    return write_put(e, i, op, key, f, f.expiry if is_there else 0, kept, a.value, a.value_length)

cdef inline int update(Engine e, uint32_t i, const Operation* op, const uint8_t* key, const Arguments* a) except -1 nogil:
    cdef Found f
    cdef int outcome, found = look(e, i, op, key, &f)
    cdef int64_t number = 0
    cdef bint is_there = found == THERE
    if found == ANSWERED:
        return RUN_DONE
    if op.op == OP_INCR:
        outcome = incr(e, i, op, key, a, &f, is_there, &number)
    elif op.op == OP_APPEND:
        outcome = append(e, i, op, key, a, &f, is_there, &number)
    elif not is_there:
        return e._reply(buffer_of(e, op, &f), i, ABSENT, NULL, 0)
    elif op.op == OP_EXPIRE:
        if a.expiry <= e.now_ms:
            outcome = write_tombstone(e, i, op, key, &f)
        else:
            outcome = write_put(e, i, op, key, &f, a.expiry, f.header.value_length, NULL, 0)
    elif f.expiry == 0:
        return answer_unmet(e, i, op, &f, True)
    else:
        outcome = write_put(e, i, op, key, &f, 0, f.header.value_length, NULL, 0)
    if outcome != RUN_DONE:
        return RUN_ROTATE if outcome == RUN_ROTATE else RUN_DONE
    if op.op == OP_INCR or op.op == OP_APPEND:
        return answer_number(e, i, &e.parked if e.parks else &e.replies, number)
    return e._reply(&e.parked if e.parks else &e.replies, i, DONE, NULL, 0)

cdef inline int ttl(Engine e, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
    cdef Found f
    cdef int found = look(e, i, op, key, &f)
    if found == ANSWERED:
        return RUN_DONE
    e.gets += 1
    if found != THERE:
        e.misses += 1
        return e._reply(buffer_of(e, op, &f), i, ABSENT, NULL, 0)
    e.hits += 1
    return answer_number(e, i, buffer_of(e, op, &f), <int64_t>(f.expiry - e.now_ms) if f.expiry else -1)
