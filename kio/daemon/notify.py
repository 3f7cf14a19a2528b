"""What the daemon tells systemd: the protocol of sd_notify(3), a datagram of NAME=VALUE lines to $NOTIFY_SOCKET.

Without NOTIFY_SOCKET nothing is sent. A message that cannot be sent is dropped: systemd's own time-outs judge then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

#: Variables that are for the supervisor alone: a child must not speak for the service.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The notify socket of this process, taken out of `environ`.

    Attributes:
        watchdog_s: how often `watchdog` is to be called, half of what systemd allows; None where it does not watch.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address, usec, pid = (environ.pop(name, "") for name in VARIABLES)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        is_watched = bool(address) and usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 2e6 if is_watched else None

    def ready(self, status: str) -> None:
        """Every shard was tried and the doors are open."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def watchdog(self) -> None:
        """The loop turns."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """An ordered stop has begun."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def close(self) -> None:
        """Close the socket; nothing is sent after it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
