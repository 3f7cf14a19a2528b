"""A file's bytes in memory, without a descriptor.

`mmap.mmap` keeps a duplicate of the descriptor for as long as the mapping lives, so a shard of a thousand segments would
hold a thousand descriptors. A Mapping holds none: the file stays there until the last of mapping and name is gone.
Reading it where the disk does not deliver raises SIGBUS: whoever reads does so through the guarded functions (_native.h).
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno

import os


cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    void* MAP_FAILED
    int PROT_READ, MAP_SHARED, MADV_RANDOM


cdef class Mapping:
    """The first `size` bytes of the file `fd`, shared and read-only; at least 1. A bytes-like object.

    Raises: OSError when the system refuses.
    """

    cdef void* base
    cdef size_t size
    cdef size_t exports

    def __cinit__(self, int fd, size_t size):
        cdef void* base = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.base = base
        self.size = size
        # Records are read one here, one there: reading ahead would only push others out of memory.
        madvise(base, size, MADV_RANDOM)

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.base == NULL:
            raise ValueError("the mapping is closed")
        PyBuffer_FillInfo(buffer, self, self.base, self.size, True, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self.exports -= 1

    def close(self):
        """Give the memory back, without the GIL: it may take milliseconds, or have to free a file's blocks.

        Raises: BufferError when somebody still reads it.
        """
        cdef void* base = self.base
        cdef size_t size = self.size
        if self.exports:
            raise BufferError("the mapping is in use")
        if base != NULL:
            self.base = NULL
            self.size = 0
            with nogil:
                munmap(base, size)
