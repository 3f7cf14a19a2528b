"""One connection of the asyncio client, shared by all its tasks.

Owns: the transport and the protocol machine over it. Used by the tasks of one event loop.
Invariants:
  * what all tasks send in one turn of the loop goes out in one write; replies find their task by the request's id;
  * a task that is cancelled, or whose deadline passes, takes nothing from the others: its replies are dropped by id;
  * at most REQUESTS_MAX requests have no reply, so that the daemon never has a reason to stop reading for their number.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from typing import Final

from kio import clock
from kio.client.channel import RESET_ON_CLOSE
from kio.client.options import Options, is_of_tls, reason, unreachable
from kio.client.protocol import Limits, Protocol, Reply, Request
from kio.client.retry import Deadline, own_error
from kio.client.window import Window
from kio.errors import ConnectionLost, KioError, ProtocolError, Timeout
from kio.limits import CONNECTION_REQUESTS_MAX, MIB

REQUESTS_MAX: Final = CONNECTION_REQUESTS_MAX // 2
#: Past this many bytes that the socket did not take yet, senders wait.
UNSENT_BYTES_MAX: Final = 4 * MIB
#: A connection on which a request timed out, and nothing came for this long, is taken for dead: its host may have
#: vanished without a word. Shorter, and one slow answer would cost everybody who waits behind it.
SILENT_S_MAX: Final = 10.0


class Multiplexer(asyncio.BufferedProtocol):
    """A connection that has been greeted, or is broken; made by `open_multiplexer`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._protocol = Protocol(options.user, options.password)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, tuple[Request, asyncio.Future[Reply]]] = {}
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._slots = asyncio.Semaphore(REQUESTS_MAX)
        self._writable = asyncio.Event()
        self._writable.set()
        #: When the daemon was last known to be alive: bytes came, or nothing was asked of it.
        self._heard_s = clock.monotonic_s()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        #: Why it can carry no request any more, once it cannot.
        self.error: KioError | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it has, or had, a transport; `close` waits for its end."""
        return self._transport is not None

    @property
    def limits(self) -> Limits:
        """What the daemon told in its hello."""
        return self._protocol.limits

    async def greeted(self) -> None:
        """Wait until the daemon has answered the hello; raises what is wrong with it."""
        await self._greeted

    async def exchange(self, requests: list[Request], deadline: Deadline) -> list[Reply]:
        """Send `requests` in order, a window's worth at a time; their replies, in order.

        Raises nothing for what can happen to a connection: requests it cost their reply get a Reply with the error.
        """
        replies: list[Reply | None] = [None] * len(requests)
        under_way: deque[tuple[int, int, int, asyncio.Future[Reply]]] = deque()
        window = Window()
        sent = 0
        left_s = deadline.left_s()

        async def gather_one() -> None:
            place, _, frame_bytes, future = under_way[0]
            replies[place] = await future
            under_way.popleft()
            window.remove(requests[place], frame_bytes)

        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s):
                for place, request in enumerate(requests):
                    while not window.has_room:
                        await gather_one()
                    await self._slots.acquire()
                    try:
                        await self._writable.wait()
                        id_, frame_bytes, future = self._send(request, deadline)
                    except KioError as error:
                        self._slots.release()
                        replies[place] = Reply(error=error)
                        continue
                    except BaseException:
                        self._slots.release()
                        raise
                    sent = place + 1
                    window.add(request, frame_bytes)
                    under_way.append((place, id_, frame_bytes, future))
                while under_way:
                    await gather_one()
        except TimeoutError:
            self._close_if_silent()
        finally:
            for _, id_, _, _ in under_way:
                self._protocol.forget(id_)
                self._waiting.pop(id_, None)
        late = Timeout(f"{self._options.url} did not answer in time")
        return [
            reply or Reply(error=own_error(late, place < sent and requests[place].is_write))
            for place, reply in enumerate(replies)
        ]

    async def close(self) -> None:
        """Close the connection and wait until it is closed; requests under way get ConnectionLost."""
        self._break(ConnectionLost("the client was closed"))
        await asyncio.shield(self._ended)

    def _send(self, request: Request, deadline: Deadline) -> tuple[int, int, asyncio.Future[Reply]]:
        """(id, frame bytes, the reply to come) of a request that goes out in this turn of the loop."""
        if self.error is not None:
            raise self.error
        if not self._protocol.in_flight:
            self._heard_s = clock.monotonic_s()
        id_, frame = self._protocol.send(request, deadline.left_ms())
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[id_] = (request, future)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > UNSENT_BYTES_MAX:
            self._flush()
        return id_, len(frame), future

    def _flush(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent and self._transport is not None and self.error is None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _close_if_silent(self) -> None:
        """After a request timed out: give the connection up if nothing at all has come for long."""
        silent_s = clock.monotonic_s() - self._heard_s
        if silent_s >= SILENT_S_MAX and self._transport is not None:
            # As Channel.abort: what the daemon has not read must not be found after a later write.
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._break(ConnectionLost(f"{self._options.url} has been silent for {silent_s:.1f} s"))

    def _break(self, error: KioError) -> None:
        """The connection carries nothing any more, for this reason."""
        if self.error is not None:
            return
        self.error = error
        waiting, self._waiting = self._waiting, {}
        for request, future in waiting.values():
            if not future.done():
                future.set_result(Reply(error=own_error(error, request.is_write)))
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()  # it is no news to nobody, should the opener have been cancelled
        self._writable.set()
        for _ in range(REQUESTS_MAX):
            self._slots.release()
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        if isinstance(self._options.address, tuple):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        transport.write(self._protocol.hello())

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop receives into."""
        return self._protocol.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand each reply to whoever waits for it."""
        self._heard_s = clock.monotonic_s()
        in_flight = self._protocol.in_flight
        try:
            replies = self._protocol.received(nbytes)
        except KioError as error:
            self._break(error)
            return
        if not self._greeted.done():
            if self._protocol.is_greeted:
                self._greeted.set_result(None)
            return
        for id_, reply in replies:
            _, future = self._waiting.pop(id_)
            if not future.done():
                future.set_result(reply)
        for _ in range(in_flight - self._protocol.in_flight):
            self._slots.release()

    def pause_writing(self) -> None:
        """The socket does not keep up: senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if isinstance(exc, OSError) and is_of_tls(exc) and not self._greeted.done():
            self._break(ProtocolError(f"no TLS with {self._options.url}: {reason(exc)}"))
        why = reason(exc) if isinstance(exc, OSError) else str(exc or "the daemon closed it")
        self._break(ConnectionLost(f"the connection to {self._options.url} broke: {why}"))
        if not self._ended.done():
            self._ended.set_result(None)


async def open_multiplexer(options: Options) -> Multiplexer:
    """Connect and greet, within the options' `connect_timeout`.

    Raises:
        ConnectionLost: when nothing answers there.
        ProtocolError: when what answers is not kio, or speaks no version that this client knows.
    """
    loop = asyncio.get_running_loop()
    made: Multiplexer | None = None

    def make() -> Multiplexer:
        nonlocal made
        made = Multiplexer(options)
        return made

    try:
        async with asyncio.timeout(options.connect_timeout):
            if isinstance(options.address, tuple):
                host, port = options.address
                context = options.tls_context()
                await loop.create_connection(
                    make, host, port, ssl=context, server_hostname=host if context is not None else None
                )
            else:
                await loop.create_unix_connection(make, options.address)
            assert made is not None
            await made.greeted()
            return made
    except KioError:
        raise
    except TimeoutError:
        await _discard(made)
        raise ConnectionLost(f"{options.url} did not answer within {options.connect_timeout:g} s") from None
    except OSError as error:
        raise unreachable(options, error) from None
    except BaseException:
        await _discard(made)
        raise


async def _discard(made: Multiplexer | None) -> None:
    if made is not None and made.is_connected:
        await made.close()
