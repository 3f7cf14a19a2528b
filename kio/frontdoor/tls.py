"""TLS between a socket and Dispatch: ciphertext in, plaintext out, and back. Sans-I/O: no socket, no clock.

Owns: one connection's TLS state and its two buffers, in memory. A loop with a non-blocking socket drives it so:

    readable    n = sock.recv_into(buffer)                 0: the peer is gone
                stream.feed(buffer[:n])
                while n := stream.read_into(plain): hand plain[:n] on; when the receiver pauses, stop here
                if stream.wants_to_write: as writable
                if stream.is_ended: the peer sends no more
    resumed     go on with read_into where it was stopped, before the next recv
    writable    taken = stream.send(plaintext)             how much of it was taken; 0 while the handshake goes on
                n = sock.send(stream.output())
                stream.consumed(n); watch for room while stream.wants_to_write
    to part     stream.close(), write the output, then shutdown(SHUT_WR)
    a fault     feed and read_into raise ProtocolError: write what output() has, an alert for the peer, and close

Invariants:
  * until `read_into` has returned 0, no more is fed: the input is bounded by what one recv takes;
  * past OUTPUT_BYTES_MAX of output no plaintext is taken, and a peer that makes the other side answer (renegotiation,
    key updates) without reading is a fault;
  * after a fault nothing is taken and nothing comes any more.
How long a handshake may take is the loop's to decide, as how long a hello may.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from kio.errors import ProtocolError
from kio.limits import KIB
from kio.tls import explain

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: What a client may send until the handshake is done: its certificates, mostly.
HANDSHAKE_BYTES_MAX: Final = 128 * KIB
#: Past this much ciphertext that waits, `send` takes nothing.
OUTPUT_BYTES_MAX: Final = 256 * KIB
#: Past this much, which only answers to the peer's own messages can reach, it is a fault.
ANSWERS_BYTES_MAX: Final = OUTPUT_BYTES_MAX + 64 * KIB
#: The plaintext of one record.
RECORD_BYTES: Final = 16 * KIB


class TlsStream:
    """The server's end of one connection.

    Args:
        context: of the server, see kio.tls.ServerTls.

    Attributes:
        is_established: whether the handshake is done.
        is_ended: whether the peer said that it sends no more.
        is_drained: whether `read_into` has nothing more until the next `feed`.
    """

    __slots__ = ("_at", "_chunk", "_fault", "_incoming", "_outgoing", "_shaken_bytes", "_tls", "is_drained", "is_ended",
                 "is_established")  # fmt: skip

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken_bytes = 0
        #: What `output` shows, and from where.
        self._chunk = b""
        self._at = 0
        self._fault: str | None = None
        self.is_established = False
        self.is_ended = False
        self.is_drained = True

    def feed(self, data: Buffer) -> None:
        """Take what the socket gave. Cost: one copy.

        Raises:
            ProtocolError: when it is not TLS, or the handshake cannot succeed.
        """
        self._check()
        assert self.is_drained, "read_into has not returned 0 yet"
        self._incoming.write(data)
        self.is_drained = False
        if not self.is_established:
            self._shaken_bytes += memoryview(data).nbytes
            self._shake()

    def read_into(self, buffer: Buffer) -> int:
        """Fill `buffer` with plaintext, as much as there is; how many bytes it is now. 0: `feed` more.

        Raises:
            ProtocolError: when what was fed is not what the peer may send; call again what came before it was returned.
        """
        self._check()
        if not self.is_established or self.is_ended:
            self.is_drained = True
            return 0
        view = memoryview(buffer)
        filled = 0
        try:
            while filled < len(view):
                n: int = self._tls.read(len(view) - filled, view[filled:])  # type: ignore[assignment]
                if n == 0:  # the peer's word that it sends no more
                    self.is_ended = self.is_drained = True
                    break
                filled += n
        except ssl.SSLWantReadError:
            self.is_drained = True
        except ssl.SSLError as error:
            self._fault = explain(error)
        if self._outgoing.pending > ANSWERS_BYTES_MAX:
            self._fault = "the peer asks without reading the answers"
        if not filled:
            self._check()
        return filled

    def send(self, plaintext: Buffer) -> int:
        """Encrypt the beginning of `plaintext`; how many bytes of it were taken. Cost: one copy."""
        if not self.is_established or self._fault is not None:
            return 0
        view = memoryview(plaintext)
        taken = 0
        try:
            while taken < len(view) and self._waiting < OUTPUT_BYTES_MAX:
                taken += self._tls.write(view[taken : taken + RECORD_BYTES])
        except ssl.SSLError as error:
            self._fault = explain(error)
        return taken

    def output(self) -> memoryview:
        """What the socket is to be given now. Borrows: valid until `consumed`."""
        if self._at == len(self._chunk):
            self._chunk, self._at = self._outgoing.read(OUTPUT_BYTES_MAX), 0
        return memoryview(self._chunk)[self._at :]

    def consumed(self, n: int) -> int:
        """The socket took `n` bytes of `output`; how many wait."""
        self._at += n
        if self._at == len(self._chunk):
            self._chunk, self._at = b"", 0
        return self._waiting

    @property
    def wants_to_write(self) -> bool:
        """Whether there is output."""
        return self._waiting > 0

    def close(self) -> None:
        """Say that no more comes: the output ends with it. Only once, after the last `send`."""
        if not self.is_established or self._fault is not None:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # it waits for the peer's own word, which the loop need not

    @property
    def _waiting(self) -> int:
        return len(self._chunk) - self._at + self._outgoing.pending

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self.is_established = True
        except ssl.SSLWantReadError:
            self.is_drained = True
            if self._shaken_bytes > HANDSHAKE_BYTES_MAX:
                self._fault = f"the handshake is longer than {HANDSHAKE_BYTES_MAX} bytes"
        except ssl.SSLError as error:
            self._fault = explain(error)
        self._check()

    def _check(self) -> None:
        if self._fault is not None:
            raise ProtocolError(f"TLS failed: {self._fault}")
