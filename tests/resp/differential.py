"""Two servers are told the same; the first reply that is not the same, and is not intended to be, is the result.

`run` tells a sequence to both. `shrink` leaves out of a failing sequence what it does not take to fail, on emptied
servers each time. `report` is what a person reads then: the seed, the last commands, both replies, how to repeat it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tests.resp.commands_at_random import CONNECTIONS, Step
from tests.resp.comparison import same
from tests.resp.differences import Difference, excuse, table
from tests.resp.resp_codec import Array, Command, Connection, Error, Malformed, Reply, Simple
from tests.resp.servers import Server

SHOWN: Final = 30
KEPT_STEPS: Final = 3000
SHRINK_S: Final = 20.0
#: Between two parts of a step's bytes, so that they arrive apart.
PAUSE_S: Final = 0.0003
OK: Final = Simple(b"OK")
QUEUED: Final = Simple(b"QUEUED")


@dataclass(frozen=True, slots=True)
class Failure:
    """A difference that is not intended.

    Attributes:
        words: the command; inside EXEC the queued one.
        redis, kio: the replies; a text where there was none.
        steps: what was told since both were empty, this step last; None when it was too much to keep.
        shown: the last commands, each with its connection.
    """

    words: Command
    redis: Reply | str
    kio: Reply | str
    steps: tuple[Step, ...] | None
    shown: tuple[tuple[int, Command], ...]


@dataclass(slots=True)
class _Side:
    """What is known of one connection."""

    queued: list[Command] = field(default_factory=list)
    in_multi: bool = False
    #: An intended difference stands in the queue: what EXEC answers is not compared.
    tainted: bool = False


@dataclass(slots=True)
class Tally:
    """What a run has met."""

    commands: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    #: Of redis' replies: name of the command -> how many of its replies were errors, and how many were not.
    errors: Counter[bytes] = field(default_factory=Counter)
    answers: Counter[bytes] = field(default_factory=Counter)

    def count(self, words: Command, reply: Reply) -> None:
        name = words[0].upper()
        (self.errors if isinstance(reply, Error) else self.answers)[name] += 1


class _Pair:
    """Both servers, emptied, with fresh connections."""

    def __init__(self, redis: Server, kio: Server, stack: ExitStack) -> None:
        self.servers = redis, kio
        for server in self.servers:
            server.flush()
        self.connections = [
            tuple(stack.enter_context(server.connect()) for server in self.servers) for _ in range(CONNECTIONS)
        ]
        self.sides = [_Side() for _ in range(CONNECTIONS)]

    def tell(self, step: Step) -> list[tuple[Command, Reply | str, Reply | str]]:
        """The step to both; the replies side by side, up to the first that one of them did not give."""
        redis, kio = self.connections[step.connection]
        for connection in (redis, kio):
            _send(connection, step)
        told: list[tuple[Command, Reply | str, Reply | str]] = []
        for words in step.commands:
            told.append((words, _receive(redis), _receive(kio)))
            if any(isinstance(reply, str) for reply in told[-1][1:]):
                break
        return told


def _send(connection: Connection, step: Step) -> None:
    wire, began = step.wire, 0
    try:
        for cut in step.cuts:
            connection.send(wire[began:cut])
            began = cut
            time.sleep(PAUSE_S)
        connection.send(wire[began:])
    except OSError:
        pass  # whoever closed is told by the missing reply


def _receive(connection: Connection) -> Reply | str:
    try:
        return connection.receive()
    except (OSError, Malformed) as error:
        return f"no reply: {type(error).__name__}: {error}"


def run(redis: Server, kio: Server, steps: Iterable[Step], tally: Tally | None = None) -> Failure | None:
    """Tell the steps to both servers until a reply differs; None when none does."""
    tally = tally if tally is not None else Tally()
    shown: deque[tuple[int, Command]] = deque(maxlen=SHOWN)
    remaining = iter(steps)
    is_over = False
    while not is_over:
        with ExitStack() as stack:
            found, is_over = _until_diverged(_Pair(redis, kio, stack), remaining, tally, shown)
        if found is not None:
            return found
    return None


def _until_diverged(
    pair: _Pair, steps: Iterator[Step], tally: Tally, shown: deque[tuple[int, Command]]
) -> tuple[Failure | None, bool]:
    """(the failure, whether the steps are all told); (None, False) after an intended difference in what is stored."""
    told: list[Step] = []
    for step in steps:
        if len(told) <= KEPT_STEPS:
            told.append(step)
        side = pair.sides[step.connection]
        for words, ours, theirs in pair.tell(step):
            tally.commands += 1
            shown.append((step.connection, words))
            found = _judge(side, words, ours, theirs, tally)
            if isinstance(found, Difference):
                if found.diverges and not side.tainted:
                    return None, False
            elif found is not None:
                kept = tuple(told) if len(told) <= KEPT_STEPS else None
                return Failure(*found, kept, tuple(shown)), False
    return None, True


Wrong = tuple[Command, Reply | str, Reply | str]


def _judge(
    side: _Side, words: Command, ours: Reply | str, theirs: Reply | str, tally: Tally
) -> Difference | Wrong | None:
    """What is wrong with this pair of replies; keeps track of the transaction."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return words, ours, theirs
    name = words[0].upper()
    was_tainted = side.tainted
    queued = side.queued
    if name in (b"RESET", b"EXEC") or (name == b"DISCARD" and len(words) == 1):
        side.queued, side.in_multi, side.tainted = [], False, False
    elif name == b"MULTI" and OK in (ours, theirs):
        side.queued, side.in_multi = [], True
    elif ours == QUEUED:
        side.queued.append(words)
    if name == b"EXEC" and isinstance(ours, Array):
        for each, reply in zip(queued, ours.items, strict=True):
            tally.count(each, reply)
    if ours != QUEUED:
        tally.count(words, ours)
    if was_tainted and name == b"EXEC":
        return _tainted()
    found = _compare(words, queued, ours, theirs)
    if found is None:
        return None
    intended = excuse(*_replies(found))
    if intended is None:
        return found
    tally.excused[intended.id] += 1
    if side.in_multi and intended.diverges:
        side.tainted = True
    return intended


def _tainted() -> Difference:
    return Difference("tainted", "an intended difference was in the queue", lambda *_: True)


def _replies(found: Wrong) -> tuple[Command, Reply, Reply]:
    words, ours, theirs = found
    assert not isinstance(ours, str) and not isinstance(theirs, str)
    return words, ours, theirs


def _compare(words: Command, queued: Sequence[Command], ours: Reply, theirs: Reply) -> Wrong | None:
    is_result = words[0].upper() == b"EXEC" and isinstance(ours, Array) and isinstance(theirs, Array)
    if not is_result:
        return None if same(words, ours, theirs) else (words, ours, theirs)
    assert isinstance(ours, Array) and isinstance(theirs, Array)
    if len(ours.items) != len(theirs.items):
        return words, ours, theirs
    wrong = [
        (each, one, other)
        for each, one, other in zip(queued, ours.items, theirs.items, strict=True)
        if not same(each, one, other)
    ]
    # An intended difference inside must not hide another one.
    unintended = [found for found in wrong if excuse(*found) is None]
    return next(iter(unintended or wrong), None)


def shrink(failure: Failure, fails: Callable[[Sequence[Step]], Failure | None], limit_s: float = SHRINK_S) -> Failure:
    """A shorter failure, made of what is left when steps, and then commands of steps, are left out one by one.

    Args:
        failure: with its steps; without them it is returned as it is.
        fails: tells steps to emptied servers, as `run` does.
        limit_s: when this is over, what was reached holds.
    """
    if failure.steps is None:
        return failure
    end = time.monotonic() + limit_s
    best = failure
    size = max(1, len(failure.steps) // 2)
    while size and time.monotonic() < end:
        best, size = _leave_out(best, size, fails, end), size // 2
    single = [Step(step.connection, (words,)) for step in best.steps or () for words in step.commands]
    again = fails(single)
    if again is not None and again.steps is not None:
        best = again
        for size in (4, 2, 1, 1):
            best = _leave_out(best, size, fails, end)
    return best


def _leave_out(best: Failure, size: int, fails: Callable[[Sequence[Step]], Failure | None], end: float) -> Failure:
    """Every run of `size` steps is left out for good if it fails without it."""
    at = 0
    while best.steps is not None and at < len(best.steps) and time.monotonic() < end:
        again = fails(best.steps[:at] + best.steps[at + size :])
        if again is not None and again.steps is not None:
            best = again
        else:
            at += size
    return best


def report(failure: Failure, repeat: str) -> str:
    """What a person needs: the last commands, both replies, the command that repeats it."""
    steps = failure.steps
    if steps is not None and sum(len(step.commands) for step in steps) <= SHOWN:
        last: Iterable[tuple[int, Command]] = [(step.connection, words) for step in steps for words in step.commands]
    else:
        last = failure.shown
    lines = [f"  [{connection}] {_readable(words)}" for connection, words in last]
    return "\n".join(
        [
            "the replies differ, and differences.py does not intend it",
            f"command: {_readable(failure.words)}",
            f"redis:   {_short(failure.redis)}",
            f"kio:     {_short(failure.kio)}",
            "what was told, [connection] first:",
            *lines,
            f"repeat with: {repeat}",
        ]
    )


def _readable(words: Command) -> str:
    return " ".join(_short(word) for word in words)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 600 else f"{text[:400]} ... {text[-100:]} ({len(text)} characters)"


def check(redis: Server, kio: Server, steps: Iterable[Step], repeat: str) -> Tally:
    """Run, and fail with a short report; prints how often each intended difference was met.

    Raises:
        AssertionError: when a reply differs that is not intended to.
    """
    tally = Tally()
    failure = run(redis, kio, steps, tally)
    print(f"{tally.commands} commands\n{table(tally.excused)}")
    if failure is not None:
        failure = shrink(failure, lambda fewer: run(redis, kio, fewer))
        raise AssertionError(report(failure, repeat))
    return tally
