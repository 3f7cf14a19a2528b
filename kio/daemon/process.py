"""One child process: how it is spawned, what is sent to it, how it ends.

Children are spawned by exec, never by a bare fork, and from the main thread only: PR_SET_PDEATHSIG follows the thread
that started the child. They get their own process group (the terminal's Ctrl-C is the supervisor's to translate),
/dev/null as stdin, the descriptors they are told of and no others, and an environment without the daemon's own
variables. One session holds them all: a kernel that shares the cores out by session would let the busiest of several
keep the others waiting for tens of milliseconds.

Messages that the child does not take yet wait here; the supervisor never blocks on a child, and one that lets
UNSENT_MESSAGES_MAX pile up is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import kio
from kio import control

#: What a child gets of the environment is everything but these: it is configured by its control socket alone.
WITHHELD_PREFIX: Final = "KIO_"
#: Where this kio is imported from.
ROOT: Final = Path(kio.__file__).resolve().parents[1]
UNSENT_MESSAGES_MAX: Final = 1_000


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child gets of `environ`: all but the daemon's settings, and the kio that this process runs comes first."""
    kept = {name: value for name, value in environ.items() if not name.startswith(WITHHELD_PREFIX)}
    path = [os.fspath(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


class ChildProcess:
    """A running child and the supervisor's end of its control socket.

    Args:
        module: what to run, as in `python -m`.
        inherited_fds: descriptors the child gets under the same numbers, beside its control socket.
        environ: the supervisor's environment.

    Raises:
        OSError: from the constructor, when the process cannot be started.

    Attributes:
        kill_at: when it is to be killed if it still runs (monotonic seconds); None is never.
    """

    def __init__(self, module: str, inherited_fds: Sequence[int], environ: Mapping[str, str]) -> None:
        self.control, theirs = control.control_pair()
        try:
            # -P: the directory that `kio serve` was started in is no place to import from.
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module, "--control-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=(theirs.fileno(), *inherited_fds),
                process_group=0,
                env=child_environment(environ),
            )
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()
        self.kill_at: float | None = None
        self._unsent: deque[control.Message] = deque()
        self._is_lost = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def has_unsent(self) -> bool:
        """Whether messages wait for the child to read."""
        return bool(self._unsent)

    def post(self, message: control.Message) -> None:
        """Send `message`, now or when the child reads; of waiting topologies only the last is kept."""
        if self._is_lost:
            return
        if self._unsent:
            if message["type"] == "topology" and self._unsent[-1]["type"] == "topology":
                self._unsent[-1] = message
                return
        elif control.send(self.control, message):
            return
        self._unsent.append(message)
        if len(self._unsent) > UNSENT_MESSAGES_MAX:
            self.kill()

    def flush(self) -> None:
        """Send what waits, as far as the child takes it."""
        while self._unsent and control.send(self.control, self._unsent[0]):
            self._unsent.popleft()

    def receive(self) -> control.Message | None:
        """One message, or None at end of file: the child is gone, or going.

        Raises:
            BlockingIOError: when nothing has come.
        """
        message = control.receive(self.control)
        if message is None:
            self._is_lost = True
            self._unsent.clear()
        return message

    def poll(self) -> int | None:
        """Its exit code (the negative signal's number when it was killed), or None while it runs. Reaps it."""
        return self._popen.poll()

    def kill(self) -> None:
        """SIGKILL. A process that was reaped is left alone."""
        self._popen.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the control socket; a child that still runs ends by it."""
        self.control.close()
