"""Patterns of keys: `*` any bytes, `?` one byte, `[a-z]` and `[^a-z]` one of a class, `\\` the next byte itself.

A pattern is cut at its stars. Each piece has a fixed length and is looked for once, from where the one before it ended;
so a key costs at most its length times that of a piece, whatever the pattern.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final

from kio.limits import KEY_BYTES_MAX

_STAR, _ANY, _OPEN, _CLOSE, _NOT, _ESCAPE, _TO = b"*?[]^\\-"
_ALL: Final = frozenset(range(256))
_SINGLE: Final = [frozenset((byte,)) for byte in range(256)]


class _Text:
    """A piece that is the same in every key."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def stands_at(self, key: bytes, at: int) -> bool:
        """Whether the key has it there."""
        return key.startswith(self._text, at)

    def find(self, key: bytes, start: int, end: int) -> int:
        """Where it first stands between the two, or -1."""
        return key.find(self._text, start, end)


class _Classes:
    """A piece of which some places may hold one of several bytes."""

    def __init__(self, places: list[frozenset[int]]) -> None:
        self._places = places

    @cached_property
    def _expression(self) -> re.Pattern[bytes]:
        """Without any repetition; made when a key first comes as far as this piece."""
        return re.compile(b"".join(map(_one, self._places)), re.DOTALL)

    def stands_at(self, key: bytes, at: int) -> bool:
        """Whether the key has it there."""
        return self._expression.match(key, at) is not None

    def find(self, key: bytes, start: int, end: int) -> int:
        """Where it first stands between the two, or -1."""
        found = self._expression.search(key, start, end)
        return -1 if found is None else found.start()


class Glob:
    """One pattern, read once and asked often.

    >>> keys = [b"user:1", b"user:22", b"uses"]
    >>> [key for key in keys if Glob(b"user:[0-9]*").matches(key)]
    [b'user:1', b'user:22']
    """

    def __init__(self, pattern: bytes) -> None:
        pieces = _pieces(pattern)
        #: All keys that match begin with it.
        self.prefix = _prefix(pieces[0])[:KEY_BYTES_MAX]
        self._lengths = [len(piece) for piece in pieces]
        self._length_min = sum(self._lengths)
        self._pieces = [_piece(piece) for piece in pieces]
        #: Whether every key matches.
        self.is_all = len(pieces) > 1 and not self._length_min

    def matches(self, key: bytes) -> bool:
        """Whether the pattern says this key."""
        length = len(key)
        pieces, lengths = self._pieces, self._lengths
        if length < self._length_min or not pieces[0].stands_at(key, 0):
            return False
        if len(pieces) == 1:
            return length == self._length_min
        at = lengths[0]
        last_at = length - lengths[-1]
        for index in range(1, len(pieces) - 1):
            at = pieces[index].find(key, at, last_at)
            if at < 0:
                return False
            at += lengths[index]
        return pieces[-1].stands_at(key, last_at)


def _pieces(pattern: bytes) -> list[list[frozenset[int]]]:
    """For each piece, the bytes that may stand at each of its places.

    What is behind more places than a key has is not read: nothing matches.
    """
    pieces: list[list[frozenset[int]]] = [[]]
    at = places = 0
    while at < len(pattern) and places <= KEY_BYTES_MAX:
        byte = pattern[at]
        at += 1
        if byte == _STAR:
            if pieces[-1] or len(pieces) == 1:
                pieces.append([])
            continue
        places += 1
        if byte == _ANY:
            pieces[-1].append(_ALL)
        elif byte == _OPEN:
            members, at = _class(pattern, at)
            pieces[-1].append(members)
        else:
            if byte == _ESCAPE and at < len(pattern):
                byte = pattern[at]
                at += 1
            pieces[-1].append(_SINGLE[byte])
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


def _prefix(places: list[frozenset[int]]) -> bytes:
    prefix = bytearray()
    for members in places:
        if len(members) != 1:
            break
        prefix.extend(members)
    return bytes(prefix)


def _piece(places: list[frozenset[int]]) -> _Text | _Classes:
    text = _prefix(places)
    return _Text(text) if len(text) == len(places) else _Classes(places)


def _one(members: frozenset[int]) -> bytes:
    if len(members) == 256:
        return b"."
    if len(members) == 1:
        return re.escape(bytes(members))
    if not members:
        return rb"[^\x00-\xff]"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]"
