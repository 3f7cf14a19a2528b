# The engine's state and layout; _engine.pyx describes them and holds the behaviour.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from kio._opbatch cimport Operation
from kio.segments._expiries cimport ExpiryList, ExpiryQueue
from kio.segments._format cimport EXPIRY_BYTES, FLAG_EXPIRY, HINT_BYTES, RECORD_HEADER, Record, record_bytes
from kio.segments._keydir cimport KeyDir, word_slot
from kio.segments._native cimport kio_guarded_copy, kio_guarded_header

cdef enum:
    SLOTS = 65536
    FRESH_WORDS = 64        # 4,096 bits
    ABSENCE_SETS = 1024
    ABSENCE_WAYS = 4
    CODE_KEY_EMPTY = 16
    CODE_VALUE_TOO_LARGE = 18
    CODE_BAD_REQUEST = 20
    CODE_UNKNOWN_OPERATION = 21
    CODE_NOT_AN_INTEGER = 22
    CODE_NUMBER_OVERFLOW = 23
    CODE_ABORTED = 24
    CODE_REPLY_TOO_LARGE = 35
    CODE_TIMEOUT = 36
    CODE_CORRUPT = 48
    CODE_READ_ONLY = 49
    CODE_DISK_FULL = 50
    CODE_MEMORY_FULL = 54
    RUN_DONE = 0
    RUN_RARE = 1
    RUN_ROTATE = 2
    RUN_FULL = 4            # (3 is ANSWERED, see _writing.pxd)
    MISFITS_ROTATE = 0      # what becomes of a record that does not fit the active segment: it asks for another one
    MISFIT_REFUSED = 1      # the next one is answered DiskFull
    MISFITS_REFUSED = 2     # all are
    NOT_THERE = 0
    THERE = 1
    UNKNOWN = 2             # not there, but a damaged record may have been it

cdef struct Segment:
    const uint8_t* base
    uint64_t end            # records end here: nothing at or behind it is read
    uint64_t id
    uint32_t crc_seed
    int64_t record_bytes
    int64_t live_bytes
    int64_t shadow_bytes    # live ones, as the checkpoint under way counts them

cdef struct Buffer:
    uint8_t* data
    size_t size
    size_t capacity
    uint32_t count

cdef struct Undo:
    uint64_t hash
    uint64_t old_word       # 0: the key was not there
    uint64_t new_word       # 0: it was removed
    uint32_t old_bytes
    uint32_t new_bytes
    uint8_t keyspace

cdef struct Found:
    uint32_t page
    uint32_t at
    bint holds              # the KeyDir holds a word of this key: `at`, `word`, `record` and `header` tell of it
    bint collides           # another key of this tag is there, or may be
    uint64_t word
    const uint8_t* record
    uint64_t room
    Record header
    uint64_t expiry         # 0: none, or not read

cdef inline int reserve(Buffer* b, size_t more) except -1 nogil:
    cdef size_t capacity
    cdef void* data
    if b.size + more > b.capacity:
        capacity = max(b.size + more, b.capacity * 2, <size_t>4096)
        data = realloc(b.data, capacity)
        if data == NULL:
            with gil:
                raise MemoryError(f"no memory for {capacity} bytes of buffer")
        b.data = <uint8_t*>data
        b.capacity = capacity
    return 0


cdef struct Absence:
    uint64_t hash
    uint64_t version    # 0 in a free way

@cython.final
cdef class Engine:
    cdef readonly KeyDir keydir
    cdef readonly uint32_t shard
    cdef readonly uint64_t seed
    cdef readonly uint64_t lsn              # the last one issued
    cdef readonly uint64_t durable_lsn
    cdef public uint64_t suspect_lsn
    #: Records above it were lost by a failed sync and are not served; the highest number while none failed.
    cdef public uint64_t served_lsn_max
    cdef readonly uint32_t epoch
    cdef readonly uint64_t gets, hits, misses, sets, deletes, errors, bytes_read, bytes_written
    cdef bint parks
    cdef uint64_t value_bytes_max, reply_bytes_max
    cdef readonly uint64_t memory_bytes_max
    cdef int64_t keys[256]
    # segments
    cdef Segment* segments
    cdef dict holders                       # slot -> what keeps the mapping alive
    cdef uint32_t slot_max                  # no higher one was ever attached
    cdef uint32_t active
    cdef readonly uint64_t tail             # offset behind the last record
    cdef readonly uint64_t written          # offset behind the last record that store.py has written
    cdef uint64_t limit                     # records and their end (sealing.py) stay below it
    cdef uint64_t put_limit                 # the same for puts
    cdef uint64_t end_bytes                 # what the end of the active segment takes, with the records so far
    cdef uint64_t needed_bytes              # length of the record that was put together, or did not fit
    cdef readonly uint64_t needed_room      # what did not fit, and its part of an end
    cdef readonly uint8_t misfits
    cdef readonly uint64_t refused          # writes that were answered DiskFull
    cdef Buffer staging
    cdef size_t last_record                 # where in `staging` the record begins that was appended last
    # an atomic batch (_atomic.pyx)
    cdef uint8_t open_flag                  # what its records carry, but the last; 0 while none is under way
    cdef bint has_put                       # it has made a put
    cdef bint has_failed                    # an operation was answered with an error, or UNMET
    # what expires
    cdef public uint64_t now_ms             # the shard's clock (clock.py), as it stood when the batch came
    cdef readonly int64_t expired           # keys that are gone because their time had come
    cdef readonly uint64_t expired_ms       # the highest time of those, and of records that were taken for absent
    cdef ExpiryQueue expiries               # of the active segment
    cdef ExpiryList staged_expiries
    # the batch
    cdef bytes batch
    cdef const uint8_t** ops
    cdef size_t ops_capacity
    cdef uint32_t count, index
    cdef uint64_t batch_id
    cdef Buffer replies, parked
    cdef Buffer undo
    # the last commit: where a failed write returns to
    cdef uint32_t commit_index, commit_replies_count, commit_parked_count
    cdef size_t commit_replies_size, commit_parked_size
    cdef uint64_t commit_lsn, commit_end_bytes
    cdef readonly uint8_t refusal           # status of every write, 0 when they are taken
    cdef readonly bytes refusal_message
    # the checkpoint under way (_checkpoint.pyx)
    cdef uint32_t shadow_from               # pages from here on are not copied yet; PAGES while none is under way
    cdef readonly bint is_shadow_void       # a keyspace was cleared since the last one began
    cdef int64_t shadow_keys[256]
    # hashes of keys whose version was asked for while they were absent, until one comes: a version is never given twice
    cdef uint64_t absences_told
    cdef Absence absences[ABSENCE_SETS][ABSENCE_WAYS]
    # the floors (_purge.pyx): a record of the keyspace at or below its floor was cleared, and its word is not counted
    cdef readonly bint has_floors           # a keyspace has one: the KeyDir may hold words of cleared records
    cdef uint32_t floor_epoch[256]          # 0 where it has none
    cdef uint64_t floor_lsn[256]
    cdef uint32_t purge_page, purge_tag     # where the walk goes on,
    cdef uint32_t purge_left                # and how many pages it has yet to come to the end of
    cdef readonly int64_t purged            # words that were removed because their records had been cleared
    # a bit for each hash of a tombstone that is not durable: [0] appended since the sync under way began, [1] covered by it
    cdef uint64_t fresh[2][FRESH_WORDS]

    cdef int reserve_expiry(self) except -1 nogil
    cdef void note_expiry(self, uint64_t at, uint64_t hash, uint64_t size, uint8_t keyspace) noexcept nogil
    cdef bytes _message(self, Buffer* b)
    cdef void _commit(self) noexcept
    cdef const uint8_t* address(self, uint64_t word, uint64_t* room) noexcept nogil
    cdef bint _is_intact(self, const uint8_t* record, uint64_t room, uint32_t slot) noexcept nogil
    cdef int _locate(self, const Operation* op, const uint8_t* key, Found* f) noexcept nogil
    cdef bint _purge_found(self, const Found* f, uint64_t word) noexcept nogil
    cdef int _run(self, uint32_t now_ms) except -1 nogil
    cdef int _execute(self, uint32_t i, uint32_t now_ms) except -1 nogil
    cdef void _prefetch(self, uint32_t start, uint32_t stop) noexcept nogil
    cdef int _get(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil
    cdef int _exists(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil
    cdef int _answer_expired(self, uint32_t i, const Operation* op, const Found* f) except -1 nogil
    cdef int _say_absent(self, Buffer* b, uint32_t i, const Operation* op) except -1 nogil
    cdef int _answer_missing(self, uint32_t i, const Operation* op, int found) except -1 nogil
    cdef int _absent(self, uint32_t i, const Operation* op) except -1 nogil
    cdef int _set(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil
    cdef int _delete(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil
    cdef int _execute_with(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil
    cdef bint _answer_value(self, Buffer* b, uint32_t i, const Found* f, bint is_versioned) except -1 nogil
    cdef uint64_t _memory_bytes(self) noexcept nogil
    cdef int _reply(self, Buffer* b, uint32_t i, uint8_t status, const uint8_t* payload, uint32_t n) except -1 nogil
    cdef int _fail(self, uint32_t i, uint8_t code, const char* message) except -1 nogil
    cdef int _refuse(self, uint32_t i) except -1 nogil
    cdef int _fail_full(self, uint32_t i) except -1 nogil
    cdef int _fail_corrupt(self, uint32_t i, uint64_t word) except -1 nogil
    cdef int _fail_suspect(self, uint32_t i) except -1 nogil
    cdef int _fail_lost(self, uint32_t i) except -1 nogil


cdef inline uint64_t expiry_of(const Record* header, const uint8_t* record) noexcept nogil:
    # The expiry of a record that fits its room; 0 when it has none, or the disk does not deliver it.
    cdef uint64_t at = 0
    if header.kind & FLAG_EXPIRY and kio_guarded_copy(&at, record + RECORD_HEADER, 8) != 1:
        return 0
    return at

cdef inline bint has_expired(Engine engine, const Record* header, const uint8_t* record) noexcept nogil:
    # Believe it only of a record that is intact: a damaged one may look as if it had expired.
    return header.kind & FLAG_EXPIRY and expiry_of(header, record) <= engine.now_ms


cdef inline uint64_t end_bytes_of(uint8_t kind) noexcept nogil:
    # What a record of that kind and flags adds to the end of its segment.
    return HINT_BYTES + (EXPIRY_BYTES if kind & FLAG_EXPIRY else 0)


cdef inline Absence* absences_of(Engine engine, uint64_t hash) noexcept nogil:
    return engine.absences[(hash >> 6) % ABSENCE_SETS]


cdef inline void note_arrival(Engine engine, uint64_t hash) noexcept nogil:
    # A key of this hash may have been absent, and is there; or was, for no time at all.
    cdef Absence* absences = absences_of(engine, hash)
    cdef uint32_t way
    for way in range(ABSENCE_WAYS):
        if absences[way].hash == hash:
            absences[way].version = 0


cdef inline uint64_t version_of_absence(Engine engine, uint64_t hash) noexcept nogil:
    # The same until a key of this hash comes; or until others of its set were asked for more lately, which looks the same.
    cdef Absence* absences = absences_of(engine, hash)
    cdef Absence* oldest = absences
    cdef uint32_t way
    for way in range(ABSENCE_WAYS):
        if absences[way].hash == hash and absences[way].version:
            return absences[way].version
        if absences[way].version < oldest.version:
            oldest = &absences[way]
    engine.absences_told += 1
    oldest[0] = Absence(hash, engine.absences_told)
    return engine.absences_told


# ---- every change of the KeyDir's words, of live bytes and of key counts goes through these ----
# `page` and `at` say where in the KeyDir; lengths are those of the records that the words point to. What a checkpoint
# under way has not copied yet is counted for it too.

cdef inline void account(Engine engine, uint32_t page, uint64_t word, int64_t live_bytes) noexcept nogil:
    engine.segments[word_slot(word)].live_bytes += live_bytes
    if page >= engine.shadow_from:
        engine.segments[word_slot(word)].shadow_bytes += live_bytes

cdef inline void count(Engine engine, uint32_t page, uint8_t keyspace, int keys) noexcept nogil:
    engine.keys[keyspace] += keys
    if page >= engine.shadow_from:
        engine.shadow_keys[keyspace] += keys

cdef inline int insert_word(Engine engine, uint32_t page, uint64_t word, uint32_t length, uint8_t keyspace) except -1 nogil:
    # Nothing has changed when there is no memory for it.
    engine.keydir.insert(page, word)
    account(engine, page, word, length)
    count(engine, page, keyspace, 1)
    return 0

cdef inline void replace_word(Engine engine, uint32_t page, uint32_t at, uint64_t word, uint32_t length,
                              uint32_t old_length) noexcept nogil:
    cdef uint64_t* place = engine.keydir.pages[page].words + at
    account(engine, page, place[0], -<int64_t>old_length)
    account(engine, page, word, length)
    place[0] = word

cdef inline void remove_word(Engine engine, uint32_t page, uint32_t at, uint32_t length, uint8_t keyspace) noexcept nogil:
    account(engine, page, engine.keydir.pages[page].words[at], -<int64_t>length)
    count(engine, page, keyspace, -1)
    engine.keydir.remove_at(page, at)

cdef inline void purge_word(Engine engine, uint32_t page, uint32_t at, uint32_t length) noexcept nogil:
    # The word of a cleared record: its key was taken out of the count by the clear.
    account(engine, page, engine.keydir.pages[page].words[at], -<int64_t>length)
    engine.keydir.remove_at(page, at)
    engine.purged += 1

cdef inline void forget_words(Engine engine) noexcept nogil:
    # All of them, and the memory they stood in.
    cdef uint32_t i
    engine.keydir.reset()
    for i in range(engine.slot_max + 1):
        engine.segments[i].live_bytes = 0
    for i in range(256):
        engine.keys[i] = 0
    drop_floors(engine)

cdef inline void drop_floors(Engine engine) noexcept nogil:
    # No word of a cleared record is left.
    engine.has_floors = False
    engine.purge_left = 0
    memset(engine.floor_epoch, 0, sizeof(engine.floor_epoch))
    memset(engine.floor_lsn, 0, sizeof(engine.floor_lsn))


# ---- whether a record was cleared; to be asked only where `has_floors` ----

cdef inline bint is_below_floor(Engine engine, uint8_t keyspace, uint32_t epoch, uint64_t lsn) noexcept nogil:
    return epoch < engine.floor_epoch[keyspace] or (epoch == engine.floor_epoch[keyspace] and lsn <= engine.floor_lsn[keyspace])

cdef inline uint32_t cleared_bytes(Engine engine, const uint8_t* record, uint64_t room) noexcept nogil:
    # The length of a record that was cleared; 0 where it was not. Its header alone tells: a record that is damaged
    # elsewhere is cleared as well, and nobody misses it.
    cdef Record header
    if kio_guarded_header(&header, record, room) == 1 and is_below_floor(engine, header.keyspace, header.epoch, header.lsn):
        return <uint32_t>record_bytes(&header)
    return 0
