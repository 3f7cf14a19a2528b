"""Numbered writes: what a shard holds after a fault must be a prefix of them, with everything acknowledged and no hole.

`Numbered` pipelines writes 1, 2, 3... to one shard over one connection; `count_prefix` reads them back and judges.
"""

from __future__ import annotations

import bisect
import threading
import time

from tests.cluster.rawwire import GET_MANY, OK, SET, Wire

WINDOW = 64


def key_of(tag: bytes, round_: int, number: int) -> bytes:
    return b"{%s}r%d:%d" % (tag, round_, number)


def value_of(number: int) -> bytes:
    """Lengths from 0 to 50 KB, so that a fault also falls into the middle of a write."""
    return b"%d." % number * (number * 7_919 % (10_000 if number % 16 == 0 else 100))


class Numbered(threading.Thread):
    """Writes 1, 2, 3... to one shard, a window of them in flight, until the connection breaks or `stop`.

    Args:
        pause_s: between two half windows, where the disk that all this goes to is small.
    """

    def __init__(self, url: str, tag: bytes, round_: int, pause_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.url, self.tag, self.round = url, tag, round_
        self.sent = 0
        self.acked = 0
        self.fault = ""
        self._pause_s = pause_s
        self._is_stopping = False
        self._acked_at: list[float] = []

    def run(self) -> None:
        try:
            with Wire(self.url) as wire:
                while not self._is_stopping or self.acked < self.sent:
                    self._send(wire)
                    status, *rest = wire.receive()[1:]
                    if status != OK:
                        self.fault = f"number {self.acked + 1} was answered {status} {rest!r}"
                        return
                    self._acked_at.append(time.monotonic())
                    self.acked += 1
        except OSError:
            return

    def stop(self) -> None:
        """Send no more; the thread ends when all is answered."""
        self._is_stopping = True

    def acked_before(self, moment: float) -> int:
        """How many were acknowledged before `moment`, of time.monotonic()."""
        return bisect.bisect_left(self._acked_at, moment)

    def _send(self, wire: Wire) -> None:
        if self._is_stopping or self.sent - self.acked > WINDOW // 2:
            return
        time.sleep(self._pause_s)
        numbers = range(self.sent + 1, self.sent + 1 + WINDOW // 2)
        self.sent = numbers[-1]
        wire.send_all([(SET, 0, key_of(self.tag, self.round, n), value_of(n)) for n in numbers])


def count_prefix(wire: Wire, tag: bytes, round_: int, sent: int, acked: int, repeat: str) -> int:
    """The length of the prefix that is there, after checking that it is one."""
    values: list[bytes | None] = []
    for start in range(1, sent + 1, 1_000):
        numbers = range(start, min(start + 1_000, sent + 1))
        values += wire.call(GET_MANY, 0, [key_of(tag, round_, n) for n in numbers])
    there = [n for n, value in enumerate(values, 1) if value is not None]
    length = len(there)
    assert there == list(range(1, length + 1)), f"a hole: {sorted(set(range(1, there[-1])) - set(there))[:5]}\n{repeat}"
    assert length >= acked, f"{acked} were acknowledged and {length} are there\nrepeat with: {repeat}"
    wrong = [n for n in there if values[n - 1] != value_of(n)]
    assert not wrong, f"wrong values of numbers {wrong[:5]}\nrepeat with: {repeat}"
    return length
