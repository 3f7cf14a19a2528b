"""Several writers at once, and the verdict over all of them.

    with Load(daemon, clients=4, seed=7) as load:
        load.await_acks(200)
        ... a fault ...
        load.await_acks(200)
    load.assert_nothing_lost(daemon)

The writers are processes of their own (writer.py); what they know stands in their journals. `Load` counts
acknowledgements by reading those files as they grow, so that a test waits for work done, never for time.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

import kio
from tests.cluster.daemon import ROOT, Daemon, environment, wait_until
from tests.cluster.oracle import Verdict, read_journals
from tests.cluster.writer import FADES_S, TIMEOUT_S

KEYS_EACH: Final = 40
#: So long after the last write everything that fades has gone: its time, and some for the clock and the sweeper.
FADED_S: Final = FADES_S + 1.5


class Load:
    """Writers that run while the block does.

    Args:
        daemon: its `home` holds the journals, so they go when it goes.
        clients: writing processes, each with its own keys.
        seed: what they do follows from it, up to timing.
    """

    def __init__(self, daemon: Daemon, *, clients: int = 4, seed: int = 0, keys_each: int = KEYS_EACH) -> None:
        self.clients = clients
        self.seed = seed
        self.keys_each = keys_each
        self._home = daemon.home / "load"
        self._home.mkdir()
        self._url = daemon.url
        self.journals = [self._home / f"writer-{number}" for number in range(clients)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._offsets = [0] * clients
        self._acks = [0] * clients
        self._stopped_at = 0.0

    def __enter__(self) -> Self:
        for number, journal in enumerate(self.journals):
            with Path(f"{journal}.stderr").open("wb") as stderr:
                arguments = map(str, (self._url, journal, number, self.clients, self.keys_each, self.seed))
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.cluster.writer", *arguments],
                        cwd=ROOT,
                        env=environment(),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                    )
                )
        wait_until(lambda: all(map(Path.exists, self.journals)), 20, "the writers to begin")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        except BaseException:
            if kind is None:
                raise
        finally:
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()

    def stop(self) -> None:
        """Let each finish what it has begun; it must end by itself."""
        for process in self._processes:
            process.terminate()
        for process, journal in zip(self._processes, self.journals, strict=True):
            code = process.wait(TIMEOUT_S * 3)
            assert code == 0, f"a writer exited {code}: {Path(f'{journal}.stderr').read_text()[-2000:]}"
        self._stopped_at = time.monotonic()

    def acks(self) -> int:
        """Acknowledged writes until now, of all clients."""
        for number, journal in enumerate(self.journals):
            if journal.exists():
                with journal.open("rb") as file:
                    file.seek(self._offsets[number])
                    new = file.read()
                whole = new[: new.rfind(b"\n") + 1]
                self._offsets[number] += len(whole)
                self._acks[number] += sum(line.startswith(b"A\t") for line in whole.splitlines())
        return sum(self._acks)

    def await_acks(self, more: int, limit_s: float = 20.0) -> int:
        """Wait until `more` writes were acknowledged from now on; the total."""
        target = self.acks() + more
        wait_until(lambda: self.acks() >= target, limit_s, lambda: f"{more} more acknowledged writes; {self.tails()}")
        return self.acks()

    def tails(self) -> str:
        """The last lines of each journal and of each writer's stderr."""
        shown = [Path(f"{journal}{suffix}") for journal in self.journals for suffix in ("", ".stderr")]
        return "\n".join(f"{path.name}: {path.read_text()[-300:]}" for path in shown if path.exists())

    def verdict(self, url: str) -> Verdict:
        """What the journals say, compared with everything that the daemon at `url` holds, read in two ways."""
        verdict = read_journals(self.journals)
        time.sleep(max(0.0, self._stopped_at + FADED_S - time.monotonic()))
        with kio.connect(url, timeout=TIMEOUT_S) as db:
            asked = db.get_many(list(verdict.states))
            scanned = dict(db.items())
            counted = db.count()
        verdict.judge(asked, has_faded=True)
        verdict.judge(scanned, has_faded=True)
        if counted != len(scanned):
            verdict.violations.append(f"count says {counted} keys, a scan finds {len(scanned)}")
        return verdict

    def assert_nothing_lost(self, daemon: Daemon, repeat: str, acked_min: int = 1) -> Verdict:
        """All writers stopped: every acknowledged write is there, and nothing that nobody wrote."""
        verdict = self.verdict(daemon.url)
        assert not verdict.violations, f"{verdict}\nrepeat with: {repeat}"
        assert verdict.acked >= acked_min, f"only {verdict}; the test proves nothing\nrepeat with: {repeat}"
        return verdict
