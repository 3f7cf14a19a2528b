"""The start of a worker process: `python -m kio.workers --control-fd N`, run by the supervisor and by nobody else.

In this order: die with the supervisor; take `configure`; pin to the one core; recover the shards; say `ready`; loop.
A shard whose store is corrupt, or no kio directory, or too new, is served as a FailedShard, so that the worker's other
shards go on; any other error ends the process with a `failed` message, and the supervisor tries again with back-off.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

from kio import control, log
from kio.clock import monotonic_s
from kio.errors import DirectoryInUse, StorageError
from kio.segments import identity
from kio.segments.options import StoreOptions
from kio.segments.store import Store
from kio.workers.loop import WorkerLoop
from kio.workers.shard import FailedShard, Shard, SyncPolicy

#: A killed worker, or one whose supervisor was killed, holds its locks until the kernel has ended its last thread.
LOCK_WAIT_S: Final = 5.0
#: A helper that comes back from the disk gets the interpreter within this time, not after the default of 5 ms.
SWITCH_INTERVAL_S: Final = 0.001

_log = log.Log(__name__)


def main() -> int:
    """The process: the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP):  # of a terminal: they are for the supervisor
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m kio.workers", description="A worker; started by `kio serve`.")
    parser.add_argument("--control-fd", type=int, required=True, metavar="N")
    sock = control.from_fd(parser.parse_args().control_fd)
    control.die_with_supervisor(sock)
    configure = control.receive(sock)
    if configure is None:
        return 1
    log.configure(configure["log_level"], configure["log_format"])
    threading.excepthook = _end_process
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        _pin(configure["cpu"])
        shards = _open_shards(sock, configure)
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor is to hear of it
        _log.exception("start failed", worker=configure["worker"])
        control.send(sock, {"type": "failed", "error": type(error).__name__, "message": str(error)})
        return 1
    # What recovery made lives as long as the process; only what the loop leaves behind is worth a look, and rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    now = monotonic_s()
    control.send(sock, {"type": "ready", "shards": {number: shard.stats(now) for number, shard in shards.items()}})
    return WorkerLoop(sock, configure["pipes_dir"], shards).run()


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def _open_shards(sock: socket.socket, configure: control.Message) -> dict[int, Shard | FailedShard]:
    data = Path(configure["data"])
    policy = SyncPolicy(configure["sync"], configure["sync_interval_ms"] / 1000)
    options = StoreOptions(
        segment_bytes=configure["segment_bytes"],
        space_amplification=configure["space_amplification"],
        dead_ratio=configure["dead_ratio"],
        checkpoint_interval_s=configure["checkpoint_interval_s"],
        open_segments=max(1, configure["open_segments"] // len(configure["shards"])),
        memory_bytes_max=configure["memory_bytes_max"],
        value_bytes_max=configure["max_value_bytes"],
        sync=configure["sync"],
    )
    directory = identity.load(data)
    root = identity.shards_root(data, directory)
    shards: dict[int, Shard | FailedShard] = {}
    for number in configure["shards"]:
        started = time.monotonic()
        try:
            held = dataclasses.replace(options, read_only_reason=configure["read_only"].get(number, ""))
            store = _open_when_unlocked(identity.shard_path(root, number), directory, number, held)
        except DirectoryInUse:
            raise  # somebody else serves it: not the shard's fault, and worth another try
        except StorageError as error:
            _log.error("shard failed", shard=number, reason=error, run=f"kio check {data} --shard {number}")
            message = {"type": "failed", "shard": number, "error": type(error).__name__, "message": str(error)}
            control.send(sock, message)
            shards[number] = FailedShard(number, error)
            continue
        shards[number] = Shard(number, store, policy)
        _log.debug("shard opened", shard=number, lsn=store.lsn, took_ms=int((time.monotonic() - started) * 1000))
    return shards


def _open_when_unlocked(path: Path, directory: identity.DirectoryIdentity, number: int, options: StoreOptions) -> Store:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return Store.open(path, directory, number, options)
        except DirectoryInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _end_process(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        sys.__excepthook__(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(70)


if __name__ == "__main__":
    sys.exit(main())
