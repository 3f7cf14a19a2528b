r"""Glob patterns over keys, in bytes, as redis has them.

    *           any bytes, or none
    ?           one byte
    [abc]       one of these bytes; [a-c] one of a range, in either order; [^abc] one that is not among them
    \x          the byte x, also inside brackets

A pattern matches a whole key. Brackets that are not closed end with the pattern; `[]` matches nothing, `[^]` any byte;
a backslash at the very end is itself. There is no `[!a]` and no `{a,b}`: these are the bytes that they are.

A pattern is cut at its stars into runs of single-byte items. The first run is held against the key's beginning, the
last against its end; each one between is looked for from where the one before ended, and its first place is kept: a
later one never helps, so nothing is tried twice. Cost: linear in the key for runs of plain bytes; at most key times run
for runs that hold `?` or brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_ANY: Final = frozenset(range(256))
_STAR, _QUESTION, _OPEN, _CLOSE, _CARET, _DASH, _BACKSLASH = b"*?[]^-\\"

#: The bytes that may stand at one place; None stands for a star.
Item = frozenset[int] | None


class Run(NamedTuple):
    """What stands between two stars."""

    length: int
    #: The bytes of a run without wildcards.
    plain: bytes | None
    expression: re.Pattern[bytes]

    def matches_at(self, key: bytes, start: int) -> bool:
        """Whether the run stands at `start` of `key`."""
        return self.expression.match(key, start) is not None

    def end_of_first(self, key: bytes, start: int, stop: int) -> int:
        """Where the run's first place in `key[start:stop]` ends, or -1."""
        if self.plain is not None:
            at = key.find(self.plain, start, stop)
        else:
            found = self.expression.search(key, start, stop)
            at = -1 if found is None else found.start()
        return -1 if at < 0 else at + self.length


class Glob:
    """A pattern, ready to be matched.

    Attributes:
        pattern: as it was given, in bytes.
        prefix: the plain bytes that every key it matches begins with.
    """

    __slots__ = ("_runs", "pattern", "prefix")

    def __init__(self, pattern: bytes) -> None:
        items = parse(pattern)
        runs: list[list[frozenset[int]]] = [[]]
        for item in items:
            if item is None:
                runs.append([])
            else:
                runs[-1].append(item)
        self.pattern = pattern
        self.prefix = _plain_prefix(runs[0])
        # Runs between two neighbouring stars are empty and say nothing.
        self._runs = [_run(runs[0]), *(_run(run) for run in runs[1:-1] if run), *(_run(run) for run in runs[1:][-1:])]

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def matches(self, key: bytes) -> bool:
        """Whether the pattern matches the whole of `key`."""
        first, *rest = self._runs
        if not rest:
            return len(key) == first.length and first.matches_at(key, 0)
        *between, last = rest
        at, stop = first.length, len(key) - last.length
        if at > stop or not first.matches_at(key, 0) or not last.matches_at(key, stop):
            return False
        for run in between:
            at = run.end_of_first(key, at, stop)
            if at < 0:
                return False
        return True


def parse(pattern: bytes) -> list[Item]:
    """The items of `pattern`, one for each byte of a key, or None for a star."""
    items: list[Item] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        at += 1
        if byte == _STAR:
            items.append(None)
        elif byte == _QUESTION:
            items.append(_ANY)
        elif byte == _OPEN:
            item, at = _brackets(pattern, at)
            items.append(item)
        else:
            if byte == _BACKSLASH and at < len(pattern):
                byte = pattern[at]
                at += 1
            items.append(frozenset((byte,)))
    return items


def _brackets(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """The bytes that brackets stand for, and where the pattern goes on; `at` is behind the opening one."""
    is_negated = pattern[at : at + 1] == b"^"
    at += is_negated
    chosen: set[int] = set()
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _BACKSLASH and at + 1 < len(pattern):
            chosen.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1] == _DASH:
            low, high = sorted((pattern[at], pattern[at + 2]))
            chosen.update(range(low, high + 1))
            at += 3
        else:
            chosen.add(pattern[at])
            at += 1
    return _ANY - chosen if is_negated else frozenset(chosen), at + 1


def _plain_prefix(items: Iterable[frozenset[int]]) -> bytes:
    plain = bytearray()
    for item in items:
        if len(item) != 1:
            break
        plain += bytes(item)
    return bytes(plain)


def _run(items: list[frozenset[int]]) -> Run:
    plain = _plain_prefix(items)
    expression = re.compile(b"".join(map(_expression, items)), re.DOTALL)
    return Run(len(items), plain if len(plain) == len(items) else None, expression)


def _expression(item: frozenset[int]) -> bytes:
    if item == _ANY:
        return b"."
    if not item:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(item)) + b"]"
