"""What commands make of a key's value as a string of bits: bit 0 is the highest of byte 0."""

from __future__ import annotations

from typing import Final

from kio.commands.state import REGISTER, Outcome, State
from kio.commands.strings import STRING_BYTES_MAX, check_length, clip
from kio.errors import BadRequest

OFFSET_OUT_OF_RANGE: Final = "bit offset is not an integer or out of range"
#: Operations of BITOP: the last four need at least two sources (DIFF, DIFF1, ANDOR) or one (ONE).
COMBINATIONS: Final = ("AND", "OR", "XOR", "NOT", "DIFF", "DIFF1", "ANDOR", "ONE")


def is_offset(offset: int) -> bool:
    """Whether a bit may have this offset."""
    return 0 <= offset < STRING_BYTES_MAX * 8


@REGISTER.add
def getbit(state: State | None, now_ms: int, offset: int) -> Outcome:
    """One bit; those beyond the value are 0."""
    if not is_offset(offset):
        raise BadRequest(OFFSET_OUT_OF_RANGE)
    at = offset >> 3
    if state is None or at >= len(state.value):
        return Outcome(0)
    return Outcome(state.value[at] >> (7 - (offset & 7)) & 1)


@REGISTER.add
def setbit(state: State | None, now_ms: int, offset: int, bit: int) -> Outcome:
    """Write one bit, zeros before it where they are missing; the bit that was there."""
    if not is_offset(offset):
        raise BadRequest(OFFSET_OUT_OF_RANGE)
    if bit not in (0, 1):
        raise BadRequest("bit is not an integer or out of range")
    old = state.value if state else b""
    at, mask = offset >> 3, 0x80 >> (offset & 7)
    check_length(at + 1)
    before = old[at] if at < len(old) else 0
    byte = before | mask if bit else before & ~mask
    was = int(before & mask != 0)
    if byte == before and at < len(old):
        return Outcome(was)
    new = b"".join((old[:at].ljust(at, b"\0"), bytes((byte,)), old[at + 1 :]))
    return Outcome(was, State(new, state.expire_at_ms if state else 0))


@REGISTER.add
def bitcount(state: State | None, now_ms: int, start: int, end: int, is_bits: bool) -> Outcome:
    """How many bits are 1 from `start` to `end`, both included; negative ones count from the end.

    Args:
        is_bits: they are bits; else bytes.
    """
    if state is None:
        return Outcome(0)
    value = state.value
    if not is_bits:
        first, last = clip(start, end, len(value))
        return Outcome(int.from_bytes(value[first : last + 1], "big").bit_count())
    first, last = clip(start, end, len(value) * 8)
    if first > last:
        return Outcome(0)
    number = int.from_bytes(value[first >> 3 : (last >> 3) + 1], "big") >> (7 - (last & 7))
    return Outcome((number & ((1 << (last - first + 1)) - 1)).bit_count())


@REGISTER.add
def bitpos(
    state: State | None, now_ms: int, bit: int, start: int, end: int, is_bits: bool, is_end_given: bool
) -> Outcome:
    """Where the first bit that is `bit` stands from `start` to `end`, both included; -1 where there is none.

    Args:
        is_bits: they are bits; else bytes.
        is_end_given: what is behind the value does not count as zeros.
    """
    if bit not in (0, 1):
        raise BadRequest("The bit argument must be 1 or 0.")
    if state is None:
        return Outcome(-1 if bit else 0)
    value = state.value
    unit = 1 if is_bits else 8
    length = len(value) * 8 // unit
    first = max(0, length + start) if start < 0 else start
    last = min(max(0, length + end) if end < 0 else end, length - 1)
    if first > last:
        return Outcome(-1)
    first, last = first * unit, last * unit + unit - 1
    at = _find(value, bit, first, last)
    if at < 0 and bit == 0 and not is_end_given:
        at = len(value) * 8
    return Outcome(at)


def _find(value: bytes, bit: int, first: int, last: int) -> int:
    start = first >> 3
    part = bytearray(value[start : (last >> 3) + 1])
    # What is not meant, in the first byte and in the last, is made unlike what is looked for.
    before, behind = 0xFF ^ (0xFF >> (first & 7)), 0x7F >> (last & 7)
    if bit:
        part[0] &= ~before
        part[-1] &= ~behind
        rest = part.lstrip(b"\0")
        zeros = 8 - rest[0].bit_length() if rest else 0
    else:
        part[0] |= before
        part[-1] |= behind
        rest = part.lstrip(b"\xff")
        zeros = 8 - (rest[0] ^ 0xFF).bit_length() if rest else 0
    return (start + len(part) - len(rest)) * 8 + zeros if rest else -1


def combine(operation: str, values: list[bytes]) -> bytes:
    """What BITOP makes of values, as long as the longest; zeros fill up the others.

    AND, OR, XOR of all, NOT of the first; DIFF: bits of the first that are in no other; DIFF1: bits of the others that
    are not in the first; ANDOR: bits of the first that are in one or more of the others; ONE: bits that are in exactly
    one.
    """
    length = max(map(len, values), default=0)
    # Read from the low end, the zeros that a shorter value lacks are there by themselves.
    first, *others = (int.from_bytes(value, "little") for value in values)
    result = first
    if operation == "NOT":
        result = first ^ ((1 << 8 * length) - 1)
    elif operation == "AND":
        for other in others:
            result &= other
    elif operation == "OR":
        for other in others:
            result |= other
    elif operation == "XOR":
        for other in others:
            result ^= other
    elif operation == "ONE":
        several = 0
        for other in others:
            several |= result & other
            result |= other
        result &= ~several
    else:
        union = 0
        for other in others:
            union |= other
        result = {"DIFF": first & ~union, "DIFF1": union & ~first, "ANDOR": first & union}[operation]
    return result.to_bytes(length, "little")
