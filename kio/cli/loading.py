"""The Loader: writes records to the daemon in batches, and outlasts a daemon that is away for a while.

A batch is bounded in records and in bytes, so memory stays flat however much is loaded. The client retries by itself;
what it gives up on with a retryable error is sent again here, after a growing pause, until it is done or nothing has
been taken for `give_up_s` seconds. Setting the same value twice is harmless, so a write that may have been applied is
just repeated. Records that expire go one by one in a pipeline, each with its time, the others as one batch.
Order: no batch holds a key twice and batches are sent one after the other, so the last value of a key stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kio.cli import output
from kio.cli.transfer import Record, Tally
from kio.errors import KioError, PartialFailure, RequestError

if TYPE_CHECKING:
    from kio.client import Client

BATCH_RECORDS_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 4 << 20
PAUSE_S_FIRST: Final = 0.1
PAUSE_S_MAX: Final = 2.0

Batch = dict[bytes, Record]


class Loader:
    """Collects records into batches and sends them.

    Args:
        db: the client.
        tally: counts what was taken, and is told what was refused.
        give_up_s: how long to go on while the daemon takes nothing.
        sleep, clock: seconds to wait, and the monotonic clock; tests give their own.
    """

    def __init__(
        self,
        db: Client,
        tally: Tally,
        give_up_s: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._tally = tally
        self._give_up_s = give_up_s
        self._sleep = sleep
        self._clock = clock
        self._batch: Batch = {}
        self._bytes = 0

    def add(self, record: Record) -> None:
        """Take a record; sends the batch when it is full.

        Raises:
            KioError: when the daemon took nothing for `give_up_s`, or refuses with an error that waiting does not heal.
        """
        if record.key in self._batch:
            self.flush()
        self._batch[record.key] = record
        self._bytes += len(record.key) + len(record.value)
        if len(self._batch) >= BATCH_RECORDS_MAX or self._bytes >= BATCH_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Send what is collected; raises as `add` does."""
        batch, self._batch, self._bytes = self._batch, {}, 0
        pause_s, deadline = PAUSE_S_FIRST, self._clock() + self._give_up_s
        while batch:
            left, error = self._send(batch)
            if error is None:
                return
            now = self._clock()
            if len(left) < len(batch):
                pause_s, deadline = PAUSE_S_FIRST, now + self._give_up_s
            if now + pause_s > deadline:
                why = f"gave up after {self._give_up_s:g} s: {error}"
                raise type(error)(why, maybe_applied=error.maybe_applied)
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
            self._tally.retried += len(left)
            batch = left

    def _send(self, batch: Batch) -> tuple[Batch, KioError | None]:
        """Send a batch once: what has to be sent again, and why (None: nothing)."""
        try:
            errors = self._set(batch)
        except RequestError as error:
            return self._send_apart(batch, error)
        except KioError as error:
            if not error.retryable:
                raise
            return batch, error
        if errors:
            return self._sort_out(batch, errors)
        self._count(batch)
        return {}, None

    def _set(self, batch: Batch) -> dict[bytes, KioError]:
        """Store a batch; what is told of each of the records that expire and failed. Raises what `set_many` does."""
        expiring = {key: record.expire_at for key, record in batch.items() if record.expire_at is not None}
        errors: dict[bytes, KioError] = {}
        if expiring:
            pipeline = self._db.pipeline(raise_on_error=False)
            for key, expire_at in expiring.items():
                pipeline.set(key, batch[key].value, expire_at=expire_at)
            for key, result in zip(expiring, pipeline.execute(), strict=True):
                if isinstance(result, KioError):
                    errors[key] = result
        if len(expiring) == len(batch):
            return errors
        try:
            self._db.set_many({key: record.value for key, record in batch.items() if key not in expiring})
        except PartialFailure as partial:
            errors.update(partial.errors)
        return errors

    def _sort_out(self, batch: Batch, errors: dict[bytes, KioError]) -> tuple[Batch, KioError | None]:
        self._count({key: record for key, record in batch.items() if key not in errors})
        left: Batch = {}
        why: KioError | None = None
        for key, error in errors.items():
            if isinstance(error, RequestError):
                self._refuse(batch[key], error)
            elif error.retryable:
                left[key], why = batch[key], error
            else:
                raise error
        return left, why

    def _send_apart(self, batch: Batch, error: RequestError) -> tuple[Batch, KioError | None]:
        """One record spoils the whole batch: halve it until that record stands alone."""
        keys = list(batch)
        if len(keys) == 1:
            self._refuse(batch[keys[0]], error)
            return {}, None
        left: Batch = {}
        why: KioError | None = None
        for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            again, error_of_half = self._send({key: batch[key] for key in half})
            left.update(again)
            why = error_of_half or why
        return left, why

    def _count(self, taken: Batch) -> None:
        for record in taken.values():
            self._tally.moved(len(record.value))

    def _refuse(self, record: Record, error: RequestError) -> None:
        self._tally.fault(record.origin, f"key {output.escape(record.key[:200])}: {error}")
