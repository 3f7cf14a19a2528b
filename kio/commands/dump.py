"""One value as bytes that stand for themselves: what DUMP gives and RESTORE takes.

    offset width
      0     4     magic "KIOV"
      4     1     version, 1
      5     1     kind of value, 0: a string of bytes
      6           the value
     -4     4     CRC-32 of all before it, little-endian

The expiry is not in it: RESTORE is told. Payloads of other servers are refused by their magic.

    >>> dumped(b"v").hex(" ")
    '4b 49 4f 56 01 00 76 81 84 56 7f'

Versions: 1 the first.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from kio.commands.state import REGISTER, Outcome, State
from kio.errors import BadRequest

MAGIC: Final = b"KIOV"
VERSION: Final = 1
STRING: Final = 0
WRONG: Final = "DUMP payload version or checksum are wrong"
_HEAD: Final = MAGIC + bytes((VERSION, STRING))
_CRC: Final = struct.Struct("<I")


def dumped(value: bytes) -> bytes:
    """The payload of a value."""
    return b"".join((_HEAD, value, _CRC.pack(zlib.crc32(value, zlib.crc32(_HEAD)))))


def value_of(payload: bytes) -> bytes:
    """The value of a payload.

    Raises:
        BadRequest: when it is none, is damaged, or was made by a newer kio.
    """
    if len(payload) < len(_HEAD) + _CRC.size or not payload.startswith(MAGIC):
        raise BadRequest(WRONG)
    (checksum,) = _CRC.unpack_from(payload, len(payload) - _CRC.size)
    if zlib.crc32(memoryview(payload)[: -_CRC.size]) != checksum or payload[len(MAGIC)] != VERSION:
        raise BadRequest(WRONG)
    if not payload.startswith(_HEAD):
        raise BadRequest("Bad data format")
    return payload[len(_HEAD) : -_CRC.size]


@REGISTER.add
def dump(state: State | None, now_ms: int) -> Outcome:
    """The payload of the value, or None where the key is absent."""
    return Outcome(None if state is None else dumped(state.value))


@REGISTER.add
def restore(state: State | None, now_ms: int, payload: bytes, expire_at_ms: int, may_replace: bool) -> Outcome:
    """Store the value of a payload; False where the key is there and may not be replaced.

    Args:
        expire_at_ms: 0 is never.
    """
    if state is not None and not may_replace:
        return Outcome(False)
    return Outcome(True, State(value_of(payload), expire_at_ms))
