# The C view of opbatch.py, whose docstring is the description. Both ends run on one little-endian machine.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    BATCH_MAGIC = 0x31424F4B
    REPLIES_MAGIC = 0x31524F4B
    OP_GET = 1
    OP_SET = 2
    OP_DELETE = 3
    OP_EXISTS = 4
    OP_INCR = 5
    OP_APPEND = 6
    OP_EXPIRE = 7
    OP_PERSIST = 8
    OP_TTL = 9
    #: From here on an operation is executed by Python.
    OP_RARE = 32
    OP_ATOMIC = 37
    OP_SEAL = 38
    OP_COMPACT = 39
    OP_APPLY = 40
    #: Flag of an atomic batch: an operation that fails, or whose condition does not hold, takes nothing back.
    EACH = 1
    # Flags of an operation
    TTL = 1
    EXPIRE_AT = 2
    KEEP_TTL = 4
    IF_ABSENT = 8
    IF_PRESENT = 16
    IF_VERSION = 32
    WITH_OLD = 64
    WITH_VERSION = 128
    DONE = 0
    VALUE = 1
    ABSENT = 2
    NUMBER = 3
    VERSIONED = 4
    UNMET = 5
    ERROR = 16
    MAYBE_APPLIED = 0x80

cdef packed struct Header:
    uint32_t magic
    uint32_t shard
    uint64_t batch_id
    uint32_t count
    uint32_t reserved

cdef packed struct Operation:
    uint8_t op
    uint8_t keyspace
    uint16_t key_length
    uint32_t value_length
    uint64_t hash
    uint32_t deadline
    uint32_t flags

#: What stands in the payload of VERSIONED before the value, and in that of UNMET where the key is there.
cdef packed struct Versioned:
    uint32_t epoch
    uint64_t lsn
    int64_t expire_at_ms

cdef packed struct Entry:
    uint32_t index
    uint8_t status
    uint8_t zero[3]
    uint32_t payload_length
