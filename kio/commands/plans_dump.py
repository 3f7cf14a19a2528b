"""Commands that take a key out and put it back, or tell what it is made of."""

from __future__ import annotations

from typing import Any, Final

from kio.commands import ops
from kio.commands.arguments import integer, invalid_expire_time, syntax_error, wrong_arity
from kio.commands.ops import Plan
from kio.commands.replies import OK, CommandError, Context
from kio.limits import EXPIRE_AT_MS_MAX

_NO_FREQUENCY: Final = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
    "between policies at runtime LRU and LFU data will take some time to adjust."
)
_BUSY: Final = "BUSYKEY Target key name already exists."
_OBJECT_HELP: Final = (
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    How clients may expect the value to be kept: int, embstr or raw.",
    "FREQ <key>",
    "    Refused: kio does not count accesses.",
    "IDLETIME <key>",
    "    0: kio does not note accesses.",
    "REFCOUNT <key>",
    "    1: no value is shared.",
    "HELP",
    "    Print this help.",
)
_MEMORY_HELP: Final = (
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Bytes of the key's record in the log and its word in memory.",
    "HELP",
    "    Print this help.",
)


def dump(args: list[bytes], context: Context) -> Plan:
    """DUMP key"""
    (payload,) = yield [ops.apply(args[1], "dump")]
    return payload


def restore(args: list[bytes], context: Context) -> Plan:
    """RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]"""
    may_replace = is_absolute = False
    accesses = b""
    rest = iter(args[4:])
    for word in rest:
        option = word.upper()
        if option == b"REPLACE":
            may_replace = True
        elif option == b"ABSTTL":
            is_absolute = True
        elif option in (b"IDLETIME", b"FREQ") and accesses in (b"", option) and (text := next(rest, None)) is not None:
            _check_accesses(option, text)
            accesses = option
        else:
            raise syntax_error()
    try:
        at_ms = _restored_expiry(args[2], 0 if is_absolute else context.now_ms)
    except CommandError:
        # Whether the key is there is looked for first.
        (is_there,) = yield [ops.exists(args[1])]
        if is_there and not may_replace:
            raise CommandError(_BUSY) from None
        raise
    (is_done,) = yield [ops.apply(args[1], "restore", args[3], at_ms, may_replace)]
    if not is_done:
        raise CommandError(_BUSY)
    return OK


def _restored_expiry(text: bytes, from_ms: int) -> int:
    ttl_ms = integer(text)
    if ttl_ms < 0:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    if ttl_ms + from_ms > EXPIRE_AT_MS_MAX:
        raise invalid_expire_time("restore")
    return ttl_ms and ttl_ms + from_ms


def _check_accesses(option: bytes, text: bytes) -> None:
    """Neither is kept, but what they say must be right."""
    number = integer(text)
    if option == b"IDLETIME" and number < 0:
        raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
    if option == b"FREQ" and not 0 <= number <= 255:
        raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")


def object_(args: list[bytes], context: Context) -> Any:
    """OBJECT ENCODING | FREQ | IDLETIME | REFCOUNT key, and OBJECT HELP"""
    what = args[1].upper()
    if what == b"HELP":
        _check_count(args, 2, "object|help")
        return list(_OBJECT_HELP)
    if what not in (b"ENCODING", b"FREQ", b"IDLETIME", b"REFCOUNT"):
        raise _unknown_subcommand("OBJECT", args[1])
    _check_count(args, 3, f"object|{what.decode().lower()}")
    return _object(args[2], what)


def _object(key: bytes, what: bytes) -> Plan:
    (encoding,) = yield [ops.apply(key, "encoding")]
    if encoding is None or what == b"ENCODING":
        return encoding
    if what == b"FREQ":
        raise CommandError(_NO_FREQUENCY)
    return int(what == b"REFCOUNT")


def memory(args: list[bytes], context: Context) -> Any:
    """MEMORY USAGE key [SAMPLES count], and MEMORY HELP"""
    what = args[1].upper()
    if what == b"HELP":
        _check_count(args, 2, "memory|help")
        return list(_MEMORY_HELP)
    if what != b"USAGE":
        raise _unknown_subcommand("MEMORY", args[1])
    if len(args) < 3:
        raise wrong_arity("memory|usage")
    if len(args) > 3 and (len(args) != 5 or args[3].upper() != b"SAMPLES" or integer(args[4]) < 0):
        raise syntax_error()
    return _memory(args[2])


def _memory(key: bytes) -> Plan:
    (usage,) = yield [ops.apply(key, "memory_usage", len(key))]
    return usage


def _check_count(args: list[bytes], count: int, command: str) -> None:
    if len(args) != count:
        raise wrong_arity(command)


def _unknown_subcommand(command: str, name: bytes) -> CommandError:
    text = name[:128].decode("utf-8", "replace")
    return CommandError(f"ERR unknown subcommand '{text}'. Try {command} HELP.")
