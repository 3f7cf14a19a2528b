"""Commands that read or write the bits of values."""

from __future__ import annotations

from typing import Final

from kio.commands import ops
from kio.commands.arguments import integer, syntax_error
from kio.commands.bitfield import BITS_MAX, FAIL, GET, INCRBY, SAT, SET, WRAP, Field
from kio.commands.bits import COMBINATIONS, OFFSET_OUT_OF_RANGE, combine, is_offset
from kio.commands.ops import Plan
from kio.commands.replies import CommandError, Context

_UNITS: Final = {b"BYTE": False, b"BIT": True}
_NEED_TWO: Final = ("DIFF", "DIFF1", "ANDOR")
_WRONG_TYPE: Final = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."


def _offset(text: bytes, bits: int = 0) -> int:
    """A bit's offset; of BITFIELD (`bits` > 0) also #n, the n-th field of that width."""
    refusal = f"ERR {OFFSET_OUT_OF_RANGE}"
    is_nth = bits > 0 and text.startswith(b"#")
    offset = integer(text[1:], refusal) * bits if is_nth else integer(text, refusal)
    if not is_offset(offset):
        raise CommandError(refusal)
    return offset


def _unit(text: bytes) -> bool:
    is_bits = _UNITS.get(text.upper())
    if is_bits is None:
        raise syntax_error()
    return is_bits


def getbit(args: list[bytes], context: Context) -> Plan:
    """GETBIT key offset"""
    (bit,) = yield [ops.apply(args[1], "getbit", _offset(args[2]))]
    return bit


def setbit(args: list[bytes], context: Context) -> Plan:
    """SETBIT key offset value"""
    offset, bit = _offset(args[2]), args[3]
    if bit not in (b"0", b"1"):
        raise CommandError("ERR bit is not an integer or out of range")
    (before,) = yield [ops.apply(args[1], "setbit", offset, int(bit))]
    return before


def bitcount(args: list[bytes], context: Context) -> Plan:
    """BITCOUNT key [start end [BYTE | BIT]]"""
    start, end, is_bits = 0, -1, False
    if len(args) > 2:
        if len(args) not in (4, 5):
            raise syntax_error()
        start, end = integer(args[2]), integer(args[3])
        is_bits = len(args) == 5 and _unit(args[4])
    (number,) = yield [ops.apply(args[1], "bitcount", start, end, is_bits)]
    return number


def bitpos(args: list[bytes], context: Context) -> Plan:
    """BITPOS key bit [start [end [BYTE | BIT]]]"""
    bit = integer(args[2])
    if bit not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    if len(args) > 6:
        raise syntax_error()
    start = integer(args[3]) if len(args) > 3 else 0
    is_bits = len(args) == 6 and _unit(args[5])
    end = integer(args[4]) if len(args) > 4 else -1
    (at,) = yield [ops.apply(args[1], "bitpos", bit, start, end, is_bits, len(args) > 4)]
    return at


def bitop(args: list[bytes], context: Context) -> Plan:
    """BITOP operation target key [key ...]"""
    operation = args[1].upper().decode("latin-1")
    target, sources = args[2], args[3:]
    if operation not in COMBINATIONS:
        raise syntax_error()
    if operation == "NOT" and len(sources) != 1:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    if operation in _NEED_TWO and len(sources) < 2:
        raise CommandError(f"ERR BITOP {operation} must be called with at least two source keys.")
    _, *values = yield [ops.exists(target), *map(ops.get, sources)]
    result = combine(operation, [value or b"" for value in values])
    yield [ops.set(target, result) if result else ops.delete(target)]
    return len(result)


def bitfield(args: list[bytes], context: Context) -> Plan:
    """BITFIELD key [GET type offset | [OVERFLOW way] (SET | INCRBY) type offset value ...]"""
    fields = _fields(args[2:])
    (replies,) = yield [ops.apply(args[1], "bitfield", fields)]
    return replies


def bitfield_ro(args: list[bytes], context: Context) -> Plan:
    """BITFIELD_RO key [GET type offset ...]"""
    fields = _fields(args[2:])
    if any(field.kind != GET for field in fields):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    (replies,) = yield [ops.apply(args[1], "bitfield", fields)]
    return replies


def _fields(args: list[bytes]) -> list[Field]:
    fields = []
    overflow = WRAP
    rest = iter(args)
    left = len(args)
    for word in rest:
        kind = word.upper().decode("latin-1")
        needed = {"OVERFLOW": 1, GET: 2, SET: 3, INCRBY: 3}.get(kind)
        left -= 1
        if needed is None or left < needed:
            raise syntax_error()
        left -= needed
        if kind == "OVERFLOW":
            overflow = next(rest).upper().decode("latin-1")
            if overflow not in (WRAP, SAT, FAIL):
                raise CommandError("ERR Invalid OVERFLOW type specified")
            continue
        is_signed, bits = _type(next(rest))
        offset = _offset(next(rest), bits)
        value = 0 if kind == GET else integer(next(rest))
        fields.append(Field(kind, is_signed, bits, offset, value, overflow))
    return fields


def _type(text: bytes) -> tuple[bool, int]:
    sign = {b"i": True, b"u": False}.get(text[:1])
    if sign is None:
        raise CommandError(_WRONG_TYPE)
    bits = integer(text[1:], _WRONG_TYPE)
    if not 1 <= bits <= BITS_MAX - (not sign):
        raise CommandError(_WRONG_TYPE)
    return sign, bits
