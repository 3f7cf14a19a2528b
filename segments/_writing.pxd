# What every write of a key is made of: look at what is there, make room, put a record together, let the KeyDir point to it.
#
# The order matters. `make_room` may move the staging buffer; until `end_record` the new record is not counted and nothing
# points to it, so that a write may still be given up; `place` is the only step in between that can fail.
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kio._opbatch cimport Operation
from kio.segments._engine cimport (
    CODE_MEMORY_FULL, FRESH_WORDS, MISFITS_ROTATE, NOT_THERE, RUN_DONE, RUN_ROTATE, THERE, UNKNOWN, Buffer, Engine, Found, Undo,
    end_bytes_of, expiry_of, insert_word, note_arrival, remove_word, replace_word, reserve,
)
from kio.segments._format cimport (
    FLAG_COLLIDES, FLAG_EXPIRY, FLAG_HIDES, FOOTER_BYTES, KIND_PUT, KIND_TOMBSTONE, RECORD_HEADER, Record, key_offset,
    record_bytes,
)
from kio.segments._keydir cimport growth_of, make_word, tag_of, word_slot
from kio.segments._native cimport kio_crc32c, kio_guarded_copy

cdef enum:
    ANSWERED = 3            # the operation was not executed, and has got its error

cdef inline bint is_fresh(Engine e, uint64_t hash) noexcept nogil:
    # Whether a tombstone that is not durable may be why a key of this hash is absent.
    cdef uint32_t at = <uint32_t>(hash >> 6) % FRESH_WORDS
    return ((e.fresh[0][at] | e.fresh[1][at]) >> (hash & 63)) & 1

cdef inline bint is_over(Engine e, uint64_t expiry) noexcept nogil:
    # Whether a record of that expiry, which is intact, counts as absent.
    if expiry == 0 or expiry > e.now_ms:
        return False
    e.expired_ms = max(e.expired_ms, expiry)
    return True

cdef inline int look(Engine e, uint32_t i, const Operation* op, const uint8_t* key, Found* f) except -1 nogil:
    # What an operation that depends on the key's state may rely on: THERE, and the record is intact; NOT_THERE; ANSWERED.
    cdef int found = e._locate(op, key, f)
    f.expiry = 0
    if f.holds and f.header.lsn > e.served_lsn_max:
        e._fail_lost(i)
        return ANSWERED
    if found == UNKNOWN or (e.suspect_lsn and not (f.holds and f.header.lsn >= e.suspect_lsn)):
        e._fail_suspect(i)
        return ANSWERED
    if not f.holds:
        if e.served_lsn_max != UINT64_MAX and is_fresh(e, op.hash):
            e._fail_lost(i)
            return ANSWERED
        return NOT_THERE
    if not e._is_intact(f.record, f.room, word_slot(f.word)):
        e._fail_corrupt(i, f.word)
        return ANSWERED
    f.expiry = expiry_of(&f.header, f.record)
    return NOT_THERE if is_over(e, f.expiry) else THERE

cdef inline Buffer* buffer_of(Engine e, const Operation* op, const Found* f) noexcept nogil:
    # Where an answer goes that tells of the state `look` has found, and of nothing newer.
    if e.parks and (f.header.lsn > e.durable_lsn if f.holds else is_fresh(e, op.hash)):
        return &e.parked
    return &e.replies

cdef inline bint fits(Engine e, uint8_t kind, uint64_t used) noexcept nogil:
    # Whether there is room in the active segment for a record of this kind and flags, and that many bytes, its padding not
    # counted; and for the end that the segment gets when it is sealed. Of a group (_atomic.pyx) that is looked at as a whole.
    cdef uint64_t room
    e.needed_bytes = (used + 7) & ~<uint64_t>7
    if e.open_flag:
        return e.tail + e.needed_bytes <= e.limit
    room = e.needed_bytes + end_bytes_of(kind)
    e.needed_room = room + FOOTER_BYTES
    return e.tail + e.end_bytes + room <= (e.put_limit if kind == KIND_PUT or kind == KIND_PUT | FLAG_EXPIRY else e.limit)

cdef inline int answer_misfit(Engine e, uint32_t i) except -1 nogil:
    # What becomes of an operation whose record does not fit; a group that is too long is told so by its own rule.
    if e.misfits == MISFITS_ROTATE or e.open_flag:
        return RUN_ROTATE
    e._fail_full(i)
    return ANSWERED

cdef inline bint is_memory_full(Engine e, const Found* f) noexcept nogil:
    # Whether a new key is refused: the KeyDir would have to grow, and must not. Where keys were deleted there is room.
    cdef int64_t growth
    if f.holds or e.memory_bytes_max == 0:
        return False
    growth = growth_of(&e.keydir.pages[f.page])
    return growth and e._memory_bytes() + growth > e.memory_bytes_max

cdef inline int make_room(Engine e, Found* f) except -1 nogil:
    # In memory, for the record that `fits`. The one that was found may move.
    reserve(&e.staging, e.needed_bytes)
    reserve(&e.undo, sizeof(Undo))
    if f.holds:
        f.record = e.address(f.word, &f.room)
    return 0

cdef inline uint8_t flags_over(const Found* f) noexcept nogil:
    # The flags of a record that takes the place of what was found.
    return FLAG_HIDES | (f.header.kind & FLAG_COLLIDES) if f.holds else (FLAG_COLLIDES if f.collides else 0)

cdef inline uint8_t* begin_record(Engine e, uint8_t kind, uint8_t keyspace, const uint8_t* key, uint16_t key_length,
                                  uint64_t expiry, uint32_t value_length) noexcept nogil:
    # Put a record together behind what is staged; the place of its value, which the caller fills.
    cdef uint8_t* p = e.staging.data + e.staging.size
    cdef Record* r = <Record*>p
    kind |= e.open_flag
    if expiry:
        kind |= FLAG_EXPIRY
        memcpy(p + RECORD_HEADER, &expiry, 8)
    r.value_length = value_length
    r.lsn = e.lsn + 1
    r.epoch = e.epoch
    r.key_length = key_length
    r.kind = kind
    r.keyspace = keyspace
    p += key_offset(kind)
    if key_length:
        memcpy(p, key, key_length)
    return p + key_length

cdef inline void end_record(Engine e) noexcept nogil:
    # The record that was begun is whole. From here on it is part of the log, unless it is rolled back.
    cdef uint8_t* p = e.staging.data + e.staging.size
    cdef Record* r = <Record*>p
    cdef uint64_t used = <uint64_t>key_offset(r.kind) + r.key_length + r.value_length
    cdef uint64_t size = (used + 7) & ~<uint64_t>7
    memset(p + used, 0, size - used)
    r.crc = kio_crc32c(e.segments[e.active].crc_seed, p + 4, size - 4)
    e.lsn += 1
    e.end_bytes += end_bytes_of(r.kind)
    e.last_record = e.staging.size
    e.staging.size += size
    e.tail += size
    e.segments[e.active].end = e.tail
    e.segments[e.active].record_bytes += size

cdef inline int place(Engine e, const Operation* op, const Found* f) except -1 nogil:
    # Let the KeyDir point to the record that was begun.
    cdef uint64_t word = make_word(tag_of(op.hash), e.active, e.tail)
    cdef uint32_t size = <uint32_t>e.needed_bytes, old
    cdef Undo* undo = <Undo*>(e.undo.data + e.undo.size)
    if f.holds:
        old = <uint32_t>record_bytes(&f.header)
        undo[0] = Undo(op.hash, f.word, word, old, size, op.keyspace)
        replace_word(e, f.page, f.at, word, size, old)
    else:
        undo[0] = Undo(op.hash, 0, word, 0, size, op.keyspace)
        insert_word(e, f.page, word, size, op.keyspace)
    e.undo.size += sizeof(Undo)
    return 0

cdef inline int write_put(Engine e, uint32_t i, const Operation* op, const uint8_t* key, Found* f, uint64_t expiry,
                          uint32_t kept, const uint8_t* more, uint32_t more_length) except -1 nogil:
    # Append a record whose value is the first `kept` bytes of the one that was found, and `more`.
    # Returns RUN_DONE; RUN_ROTATE; ANSWERED.
    cdef uint8_t* value
    if not fits(e, KIND_PUT | FLAG_EXPIRY if expiry else KIND_PUT,
                <uint64_t>RECORD_HEADER + (8 if expiry else 0) + op.key_length + kept + more_length):
        return answer_misfit(e, i)
    e.has_put = True
    if is_memory_full(e, f):
        e._fail(i, CODE_MEMORY_FULL, "")
        return ANSWERED
    make_room(e, f)
    if expiry:
        e.reserve_expiry()
    value = begin_record(e, KIND_PUT | flags_over(f), op.keyspace, key, op.key_length, expiry, kept + more_length)
    if kept and kio_guarded_copy(value, f.record + key_offset(f.header.kind) + f.header.key_length, kept) != 1:
        e._fail_corrupt(i, f.word)
        return ANSWERED
    if more_length:
        memcpy(value + kept, more, more_length)
    place(e, op, f)
    if not f.holds or f.header.kind & FLAG_EXPIRY:
        note_arrival(e, op.hash)
    if expiry:
        e.note_expiry(expiry, op.hash, e.needed_bytes, op.keyspace)
    end_record(e)
    e.sets += 1
    return RUN_DONE

cdef inline int write_tombstone(Engine e, uint32_t i, const Operation* op, const uint8_t* key, Found* f) except -1 nogil:
    # Append a tombstone, and remove the word that was found, if there is one. Where nobody can read whether the key is there,
    # the tombstone makes sure that it never comes back.
    # Returns RUN_DONE; RUN_ROTATE; ANSWERED.
    cdef uint32_t old
    cdef Undo* undo
    if not fits(e, KIND_TOMBSTONE, <uint64_t>RECORD_HEADER + op.key_length):
        return answer_misfit(e, i)
    make_room(e, f)
    begin_record(e, KIND_TOMBSTONE | FLAG_HIDES | (f.header.kind & FLAG_COLLIDES if f.holds else FLAG_COLLIDES), op.keyspace,
                 key, op.key_length, 0, 0)
    if f.holds:
        old = <uint32_t>record_bytes(&f.header)
        undo = <Undo*>(e.undo.data + e.undo.size)
        undo[0] = Undo(op.hash, f.word, 0, old, 0, op.keyspace)
        e.undo.size += sizeof(Undo)
        remove_word(e, f.page, f.at, old, op.keyspace)
    end_record(e)
    e.fresh[0][<uint32_t>(op.hash >> 6) % FRESH_WORDS] |= <uint64_t>1 << (op.hash & 63)
    return RUN_DONE
