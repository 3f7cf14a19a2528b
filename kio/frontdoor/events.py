"""What `Dispatch` tells its owner: the few things that Python decides.

Common operations never appear here; they go from a client's bytes to a batch and back without an object of Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A rare operation waits for `Dispatch.answer` or `Dispatch.fail`.

    `arguments` by operation: hello (its map as msgpack bytes,); count and clear (keyspace,); scan (keyspace, cursor,
    prefix, limit, what); stats (); seal (); ping (payload,). Types are checked, ranges are not.
    """

    handle: int
    connection: int
    op: int
    arguments: tuple[Any, ...]


class Gathered(NamedTuple):
    """Every shard of a fan-out has answered, failed or run out of time: (status, payload), in the shards' order."""

    handle: int
    replies: list[tuple[int, bytes]]


class Dropped(NamedTuple):
    """The request behind `handle` needs no answer any more: its connection closed or its deadline passed."""

    handle: int


class Refused(NamedTuple):
    """A connection sent what is not this protocol; it is answered with request id 0 and then to be closed."""

    connection: int
    reason: str
    beginning: bytes


Event = Asked | Gathered | Dropped | Refused
