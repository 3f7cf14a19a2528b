"""What a client that speaks RESP is told when an operation fails: the text, its code first."""

from __future__ import annotations

from typing import Final

from kio.errors import (
    DiskFull,
    KioError,
    MemoryFull,
    NotAnInteger,
    NumberOverflow,
    Overloaded,
    ShardDown,
    ShardReadOnly,
    Unavailable,
    ValueTooLarge,
)

#: Class -> the whole text, where clients know one.
_TEXTS: Final[dict[type[KioError], str]] = {
    NotAnInteger: "ERR value is not an integer or out of range",
    NumberOverflow: "ERR increment or decrement would overflow",
    ValueTooLarge: "ERR string exceeds maximum allowed size (max_value_bytes)",
}
#: Class -> the code before its message. Where the same request may
#: succeed later it is TRYAGAIN, LOADING or BUSY.
_CODES: Final[tuple[tuple[type[KioError], str], ...]] = (
    (MemoryFull, "OOM"),
    (DiskFull, "MISCONF"),
    (ShardReadOnly, "READONLY"),
    (ShardDown, "LOADING"),
    (Overloaded, "BUSY"),
    (Unavailable, "TRYAGAIN"),
)


def text_of(error: KioError) -> str:
    """The error as the client gets it, on one line."""
    text = _TEXTS.get(type(error))
    if text is None:
        code = next((code for cls, code in _CODES if isinstance(error, cls)), "ERR")
        message = " ".join(str(error).split())
        text = f"{code} {message}"
    return f"{text}; it may have been applied" if error.maybe_applied else text
