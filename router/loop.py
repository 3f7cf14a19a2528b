"""The router's loop: one thread, one epoll, between the door, the pipes and the supervisor.

A turn: wait; read sockets and pipes, each up to its share; then `door.turn` sends the batches and the replies. No timer
delays anything: what has come in this turn goes out this turn.
Invariants:
  * a batch for a shard goes to the pipes its worker was last announced with, or is not made: the shard is down then;
  * pipes of a worker's earlier life are closed before anything is sent to its next one.
Ends: `drain` or SIGTERM: no new connection, new requests answered Draining, those in flight answered, exit 0 within
DRAIN_S + PART_S. End of file on the control socket: the supervisor is gone, the process ends on the spot.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import zmq

from kio import control, limits
from kio.access import Access, Verifier
from kio.clock import monotonic_s
from kio.errors import ConfigError, KioError
from kio.frontdoor._dispatch import Dispatch, live_allocations
from kio.frontdoor.connections import host_of
from kio.frontdoor.door import Door
from kio.frontdoor.doorkeeper import Doorkeeper, Outcome
from kio.frontdoor.greeting import Greeting
from kio.frontdoor.poller import READABLE, Poller
from kio.frontdoor.resp.connection import ConnectionCommands
from kio.frontdoor.resp.introspection import IntrospectionCommands
from kio.frontdoor.resp.rights import Guest, Known
from kio.frontdoor.resp.runner import Runner
from kio.frontdoor.resp.server import REDIS_VERSION, ServerCommands
from kio.frontdoor.resp.sessions import Session
from kio.frontdoor.resp.swapping import Kept, SwapCommand
from kio.log import Log
from kio.router.facts import DaemonFacts
from kio.router.pipes import Pipes
from kio.router.rare import RareOperations
from kio.tls import made_of

MESSAGES_PER_TURN: Final = 64
BYTES_PER_TURN: Final = 32 << 20
#: What is in flight has this long to be answered, then clients this long to close their side.
DRAIN_S: Final = 1.8
PART_S: Final = 0.4

_log = Log(__name__)


class _Worker:
    """What the loop knows of a worker that is up."""

    __slots__ = ("has_more", "number", "pipes", "shards")

    def __init__(self, number: int, pipes: Pipes, shards: list[int]) -> None:
        self.number = number
        self.pipes = pipes
        self.shards = shards
        #: Whether `receive` has not yet said that there is nothing.
        self.has_more = True


class RouterLoop:
    """The loop of the router.

    Args:
        sock: the control socket; its other end is the supervisor's.
        configure: the supervisor's first message (control.py).
        listeners, resp_listeners: the listening sockets it names, of either protocol.

    Raises:
        ConfigError: when the users or the certificates that it names cannot be used.
    """

    def __init__(
        self,
        sock: socket.socket,
        configure: control.Message,
        listeners: list[socket.socket],
        resp_listeners: list[socket.socket],
    ) -> None:
        # Set once.
        shards = int(configure["shards"])
        value_bytes_max = int(configure["max_value_bytes"])
        self._control = sock
        self._pipes_dir: str = configure["pipes_dir"]
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._poller = Poller()
        self._memory = control.ResidentMemory()
        self._signal_fd, self._signal_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._dispatch = Dispatch(
            shards,
            int(configure["seed"]),
            value_bytes_max=value_bytes_max,
            shard_operations_max=int(configure["shard_operations_max"]),
            shard_bytes_max=int(configure["shard_bytes_max"]),
            connection_requests_per_s=int(configure["client_requests_per_s"]),
            share_us=limits.SHARE_US,
        )
        self._access, self._verifier = _users_of(configure)
        self._doorkeeper = Doorkeeper(self._access, self._verifier)
        self._tls = made_of(configure["tls"])
        self._rare = RareOperations(self._dispatch, shards, self._stats)
        self._runner = Runner(self._dispatch, shards)
        self._door = Door(
            self._poller,
            self._dispatch,
            listeners,
            self._submit,
            self._rare,
            Greeting(configure["server"], shards, value_bytes_max),
            resp_listeners=resp_listeners,
            runner=self._runner,
            doorkeeper=self._doorkeeper,
            tls=self._tls,
            connections_max=int(configure["max_connections"]),
            idle_timeout_s=float(configure["idle_timeout_s"]),
        )
        self._runner.stranger = self._stranger
        ConnectionCommands(self._runner, self._dispatch, REDIS_VERSION, self._prove, self._door.doom)
        facts = DaemonFacts(configure, self._stats)
        ServerCommands(self._runner, facts)
        IntrospectionCommands(self._runner)
        self._dispatch.map_keyspaces(configure["keyspaces"])
        self._swap = SwapCommand(self._runner, self._ask_swap, configure["keyspaces"])
        self._rare.when_still = self._swap.when_still
        # Changed by the loop.
        self._workers: dict[int, _Worker] = {}
        self._pipes_of: list[Pipes | None] = [None] * shards
        #: Who is to hear of the supervisor's answer, by the id of the swap.
        self._swaps: dict[int, Callable[[Kept], None]] = {}
        self._swap_id = 0
        self._stats_at = 0.0
        self._drain_until: float | None = None
        for shard in range(shards):
            self._dispatch.fail_shard(shard)

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        self._start()
        while self._drain_until is None or (monotonic_s() < self._drain_until and not self._door.is_drained):
            self._turn()
        parted_until = monotonic_s() + PART_S
        self._door.part()
        while self._door.connections and monotonic_s() < parted_until:
            self._turn()
        self._close()
        return 0

    def _start(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # what is to be done is in the byte that the wake-up fd gets
        signal.set_wakeup_fd(self._signal_write_fd, warn_on_full_buffer=False)
        self._control.setblocking(False)
        self._poller.register(self._control.fileno(), READABLE, lambda _: self._receive_control())
        self._poller.register(self._signal_fd, READABLE, lambda _: self._receive_signal())
        if self._verifier is not None:
            self._verifier.start()
            self._poller.register(self._verifier.fileno(), READABLE, lambda _: self._doorkeeper.look())
        control.send(self._control, {"type": "ready"})

    def _turn(self) -> None:
        has_more = any(worker.has_more for worker in self._workers.values())
        self._poller.poll(0.0 if has_more else self._door.wait_s)
        for worker in self._workers.values():
            if worker.has_more:
                self._receive_replies(worker)
        self._door.turn()
        now = monotonic_s()
        if now >= self._stats_at:
            self._stats_at = now + control.STATS_INTERVAL_S
            control.send(self._control, {"type": "stats"} | self._stats())

    # --- who comes in

    def _stranger(self) -> Guest | None:
        user = self._access.default
        return None if user is None else Known(user, self._access)

    def _prove(self, session: Session, name: str, password: bytes, proven: Callable[[Guest | KioError], None]) -> None:
        def known(outcome: Outcome) -> None:
            proven(outcome if isinstance(outcome, KioError) else Known(outcome, self._access))

        self._doorkeeper.prove(host_of(session.peer), name, password, known)

    def _reload(self) -> None:
        """The supervisor has found the files good; where they are not any more, all stays as it is."""
        try:
            if self._tls is not None:
                self._tls.reload()
            self._access.reload()
        except ConfigError as error:
            _log.warning("reload failed", reason=error)
            return
        self._door.users_changed()

    # --- operations and replies

    def _submit(self, shard: int, batch: bytes) -> None:
        pipes = self._pipes_of[shard]
        if pipes is not None:
            pipes.send(batch)

    def _receive_replies(self, worker: _Worker) -> bool:
        """Take this turn's share of what came; whether there may be more."""
        bytes_left = BYTES_PER_TURN
        for _ in range(MESSAGES_PER_TURN):
            replies = worker.pipes.receive()
            if replies is None:
                worker.has_more = False
                return False
            self._door.deliver(replies)
            bytes_left -= len(replies)
            if bytes_left <= 0:
                break
        return True

    # --- the supervisor

    def _receive_control(self) -> None:
        while True:
            try:
                message = control.receive(self._control)
            except BlockingIOError:
                return
            if message is None:
                os._exit(1)  # the supervisor is gone, and with it whoever would start this process again
            kind = message["type"]
            if kind == "worker_up":
                self._worker_up(message["worker"], message["name"], message["shards"])
            elif kind == "worker_down":
                self._worker_down(message["worker"])
            elif kind == "topology":
                self._rare.topology = message["status"]
            elif kind == "keyspaces":
                self._swaps.pop(message["id"])(Kept(message["places"], message["error"]))
            elif kind == "reload":
                self._reload()
            elif kind == "drain":
                self._drain()
            else:
                _log.warning("unknown control message", type=kind)

    def _ask_swap(self, first: int, second: int, told: Callable[[Kept], None]) -> bool:
        self._swap_id += 1
        message = {"type": "swap", "id": self._swap_id, "first": first, "second": second}
        if not control.send(self._control, message):
            return False
        self._swaps[self._swap_id] = told
        return True

    def _receive_signal(self) -> None:
        if signal.SIGTERM in os.read(self._signal_fd, 64):
            self._drain()

    def _worker_up(self, number: int, name: str, shards: list[int]) -> None:
        self._worker_down(number)
        pipes = Pipes(self._context, self._pipes_dir, name)
        worker = self._workers[number] = _Worker(number, pipes, shards)

        def look() -> None:
            worker.has_more = True

        self._poller.register(pipes.fd, READABLE, lambda _: look())
        for shard in shards:
            self._pipes_of[shard] = pipes
            self._dispatch.shard_up(shard)
        _log.debug("worker up", worker=number, pipes=name, shards=len(shards))

    def _worker_down(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        # Replies that came before the worker died stand for what it did.
        while self._receive_replies(worker):
            pass
        for shard in worker.shards:
            self._pipes_of[shard] = None
            self._dispatch.fail_shard(shard)
        self._poller.unregister(worker.pipes.fd)
        worker.pipes.close()
        _log.debug("worker down", worker=number, shards=len(worker.shards))

    def _stats(self) -> dict[str, Any]:
        counters = self._dispatch.counters()
        return {
            "connections": self._door.connections,
            "requests": sum(counters["per_op"].values()),
            "in_flight": self._dispatch.requests,
            "buffer_bytes": live_allocations()[1],
            "bytes_in": counters["bytes_in"],
            "bytes_out": counters["bytes_out"],
            "errors": counters["errors"],
            "per_op": counters["per_op"],
            "tls_faults": self._door.tls_faults,
            "authentication_failures": self._doorkeeper.failures,
            "rss_bytes": self._memory.measure(),
            "cpu_s": time.process_time(),
        }

    # --- the end

    def _drain(self) -> None:
        if self._drain_until is None:
            self._drain_until = monotonic_s() + DRAIN_S
            _log.info("drain", connections=self._door.connections, in_flight=self._dispatch.requests)
            self._door.drain()

    def _close(self) -> None:
        self._door.close()
        for number in list(self._workers):
            self._worker_down(number)
        if self._verifier is not None:
            self._verifier.close()
        self._context.term()
        self._poller.close()
        signal.set_wakeup_fd(-1)
        os.close(self._signal_fd)
        os.close(self._signal_write_fd)


def _users_of(configure: control.Message) -> tuple[Access, Verifier | None]:
    """Who may come in, and the thread that checks passwords, where there are any."""
    if not configure["users_file"]:
        return Access(), None
    access = Access.load(Path(configure["users_file"]))
    access.protect(is_exposed=configure["is_exposed"], is_protected=configure["protected_mode"])
    return access, Verifier(access)
