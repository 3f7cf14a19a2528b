"""Deletes what load and runs have left: the records of a plan, what was inserted behind them, its counters.

No figures are wanted here: one blocking connection, a thousand keys a command. How many keys were inserted is not
known afterwards, so ids are deleted on and on until a few commands in a row have found nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import msgpack

from kio import wire
from kio.bench import resp
from kio.bench.frames import COUNTER_SUFFIX
from kio.bench.keys import key_of
from kio.bench.plan import Plan
from kio.bench.targets import connect, parse_target
from kio.client.options import reason
from kio.errors import ConnectionLost, KioError, ProtocolError, from_wire

KEYS: Final = 1000
#: Ids of several processes interleave; so many commands in a row that find no key are behind the last of them.
EMPTY_MAX: Final = 5
TIMEOUT_S: Final = 60.0
_RECEIVE_BYTES: Final = 64 << 10


def clean(plan: Plan) -> int:
    """Delete every key that `plan` may have written; how many there were.

    Raises:
        KioError: when the server cannot be reached, or refuses.
    """
    target = parse_target(plan.url)
    key = key_of(plan)
    with connect(target) as connected:
        connected.settimeout(TIMEOUT_S)
        delete: Callable[[list[bytes]], int] = (_Native if target.protocol == "native" else _Resp)(connected).delete
        deleted = first = empty = 0
        while empty < EMPTY_MAX:
            keys = [key(id) for id in range(first, first + KEYS)]
            if plan.mix.get("incr") and first < plan.records:
                delete([one + COUNTER_SUFFIX for one in keys])
            found = delete(keys)
            deleted += found
            empty = 0 if found or first < plan.records else empty + 1
            first += KEYS
    return deleted


class _Connection:
    """A greeted socket, read as far as is asked for."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""

    def _send(self, request: bytes) -> None:
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise _lost(error) from None

    def _until(self, is_whole: Callable[[bytes], bool]) -> bytes:
        """What has come since the last answer, as soon as it is whole."""
        while not is_whole(self._received):
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise _lost(error) from None
            if not data:
                raise ConnectionLost("the server closed the connection while the keys were deleted")
            self._received += data
        answer, self._received = self._received, b""
        return answer


class _Native(_Connection):
    def delete(self, keys: list[bytes]) -> int:
        """Delete keys; how many were there."""
        self._send(wire.encode_frame([1, wire.OP_DELETE_MANY, 0, 0, keys]))
        frame = self._until(_is_whole_frame)
        message = msgpack.unpackb(frame[wire.LENGTH.size :])
        if message[1] == wire.STATUS_OK:
            return int(message[2].count(True))
        if message[1] == wire.STATUS_PARTIAL:
            _, code, text, *_ = message[3][0]
        else:
            _, code, text, *_ = message
        raise from_wire(code, f"the keys could not be deleted: {text}")


class _Resp(_Connection):
    def delete(self, keys: list[bytes]) -> int:
        """Delete keys; how many were there."""
        self._send(resp.command(b"DEL", *keys))
        line = self._until(lambda received: received.endswith(resp.CRLF)).decode("utf-8", "replace").strip()
        if line.startswith(":"):
            return int(line[1:])
        raise (KioError if line.startswith("-") else ProtocolError)(f"the keys could not be deleted: {line[1:]}")


def _is_whole_frame(received: bytes) -> bool:
    if len(received) < wire.LENGTH.size:
        return False
    (length,) = wire.LENGTH.unpack_from(received)
    return len(received) >= wire.LENGTH.size + int(length)


def _lost(error: OSError) -> ConnectionLost:
    return ConnectionLost(f"the connection broke while the keys were deleted: {reason(error)}")
