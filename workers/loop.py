"""The worker's loop: it carries batches, jobs and control messages between the sockets, the shards and the helpers.

One thread, one epoll. A turn takes at most BATCHES_PER_TURN batches or BYTES_PER_TURN bytes of them, then starts the
jobs that the shards want, then looks at everything else, so that a busy pipe starves neither a sync nor the supervisor.
Invariants: only this thread touches a shard; nothing here waits for the router, the supervisor or the disk; every batch
that was taken out of the pipe is answered on that pipe or dropped with it.
Ends: `drain` or SIGTERM: what is in the pipe is answered, the stores are closed, exit 0. End of file on the control
socket: the supervisor is gone, the process ends on the spot, and the log is good as it is.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable
from typing import Final

import zmq

from kio import control
from kio.clock import monotonic_s
from kio.errors import InternalError, KioError
from kio.log import Log
from kio.workers.jobs import Background, Helper
from kio.workers.pipes import LINGER_MS, Pipes
from kio.workers.shard import FailedShard, Shard, refuse

BATCHES_PER_TURN: Final = 64
BYTES_PER_TURN: Final = 32 << 20
#: A drain answers what is in the pipe, but no longer than this: a router that goes on sending must not keep the worker.
DRAIN_S: Final = 1.0
#: How often a shard that has nothing under way is asked whether it wants maintenance.
PLAN_INTERVAL_S: Final = 0.25
#: Where compaction is behind the writes, the pipe is left alone for a while, but no longer at once: reads wait, too.
PAUSE_S_MAX: Final = 0.02
#: The pipe counts as empty when nothing has come for this long: what the router has sent may still be on its way.
DRAIN_QUIET_S: Final = 0.03

_log = Log(__name__)


class WorkerLoop:
    """The loop of one worker.

    Args:
        sock: the control socket; its other end is the supervisor's.
        pipes_dir: where pipes are bound.
        shards: the shards this worker owns, by number.
    """

    def __init__(self, sock: socket.socket, pipes_dir: str, shards: dict[int, Shard | FailedShard]) -> None:
        # Set once.
        self._control = sock
        self._pipes_dir = pipes_dir
        self._shards = shards
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signal_fd, self._signal_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._syncs = Helper("kio-sync", self._wake)
        self._background = Background(self._wake)
        self._memory = control.ResidentMemory()
        # Changed by the loop.
        self._pipes: Pipes | None = None
        self._has_more = False
        self._touched: set[int] = set()
        #: Shards that have another slice of maintenance to run at once.
        self._slicing: set[int] = set()
        self._maintain_at = 0.0
        self._states = {number: shard.state for number, shard in shards.items()}
        self._stats_at = 0.0
        self._drain_until: float | None = None
        self._pause_until = 0.0
        self._batch_at = 0.0

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        self._start()
        while not self._is_drained():
            for fd, _ in self._epoll.poll(self._timeout_s()):
                self._handle(fd)
            now = monotonic_s()
            if self._pipes is not None and self._has_more and now >= self._pause_until:
                self._take_batches(self._pipes, now)
            self._maintain(now)
            self._start_jobs(now)
            if now >= self._stats_at:
                self._send_stats(now)
        return self._close()

    # --- events

    def _start(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # what is to be done is in the byte that the wake-up fd gets
        signal.set_wakeup_fd(self._signal_write_fd, warn_on_full_buffer=False)
        self._control.setblocking(False)
        for fd in (self._control.fileno(), self._wake_fd, self._signal_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._syncs.start()
        self._background.start()
        self._touched.update(self._shards)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _timeout_s(self) -> float:
        now = monotonic_s()
        if self._slicing or (self._has_more and now >= self._pause_until):
            return 0.0
        wakes = [self._stats_at, self._maintain_at]
        if self._has_more:
            wakes.append(self._pause_until)
        if self._drain_until is not None:
            quiet_at = self._batch_at + DRAIN_QUIET_S
            wakes.append(quiet_at if quiet_at > now else self._drain_until)
        for shard in self._shards.values():
            at = shard.wake_at()
            if at is not None:
                wakes.append(at)
                self._touched.add(shard.shard)
        return max(0.0, min(wakes) - now)

    def _handle(self, fd: int) -> None:
        pipes = self._pipes
        if pipes is not None and fd == pipes.pull_fd:
            self._has_more = True
        elif pipes is not None and fd == pipes.push_fd:
            pipes.flush()
        elif fd == self._wake_fd:
            os.eventfd_read(self._wake_fd)
            self._finish_jobs()
        elif fd == self._signal_fd:
            if signal.SIGTERM in os.read(self._signal_fd, 64):
                self._drain()
        elif fd == self._control.fileno():
            self._receive_control()

    def _receive_control(self) -> None:
        while True:
            try:
                message = control.receive(self._control)
            except BlockingIOError:
                return
            if message is None:
                os._exit(1)  # the supervisor is gone; whatever is in flight has nobody to go to
            kind = message["type"]
            if kind == "pipe":
                self._bind(message["name"])
            elif kind == "drain":
                self._drain()
            else:
                _log.warning("unknown control message", type=kind)

    def _bind(self, name: str) -> None:
        if self._pipes is not None:
            self._unwatch(self._pipes)
            self._pipes.close()
            for shard in self._shards.values():
                shard.forget_parked()
        self._pause_until = 0.0
        self._pipes = pipes = Pipes(self._context, self._pipes_dir, name)
        self._epoll.register(pipes.pull_fd, select.EPOLLIN)
        self._epoll.register(pipes.push_fd, select.EPOLLIN)
        self._has_more = True
        control.send(self._control, {"type": "piped", "name": name})

    def _unwatch(self, pipes: Pipes) -> None:
        self._epoll.unregister(pipes.pull_fd)
        self._epoll.unregister(pipes.push_fd)

    # --- work

    def _take_batches(self, pipes: Pipes, now: float) -> None:
        if self._pause_until:
            self._pause_until = 0.0
            self._epoll.modify(pipes.pull_fd, select.EPOLLIN)
        bytes_left = BYTES_PER_TURN
        pause_s = 0.0
        for _ in range(BATCHES_PER_TURN):
            batch = pipes.receive()
            if batch is None:
                self._has_more = False
                break
            self._batch_at = now
            number = int.from_bytes(batch[4:8], "little")
            shard = self._shards.get(number)
            if shard is None:
                self._refuse(pipes, batch, InternalError(f"shard {number} is not of this worker"))
                continue
            self._touched.add(number)
            try:
                replies = shard.execute(batch, now)
            except KioError as error:
                self._refuse(pipes, batch, InternalError(f"shard {number}: {error}"))
                continue
            if replies:
                pipes.send(replies)
            while shard.is_cut:
                replies = shard.go_on(now)
                if replies:
                    pipes.send(replies)
            if shard.gives_up:
                self._send(shard.release())
            if shard.wants_slice:
                self._slicing.add(number)
            pause_s += shard.pause_s
            bytes_left -= len(batch)
            if bytes_left <= 0:
                break
        if pause_s:
            self._pause(pipes, monotonic_s() + min(PAUSE_S_MAX, pause_s))

    def _pause(self, pipes: Pipes, until: float) -> None:
        """Leave the pipe alone for a while; what comes meanwhile wakes nobody."""
        self._pause_until = until
        self._has_more = True
        self._epoll.modify(pipes.pull_fd, 0)

    def _refuse(self, pipes: Pipes, batch: bytes, error: InternalError) -> None:
        _log.error("batch refused", bytes=len(batch), reason=error)
        try:
            pipes.send(refuse(batch, error))
        except KioError as malformed:
            _log.error("batch dropped", reason=malformed)

    def _send(self, messages: Iterable[bytes]) -> None:
        for replies in messages:
            if self._pipes is not None:
                self._pipes.send(replies)

    def _start_jobs(self, now: float) -> None:
        for number in self._touched:
            shard = self._shards[number]
            sync = shard.pick_sync(now)
            if sync is not None:
                self._syncs.submit(number, sync)
            while (background := shard.pick_background()) is not None:
                self._background.submit(number, background, is_urgent=shard.is_behind)
        self._touched.clear()

    def _maintain(self, now: float) -> None:
        """Run one slice of each shard that wants one; all are asked now and then."""
        wanted: Iterable[int] = tuple(self._slicing)
        if now >= self._maintain_at:
            self._maintain_at = now + PLAN_INTERVAL_S
            wanted = self._shards
        for number in wanted:
            if self._shards[number].maintain(now):
                self._slicing.add(number)
            else:
                self._slicing.discard(number)
                self._touched.add(number)

    def _finish_jobs(self) -> None:
        for helper in (self._syncs, self._background):
            for number, job in helper.take_finished():
                self._send(self._shards[number].finish(job))
                self._touched.add(number)
                self._slicing.add(number)
                if self._shards[number].state != self._states[number]:
                    self._stats_at = 0.0

    def _send_stats(self, now: float) -> None:
        self._stats_at = now + control.STATS_INTERVAL_S
        self._states = {number: shard.state for number, shard in self._shards.items()}
        message: control.Message = {
            "type": "stats",
            "shards": {number: shard.stats(now) for number, shard in self._shards.items()},
            "rss_bytes": self._memory.measure(),
            "cpu_s": time.process_time(),
        }
        control.send(self._control, message)  # a supervisor that does not read misses this one and gets the next

    # --- the end

    def _drain(self) -> None:
        if self._drain_until is None:
            self._batch_at = monotonic_s()
            self._drain_until = self._batch_at + DRAIN_S
            self._has_more = True
            _log.info("drain", shards=len(self._shards))

    def _is_drained(self) -> bool:
        if self._drain_until is None:
            return False
        now = monotonic_s()
        if now >= self._drain_until or self._pipes is None:
            return True
        return (
            now >= self._batch_at + DRAIN_QUIET_S
            and not self._has_more
            and not self._touched
            and self._pipes.is_flushed
            and all(shard.is_idle for shard in self._shards.values())
        )

    def _close(self) -> int:
        """Close every store, answer what was parked, and leave; 1 where a store could not be made durable."""
        exit_code = 0
        self._syncs.stop()
        self._background.stop()
        self._finish_jobs()
        for number, shard in self._shards.items():
            try:
                self._send(shard.close())
            except (OSError, KioError) as error:
                exit_code = 1
                _log.error("close failed", shard=number, reason=error, run=f"kio check --shard {number}")
        if self._pipes is not None:
            self._unwatch(self._pipes)
            self._pipes.close(LINGER_MS)
        self._context.term()
        return exit_code
