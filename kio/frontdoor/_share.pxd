# Shares of a turn: how long the commands of one connection may keep the others waiting.
#
# Time is what counts, not commands: one that goes through Python takes a hundred times as long as a GET, and a few of them
# take milliseconds. The clock is looked at now and then only: a GET takes no longer than that look.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef enum:
    #: What a command counts for: one that goes through Python, one that does not, and so many bytes of either.
    COST_OF_PYTHON = 16
    COST_OF_ANY = 1
    COST_BYTES = 2048
    #: The clock is looked at after so much.
    COST_OF_LOOK = 32

cdef struct Share:
    uint64_t length_ns      # 0 is no bound
    uint64_t end_ns
    uint64_t cost           # since the clock was looked at


cdef inline uint64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


cdef inline void share_begin(Share* s) noexcept nogil:
    s.cost = 0
    s.end_ns = clock_ns() + s.length_ns if s.length_ns else 0


cdef inline bint share_is_over(Share* s, uint64_t cost) noexcept nogil:
    # Whether it is, behind a command that has cost so much.
    if s.length_ns == 0:
        return False
    s.cost += cost
    if s.cost < COST_OF_LOOK:
        return False
    s.cost = 0
    return clock_ns() >= s.end_ns
