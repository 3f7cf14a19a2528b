# The C view of opbatch.py, whose docstring is the description. Both ends run on one little-endian machine.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    BATCH_MAGIC = 0x31424F4B
    REPLIES_MAGIC = 0x31524F4B
    OP_GET = 1
    OP_SET = 2
    OP_DELETE = 3
    OP_EXISTS = 4
    #: From here on an operation is executed by Python.
    OP_RARE = 32
    DONE = 0
    VALUE = 1
    ABSENT = 2
    NUMBER = 3
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

cdef packed struct Entry:
    uint32_t index
    uint8_t status
    uint8_t zero[3]
    uint32_t payload_length
