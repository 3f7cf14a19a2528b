"""The supervisor: it starts the daemon, keeps it running, and stops it in order.

`serve` is the assembly: lock, identity, cores, sockets, children, doors. `Supervisor` is the loop: one thread, which is
the main one, and nothing in it waits but `select`, and the disk while keyspaces are swapped (keyspaces.py).
Invariants:
  * only the holder of DATA/LOCK reaches anything else of the directory, and it keeps the lock until every child has
    ended;
  * the listening sockets are open from before the first child starts until the ordered stop.
Crash: the children die with this process (PR_SET_PDEATHSIG, and end of file on their control sockets); locks, ports and
the pipes' directory are free for the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kio import __version__, config, control, limits, log
from kio.access import Access
from kio.clock import monotonic_s
from kio.daemon import banner, cpus, listeners
from kio.daemon.children import Lifecycle
from kio.daemon.fleet import Child, Fleet, Worker
from kio.daemon.http import AdminDoor
from kio.daemon.keyspaces import KeyspaceKeeper
from kio.daemon.notify import Notifier
from kio.daemon.process import ChildProcess
from kio.daemon.topology import snapshot, topology
from kio.errors import ConfigError, DirectoryInvalid
from kio.limits import MIB
from kio.segments import disk, identity
from kio.tls import made_of

#: The loop turns at least this often: the admin door calls the daemon healthy by it.
TURN_S: Final = 1.0
#: While a child does not take its messages, they are offered again this often.
UNSENT_TURN_S: Final = 0.05
#: The router learns the topology when it changes, and this often for what grows by itself.
TOPOLOGY_INTERVAL_S: Final = 1.0

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = log.Log(__name__)


def serve(loaded: config.Loaded) -> int:
    """Run the daemon in this process until it is told to stop; the exit code.

    To be called from the main thread of a process that has nothing else to do. SIGTERM and SIGINT are the wish to stop,
    a second one hastens it, and from the stop on they are ignored. SIGHUP reads users and certificates anew.

    Raises:
        DirectoryInUse: when another daemon serves this data directory.
        DirectoryInvalid, FormatTooNew: when it is not a directory that this version can serve.
        ConfigError: when a setting contradicts the directory, an address cannot be bound, or the users or certificates
            cannot be used.
    """
    settings = loaded.settings
    log.configure(settings.log_level, settings.log_format)
    check_locks(settings)
    os.umask(0o077)  # whatever the daemon makes is its owner's alone
    with contextlib.ExitStack() as stack:
        data = _prepare(settings.data)
        stack.callback(disk.lock_file(data / "LOCK").release)
        cores = cpus.allowed_cpus()
        wanted = cpus.pick_workers(settings.workers, min(len(cores), cpus.quota_cpus() or len(cores)))
        directory = _identity(data, settings, wanted)
        keyspaces = KeyspaceKeeper(data)
        workers = min(wanted, directory.shards)

        doors = stack.enter_context(listeners.Doors.opened(settings))
        pipes = listeners.PipesDirectory(data / "run")
        stack.callback(pipes.close)
        placed = cpus.place_workers(workers, cores)
        dealt = cpus.deal_shards(directory.shards, workers)

        now = monotonic_s()
        common = {"pipes_dir": pipes.address, "seed": directory.seed, "max_value_bytes": settings.max_value_bytes}
        common |= {"log_level": settings.log_level, "log_format": settings.log_format}
        router = Child(
            "router",
            "kio.router",
            _configure_router(settings, directory, doors) | {"keyspaces": keyspaces.places} | common,
            Lifecycle(now=now, breaks=False),
        )
        supervisor = Supervisor(
            router,
            [
                Worker(
                    f"worker {number}",
                    "kio.workers",
                    _configure_worker(settings, directory, data, number, placed[number], dealt[number]) | common,
                    Lifecycle(now=now),
                    number=number,
                    cpu=placed[number],
                    shards=dealt[number],
                )
                for number in range(workers)
            ],
            doors,
            pipes,
            lambda: check_locks(settings),
            keyspaces.swap,
            {name: os.fspath(value) if isinstance(value, Path) else value for name, value in settings.items()},
        )
        stack.enter_context(_announced(pipes.path / "daemon.json", doors))
        banner.started(settings, doors, workers, directory.shards, placed)
        return supervisor.run()


def check_locks(settings: config.Settings) -> None:
    """Look whether users and certificates can be used; the router reads them itself.

    Raises:
        ConfigError: when they cannot, or somebody would come in without a password where that is not allowed.
    """
    access = Access.load(Path(settings.users_file) if settings.users_file else None)
    access.protect(is_exposed=settings.is_exposed, is_protected=settings.protected_mode)
    made_of(_tls_files(settings))


def _tls_files(settings: config.Settings) -> dict[str, str] | None:
    if not settings.tls_cert_file:
        return None
    return {
        "cert_file": settings.tls_cert_file,
        "key_file": settings.tls_key_file,
        "ca_file": settings.tls_ca_file,
        "min_version": settings.tls_min_version,
    }


def _prepare(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.resolve(strict=True)
    except OSError as error:
        raise DirectoryInvalid(f"data directory {path} cannot be made or entered: {error.strerror}") from error


def _identity(data: Path, settings: config.Settings, workers: int) -> identity.DirectoryIdentity:
    directory, is_new = identity.create_or_load(data, settings.shards or workers)
    if settings.shards not in (0, directory.shards):
        raise ConfigError(
            f"shards is {settings.shards}, but {data} has {directory.shards}; leave shards out, or run "
            f'"kio reshard {data} --shards {settings.shards}" first'
        )
    if is_new:
        _log.info("data directory made", data=data, shards=directory.shards)
    try:
        for path in identity.remove_leftovers(data, directory):
            _log.info("leftover of a reshard removed", directory=path)
    except OSError as error:
        _log.warning("leftover of a reshard not removed", reason=error)
    return directory


def _configure_worker(
    settings: config.Settings,
    directory: identity.DirectoryIdentity,
    data: Path,
    number: int,
    cpu: int,
    shards: list[int],
) -> dict[str, Any]:
    return {
        "type": "configure",
        "worker": number,
        "cpu": cpu,
        "shards": shards,
        "data": os.fspath(data),
        "directory_id": directory.directory_id,
        "sync": settings.sync,
        "sync_interval_ms": settings.sync_interval_ms,
        "segment_bytes": settings.segment_mib * MIB,
        "space_amplification": settings.space_amplification,
        "dead_ratio": settings.dead_ratio,
        "checkpoint_interval_s": settings.checkpoint_interval_s,
        "open_segments": settings.open_segments,
        "memory_bytes_max": settings.max_memory_mib * MIB // directory.shards,
    }


def _configure_router(
    settings: config.Settings, directory: identity.DirectoryIdentity, doors: listeners.Doors
) -> dict[str, Any]:
    return {
        "type": "configure",
        "shards": directory.shards,
        "listeners": doors.inherited,
        "server": f"kio/{__version__}",
        "resp_port": doors.ports["resp"],
        "settings": {
            "data": os.fspath(settings.data),
            "host": settings.host,
            "sync": settings.sync,
            "max_memory_mib": settings.max_memory_mib,
            "idle_timeout_s": settings.idle_timeout_s,
            "debug_commands": settings.debug_commands,
        },
        "users_file": settings.users_file,
        "is_exposed": settings.is_exposed,
        "protected_mode": settings.protected_mode,
        "tls": _tls_files(settings),
        "idle_timeout_s": settings.idle_timeout_s,
        "client_requests_per_s": settings.client_requests_per_s,
        "max_connections": settings.max_connections,
        "shard_operations_max": limits.SHARD_OPERATIONS_MAX,
        "shard_bytes_max": limits.SHARD_BYTES_MAX,
    }


@contextlib.contextmanager
def _announced(path: Path, doors: listeners.Doors) -> Iterator[None]:
    """DATA/run/daemon.json, by which a program that knows the directory finds the ports; it is there while we serve."""
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps({"pid": os.getpid(), "url": doors.url, "http": doors.http_url}) + "\n")
    partial.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


class Supervisor:
    """The loop over the children's control sockets, the signals and the timers.

    Args:
        router, workers: the children to run, none of them started.
        doors: the listening sockets.
        pipes: where pipes are bound.
        check_locks: raises ConfigError when the users or the certificates cannot be used.
        swap: does what a router's `swap` asks for; gives the answer to it.
        settings: the effective settings, as status shows them.
    """

    def __init__(
        self,
        router: Child,
        workers: Sequence[Worker],
        doors: listeners.Doors,
        pipes: listeners.PipesDirectory,
        check_locks: Callable[[], None],
        swap: Callable[[control.Message], control.Message],
        settings: Mapping[str, Any],
    ) -> None:
        # Set once.
        self._doors = doors
        self._pipes = pipes
        self._check_locks = check_locks
        self._settings = settings
        self._check = f"kio check {settings['data']}"
        self._notifier = Notifier(os.environ)
        self._memory = control.ResidentMemory()
        self._started_at = monotonic_s()
        self._selector = selectors.DefaultSelector()
        self._fleet = Fleet(router, workers, self._spawn, self._unwatch, pipes.remove, self._check, swap)
        self._signal_fd, self._signal_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._admin = AdminDoor(doors.http)
        # Changed by the loop.
        #: The children whose control sockets are watched.
        self._processes: dict[Child, ChildProcess] = {}
        self._is_stopping = False
        self._is_ready = False
        self._changes_published = -1
        self._topology_at = 0.0
        self._watchdog_at = 0.0

    def run(self) -> int:
        """Serve until told to stop, and until every child has ended; the exit code."""
        with self._signals(), self._admin:
            self._selector.register(self._signal_fd, selectors.EVENT_READ)
            try:
                while not (self._is_stopping and self._fleet.is_stopped):
                    self._turn()
            finally:
                self._fleet.kill()
        _log.info("kio serve: stopped", uptime_s=round(monotonic_s() - self._started_at, 1))
        self._notifier.close()
        self._selector.close()
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Every signal becomes a byte that wakes the loop; afterwards there is nothing left to stop."""
        for number in (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._signal_write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            for number in (*_STOP_SIGNALS, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
            os.close(self._signal_fd)
            os.close(self._signal_write_fd)

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout_s()):
            if key.data is None:
                self._take_signals()
            else:
                self._fleet.receive(key.data, monotonic_s())
        now = monotonic_s()
        self._fleet.turn(now)
        for process in self._processes.values():
            process.flush()
        self._publish(now)
        if self._notifier.watchdog_s is not None and now >= self._watchdog_at:
            self._watchdog_at = now + self._notifier.watchdog_s
            self._notifier.watchdog()

    def _timeout_s(self) -> float:
        if any(process.has_unsent for process in self._processes.values()):
            return UNSENT_TURN_S
        now = monotonic_s()
        times = [now + TURN_S]
        if self._notifier.watchdog_s is not None:
            times.append(self._watchdog_at)
        wake_at = self._fleet.wake_at()
        if wake_at is not None:
            times.append(wake_at)
        return max(0.0, min(times) - now)

    def _take_signals(self) -> None:
        now = monotonic_s()
        numbers = os.read(self._signal_fd, 64)
        if signal.SIGCHLD in numbers:
            self._fleet.reap(now)
        if signal.SIGHUP in numbers:
            self._reload()
        for number in numbers:
            if number in _STOP_SIGNALS:
                _log.info("kio serve: stop", signal=signal.Signals(number).name)
                self._is_stopping = True
                self._notifier.stopping()
                self._fleet.stop(now)

    def _reload(self) -> None:
        """Have the router read users and certificates anew; where they cannot be used, all stays as it is."""
        try:
            self._check_locks()
        except ConfigError as error:
            _log.error("reload refused", reason=error)
            return
        _log.info("reload")
        if self._fleet.router.process is not None:
            self._fleet.router.process.post({"type": "reload"})

    # --- children

    def _spawn(self, child: Child) -> ChildProcess:
        inherited = list(self._pipes.inherited_fds)
        if child is self._fleet.router:
            inherited += [door["fd"] for door in self._doors.inherited]
        process = ChildProcess(child.module, inherited, os.environ)
        self._processes[child] = process
        self._selector.register(process.control, selectors.EVENT_READ, child)
        return process

    def _unwatch(self, child: Child) -> None:
        self._selector.unregister(self._processes.pop(child).control)

    # --- what others see

    def _publish(self, now: float) -> None:
        fleet = self._fleet
        facts = topology(
            fleet,
            version=__version__,
            supervisor={
                "pid": os.getpid(),
                "uptime_s": round(now - self._started_at, 3),
                "rss_bytes": self._memory.measure(),
                "cpu_s": time.process_time(),
            },
            ports=self._doors.ports,
            settings=self._settings,
        )
        self._admin.publish(snapshot(fleet, facts), now)
        is_changed = fleet.changes != self._changes_published
        if not is_changed and now < self._topology_at:
            return
        self._topology_at = now + TOPOLOGY_INTERVAL_S
        self._changes_published = fleet.changes
        if fleet.router.process is not None:
            fleet.router.process.post({"type": "topology", "status": facts})
        if is_changed:
            self._tell_state()

    def _tell_state(self) -> None:
        if self._is_stopping or not self._fleet.is_settled:
            return
        down = [shard["shard"] for shard in self._admin.snapshot.not_serving() if "shard" in shard]
        shards = len(self._admin.snapshot.shards)
        status = f"serving {shards - len(down)} of {shards} shards at {self._doors.url}"
        if self._is_ready:
            self._notifier.status(status)
            return
        self._is_ready = True
        self._notifier.ready(status)
        banner.ready(self._doors, shards, down, monotonic_s() - self._started_at, self._check)
