"""SWAPDB: two keyspaces of clients exchange their keys, for all connections of all protocols at one moment.

No record moves: from that moment on each of the two names is for the records of the other (Dispatch.map_keyspaces). The
order of events:

    1  whoever keeps the map (the supervisor) makes the new one durable, and answers
    2  every command that holds shards has ended, and none begins: it would go on in other keyspaces than it began in
    3  what EXEC of any connection depends on is looked at (`look`)
    4  the map changes, the client is answered

Operations that were queued before 4 are for the records that were meant when they came. What was watched is void where
the key is in either of both keyspaces, as in Redis: the versions of two records say nothing of one another, since each
shard counts its own. Where it is in none, absent stays absent.
Crash: before 1 nothing was swapped, after it everything was, whether or not the client was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from kio.commands import ops
from kio.commands.ops import Plan
from kio.commands.plans_keyspace import swapped_keyspaces
from kio.commands.replies import CommandError
from kio.frontdoor.resp.runner import Later, Runner
from kio.frontdoor.resp.sessions import Session, Version, Watched


class Kept(NamedTuple):
    """What whoever keeps the map says to a swap."""

    #: The map that holds from now on.
    places: bytes
    #: What the client is told, as RESP tells errors; "" where it was swapped.
    error: str


#: Asks for a swap of two keyspaces; calls back once. False: it cannot be asked now.
Ask = Callable[[int, int, Callable[[Kept], None]], bool]


def look(watches: Iterable[Watched], first: int, second: int) -> Plan:
    """Make void what depends on a key that the swap changes; what depends on an absent one gets its new version.

    To be run while nothing else holds a shard, before the map changes; it takes errors as results.
    """
    other = {first: second, second: first}
    concerned = [watched for watched in watches if any(keyspace in other for keyspace, _ in watched)]
    names: dict[tuple[int, bytes], None] = {}
    for watched in concerned:
        entries = [(name, version) for name, version in watched.items() if name[0] in other]
        if any(not _is_absent(version) for _, version in entries):
            watched.is_void = True
        if not watched.is_void:
            for (keyspace, key), _ in entries:
                names |= {(keyspace, key): None, (other[keyspace], key): None}
    if not names:
        return
    results = yield [ops.version(key, keyspace) for keyspace, key in names]
    now: dict[tuple[int, bytes], Any] = dict(zip(names, results, strict=True))
    for watched in concerned:
        for keyspace, key in [name for name in watched if name[0] in other and not watched.is_void]:
            after = now[other[keyspace], key]
            # An error is no version that there was, and none of an absent key.
            if now[keyspace, key] != watched[keyspace, key] or not _is_absent(after):
                watched.is_void = True
            watched[keyspace, key] = after


def _is_absent(version: Version | Exception) -> bool:
    return version is None or (isinstance(version, tuple) and version[0] == 0)


class SwapCommand:
    """SWAPDB, for one front door.

    Args:
        runner: gets this as its own.
        ask: whoever keeps the map.
        places: the map that holds.
    """

    def __init__(self, runner: Runner, ask: Ask, places: bytes) -> None:
        self._runner = runner
        self._ask = ask
        #: The map that was last told; it holds when what is under way has ended.
        self._places = places
        self._under_way = 0
        #: What `when_still` keeps.
        self._waiting: list[Callable[[], None]] = []
        runner.own["swapdb"] = self._swap

    def when_still(self, then: Callable[[], None]) -> None:
        """Call `then` when no swap is under way: what is on disk is what holds here. Now, or later."""
        if self._under_way:
            self._waiting.append(then)
        else:
            then()

    def _swap(self, session: Session, arguments: list[bytes]) -> Any:
        first, second = swapped_keyspaces(arguments)
        return "OK" if first == second else Later(partial(self._begin, first, second))

    def _begin(self, first: int, second: int, done: Callable[[Any], None]) -> None:
        self._under_way += 1

        def ended(reply: Any) -> None:
            self._under_way -= 1
            done(reply)
            while self._waiting and not self._under_way:
                self._waiting.pop(0)()

        def kept(answer: Kept) -> None:
            reply = CommandError(answer.error) if answer.error else "OK"
            if answer.places == self._places:
                ended(reply)
                return
            self._places = answer.places
            self._runner.run_alone(self._swapping(first, second, answer.places, reply), ended)

        if not self._ask(first, second, kept):
            ended(CommandError("TRYAGAIN the supervisor does not listen; nothing was swapped"))

    def _swapping(self, first: int, second: int, places: bytes, reply: Any) -> Plan:
        yield []  # behind this nothing else holds a shard
        yield from look(self._runner.sessions.watches(), first, second)
        self._runner.map_keyspaces(places)
        return reply
