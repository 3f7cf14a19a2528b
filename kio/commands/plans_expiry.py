"""Commands that read or change when a key expires."""

from __future__ import annotations

from typing import Final

from kio.commands import ops
from kio.commands.arguments import I64_MAX, I64_MIN, integer, invalid_expire_time
from kio.commands.ops import Plan
from kio.commands.replies import CommandError, Context
from kio.limits import EXPIRE_AT_MS_MAX, TTL_MS_MAX

_UNIT_MS: Final = {"expire": 1000, "pexpire": 1, "expireat": 1000, "pexpireat": 1}
_CONDITIONS: Final = (b"NX", b"XX", b"GT", b"LT")


def expire(args: list[bytes], context: Context) -> Plan:
    """EXPIRE key seconds [NX | XX | GT | LT], and PEXPIRE, EXPIREAT, PEXPIREAT"""
    command = args[0].decode().lower()
    conditions = _conditions(args[3:])
    unit_ms = _UNIT_MS[command]
    ms = integer(args[2]) * unit_ms
    from_ms = 0 if command.endswith("at") else context.now_ms
    if not I64_MIN <= ms <= I64_MAX - from_ms:
        raise invalid_expire_time(command)
    at_ms = min(max(0, from_ms + ms), EXPIRE_AT_MS_MAX)
    if conditions:
        (is_done,) = yield [ops.apply(args[1], "expire_at", at_ms, conditions)]
    elif ms <= 0 or not at_ms:
        (is_done,) = yield [ops.delete(args[1])]
    elif from_ms:
        (is_done,) = yield [ops.expire(args[1], ttl_ms=min(ms, TTL_MS_MAX))]
    else:
        (is_done,) = yield [ops.expire(args[1], expire_at_ms=at_ms)]
    return int(is_done)


def _conditions(words: list[bytes]) -> list[str]:
    found = []
    for word in words:
        condition = word.upper()
        if condition not in _CONDITIONS:
            raise CommandError(f"ERR Unsupported option {word.decode('utf-8', 'replace')}")
        found.append(condition.decode())
    if "NX" in found and {"XX", "GT", "LT"}.intersection(found):
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if "GT" in found and "LT" in found:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return found


def persist(args: list[bytes], context: Context) -> Plan:
    """PERSIST key"""
    (is_done,) = yield [ops.persist(args[1])]
    return int(is_done)


def pttl(args: list[bytes], context: Context) -> Plan:
    """PTTL key"""
    (ms,) = yield [ops.ttl(args[1])]
    return -2 if ms is None else ms


def ttl(args: list[bytes], context: Context) -> Plan:
    """TTL key"""
    (ms,) = yield [ops.ttl(args[1])]
    return _seconds(ms)


def pexpiretime(args: list[bytes], context: Context) -> Plan:
    """PEXPIRETIME key"""
    (ms,) = yield [ops.apply(args[1], "expiry_time")]
    return -2 if ms is None else ms


def expiretime(args: list[bytes], context: Context) -> Plan:
    """EXPIRETIME key"""
    (ms,) = yield [ops.apply(args[1], "expiry_time")]
    return _seconds(ms)


def _seconds(ms: int | None) -> int:
    if ms is None:
        return -2
    return ms if ms < 0 else (ms + 500) // 1000
