"""Whether two replies to one command are the same: equal on the wire, but for times that run and who is asked."""

from __future__ import annotations

from typing import Final

from tests.resp.resp_codec import Array, Command, Map, Reply

#: command -> by how much its answers may differ: the two servers are asked one after the other.
TOLERANCE: Final = {b"TTL": 1, b"EXPIRETIME": 1, b"PTTL": 2000, b"PEXPIRETIME": 2000}
#: Fields of HELLO that are the server's own; what they hold is of the same type.
OWN_FIELDS: Final = frozenset((b"server", b"version", b"id"))


def same(words: Command, redis: Reply, other: Reply) -> bool:
    """Whether `other` is what redis-server answered to `words`."""
    if redis == other:
        return True
    name = words[0].upper() if words else b""
    if name in TOLERANCE:
        return (
            isinstance(redis, int)
            and isinstance(other, int)
            and min(redis, other) >= 0
            and abs(redis - other) <= TOLERANCE[name]
        )
    return name == b"HELLO" and _same_greeting(redis, other)


def _same_greeting(redis: Reply, other: Reply) -> bool:
    if not isinstance(redis, Map | Array) or not isinstance(other, Map | Array) or type(redis) is not type(other):
        return False
    ours, theirs = _fields(redis), _fields(other)
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return False
    return all(
        type(value) is type(theirs[name]) if name in OWN_FIELDS else value == theirs[name]
        for name, value in ours.items()
    )


def _fields(reply: Map | Array) -> dict[bytes, Reply] | None:
    """Name -> value; None where the names are no bulk strings."""
    pairs = reply.pairs if isinstance(reply, Map) else tuple(zip(reply.items[::2], reply.items[1::2], strict=False))
    found = {name: value for name, value in pairs if isinstance(name, bytes)}
    return found if len(found) == len(pairs) else None
