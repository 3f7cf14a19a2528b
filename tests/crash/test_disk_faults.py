"""Disks that fail under a running daemon: never an acknowledgement for what is not kept.

The faults are real: strace makes the k-th call of a kind return an error, or kills the worker as it begins that call.
"""

from __future__ import annotations

import os

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, scaled, wait_until
from tests.cluster.rawwire import (
    DELETE,
    DISK_FULL,
    GET,
    OK,
    OVERLOADED,
    SET,
    SHARD_DOWN,
    SHARD_READ_ONLY,
    Wire,
)
from tests.cluster.strace import SYNCS, Strace, needs_strace

#: call -> the errors it can return, and how often a thread of the worker makes it in one run, at the least.
FAULTS = {
    "fdatasync": (("EIO", "ENOSPC"), 50),
    "fsync": (("EIO",), 8),
    "pwrite64": (("EIO", "ENOSPC"), 55),
    "fallocate": (("ENOSPC", "EIO"), 3),
    "ftruncate": (("EIO",), 2),
    "openat": (("EMFILE", "EIO"), 6),
    "mmap": (("ENOMEM",), 3),
    "close": (("EIO",), 3),
}
ROUNDS = 40 if FULL else 1
WRITES = 60
#: Several segments of 1 MiB are filled, sealed and followed by others.
VALUE = 70_000
#: What a write may be answered when the disk fails it.
REFUSALS = {SHARD_READ_ONLY, DISK_FULL, SHARD_DOWN, OVERLOADED}


def value_of(key: bytes) -> bytes:
    return key * (VALUE // len(key))


@scaled
@needs_strace
@pytest.mark.timeout(1200 if FULL else 60)
@pytest.mark.parametrize("call", FAULTS if FULL else ["fdatasync", "fsync", "pwrite64", "ftruncate"])
def test_a_call_that_fails_or_never_returns_costs_nothing_that_was_acknowledged(call: str, chance: Chance) -> None:
    for _ in range(ROUNDS):
        faults, calls = FAULTS[call]
        fault = chance.dice.choice([*(f"error={name}" for name in faults), "signal=SIGKILL"])
        nth = chance.dice.randint(1, calls)
        acked: list[bytes] = []
        refused: list[bytes] = []
        with Daemon(workers=1, shards=1, sync="always", flags=["--segment-mib", "1"]) as daemon:
            inject = f"inject={call}:{fault}:when={nth}"
            with (
                Strace([daemon.worker_pid(0)], "-e", f"trace={call}", "-e", inject) as strace,
                Wire(daemon.url) as wire,
            ):
                for number in range(WRITES):
                    key = b"key-%d" % number
                    status, *rest = wire.request(SET, 0, key, value_of(key), deadline_ms=5_000)
                    assert status in REFUSALS | {OK}, f"{inject}: a write was answered {status} {rest!r}"
                    if status == OK:
                        acked.append(key)
                    elif not rest[1]:
                        refused.append(key)
            struck = [line for line in strace.lines() if "(INJECTED)" in line or "killed by SIGKILL" in line]
            assert struck, f"{inject}: no call was made to fail"
            daemon.kill_everything()
            daemon.restart()
            what = f"{inject}, {len(acked)} of {WRITES} acknowledged\nrepeat with: {chance.repeat}"
            with Wire(daemon.url) as wire:
                for key in acked:
                    assert wire.call(GET, 0, key) == value_of(key), f"{key!r} is lost or wrong: {what}"
                for key in refused:
                    assert wire.call(GET, 0, key) is None, f"{key!r} was refused and is there: {what}"
                for number in range(WRITES):
                    key = b"key-%d" % number
                    assert wire.call(GET, 0, key) in (None, value_of(key)), f"{key!r} is wrong: {what}"
                assert wire.call(SET, 0, b"after", b"x") is True
            print(what)


@needs_strace
@pytest.mark.parametrize("sync", ["interval", "always"])
def test_a_failed_sync_makes_the_shard_read_only_until_the_operator_acts(sync: str, chance: Chance) -> None:
    with Daemon(workers=1, shards=1, sync=sync) as daemon, Wire(daemon.url) as wire:
        wire.call(SET, 0, b"old", b"1")
        wait_until(lambda: daemon.shard_stats()[0]["unsynced_bytes"] == 0, 5, "the first write to be durable", 0.05)
        with Strace([daemon.worker_pid(0)], "-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:error=EIO"):
            wire.request(SET, 0, b"new", b"2")
            wait_until(lambda: daemon.shard_stats()[0]["state"] == "read-only", 5, "the shard to be read-only", 0.05)
        assert wire.request(SET, 0, b"later", b"3")[0] == SHARD_READ_ONLY
        assert wire.request(DELETE, 0, b"old")[0] == SHARD_READ_ONLY
        assert wire.call(GET, 0, b"old") == b"1"
        stats = daemon.shard_stats()[0]
        assert (stats["durable_lsn"], "a sync failed" in stats["reason"]) == (1, True)
        assert daemon.http_get("/readyz")[0] == 503
        os.kill(daemon.worker_pid(0), 9)
        wait_until(lambda: wire.request(GET, 0, b"old")[:2] == [OK, b"1"], 10, "the worker to serve again", 0.05)
        assert wire.request(SET, 0, b"later", b"4")[0] == SHARD_READ_ONLY, "a new process takes for healed what is not"
        daemon.stop()
        daemon.restart()
        with Wire(daemon.url) as again:
            assert again.call(GET, 0, b"old") == b"1"
            assert again.call(SET, 0, b"later", b"5") is True
