"""MULTI to EXEC: many plans as one.

Where no command of it needs answers first and nothing is watched, all its operations are one moment: queued at one
point of every shard's order, so nobody sees a part of it. Else it holds the shards of all its keys, looks whether what
was watched is still of the version it had, and runs its commands one after the other.
A command that fails takes nothing of the others back, as in Redis. A crash of a worker may leave one shard's part
undone: all or nothing over a crash is what keys of one {tag} get (jobs.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from kio.commands import ops
from kio.commands.error_texts import text_of
from kio.commands.ops import Operation, Plan
from kio.commands.replies import NULL_ARRAY, CommandError, Context, Implementation
from kio.errors import KioError
from kio.frontdoor.resp.sessions import Watched


class Step(NamedTuple):
    """One command of a transaction: a plan that has yielded its first moment, or a reply that was made at once."""

    plan: Plan | None
    first: list[Operation]
    #: Whether that moment is all it needs.
    is_simple: bool
    reply: Any = None
    #: What is about the connection or the daemon is done when its turn has come, and not at all where EXEC does
    #: nothing: gives the reply, or a plan.
    late: Callable[[], Any] | None = None


def begin(run: Implementation, arguments: list[bytes], context: Context, moments: int) -> Step:
    """The step of a command on keys."""
    try:
        started = run(arguments, context)
        if not isinstance(started, Generator):
            return Step(None, [], True, started)
        first = next(started)
    except StopIteration as end:
        return Step(None, [], True, end.value)
    except CommandError as error:
        return Step(None, [], True, error)
    except KioError as error:
        return Step(None, [], True, CommandError(text_of(error)))
    return Step(started, placed(first, context.keyspace), moments == 1)


def placed(operations: list[Operation], keyspace: int) -> list[Operation]:
    """The operations with their keyspace."""
    return [each if each.keyspace is not None else each._replace(keyspace=keyspace) for each in operations]


def transaction(steps: list[Step], keyspaces: list[int], watched: Watched) -> Plan:
    """A plan that runs the steps; its reply is the list of theirs, or the null array where a watched key has changed.

    It takes errors as results.

    Args:
        keyspaces: that of each step.
    """
    if watched:
        versions = yield [ops.version(key, keyspace) for keyspace, key in watched]
        for version in versions:
            if isinstance(version, KioError):
                raise version
        if watched.is_void or versions != list(watched.values()):
            return NULL_ARRAY
    replies: list[Any] = []
    at = 0
    while at < len(steps):
        end = at + 1
        if steps[at].is_simple:
            while end < len(steps) and steps[end].is_simple:
                end += 1
        operations = [operation for step in steps[at:end] for operation in step.first]
        results = yield operations if operations else []
        taken = 0
        for step, keyspace in zip(steps[at:end], keyspaces[at:end], strict=True):
            of_step = results[taken : taken + len(step.first)]
            taken += len(step.first)
            replies.append((yield from _finish(step, of_step, keyspace)))
        at = end
    return replies


def _finish(step: Step, results: list[Any], keyspace: int) -> Plan:
    """The reply of a step whose first moment has these results."""
    plan = step.plan
    try:
        if step.late is not None:
            started = step.late()
            if not isinstance(started, Generator):
                return started
            plan = started
            results = yield placed(next(plan), keyspace)
        if plan is None:
            return step.reply
        while True:
            failed = next((result for result in results if isinstance(result, KioError)), None)
            operations = plan.send(results) if failed is None else plan.throw(failed)
            results = yield placed(operations, keyspace)
    except StopIteration as end:
        return end.value
    except CommandError as error:
        return error
    except KioError as error:
        return CommandError(text_of(error))
