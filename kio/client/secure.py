"""TLS under a channel: a socket that looks like one without it.

Owns: the wrapped socket. What the channel calls is here with the same meaning: `sendmsg` and `recv_into` raise
BlockingIOError when they would have to wait, whatever TLS waits for.
Invariants:
  * what was offered to TLS and not taken is offered again as it was, as OpenSSL demands: `_offered` keeps it;
  * `pending` tells of plaintext that no poll of the descriptor shows.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from kio.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

#: The plaintext of one record.
RECORD_BYTES: Final = 16 * KIB


class SecureSocket:
    """A connected socket with TLS on it; the handshake is done within the socket's timeout.

    Args:
        connected: it belongs to this one from now on.
        context: of the client, see kio.tls.client_context.
        host: the name that the server's certificate must have.

    Raises:
        OSError: when the handshake fails (ssl.SSLError is one).
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._socket = context.wrap_socket(connected, server_hostname=host)
        self._offered = b""

    def pending(self) -> bool:
        """Whether there is plaintext to read without a byte from the descriptor."""
        return self._socket.pending() > 0

    def sendmsg(self, buffers: Sequence[memoryview], *_: Any) -> int:
        """Send the beginning of `buffers`; how many bytes. Until these are sent, call again with the same beginning."""
        if not self._offered:
            offered = bytearray()
            for buffer in buffers:
                offered += buffer[: RECORD_BYTES - len(offered)]
                if len(offered) == RECORD_BYTES:
                    break
            self._offered = bytes(offered)
        try:
            sent = self._socket.send(self._offered)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        self._offered = b""
        return sent

    def recv_into(self, buffer: Buffer) -> int:
        """Receive what there is, at most what fits; 0 when the other side has ended."""
        try:
            return self._socket.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._socket.setblocking(flag)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As of a socket."""
        self._socket.setsockopt(level, option, value)

    def close(self) -> None:
        """Close the descriptor; says nothing to the other side, so that a forked child can do it."""
        self._socket.close()
