"""The longest common subsequence of two values, row by row with a bit for each cell.

A row says for each byte of the second value whether the subsequence grows by it (its bit is then 0); one row follows
from the one before by an addition over all bits at once (H. Hyyroe, Bit-parallel LCS-length computation revisited,
2004).
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: Beyond so many cells it is not begun, and beyond so many bytes of a value no ranges are looked for: either would take
#: the front door's time from others.
CELLS_MAX: Final = 1 << 27
BYTES_MAX: Final = 1 << 18


class Range(NamedTuple):
    """Bytes that stand in both: the first and the last index in each."""

    first_start: int
    first_end: int
    second_start: int
    second_end: int

    @property
    def length(self) -> int:
        """How many they are."""
        return self.first_end - self.first_start + 1


def length_of(first: bytes, second: bytes) -> int:
    """How long the longest common subsequence is."""
    # Fewer and longer rows are less work.
    rows, columns = sorted((first, second), key=len)
    places = _places(columns, rows)
    ones = (1 << len(columns)) - 1
    row = ones
    for byte in rows:
        row = _following(row, places.get(byte, 0), ones)
    return len(columns) - row.bit_count()


def ranges_of(first: bytes, second: bytes) -> list[Range]:
    """The ranges whose bytes are a longest common subsequence, from the last to the first.

    Cost: a bit of memory for each cell.
    """
    places = _places(second, first)
    ones = (1 << len(second)) - 1
    width = (len(second) + 7) >> 3
    rows = bytearray()
    row = ones
    for byte in first:
        row = _following(row, places.get(byte, 0), ones)
        rows += row.to_bytes(width, "little")
    ranges = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            end_i, end_j = i - 1, j - 1
            while i and j and first[i - 1] == second[j - 1]:
                i -= 1
                j -= 1
            ranges.append(Range(i, end_i, j, end_j))
        elif rows[(i - 1) * width + ((j - 1) >> 3)] >> ((j - 1) & 7) & 1:
            j -= 1
        else:
            i -= 1
    return ranges


def _places(value: bytes, wanted: bytes) -> dict[int, int]:
    """For each byte of both, where it stands in the value: a bit for each place, the first is the lowest."""
    places = {}
    for byte in set(value).intersection(wanted):
        table = bytearray(b"0" * 256)
        table[byte] = ord("1")
        places[byte] = int(value.translate(table)[::-1], 2)
    return places


def _following(row: int, places: int, ones: int) -> int:
    met = row & places
    return ((row + met) | (row - met)) & ones
