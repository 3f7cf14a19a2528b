"""Commands that read or write the values of several keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kio.commands import lcs as subsequence
from kio.commands import ops
from kio.commands.arguments import check_keys, integer, options, syntax_error, wrong_arity
from kio.commands.ops import Plan
from kio.commands.replies import OK, CommandError, Context

_MSETEX_OPTIONS: Final = frozenset((b"NX", b"XX", b"KEEPTTL", b"EX", b"PX", b"EXAT", b"PXAT"))
_MSETEX_KEYS_MAX: Final = (1 << 31) - 1
_LCS_TOO_LARGE: Final = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"


def mget(args: list[bytes], context: Context) -> Plan:
    """MGET key [key ...]"""
    values = yield [ops.get(key) for key in args[1:]]
    return values


def _pairs(words: Sequence[bytes], command: str) -> list[tuple[bytes, bytes]]:
    if len(words) % 2:
        raise wrong_arity(command)
    check_keys(words[::2])
    return list(zip(words[::2], words[1::2], strict=True))


def mset(args: list[bytes], context: Context) -> Plan:
    """MSET key value [key value ...]"""
    yield [ops.set(key, value) for key, value in _pairs(args[1:], "mset")]
    return OK


def msetnx(args: list[bytes], context: Context) -> Plan:
    """MSETNX key value [key value ...]"""
    pairs = _pairs(args[1:], "msetnx")
    there = yield [ops.exists(key) for key, _ in pairs]
    if any(there):
        return 0
    yield [ops.set(key, value) for key, value in pairs]
    return 1


def msetex(args: list[bytes], context: Context) -> Plan:
    """MSETEX numkeys key value [key value ...] [NX | XX] [a time | KEEPTTL]"""
    refusal = "ERR invalid numkeys value"
    count = integer(args[1], refusal)
    if not 1 <= count <= _MSETEX_KEYS_MAX:
        raise CommandError(refusal)
    end = 2 + 2 * count
    if len(args) < end:
        raise CommandError("ERR wrong number of key-value pairs")
    pairs = _pairs(args[2:end], "msetex")
    asked = options(args[end:], _MSETEX_OPTIONS)
    when = asked.expiry("msetex")
    if asked.condition:
        there = yield [ops.exists(key) for key, _ in pairs]
        if any(there) if asked.condition == "NX" else not all(there):
            return 0
    at_ms = when.absolute(context.now_ms)
    yield [ops.set(key, value, expire_at_ms=at_ms, keep_ttl=asked.keep_ttl) for key, value in pairs]
    return 1


def lcs(args: list[bytes], context: Context) -> Plan:
    """LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]"""
    is_length, is_indexes, with_length, length_min = _lcs_options(args[3:])
    values = yield [ops.get(args[1]), ops.get(args[2])]
    first, second = (value or b"" for value in values)
    if (len(first) + 1) * (len(second) + 1) > subsequence.CELLS_MAX:
        raise CommandError(_LCS_TOO_LARGE)
    if is_length:
        return subsequence.length_of(first, second)
    if max(len(first), len(second)) > subsequence.BYTES_MAX:
        raise CommandError(f"ERR LCS compares values of at most {subsequence.BYTES_MAX} bytes, unless asked for LEN")
    ranges = subsequence.ranges_of(first, second)
    if not is_indexes:
        return b"".join(first[found.first_start : found.first_end + 1] for found in reversed(ranges))
    matches: list[Any] = []
    for found in ranges:
        if found.length >= length_min:
            match: list[Any] = [[found.first_start, found.first_end], [found.second_start, found.second_end]]
            matches.append([*match, found.length] if with_length else match)
    return {b"matches": matches, b"len": sum(found.length for found in ranges)}


def _lcs_options(words: list[bytes]) -> tuple[bool, bool, bool, int]:
    is_length = is_indexes = with_length = False
    length_min = 0
    rest = iter(words)
    for word in rest:
        option = word.upper()
        if option == b"IDX":
            is_indexes = True
        elif option == b"LEN":
            is_length = True
        elif option == b"WITHMATCHLEN":
            with_length = True
        elif option == b"MINMATCHLEN":
            argument = next(rest, None)
            if argument is None:
                raise syntax_error()
            length_min = integer(argument)
        else:
            raise syntax_error()
    if is_length and is_indexes:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    return is_length, is_indexes, with_length, length_min
