"""Inline commands: a line with words and quotes, for people with telnet."""

from __future__ import annotations

from typing import Final

_ESCAPES: Final = {0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09, 0x62: 0x08, 0x61: 0x07}
_SPACES: Final = b" \t\r\n\v\f\0"
_HEX: Final = b"0123456789abcdefABCDEF"
_QUOTE, _APOSTROPHE, _BACKSLASH = 0x22, 0x27, 0x5C


def split(line: bytes) -> list[bytes] | None:
    """The words of a line; None where quotes do not match.

    Within "..." there are \\n \\r \\t \\b \\a \\xHH and \\ before anything else; within '...' only \\'. A closing quote
    ends its word.

        >>> split(b'SET greeting "a\\\\x20b" ')
        [b'SET', b'greeting', b'a b']
    """
    words: list[bytes] = []
    at, n = 0, len(line)
    while True:
        while at < n and line[at] in _SPACES:
            at += 1
        if at >= n:
            return words
        word = bytearray()
        while at < n and line[at] not in _SPACES:
            byte = line[at]
            at += 1
            if byte not in (_QUOTE, _APOSTROPHE):
                word.append(byte)
                continue
            end = _quoted(line, at, byte, word)
            if end is None or (end < n and line[end] not in _SPACES):
                return None
            at = end
            break
        words.append(bytes(word))


def _quoted(line: bytes, at: int, quote: int, word: bytearray) -> int | None:
    """Add what stands from `at` to the closing quote; where that ends, None where there is none."""
    n = len(line)
    while at < n:
        byte = line[at]
        at += 1
        if byte == quote:
            return at
        if byte != _BACKSLASH or at == n or (quote == _APOSTROPHE and line[at] != _APOSTROPHE):
            word.append(byte)
            continue
        escaped = line[at]
        at += 1
        if quote == _QUOTE and escaped == 0x78 and at + 1 < n and line[at] in _HEX and line[at + 1] in _HEX:
            word.append(int(line[at : at + 2], 16))
            at += 2
        else:
            word.append(_ESCAPES.get(escaped, escaped) if quote == _QUOTE else escaped)
    return None
