"""A shard's history for the enumeration of crash states: seeded work on it, and the model that knows every LSN's state.

The work is the same each time: operations of all kinds, jobs begun and finished with writes in between, maintenance,
seals, clean stops and kills. Segments and manifest are small, so that everything happens often.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from kio import opbatch, wire
from kio.opbatch import KEEP_TTL, TTL, Operation
from kio.segments.store import StoreOptions
from tests.segments.faulty_disk import FaultyDisk
from tests.segments.operations_model import I64, OperationsModel, Records
from tests.segments.support import Driven, Time, hash_of, key_of_hash, operation

#: Two keys of one hash, and plain ones.
KEYS: Final = [*(key_of_hash(hash_of(5, 77, 9), i) for i in range(2)), *(b"key %d" % i for i in range(5))]
#: What is counted up and down; nothing else is done to it.
NUMBER_KEY: Final = b"n"
KEYSPACES: Final = [0, 1]
SIZES: Final = [0, 3, 30, 30, 60, 120, 250]
TTLS_MS: Final = [500, 3000]
_WEIGHTS: Final = {
    wire.OP_SET: 12,
    wire.OP_DELETE: 4,
    wire.OP_GET: 2,
    wire.OP_INCR: 1,
    wire.OP_APPEND: 1,
    wire.OP_EXPIRE: 1,
    wire.OP_PERSIST: 1,
}


class Promise(NamedTuple):
    """Which LSNs may be the last one that a crash leaves."""

    lsn_min: int
    lsn_max: int


class History:
    """What was done to a shard so far; `states` are by LSN, None inside of an atomic batch."""

    def __init__(self, path: Path, options: StoreOptions, disk: FaultyDisk, seed: int) -> None:
        self._chance = random.Random(seed)
        self._time = Time()
        self._model = OperationsModel()
        self._changed: dict[tuple[int, bytes], int] = {}
        self._parked: list[tuple[int, int]] = []
        self._replied_lsn = 0
        self._acknowledged_lsn = 0
        self.states: list[Records | None] = [{}]
        self.done: dict[str, int] = {}
        self.driven = Driven(path, options, disk, clock=self._time.clock)

    # ---- what is right ----

    @property
    def now_ms(self) -> int:
        """The shard's clock."""
        return self._time.wall_ms

    def promise(self, *, is_kill: bool) -> Promise:
        """What a crash at this moment may leave."""
        store = self.driven.store
        self._acknowledge()
        lsn = self._replied_lsn if is_kill else max(self._acknowledged_lsn, store.durable_lsn)
        return Promise(lsn, len(self.states) - 1)

    def visible(self, lsn: int) -> dict[int, dict[bytes, bytes]] | None:
        """What the keyspaces hold, now, behind the record `lsn`."""
        records = self.states[lsn]
        if records is None:
            return None
        found: dict[int, dict[bytes, bytes]] = {keyspace: {} for keyspace in KEYSPACES}
        for (keyspace, key), held in records.items():
            if held.expiry == 0 or held.expiry > self.now_ms:
                found[keyspace][key] = held.value
        return found

    # ---- the work ----

    def run(self, steps: int) -> None:
        """Do so many random things."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (30, self._execute),
            (8, self._sync),
            (8, self._work),
            (6, self._maintain),
            (4, self._maintain_fully),
            (4, self._seal),
            (2, self._compact),
            (3, self._pass_time),
            (2, self._clear),
            (2, self._kill),
            (1, self._stop),
        ]
        weights, calls = zip(*actions, strict=True)
        for call in self._chance.choices(calls, weights, k=steps):
            call()
            self.done[call.__name__] = self.done.get(call.__name__, 0) + 1
        self._stop()

    def _execute(self) -> None:
        self._run_batch([self._operation() for _ in range(self._chance.choice([1, 1, 2, 5]))])

    def _operation(self) -> Operation:
        chance = self._chance
        key, keyspace = chance.choice(KEYS), chance.choice([0, 0, 0, 1])
        op = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        flags: dict[int, int] = {}
        value = b""
        if op == wire.OP_SET:
            value = chance.randbytes(1) * chance.choice(SIZES)
            flags = chance.choice([{}, {}, {TTL: chance.choice(TTLS_MS)}, {KEEP_TTL: 0}])
        elif op == wire.OP_INCR:
            key, value = NUMBER_KEY, I64.pack(chance.randint(-5, 5))
        elif op == wire.OP_APPEND:
            value = b"more"
        elif op == wire.OP_EXPIRE:
            flags = {TTL: chance.choice([0, *TTLS_MS])}
        return operation(op, key, value, keyspace, flags)

    def _run_batch(self, operations: list[Operation]) -> None:
        self._model.now_ms = self.now_ms
        self._model.epoch = self.driven.store.stats()["epoch"]
        expected, lsns = [], []
        for op in operations:
            before = self._model.lsn
            expected.append(self._apply(op))
            if self._model.lsn > before:
                self._changed[(op.keyspace, op.key)] = self._model.lsn
                self.states.append(dict(self._model.records))
            lsns.append(self._changed.get((op.keyspace, op.key), 0))
        executed = self.driven.execute(*operations)
        answers = {}
        for message in (executed.replies, executed.parked):
            for reply in opbatch.decode_replies(message) if message else ():
                answers[reply.index] = (reply.status, reply.payload)
                if message is executed.replies and self.driven.options.sync == "always":
                    self._acknowledged_lsn = max(self._acknowledged_lsn, lsns[reply.index])
        assert [answers[i] for i in range(len(operations))] == expected
        assert self.driven.store.lsn == len(self.states) - 1
        self._replied_lsn = self.driven.store.lsn
        if executed.parked:
            self._parked.append((executed.parked_lsn, max(lsns)))

    def _apply(self, op: Operation) -> tuple[int, bytes]:
        if op.op != wire.OP_CLEAR:
            return self._model.apply(op)
        cleared = [key for key in self._model.records if key[0] == op.keyspace]
        self._model.lsn += 1
        for key in cleared:
            del self._model.records[key]
            self._changed[key] = self._model.lsn
        return opbatch.NUMBER, len(cleared).to_bytes(8, "little")

    def _acknowledge(self) -> None:
        """What a worker lets go by now."""
        durable_lsn = self.driven.store.durable_lsn
        for parked_lsn, lsn in self._parked:
            if parked_lsn <= durable_lsn:
                self._acknowledged_lsn = max(self._acknowledged_lsn, lsn)
        self._parked = [entry for entry in self._parked if entry[0] > durable_lsn]

    def _clear(self) -> None:
        self.driven.maintain()  # what has expired is swept, so that the number of keys is the model's
        self._model.now_ms = self.now_ms
        self._model.sweep()
        self._run_batch([operation(wire.OP_CLEAR, keyspace=1)])

    def _sync(self) -> None:
        """With writes before it runs, and before it is finished: it covers neither."""
        job = self.driven.store.sync_job()
        if self._chance.random() < 0.5:
            self._execute()
        if job is not None:
            job.run()
            if self._chance.random() < 0.5:
                self._execute()
            self.driven.store.finish(job)

    def _work(self) -> None:
        job = self.driven.store.background_job()
        if job is not None:
            job.run()
            if self._chance.random() < 0.3:
                self._execute()
            self.driven.store.finish(job)

    def _maintain(self) -> None:
        """Some slices of maintenance, and jobs, but no syncs; it may be under way afterwards."""
        for _ in range(self._chance.randint(1, 12)):
            self.driven._clock_s += 10
            while self.driven.store.maintain(self.driven._clock_s):
                pass
            self._work()

    def _maintain_fully(self) -> None:
        self.driven.maintain()

    def _seal(self) -> None:
        self.driven.seal()

    def _compact(self) -> None:
        """Ask for it; it is done by the maintenance that follows."""
        self.driven.one(operation(wire.OP_COMPACT))

    def _pass_time(self) -> None:
        self._time.pass_by(self._chance.choice([100, 1000, 4000]))

    def _kill(self) -> None:
        self.driven.reopen()
        self._begin_again()

    def _stop(self) -> None:
        self.driven.restart()
        self._begin_again()

    def _begin_again(self) -> None:
        """All that was replied is there, and durable."""
        assert self.driven.store.lsn == self.driven.store.durable_lsn == len(self.states) - 1
        self._parked.clear()
        self._acknowledged_lsn = self._replied_lsn
