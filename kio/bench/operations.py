"""The operation stream: what a generator process asks for, one operation after the other, without end.

The stream follows from the plan's seed and the number of the process alone: it is drawn in blocks of one size, so that
however it is taken, it is the same.
"""

from __future__ import annotations

import random
from array import array
from itertools import accumulate
from typing import Final

from kio.bench.choosers import parse_chooser
from kio.bench.plan import INSERT, KINDS, Plan
from kio.bench.sizes import parse_sizes

#: Operations drawn at once: so few that a draw in the middle of a run takes well under a millisecond.
BLOCK: Final = 512
_INSERT: Final = bytes([INSERT])


class Operations:
    """The operations of one generator process.

    Process p of P inserts ids records + p, records + p + P, and so on, so that no two insert the same. All operations
    of a command are of one kind; the keys of one may repeat, as hot keys do in a program's batches.
    """

    def __init__(self, plan: Plan, process: int) -> None:
        """Of a valid plan, see validation.py."""
        self._source = random.Random(f"{plan.seed} operations {process}")  # noqa: S311
        shares = [(kind, plan.mix.get(name, 0.0)) for kind, name in enumerate(KINDS)]
        self._kinds = bytes(kind for kind, share in shares if share)
        self._shares_so_far = list(accumulate(share for _, share in shares if share))
        self._batch = plan.batch
        self._sizes = parse_sizes(plan.value_bytes)
        self._insert_id = plan.records + process
        self._insert_step = plan.processes
        # Where everything is inserted, there may be no record to choose.
        self._chooser = None
        if self._kinds != _INSERT:
            self._chooser = parse_chooser(plan.keys)(plan.records, plan.seed, self._source)
        self._block: tuple[bytes, array[int], array[int]] = (b"", array("Q"), array("I"))
        self._at = 0

    def take(self, count: int) -> tuple[bytes, array[int], array[int]]:
        """The kinds, the ids and the sizes of values of the next `count` operations.

        The size of an operation that writes nothing has no meaning.
        """
        kinds, ids, sizes = bytearray(), array("Q"), array("I")
        while len(kinds) < count:
            if self._at == len(self._block[0]):
                self._block = self._drawn()
                self._at = 0
            past = self._at + count - len(kinds)
            kinds += self._block[0][self._at : past]
            ids += self._block[1][self._at : past]
            sizes += self._block[2][self._at : past]
            self._at = min(past, len(self._block[0]))
        return bytes(kinds), ids, sizes

    def _drawn(self) -> tuple[bytes, array[int], array[int]]:
        """The next block: whole commands."""
        commands = max(1, BLOCK // self._batch)
        if len(self._kinds) == 1:
            of_commands = self._kinds * commands
        else:
            of_commands = bytes(self._source.choices(self._kinds, cum_weights=self._shares_so_far, k=commands))
        kinds = bytearray(commands * self._batch)
        for place in range(self._batch):
            kinds[place :: self._batch] = of_commands
        return bytes(kinds), self._ids(kinds), self._sizes.sample(self._source, len(kinds))

    def _ids(self, kinds: bytearray) -> array[int]:
        """A new id for each insert, one that the chooser picks for every other operation."""
        if self._chooser is None:
            return array("Q", [self._inserted() for _ in kinds])
        before, *runs = kinds.split(_INSERT)
        ids = self._chooser.take(len(before))
        for run in runs:
            newest = self._inserted()
            self._chooser.grow(newest)
            ids.append(newest)
            ids += self._chooser.take(len(run))
        return array("Q", ids)

    def _inserted(self) -> int:
        id = self._insert_id
        self._insert_id += self._insert_step
        return id
