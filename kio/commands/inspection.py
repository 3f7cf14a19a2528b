"""What OBJECT and MEMORY tell of a key."""

from __future__ import annotations

import re
from typing import Final

from kio.commands.state import REGISTER, Outcome, State

#: A record's fixed header, its expiry where it has one, what records are aligned to, and a KeyDir's word.
_HEADER_BYTES: Final = 24
_EXPIRY_BYTES: Final = 8
_ALIGNMENT: Final = 8
_WORD_BYTES: Final = 8
#: The longest value that clients are told is kept with its key.
EMBEDDED_BYTES_MAX: Final = 44
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


@REGISTER.add
def encoding(state: State | None, now_ms: int) -> Outcome:
    """int, embstr or raw, as clients expect of such a value, or None where the key is absent."""
    if state is None:
        return Outcome(None)
    value = state.value
    if _INTEGER.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63:
        return Outcome(b"int")
    return Outcome(b"embstr" if len(value) <= EMBEDDED_BYTES_MAX else b"raw")


@REGISTER.add
def memory_usage(state: State | None, now_ms: int, key_bytes: int) -> Outcome:
    """Bytes of the key's record and its word in the KeyDir, or None where it is absent."""
    if state is None:
        return Outcome(None)
    record = _HEADER_BYTES + _EXPIRY_BYTES * bool(state.expire_at_ms) + key_bytes + len(state.value)
    return Outcome(-(-record // _ALIGNMENT) * _ALIGNMENT + _WORD_BYTES)
