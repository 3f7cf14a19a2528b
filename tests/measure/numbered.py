"""Numbered overwrites: what a shard holds after any number of them is known without remembering one.

Write m (0, 1, 2...) belongs to cycle m // keys; a cycle writes every key once, in an order of its own (a multiplication
modulo the number of keys). So the last write of a key among the first n can be computed, and every value tells which
write made it.

    python -m tests.measure.numbered URL TAG KEYS VALUE_BYTES PROGRESS

writes them to the shard that owns TAG, some frames in flight, until PROGRESS says that it shall stop. That file holds
three numbers of 8 bytes: writes sent, writes acknowledged, and whether to stop.
"""

from __future__ import annotations

import mmap
import random
import struct
import subprocess
import sys
from math import gcd
from pathlib import Path
from typing import Self

from tests.cluster.rawwire import OK, SET_MANY, Wire

BATCH = 200
#: Frames that are sent before the first of them is answered.
WINDOW = 3
LIMIT_S = 60.0
_NUMBER = struct.Struct("<Q")
_SENT, _ACKED, _STOP = (_NUMBER.size * place for place in range(3))
PROGRESS_BYTES = _NUMBER.size * 3


class Model:
    """The writes of one shard, and what they leave."""

    def __init__(self, tag: bytes, keys: int, value_bytes: int) -> None:
        self.keys = keys
        self._tag = tag
        self._value_bytes = value_bytes
        self._cycle = (-1, 0, 0)

    def write(self, number: int) -> tuple[bytes, bytes]:
        """(key, value) of a write."""
        cycle, place = divmod(number, self.keys)
        factor, offset = self._order(cycle)
        return self.key((place * factor + offset) % self.keys), self.value(number)

    def last(self, index: int, writes: int) -> int | None:
        """Which of the first `writes` wrote a key last; None when none did."""
        cycle, place = divmod(writes, self.keys)
        for one, limit in ((cycle, place), (cycle - 1, self.keys)):
            if one >= 0:
                factor, offset = self._order(one)
                at = (index - offset) * pow(factor, -1, self.keys) % self.keys
                if at < limit:
                    return one * self.keys + at
        return None

    def key(self, index: int) -> bytes:
        return b"{%s}%010d" % (self._tag, index)

    def value(self, number: int) -> bytes:
        part = b"%d." % number
        return (part * (self._value_bytes // len(part) + 1))[: self._value_bytes]

    def _order(self, cycle: int) -> tuple[int, int]:
        """(factor, offset) of a cycle; the same in every process."""
        if self._cycle[0] != cycle:
            dice = random.Random(cycle)
            factor = dice.randrange(self.keys)
            while gcd(factor, self.keys) != 1:
                factor = dice.randrange(self.keys)
            self._cycle = (cycle, factor, dice.randrange(self.keys))
        return self._cycle[1:]


class Progress:
    """How far a writer is, shared with it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(PROGRESS_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PROGRESS_BYTES)

    def _get(self, at: int) -> int:
        number: int = _NUMBER.unpack_from(self._map, at)[0]
        return number

    @property
    def sent(self) -> int:
        return self._get(_SENT)

    @property
    def acked(self) -> int:
        return self._get(_ACKED)

    @property
    def is_stopping(self) -> bool:
        return bool(self._get(_STOP))

    def note(self, sent: int, acked: int) -> None:
        """The writer's."""
        _NUMBER.pack_into(self._map, _SENT, sent)
        _NUMBER.pack_into(self._map, _ACKED, acked)

    def stop(self) -> None:
        """Have the writer end when all that it sent is answered."""
        _NUMBER.pack_into(self._map, _STOP, 1)


class Writer:
    """A writer in a process of its own, as long as the `with` block runs."""

    def __init__(self, url: str, tag: bytes, keys: int, value_bytes: int, progress: Path) -> None:
        self.model = Model(tag, keys, value_bytes)
        self.progress = Progress(progress)
        arguments = (url, tag.decode(), str(keys), str(value_bytes), str(progress))
        self._process = subprocess.Popen([sys.executable, "-m", "tests.measure.numbered", *arguments])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """RuntimeError when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"a writer ended with {self._process.returncode}; what it wrote stands above")

    def stop(self) -> None:
        """Return when all that was sent is answered."""
        self.progress.stop()
        if self._process.wait(LIMIT_S):
            self.check()


def write(url: str, model: Model, progress: Progress) -> None:
    """Write until told to stop."""
    sent = acked = 0
    sizes: list[int] = []
    with Wire(url, limit_s=LIMIT_S) as wire:
        while True:
            while len(sizes) < WINDOW and not progress.is_stopping:
                # A key twice in one frame would be hard to count: a frame ends with its cycle.
                size = min(BATCH, model.keys - sent % model.keys)
                pairs = [part for number in range(sent, sent + size) for part in model.write(number)]
                sent += size
                progress.note(sent, acked)
                wire.send(SET_MANY, 0, pairs)
                sizes.append(size)
            if not sizes:
                return
            _, status, *rest = wire.receive()
            if status != OK:
                raise RuntimeError(f"write {acked} and those behind it were answered {status}: {rest!r:.200}")
            acked += sizes.pop(0)
            progress.note(sent, acked)


if __name__ == "__main__":
    write(sys.argv[1], Model(sys.argv[2].encode(), *map(int, sys.argv[3:5])), Progress(Path(sys.argv[5])))
