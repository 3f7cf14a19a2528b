"""A data directory in a test's hand, written to and compared with a model whatever the number of its shards."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Final, NamedTuple

from kio import wire
from kio.hashing import routed_hash, shard_of
from kio.opbatch import EXPIRE_AT, VERSION, VERSIONED, WITH_VERSION
from kio.segments.disk import Disk
from kio.segments.identity import create_or_load, load, shard_path, shards_root
from kio.segments.reshard import Resharded, reshard
from kio.segments.store import StoreOptions
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import Driven, Time, operation

SMALL: Final = StoreOptions(segment_bytes=4096)
KEYSPACES: Final = 16


class Held(NamedTuple):
    value: bytes
    expiry: int


Model = dict[tuple[int, bytes], Held]


class Data:
    """A data directory in a test's hand: opened, written to and compared, whatever the number of its shards."""

    def __init__(self, path: Path, shards: int) -> None:
        self.path = path
        self.time = Time()
        self.model: Model = {}
        self.keyspaces = range(KEYSPACES)
        #: The highest epoch that any record had.
        self.epoch = 0
        create_or_load(path, shards, CarelessDisk())
        self.open()

    def open(self) -> None:
        self.identity = load(self.path)
        root = shards_root(self.path, self.identity)
        self.shards = [
            Driven(shard_path(root, shard), SMALL, CarelessDisk(), self.identity, shard, self.time.clock)
            for shard in range(self.identity.shards)
        ]

    def driven(self, key: bytes, keyspace: int) -> Driven:
        return self.shards[shard_of(routed_hash(key, self.identity.seed, keyspace), len(self.shards))]

    def put(self, key: bytes, value: bytes, keyspace: int = 0, expiry: int = 0) -> None:
        flags = {EXPIRE_AT: expiry} if expiry else {}
        self.driven(key, keyspace).one(operation(wire.OP_SET, key, value, keyspace, flags))
        self.model[keyspace, key] = Held(value, expiry)

    def delete(self, key: bytes, keyspace: int = 0) -> None:
        self.driven(key, keyspace).delete(key, keyspace)
        self.model.pop((keyspace, key), None)

    def clear(self, keyspace: int) -> None:
        for driven in self.shards:
            driven.clear(keyspace)
        self.model = {key: held for key, held in self.model.items() if key[0] != keyspace}

    def run(self, chance: random.Random, steps: int) -> None:
        """A random history."""
        for _ in range(steps):
            keyspace = chance.choice([0, 0, 1, 7, KEYSPACES - 1])
            key = chance.choice([b"key %d", b"{tag %d}", b"{tag}%d", b"a {}%d"]) % chance.randrange(40)
            match chance.randrange(20):
                case 0 | 1 | 2:
                    self.delete(key, keyspace)
                case 3:
                    self.put(key, chance.randbytes(chance.choice([0, 5000, 70_000])), keyspace)
                case 4 | 5 | 6:
                    self.put(key, b"expires", keyspace, self.time.wall_ms + chance.choice([1, 500, 10_000_000]))
                case 7:
                    self.time.pass_by(chance.randrange(200))
                case 8:
                    chance.choice(self.shards).seal()
                case 9 if chance.random() < 0.1:
                    self.clear(keyspace)
                case 9:
                    chance.choice(self.shards).maintain()
                case _:
                    self.put(key, chance.randbytes(chance.randrange(200)), keyspace)

    def stop(self, chance: random.Random) -> None:
        """Some shards cleanly, others not."""
        for driven in self.shards:
            driven.kill() if chance.random() < 0.5 else driven.store.close()

    def reshard(self, shards: int, disk: Disk | None = None) -> Resharded:
        return reshard(
            self.path, shards, segment_bytes=SMALL.segment_bytes, disk=disk or CarelessDisk(), clock=self.time.clock
        )

    def alive(self) -> Model:
        now = self.time.wall_ms
        return {key: held for key, held in self.model.items() if held.expiry == 0 or held.expiry > now}

    def compare(self) -> None:
        """What is there is the model, each key in its shard; and it is counted right."""
        found: Model = {}
        for driven in self.shards:
            for keyspace in self.keyspaces:
                keys = driven.items(keyspace=keyspace)
                for key, value in keys.items():
                    assert self.driven(key, keyspace) is driven
                    reply = driven.one(operation(wire.OP_GET, key, b"", keyspace, {WITH_VERSION: None}))
                    assert reply.status == VERSIONED
                    epoch, _, expiry = VERSION.unpack_from(reply.payload)
                    assert reply.payload[VERSION.size :] == value
                    self.epoch = max(self.epoch, epoch)
                    found[keyspace, key] = Held(value, expiry)
        assert found == self.alive()
        for driven in self.shards:
            driven.maintain()
        for keyspace in self.keyspaces:
            assert sum(driven.count(keyspace) for driven in self.shards) == sum(key[0] == keyspace for key in found)

    def kill(self) -> None:
        for driven in self.shards:
            driven.kill()


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def digests(data: Path) -> dict[str, str]:
    """What stands in a directory; LOCK says who had it last."""
    files = [path for path in data.rglob("*") if path.is_file() and path.name != "LOCK"]
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
