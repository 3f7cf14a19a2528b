"""A load generator: one process, one client, its own keys, one journal (oracle.py).

Run as `python -m tests.cluster.writer URL JOURNAL NUMBER CLIENTS KEYS SEED`. It sets, deletes and reads its keys one
after the other and in batches, some for a time, until SIGTERM, then finishes what it has begun and exits 0. After every
failed operation all its keys are read and judged: that is when a store that lost something shows it. An exception that
is no KioError is a violation: the client promises none. Writers with an odd number ask once, the others let the client
retry, so that both what a retry makes of an outage and what is told without one are judged. Each also watches the keys
of its neighbour: what it sees there never goes back.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import kio
from kio.client import Client
from kio.errors import KioError, PartialFailure
from tests.cluster.oracle import Journal, make_value

#: The client's total deadline for one call: longer than any outage that a test makes on purpose.
TIMEOUT_S = 8.0
#: After a read that failed, so that an outage does not fill the journal.
PAUSE_S = 0.02
#: How long a key lives that is to be gone soon, and one that must outlive the test.
FADES_S = 0.3
STAYS_S = 86_400.0


class Writer:
    """Random operations on keys that are nobody else's."""

    def __init__(
        self, url: str, journal: Journal, stopping: threading.Event, number: int, clients: int, keys: int, seed: int
    ) -> None:
        self.url = url
        self.stopping = stopping
        self.retries = number % 2 == 0
        self.journal = journal
        self.keys = [b"c%d:k%d" % (number, i) for i in range(keys)]
        self.others = [b"c%d:k%d" % ((number + 1) % clients, i) for i in range(keys)] if clients > 1 else []
        self.versions = dict.fromkeys(self.keys, 0)
        self.dice = random.Random(seed * 1_000 + number)

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with kio.connect(self.url, timeout=TIMEOUT_S, retries=self.retries) as db:
                    self.audit(db)
                    while not self.stopping.is_set():
                        self.step(db)
            except KioError as error:
                self.journal.note(f"connect: {error.code} {error}")
                time.sleep(PAUSE_S)

    def step(self, db: Client) -> None:
        names = ("set", "set for", "fade", "delete", "set_many", "get", "watch", "get_many")
        kind = self.dice.choices(names, (40, 5, 8, 15, 10, 15, 10, 5))[0]
        match kind:
            case "set":
                self.write(db, self.dice.sample(self.keys, 1), is_delete=False)
            case "set for":
                self.write(db, self.dice.sample(self.keys, 1), is_delete=False, ttl=STAYS_S)
            case "fade":
                self.write(db, self.dice.sample(self.keys, 1), is_delete=False, ttl=FADES_S)
            case "delete":
                self.write(db, self.dice.sample(self.keys, 1), is_delete=True)
            case "set_many":
                self.write(
                    db, self.dice.sample(self.keys, min(len(self.keys), self.dice.randint(2, 16))), is_delete=False
                )
            case "get":
                self.read(db, self.dice.choice(self.keys), self.journal.observe)
            case "watch" if self.others:
                self.read(db, self.dice.choice(self.others), self.journal.watch)
            case _:
                self.audit(db)

    def write(self, db: Client, keys: list[bytes], is_delete: bool, ttl: float | None = None) -> None:
        versions = {key: self.versions[key] + 1 for key in keys}
        self.versions.update(versions)
        self.journal.begin(versions, is_delete, fades=ttl == FADES_S)
        try:
            if is_delete:
                db.delete(keys[0])
            elif len(keys) == 1:
                db.set(keys[0], make_value(keys[0], versions[keys[0]]), ttl=ttl)
            else:
                db.set_many({key: make_value(key, version) for key, version in versions.items()})
        except PartialFailure as partial:
            self.journal.ack({key: version for key, version in versions.items() if key not in partial.errors})
            for key, error in partial.errors.items():
                self.failed({key: versions[key]}, error)
            self.audit(db)
        except KioError as error:
            self.failed(versions, error)
            self.audit(db)
        else:
            self.journal.ack(versions)

    def failed(self, versions: Mapping[bytes, int], error: KioError) -> None:
        self.journal.fail(versions, error.code, error.maybe_applied)
        self.journal.note(f"write failed: {error.code} {error}")
        if not error.retryable:
            self.journal.violate(f"a write failed for good: {type(error).__name__} {error}")

    def read(self, db: Client, key: bytes, judge: Callable[[bytes, bytes | None], None]) -> None:
        try:
            judge(key, db.get(key))
        except KioError as error:
            self.read_failed(error)

    def audit(self, db: Client) -> None:
        """Read and judge every key."""
        try:
            found = db.get_many(self.keys)
            for key in self.keys:
                self.journal.observe(key, found.get(key))
        except PartialFailure as partial:
            for error in partial.errors.values():
                self.read_failed(error)
        except KioError as error:
            self.read_failed(error)

    def read_failed(self, error: KioError) -> None:
        self.journal.note(f"read failed: {error.code} {error}")
        if not error.retryable:
            self.journal.violate(f"a read failed for good: {type(error).__name__} {error}")
        time.sleep(PAUSE_S)


def main() -> int:
    url, path, *numbers = sys.argv[1:]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    journal = Journal(Path(path))
    writer = Writer(url, journal, stopping, *map(int, numbers))
    try:
        writer.run()
    except Exception as error:
        journal.violate(f"the client raised {type(error).__name__}: {error}")
        raise
    finally:
        journal.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
