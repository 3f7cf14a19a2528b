"""The client's end of one connection, without the connection: requests to frames, bytes to replies.

Owns: the receive buffer, the request ids, and which requests have no reply yet. Both clients drive it the same way:
bytes are received into `buffer()`, then `received(n)` tells the replies they completed; how the stream was cut makes no
difference (kio.wire describes the frames).
Invariants:
  * every reply that is returned answers a request that is in flight, and has the shape of its operation;
  * a request that was forgotten stays in flight until its reply has come and was dropped: ids are never used twice;
  * memory grows with the bytes that came, never with a length that was merely announced.
After an exception of `received` the stream has no meaning any more: close the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack

from kio import wire
from kio.client.credentials import Secret
from kio.errors import FrameTooLarge, KioError, NotDecodable, ProtocolError, from_wire
from kio.limits import (
    FRAME_BYTES_FLOOR,
    FRAME_KEYS_MAX,
    GIB,
    HELLO_BYTES_MAX,
    KEY_BYTES_MAX,
    KIB,
    MIB,
    VALUE_BYTES_MAX,
)

CLIENT_NAME: Final = "kio-python"
#: A reply can be longer than a request may: the values of a batch. What announces more is not this protocol.
REPLY_FRAME_BYTES_MAX: Final = GIB
#: The receive buffer at first, and the largest that an idle connection keeps.
BUFFER_BYTES: Final = 256 * KIB
BUFFER_BYTES_KEPT: Final = 4 * MIB

WRITES: Final = frozenset(
    {wire.OP_SET, wire.OP_DELETE, wire.OP_SET_MANY, wire.OP_DELETE_MANY, wire.OP_CLEAR}
    | {wire.OP_INCR, wire.OP_APPEND, wire.OP_EXPIRE, wire.OP_PERSIST}
)
MANY: Final = frozenset({wire.OP_GET_MANY, wire.OP_SET_MANY, wire.OP_DELETE_MANY, wire.OP_EXISTS_MANY})


class Limits(NamedTuple):
    """What the daemon told in its hello; the defaults stand until it has."""

    protocol: int = wire.PROTOCOL_VERSION
    server: str = ""
    shards: int = 1
    frame_bytes_max: int = FRAME_BYTES_FLOOR
    key_bytes_max: int = KEY_BYTES_MAX
    value_bytes_max: int = VALUE_BYTES_MAX
    frame_keys_max: int = FRAME_KEYS_MAX


class Unmet(NamedTuple):
    """The result of a request whose condition did not hold: what its reply tells of what is there."""

    there: Any


class Request:
    """One frame to be.

    Args:
        keys: how many it is about.
        reply_bytes: the bytes its reply is expected to have, or 0.
        read: what makes the caller's result of the reply's, or of an `Unmet`.
        is_repeatable: whether it may be asked again when it may have been applied.
        parts: the operations of an atomic.
    """

    __slots__ = ("arguments", "is_repeatable", "keys", "op", "parts", "read", "reply_bytes")

    def __init__(
        self,
        op: int,
        arguments: tuple[Any, ...],
        keys: int = 1,
        reply_bytes: int = 0,
        *,
        read: Callable[[Any], Any] | None = None,
        is_repeatable: bool = True,
        parts: list[Request] | None = None,
    ) -> None:
        self.op = op
        self.arguments = arguments
        self.keys = keys
        self.reply_bytes = reply_bytes
        self.read = read
        self.is_repeatable = is_repeatable
        self.parts = parts or []

    @property
    def is_write(self) -> bool:
        """Whether a request whose reply never came may have changed something."""
        return self.op in WRITES or any(part.is_write for part in self.parts)

    @property
    def flags(self) -> int:
        """The first of its options; 0 where it has none."""
        place = _OPTIONS_AT.get(self.op)
        return self.arguments[place] if place is not None and len(self.arguments) > place else 0

    @property
    def protocol(self) -> int:
        """The version of the protocol that it needs."""
        is_new = self.op in _SINCE_2 or self.flags or (self.op == wire.OP_SCAN and self.arguments[-1] > wire.SCAN_ITEMS)
        return 2 if is_new else 1

    def result_of(self, answer: Any) -> Any:
        """What a caller gets for a reply's result."""
        return answer if self.read is None else self.read(answer)

    def outcome_of(self, answer: Any) -> Any:
        """As `result_of`, for one request among several: where its value cannot be decoded, the error in its place."""
        try:
            return self.result_of(answer)
        except NotDecodable as error:
            return error


class Reply:
    """What came of one request: an error, or a result in which some keys may have failed."""

    __slots__ = ("error", "failures", "result")

    def __init__(
        self, result: Any = None, error: KioError | None = None, failures: list[tuple[int, KioError]] | None = None
    ) -> None:
        self.result = result
        self.error = error
        #: (index of the key in its frame, its error); the result holds None there.
        self.failures = failures or []


class Protocol:
    """The state of one connection, from the hello to its end.

    Args:
        user, password: whom the hello names; both or neither.
    """

    def __init__(self, user: str | None = None, password: Secret | None = None) -> None:
        self.limits = Limits()
        self._user = user
        self._password = password
        self.is_greeted = False
        self._in_flight: dict[int, Request | None] = {}
        self._last_id = 0
        self._memory = bytearray(HELLO_BYTES_MAX)
        self._start = 0
        self._end = 0

    @property
    def in_flight(self) -> int:
        """Requests without a reply, forgotten ones included."""
        return len(self._in_flight)

    def hello(self) -> bytes:
        """The frame that opens a connection; `is_greeted` tells when it has been answered."""
        arguments: dict[str, Any] = {"protocol": wire.PROTOCOL_VERSION, "client": CLIENT_NAME}
        if self._user is not None and self._password is not None:
            arguments |= {"user": self._user, "password": self._password.reveal()}
        return self.send(Request(wire.OP_HELLO, (arguments,)), 0)[1]

    def send(self, request: Request, deadline_ms: int) -> tuple[int, bytes]:
        """(id, frame) of a request that is in flight from now on. Cost: one copy of its bytes.

        Raises:
            FrameTooLarge: when the daemon would not take the frame; nothing is in flight then.
            ProtocolError: when the daemon speaks no version that has this request; the same.
            UnicodeEncodeError: when a str among the keys has no UTF-8 form.
        """
        if self.limits.protocol < wire.PROTOCOL_VERSION and request.protocol > self.limits.protocol:
            spoken = f"the daemon, {self.limits.server}, speaks protocol {self.limits.protocol}"
            raise ProtocolError(f"{spoken}; this needs {request.protocol}: upgrade the daemon")
        id_ = self._last_id + 1
        try:
            frame = wire.encode_frame([id_, request.op, deadline_ms, *request.arguments])
        except UnicodeError:
            raise
        except (ValueError, struct.error):
            raise FrameTooLarge from None
        if len(frame) - wire.LENGTH.size > self.limits.frame_bytes_max:
            raise FrameTooLarge
        self._last_id = id_
        self._in_flight[id_] = request
        return id_, frame

    def forget(self, id_: int) -> None:
        """Nobody waits for this reply any more: drop it when it comes."""
        if id_ in self._in_flight:
            self._in_flight[id_] = None

    def buffer(self) -> memoryview:
        """Where the next bytes belong, never empty. Borrows: valid until `received`."""
        if self._start == self._end:
            self._start = self._end = 0
            size = len(self._memory)
            if self.is_greeted and (size < BUFFER_BYTES or (size > BUFFER_BYTES_KEPT and not self._in_flight)):
                self._memory = bytearray(BUFFER_BYTES)
        elif self._end == len(self._memory):
            self._make_room()
        return memoryview(self._memory)[self._end :]

    def _make_room(self) -> None:
        """Move what is held to the front; more room when it fills half, so that a frame's own bytes pay for it."""
        held = memoryview(self._memory)[self._start : self._end]
        size = len(self._memory)
        if len(held) > size // 2:
            (length,) = wire.LENGTH.unpack_from(held)
            size = max(size * 2, min(size * 4, wire.LENGTH.size + length))
        room = bytearray(size)  # never resized: a view of the old memory may be out
        room[: len(held)] = held
        self._memory, self._start, self._end = room, 0, len(held)

    def received(self, count: int) -> list[tuple[int, Reply]]:
        """The (id, reply) pairs that are complete now that `count` bytes stand in `buffer()`.

        Raises:
            ProtocolError: when the bytes are not kio's protocol.
            KioError: what the daemon says is wrong with the whole connection; it closes it.
        """
        self._end += count
        replies = []
        view = memoryview(self._memory)
        while self._end - self._start >= wire.LENGTH.size:
            (length,) = wire.LENGTH.unpack_from(view, self._start)
            if length > (REPLY_FRAME_BYTES_MAX if self.is_greeted else HELLO_BYTES_MAX):
                raise ProtocolError(f"the other side announces {length} bytes of reply; is it a kio daemon?")
            body = self._start + wire.LENGTH.size
            if self._end < body + length:
                break
            reply = self._decode(view[body : body + length])
            self._start = body + length
            if reply is not None:
                replies.append(reply)
        return replies

    def _decode(self, body: memoryview) -> tuple[int, Reply] | None:
        """One frame's (id, reply); None where nobody waits for it."""
        try:
            message = msgpack.unpackb(body, strict_map_key=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"a reply is not msgpack: {error}") from None
        if type(message) is not list or not 3 <= len(message) <= 4 or type(message[0]) is not int:
            raise ProtocolError("a reply is not an array of an id, a status and what belongs to it")
        id_, status = message[0], message[1]
        if id_ == 0:
            raise _error(message[1:])
        if id_ not in self._in_flight:
            raise ProtocolError(f"a reply has the id {id_}, which was not asked for")
        request = self._in_flight.pop(id_)
        if request is None:
            return None
        if request.op == wire.OP_HELLO:
            self._greet(message)
            return None
        if type(status) is int and status >= wire.STATUS_ERROR:
            return id_, Reply(error=_error(message[1:]))
        if status == wire.STATUS_UNMET and len(message) == 3 and _is_unmet(request, message[2]):
            return id_, Reply(Unmet(message[2]))
        if _SHAPES[request.op](request, message[2]):
            if status == wire.STATUS_OK and len(message) == 3:
                return id_, Reply(message[2])
            if status == wire.STATUS_PARTIAL and len(message) == 4 and request.op in MANY:
                return id_, Reply(message[2], failures=_failures(message[3], request.keys))
        raise ProtocolError(f"the reply to operation {request.op} has not the shape of one")

    def _greet(self, message: list[Any]) -> None:
        """Take over what the daemon tells of itself."""
        if message[1] != wire.STATUS_OK:
            raise _error(message[1:])
        told = message[2]
        if type(told) is not dict:
            raise ProtocolError("the answer to hello is not a map")
        limits = Limits(*(told.get(name) for name in Limits._fields))  # type: ignore[arg-type]
        for name, value in zip(Limits._fields, limits, strict=True):
            if name == "server":
                if type(value) is not str:
                    raise ProtocolError("the answer to hello does not tell the server's name")
            elif type(value) is not int or value < 1:
                raise ProtocolError(f"the answer to hello tells {name} as {value!r}")
        if limits.protocol > wire.PROTOCOL_VERSION:
            raise ProtocolError(f"the daemon speaks protocol {limits.protocol}, this client {wire.PROTOCOL_VERSION}")
        self.limits = limits
        self.is_greeted = True


def _error(parts: list[Any]) -> KioError:
    """The error of [code, message, maybe_applied]; it is a ProtocolError too when that is not what `parts` are."""
    if len(parts) != 3 or type(parts[0]) is not int or parts[0] < wire.STATUS_ERROR:
        return ProtocolError("an error in a reply is not a code, a message and a flag")
    code, message, maybe_applied = parts
    if type(message) is not str or type(maybe_applied) is not bool:
        return ProtocolError("an error in a reply is not a code, a message and a flag")
    return from_wire(code, message, maybe_applied)


def _failures(listed: Any, keys: int) -> list[tuple[int, KioError]]:
    """The keys that a partial reply says have failed."""
    failures = []
    for item in listed if type(listed) is list else [None]:
        if type(item) is not list or len(item) != 4 or type(item[0]) is not int or not 0 <= item[0] < keys:
            raise ProtocolError("a partial reply does not say which of its keys failed")
        failures.append((item[0], _error(item[1:])))
    return failures


def _is_bool_list(request: Request, result: Any) -> bool:
    return type(result) is list and len(result) == request.keys and set(map(type, result)) <= {bool, type(None)}


def _is_page(request: Request, result: Any) -> bool:
    """A scan's [next_cursor, [...]], in pairs where values were asked for, in threes where expiries were as well."""
    if type(result) is not list or len(result) != 2 or type(result[0]) is not bytes or type(result[1]) is not list:
        return False
    found, width = result[1], 1 + request.arguments[-1]
    is_whole = len(found) % width == 0
    if request.arguments[-1] != wire.SCAN_RECORDS:
        return is_whole and set(map(type, found)) <= {bytes}
    return is_whole and all(set(map(type, found[at::3])) <= {kind} for at, kind in enumerate((bytes, bytes, int)))


def _is_version(result: Any, width: int = 3) -> bool:
    """[epoch, lsn, expire_at], behind a value where there are four."""
    if type(result) is not list or len(result) != width or (width > 3 and type(result[0]) is not bytes):
        return False
    return all(type(part) is int and part >= 0 for part in result[-3:])


def _is_got(request: Request, result: Any) -> bool:
    if request.flags & wire.WITH_VERSION:
        return result is None or _is_version(result, 4)
    return result is None or type(result) is bytes


def _is_written(request: Request, result: Any) -> bool:
    """What a set or a delete answers when it was applied."""
    is_set = request.op == wire.OP_SET
    if request.flags & wire.WITH_OLD:
        return result is None or type(result) is bytes
    if request.flags & wire.WITH_VERSION:
        return _is_version(result) or (result is False and not is_set)
    return result is True or (result is False and not is_set)


def _is_unmet(request: Request, there: Any) -> bool:
    """Whether a request may go unmet, and this tells what is there."""
    if request.op == wire.OP_ATOMIC:
        if type(there) is not list or len(there) != 2 or type(there[0]) is not int:
            return False
        place, there = there
        return 0 <= place < len(request.parts) and _is_unmet(request.parts[place], there)
    has_condition = request.op in (wire.OP_SET, wire.OP_DELETE) and request.flags & _CONDITIONS
    return (request.op == wire.OP_PERSIST or bool(has_condition)) and (there is None or _is_version(there))


def _is_atomic(request: Request, result: Any) -> bool:
    if type(result) is not list or len(result) != len(request.parts):
        return False
    return all(_SHAPES[part.op](part, each) for part, each in zip(request.parts, result, strict=True))


_CONDITIONS: Final = wire.IF_ABSENT | wire.IF_PRESENT | wire.IF_VERSION
#: Where the options of an operation stand among its arguments.
_OPTIONS_AT: Final = {wire.OP_GET: 2, wire.OP_SET: 3, wire.OP_DELETE: 2, wire.OP_EXPIRE: 2, wire.OP_SET_MANY: 2}
_SINCE_2: Final = frozenset(
    {wire.OP_INCR, wire.OP_APPEND, wire.OP_EXPIRE, wire.OP_PERSIST, wire.OP_TTL, wire.OP_ATOMIC}
)

_SHAPES: Final[dict[int, Callable[[Request, Any], bool]]] = {
    wire.OP_GET: _is_got,
    wire.OP_SET: _is_written,
    wire.OP_DELETE: _is_written,
    wire.OP_EXISTS: lambda _, result: type(result) is bool,
    wire.OP_INCR: lambda _, result: type(result) is int,
    wire.OP_APPEND: lambda _, result: type(result) is int and result >= 0,
    wire.OP_EXPIRE: lambda _, result: type(result) is bool,
    wire.OP_PERSIST: lambda _, result: type(result) is bool,
    wire.OP_TTL: lambda _, result: result is None or (type(result) is int and result >= -1),
    wire.OP_ATOMIC: _is_atomic,
    wire.OP_GET_MANY: lambda request, result: (
        type(result) is list and len(result) == request.keys and set(map(type, result)) <= {bytes, type(None)}
    ),
    wire.OP_SET_MANY: _is_bool_list,
    wire.OP_DELETE_MANY: _is_bool_list,
    wire.OP_EXISTS_MANY: _is_bool_list,
    wire.OP_COUNT: lambda _, result: type(result) is int and result >= 0,
    wire.OP_CLEAR: lambda _, result: type(result) is int and result >= 0,
    wire.OP_SCAN: _is_page,
    wire.OP_COMPACT: lambda _, result: type(result) is int and result >= 0,
    wire.OP_STATS: lambda _, result: type(result) is dict,
    wire.OP_PING: lambda _, result: type(result) is bytes,
    wire.OP_SEAL: lambda _, result: type(result) is list and set(map(type, result)) == {dict},
}
