"""The door: listeners, connections, and what a turn of the loop reads and sends.

Owns: the accepted sockets and the shared read buffer; the listening sockets are handed in, already bound, and closed
here.
A turn is: the owner's `poller.poll` calls the handlers here, which read; then `turn` hands the batches to the backend,
sends every connection's output once, and lets paused connections go on.
Invariants:
  * a connection takes at most READS_PER_TURN reads a turn and its share of the time (Dispatch), so that one that never
    stops does not starve the others;
  * a connection that Dispatch has paused is not read; one whose output did not fit is watched for room, no other is;
  * no handler blocks, and no error of one connection reaches another;
  * where there is TLS, nothing leaves a TCP port in plain text; Unix sockets are always plain.
Ends of a connection: the peer closes; no hello, no end of the TLS handshake, or where everybody has to say who he is no
AUTH, within HELLO_TIMEOUT_S; half a frame, or replies nobody reads, without progress for STALL_TIMEOUT_S; no request
for idle_timeout_s; its user is gone; bytes that are not the protocol: those are answered, and it parts (`_part`).
Crash: the supervisor keeps the listening sockets, clients see their connection break.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Protocol

import msgpack

from kio import limits, log
from kio.access import Access, Right, User
from kio.clock import monotonic_s
from kio.errors import KioError, NotPermitted, Overloaded, ProtocolError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.connections import Connection, peer_of, send_last, tune
from kio.frontdoor.doorkeeper import Doorkeeper
from kio.frontdoor.events import Asked, Dropped, Event, Gathered, Refused
from kio.frontdoor.greeting import Admitted, Greeting
from kio.frontdoor.poller import BROKEN, READABLE, WRITABLE, Poller
from kio.frontdoor.resp.runner import Runner
from kio.frontdoor.resp.sessions import Session
from kio.frontdoor.timeouts import IDLE, Timeouts
from kio.frontdoor.tls import TlsStream
from kio.tls import ServerTls
from kio.wire import OP_HELLO, OP_PING, OP_SCAN, encode_frame

READ_BYTES: Final = 256 * limits.KIB
READS_PER_TURN: Final = 4
ACCEPTS_PER_TURN: Final = 64
#: How often deadlines are looked at while anything has one.
EXPIRE_INTERVAL_S: Final = 0.05
#: How often some connections are looked at for a timeout, and how many.
SWEEP_INTERVAL_S: Final = 0.1
SWEEP_CONNECTIONS: Final = 1_000
#: How long accepting rests when there is no descriptor or memory left for another connection.
ACCEPT_PAUSE_S: Final = 1.0

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_HTTP: Final = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"Host", b"CONN", b"PRI ")

_log = log.Log(__name__)


class RareOperations(Protocol):
    """Who answers the rare operations, through the Dispatch it shares with the door."""

    def asked(self, event: Asked) -> None:
        """A request came."""

    def gathered(self, event: Gathered) -> None:
        """A fan-out that was made for a request is complete."""

    def dropped(self, event: Dropped) -> None:
        """A request needs no answer any more."""


class Door:
    """The connections of one loop.

    Args:
        poller: the loop's; the door registers its sockets there.
        dispatch: the state of the door, shared with `rare`.
        listeners: bound and listening TCP and Unix sockets, of the native protocol.
        resp_listeners: the same, of RESP.
        submit: takes a batch for a shard, without blocking.
        rare: answers what is neither a key operation nor hello nor ping.
        runner: answers the commands of RESP that the kernel does not; None where there is no RESP.
        greeting: answers hellos.
        doorkeeper: who may come in; everybody, where there is none.
        tls: what TCP connections must speak; None: they are plain.
        connections_max: past this many, a connection is told Overloaded and closed.
        hello_timeout_s, stall_timeout_s, idle_timeout_s: see above; no idle_timeout_s (0) is for ever.

    Attributes:
        tls_faults: how many connections ended since what came was not TLS, or not of somebody who may come in.
    """

    def __init__(
        self,
        poller: Poller,
        dispatch: Dispatch,
        listeners: Iterable[socket.socket],
        submit: Callable[[int, bytes], None],
        rare: RareOperations,
        greeting: Greeting,
        *,
        resp_listeners: Iterable[socket.socket] = (),
        runner: Runner | None = None,
        doorkeeper: Doorkeeper | None = None,
        tls: ServerTls | None = None,
        connections_max: int = limits.CONNECTIONS_MAX,
        hello_timeout_s: float = limits.HELLO_TIMEOUT_S,
        stall_timeout_s: float = limits.STALL_TIMEOUT_S,
        idle_timeout_s: float = 0.0,
    ) -> None:
        # Set once.
        self._poller = poller
        self._dispatch = dispatch
        self._resp_listeners = list(resp_listeners)
        self._listeners = [*listeners, *self._resp_listeners]
        self._runner = runner
        self._submit = submit
        self._rare = rare
        self._greeting = greeting
        self._doorkeeper = doorkeeper or Doorkeeper(Access())
        self._tls = tls
        self._timeouts = Timeouts(dispatch, runner, hello_timeout_s, stall_timeout_s, idle_timeout_s)
        self._connections_max = connections_max
        self._buffer = bytearray(READ_BYTES)
        self._plain = bytearray(READ_BYTES if tls is not None else 0)
        self._repeats = log.Repeats(_log)
        # Changed by the loop.
        self._connections: dict[int, Connection] = {}
        self._unsent: set[Connection] = set()
        self._accept_again_at: float | None = None
        self._expire_at = 0.0
        self._sweep_at = 0.0
        self._sweep: Iterator[Connection] = iter(())
        self.tls_faults = 0
        #: Connections that a command wants closed; not while the kernel is in the middle of one.
        self._doomed: list[int] = []
        for listener in self._listeners:
            listener.setblocking(False)
            if listener.family != socket.AF_UNIX:
                tune(listener)
            self._watch(listener)

    def _watch(self, listener: socket.socket) -> None:
        self._poller.register(listener.fileno(), READABLE, lambda _: self._accept(listener))

    # --- a turn

    @property
    def wait_s(self) -> float:
        """How long `poll` may wait at most for the door's sake."""
        if self._dispatch.has_more:
            return 0.0
        return EXPIRE_INTERVAL_S if self._dispatch.has_deadlines else SWEEP_INTERVAL_S

    def turn(self) -> None:
        """Pass on what was read and delivered since the last call: events, batches, output, resumed connections."""
        dispatch = self._dispatch
        now = monotonic_s()
        now_ms = int(now * 1000)
        if now >= self._expire_at:
            self._expire_at = now + EXPIRE_INTERVAL_S
            dispatch.expire(now_ms)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL_S
            self._look_for_timeouts(now)
        goes_on = dispatch.has_more
        while True:
            while events := dispatch.take_events():
                for event in events:
                    self._handle(event)
            if self._doomed:
                self._close_doomed()
            for shard, batch in dispatch.take_batches():
                self._submit(shard, batch)
            for id in dispatch.outputs():
                connection = self._connections.get(id)
                if connection is not None:
                    self._send(connection, now)
            resumed = dispatch.resume(now_ms)
            if goes_on:
                goes_on = False
                resumed += dispatch.go_on(now_ms)
            for id in resumed:
                connection = self._connections[id]
                connection.read_at = now
                self._set_mask(connection, connection.mask | READABLE)
                if connection.tls is not None and not connection.tls.is_drained:
                    self._decrypt(connection, connection.tls, now)
            if not dispatch.has_news:
                return

    def deliver(self, replies: bytes | memoryview) -> None:
        """Take one replies message from the backend; a malformed one is logged and dropped."""
        try:
            self._dispatch.deliver(replies)
        except ProtocolError as error:
            self._repeats.warning("replies dropped", fault=str(error), bytes=len(replies))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Asked):
            if event.op == OP_HELLO:
                self._greet(event)
            elif event.op == OP_PING:
                self._dispatch.answer(event.handle, msgpack.packb(event.arguments[0]))
            else:
                self._ask(event)
        elif isinstance(event, Gathered):
            if self._runner is not None and self._runner.owns(event.handle):
                self._runner.gathered(event)
            else:
                self._rare.gathered(event)
        elif isinstance(event, Dropped):
            if self._runner is not None:
                self._runner.dropped(event.handle)
            self._rare.dropped(event)
        else:
            self._log_refused(event)

    def _greet(self, event: Asked) -> None:
        connection = self._connections.get(event.connection)
        if connection is None:
            return

        def admitted(outcome: Admitted) -> None:
            if isinstance(outcome, KioError):
                self._dispatch.fail(event.handle, outcome.code, str(outcome))
            elif connection.id in self._connections:
                hello, user = outcome
                self._admit(connection, user)
                self._dispatch.greet(event.handle, hello.answer, hello.version)

        self._greeting.admit(event.arguments[0], connection.host, self._doorkeeper, admitted)

    def _admit(self, connection: Connection, user: User) -> None:
        connection.user = user
        self._dispatch.limit(connection.id, user.may(Right.WRITE), user.prefixes)

    def _ask(self, event: Asked) -> None:
        connection = self._connections.get(event.connection)
        if connection is None or connection.user is None:
            return
        prefix = event.arguments[2] if event.op == OP_SCAN else None
        if connection.user.may_ask(event.op, prefix):
            self._rare.asked(event)
        else:
            self._dispatch.fail(event.handle, NotPermitted.code)

    def users_changed(self) -> None:
        """The users were read anew: each connection gets the rights of today, and those whose user is gone end."""
        gone = [] if self._runner is None else self._runner.users_changed()
        for connection in self._connections.values():
            if connection.user is not None:
                user = self._doorkeeper.access.current(connection.user)
                if user is None:
                    gone.append(connection.id)
                else:
                    self._admit(connection, user)
        for id in gone:
            self._repeats.warning("connection closed", fault="its user is gone", peer=self._connections[id].peer)
            self._close(self._connections[id])

    def _log_refused(self, event: Refused) -> None:
        connection = self._connections.get(event.connection)
        peer = connection.peer if connection is not None else None
        reason = "this is HTTP, which is not spoken here" if event.beginning.startswith(_HTTP) else event.reason
        self._repeats.warning("connection refused", fault=reason, peer=peer, beginning=event.beginning)

    # --- connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # that one connection broke before it was accepted
                self._repeats.warning("accepting rests", fault=error.strerror, connections=len(self._connections))
                self._accept_again_at = monotonic_s() + ACCEPT_PAUSE_S
                for each in self._listeners:
                    self._poller.unregister(each.fileno())
                return
            self._open(sock, peer_of(sock, address), is_resp=listener in self._resp_listeners)

    def _open(self, sock: socket.socket, peer: str, *, is_resp: bool) -> None:
        sock.setblocking(False)
        context = None if self._tls is None or sock.family == socket.AF_UNIX else self._tls.context
        if len(self._connections) >= self._connections_max:
            self._repeats.warning("connection refused", fault="max_connections is reached", peer=peer)
            message = f"the daemon has {len(self._connections)} connections already, see max_connections"
            if context is not None:
                pass  # a handshake for nothing is what a crowd wants
            elif is_resp:
                send_last(sock, b"-ERR max number of clients reached\r\n")
            else:
                send_last(sock, encode_frame([0, Overloaded.code, message, False]))
            sock.close()
            return
        id = self._dispatch.open(is_resp)
        connection = Connection(sock, id, peer, monotonic_s(), is_resp=is_resp, context=context)
        self._connections[connection.id] = connection
        if is_resp and self._runner is not None:
            self._runner.opened(Session(connection.id, connection.fd, peer, peer_of(sock, sock.getsockname())))
        self._poller.register(connection.fd, connection.mask, lambda events: self._ready(connection, events))

    def doom(self, id: int) -> None:
        """Close a connection, soon."""
        self._doomed.append(id)

    def _close_doomed(self) -> None:
        doomed, self._doomed = self._doomed, []
        for id in doomed:
            connection = self._connections.get(id)
            if connection is not None:
                self._close(connection)

    def _close(self, connection: Connection) -> None:
        del self._connections[connection.id]
        self._unsent.discard(connection)
        if connection.is_resp and self._runner is not None:
            self._runner.closed(connection.id)
        self._dispatch.close(connection.id)
        self._poller.unregister(connection.fd)
        connection.sock.close()

    def _ready(self, connection: Connection, events: int) -> None:
        now = monotonic_s()
        if events & WRITABLE and not self._send(connection, now):
            return
        if connection.mask & READABLE:
            self._read(connection, now)
        elif events & BROKEN:
            self._close(connection)

    def _read(self, connection: Connection, now: float) -> None:
        for _ in range(READS_PER_TURN):
            try:
                n = connection.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                n = 0
            if n == 0:
                self._close(connection)
                return
            if connection.parted_at is not None:
                continue
            connection.read_at = now
            if connection.tls is None:
                goes_on = self._feed(connection, self._buffer, n, now)
            else:
                goes_on = self._feed_ciphertext(connection, connection.tls, n, now)
            if not goes_on or n < READ_BYTES:
                return

    def _feed(self, connection: Connection, data: bytearray, n: int, now: float) -> bool:
        """Hand on what was read; False when no more is to be read now."""
        self._dispatch.feed(connection.id, data, int(now * 1000), n)
        if self._dispatch.is_paused(connection.id):
            self._set_mask(connection, connection.mask & ~READABLE)
            return False
        return True

    def _feed_ciphertext(self, connection: Connection, tls: TlsStream, n: int, now: float) -> bool:
        try:
            tls.feed(memoryview(self._buffer)[:n])
        except ProtocolError as error:
            self._break_off(connection, error, now)
            return False
        return self._decrypt(connection, tls, now)

    def _decrypt(self, connection: Connection, tls: TlsStream, now: float) -> bool:
        """As `_feed`, for what TLS has of the connection."""
        goes_on = True
        try:
            while goes_on and (n := tls.read_into(self._plain)):
                goes_on = self._feed(connection, self._plain, n, now)
        except ProtocolError as error:
            self._break_off(connection, error, now)
            return False
        if tls.wants_to_write and not self._send(connection, now):
            return False
        if goes_on and tls.is_ended:
            self._close(connection)
            return False
        return goes_on

    def _break_off(self, connection: Connection, error: ProtocolError, now: float) -> None:
        # The peer gets TLS's alert, and nothing else.
        self.tls_faults += 1
        self._repeats.warning("connection refused", fault=str(error), peer=connection.peer)
        self._unsent.discard(connection)
        self._set_mask(connection, READABLE)
        self._part(connection, now)

    def _send(self, connection: Connection, now: float) -> bool:
        """Send what the socket takes; False when the connection is closed now."""
        if connection.parted_at is not None and connection.tls is not None:
            return True  # nothing can be encrypted any more
        try:
            n, left = connection.send(self._dispatch)
        except OSError:
            self._close(connection)
            return False
        if left:
            if n or connection not in self._unsent:
                connection.sent_at = now
            self._unsent.add(connection)
            self._set_mask(connection, connection.mask | WRITABLE)
        else:
            self._unsent.discard(connection)
            self._set_mask(connection, connection.mask & ~WRITABLE)
            if self._dispatch.is_finished(connection.id):
                self._part(connection, now)
        return True

    def _set_mask(self, connection: Connection, mask: int) -> None:
        if mask != connection.mask:
            connection.mask = mask
            self._poller.modify(connection.fd, mask)

    def _part(self, connection: Connection, now: float) -> None:
        # Closing a socket with unread bytes resets it, and the peer may lose the last reply: say that nothing more
        # comes, and read until the peer closes too.
        if connection.parted_at is None:
            connection.parted_at = now
            try:
                connection.part()
            except OSError:
                self._close(connection)

    # --- timeouts

    def _look_for_timeouts(self, now: float) -> None:
        self._repeats.tick()
        self._doorkeeper.tick()
        if self._runner is not None:
            self._runner.tick()
        if self._accept_again_at is not None and now >= self._accept_again_at:
            self._accept_again_at = None
            for listener in self._listeners:
                self._watch(listener)
        connections = list(islice(self._sweep, SWEEP_CONNECTIONS))
        if not connections:
            self._sweep = iter(list(self._connections.values()))
            connections = list(islice(self._sweep, SWEEP_CONNECTIONS))
        for connection in connections:
            if connection.id in self._connections:
                reason = self._timeouts.pick(connection, now, is_unsent=connection in self._unsent)
                if reason is not None:
                    if reason is IDLE:
                        _log.debug("connection closed", reason=reason, peer=connection.peer)
                    elif connection.parted_at is None:
                        requests, _ = self._dispatch.in_flight(connection.id)
                        self._repeats.warning(
                            "connection closed", fault=reason, peer=connection.peer, requests=requests
                        )
                    self._close(connection)

    # --- the end

    def drain(self) -> None:
        """Accept no more connections; new requests are answered Draining, those in flight as ever."""
        self._dispatch.draining = True
        for listener in self._listeners:
            if self._accept_again_at is None:
                self._poller.unregister(listener.fileno())
            listener.close()
        self._accept_again_at = None
        self._listeners.clear()
        self._resp_listeners.clear()

    @property
    def is_drained(self) -> bool:
        """Whether every request is answered and every reply sent."""
        dispatch = self._dispatch
        return not dispatch.requests and not self._unsent and not dispatch.has_news and not dispatch.has_more

    def part(self) -> None:
        """Tell every client that no more comes; then `connections` falls as they close."""
        for connection in list(self._connections.values()):
            self._part(connection, monotonic_s())

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def close(self) -> None:
        """Close every connection and listener at once."""
        self.drain()
        for connection in list(self._connections.values()):
            self._close(connection)
