"""The children together: who is told what when one of them comes or goes.

Owns: the router, the workers, their lifecycles and processes. Never blocks, reads no clock and waits for nothing: the
supervisor's loop says what happened and when (monotonic seconds). Processes are made by the `spawn` it is given.

How a shard comes into service
    worker: ready   ->  worker: pipe NAME   ->  worker: piped NAME   ->  router: worker_up NAME
and out of it
    worker: end of file, or exit (whichever is seen first)   ->  router: worker_down, at once
A router that restarts gets its own incarnation, hence new names, hence new pipes with every worker. NAME is never used
twice, and a `piped` with another name than the last one asked for is of a router that is gone.

The ordered stop: router first, since only it takes requests; workers when it is gone, since they hold its answers. Each
has its time and is killed after it; what a killed worker had acknowledged is in the kernel's hands and survives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kio import control
from kio.daemon.children import Lifecycle
from kio.log import Log

ROUTER_STOP_S: Final = 2.5
WORKER_STOP_S: Final = 2.0
#: A child whose control socket is closed has this long to end by itself.
EXIT_GRACE_S: Final = 1.0

_log = Log(__name__)


class Process(Protocol):
    """What is used of a `process.ChildProcess`."""

    kill_at: float | None

    @property
    def pid(self) -> int:
        """Its process id."""

    def post(self, message: control.Message) -> None:
        """Send `message`, without waiting."""

    def receive(self) -> control.Message | None:
        """One message, or None at end of file; BlockingIOError when nothing has come."""

    def poll(self) -> int | None:
        """Its exit code once it has ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def close(self) -> None:
        """Close the control socket."""


@dataclass(slots=True, eq=False)
class Child:
    """One child: what it is, its process while there is one, and what it last told of itself."""

    name: str
    module: str
    configure: control.Message
    life: Lifecycle
    process: Process | None = None
    #: False from the moment its control socket is at its end.
    is_connected: bool = False
    #: Its last `stats`, kept when it is away, and when that came; None before the first.
    told: control.Message = field(default_factory=dict)
    told_at: float | None = None
    #: What it said kept it from starting, in this life.
    failure: str = ""


@dataclass(slots=True, eq=False)
class Worker(Child):
    """A worker, and its place between the others.

    Attributes:
        pipe: the name of the pair of pipes it was last told to bind; "" when there is none.
        is_up: whether the router was told to send it operations.
        shard_stats: what it last told of its shards, kept when it is away.
    """

    number: int = 0
    cpu: int | None = None
    shards: Sequence[int] = ()
    pipe: str = ""
    is_up: bool = False
    shard_stats: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def read_only(self) -> dict[int, str]:
        """The shards that the disk has failed, and why: they stay read-only however often the worker starts."""
        stats = self.shard_stats.items()
        return {number: each.get("reason", "") for number, each in stats if each.get("state") == "read-only"}


class Fleet:
    """The router and the workers.

    Args:
        router, workers: the children, none of them started.
        spawn: makes the process of a child and has its control socket watched. Raises OSError.
        unwatch: has the control socket of a child watched no longer; always called before it is closed.
        remove_pipe: forgets the files of a pair of pipes.
        check: the command that tells an operator what is wrong with the data directory.
        swap: does what a router's `swap` asks for; gives the answer to it.
    """

    def __init__(
        self,
        router: Child,
        workers: Sequence[Worker],
        spawn: Callable[[Child], Process],
        unwatch: Callable[[Child], None],
        remove_pipe: Callable[[str], None],
        check: str,
        swap: Callable[[control.Message], control.Message],
    ) -> None:
        # Set once.
        self.router = router
        self.workers = workers
        self.children: list[Child] = [router, *workers]
        self._spawn = spawn
        self._unwatch = unwatch
        self._remove_pipe = remove_pipe
        self._check = check
        self._swap = swap
        # Changed by the loop.
        #: Counts whatever a reader of the topology would see.
        self.changes = 0
        self._is_stopping = False
        self._are_workers_draining = False

    @property
    def is_settled(self) -> bool:
        """Whether the router serves and every worker either serves or was given up: starting is over."""
        return self.router.life.state == "serving" and all(
            worker.is_up or worker.life.state == "broken" for worker in self.workers
        )

    @property
    def is_stopped(self) -> bool:
        """Whether no process is left."""
        return all(child.process is None for child in self.children)

    def wake_at(self) -> float | None:
        """When `turn` has something to do although nothing happens."""
        times = [child.life.start_at for child in self.children]
        times += [child.process.kill_at for child in self.children if child.process is not None]
        return min((at for at in times if at is not None), default=None)

    def turn(self, now: float) -> None:
        """Start who is due, kill who has had its time, go on with a stop."""
        for child in self.children:
            if child.life.is_due(now):
                self._start(child, now)
            process = child.process
            if process is not None and process.kill_at is not None and now >= process.kill_at:
                _log.warning("child killed", child=child.name, pid=process.pid, reason="it did not end in time")
                process.kill()
                process.kill_at = None
        if self._is_stopping and not self._are_workers_draining and self.router.process is None:
            self._drain_workers(now)

    # --- what children say

    def receive(self, child: Child, now: float) -> None:
        """Take what `child` has sent."""
        while child.process is not None and child.is_connected:
            try:
                message = child.process.receive()
            except BlockingIOError:
                return
            if message is None:
                self._lose(child, now)
            else:
                self._handle(child, message, now)

    def _handle(self, child: Child, message: control.Message, now: float) -> None:
        kind = message["type"]
        if kind == "stats":
            child.told, child.told_at = message, now
            if isinstance(child, Worker):
                self._take_shard_stats(child, message["shards"])
        elif kind == "ready":
            child.life.ready(now)
            self.changes += 1
            if isinstance(child, Worker):
                self._take_shard_stats(child, message["shards"])
                self._connect(child)
        elif kind == "failed" and "shard" not in message:
            child.failure = f"{message['error']}: {message['message']}"
        elif kind == "piped" and isinstance(child, Worker) and message["name"] == child.pipe:
            self._put_up(child)
        elif kind == "swap" and child is self.router and child.process is not None:
            answer = self._swap(message)
            # One that is started later begins with it.
            child.configure = child.configure | {"keyspaces": answer["places"]}
            child.process.post(answer)

    def _take_shard_stats(self, worker: Worker, shards: dict[int, dict[str, Any]]) -> None:
        before = {number: (stats.get("state"), stats.get("reason")) for number, stats in worker.shard_stats.items()}
        worker.shard_stats = shards
        if before != {number: (stats.get("state"), stats.get("reason")) for number, stats in shards.items()}:
            self.changes += 1

    def _connect(self, worker: Worker) -> None:
        if worker.process is None or not self.router.is_connected:
            return
        if worker.pipe:
            self._remove_pipe(worker.pipe)
        worker.pipe = control.pipe_name(worker.number, worker.life.incarnation, self.router.life.incarnation)
        worker.process.post({"type": "pipe", "name": worker.pipe})

    def _put_up(self, worker: Worker) -> None:
        if self.router.process is not None and self.router.is_connected:
            worker.is_up = True
            self.changes += 1
            self.router.process.post(
                {"type": "worker_up", "worker": worker.number, "name": worker.pipe, "shards": list(worker.shards)}
            )

    # --- how children come and go

    def _start(self, child: Child, now: float) -> None:
        child.life.started()
        child.failure = ""
        self.changes += 1
        try:
            child.process = process = self._spawn(child)
        except OSError as error:
            child.life.exited(1, now, f"it could not be started: {error}")
            self._log_exit(child, now)
            return
        child.is_connected = True
        process.post(child.configure | ({"read_only": child.read_only} if isinstance(child, Worker) else {}))
        _log.debug("child started", child=child.name, pid=process.pid, incarnation=child.life.incarnation)
        if child is self.router:
            for worker in self.workers:
                if worker.life.state == "serving":
                    self._connect(worker)

    def _lose(self, child: Child, now: float) -> None:
        """Its control socket is at its end: it serves no more, and is to end soon."""
        assert child.process is not None
        self._unwatch(child)
        child.is_connected = False
        child.process.kill_at = now + EXIT_GRACE_S
        self.changes += 1
        if isinstance(child, Worker):
            self._take_down(child)
        else:
            for worker in self.workers:
                worker.is_up = False

    def _take_down(self, worker: Worker) -> None:
        if worker.is_up and self.router.process is not None:
            self.router.process.post({"type": "worker_down", "worker": worker.number, "shards": list(worker.shards)})
        worker.is_up = False
        if worker.pipe:
            self._remove_pipe(worker.pipe)
            worker.pipe = ""

    def reap(self, now: float) -> None:
        """Take note of every child that has ended."""
        for child in self.children:
            returncode = child.process.poll() if child.process is not None else None
            if child.process is None or returncode is None:
                continue
            self.receive(child, now)  # its last words
            if child.is_connected:
                self._lose(child, now)
            child.process.close()
            child.process = None
            child.life.exited(returncode, now, child.failure)
            self.changes += 1
            self._log_exit(child, now)

    def _log_exit(self, child: Child, now: float) -> None:
        life = child.life
        if life.state == "stopped":
            _log.debug("child stopped", child=child.name)
        elif life.state == "broken":
            _log.error(
                "child given up",
                child=child.name,
                reason=life.reason,
                shards=",".join(map(str, child.shards)) if isinstance(child, Worker) else None,
                retry_in_s=round((life.start_at or now) - now),
                run=self._check,
            )
        else:
            _log.warning(
                "child lost",
                child=child.name,
                reason=life.reason,
                restart_in_ms=round(1000 * ((life.start_at or now) - now)),
            )

    # --- the end

    def stop(self, now: float) -> None:
        """Begin the ordered stop; called again, the time of whoever is being waited for is over."""
        if self._is_stopping:
            for child in self.children:
                if child.process is not None and child.process.kill_at is not None:
                    child.process.kill_at = now
            return
        self._is_stopping = True
        self.changes += 1
        for child in self.children:
            was_ready = child.life.state == "serving"
            child.life.stop()
            if child.process is not None and not was_ready:
                child.process.kill()  # recovery can be cut at any moment
        if self.router.process is not None:
            self.router.process.post({"type": "drain"})
            self.router.process.kill_at = now + ROUTER_STOP_S

    def _drain_workers(self, now: float) -> None:
        self._are_workers_draining = True
        for worker in self.workers:
            if worker.process is not None:
                worker.process.post({"type": "drain"})
                worker.process.kill_at = now + WORKER_STOP_S

    def kill(self) -> None:
        """Kill whoever is left: the supervisor itself must go, and at once."""
        for child in self.children:
            if child.process is not None:
                child.process.kill()


assert ROUTER_STOP_S + WORKER_STOP_S < 5.0
