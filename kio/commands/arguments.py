"""What stands in a command's arguments: integers, and the options that SET, GETEX and MSETEX share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from kio.commands.error_texts import text_of
from kio.commands.replies import CommandError
from kio.errors import KeyEmpty, KeyTooLarge
from kio.limits import EXPIRE_AT_MS_MAX, KEY_BYTES_MAX, TTL_MS_MAX

SYNTAX_ERROR: Final = "ERR syntax error"
NOT_AN_INTEGER: Final = "ERR value is not an integer or out of range"
I64_MIN: Final = -(1 << 63)
I64_MAX: Final = (1 << 63) - 1
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DIGEST: Final = re.compile(rb"[0-9a-fA-F]{16}")

#: It is later than this, in ms since 1970.
NOW_MS_MIN: Final = 1_700_000_000_000

#: Options that give a time: option -> ms of its unit, and whether it counts from 1970.
TIMES: Final = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}
CONDITIONS: Final = (b"NX", b"XX", b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE")


def integer(text: bytes, refusal: str = NOT_AN_INTEGER) -> int:
    """An integer of 64 bits, written as it would be printed.

    Raises:
        CommandError: with `refusal`, when it is none.
    """
    if not _INTEGER.fullmatch(text):
        raise CommandError(refusal)
    value = int(text)
    if not I64_MIN <= value <= I64_MAX:
        raise CommandError(refusal)
    return value


def wrong_arity(command: str) -> CommandError:
    """What a command answers to a number of arguments that is not its own."""
    return CommandError(f"ERR wrong number of arguments for '{command}' command")


def check_keys(keys: Iterable[bytes]) -> None:
    """Refuse keys that no shard takes, before others of the same command are written.

    Raises:
        CommandError: when one is empty, or too long.
    """
    for key in keys:
        if not key or len(key) > KEY_BYTES_MAX:
            raise CommandError(text_of(KeyTooLarge() if key else KeyEmpty()))


def syntax_error() -> CommandError:
    """What a command answers to options it does not know, or that exclude each other."""
    return CommandError(SYNTAX_ERROR)


class Expiry(NamedTuple):
    """When a key is to expire: in so many ms, or at a time since 1970; both 0 is never."""

    ttl_ms: int = 0
    expire_at_ms: int = 0

    def absolute(self, now_ms: int) -> int:
        """In ms since 1970; 0 is never."""
        return now_ms + self.ttl_ms if self.ttl_ms else self.expire_at_ms


def expiry(text: bytes, option: bytes, command: str) -> Expiry:
    """The expiry that an option of TIMES and its argument say.

    Raises:
        CommandError: when it is no integer, or not above 0, or its ms since 1970 are not one of 64 bits.
    """
    unit_ms, is_absolute = TIMES[option]
    ms = integer(text) * unit_ms
    if not 0 < ms <= I64_MAX - (0 if is_absolute else NOW_MS_MIN):
        raise invalid_expire_time(command)
    if is_absolute:
        return Expiry(expire_at_ms=min(ms, EXPIRE_AT_MS_MAX))
    return Expiry(ttl_ms=min(ms, TTL_MS_MAX))


def invalid_expire_time(command: str) -> CommandError:
    """What a command answers to a time that cannot be an expiry."""
    return CommandError(f"ERR invalid expire time in '{command}' command")


@dataclass(slots=True)
class Options:
    """The options of a SET, GETEX or MSETEX."""

    #: "", or one of CONDITIONS; `operand` is what it compares with.
    condition: str = ""
    operand: bytes = b""
    get: bool = False
    persist: bool = False
    keep_ttl: bool = False
    #: One of TIMES, and its argument; b"" is none.
    time: bytes = b""
    time_text: bytes = b""

    def expiry(self, command: str) -> Expiry:
        """What its times say.

        Raises:
            CommandError: as `expiry` does.
        """
        return expiry(self.time_text, self.time, command) if self.time else Expiry()


def options(args: list[bytes], allowed: frozenset[bytes]) -> Options:
    """Read options, of which `allowed` are known.

    Raises:
        CommandError: when one is unknown, lacks its argument, or excludes another.
    """
    found = Options()
    at = 0
    while at < len(args):
        option = args[at].upper()
        at += 1
        if option not in allowed:
            raise syntax_error()
        if option in CONDITIONS:
            at = _condition(found, option, args, at)
        elif option == b"GET":
            found.get = True
        elif option in TIMES:
            if found.keep_ttl or found.persist or found.time not in (b"", option) or at == len(args):
                raise syntax_error()
            found.time, found.time_text = option, args[at]
            at += 1
        elif found.time or (found.persist if option == b"KEEPTTL" else found.keep_ttl):
            raise syntax_error()
        elif option == b"KEEPTTL":
            found.keep_ttl = True
        else:
            found.persist = True
    return found


def _condition(found: Options, option: bytes, args: list[bytes], at: int) -> int:
    condition = option.decode()
    if option in (b"NX", b"XX"):
        if found.condition not in ("", condition):
            raise syntax_error()
        found.condition = condition
        return at
    if found.condition or at == len(args):
        raise syntax_error()
    found.condition, found.operand = condition, args[at]
    if option in (b"IFDEQ", b"IFDNE"):
        found.operand = digest(args[at])
    return at + 1


def digest(text: bytes) -> bytes:
    """A digest as DIGEST gives it.

    Raises:
        CommandError: when it can be none.
    """
    if not _DIGEST.fullmatch(text):
        raise CommandError("ERR must be exactly 16 hexadecimal characters")
    return text.lower()
