"""Commands that read or write the value of one key."""

from __future__ import annotations

from typing import Any, Final

from kio.commands import ops
from kio.commands.arguments import (
    I64_MIN,
    Expiry,
    digest,
    expiry,
    integer,
    options,
    syntax_error,
    wrong_arity,
)
from kio.commands.ops import UNMET, Plan
from kio.commands.replies import OK, CommandError, Context
from kio.commands.strings import STRING_BYTES_MAX, STRING_TOO_LONG

_SET_OPTIONS: Final = frozenset(
    (b"NX", b"XX", b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE", b"GET", b"KEEPTTL", b"EX", b"PX", b"EXAT", b"PXAT")
)
_GETEX_OPTIONS: Final = frozenset((b"PERSIST", b"EX", b"PX", b"EXAT", b"PXAT"))
#: Condition -> that of the kernel's own set.
_NATIVE: Final[dict[str, dict[str, bool]]] = {"": {}, "NX": {"if_absent": True}, "XX": {"if_present": True}}


def get(args: list[bytes], context: Context) -> Plan:
    """GET key"""
    (value,) = yield [ops.get(args[1])]
    return value


def set_(args: list[bytes], context: Context) -> Plan:
    """SET key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [a time | KEEPTTL]"""
    _, key, value, *rest = args
    if not rest:
        yield [ops.set(key, value)]
        return OK
    asked = options(rest, _SET_OPTIONS)
    when = asked.expiry("set")
    native = _NATIVE.get(asked.condition)
    if native is not None and not (asked.get and native):
        (result,) = yield [ops.set(key, value, **when._asdict(), keep_ttl=asked.keep_ttl, with_old=asked.get, **native)]
        if asked.get:
            return result
        return None if result is UNMET else OK
    at_ms = when.absolute(context.now_ms)
    arguments = (value, asked.condition, asked.operand, at_ms, asked.keep_ttl, asked.get)
    ((is_done, old),) = yield [ops.apply(key, "set_full", *arguments)]
    if asked.get:
        return old
    return OK if is_done else None


def setnx(args: list[bytes], context: Context) -> Plan:
    """SETNX key value"""
    (result,) = yield [ops.set(args[1], args[2], if_absent=True)]
    return int(result is not UNMET)


def setex(args: list[bytes], context: Context) -> Plan:
    """SETEX key seconds value, and PSETEX key milliseconds value"""
    name, key, time, value = args
    when = expiry(time, b"EX" if name.lower() == b"setex" else b"PX", name.decode().lower())
    yield [ops.set(key, value, ttl_ms=when.ttl_ms)]
    return OK


def getset(args: list[bytes], context: Context) -> Plan:
    """GETSET key value"""
    (old,) = yield [ops.set(args[1], args[2], with_old=True)]
    return old


def getdel(args: list[bytes], context: Context) -> Plan:
    """GETDEL key"""
    (old,) = yield [ops.delete(args[1], with_old=True)]
    return old


def getex(args: list[bytes], context: Context) -> Plan:
    """GETEX key [a time | PERSIST]"""
    asked = options(args[2:], _GETEX_OPTIONS)
    try:
        when = asked.expiry("getex")
    except CommandError:
        # An absent key is looked for first.
        (is_there,) = yield [ops.exists(args[1])]
        if not is_there:
            return None
        raise
    if when == Expiry() and not asked.persist:
        (value,) = yield [ops.get(args[1])]
    else:
        (value,) = yield [ops.apply(args[1], "getex", when.absolute(context.now_ms))]
    return value


def append(args: list[bytes], context: Context) -> Plan:
    """APPEND key value"""
    (length,) = yield [ops.append(args[1], args[2])]
    return length


def strlen(args: list[bytes], context: Context) -> Plan:
    """STRLEN key"""
    (length,) = yield [ops.apply(args[1], "strlen")]
    return length


def getrange(args: list[bytes], context: Context) -> Plan:
    """GETRANGE key start end, and SUBSTR"""
    start, end = integer(args[2]), integer(args[3])
    (part,) = yield [ops.apply(args[1], "getrange", start, end)]
    return part


def setrange(args: list[bytes], context: Context) -> Plan:
    """SETRANGE key offset value"""
    offset, value = integer(args[2]), args[3]
    if offset < 0:
        raise CommandError("ERR offset is out of range")
    if value and offset + len(value) > STRING_BYTES_MAX:
        raise CommandError(f"ERR {STRING_TOO_LONG}")
    (length,) = yield [ops.apply(args[1], "setrange", offset, value)]
    return length


def incr(args: list[bytes], context: Context) -> Plan:
    """INCR key"""
    (total,) = yield [ops.incr(args[1], 1)]
    return total


def decr(args: list[bytes], context: Context) -> Plan:
    """DECR key"""
    (total,) = yield [ops.incr(args[1], -1)]
    return total


def incrby(args: list[bytes], context: Context) -> Plan:
    """INCRBY key increment"""
    (total,) = yield [ops.incr(args[1], integer(args[2]))]
    return total


def decrby(args: list[bytes], context: Context) -> Plan:
    """DECRBY key decrement"""
    delta = integer(args[2])
    if delta == I64_MIN:
        raise CommandError("ERR decrement would overflow")
    (total,) = yield [ops.incr(args[1], -delta)]
    return total


def incrbyfloat(args: list[bytes], context: Context) -> Plan:
    """INCRBYFLOAT key increment"""
    (text,) = yield [ops.apply(args[1], "incrbyfloat", args[2])]
    return text


def digest_(args: list[bytes], context: Context) -> Plan:
    """DIGEST key"""
    (text,) = yield [ops.apply(args[1], "digest")]
    return text


def delex(args: list[bytes], context: Context) -> Plan:
    """DELEX key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]"""
    if len(args) == 2:
        (is_removed,) = yield [ops.delete(args[1])]
        return int(is_removed)
    if len(args) != 4:
        raise wrong_arity("delex")
    condition, operand = args[2].upper(), args[3]
    if condition in (b"IFDEQ", b"IFDNE"):
        operand = digest(operand)
    elif condition not in (b"IFEQ", b"IFNE"):
        raise syntax_error()
    arguments: tuple[Any, ...] = (condition.decode(), operand)
    (is_removed,) = yield [ops.apply(args[1], "delex", *arguments)]
    return int(is_removed)
