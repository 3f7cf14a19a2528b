"""One real daemon under test: start it, find its processes, hurt them, stop it, and prove that nothing is left.

Owns: a data directory that is new unless one is given, the child `kio serve`, and the file of what it wrote to stderr.
Only public interfaces: the flags, the start line, the admin HTTP door, the wire protocol, the CLI.
Every wait has a limit. On the way out the daemon is stopped, every process that it ever started must be gone (they are
known by a variable in their environment, so that an orphan is found too), and the directory is removed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import pytest

from tests.cluster.rawwire import STATS, Wire

ROOT: Final = Path(__file__).resolve().parents[2]
FULL: Final = os.environ.get("FULL") == "1"
#: Names the processes of one daemon; anything in the environment but KIO_*, which is for settings.
MARK: Final = "DAEMON_UNDER_TEST"
READY_S: Final = 20.0
STOP_S: Final = 10.0
#: After the supervisor's death no process may remain for longer than this.
ORPHAN_S: Final = 2.0
SERVING: Final = "serving"

#: The durability of a daemon under test; in the long runs also the mode that is "interval" without its syncs.
SYNC_MODES: Final = ("always", "interval", pytest.param("os", marks=pytest.mark.stress))

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])


def scaled(test: Test) -> Test:
    """Decorator: with FULL=1 the test takes the counts of the acceptance list, and so belongs to the stress runs."""
    marked: Test = pytest.mark.stress(test) if FULL else test
    return marked


def wait_until(condition: Callable[[], T], limit_s: float, what: str | Callable[[], str], every_s: float = 0.01) -> T:
    """The first true result of `condition`, asked again and again.

    Raises:
        AssertionError: when it was not true within `limit_s`; the message says `what` was awaited, asked for then.
    """
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(f"waited {limit_s:g} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(every_s)


def environment(**more: str) -> dict[str, str]:
    """The environment of children: no KIO_* from outside, the project importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIO_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def run_cli(
    *arguments: str | Path, url: str = "", limit_s: float = 30.0, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """`kio ARGUMENTS`, waited for; `url` goes into KIO_URL."""
    done = subprocess.run(
        [sys.executable, "-m", "kio", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**({"KIO_URL": url} if url else {})),
        capture_output=True,
        timeout=limit_s,
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"kio {' '.join(map(str, arguments))} exited {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
    )
    return done


class Daemon:
    """A `kio serve` of its own, ready when the `with` block begins.

    Args:
        data: the data directory; None makes one and removes it at the end.
        await_ready: False returns as soon as the ports are known (for shards that will never serve).
        own_group: make it the leader of a process group, as a terminal's foreground job is.
        wrapper: a command that runs `kio serve` by exec, in a namespace of its own, say.
        flags: further flags of `kio serve`.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        workers: int = 2,
        shards: int | None = None,
        sync: str = "interval",
        await_ready: bool = True,
        own_group: bool = False,
        wrapper: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="kio-test-"))
        self.data = data if data is not None else self.home / "data"
        self.workers = workers
        self.shards = shards
        self.sync = sync
        self.flags = list(flags)
        #: kio://HOST:PORT, kios: where there is TLS; the port is any free one at first and the same after each restart.
        self.url = ""
        self.http = ""
        self.log = self.home / "stderr"
        self._await_ready = await_ready
        self._own_group = own_group
        self._wrapper = list(wrapper)
        self._mark = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._show_log()
            self._give_up()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.is_running():
                self.stop()
            if kind is not None:
                self._show_log()
        finally:
            self._give_up()

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        assert self._process is None
        port = urlsplit(self.url).port or 0
        self._mark = uuid.uuid4().hex
        shards = [] if self.shards is None else ["--shards", str(self.shards)]
        with self.log.open("ab") as log:
            offset = log.tell()
            self._process = subprocess.Popen(
                [
                    *self._wrapper,
                    *(sys.executable, "-m", "kio", "serve", "--data", str(self.data)),
                    *("--port", str(port), "--http-port", "0", "--resp-port", "0", "--workers", str(self.workers)),
                    *("--sync", self.sync, *shards, *self.flags),
                ],
                cwd=ROOT,
                env=environment(**{MARK: self._mark}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                process_group=0 if self._own_group else None,
            )
        self.url = self._announced(rb"\burl=(kios?://[^\s\"]+)", offset)
        self.http = self._announced(rb"\bhttp=(http://[^\s\"]+)", offset)
        if self._await_ready:
            wait_until(self.is_ready, READY_S, f"/readyz of {self.http}", 0.02)

    def _announced(self, pattern: bytes, offset: int) -> str:
        def look() -> str:
            # A line that is being written may be seen in part.
            whole, _, _ = self.log.read_bytes()[offset:].rpartition(b"\n")
            found = re.search(pattern, whole)
            if found is None and not self.is_running():
                raise AssertionError(f"the daemon exited {self.exit_code()} before it was ready:\n{self.log_tail()}")
            return found[1].decode() if found else ""

        return wait_until(look, READY_S, f"{pattern!r} on stderr")

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """The exit code of the last start; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, limit_s: float = STOP_S) -> float:
        """SIGTERM; it must exit 0 within the limit and leave no process. The seconds it took."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.await_stopped(limit_s)

    def await_stopped(self, limit_s: float = STOP_S) -> float:
        """Wait for the end of an ordered stop that was asked for; as `stop`."""
        assert self._process is not None
        began = time.monotonic()
        code = self._process.wait(limit_s)
        took = time.monotonic() - began
        assert code == 0, f"exit code {code} after the stop; it wrote:\n{self.log_tail()}"
        self._process = None
        self.assert_nothing_left(0.2)
        return took

    def kill_supervisor(self) -> None:
        """SIGKILL of the supervisor alone, reaped; its children are on their own."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_S)
        self._process = None

    def kill_everything(self) -> None:
        """SIGKILL of all processes at one moment: stopped first, so that none sees another die."""
        assert self._process is not None
        pids = self.pids()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._process.wait(STOP_S)
        self._process = None
        self.assert_nothing_left(ORPHAN_S)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """All its processes are stopped as long as the block runs."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def restart(self, *, await_ready: bool = True) -> None:
        """Start again on the same directory and port, after a stop or a kill."""
        self._await_ready = await_ready
        self.start()

    def assert_nothing_left(self, limit_s: float = ORPHAN_S) -> None:
        wait_until(lambda: not self.pids(), limit_s, lambda: f"the end of all processes; left are {self._describe()}")

    def _describe(self) -> str:
        return "; ".join(f"{pid} {command_of(pid)}" for pid in self.pids())

    def _show_log(self) -> None:
        print(f"--- the daemon wrote last:\n{self.log_tail()}")

    def _give_up(self) -> None:
        for pid in self.pids() if self._mark else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    # ------------------------------------------------------------------ what it says

    def is_ready(self) -> bool:
        return self.http_get("/readyz")[0] == 200

    def http_get(self, path: str, limit_s: float = 5.0) -> tuple[int, bytes]:
        """(status, body) of the admin HTTP door; status 0 when it cannot be reached."""
        parts = urlsplit(self.http)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=limit_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """What `kio status --json` shows, over the wire."""
        with Wire(self.url) as wire:
            status: dict[str, Any] = wire.call(STATS)
        return status

    def shard_stats(self) -> dict[int, dict[str, Any]]:
        """Per shard: keys, lsn, state and so on."""
        return {stats["shard"]: stats for stats in self.status()["shards"]}

    def log_tail(self, lines: int = 60) -> str:
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def cli(
        self, *arguments: str | Path, limit_s: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """`kio ARGUMENTS` against this daemon."""
        return run_cli(*arguments, url=self.url, limit_s=limit_s, check=check)

    def cli_status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return status

    # ------------------------------------------------------------------ its processes

    @property
    def supervisor(self) -> int:
        assert self._process is not None
        return self._process.pid

    def worker_pid(self, worker: int) -> int:
        """The process of a worker; while it is being started again, that is awaited."""
        return wait_until(lambda: int(self._worker(worker)["pid"] or 0), READY_S, f"a process of worker {worker}")

    def router_pid(self) -> int:
        return int(self.status()["router"]["pid"])

    def worker_of(self, shard: int) -> int:
        """The number of the worker that owns the shard."""
        return next(int(w["worker"]) for w in self.status()["workers"] if shard in w["shards"])

    def shards_of(self, worker: int) -> list[int]:
        return sorted(self._worker(worker)["shards"])

    def _worker(self, worker: int) -> dict[str, Any]:
        return next(w for w in self.status()["workers"] if w["worker"] == worker)

    def pids(self) -> list[int]:
        """Every process of this daemon that is alive, whoever its parent is by now."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") and state_of(int(entry)) != "Z":
                        found.append(int(entry))
        return sorted(found)

    def rss_mib(self) -> dict[int, float]:
        """Resident memory of each process."""
        return {pid: rss_mib(pid) for pid in self.pids()}

    def descriptors(self) -> dict[int, int]:
        """Open descriptors of each process."""
        return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids()}


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat: R, S, D, T, Z; X where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    resident_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "?"
