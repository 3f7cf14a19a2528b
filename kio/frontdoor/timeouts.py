"""When a connection is to be closed since it did not do something for too long.

Sans-I/O: the time is handed in; the door asks for some connections at a time, and closes them.
"""

from __future__ import annotations

from typing import Final

from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.connections import Connection
from kio.frontdoor.resp.runner import Runner

#: How long a connection that was told its last may take to close its side.
PART_TIMEOUT_S: Final = 1.0
#: The reason that is no fault of anybody.
IDLE: Final = "it asked nothing"


class Timeouts:
    """The timeouts of one door.

    Args:
        dispatch: what knows of frames, requests and hellos.
        runner: what knows who has said who he is over RESP; None where there is no RESP.
        hello_s: until a connection has said who it is.
        stall_s: without progress, of half a frame or of replies.
        idle_s: without a request, whatever comes; 0 is for ever.
    """

    def __init__(
        self, dispatch: Dispatch, runner: Runner | None, hello_s: float, stall_s: float, idle_s: float
    ) -> None:
        self._dispatch = dispatch
        self._runner = runner
        self._hello_s = hello_s
        self._stall_s = stall_s
        self._idle_s = idle_s

    def pick(self, connection: Connection, now: float, *, is_unsent: bool) -> str | None:
        """Why the connection is to be closed, if it is.

        Args:
            is_unsent: whether there are replies that the socket did not take.
        """
        if connection.parted_at is not None:
            return "it was told its last" if now - connection.parted_at > PART_TIMEOUT_S else None
        reason = self._greet_in_time(connection, now)
        if reason is not None:
            return reason
        if is_unsent:
            return "it does not read its replies" if now - connection.sent_at > self._stall_s else None
        if now - connection.read_at > self._stall_s and self._dispatch.has_half_frame(connection.id):
            return "it stopped within a frame"
        return IDLE if self._idle_s and self._is_idle(connection, now) else None

    def _greet_in_time(self, connection: Connection, now: float) -> str | None:
        if now - connection.opened_at > self._hello_s:
            if not self._dispatch.is_greeted(connection.id):
                return "it sent no hello"
            if connection.tls is not None and not connection.tls.is_established:
                return "it did not finish the TLS handshake"
        stranger_s = self._runner.stranger_since(connection.id) if self._runner is not None else None
        if stranger_s is not None and now - stranger_s > self._hello_s:
            return "it did not say who it is"
        return None

    def _is_idle(self, connection: Connection, now: float) -> bool:
        # Bytes that are no request do not count.
        taken = self._dispatch.taken(connection.id)
        requests, _ = self._dispatch.in_flight(connection.id)
        if taken != connection.taken or requests or self._dispatch.is_paused(connection.id):
            connection.taken, connection.active_at = taken, now
        return now - connection.active_at > self._idle_s
