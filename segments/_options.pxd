# Set and delete with flags: an expiry, conditions, the old value or a version as the answer.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kio._opbatch cimport (
    ABSENT, DONE, IF_ABSENT, IF_PRESENT, IF_VERSION, KEEP_TTL, UNMET, VERSIONED, WITH_OLD, WITH_VERSION, Operation, Versioned,
)
from kio.segments._arguments cimport CONDITION, Arguments
from kio.segments._engine cimport (
    CODE_MEMORY_FULL, CODE_VALUE_TOO_LARGE, RUN_DONE, RUN_ROTATE, THERE, UNKNOWN, Buffer, Engine, Found, note_arrival,
)
from kio.segments._format cimport FLAG_EXPIRY, KIND_PUT, KIND_TOMBSTONE, RECORD_HEADER
from kio.segments._writing cimport (
    ANSWERED, answer_misfit, buffer_of, fits, is_memory_full, look, write_put, write_tombstone,
)

cdef inline int answer_unmet(Engine e, uint32_t i, const Operation* op, const Found* f, bint is_there) except -1 nogil:
    cdef Versioned version = Versioned(f.header.epoch, f.header.lsn, <int64_t>f.expiry)
    return e._reply(buffer_of(e, op, f), i, UNMET, <const uint8_t*>&version, sizeof(Versioned) if is_there else 0)

cdef inline bint is_met(const Operation* op, const Arguments* a, const Found* f, bint is_there) noexcept nogil:
    if op.flags & IF_ABSENT:
        return not is_there
    if op.flags & IF_PRESENT:
        return is_there
    return is_there and f.header.lsn == a.lsn and f.header.epoch == a.epoch

cdef inline bint answer_old(Engine e, uint32_t i, const Found* f, bint is_there) except -1 nogil:
    # The value that is about to be replaced, or that there is none; False when an error was answered instead.
    cdef Buffer* b = &e.parked if e.parks else &e.replies
    if is_there:
        return e._answer_value(b, i, f, False)
    e._reply(b, i, ABSENT, NULL, 0)
    return True

cdef inline int answer_write(Engine e, uint32_t i, const Operation* op, uint64_t expiry, bint leaves_record) except -1 nogil:
    # Of a set or delete that was applied; WITH_OLD has been answered before. A set that leaves nothing, since its expiry
    # has passed, has made no version.
    cdef Buffer* b = &e.parked if e.parks else &e.replies
    cdef Versioned version = Versioned(0, 0, 0)
    if op.flags & WITH_OLD:
        return 0
    if not op.flags & WITH_VERSION:
        return e._reply(b, i, DONE, NULL, 0)
    if leaves_record:
        version = Versioned(e.epoch, e.lsn, <int64_t>expiry)
    return e._reply(b, i, VERSIONED, <const uint8_t*>&version, sizeof(Versioned))

cdef inline int set_with(Engine e, uint32_t i, const Operation* op, const uint8_t* key, const Arguments* a) except -1 nogil:
    cdef Found f
    cdef int found, outcome
    cdef uint64_t expiry = a.expiry
    if a.value_length > e.value_bytes_max:
        e._fail(i, CODE_VALUE_TOO_LARGE, "")
        return RUN_DONE
    if op.flags & (CONDITION | KEEP_TTL | WITH_OLD):
        found = look(e, i, op, key, &f)
        if found == ANSWERED:
            return RUN_DONE
        if op.flags & CONDITION and not is_met(op, a, &f, found == THERE):
            return answer_unmet(e, i, op, &f, found == THERE)
        if op.flags & KEEP_TTL and found == THERE:
            expiry = f.expiry
    else:
        found = e._locate(op, key, &f)
    if op.flags & WITH_OLD:
        # It is copied before anything is changed, and only when the write cannot fail any more but for memory.
        if not fits(e, KIND_PUT | FLAG_EXPIRY, <uint64_t>RECORD_HEADER + 8 + op.key_length + a.value_length):
            return RUN_ROTATE if answer_misfit(e, i) == RUN_ROTATE else RUN_DONE
        if is_memory_full(e, &f):
            e._fail(i, CODE_MEMORY_FULL, "")
            return RUN_DONE
        if not answer_old(e, i, &f, found == THERE):
            return RUN_DONE
    if a.expires and expiry <= e.now_ms:
        note_arrival(e, op.hash)
        if f.holds or found == UNKNOWN or e.suspect_lsn:
            outcome = write_tombstone(e, i, op, key, &f)
            if outcome != RUN_DONE:
                return RUN_ROTATE if outcome == RUN_ROTATE else RUN_DONE
        return answer_write(e, i, op, 0, False)
    outcome = write_put(e, i, op, key, &f, expiry, 0, a.value, a.value_length)
    if outcome != RUN_DONE:
        return RUN_ROTATE if outcome == RUN_ROTATE else RUN_DONE
    return answer_write(e, i, op, expiry, True)

cdef inline int delete_with(Engine e, uint32_t i, const Operation* op, const uint8_t* key, const Arguments* a) except -1 nogil:
    cdef Found f
    cdef int found = look(e, i, op, key, &f)
    if found == ANSWERED:
        return RUN_DONE
    if op.flags & IF_VERSION and not is_met(op, a, &f, found == THERE):
        return answer_unmet(e, i, op, &f, found == THERE)
    if found != THERE:
        e.deletes += 1
        return e._reply(buffer_of(e, op, &f), i, ABSENT, NULL, 0)
    if not fits(e, KIND_TOMBSTONE, <uint64_t>RECORD_HEADER + op.key_length):
        return RUN_ROTATE if answer_misfit(e, i) == RUN_ROTATE else RUN_DONE
    if op.flags & WITH_OLD and not answer_old(e, i, &f, True):
        return RUN_DONE
    write_tombstone(e, i, op, key, &f)
    e.deletes += 1
    return answer_write(e, i, op, 0, True)
