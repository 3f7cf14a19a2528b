# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The engine: executes op batches against the KeyDir and the segments, batch in, replies out.

Owns: the KeyDir, the table of attached segments, and the tail of the active one: records that were appended but not yet
written stand in `staging`, and reads find them there. It makes no system call: `store.py` writes what is staged, and
decides about rotation, fsync and what happens when the disk refuses.
Used by the worker's thread only.

Invariants
  * Key bytes are compared on read and on overwrite; a word's tag only says where to look.
  * Every value that leaves was verified against its record's checksum in the same call.
  * A candidate that is damaged and does not hold the key may have been the key: then the answer is Corrupt, never "absent".
  * Below `suspect_lsn` a record whose key nobody can read was lost (recovery.py): whatever it may hide is answered Corrupt.
  * Records never take the room that the end of their segment needs (sealing.py): a full disk cannot keep it from being sealed.
  * Between two commits (`wrote`) every change of the KeyDir stands in the undo list, so that a failed write leaves no trace.
    The word of a cleared record may go at any time: it is nobody's, and no undo brings it back.
  * A record at or below its keyspace's floor is absent (`cleared`): nothing but the purge ever sees one (_purge.pyx).
  * With `parks`, what is not durable yet is visible only in the parked replies: writes, reads of records above
    `durable_lsn`, and misses that a fresh tombstone may have caused.

A batch is run in groups of 32: first the KeyDir lines of all are prefetched, then the records they point to, then each
operation is executed in order; so the cache misses of a group overlap.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset, strlen

from kio._opbatch cimport (
    ABSENT, BATCH_MAGIC, DONE, ERROR, OP_DELETE, OP_EXISTS, OP_GET, OP_RARE, OP_SET, OP_TTL, REPLIES_MAGIC, UNMET, VALUE,
    VERSIONED, WITH_VERSION, Entry, Header, Operation, Versioned,
)
from kio.segments._arguments cimport Arguments, take_arguments
from kio.segments._expiries cimport ExpiryQueue, add_expiry, reserve_expiries
from kio.segments._format cimport (
    FLAG_EXPIRY, FOOTER_BYTES, KIND_CLEAR, KIND_MASK, KIND_PUT, RECORD_HEADER, Expiry, Record, key_offset, order_of,
    record_bytes,
)
from kio.segments._keydir cimport (
    PAGES, TAG_BITS, KeyDir, Page, first_of, page_of, tag_of, word_offset, word_slot, word_tag,
)
from kio.segments._native cimport kio_guarded_copy, kio_guarded_header, kio_guarded_peek, kio_guarded_read, kio_prefetch, setup
from kio.segments._options cimport delete_with, set_with
from kio.segments._updates cimport ttl, update
from kio.segments._writing cimport (
    ANSWERED, begin_record, buffer_of, end_record, fits, is_fresh, look, write_put, write_tombstone,
)

import os

from kio import errors, limits


setup()

cdef enum:
    GROUP = 32
    REPLIES_KEPT = 4 << 20      # a reply buffer larger than this is given back after its batch

assert (
    errors.KeyEmpty.code, errors.ValueTooLarge.code, errors.BadRequest.code, errors.UnknownOperation.code,
    errors.NotAnInteger.code, errors.NumberOverflow.code, errors.ReplyTooLarge.code, errors.Timeout.code,
    errors.Corrupt.code, errors.ShardReadOnly.code, errors.DiskFull.code, errors.MemoryFull.code,
) == (
    CODE_KEY_EMPTY, CODE_VALUE_TOO_LARGE, CODE_BAD_REQUEST, CODE_UNKNOWN_OPERATION, CODE_NOT_AN_INTEGER,
    CODE_NUMBER_OVERFLOW, CODE_REPLY_TOO_LARGE, CODE_TIMEOUT, CODE_CORRUPT, CODE_READ_ONLY, CODE_DISK_FULL, CODE_MEMORY_FULL,
)

#: What `Engine.run` stopped for.
DONE_RUNNING = RUN_DONE
RARE_OPERATION = RUN_RARE
NEEDS_ROTATION = RUN_ROTATE
REPLIES_FULL = RUN_FULL
#: For `Engine.refuse_misfits`.
ROTATE_MISFITS = MISFITS_ROTATE
REFUSE_MISFIT = MISFIT_REFUSED
REFUSE_MISFITS = MISFITS_REFUSED


@cython.final
cdef class Engine:
    """One shard's engine, with no segment attached yet.

    Args:
        shard, seed: the shard's number and the directory's hash seed.
        value_bytes_max: a longer value is answered ValueTooLarge.
        parks: sync is "always": keep what is not durable apart.
        reply_bytes_max: past this, replies are taken before the batch goes on; within an atomic one, reads are answered
            ReplyTooLarge.
        memory_bytes_max: where the KeyDir would grow past it, new keys are answered MemoryFull; 0 is no bound.
    """

    def __cinit__(self, uint32_t shard, uint64_t seed, *, uint64_t value_bytes_max=limits.VALUE_BYTES_MAX,
                  bint parks=False, uint64_t reply_bytes_max=limits.REPLY_BYTES_MAX, uint64_t memory_bytes_max=0):
        self.segments = <Segment*>calloc(SLOTS, sizeof(Segment))
        if self.segments == NULL:
            raise MemoryError("no memory for the segment table")
        self.keydir = KeyDir()
        self.holders = {}
        self.shard = shard
        self.seed = seed
        self.value_bytes_max = value_bytes_max
        self.reply_bytes_max = reply_bytes_max
        self.memory_bytes_max = memory_bytes_max
        self.parks = parks
        self.refusal_message = b""
        self.served_lsn_max = UINT64_MAX
        self.shadow_from = PAGES
        # Far from where any engine before it began: what they told is told by none again.
        self.absences_told = int.from_bytes(os.urandom(7), "little")

    def __dealloc__(self):
        free(self.segments)
        free(self.staging.data)
        free(self.replies.data)
        free(self.parked.data)
        free(self.undo.data)
        free(self.staged_expiries.items)
        free(self.ops)

    # ---- segments ----

    def attach(self, uint32_t slot, uint64_t segment, const uint8_t[::1] mapping, uint64_t end, uint32_t crc_seed,
               int64_t record_bytes, int64_t live_bytes):
        """Let the records of `mapping` below offset `end` be read as `slot` (1 to 65,535).

        Borrows: `mapping`, until `detach`.
        """
        if not 0 < slot < SLOTS or self.segments[slot].base != NULL or end > <uint64_t>mapping.shape[0]:
            raise ValueError(f"segment {segment} cannot be attached to slot {slot} up to offset {end}")
        self.holders[slot] = mapping
        self.segments[slot] = Segment(&mapping[0], end, segment, crc_seed, record_bytes, live_bytes, live_bytes)
        self.slot_max = max(self.slot_max, slot)

    def detach(self, uint32_t slot):
        """Forget the mapping of `slot`; no word of the KeyDir points there any more."""
        self.segments[slot] = Segment(NULL, 0, 0, 0, 0, 0, 0)
        del self.holders[slot]

    def activate(self, uint32_t slot, uint64_t limit, uint32_t epoch, ExpiryQueue expiries not None):
        """Append from now on to the attached segment `slot`, which holds no record yet.

        Args:
            limit: up to here there is room for records and the end that they get when the segment is sealed.
            expiries: gets what is appended and expires, once it is written.
        """
        if self.staging.size:
            raise ValueError("records are staged for the segment that was active")
        self.active = slot
        self.tail = self.written = self.segments[slot].end
        self.limit = self.put_limit = limit
        self.end_bytes = self.commit_end_bytes = FOOTER_BYTES
        self.epoch = epoch
        self.expiries = expiries

    def keep_back(self, uint64_t size):
        """Take no puts, from now on, into the last `size` bytes of the active segment: they are for tombstones and clears."""
        self.put_limit = self.limit - size

    @property
    def room(self):
        """Bytes that the active segment still has for puts and their part of its end."""
        cdef uint64_t used = self.tail + self.end_bytes
        return self.put_limit - used if used < self.put_limit else 0

    def refuse_misfits(self, uint8_t misfits):
        """What becomes of records that do not fit: MISFITS_ROTATE, MISFIT_REFUSED (until the batch ends) or MISFITS_REFUSED."""
        self.misfits = misfits

    def start_at(self, uint64_t lsn, uint64_t durable_lsn):
        """Set the last LSN issued and the last durable one: once, when recovery knows them."""
        self.lsn = self.commit_lsn = lsn
        self.durable_lsn = durable_lsn

    def serve_durable_only(self):
        """Nothing will become durable any more: serve what is, and let no reply wait for the rest."""
        self.served_lsn_max = self.durable_lsn
        self.parks = False

    def set_keys(self, counts):
        """Take over the number of keys in each of the 256 keyspaces, as recovery counted them."""
        for i in range(256):
            self.keys[i] = counts[i]

    def usage(self, uint32_t slot):
        """(end offset, bytes of records, bytes of live records) of an attached segment."""
        cdef Segment* s = &self.segments[slot]
        return s.end, s.record_bytes, s.live_bytes

    def count_keys(self, int keyspace=-1):
        """Keys in one keyspace, or in all of them."""
        cdef int64_t total = 0
        if keyspace >= 0:
            return self.keys[keyspace & 255]
        for i in range(256):
            total += self.keys[i]
        return total

    @property
    def memory_bytes(self):
        """What counts towards `memory_bytes_max`: the KeyDir, the buffers, the expiries of the active segment."""
        return self._memory_bytes()

    cdef uint64_t _memory_bytes(self) noexcept nogil:
        cdef size_t expiries = self.staged_expiries.capacity
        if self.expiries is not None:
            expiries += self.expiries.line.capacity + self.expiries.heap.capacity
        return <uint64_t>self.keydir.allocated_bytes + self.staging.capacity + self.undo.capacity + self.replies.capacity \
            + self.parked.capacity + self.ops_capacity * sizeof(void*) + expiries * sizeof(Expiry)

    @property
    def keys_fit(self):
        """About how many keys there can be within `memory_bytes_max`; 0 where there is no such bound."""
        cdef int64_t buffers = <int64_t>self._memory_bytes() - self.keydir.allocated_bytes
        if self.memory_bytes_max == 0:
            return 0
        return max(self.keydir.used, KeyDir.words_in(<int64_t>self.memory_bytes_max - buffers))

    # ---- a batch ----

    def begin(self, bytes batch):
        """Take a batch over; nothing is executed yet.

        Raises: ProtocolError when the message is not a whole batch.
        """
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(batch)
        cdef size_t size = PyBytes_GET_SIZE(batch), at = sizeof(Header)
        cdef const Header* header = <const Header*>p
        cdef const Operation* op
        cdef uint32_t i
        cdef void* ops
        if size < sizeof(Header) or header.magic != BATCH_MAGIC or header.count > size // sizeof(Operation):
            raise errors.ProtocolError(f"{size} bytes are not an op batch")
        if header.count > self.ops_capacity:
            ops = realloc(self.ops, header.count * sizeof(void*))
            if ops == NULL:
                raise MemoryError("no memory for a batch")
            self.ops = <const uint8_t**>ops
            self.ops_capacity = header.count
        for i in range(header.count):
            op = <const Operation*>(p + at)
            if at + sizeof(Operation) > size or at + sizeof(Operation) + op.key_length + op.value_length > size:
                raise errors.ProtocolError(f"an op batch of {size} bytes ends inside operation {i}")
            self.ops[i] = p + at
            at += sizeof(Operation) + op.key_length + op.value_length
        self.batch = batch
        self.batch_id = header.batch_id
        self.count = header.count
        self.index = 0
        if self.misfits == MISFIT_REFUSED:
            self.misfits = MISFITS_ROTATE
        self.replies.size = self.parked.size = sizeof(Header)
        self.replies.count = self.parked.count = 0
        reserve(&self.replies, 0)
        reserve(&self.parked, 0)
        self._commit()

    def run(self, uint32_t now_ms):
        """Execute up to the batch's end, a rare operation, or a record that does not fit the active segment.

        Returns: DONE_RUNNING, RARE_OPERATION (answer it with `reply`, then run on), NEEDS_ROTATION (`needed_room`) or
        REPLIES_FULL (`take_replies`, when what is staged is written, then run on).
        """
        cdef int stopped
        with nogil:
            stopped = self._run(now_ms)
        return stopped

    def take_replies(self):
        """(replies, parked) since they were last taken, as messages; b"" where there is none. Nothing is staged."""
        now = self._message(&self.replies)
        parked = self._message(&self.parked)
        self.replies.count = self.parked.count = 0
        if self.index == self.count:
            self.batch = None
        self._commit()
        return now, parked

    cdef bytes _message(self, Buffer* b):
        cdef Header header
        cdef bytes message = b""
        if b.count:
            header = Header(REPLIES_MAGIC, self.shard, self.batch_id, b.count, 0)
            memcpy(b.data, &header, sizeof(Header))
            message = PyBytes_FromStringAndSize(<char*>b.data, b.size)
        if b.capacity > REPLIES_KEPT:
            free(b.data)
            b.data = NULL
            b.capacity = 0
        b.size = sizeof(Header)
        return message

    # ---- what store.py does with the staged records ----

    def staged(self):
        """The bytes to write at offset `written` of the active segment. Borrows: valid until the next call of `run`."""
        if self.staging.size == 0:
            return None
        return <const uint8_t[:self.staging.size]>self.staging.data

    def wrote(self):
        """What was staged is written: it can no longer be undone."""
        cdef size_t i
        for i in range(self.staged_expiries.count):
            self.expiries.add(&self.staged_expiries.items[i])
        self.staged_expiries.count = 0
        self.written = self.tail
        self.bytes_written += self.staging.size
        self.staging.size = 0
        if self.staging.capacity > REPLIES_KEPT:
            free(self.staging.data)
            self.staging.data = NULL
            self.staging.capacity = 0
        self._commit()

    def rollback(self):
        """Undo everything since the last commit, and return there in the batch; the LSNs were never seen and are free again."""
        cdef Undo* u
        cdef uint32_t page
        cdef int64_t i, at
        for i in range(<int64_t>(self.undo.size // sizeof(Undo)) - 1, -1, -1):
            u = &(<Undo*>self.undo.data)[i]
            page = page_of(u.hash)
            if u.new_word == 0:
                insert_word(self, page, u.old_word, u.old_bytes, u.keyspace)
                continue
            at = self.keydir.find_word(page, u.new_word)
            if u.old_word:
                replace_word(self, page, at, u.old_word, u.old_bytes, u.new_bytes)
            else:
                remove_word(self, page, at, u.new_bytes, u.keyspace)
        self.segments[self.active].record_bytes -= self.tail - self.written
        self.segments[self.active].end = self.tail = self.written
        self.staging.size = self.undo.size = 0
        self.staged_expiries.count = 0
        self.lsn = self.commit_lsn
        self.end_bytes = self.commit_end_bytes
        self.index = self.commit_index
        self.replies.size, self.replies.count = self.commit_replies_size, self.commit_replies_count
        self.parked.size, self.parked.count = self.commit_parked_size, self.commit_parked_count

    def refuse(self, uint8_t code, message=""):
        """Answer every write with this error from now on; code 0 takes writes again."""
        self.refusal = code
        self.refusal_message = message.encode()

    cdef void _commit(self) noexcept:
        self.undo.size = 0
        self.commit_lsn = self.lsn
        self.commit_end_bytes = self.end_bytes
        self.commit_index = self.index
        self.commit_replies_size, self.commit_replies_count = self.replies.size, self.replies.count
        self.commit_parked_size, self.commit_parked_count = self.parked.size, self.parked.count

    def sync_started(self):
        """A sync that covers everything up to now begins."""
        cdef int i
        for i in range(FRESH_WORDS):
            self.fresh[1][i] |= self.fresh[0][i]
        memset(self.fresh[0], 0, sizeof(self.fresh[0]))

    def sync_finished(self, uint64_t lsn):
        """The sync that began when `lsn` was the last one has succeeded."""
        memset(self.fresh[1], 0, sizeof(self.fresh[1]))
        if lsn > self.durable_lsn:
            self.durable_lsn = lsn

    # ---- rare operations ----

    def rare(self):
        """(op, keyspace, value) of the operation that `run` stopped at."""
        cdef const Operation* op = <const Operation*>self.ops[self.index]
        cdef const uint8_t* value = self.ops[self.index] + sizeof(Operation) + op.key_length
        return op.op, op.keyspace, <bytes>PyBytes_FromStringAndSize(<const char*>value, op.value_length)

    def rare_flags(self):
        """The flags of the operation that `run` stopped at."""
        return (<const Operation*>self.ops[self.index]).flags

    def look_at(self):
        """What the key of the operation that `run` stopped at holds: (value, expiry in ms since 1970, 0 for none), or None.

        Returns: False, where that cannot be told: then the operation has been answered.
        """
        cdef const Operation* op = <const Operation*>self.ops[self.index]
        cdef const uint8_t* key = self.ops[self.index] + sizeof(Operation)
        cdef Found f
        cdef int found = NOT_THERE
        cdef bytes value
        if op.key_length == 0:
            self._fail(self.index, CODE_KEY_EMPTY, "")
            found = ANSWERED
        else:
            found = look(self, self.index, op, key, &f)
        if found == THERE:
            value = PyBytes_FromStringAndSize(NULL, f.header.value_length)
            if kio_guarded_copy(PyBytes_AS_STRING(value), f.record + key_offset(f.header.kind) + f.header.key_length,
                                f.header.value_length) == 1:
                self.hits += 1
                self.gets += 1
                self.bytes_read += f.header.value_length
                return value, f.expiry
            self._fail_corrupt(self.index, f.word)
            found = ANSWERED
        if found == ANSWERED:
            self.index += 1
            return False
        self.gets += 1
        self.misses += 1
        return None

    def change(self, bytes value, uint64_t expiry=0):
        """Store `value` (bytes) under the key that `look_at` has looked at, or remove it (None).

        Returns: DONE_RUNNING, and the operation is still to be answered; NEEDS_ROTATION (`needed_room`), and nothing has
        changed; None, when it was refused, and answered so.
        """
        cdef const Operation* op = <const Operation*>self.ops[self.index]
        cdef const uint8_t* key = self.ops[self.index] + sizeof(Operation)
        cdef Found f
        cdef int outcome
        if self.refusal:
            self._refuse(self.index)
            outcome = ANSWERED
        elif value is not None and <uint64_t>PyBytes_GET_SIZE(value) > self.value_bytes_max:
            self._fail(self.index, CODE_VALUE_TOO_LARGE, "")
            outcome = ANSWERED
        else:
            outcome = look(self, self.index, op, key, &f)
            if outcome == ANSWERED:
                pass
            elif value is None:
                outcome = RUN_DONE
                if f.holds:
                    outcome = write_tombstone(self, self.index, op, key, &f)
                self.deletes += outcome == RUN_DONE
            else:
                outcome = write_put(self, self.index, op, key, &f, expiry, 0, <const uint8_t*>PyBytes_AS_STRING(value),
                                    <uint32_t>PyBytes_GET_SIZE(value))
        if outcome == ANSWERED:
            self.index += 1
            return None
        return outcome

    def reply(self, uint8_t status, bytes payload=b""):
        """Answer the operation that `run` stopped at; it is parked when anything at all is not durable."""
        cdef Buffer* b = &self.parked if self.parks and self.lsn > self.durable_lsn else &self.replies
        self._reply(b, self.index, status, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        if status >= ERROR:
            self.errors += 1
        self.index += 1

    def reply_durable(self, uint8_t status, bytes payload=b""):
        """Answer the operation that `run` stopped at, parked until all that was written is durable, whatever `parks` says."""
        cdef Buffer* b = &self.parked if self.lsn > self.durable_lsn else &self.replies
        self._reply(b, self.index, status, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.index += 1

    def stage_clear(self, uint8_t keyspace):
        """Stage the record that says: nothing older in this keyspace counts. False when it does not fit the active segment."""
        if not fits(self, KIND_CLEAR, RECORD_HEADER):
            return False
        reserve(&self.staging, RECORD_HEADER)
        begin_record(self, KIND_CLEAR, keyspace, NULL, 0, 0, 0)
        end_record(self)
        return True

    def cleared(self, uint8_t keyspace):
        """A clear record was written, and nothing was staged since: from now on no record before it counts. Cost: O(1).

        Where no other keyspace holds a key, the KeyDir is emptied, and its memory given back. Otherwise the words stay:
        they are below the keyspace's floor, and `purge` (_purge.pyx) has to walk over the whole KeyDir.
        """
        if self.keys[keyspace] == self.count_keys():
            forget_words(self)
        elif self.keys[keyspace]:
            self.floor_epoch[keyspace], self.floor_lsn[keyspace] = self.epoch, self.lsn
            self.has_floors = True
            # A page that the walk is in the middle of is walked to its end, and once more.
            self.purge_left = PAGES + (self.purge_tag != 0)
        self.keys[keyspace] = 0
        self.is_shadow_void = True
        # Until the clear record is durable, it may be why any key is absent.
        memset(self.fresh[0], 0xFF, sizeof(self.fresh[0]))

    # ---- the common operations ----

    cdef const uint8_t* address(self, uint64_t word, uint64_t* room) noexcept nogil:
        """Where the record of a word stands, and how many bytes of records are left from there."""
        cdef uint32_t slot = word_slot(word)
        cdef uint64_t offset = word_offset(word)
        cdef Segment* s = &self.segments[slot]
        room[0] = s.end - offset if offset < s.end else 0
        if slot == self.active and offset >= self.written:
            return self.staging.data + (offset - self.written)
        return s.base + offset

    cdef bint _is_intact(self, const uint8_t* record, uint64_t room, uint32_t slot) noexcept nogil:
        cdef Record header
        return kio_guarded_header(&header, record, room) == 1 \
            and kio_guarded_read(record, record_bytes(&header), self.segments[slot].crc_seed, NULL, 0, 0) == 1

    cdef int _locate(self, const Operation* op, const uint8_t* key, Found* f) noexcept nogil:
        """Find the key's word: THERE (`f` says where), NOT_THERE, or UNKNOWN."""
        cdef uint32_t tag = tag_of(op.hash)
        cdef Page* page
        cdef uint64_t word
        cdef int answer = NOT_THERE
        f.page = page_of(op.hash)
        page = &self.keydir.pages[f.page]
        f.at = first_of(page, tag)
        f.holds = f.collides = False
        while True:
            word = page.words[f.at]
            if word == 0 or word_tag(word) != tag:
                return answer
            f.record = self.address(word, &f.room)
            if self.has_floors and self._purge_found(f, word):
                # What stood behind it has moved up, and maybe the page.
                f.at = first_of(page, tag)
                f.collides = False
                answer = NOT_THERE
                continue
            if kio_guarded_peek(&f.header, f.record, f.room, key, op.key_length, op.keyspace) == 1:
                if f.header.kind & KIND_MASK == KIND_PUT:
                    f.word = word
                    f.holds = True
                    return THERE
                answer = UNKNOWN
            elif not self._is_intact(f.record, f.room, word_slot(word)):
                answer = UNKNOWN
            f.collides = True
            f.at += 1

    cdef bint _purge_found(self, const Found* f, uint64_t word) noexcept nogil:
        """Remove the word that was come upon, if its record was cleared."""
        cdef uint32_t length = cleared_bytes(self, f.record, f.room)
        if length:
            purge_word(self, f.page, f.at, length)
        return length != 0

    cdef int _run(self, uint32_t now_ms) except -1 nogil:
        cdef uint32_t stop, i
        cdef int stopped
        while self.index < self.count:
            stop = min(self.index + GROUP, self.count)
            if stop - self.index > 1:
                self._prefetch(self.index, stop)
            for i in range(self.index, stop):
                self.index = i
                stopped = self._execute(i, now_ms)
                if stopped != RUN_DONE:
                    return stopped
            self.index = stop
        return RUN_DONE

    cdef int _execute(self, uint32_t i, uint32_t now_ms) except -1 nogil:
        """Execute and answer one operation: RUN_DONE; or leave it for later, with nothing changed: any other."""
        cdef const Operation* op = <const Operation*>self.ops[i]
        cdef const uint8_t* key = self.ops[i] + sizeof(Operation)
        if op.deadline and <int32_t>(now_ms - op.deadline) > 0:
            return self._fail(i, CODE_TIMEOUT, "the deadline passed before the operation was executed; nothing was applied")
        if op.op >= OP_RARE:
            return RUN_RARE
        if op.key_length == 0:
            return self._fail(i, CODE_KEY_EMPTY, "")
        if op.flags or op.op > OP_EXISTS:
            return self._execute_with(i, op, key)
        if op.op == OP_GET:
            return self._get(i, op, key)
        if op.op == OP_EXISTS:
            return self._exists(i, op, key)
        if op.op != OP_SET and op.op != OP_DELETE:
            return self._fail(i, CODE_UNKNOWN_OPERATION, "")
        if self.refusal:
            return self._refuse(i)
        if op.value_length > self.value_bytes_max:
            return self._fail(i, CODE_VALUE_TOO_LARGE, "")
        return self._set(i, op, key) if op.op == OP_SET else self._delete(i, op, key)

    cdef void _prefetch(self, uint32_t start, uint32_t stop) noexcept nogil:
        cdef uint32_t i, at, tag
        cdef const Operation* op
        cdef Page* page
        cdef uint64_t room
        cdef const uint8_t* record
        for i in range(start, stop):
            op = <const Operation*>self.ops[i]
            page = &self.keydir.pages[page_of(op.hash)]
            kio_prefetch(page.words + ((<uint64_t>tag_of(op.hash) * page.homes) >> TAG_BITS))
        for i in range(start, stop):
            op = <const Operation*>self.ops[i]
            page = &self.keydir.pages[page_of(op.hash)]
            tag = tag_of(op.hash)
            at = first_of(page, tag)
            if page.words[at] != 0 and word_tag(page.words[at]) == tag:
                record = self.address(page.words[at], &room)
                kio_prefetch(record)
                kio_prefetch(record + 64)

    cdef int _get(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
        cdef Found f
        cdef Buffer* b
        cdef int found = self._locate(op, key, &f)
        self.gets += 1
        if found == THERE and f.header.lsn > self.served_lsn_max:
            return self._fail_lost(i)
        if found == THERE and f.header.lsn >= self.suspect_lsn:
            if f.header.kind & FLAG_EXPIRY and has_expired(self, &f.header, f.record):
                return self._answer_expired(i, op, &f)
            b = &self.parked if self.parks and f.header.lsn > self.durable_lsn else &self.replies
            if not self.open_flag and b.count and b.size + f.header.value_length > self.reply_bytes_max:
                self.gets -= 1
                return RUN_FULL
            if self._answer_value(b, i, &f, op.flags & WITH_VERSION != 0):
                self.hits += 1
            return 0
        return self._answer_missing(i, op, found)

    cdef bint _answer_value(self, Buffer* b, uint32_t i, const Found* f, bint is_versioned) except -1 nogil:
        """Answer VALUE, or VERSIONED, with what was found; False when the answer is an error."""
        cdef Entry* entry
        cdef Versioned* version
        cdef uint32_t head = sizeof(Versioned) if is_versioned else 0
        if b.count and b.size + f.header.value_length > self.reply_bytes_max:
            self._fail(i, CODE_REPLY_TOO_LARGE, "")
            return False
        reserve(b, sizeof(Entry) + head + f.header.value_length)
        if kio_guarded_read(f.record, record_bytes(&f.header), self.segments[word_slot(f.word)].crc_seed,
                            b.data + b.size + sizeof(Entry) + head, key_offset(f.header.kind) + f.header.key_length,
                            f.header.value_length) != 1:
            self._fail_corrupt(i, f.word)
            return False
        entry = <Entry*>(b.data + b.size)
        memset(entry, 0, sizeof(Entry))
        entry.index, entry.status, entry.payload_length = i, VALUE, head + f.header.value_length
        if is_versioned:
            entry.status = VERSIONED
            version = <Versioned*>(b.data + b.size + sizeof(Entry))
            version[0] = Versioned(f.header.epoch, f.header.lsn, <int64_t>expiry_of(&f.header, f.record))
        b.size += sizeof(Entry) + head + f.header.value_length
        b.count += 1
        self.bytes_read += f.header.value_length
        return True

    cdef int _exists(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
        cdef Found f
        cdef Versioned version
        cdef int found = self._locate(op, key, &f)
        self.gets += 1
        if found == THERE and f.header.lsn > self.served_lsn_max:
            return self._fail_lost(i)
        if found == THERE and f.header.lsn >= self.suspect_lsn:
            if has_expired(self, &f.header, f.record):
                return self._answer_expired(i, op, &f)
            if not self._is_intact(f.record, f.room, word_slot(f.word)):
                return self._fail_corrupt(i, f.word)
            self.hits += 1
            if op.flags & WITH_VERSION:
                version = Versioned(f.header.epoch, f.header.lsn, <int64_t>expiry_of(&f.header, f.record))
                return self._reply(buffer_of(self, op, &f), i, VERSIONED, <const uint8_t*>&version, sizeof(Versioned))
            return self._reply(buffer_of(self, op, &f), i, DONE, NULL, 0)
        return self._answer_missing(i, op, found)

    cdef int _answer_expired(self, uint32_t i, const Operation* op, const Found* f) except -1 nogil:
        """Answer that a key is not there, since its time has come, if the record is one to believe."""
        if not self._is_intact(f.record, f.room, word_slot(f.word)):
            return self._fail_corrupt(i, f.word)
        self.expired_ms = max(self.expired_ms, expiry_of(&f.header, f.record))
        if op.op != OP_DELETE:
            self.misses += 1
        return self._say_absent(buffer_of(self, op, f), i, op)

    cdef int _answer_missing(self, uint32_t i, const Operation* op, int found) except -1 nogil:
        if found == UNKNOWN or self.suspect_lsn:
            return self._fail_suspect(i)
        return self._absent(i, op)

    cdef int _absent(self, uint32_t i, const Operation* op) except -1 nogil:
        """Answer that a key is not there, when that is durable; a tombstone that is not may be the reason."""
        cdef bint fresh = is_fresh(self, op.hash)
        if fresh and self.served_lsn_max != UINT64_MAX:
            return self._fail_lost(i)
        if op.op != OP_DELETE:
            self.misses += 1
        return self._say_absent(&self.parked if fresh and self.parks else &self.replies, i, op)

    cdef int _say_absent(self, Buffer* b, uint32_t i, const Operation* op) except -1 nogil:
        cdef Versioned version
        if op.op == OP_EXISTS and op.flags & WITH_VERSION:
            # It changes when the key comes: so absent again is not absent still.
            version = Versioned(0, version_of_absence(self, op.hash), 0)
            return self._reply(b, i, VERSIONED, <const uint8_t*>&version, sizeof(Versioned))
        return self._reply(b, i, ABSENT, NULL, 0)

    cdef int _set(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
        cdef Found f
        cdef int outcome
        self._locate(op, key, &f)
        outcome = write_put(self, i, op, key, &f, 0, 0, key + op.key_length, op.value_length)
        if outcome == RUN_DONE:
            return self._reply(&self.parked if self.parks else &self.replies, i, DONE, NULL, 0)
        return RUN_ROTATE if outcome == RUN_ROTATE else RUN_DONE

    cdef int _delete(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
        cdef Found f
        cdef int outcome, found = self._locate(op, key, &f)
        if found == NOT_THERE and self.suspect_lsn == 0:
            self.deletes += 1
            return self._absent(i, op)
        if found == THERE and f.header.kind & FLAG_EXPIRY and f.header.lsn >= self.suspect_lsn \
                and has_expired(self, &f.header, f.record) and self._is_intact(f.record, f.room, word_slot(f.word)):
            self.deletes += 1
            return self._answer_expired(i, op, &f)
        outcome = write_tombstone(self, i, op, key, &f)
        if outcome != RUN_DONE:
            return RUN_ROTATE if outcome == RUN_ROTATE else RUN_DONE
        self.deletes += 1
        return self._reply(&self.parked if self.parks else &self.replies, i, DONE, NULL, 0)

    cdef int reserve_expiry(self) except -1 nogil:
        """Make sure that one more expiry can be noted, and taken over when its record is written."""
        reserve_expiries(&self.staged_expiries, 1)
        return self.expiries.reserve(self.staged_expiries.count + 1)

    cdef void note_expiry(self, uint64_t at, uint64_t hash, uint64_t size, uint8_t keyspace) noexcept nogil:
        """The record of `size` bytes that is appended next expires at `at`; call `reserve_expiry` first."""
        add_expiry(&self.staged_expiries, at, order_of(hash), self.tail, size, keyspace)

    cdef int _execute_with(self, uint32_t i, const Operation* op, const uint8_t* key) except -1 nogil:
        """Execute an operation that has flags, or is none of the four that need none."""
        cdef Arguments a
        cdef const char* fault
        if op.op == 0 or op.op > OP_TTL:
            return self._fail(i, CODE_UNKNOWN_OPERATION, "")
        fault = take_arguments(op, key, self.now_ms, &a)
        if fault != NULL:
            return self._fail(i, CODE_BAD_REQUEST, fault)
        if op.op == OP_GET:
            return self._get(i, op, key)
        if op.op == OP_EXISTS:
            return self._exists(i, op, key)
        if op.op == OP_TTL:
            return ttl(self, i, op, key)
        if self.refusal:
            return self._refuse(i)
        if op.op == OP_SET:
            return set_with(self, i, op, key, &a)
        return delete_with(self, i, op, key, &a) if op.op == OP_DELETE else update(self, i, op, key, &a)

    # ---- replies ----

    cdef int _reply(self, Buffer* b, uint32_t i, uint8_t status, const uint8_t* payload, uint32_t n) except -1 nogil:
        cdef Entry* entry
        if status >= UNMET:
            self.has_failed = True
        reserve(b, sizeof(Entry) + n)
        entry = <Entry*>(b.data + b.size)
        memset(entry, 0, sizeof(Entry))
        entry.index, entry.status, entry.payload_length = i, status, n
        if n:
            memcpy(b.data + b.size + sizeof(Entry), payload, n)
        b.size += sizeof(Entry) + n
        b.count += 1
        return 0

    cdef int _fail(self, uint32_t i, uint8_t code, const char* message) except -1 nogil:
        self.errors += 1
        return self._reply(&self.replies, i, code, <const uint8_t*>message, <uint32_t>strlen(message))

    cdef int _fail_full(self, uint32_t i) except -1 nogil:
        cdef char text[120]
        if self.misfits == MISFIT_REFUSED:
            self.misfits = MISFITS_ROTATE
        self.refused += 1
        snprintf(text, sizeof(text), "no room for shard %u on the disk; nothing was applied", self.shard)
        return self._fail(i, CODE_DISK_FULL, text)

    cdef int _refuse(self, uint32_t i) except -1 nogil:
        self.errors += 1
        self.refused += self.refusal == CODE_DISK_FULL
        with gil:
            return self._reply(&self.replies, i, self.refusal, <const uint8_t*>PyBytes_AS_STRING(self.refusal_message),
                               <uint32_t>PyBytes_GET_SIZE(self.refusal_message))

    cdef int _fail_corrupt(self, uint32_t i, uint64_t word) except -1 nogil:
        cdef char text[200]
        snprintf(text, sizeof(text), "segment %llu of shard %u is corrupt at offset %llu; run \"kio check --shard %u\"",
                 <unsigned long long>self.segments[word_slot(word)].id, self.shard,
                 <unsigned long long>word_offset(word), self.shard)
        return self._fail(i, CODE_CORRUPT, text)

    cdef int _fail_suspect(self, uint32_t i) except -1 nogil:
        cdef char text[200]
        snprintf(text, sizeof(text),
                 "shard %u holds a damaged record that may be this key's; run \"kio check --shard %u\"", self.shard, self.shard)
        return self._fail(i, CODE_CORRUPT, text)

    cdef int _fail_lost(self, uint32_t i) except -1 nogil:
        return self._fail(i, CODE_READ_ONLY, "the newest version of this key was lost by a failed sync")
