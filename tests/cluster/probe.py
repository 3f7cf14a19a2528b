"""One shard asked again and again from its own thread and connection: when did it answer, when not, and how fast.

`Probe` sends a set and a get of one key every few milliseconds and keeps every answer; `shard_tags` finds, from
outside, a hash tag for each shard: it writes 1, 2, 4, 8... keys under as many tags, so that each shard's count of keys
says which tags it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.cluster.daemon import Daemon, wait_until
from tests.cluster.rawwire import DELETE_MANY, GET, OK, SET, SET_MANY, Wire

#: What a probe notes when the connection broke: ConnectionLost of errors.py.
LOST: Final = 37
#: What it notes when a reply without an error was not the right one.
WRONG: Final = -1
TAGS_AT_ONCE: Final = 10


@dataclass(frozen=True)
class Answer:
    """One answered or failed probe; times are `time.monotonic()`."""

    began: float
    took_s: float
    code: int
    text: str = ""


class Probe:
    """Asks one shard until the block ends."""

    def __init__(self, url: str, tag: bytes, every_s: float = 0.005, deadline_ms: int = 0) -> None:
        self._url = url
        self._key = b"{%s}probe" % tag
        self._every_s = every_s
        self._deadline_ms = deadline_ms
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        possible: list[bytes | None] = [None]
        while not self._stopping.is_set():
            try:
                with Wire(self._url) as wire:
                    while not self._stopping.wait(self._every_s):
                        number += 1
                        possible.append(b"%d" % number)
                        if self._ask(wire, [True], SET, 0, self._key, possible[-1]):
                            del possible[:-1]
                        self._ask(wire, possible, GET, 0, self._key)
            except (OSError, AssertionError) as error:
                self._note(time.monotonic(), LOST, repr(error))
                self._stopping.wait(0.01)

    def _ask(self, wire: Wire, expected: Sequence[object], op: int, *arguments: object) -> bool:
        """One request, noted; whether it was answered without error."""
        began = time.monotonic()
        status, result, *rest = wire.request(op, *arguments, deadline_ms=self._deadline_ms)
        code = WRONG if status == OK and result not in expected else int(status)
        self._note(began, code, "" if code == OK else repr([result, *rest]))
        return code == OK

    def _note(self, began: float, code: int, text: str) -> None:
        self.answers.append(Answer(began, time.monotonic() - began, code, text))

    def failures(self, since: float = 0.0) -> list[Answer]:
        return [a for a in list(self.answers) if a.code != OK and a.began >= since]

    def answered_since(self, moment: float) -> bool:
        """Whether a probe that began after `moment` was answered without error."""
        return any(a.code == OK and a.began >= moment for a in self.answers[-200:])

    def recovered_after(self, moment: float, limit_s: float) -> float:
        """Wait for a good answer to a probe begun after this call; then the seconds from `moment` to the first good
        answer that followed the last failure since, 0 if none failed.

        To be called when the fault has struck: an answer under way at `moment` itself says nothing.
        """
        struck = time.monotonic()
        wait_until(lambda: self.answered_since(struck) and not self._is_failing(), limit_s, "the shard")
        failures = self.failures(moment)
        if not failures:
            return 0.0
        last = failures[-1].began
        return next(a.began for a in self.answers if a.code == OK and a.began > last) - moment

    def _is_failing(self) -> bool:
        return any(a.code != OK for a in self.answers[-2:])


def shard_tags(daemon: Daemon) -> dict[int, bytes]:
    """For each shard a hash tag whose keys it owns. The store is as empty afterwards as before; nobody else may write
    meanwhile.
    """
    found: dict[int, bytes] = {}
    series = 0
    with Wire(daemon.url) as wire:
        while len(found) < len(daemon.shard_stats()):
            assert series < 20, f"only shards {sorted(found)} ever got a key"
            tags = [b"t%d-%d" % (series, i) for i in range(TAGS_AT_ONCE)]
            for tag, bits in tag_owners(daemon, wire, tags).items():
                found.setdefault(bits, tag)
            series += 1
    return found


def tag_owners(daemon: Daemon, wire: Wire, tags: list[bytes]) -> dict[bytes, int]:
    """For each tag the shard that owns the keys that hold it, read off the counts of keys."""
    before = {shard: stats["keys"] for shard, stats in daemon.shard_stats().items()}
    keys = [b"{%s}%d" % (tag, n) for i, tag in enumerate(tags) for n in range(1 << i)]
    wire.call(SET_MANY, 0, [part for key in keys for part in (key, b"")])

    def gained() -> dict[int, int]:
        return {shard: stats["keys"] - before[shard] for shard, stats in daemon.shard_stats().items()}

    wait_until(lambda: sum(gained().values()) == len(keys), 5, "the counts of keys in the status", 0.05)
    owners = {tag: shard for shard, count in gained().items() for i, tag in enumerate(tags) if count >> i & 1}
    wire.call(DELETE_MANY, 0, keys)
    wait_until(lambda: not any(gained().values()), 5, "the counts of keys in the status", 0.05)
    return owners
