"""One connection of the blocking client: a socket, its protocol machine, and the exchange of frames over them.

Owns: the socket, in non-blocking mode; used by one thread at a time.
Invariants:
  * while frames are still to be sent, replies are read as well, so that the two sides can never wait for each other;
  * a channel whose replies were not all read is broken, and a broken one is closed: it never serves another call.
"""

from __future__ import annotations

import math
import select
import socket
import struct
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from kio.client.options import Options, is_of_tls, reason, unreachable
from kio.client.protocol import Limits, Protocol, Reply, Request
from kio.client.retry import Deadline, own_error
from kio.client.window import Window
from kio.errors import ConnectionLost, KioError, ProtocolError, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from kio.client.secure import SecureSocket

    Connected = socket.socket | SecureSocket

#: Buffers that one sendmsg takes; the kernel's bound is 1024.
SEND_BUFFERS_MAX: Final = 256
#: struct linger: on, for no time at all.
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Channel:
    """A connection that has been greeted, or is broken."""

    def __init__(self, options: Options, deadline: Deadline) -> None:
        """Connect and greet, by `deadline` and within the options' `connect_timeout`.

        Raises:
            ConnectionLost: when nothing answers there.
            Timeout: when `deadline` passed before the daemon answered.
            ProtocolError: when what answers is not kio, or speaks no version that this client knows.
        """
        self._url = options.url
        self._protocol = Protocol(options.user, options.password)
        self.is_broken = False
        by = deadline.sooner(options.connect_timeout)
        self._socket, self._has_pending = _connect(options, by)
        self._poll = select.poll()
        try:
            self._socket.setblocking(False)
            self._poll.register(self._socket, select.POLLIN)
            self._greet(by)
        except Timeout:
            self.close()
            if by is deadline:
                raise
            message = f"{options.url} accepts connections but did not answer within {options.connect_timeout:g} s"
            raise ConnectionLost(message) from None
        except BaseException:
            self.close()
            raise

    @property
    def limits(self) -> Limits:
        """What the daemon told in its hello."""
        return self._protocol.limits

    def close(self) -> None:
        """Close the socket; in a forked child this leaves the parent's connection as it is."""
        self.is_broken = True
        self._socket.close()

    def abort(self) -> None:
        """Close the socket and take back what the daemon has not read yet, as far as a reset does.

        A write that was given up must not be found in the daemon's receive queue after a later write of the same key,
        which may have come over another connection.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def is_stale(self) -> bool:
        """Whether an idle channel has something to read: the daemon closed it, or talks out of turn."""
        return self._has_pending() or bool(self._poll.poll(0))

    def exchange(self, requests: list[Request], deadline: Deadline) -> list[Reply]:
        """Send `requests` in order, a window's worth at a time; their replies, in order.

        Raises nothing for what can happen to a connection: requests it cost their reply get a Reply with the error, and
        `is_broken` is true then.
        """
        replies: list[Reply | None] = [None] * len(requests)
        waiting: dict[int, tuple[int, int]] = {}
        try:
            self._exchange(requests, replies, waiting, deadline)
        except (KioError, OSError) as caught:
            self.abort()
            error = self._lost(caught) if not isinstance(caught, KioError) else caught
            sent = {place for place, _ in waiting.values()}
            for place, reply in enumerate(replies):
                if reply is None:
                    has_effect = place in sent and requests[place].is_write
                    replies[place] = Reply(error=own_error(error, has_effect))
        except BaseException:
            self.abort()
            raise
        return [reply for reply in replies if reply is not None]

    def _exchange(
        self,
        requests: list[Request],
        replies: list[Reply | None],
        waiting: dict[int, tuple[int, int]],
        deadline: Deadline,
    ) -> None:
        """Fill in `replies`; `waiting` holds id -> (place, frame bytes) of what is under way when this raises."""
        window = Window()
        unsent: deque[memoryview] = deque()
        place = 0
        while place < len(requests) or waiting:
            while place < len(requests) and window.has_room:
                try:
                    id_, frame = self._protocol.send(requests[place], deadline.left_ms())
                except KioError as error:
                    replies[place] = Reply(error=error)
                else:
                    waiting[id_] = (place, len(frame))
                    window.add(requests[place], len(frame))
                    unsent.append(memoryview(frame))
                place += 1
            if unsent:
                self._send(unsent)
            if not waiting:
                continue
            for id_, reply in self._receive(bool(unsent), deadline):
                at, frame_bytes = waiting.pop(id_)
                replies[at] = reply
                window.remove(requests[at], frame_bytes)

    def _send(self, unsent: deque[memoryview]) -> None:
        """Send what the socket takes now."""
        try:
            sent = self._socket.sendmsg(list(islice(unsent, SEND_BUFFERS_MAX)), (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        while sent:
            first = unsent[0]
            if sent < len(first):
                unsent[0] = first[sent:]
                return
            sent -= len(first)
            unsent.popleft()

    def _receive(self, wants_to_send: bool, deadline: Deadline) -> list[tuple[int, Reply]]:
        """Wait until the socket can do something; the replies that have come, if any."""
        left_s = deadline.left_s()
        if left_s <= 0:
            raise Timeout(f"{self._url} did not answer in time")
        if not self._has_pending():
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT if wants_to_send else select.POLLIN)
            events = self._poll.poll(None if left_s == math.inf else math.ceil(left_s * 1000))
            if not events:
                raise Timeout(f"{self._url} did not answer in time")
            if events[0][1] == select.POLLOUT:
                return []
        try:
            count = self._socket.recv_into(self._protocol.buffer())
        except BlockingIOError:
            return []
        if count == 0:
            raise ConnectionLost(f"{self._url} closed the connection")
        return self._protocol.received(count)

    def _greet(self, deadline: Deadline) -> None:
        unsent = deque([memoryview(self._protocol.hello())])
        try:
            while not self._protocol.is_greeted:
                if unsent:
                    self._send(unsent)
                self._receive(bool(unsent), deadline)
        except OSError as error:
            if isinstance(error, KioError):
                raise
            if is_of_tls(error):  # with TLS 1.3 a server refuses a certificate only now
                raise ProtocolError(f"no TLS with {self._url}: {reason(error)}") from None
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self._url} broke: {reason(error)}")


def _connect(options: Options, deadline: Deadline) -> tuple[Connected, Callable[[], bool]]:
    """A connected socket, and what tells whether it holds bytes that no poll shows."""
    context = options.tls_context()
    seconds = max(0.001, min(deadline.left_s(), options.connect_timeout))
    try:
        if isinstance(options.address, tuple):
            connected = socket.create_connection(options.address, seconds)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if context is not None:
                from kio.client.secure import SecureSocket  # few clients need it

                try:
                    secure = SecureSocket(connected, context, options.address[0])
                except BaseException:
                    connected.close()
                    raise
                return secure, secure.pending
            return connected, _nothing
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(seconds)
            connected.connect(options.address)
        except BaseException:
            connected.close()
            raise
        return connected, _nothing
    except OSError as error:
        if isinstance(error, TimeoutError) and seconds < options.connect_timeout:
            raise Timeout(f"{options.url} did not accept the connection in time") from None
        raise unreachable(options, error) from None


def _nothing() -> bool:
    return False
