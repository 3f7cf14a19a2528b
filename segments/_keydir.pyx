# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The KeyDir: one 64-bit word a key, in 512 ordered pages that grow one at a time.

Owns: the memory of the pages. One per shard, used by its worker's thread only. It never reads the log: whoever probes
compares the key bytes of each candidate (`_engine.pyx`), because a tag is only a hint.

A word, and where its bits come from (kio/hashing.py; the page is hash bits 31..23)

    63        44 43        28 27         3 2      0
    +-----------+------------+------------+--------+
    | tag       | slot       | offset / 8 | kept   |     0 is an empty place: slot 0 is never used
    +-----------+------------+------------+--------+
      hash bits    segment      25 bits,     free for
      22..3        table        256 MiB      eviction

A page is an array in which the words lie sorted by tag, with gaps. A word's home is tag * homes >> 20; it stands there or
behind, and no empty place lies between its home and it. So a search starts at the home and ends at an empty place or a
larger tag; an insert moves the words up to the next gap by one (one memmove), a delete moves the words behind it back.

Growth: at 0.88 to 0.91 of its homes (by page number, so that pages do not all grow together) a page gains a sixteenth, at
least 4 KiB. The memory is its own mapping, extended by mremap, which moves page tables instead of bytes; then the words
are spread in place. So there is never a rehash, a read of the log, a second table, or a pause for the whole table, and no
freed block is left to fragment the heap. A page shrinks when it is filled to less than a third.

Cost: about 9.2 bytes a key; a page of n keys pays one pass over n words for each growth by n/16.
Source: linear probing in order (Amble and Knuth, "Ordered hash tables", 1974); Bitcask's keydir; FASTER's hash index.
"""

from libc.errno cimport errno
from libc.string cimport memcpy, memmove, memset


cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    void* mremap(void* old, size_t old_size, size_t new_size, int flags)
    int munmap(void* addr, size_t length)
    void* MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MREMAP_MAYMOVE

cdef uint64_t NOTHING[SLACK + 1]    # what a page without memory points to: one empty home
memset(NOTHING, 0, sizeof(NOTHING))


cdef inline uint32_t _round(uint64_t words) noexcept nogil:
    return <uint32_t>((words + STEP - 1) // STEP * STEP)


cdef class KeyDir:
    """An empty KeyDir.

    Attributes:
        used: words held.
        allocated_bytes: memory of all pages, in bytes; the part never touched is not resident.
    """

    def __cinit__(self):
        cdef int i
        for i in range(PAGES):
            self.pages[i] = Page(&NOTHING[0], 0, 0, 0, 0)

    def __dealloc__(self):
        self.reset()

    def __len__(self):
        return self.used

    @staticmethod
    def words_in(int64_t size):
        """About how many words `size` bytes of pages hold, when each has grown as far as they allow."""
        return max(0, (size // 8 - PAGES * SLACK) * 87 // 100)

    cdef void reset(self) noexcept nogil:
        """Forget every word and give the memory back."""
        cdef int i
        for i in range(PAGES):
            if self.pages[i].slots:
                munmap(self.pages[i].words, <size_t>self.pages[i].slots * 8)
            self.pages[i] = Page(&NOTHING[0], 0, 0, 0, 0)
        self.used = 0
        self.allocated_bytes = 0

    cdef int _resize(self, Page* page, uint32_t slots) except -1 nogil:
        """Give `page` exactly `slots` words of memory; what lies above is lost, what is new is zero."""
        cdef void* memory
        if page.slots == 0:
            memory = mmap(NULL, <size_t>slots * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        else:
            memory = mremap(page.words, <size_t>page.slots * 8, <size_t>slots * 8, MREMAP_MAYMOVE)
        if memory == MAP_FAILED:
            with gil:
                raise MemoryError(f"no memory for {slots * 8} bytes of KeyDir (errno {errno})")
        self.allocated_bytes += (<int64_t>slots - page.slots) * 8
        page.words = <uint64_t*>memory
        page.slots = slots
        return 0

    cdef int _spread(self, Page* page, uint32_t slots) except -1 nogil:
        """Give `page` this many words of memory, and spread what it holds over them.

        Where a long run of equal tags at the end needs more room behind the last home, it gets that.
        """
        cdef uint32_t homes = slots - SLACK
        while True:
            if slots > page.slots:
                self._resize(page, slots)
            self._arrange(page, slots, homes)
            if self._is_arranged(page):
                break
            slots += STEP
        if slots < page.slots:
            self._resize(page, slots)
        return 0

    cdef void _arrange(self, Page* page, uint32_t slots, uint32_t homes) noexcept nogil:
        """Put the words, in order, into the first `slots` places, each at its home or as near behind as the others let it.

        The words are first pushed together at the end of that space; then each moves forward to its place. A place is
        never ahead of the word that moves into it, unless the space is too small: then `_is_arranged` is false.
        """
        cdef uint64_t* words = page.words
        cdef uint32_t i, n = 0, source, target = 0, home
        cdef uint64_t word
        cdef uint32_t jitter = <uint32_t>(page - self.pages) * <uint32_t>2654435761U
        page.homes = homes
        page.used_max = <uint32_t>(<uint64_t>page.homes * (901 + (jitter >> 27)) >> 10)
        for i in range(page.slots):
            word = words[i]
            if word != 0:
                words[n] = word
                n += 1
        memset(words + n, 0, <size_t>(page.slots - n) * 8)
        source = slots - 1 - n
        memmove(words + source, words, <size_t>n * 8)
        memset(words, 0, <size_t>min(source, n) * 8)
        for i in range(n):
            word = words[source + i]
            home = home_of(page, word_tag(word))
            if target < home:
                target = home
            if target >= source + i:
                target = source + i
            else:
                words[source + i] = 0
                words[target] = word
            target += 1

    cdef bint _is_arranged(self, const Page* page) noexcept nogil:
        cdef uint32_t i
        for i in range(page.slots - 1):
            if page.words[i] != 0 and home_of(page, word_tag(page.words[i])) > i:
                return False
        return True

    cdef int insert(self, uint32_t number, uint64_t word) except -1 nogil:
        """Insert `word` behind the words of its tag. The caller knows that the key is not there yet."""
        cdef Page* page = &self.pages[number]
        cdef uint32_t at, gap, tag = word_tag(word)
        while True:
            if page.used < page.used_max:
                at = first_of(page, tag)
                while page.words[at] != 0 and word_tag(page.words[at]) == tag:
                    at += 1
                gap = at
                while page.words[gap] != 0:
                    gap += 1
                if gap < page.slots - 1:
                    break
                self._resize(page, page.slots + STEP)   # the run at the end needs room, not the page more homes
            else:
                self._spread(page, _round(<uint64_t>page.slots + page.slots // 16 + 1))
        memmove(page.words + at + 1, page.words + at, <size_t>(gap - at) * 8)
        page.words[at] = word
        page.used += 1
        self.used += 1
        return 0

    cdef void remove_at(self, uint32_t number, uint32_t at) noexcept nogil:
        """Remove the word at place `at`, and move back by one what stood behind it away from home."""
        cdef Page* page = &self.pages[number]
        cdef uint32_t end = at + 1
        while page.words[end] != 0 and home_of(page, word_tag(page.words[end])) < end:
            end += 1
        memmove(page.words + at, page.words + at + 1, <size_t>(end - at - 1) * 8)
        page.words[end - 1] = 0
        page.used -= 1
        self.used -= 1
        if page.slots > 4 * STEP and page.used < page.homes // 3:
            self._spread(page, _round(<uint64_t>page.used * 2 + SLACK))

    cdef int64_t find_word(self, uint32_t number, uint64_t word) noexcept nogil:
        """The place of exactly this word, or -1."""
        cdef Page* page = &self.pages[number]
        cdef uint32_t at = first_of(page, word_tag(word))
        while page.words[at] != 0 and word_tag(page.words[at]) == word_tag(word):
            if page.words[at] == word:
                return at
            at += 1
        return -1

    cdef int fill(self, uint32_t number, const uint64_t* words, uint32_t count) except -1 nogil:
        """Make an empty page hold `count` words that are sorted by tag: recovery's way in."""
        cdef Page* page = &self.pages[number]
        if count == 0:
            return 0
        self._resize(page, _round(<uint64_t>count * 8 // 7 + SLACK + 1))
        memcpy(page.words, words, <size_t>count * 8)
        page.used = count
        self.used += count
        return self._spread(page, page.slots)
