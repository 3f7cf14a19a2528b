# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Atomic batches: a batch within a batch, executed all or nothing.

A group borrows the engine: it puts its own batch in the place of the one under way, runs it, and gives that back when it
is closed. It runs with nothing staged before it, so that the engine's own undo takes back exactly the group: when an
operation fails or its condition does not hold, when the disk refuses the write, and when the group does not fit what is
left of the active segment and is run anew in the next.

All its records stand side by side in one segment and are written by one write. All but the last carry FLAG_BATCH_OPEN,
which tells recovery (_hints.scan) that a group which ends without its last record was never acknowledged: it is cut.

With the flag EACH only the crash is all or nothing: an operation that fails is answered so, and the others are applied.
That is what a transaction of RESP is.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from kio._opbatch cimport EACH, Entry, Header, OP_APPLY, OP_RARE, Operation
from kio.segments._engine cimport (
    CODE_ABORTED, CODE_BAD_REQUEST, MISFITS_ROTATE, RUN_DONE, RUN_RARE, RUN_ROTATE, Buffer, Engine,
)
from kio.segments._format cimport EXPIRY_BYTES, FLAG_BATCH_OPEN, FOOTER_BYTES, HINT_BYTES, Record, record_bytes
from kio.segments._native cimport kio_crc32c, setup

from kio import errors, limits


setup()

cdef enum:
    GROUP = 32              # operations between two rounds of prefetching
    END_BYTES_MAX = HINT_BYTES + EXPIRY_BYTES

assert errors.Aborted.code == CODE_ABORTED

cdef uint64_t RECORDS_MAX = limits.ATOMIC_BYTES_MAX
cdef uint64_t SEGMENT_MAX = limits.SEGMENT_BYTES_CEILING


cdef struct Outer:
    # The batch under way, while the engine runs the group's.
    const uint8_t** ops
    size_t ops_capacity
    uint32_t count
    uint32_t index
    uint64_t batch_id
    Buffer replies
    Buffer parked
    bint parks


cdef class Group:
    """A group, not executed yet. Nothing may be staged in the engine.

    Args:
        flags: EACH or 0.
        apply: executes the operation that the engine has stopped at, a function on a key (rare.py); False when it does
            not fit the active segment.
    Raises: BadRequest when `message` is no batch of operations that can be in a group.
    Invariant: until `close` the engine serves nothing but this group.
    """

    cdef Engine engine
    cdef Outer outer
    cdef bytes outer_batch
    cdef bint is_open
    cdef bint is_each
    cdef object apply

    def __cinit__(self, Engine engine not None, bytes message not None, uint32_t flags=0, apply=None):
        cdef uint32_t i
        if engine.staging.size:
            raise ValueError("records are staged before the group")
        self.engine = engine
        self.is_each = flags & EACH
        self.apply = apply
        self.outer = Outer(engine.ops, engine.ops_capacity, engine.count, engine.index, engine.batch_id, engine.replies,
                           engine.parked, engine.parks)
        self.outer_batch = engine.batch
        self.is_open = True
        engine.ops = NULL
        engine.ops_capacity = engine.count = 0
        memset(&engine.replies, 0, sizeof(Buffer))
        memset(&engine.parked, 0, sizeof(Buffer))
        # The reply to the whole is parked when anything is not durable: within it nothing has to be told apart.
        engine.parks = False
        try:
            engine.begin(message)
            if not 0 < engine.count <= limits.ATOMIC_OPERATIONS_MAX:
                raise errors.BadRequest(f"an atomic batch holds 1 to {limits.ATOMIC_OPERATIONS_MAX} operations")
            for i in range(engine.count):
                if (<const Operation*>engine.ops[i]).op >= OP_RARE and (<const Operation*>engine.ops[i]).op != OP_APPLY:
                    raise errors.BadRequest("an operation of the batch cannot be part of an atomic one")
        except errors.ProtocolError as error:
            self.close()
            raise errors.BadRequest(str(error)) from None
        except BaseException:
            self.close()
            raise

    def __dealloc__(self):
        if self.is_open:
            free(self.outer.ops)
            free(self.outer.replies.data)
            free(self.outer.parked.data)

    def run(self, uint32_t now_ms):
        """Execute it: DONE_RUNNING, and what it appended is staged; or NEEDS_ROTATION (`needed_room`), and nothing is.

        In both cases it may be run again, after the engine's `rollback` where something is staged.
        Raises: MemoryError; the caller rolls back.
        """
        cdef Engine e = self.engine
        cdef uint64_t start = e.tail, limit = e.limit, end_bytes = e.end_bytes
        cdef int stopped
        e.open_flag = FLAG_BATCH_OPEN
        e.limit = min(start + RECORDS_MAX, SEGMENT_MAX)
        e.has_failed = e.has_put = False
        try:
            while True:
                with nogil:
                    stopped = _run(e, now_ms, self.is_each)
                if stopped != RUN_RARE:
                    break
                if not self.apply():
                    stopped = RUN_ROTATE
                    break
                if e.has_failed and not self.is_each:
                    e.index -= 1
                    break
        finally:
            e.limit = limit
            e.open_flag = 0
        if stopped == RUN_ROTATE and start + RECORDS_MAX > SEGMENT_MAX and e.tail - start + e.needed_bytes <= RECORDS_MAX:
            e.rollback()
            e.needed_room = RECORDS_MAX + <uint64_t>limits.ATOMIC_OPERATIONS_MAX * END_BYTES_MAX + FOOTER_BYTES
            return self._answer_misfit()
        if stopped == RUN_ROTATE:
            e._fail(e.index, CODE_BAD_REQUEST, "an atomic batch makes at most 8 MiB of records")
        if stopped == RUN_ROTATE or (e.has_failed and not self.is_each):
            self._abort()
        elif e.tail + e.end_bytes > (e.put_limit if e.has_put else limit):
            e.needed_room = e.tail - start + e.end_bytes - end_bytes + FOOTER_BYTES
            e.rollback()
            return self._answer_misfit()
        elif e.staging.size:
            _close_last(e)
        return RUN_DONE

    cdef int _answer_misfit(self) except -1:
        """What becomes of a group for which there is no room in the active segment."""
        cdef Engine e = self.engine
        if e.misfits == MISFITS_ROTATE:
            return RUN_ROTATE
        e.index = 0
        e._fail_full(0)
        self._abort()
        return RUN_DONE

    cdef int _abort(self) except -1:
        """Take everything back, and answer Aborted to all but the operation that has failed."""
        cdef Engine e = self.engine
        cdef uint32_t i, failed = e.index
        cdef size_t at = e.replies.size
        cdef bytes payload
        cdef uint8_t status
        at = sizeof(Header)
        while at + sizeof(Entry) + (<Entry*>(e.replies.data + at)).payload_length < e.replies.size:
            at += sizeof(Entry) + (<Entry*>(e.replies.data + at)).payload_length
        status = (<Entry*>(e.replies.data + at)).status
        payload = (<char*>e.replies.data)[at + sizeof(Entry):e.replies.size]
        e.rollback()
        for i in range(e.count):
            if i == failed:
                e._reply(&e.replies, i, status, payload, <uint32_t>len(payload))
            else:
                e._reply(&e.replies, i, CODE_ABORTED, NULL, 0)
        return 0

    def replies(self):
        """The replies message of what was run."""
        return self.engine._message(&self.engine.replies)

    def close(self):
        """Give the engine back to the batch that was under way; what is staged and not written is taken back."""
        cdef Engine e = self.engine
        if not self.is_open:
            return
        if e.staging.size:
            e.rollback()
        free(e.ops)
        free(e.replies.data)
        free(e.parked.data)
        e.ops, e.ops_capacity = self.outer.ops, self.outer.ops_capacity
        e.count, e.index, e.batch_id = self.outer.count, self.outer.index, self.outer.batch_id
        e.replies, e.parked, e.parks = self.outer.replies, self.outer.parked, self.outer.parks
        e.batch = self.outer_batch
        e._commit()
        self.is_open = False


cdef int _run(Engine e, uint32_t now_ms, bint is_each) except -1 nogil:
    """Execute on until an operation fails (without `is_each`), does not fit, or is a function on a key."""
    cdef uint32_t i
    cdef int stopped
    for i in range(e.index, e.count):
        if i % GROUP == 0:
            e._prefetch(i, min(i + <uint32_t>GROUP, e.count))
        e.index = i
        stopped = e._execute(i, now_ms)
        if stopped != RUN_DONE or (e.has_failed and not is_each):
            return stopped
    return RUN_DONE


cdef void _close_last(Engine e) noexcept nogil:
    """The last record of the group says so."""
    cdef uint8_t* p = e.staging.data + e.last_record
    cdef Record* r = <Record*>p
    r.kind &= ~<uint8_t>FLAG_BATCH_OPEN
    r.crc = kio_crc32c(e.segments[e.active].crc_seed, p + 4, record_bytes(r) - 4)
