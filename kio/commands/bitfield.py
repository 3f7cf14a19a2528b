"""Integers of any width at any bit of a value: BITFIELD.

An operation is [kind, is_signed, bits, offset, value, overflow]: kind GET, SET or INCRBY; overflow WRAP, SAT or FAIL.
A field's first bit is its highest, and bit 0 of a value is the highest of byte 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from kio.commands.bits import OFFSET_OUT_OF_RANGE, is_offset
from kio.commands.state import REGISTER, Outcome, State
from kio.commands.strings import check_length
from kio.errors import BadRequest

GET: Final = "GET"
SET: Final = "SET"
INCRBY: Final = "INCRBY"
WRAP: Final = "WRAP"
SAT: Final = "SAT"
FAIL: Final = "FAIL"
#: Of an unsigned field one less, so that any value is an integer of 64 bits with sign.
BITS_MAX: Final = 64


class Field(NamedTuple):
    """One operation on one field."""

    kind: str
    is_signed: bool
    bits: int
    offset: int
    value: int = 0
    overflow: str = WRAP

    def check(self) -> None:
        """Refuse what no command can have made.

        Raises:
            BadRequest: when it is no operation.
        """
        if self.kind not in (GET, SET, INCRBY) or self.overflow not in (WRAP, SAT, FAIL):
            raise BadRequest("a field is read, set or added to; it wraps, saturates or fails")
        if not 1 <= self.bits <= BITS_MAX - (not self.is_signed):
            raise BadRequest(f"a field has 1 to {BITS_MAX} bits, 63 without sign")
        if not is_offset(self.offset):
            raise BadRequest(OFFSET_OUT_OF_RANGE)

    @property
    def end(self) -> int:
        """The bytes that a value with this field has."""
        return (self.offset + self.bits + 7) >> 3

    def read(self, value: bytes | bytearray) -> int:
        """The field as it stands; bits behind the value are 0."""
        start = self.offset >> 3
        part = value[start : self.end].ljust(self.end - start, b"\0")
        number = int.from_bytes(part, "big") >> (self.end * 8 - self.offset - self.bits)
        return self._wrapped(number)

    def write(self, value: bytearray, number: int) -> None:
        """Set the field; `value` is long enough for it."""
        start, behind = self.offset >> 3, self.end * 8 - self.offset - self.bits
        mask = ((1 << self.bits) - 1) << behind
        part = int.from_bytes(value[start : self.end], "big")
        part = part & ~mask | (number << behind) & mask
        value[start : self.end] = part.to_bytes(self.end - start, "big")

    def bounded(self, number: int) -> int | None:
        """What becomes of a number that may be too large or too small; None where it fails."""
        lowest = -(1 << (self.bits - 1)) if self.is_signed else 0
        highest = (1 << (self.bits - self.is_signed)) - 1
        if lowest <= number <= highest:
            return number
        if self.overflow == FAIL:
            return None
        if self.overflow == SAT:
            return lowest if number < lowest else highest
        return self._wrapped(number)

    def _wrapped(self, number: int) -> int:
        number &= (1 << self.bits) - 1
        if self.is_signed and number >> (self.bits - 1):
            number -= 1 << self.bits
        return number


@REGISTER.add
def bitfield(state: State | None, now_ms: int, operations: Sequence[Sequence[int | str]]) -> Outcome:
    """Do the operations in their order: for each the field's value (of SET the one before), None where it failed.

    A value is as long as its last written field needs, even where all that was to be written has failed.
    """
    fields = [Field(*operation) for operation in operations]  # type: ignore[arg-type]
    for field in fields:
        field.check()
    writes = [field.end for field in fields if field.kind != GET]
    old = state.value if state else b""
    if not writes:
        return Outcome([field.read(old) for field in fields])
    length = max(len(old), *writes)
    check_length(length)
    value = bytearray(old)
    value.extend(bytes(length - len(old)))
    replies = [_do(field, value) for field in fields]
    new = bytes(value)
    if state and new == old:
        return Outcome(replies)
    return Outcome(replies, State(new, state.expire_at_ms if state else 0))


def _do(field: Field, value: bytearray) -> int | None:
    before = field.read(value)
    if field.kind == GET:
        return before
    if field.kind == INCRBY:
        number = field.bounded(before + field.value)
    elif field.is_signed:
        number = field.bounded(field.value)
    else:
        # A negative number is, without its sign, larger than any field.
        number = field.bounded(field.value % (1 << BITS_MAX))
    if number is None:
        return None
    field.write(value, number)
    return number if field.kind == INCRBY else before
