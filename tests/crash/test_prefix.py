"""What a shard holds after SIGKILL is a prefix of what was sent to it: everything acknowledged, and no hole behind
that.

One thread per shard pipelines numbered writes over one connection; all processes are killed at a random moment; after
the start the numbers that are there must be 1 to m without a gap, m at least the last acknowledged.
"""

from __future__ import annotations

import threading

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, scaled, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import COUNT, GET_MANY, OK, SET, Wire

ROUNDS = 100 if FULL else 3
WINDOW = 64


def key_of(tag: bytes, round_: int, number: int) -> bytes:
    return b"{%s}r%d:%d" % (tag, round_, number)


def value_of(number: int) -> bytes:
    """Lengths from 0 to 50 KB, so that a kill also falls into the middle of a write."""
    return b"%d." % number * (number * 7_919 % (10_000 if number % 16 == 0 else 100))


class Numbered(threading.Thread):
    """Writes 1, 2, 3... to one shard, a window of them in flight, until the connection breaks."""

    def __init__(self, url: str, tag: bytes, round_: int) -> None:
        super().__init__(daemon=True)
        self.url, self.tag, self.round = url, tag, round_
        self.sent = 0
        self.acked = 0
        self.fault = ""

    def run(self) -> None:
        try:
            with Wire(self.url) as wire:
                while True:
                    self._send(wire)
                    status, *rest = wire.receive()[1:]
                    if status != OK:
                        self.fault = f"number {self.acked + 1} was answered {status} {rest!r}"
                        return
                    self.acked += 1
        except OSError:
            return

    def _send(self, wire: Wire) -> None:
        if self.sent - self.acked > WINDOW // 2:
            return
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


@scaled
@pytest.mark.timeout(1200 if FULL else 60)
@pytest.mark.parametrize("sync", ["interval", "os", "always"])
def test_after_sigkill_each_shard_holds_a_prefix_of_what_was_sent_to_it(sync: str, chance: Chance) -> None:
    with Daemon(workers=2, sync=sync, flags=["--segment-mib", "1"]) as daemon:
        tags = shard_tags(daemon)
        total = 0
        for round_ in range(ROUNDS):
            writers = [Numbered(daemon.url, tag, round_) for tag in tags.values()]
            for writer in writers:
                writer.start()
            for writer in writers:
                goal = chance.dice.randint(20, 2_000)
                wait_until(lambda w=writer, g=goal: w.acked >= g or w.fault, 20, "acknowledged writes")  # type: ignore[misc]
            daemon.kill_everything()
            for writer in writers:
                writer.join(20)
                assert not writer.is_alive()
                assert not writer.fault, f"{writer.fault}\nrepeat with: {chance.repeat}"
            daemon.restart()
            with Wire(daemon.url) as wire:
                for writer in writers:
                    total += count_prefix(wire, writer.tag, round_, writer.sent, writer.acked, chance.repeat)
                assert wire.call(COUNT, 0) == total, f"keys of an earlier round are gone\nrepeat with: {chance.repeat}"
