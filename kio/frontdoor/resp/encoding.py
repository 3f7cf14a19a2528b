"""Replies as bytes of RESP: those of commands that go through Python. kio/commands/replies.py says what a reply is."""

from __future__ import annotations

import math
from typing import Any

from kio.commands.replies import CommandError, NullArray, SetReply, Verbatim


def encode(reply: Any, version: int) -> bytes:
    """`reply` as RESP of this version, 2 or 3.

    Raises:
        TypeError: when it is no reply.
    """
    parts: list[bytes] = []
    _encode(reply, version, parts)
    return b"".join(parts)


def encode_error(text: str) -> bytes:
    """An error; `text` begins with its code."""
    return b"-%b\r\n" % " ".join(text.splitlines()).encode()


def _encode(reply: Any, version: int, parts: list[bytes]) -> None:
    if reply is None:
        parts.append(b"_\r\n" if version >= 3 else b"$-1\r\n")
    elif isinstance(reply, bytes):
        parts += (b"$%d\r\n" % len(reply), reply, b"\r\n")
    elif type(reply) is int:
        parts.append(b":%d\r\n" % reply)
    elif isinstance(reply, str):
        parts.append(b"+%b\r\n" % reply.encode())
    elif type(reply) is bool:
        parts.append((b"#t\r\n" if reply else b"#f\r\n") if version >= 3 else b":%d\r\n" % reply)
    elif isinstance(reply, float):
        _encode_float(reply, version, parts)
    elif isinstance(reply, Verbatim):
        _encode_verbatim(reply, version, parts)
    elif isinstance(reply, SetReply):
        _encode_array(reply.members, version, parts, b"~" if version >= 3 else b"*")
    elif isinstance(reply, list | tuple):
        _encode_array(reply, version, parts, b"*")
    elif isinstance(reply, dict):
        pairs = [part for pair in reply.items() for part in pair]
        parts.append(b"%%%d\r\n" % len(reply) if version >= 3 else b"*%d\r\n" % len(pairs))
        for part in pairs:
            _encode(part, version, parts)
    elif isinstance(reply, NullArray):
        parts.append(b"_\r\n" if version >= 3 else b"*-1\r\n")
    elif isinstance(reply, CommandError):
        parts.append(encode_error(reply.text))
    else:
        raise TypeError(f"{type(reply).__name__} is no reply")


def _encode_array(members: Any, version: int, parts: list[bytes], kind: bytes) -> None:
    parts.append(b"%b%d\r\n" % (kind, len(members)))
    for member in members:
        _encode(member, version, parts)


def _encode_float(number: float, version: int, parts: list[bytes]) -> None:
    text = repr(number).encode() if math.isfinite(number) else b"nan" if math.isnan(number) else b"%f" % number
    if text.endswith(b".0"):
        text = text[:-2]
    parts.append(b",%b\r\n" % text if version >= 3 else b"$%d\r\n%b\r\n" % (len(text), text))


def _encode_verbatim(reply: Verbatim, version: int, parts: list[bytes]) -> None:
    if version >= 3:
        parts += (b"=%d\r\n" % (len(reply.text) + 4), reply.format, b":", reply.text, b"\r\n")
    else:
        parts += (b"$%d\r\n" % len(reply.text), reply.text, b"\r\n")
