"""How a call is carried out: what to ask, what to ask again, when to give up. No sockets, no clock but the deadline's.

A plan is a generator. It yields Rounds, each a list of requests and a pause to make before; whoever drives it sends the
requests in their order over one connection and passes the list of replies, in the same order, back in; a request that
could not be sent, or whose reply never came, has a Reply with an error. What the plan returns is the call's result.

Invariants:
  * writes of one key are applied in the caller's order: a write is asked again only while no later one of that key, in
    the same call, has gone through;
  * an error says `maybe_applied` when any attempt of that write may have been applied, not only the last;
  * a request that is not repeatable is not asked again once it may have been applied.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeVar

from kio import wire
from kio.client.arguments import Key, key_bytes
from kio.client.protocol import Limits, Reply, Request
from kio.client.retry import Deadline, Retry, own_error
from kio.errors import FrameTooLarge, KeyTooLarge, KioError, PartialFailure, ReplyTooLarge, ValueTooLarge
from kio.limits import MIB

#: Keys and bytes of one frame of a batch: small enough that both sides work at the same time, large enough that what a
#: frame costs is nothing beside its keys.
FRAME_KEYS: Final = 8_192
FRAME_BYTES: Final = 4 * MIB

R = TypeVar("R")


class Round(NamedTuple):
    """What to do next: wait `pause_s`, send these requests, gather their replies, all before `deadline`."""

    requests: list[Request]
    pause_s: float
    deadline: Deadline


Plan = Generator[Round, list[Reply], R]


def single(request: Request, limits: Limits, retry: Retry) -> Plan[Any]:
    """The result of one request; of its errors, the one that is left when there is no time for another attempt."""
    pause_s = 0.0
    maybe_applied = False
    while True:
        (reply,) = yield Round([request], pause_s, retry.deadline)
        error = reply.error
        if error is None:
            return request.result_of(reply.result)
        maybe_applied |= error.maybe_applied
        may_repeat = error.retryable and (request.is_repeatable or not maybe_applied)
        pause = retry.next_pause_s(error) if may_repeat else None
        if pause is None:
            if isinstance(error, FrameTooLarge) and request.op < wire.OP_MANY:
                error = _too_large(request.arguments[1], limits)
            raise retry.final(own_error(error, maybe_applied))
        pause_s = pause


class Batch:
    """The keys of one `*_many` call, with their values where it writes, and what has come of each so far."""

    def __init__(
        self, op: int, keyspace: int, items: list[Any], limits: Limits, retry: Retry, options: tuple[int, ...] = ()
    ) -> None:
        """`items` is the list of keys, or key, value, key, value... for set_many; it is not copied."""
        self._op = op
        self._keyspace = keyspace
        self._items = items
        self._options = options
        self._limits = limits
        self._retry = retry
        #: Items of one key.
        self._width = 2 if op == wire.OP_SET_MANY else 1
        #: Bounds of one frame; they shrink when the daemon finds a frame, or the reply to it, too large.
        self._keys_max = min(FRAME_KEYS, limits.frame_keys_max)
        self._bytes_max = min(FRAME_BYTES, limits.frame_bytes_max // 2)
        #: What the value of a key took in the reply to a frame that asked for too many.
        self._value_bytes = 0
        self.keys: list[Any] = items[0::2] if self._width == 2 else items
        #: What the daemon answered, in the order of the keys; None where it failed.
        self.results: list[Any] = []
        #: Index of a key -> why it failed for good.
        self.errors: dict[int, KioError] = {}
        self._maybe_applied: set[int] = set()
        self._places: dict[bytes, list[int]] = {}

    def run(self) -> Plan[None]:
        """Ask for all of it, until every key has a result or a final error."""
        count = len(self.keys)
        todo: Sequence[int] = range(count)
        pause_s = 0.0
        while todo:
            units = self._split(todo)
            replies = yield Round([self._request(unit) for unit in units], pause_s, self._retry.deadline)
            if len(units[0]) == count and replies[0].error is None and not replies[0].failures:
                self.results = replies[0].result
                return
            if not self.results:
                self.results = [None] * count
            failed: dict[int, KioError] = {}
            at_once: set[int] = set()
            for unit, reply in zip(units, replies, strict=True):
                self._absorb(unit, reply, failed, at_once)
            pause_s, todo = self._plan_next(failed, at_once)

    def raise_errors(self, result: Any) -> None:
        """Raise what failed, if anything did; `result` is what the call returns for the rest.

        Raises:
            PartialFailure: when some keys failed.
            KioError: the error itself, when every key failed with errors of one class.
        """
        if not self.errors:
            return
        first = min(self.errors)
        error = self.errors[first]
        maybe_applied = any(each.maybe_applied for each in self.errors.values())
        if len(self.errors) == len(self.keys) and len(set(map(type, self.errors.values()))) == 1:
            raise self._retry.final(own_error(error, maybe_applied))
        message = f"{len(self.errors)} of {len(self.keys)} keys failed; the first, {self.keys[first]!r:.80}: {error}"
        errors = {self.keys[i]: self.errors[i] for i in sorted(self.errors)}
        partial = PartialFailure(message, errors=errors, result=result)
        partial.maybe_applied = maybe_applied
        raise self._retry.final(partial)

    def _split(self, todo: Sequence[int]) -> list[Sequence[int]]:
        """`todo`, indexes of keys in rising order, in units of one frame each."""
        items, width = self._items, self._width
        if isinstance(todo, range):
            sizes: Any = map(len, items)
            if len(todo) <= self._keys_max and sum(sizes) <= self._bytes_max:
                return [todo]
            sizes = map(len, items)
        else:
            sizes = (len(items[at]) for i in todo for at in range(i * width, i * width + width))
        # ends[i] is the number of bytes up to and with the i-th key; characters of a str stand for bytes here, and a
        # frame that turns out too long is asked again in two.
        ends = list(accumulate(sizes))[width - 1 :: width]
        units: list[Sequence[int]] = []
        start = 0
        while start < len(todo):
            before = ends[start - 1] if start else 0
            stop = min(start + self._keys_max, max(start + 1, bisect_right(ends, before + self._bytes_max)))
            units.append(todo[start:stop])
            start = stop
        return units

    def _request(self, unit: Sequence[int]) -> Request:
        items, width = self._items, self._width
        if len(unit) < len(self.keys):
            if isinstance(unit, range):
                items = items[unit.start * width : unit.stop * width]
            else:
                items = [items[at] for i in unit for at in range(i * width, i * width + width)]
        return Request(self._op, (self._keyspace, items, *self._options), len(unit), len(unit) * self._value_bytes)

    def _absorb(self, unit: Sequence[int], reply: Reply, failed: dict[int, KioError], at_once: set[int]) -> None:
        """Take over one frame's reply: `failed` gets its errors, `at_once` those that a smaller frame will cure."""
        error = reply.error
        if error is not None:
            failed.update(dict.fromkeys(unit, error))
            if len(unit) > 1 and isinstance(error, FrameTooLarge):
                self._bytes_max = max(1, self._bytes_max // 2)
                self._keys_max = max(1, min(self._keys_max, len(unit) // 2))
                at_once.update(unit)
            elif len(unit) > 1 and isinstance(error, ReplyTooLarge):
                self._keys_max = max(1, min(self._keys_max, len(unit) // 2))
                at_once.update(unit)
            return
        if isinstance(unit, range):
            self.results[unit.start : unit.stop] = reply.result
        else:
            for i, result in zip(unit, reply.result, strict=True):
                self.results[i] = result
        unread = []
        for at, key_error in reply.failures:
            failed[unit[at]] = key_error
            if isinstance(key_error, ReplyTooLarge) and len(unit) > 1:
                unread.append(unit[at])
        if unread:
            went_through = len(unit) - len(reply.failures)
            if went_through:
                self._value_bytes = sum(map(len, filter(None, reply.result))) // went_through
                fitting = min(went_through, FRAME_BYTES // max(1, self._value_bytes))
            else:
                fitting = len(unit) // 2
            self._keys_max = max(1, min(self._keys_max, fitting))
            at_once.update(unread)

    def _plan_next(self, failed: dict[int, KioError], at_once: set[int]) -> tuple[float, list[int]]:
        """The pause before the next round and the keys it is about; errors that stand become final."""
        self._maybe_applied.update(i for i, error in failed.items() if error.maybe_applied)
        todo = []
        cause: KioError | None = None
        for i, error in failed.items():
            if error.retryable and self._is_superseded(i):
                self.results[i] = True
            elif error.retryable or i in at_once:
                todo.append(i)
                if i not in at_once:
                    cause = error
            else:
                self._give_up(i, error)
        pause_s = self._retry.next_pause_s(cause) if cause is not None else 0.0
        if pause_s is None:
            for i in todo:
                self._give_up(i, failed[i])
            return 0.0, []
        todo.sort()
        return pause_s, todo

    def _give_up(self, i: int, error: KioError) -> None:
        if isinstance(error, FrameTooLarge):
            error = _too_large(self.keys[i], self._limits)
        self.errors[i] = own_error(error, i in self._maybe_applied)

    def _is_superseded(self, i: int) -> bool:
        """Whether a later write of the same key has gone through; to write this one now would undo it."""
        if self._op != wire.OP_SET_MANY:
            return False
        if not self._places:
            for place, key in enumerate(self.keys):
                self._places.setdefault(key_bytes(key), []).append(place)
        return any(self.results[place] for place in self._places[key_bytes(self.keys[i])] if place > i)


def pipeline(requests: list[Request], keys: list[Key], limits: Limits, retry: Retry) -> Plan[list[Any]]:
    """The results of single-key requests in their order, an error in the place of what failed.

    Operations of one key stay in order: one that failed is asked again only while no later one of its key has gone
    through.
    """
    results: list[Any] = [None] * len(requests)
    names = [key_bytes(key) for key in keys]
    last_done: dict[bytes, int] = {}
    maybe_applied: set[int] = set()
    todo = list(range(len(requests)))
    pause_s: float | None = 0.0
    while todo and pause_s is not None:
        replies = yield Round([requests[i] for i in todo], pause_s, retry.deadline)
        failed: dict[int, KioError] = {}
        for i, reply in zip(todo, replies, strict=True):
            if reply.error is None:
                results[i] = requests[i].outcome_of(reply.result)
                last_done[names[i]] = i
            else:
                failed[i] = reply.error
        todo = []
        for i, error in failed.items():
            if error.maybe_applied:
                maybe_applied.add(i)
            if isinstance(error, FrameTooLarge):
                error = _too_large(names[i], limits)
            results[i] = own_error(error, i in maybe_applied)
            may_repeat = error.retryable and (requests[i].is_repeatable or i not in maybe_applied)
            if may_repeat and last_done.get(names[i], -1) < i:
                todo.append(i)
        pause_s = retry.next_pause_s(failed[todo[0]]) if todo else None
    return results


def _too_large(key: Key, limits: Limits) -> KioError:
    """Why a frame of this one key does not fit: the key, or else its value."""
    length = len(key_bytes(key))
    if length > limits.key_bytes_max:
        return KeyTooLarge(f"a key has at most {limits.key_bytes_max} bytes, this one {length}")
    return ValueTooLarge(f"this daemon takes values of at most {limits.value_bytes_max} bytes")
