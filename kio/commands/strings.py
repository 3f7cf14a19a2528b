"""What commands make of a key's value as a string of bytes."""

from __future__ import annotations

from typing import Final

from kio.commands import longdouble
from kio.commands.state import REGISTER, REMOVED, Outcome, State
from kio.errors import BadRequest, ValueTooLarge
from kio.hashing import value_digest
from kio.limits import MIB, VALUE_BYTES_CEILING

#: What clients expect to be the longest string anywhere. kio's own bound is lower (limits.py), and the shard's.
STRING_BYTES_MAX: Final = 512 * MIB
STRING_TOO_LONG: Final = "string exceeds maximum allowed size (proto-max-bulk-len)"
NOT_A_FLOAT: Final = "value is not a valid float"
NOT_FINITE: Final = "increment would produce NaN or Infinity"


def check_length(length: int) -> None:
    """Refuse a string of so many bytes before it is made."""
    if length > STRING_BYTES_MAX:
        raise BadRequest(STRING_TOO_LONG)
    if length > VALUE_BYTES_CEILING:
        raise ValueTooLarge(f"a value of {length} bytes is longer than any shard takes")


def is_met(state: State | None, condition: str, operand: bytes) -> bool:
    """Whether a condition of SET or DELEX holds."""
    if condition == "":
        return True
    if condition == "NX":
        return state is None
    if state is None:
        return condition in ("IFNE", "IFDNE")
    if condition == "XX":
        return True
    if condition == "IFEQ":
        return state.value == operand
    if condition == "IFNE":
        return state.value != operand
    if condition == "IFDEQ":
        return value_digest(state.value) == operand
    if condition == "IFDNE":
        return value_digest(state.value) != operand
    raise BadRequest(f"there is no condition {condition!r:.20}")


@REGISTER.add
def strlen(state: State | None, now_ms: int) -> Outcome:
    """The length of the value; 0 where the key is absent."""
    return Outcome(len(state.value) if state else 0)


@REGISTER.add
def getrange(state: State | None, now_ms: int, start: int, end: int) -> Outcome:
    """The bytes from `start` to `end`, both included; negative ones count from the end."""
    if state is None:
        return Outcome(b"")
    first, last = clip(start, end, len(state.value))
    return Outcome(state.value[first : last + 1])


def clip(start: int, end: int, length: int) -> tuple[int, int]:
    """The first and the last index of a range as clients give it; the last is below the first where it is empty."""
    if start < 0 and end < 0 and start > end:
        return 0, -1
    first = max(0, length + start) if start < 0 else start
    last = max(0, length + end) if end < 0 else end
    last = min(last, length - 1)
    return (first, last) if first <= last else (0, -1)


@REGISTER.add
def setrange(state: State | None, now_ms: int, offset: int, value: bytes) -> Outcome:
    """Write `value` over the bytes from `offset` on; zeros fill what is missing before it. The length then."""
    old = state.value if state else b""
    if not value:
        return Outcome(len(old))
    if offset < 0:
        raise BadRequest("offset is out of range")
    check_length(offset + len(value))
    new = b"".join((old[:offset].ljust(offset, b"\0"), value, old[offset + len(value) :]))
    return Outcome(len(new), State(new, state.expire_at_ms if state else 0))


@REGISTER.add
def incrbyfloat(state: State | None, now_ms: int, delta: bytes) -> Outcome:
    """Add a number, in decimal text, to the value; the sum as text."""
    numbers = []
    infinite = False
    for text in (state.value if state else b"0", delta):
        try:
            number = longdouble.parse(text)
        except longdouble.Infinite:
            infinite = True
            continue
        if number is None:
            raise BadRequest(NOT_A_FLOAT)
        numbers.append(number)
    try:
        if infinite:
            raise longdouble.Infinite
        new = longdouble.text_of(longdouble.rounded(numbers[0] + numbers[1]))
    except longdouble.Infinite:
        raise BadRequest(NOT_FINITE) from None
    return Outcome(new, State(new, state.expire_at_ms if state else 0))


@REGISTER.add
def set_full(
    state: State | None,
    now_ms: int,
    value: bytes,
    condition: str = "",
    operand: bytes = b"",
    expire_at_ms: int = 0,
    keep_ttl: bool = False,
    with_old: bool = False,
) -> Outcome:
    """SET with any mix of its options: [whether it was done, the old value if asked for].

    Args:
        condition: "", or NX, XX, IFEQ, IFNE, IFDEQ, IFDNE, the last four with what to compare with in `operand`.
        expire_at_ms: 0 is never.
    """
    old = state.value if state and with_old else None
    if not is_met(state, condition, operand):
        return Outcome([False, old])
    if keep_ttl:
        expire_at_ms = state.expire_at_ms if state else 0
    return Outcome([True, old], State(value, expire_at_ms))


@REGISTER.add
def getex(state: State | None, now_ms: int, expire_at_ms: int) -> Outcome:
    """The value, and give it another expiry; 0 takes it away."""
    if state is None:
        return Outcome(None)
    if expire_at_ms == state.expire_at_ms:
        return Outcome(state.value)
    if expire_at_ms and expire_at_ms <= now_ms:
        return Outcome(state.value, REMOVED)
    return Outcome(state.value, State(state.value, expire_at_ms))


@REGISTER.add
def delex(state: State | None, now_ms: int, condition: str, operand: bytes) -> Outcome:
    """Remove the key where the condition holds; whether it was."""
    if state is None or not is_met(state, condition, operand):
        return Outcome(False)
    return Outcome(True, REMOVED)


@REGISTER.add
def digest(state: State | None, now_ms: int) -> Outcome:
    """The value's digest, or None where the key is absent."""
    return Outcome(None if state is None else value_digest(state.value))
