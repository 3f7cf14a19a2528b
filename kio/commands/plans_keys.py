"""Commands on keys, whatever their values: whether they are there, what they are called, in which keyspace they are."""

from __future__ import annotations

from typing import Final

from kio.commands import ops
from kio.commands.arguments import NOT_AN_INTEGER, check_keys, integer, syntax_error
from kio.commands.ops import Plan
from kio.commands.replies import OK, CommandError, Context
from kio.hashing import hash_tag

_SAME: Final = "ERR source and destination objects are the same"
_NO_SUCH_KEY: Final = "ERR no such key"
#: SELECT's; the native protocol knows more.
KEYSPACES: Final = 16
_I32: Final = 1 << 31


def integer_of_32_bits(text: bytes, refusal: str = "") -> int:
    """An integer.

    Raises:
        CommandError: when it is none of 32 bits; with `refusal`, if given.
    """
    number = integer(text, refusal or NOT_AN_INTEGER)
    if not -_I32 <= number < _I32:
        raise CommandError(refusal or f"ERR value is out of range, value must between {-_I32} and {_I32 - 1}")
    return number


def keyspace_number(text: bytes) -> int:
    """A keyspace's number.

    Raises:
        CommandError: when there is none of that number.
    """
    number = integer_of_32_bits(text)
    if not 0 <= number < KEYSPACES:
        raise CommandError("ERR DB index is out of range")
    return number


def delete(args: list[bytes], context: Context) -> Plan:
    """DEL key [key ...], and UNLINK"""
    check_keys(args[1:])
    removed = yield [ops.delete(key) for key in args[1:]]
    return sum(removed)


def exists(args: list[bytes], context: Context) -> Plan:
    """EXISTS key [key ...], and TOUCH"""
    there = yield [ops.exists(key) for key in args[1:]]
    return sum(there)


def type_(args: list[bytes], context: Context) -> Plan:
    """TYPE key"""
    (is_there,) = yield [ops.exists(args[1])]
    return "string" if is_there else "none"


def rename(args: list[bytes], context: Context) -> Plan:
    """RENAME key newkey"""
    _, source, target = args
    entry, _ = yield [ops.get_entry(source), ops.exists(target)]
    if entry is None:
        raise CommandError(_NO_SUCH_KEY)
    if source != target:
        yield from _carry(entry, source, target)
    return OK


def renamenx(args: list[bytes], context: Context) -> Plan:
    """RENAMENX key newkey"""
    _, source, target = args
    entry, is_taken = yield [ops.get_entry(source), ops.exists(target)]
    if entry is None:
        raise CommandError(_NO_SUCH_KEY)
    if is_taken:
        return 0
    yield from _carry(entry, source, target)
    return 1


def _carry(entry: ops.Entry, source: bytes, target: bytes, keyspace: int | None = None) -> Plan:
    """Store a value under its new key, in another keyspace where one is given, and remove the old one.

    In one shard that is one atomic batch. Where the shards may be two, the removal waits until the write is done: where
    that is refused (a full disk) nothing is gone, and a crash in between leaves both keys.
    """
    write = ops.set(target, entry.value, expire_at_ms=entry.expire_at_ms, keyspace=keyspace)
    if keyspace is None and hash_tag(source) == hash_tag(target):
        yield [write, ops.delete(source)]
        return
    yield [write]
    yield [ops.delete(source)]


def copy(args: list[bytes], context: Context) -> Plan:
    """COPY source destination [DB number] [REPLACE]"""
    source, target = args[1], args[2]
    keyspace = context.keyspace
    may_replace = False
    rest = iter(args[3:])
    for word in rest:
        option = word.upper()
        if option == b"REPLACE":
            may_replace = True
        elif option == b"DB" and (number := next(rest, None)) is not None:
            keyspace = keyspace_number(number)
        else:
            raise syntax_error()
    if source == target and keyspace == context.keyspace:
        raise CommandError(_SAME)
    entry, is_taken = yield [ops.get_entry(source), ops.exists(target, keyspace)]
    if entry is None or (is_taken and not may_replace):
        return 0
    yield [ops.set(target, entry.value, expire_at_ms=entry.expire_at_ms, keyspace=keyspace)]
    return 1


def move(args: list[bytes], context: Context) -> Plan:
    """MOVE key db"""
    key = args[1]
    keyspace = keyspace_number(args[2])
    if keyspace == context.keyspace:
        raise CommandError(_SAME)
    entry, is_taken = yield [ops.get_entry(key), ops.exists(key, keyspace)]
    if entry is None or is_taken:
        return 0
    yield from _carry(entry, key, key, keyspace)
    return 1
