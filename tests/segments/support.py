"""A store in a test's hand: operations in, answers out, and keys of chosen hashes.

driven = Driven(directory)                  a new shard in `directory`, opened
driven.put(b"k", b"v"); driven.get(b"k")    one batch each, parked replies included
driven.run_jobs()                           what a worker's helper threads would do
driven.kill(); driven.open()                as the page cache would keep it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgpack

from kio import opbatch, wire
from kio.clock import monotonic_s
from kio.errors import KioError
from kio.hashing import KEYSPACE_STEP, key_hash, routed_hash
from kio.opbatch import Operation, Reply
from kio.segments.clock import ShardClock
from kio.segments.disk import DISK, Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.maintenance import RETRY_S
from kio.segments.manifest import Manifest
from kio.segments.options import StoreOptions
from kio.segments.store import Executed, Store

IDENTITY: Final = DirectoryIdentity(bytes(range(16)), 0x1234_5678_9ABC_DEF0, 1)
SMALL: Final = StoreOptions(segment_bytes=1024)

_U64: Final = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def operation(
    op: int, key: bytes = b"", value: bytes = b"", keyspace: int = 0, flags: Mapping[int, Any] = MappingProxyType({})
) -> Operation:
    """An operation with the hash that the front door would give it.

    Args:
        flags: flag -> its argument: a number, a version, or nothing for those that have none.
    """
    arguments = b""
    for flag, struct in opbatch.ARGUMENTS.items():
        if flag in flags:
            argument = flags[flag]
            arguments += struct.pack(*argument) if isinstance(argument, tuple) else struct.pack(argument)
    hash_ = routed_hash(key, IDENTITY.seed, keyspace)
    return Operation(op, key, arguments + value, hash_, keyspace, flags=sum(flags))


def put(key: bytes, value: bytes, keyspace: int = 0, flags: Mapping[int, Any] = MappingProxyType({})) -> Operation:
    return operation(wire.OP_SET, key, value, keyspace, flags)


def get(key: bytes, keyspace: int = 0) -> Operation:
    return operation(wire.OP_GET, key, b"", keyspace)


def delete(key: bytes, keyspace: int = 0) -> Operation:
    return operation(wire.OP_DELETE, key, b"", keyspace)


def replies_of(executed: Executed) -> list[Reply]:
    """All replies of a batch, parked ones included, in the order of its operations."""
    replies = [reply for message in executed[:2] if message for reply in opbatch.decode_replies(message)]
    return sorted(replies, key=lambda reply: reply[0])


def value_of(reply: Reply) -> bytes | None:
    """The value of a get's reply, None when absent.

    Raises: the KioError that the reply stands for.
    """
    error = reply.error()
    if error is not None:
        raise error
    return reply.payload if reply.status == opbatch.VALUE else None


class Driven:
    """A store of one shard, and the ways to use, stop and reopen it."""

    #: Jobs that `run_jobs` has seen fail.
    failed_jobs = 0

    def __init__(
        self,
        path: Path,
        options: StoreOptions = SMALL,
        disk: Disk = DISK,
        identity: DirectoryIdentity = IDENTITY,
        shard: int = 0,
        clock: Callable[[int], ShardClock] = ShardClock,
    ) -> None:
        self.path = path
        self.options = options
        self.disk = disk
        self.identity = identity
        self.shard = shard
        self.clock = clock
        self._clock_s = monotonic_s()
        if not (path / "MANIFEST").exists():
            path.mkdir(parents=True, exist_ok=True)
            Manifest.create(path, shard, identity.directory_id, disk)
        self.open()

    def open(self) -> Driven:
        self.store = Store.open(self.path, self.identity, self.shard, self.options, self.disk, self.clock)
        return self

    def kill(self) -> None:
        """What SIGKILL does: descriptors and lock are gone, nothing else happens."""
        self.store.abandon()

    def reopen(self) -> Driven:
        """Kill and open again: an unclean stop."""
        self.kill()
        return self.open()

    def restart(self) -> Driven:
        """Close and open again: a clean stop."""
        self.store.close()
        return self.open()

    # ---- operations ----

    def execute(self, *operations: Operation) -> Executed:
        if self.identity.seed != IDENTITY.seed:
            operations = tuple(o._replace(hash=routed_hash(o.key, self.identity.seed, o.keyspace)) for o in operations)
        return self.store.execute(opbatch.encode_batch(0, 1, operations))

    def replies(self, *operations: Operation) -> list[Reply]:
        return replies_of(self.execute(*operations))

    def one(self, op: Operation) -> Reply:
        (reply,) = self.replies(op)
        error = reply.error()
        if error is not None:
            raise error
        return reply

    def put(self, key: bytes, value: bytes, keyspace: int = 0) -> None:
        assert self.one(put(key, value, keyspace)).status == opbatch.DONE

    def get(self, key: bytes, keyspace: int = 0) -> bytes | None:
        return value_of(self.one(get(key, keyspace)))

    def delete(self, key: bytes, keyspace: int = 0) -> bool:
        return self.one(delete(key, keyspace)).status == opbatch.DONE

    def exists(self, key: bytes, keyspace: int = 0) -> bool:
        return self.one(operation(wire.OP_EXISTS, key, b"", keyspace)).status == opbatch.DONE

    def count(self, keyspace: int = 0) -> int:
        return int.from_bytes(self.one(operation(wire.OP_COUNT, keyspace=keyspace)).payload, "little", signed=True)

    def clear(self, keyspace: int = 0) -> int:
        return int.from_bytes(self.one(operation(wire.OP_CLEAR, keyspace=keyspace)).payload, "little", signed=True)

    def page(self, cursor: int, limit: int, prefix: bytes = b"", keyspace: int = 0) -> tuple[int, list[bytes]]:
        """One page of a scan with values: (next cursor, [key, value, ...])."""
        value = opbatch.SCAN_ARGUMENTS.pack(cursor, limit, wire.SCAN_ITEMS) + prefix
        payload = self.one(operation(wire.OP_SCAN, b"", value, keyspace)).payload
        return int.from_bytes(payload[:8], "little"), msgpack.unpackb(payload[8:])

    def items(self, prefix: bytes = b"", keyspace: int = 0, limit: int = 100) -> dict[bytes, bytes]:
        """Everything that a scan returns; no key twice."""
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            cursor, page = self.page(cursor, limit, prefix, keyspace)
            pairs = list(zip(page[::2], page[1::2], strict=True))
            assert not found.keys() & dict(pairs).keys()
            assert len(dict(pairs)) == len(pairs)
            found.update(pairs)
            if cursor == 0:
                return found

    def answers(self, keys: Iterable[bytes], keyspace: int = 0) -> dict[bytes, bytes | type[KioError] | None]:
        """What each key is answered: its value, None, or the class of the error."""
        out: dict[bytes, bytes | type[KioError] | None] = {}
        for key in keys:
            try:
                out[key] = self.get(key, keyspace)
            except KioError as error:
                out[key] = type(error)
        return out

    # ---- jobs ----

    def sync(self) -> None:
        """Make all that was written durable."""
        job = self.store.sync_job()
        if job is not None:
            job.run()
            self.store.finish(job)

    def run_jobs(self) -> int:
        """Run syncs and background jobs until none waits; how many ran. A job that fails ends it."""
        ran = 0
        while (job := self.store.sync_job() or self.store.background_job()) is not None:
            job.run()
            self.store.finish(job)
            ran += 1
            if job.error is not None:
                self.failed_jobs += 1
                break
        return ran

    def look_for_room(self) -> None:
        """Run the jobs that wait, as if the time to try again after a full disk had passed."""
        self.store._chain.supply._retry_at_s = self.store._chain._seal_at_s = 0.0
        self.run_jobs()

    def maintain(self, now_s: float | None = None) -> None:
        """Run maintenance, with the jobs and syncs it waits for, until no planner wants more, or five jobs failed."""
        self._clock_s = max(self._clock_s, now_s or 0.0)
        failed_max = self.failed_jobs + 5
        idle = 0
        while idle < 2 and self.failed_jobs < failed_max:
            self._clock_s += RETRY_S
            while self.store.maintain(self._clock_s):
                pass
            idle = 0 if self.run_jobs() else idle + 1

    # ---- segments ----

    def seal(self) -> None:
        """Begin a new active segment and seal those before it."""
        self.store._chain.rotate(0)
        self.run_jobs()

    def compact(self) -> int:
        """Compact whatever has dead bytes, as `kio compact` does; the dead bytes that there were."""
        dead = int.from_bytes(self.one(operation(wire.OP_COMPACT)).payload, "little")
        self.maintain()
        return dead

    def sealed_ids(self) -> list[int]:
        """The sealed segments, as the manifest names them."""
        entries = self.store._manifest.state.segments.values()
        return sorted(entry.id for entry in entries if entry.state == "sealed")

    def rewrite(self, *ids: int) -> None:
        """Compact these sealed segments, whatever they would gain."""
        self.store._compaction._asked = set(ids)
        self.maintain()


def unopened(path: Path, options: StoreOptions, disk: Disk) -> Driven:
    """The store of an existing shard, to be opened by `open`."""
    driven = Driven.__new__(Driven)
    driven.path, driven.options, driven.disk, driven.identity, driven.shard = path, options, disk, IDENTITY, 0
    driven.clock, driven._clock_s = ShardClock, monotonic_s()
    return driven


@dataclass
class Time:
    """What a shard's clock is made of, in a test's hand: `Driven(..., clock=time.clock)`."""

    wall_ms: int = 1_000_000_000_000
    monotonic_ms: int = 0

    def clock(self, floor_ms: int) -> ShardClock:
        return ShardClock(floor_ms, lambda: self.wall_ms, lambda: self.monotonic_ms)

    def pass_by(self, ms: int) -> None:
        """Time passes on both clocks."""
        self.wall_ms += ms
        self.monotonic_ms += ms


class Timed(Driven):
    """A store whose clock stands still but where it is set."""

    def __init__(self, path: Path, options: StoreOptions = SMALL, disk: Disk = DISK) -> None:
        self.time = Time()
        super().__init__(path, options, disk, clock=self.time.clock)

    def at(self, wall_ms: int) -> Timed:
        """From now on the wall clock says so."""
        self.time.wall_ms = wall_ms
        return self


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1


# ---- keys of chosen hashes ----


def _unshift(x: int, by: int) -> int:
    """The y with y ^ (y >> by) == x."""
    y = x
    for _ in range(64 // by + 1):
        y = x ^ (y >> by)
    return y


def _rotl(x: int, by: int) -> int:
    return (x << by | x >> (64 - by)) & _U64


def _round(lane: int) -> int:
    return _rotl(lane * _P2 & _U64, 31) * _P1 & _U64


def key_of_hash(wanted: int, nth: int = 0, keyspace: int = 0, seed: int = IDENTITY.seed) -> bytes:
    """The `nth` 16-byte key whose hash is exactly `wanted`: XXH64 of 16 bytes can be run backwards."""
    start = (seed + keyspace * KEYSPACE_STEP + _P5 + 16) & _U64
    last = _unshift(wanted, 32) * pow(_P3, -1, 1 << 64) & _U64
    last = _unshift(last, 29) * pow(_P2, -1, 1 << 64) & _U64
    last = _unshift(last, 33)
    mixed = _rotl((last - _P4) * pow(_P1, -1, 1 << 64) & _U64, 64 - 27)
    salt = nth << 8
    while True:
        lane = salt * 0x0101010101010101 & _U64
        first = (_rotl(start ^ _round(lane), 27) * _P1 + _P4) & _U64
        second = _rotl((mixed ^ first) * pow(_P1, -1, 1 << 64) & _U64, 64 - 31) * pow(_P2, -1, 1 << 64) & _U64
        key = lane.to_bytes(8, "little") + second.to_bytes(8, "little")
        if b"{" not in key:
            assert key_hash(key, seed, keyspace) == routed_hash(key, seed, keyspace) == wanted
            return key
        salt += 1


def hash_of(page: int, tag: int, shard_bits: int = 0) -> int:
    """The hash that chooses this KeyDir page (9 bits) and tag (20 bits)."""
    return shard_bits << 32 | page << 23 | tag << 3
