"""Patterns of keys: `*` any bytes, `?` one byte, `[a-z]` and `[^a-z]` one of a class, `\\` the next byte itself.

A pattern is cut at its stars. Each piece has a fixed length and is looked for once, from where the one before it ended;
so a key costs at most its length times that of a piece, whatever the pattern.
"""

from __future__ import annotations

import re
from typing import Final

from kio.limits import KEY_BYTES_MAX

_STAR, _ANY, _OPEN, _CLOSE, _NOT, _ESCAPE, _TO = b"*?[]^\\-"
_ALL: Final = frozenset(range(256))


class Glob:
    """One pattern, read once and asked often.

    >>> keys = [b"user:1", b"user:22", b"uses"]
    >>> [key for key in keys if Glob(b"user:[0-9]*").matches(key)]
    [b'user:1', b'user:22']
    """

    def __init__(self, pattern: bytes) -> None:
        pieces = _pieces(pattern)
        #: All keys that match begin with it.
        self.prefix = _prefix(pieces[0])
        self._lengths = [len(piece) for piece in pieces]
        self._length_min = sum(self._lengths)
        #: No key is that long: it need not be understood.
        self._is_impossible = self._length_min > KEY_BYTES_MAX
        self._pieces = [] if self._is_impossible else [_expression(piece) for piece in pieces]
        #: Whether every key matches.
        self.is_all = len(pieces) > 1 and not self._length_min

    def matches(self, key: bytes) -> bool:
        """Whether the pattern says this key."""
        length = len(key)
        if self._is_impossible or length < self._length_min:
            return False
        first, *others = self._pieces
        if not others:
            return length == self._length_min and first.match(key) is not None
        if first.match(key) is None:
            return False
        at = self._lengths[0]
        last_at = length - self._lengths[-1]
        for piece in others[:-1]:
            found = piece.search(key, at, last_at)
            if found is None:
                return False
            at = found.end()
        return others[-1].match(key, last_at) is not None


#: A piece is a list of the bytes that may stand at each place.
_Piece = list[frozenset[int]]


def _pieces(pattern: bytes) -> list[_Piece]:
    pieces: list[_Piece] = [[]]
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        at += 1
        if byte == _STAR:
            if pieces[-1] or len(pieces) == 1:
                pieces.append([])
        elif byte == _ANY:
            pieces[-1].append(_ALL)
        elif byte == _OPEN:
            members, at = _class(pattern, at)
            pieces[-1].append(members)
        else:
            if byte == _ESCAPE and at < len(pattern):
                byte = pattern[at]
                at += 1
            pieces[-1].append(frozenset((byte,)))
    return pieces


def _class(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """The members of a class that begins at `at`, and where it has ended; one that is not closed ends with all."""
    is_not = pattern[at : at + 1] == b"^"
    at += is_not
    members: set[int] = set()
    while at < len(pattern) and pattern[at] != _CLOSE:
        left = len(pattern) - at
        if pattern[at] == _ESCAPE and left >= 2:
            members.add(pattern[at + 1])
            at += 2
        elif left >= 3 and pattern[at + 1] == _TO:
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    return (_ALL - members if is_not else frozenset(members)), at + 1


def _prefix(piece: _Piece) -> bytes:
    prefix = bytearray()
    for members in piece:
        if len(members) != 1:
            break
        prefix.extend(members)
    return bytes(prefix)


def _expression(piece: _Piece) -> re.Pattern[bytes]:
    """An expression without any repetition."""
    return re.compile(b"".join(map(_one, piece)), re.DOTALL)


def _one(members: frozenset[int]) -> bytes:
    if len(members) == 256:
        return b"."
    if len(members) == 1:
        return re.escape(bytes(members))
    if not members:
        return rb"[^\x00-\xff]"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]"
