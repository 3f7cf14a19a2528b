"""What callers hand in, checked: keys are bytes or str, values are bytes-like.

A str key stands for its UTF-8 bytes; it is left as it is, since msgpack writes it as those bytes. Whatever would be
misread in silence (a str as value, one key where several are wanted, a pair that is none) is a TypeError that says what
to do. Batches are checked by whole-list operations: no Python statement runs for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, TypeVar

from kio.errors import KeyEmpty, RequestError
from kio.glob import Glob

Key = bytes | str
Value = bytes | bytearray | memoryview
K = TypeVar("K", bound=Key)

_KEY_TYPES = {bytes, str}
_VALUE_TYPES = {bytes, bytearray}
_PAIR_TYPES = {tuple, list}


def key(given: Any) -> Key:
    """`given` if it can be a key.

    Raises:
        TypeError: when it is neither bytes nor str.
        KeyEmpty: when it has no bytes.
    """
    if not isinstance(given, bytes | str):
        raise TypeError(f"a key is bytes or str, not {type(given).__name__}; encode it first")
    if not given:
        raise KeyEmpty
    checked: Key = given
    return checked


def key_bytes(given: Key) -> bytes:
    """The bytes that a key stands for."""
    return given.encode() if isinstance(given, str) else given


def prefix(given: Any) -> Key:
    """`given` if it can be the prefix of keys: as a key, but it may be empty."""
    return key(given) if given != b"" and given != "" else b""


def sought(prefix_given: Any, match: Any) -> tuple[Key, Glob | None] | None:
    """The prefix to ask the daemon for, and what to pick from that; None where no key can be both.

    Raises:
        TypeError: when the prefix or the pattern is neither bytes nor str.
    """
    wanted = prefix(prefix_given)
    if match is None:
        return wanted, None
    if not isinstance(match, bytes | str):
        raise TypeError(f"a pattern is bytes or str, not {type(match).__name__}; encode it first")
    pattern = Glob(key_bytes(match))
    shorter, longer = sorted((key_bytes(wanted), pattern.prefix), key=len)
    return (longer, pattern) if longer.startswith(shorter) else None


def value(given: Any) -> bytes | bytearray | memoryview:
    """`given` if it can be a value, in a form that msgpack takes.

    Raises:
        TypeError: when it is not bytes-like.
    """
    if isinstance(given, bytes | bytearray):
        return given
    if isinstance(given, memoryview):
        return given.cast("B") if given.c_contiguous else given.tobytes()
    hint = "use .encode()" if isinstance(given, str) else "serialise it first"
    raise TypeError(f"a value is bytes, bytearray or memoryview, not {type(given).__name__}; {hint}")


def keys(given: Iterable[K], method: str) -> list[K]:
    """The keys of a batch, in order; `given` is read to its end.

    Raises:
        TypeError: when it is a single key, or one of its members is neither bytes nor str.
        KeyEmpty: when one of them has no bytes.
    """
    if isinstance(given, bytes | str | bytearray | memoryview):
        one = method.removesuffix("_many")
        raise TypeError(f"{method} takes several keys, as in {method}([key]); for a single one use {one}")
    listed = given if type(given) is list else list(given)
    if not set(map(type, listed)) <= _KEY_TYPES or not all(listed):
        for each in listed:
            key(each)
    return listed


def pairs(given: Mapping[K, Any] | Iterable[tuple[K, Any]], encode: Callable[[Any], Value] | None = None) -> list[Any]:
    """The flat list key, value, key, value... of a batch, in order; `given` is read to its end.

    `encode` makes bytes of each value; without it they must be bytes-like.

    Raises:
        TypeError: when it is neither a mapping nor made of pairs, or a key or value has a wrong type.
        KeyEmpty: when a key has no bytes.
    """
    if isinstance(given, bytes | str | bytearray | memoryview):
        raise TypeError("set_many takes a mapping or (key, value) pairs; for a single pair use set")
    if isinstance(given, Mapping):
        listed: list[Any] = list(given.items())
    else:
        listed = given if type(given) is list else list(given)
        if not set(map(type, listed)) <= _PAIR_TYPES or not set(map(len, listed)) <= {2}:
            listed = [_pair(each) for each in listed]
    flat = list(chain.from_iterable(listed))
    if encode is not None:
        flat[1::2] = map(encode, flat[1::2])
    elif not set(map(type, flat[1::2])) <= _VALUE_TYPES:
        flat[1::2] = map(value, flat[1::2])
    keys(flat[0::2], "set_many")
    return flat


def _pair(given: Any) -> Any:
    if isinstance(given, tuple | list) and len(given) == 2:
        return given
    raise TypeError(f"set_many takes (key, value) pairs, not {type(given).__name__}")


def scan_limit(given: Any) -> int:
    """`given` if it can be the number of keys on one page of a scan, 1 to 65,536."""
    if type(given) is int and 1 <= given <= 65_536:
        return given
    raise RequestError(f"a page of a scan holds 1 to 65536 keys, not {given!r}")
