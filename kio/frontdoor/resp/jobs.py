"""Plans under way: their operations sent to the shards, the results given back to them, their replies to whoever asked.

A job that holds shards runs under a handle of its own: it goes on to its end when its client is gone, so that what was
begun is never left half done. Any other one is forgotten with its request.
Invariants:
  * each job ends once: its shards are released, its connection is taken from again, its request is answered;
  * what stands in one moment is queued at once (Dispatch.run); where all of it is of one shard and some of it writes,
    it is one atomic batch, so that a crash leaves all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kio import limits, log, opbatch, wire
from kio.commands import ops
from kio.commands.ops import Operation, Plan
from kio.commands.replies import CommandError
from kio.errors import InternalError, KioError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.resp.holds import Holds

#: A job that holds shards gives up on one that does not answer.
HELD_LIMIT_MS: Final = 10_000
_WRITES: Final = frozenset(
    (wire.OP_SET, wire.OP_DELETE, wire.OP_INCR, wire.OP_APPEND, wire.OP_EXPIRE, wire.OP_PERSIST, wire.OP_APPLY)
)
#: What an operation takes in a batch beyond its key and value.
_OPERATION_BYTES: Final = opbatch.OPERATION.size

_log = log.Log(__name__)

Rows = list[Operation]
#: What the shards answered: (status, payload) of each row.
Replies = list[tuple[int, bytes]]


class Job:
    """One plan.

    Attributes:
        takes_errors: the plan wants the errors of its operations among their results; else the first is thrown into it.
        shards: what it holds; empty where it holds nothing.
        done: gets its reply, or the error that ended it.
    """

    __slots__ = ("done", "group", "handle", "has_written", "keyspace", "operations", "plan", "shards", "takes_errors")

    def __init__(
        self,
        plan: Plan,
        handle: int,
        keyspace: int,
        done: Callable[[Any], None],
        *,
        shards: frozenset[int] = frozenset(),
        takes_errors: bool = False,
    ) -> None:
        self.plan = plan
        self.handle = handle
        self.keyspace = keyspace
        self.done = done
        self.shards = shards
        self.takes_errors = takes_errors
        self.operations: Rows = []
        #: The operations under way are one atomic batch.
        self.group = False
        #: One of its writes has been applied.
        self.has_written = False


class Jobs:
    """All of a front door.

    Args:
        dispatch: what the operations go through.
        shards: how many there are.
    """

    def __init__(self, dispatch: Dispatch, shards: int) -> None:
        self._dispatch = dispatch
        self._shards = shards
        self._holds = Holds(dispatch)
        self._jobs: dict[int, Job] = {}
        #: How many jobs that are to run alone have not ended.
        self._alone = 0

    def start(self, job: Job, first: Rows) -> None:
        """Run a plan whose first moment is `first`; where it holds shards, as soon as it has them."""
        if not job.shards:
            self._send(job, first)
            return
        job.handle = self._dispatch.begin()
        self._holds.acquire(job.shards, lambda: self._send(job, first))

    def start_alone(self, plan: Plan, done: Callable[[Any], None]) -> None:
        """Run a plan that takes errors as results, while it holds all shards: none that holds some is half done then.

        What such a plan changes is where keys are (Dispatch.map_keyspaces), so a job that comes behind it cannot know
        yet which shards it needs: it holds all of them.
        """
        self._alone += 1

        def ended(reply: Any) -> None:
            self._alone -= 1
            done(reply)

        self.start(Job(plan, 0, 0, ended, shards=frozenset(range(self._shards)), takes_errors=True), next(plan))

    def owns(self, handle: int) -> bool:
        """Whether what was gathered under this handle is for a job."""
        return handle in self._jobs

    def gathered(self, handle: int, replies: Replies) -> None:
        """The results of a job's moment are there."""
        job = self._jobs.pop(handle)
        results = self._results(job, replies)
        job.has_written = job.has_written or any(
            operation.op in _WRITES and not isinstance(result, KioError)
            for operation, result in zip(job.operations, results, strict=True)
        )
        failed = next((result for result in results if isinstance(result, KioError)), None)
        self._advance(job, results if failed is None or job.takes_errors else failed)

    def dropped(self, handle: int) -> None:
        """Nobody waits for the answer to this request."""
        job = self._jobs.pop(handle, None)
        if job is not None:
            job.plan.close()

    def shards_of(self, operations: Rows, keyspace: int) -> frozenset[int]:
        """The shards that these operations are for; all, while that may change before they are run."""
        if self._alone and operations:
            return frozenset(range(self._shards))
        found: set[int] = set()
        for operation in operations:
            if operation.shard == ops.ALL:
                return frozenset(range(self._shards))
            if operation.shard == ops.BY_KEY:
                of = keyspace if operation.keyspace is None else operation.keyspace
                found.add(self._dispatch.shard_of(operation.key, of))
            else:
                found.add(operation.shard)
        return frozenset(found)

    # ---- one moment ----

    def _send(self, job: Job, operations: Rows) -> None:
        job.operations = operations
        self._jobs[job.handle] = job
        is_express = bool(job.shards)
        rows = self._grouped(job, operations)
        job.group = rows is not None
        if rows is None:
            rows = [row for operation in operations for row in self._rows(operation)]
        self._dispatch.run(job.handle, rows, job.keyspace, is_express, HELD_LIMIT_MS if is_express else 0)

    def _rows(self, operation: Operation) -> Rows:
        if operation.shard != ops.ALL:
            return [operation]
        return [operation._replace(shard=shard) for shard in range(self._shards)]

    def _grouped(self, job: Job, operations: Rows) -> Rows | None:
        """One atomic batch that is all of them; None, where they are not to be one."""
        if not 2 <= len(operations) <= limits.ATOMIC_OPERATIONS_MAX:
            return None
        batch = []
        number = -1
        is_write = False
        size = 0
        for op, key, flags, value, shard, other in operations:
            is_key = shard == ops.BY_KEY and 0 < len(key) <= limits.KEY_BYTES_MAX
            if not is_key or (op >= wire.OP_COUNT and op != wire.OP_APPLY):
                return None
            keyspace = job.keyspace if other is None else other
            of = self._dispatch.shard_of(key, keyspace)
            if number not in (-1, of):
                return None
            number = of
            is_write = is_write or op in _WRITES
            size += len(key) + len(value) + _OPERATION_BYTES
            hash_, stored = self._dispatch.hash_of(key, keyspace), self._dispatch.stored_keyspace(keyspace)
            batch.append(opbatch.Operation(op, key, value, hash_, stored, 0, flags))
        if not is_write or size > limits.ATOMIC_BYTES_MAX:
            return None
        message = opbatch.encode_batch(number, 0, batch)
        return [Operation(wire.OP_ATOMIC, b"", opbatch.EACH, message, number)]

    def _results(self, job: Job, replies: Replies) -> list[Any]:
        """The result of each operation, or its error."""
        if job.group:
            ((status, payload),) = replies
            if status == opbatch.VALUE:
                entries = sorted(opbatch.decode_replies(payload))
                replies = [(entry.status, entry.payload) for entry in entries]
            else:
                replies = [(status, payload)] * len(job.operations)
        results: list[Any] = []
        at = 0
        for operation in job.operations:
            if operation.shard != ops.ALL:
                results.append(_result(operation, *replies[at]))
                at += 1
                continue
            parts = [_result(operation, *reply) for reply in replies[at : at + self._shards]]
            at += self._shards
            results.append(_together(operation, parts))
        return results

    def _advance(self, job: Job, outcome: list[Any] | KioError) -> None:
        try:
            operations = job.plan.throw(outcome) if isinstance(outcome, KioError) else job.plan.send(outcome)
        except StopIteration as end:
            self._end(job, end.value)
        except (CommandError, KioError) as error:
            self._end(job, error)
        except Exception:  # noqa: BLE001  a bug in one plan must not end them all
            _log.exception("a command failed")
            self._end(job, InternalError("the front door failed; see its log"))
        else:
            self._send(job, operations)

    def _end(self, job: Job, reply: Any) -> None:
        if isinstance(reply, KioError) and job.has_written:
            reply.maybe_applied = True
        if job.shards:
            self._dispatch.end(job.handle)
            self._holds.release(job.shards)
        job.done(reply)


def _result(operation: Operation, status: int, payload: bytes) -> Any:
    try:
        return ops.result_of(operation, status, payload)
    except KioError as error:
        return error


def _together(operation: Operation, parts: list[Any]) -> Any:
    """What all shards say: the sum, or a list where there is none; the first error where one failed."""
    failed = next((part for part in parts if isinstance(part, KioError)), None)
    if failed is not None:
        return failed
    return sum(parts) if operation.op in (wire.OP_COUNT, wire.OP_CLEAR, wire.OP_COMPACT) else parts
