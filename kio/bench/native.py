"""kio's own protocol (kio.wire) from the side of a client that only counts.

Every command of a connection has the id of its place among those outstanding, counted from 1: unique while it is in
flight, known beforehand, and so part of a template. Replies come in the order of their requests.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

from kio import wire
from kio.bench.frames import COUNTER_SUFFIX, FAILED, Tally
from kio.bench.plan import DELETE, EXPIRE, INCR, READ, RMW, Plan
from kio.errors import BY_CODE, ConfigError, ConnectionLost, KioError, ProtocolError, from_wire
from kio.limits import FRAME_SKIP_BYTES_MAX, HELLO_BYTES_MAX

CLIENT_NAME: Final = "kio-bench"
#: A reply that announces more is none: every length that is spelt in ASCII does.
REPLY_BYTES_MAX: Final = FRAME_SKIP_BYTES_MAX
_OF_THREE: Final = 0x93
_NIL: Final = 0xC0
#: The first bytes of a msgpack integer of 1 to 4 bytes more, by their number.
_INTEGER_BYTES: Final = {0xCC: 2, 0xCD: 3, 0xCE: 5}


class NativeShape:
    """The commands of a plan: get, set, delete, incr, set with a TTL; get_many and set_many of several keys."""

    def __init__(self, plan: Plan) -> None:
        self._is_batch = plan.batch > 1
        self._expiring = (wire.TTL, max(1, round(plan.ttl_s * 1000)))

    def __call__(self, kind: int, place: int, lengths: list[int], values: list[bytes]) -> list[bytes | None]:
        """Parts of one command."""
        if kind in (READ, RMW):
            return self._parts(wire.OP_GET, place, lengths, None)
        if kind == DELETE:
            return self._parts(wire.OP_DELETE, place, lengths, None)
        if kind == INCR:
            return self._parts(wire.OP_INCR, place, lengths, None, COUNTER_SUFFIX, (1,))
        return self._parts(wire.OP_SET, place, lengths, values, options=self._expiring if kind == EXPIRE else ())

    def _parts(
        self,
        op: int,
        place: int,
        lengths: list[int],
        values: list[bytes] | None,
        suffix: bytes = b"",
        options: tuple[int, ...] = (),
    ) -> list[bytes | None]:
        """Frame and fields up to the first key; then key, its suffix, value, for each; then what follows them."""
        pack = msgpack.Packer(use_bin_type=True)
        fields = (4 if self._is_batch else 4 + len(lengths) * (1 if values is None else 2)) + len(options)
        head = b"".join(
            [
                pack.pack_array_header(fields + self._is_batch),
                pack.pack(place + 1),
                pack.pack(op + wire.OP_MANY if self._is_batch else op),
                b"\0\0",  # no deadline, keyspace 0
            ]
        )
        if self._is_batch:
            head += pack.pack_array_header(len(lengths) * (1 if values is None else 2))
        parts: list[bytes | None] = []
        for i, length in enumerate(lengths):
            parts += [head + _bin_header(length), None]
            head = b""
            parts.append(suffix if values is None else _bin_header(len(values[i])) + values[i])
        parts.append(b"".join(map(pack.pack, options)))
        frame_bytes = sum(lengths) - len(suffix) * len(lengths) + sum(len(part) for part in parts if part is not None)
        return [wire.LENGTH.pack(frame_bytes), *parts]


class NativeReplies:
    """The replies of one connection. Between two calls of `take` it holds the part of one frame that has come."""

    __slots__ = ("_batch", "_done", "_is_batch", "_missing_bytes", "_parts", "_tally", "error")

    def __init__(self, tally: Tally, batch: int) -> None:
        self._tally = tally
        self._batch = batch
        self._is_batch = batch > 1
        self.error: KioError | None = None
        #: Replies that are done in this call of `take`.
        self._done = 0
        self._parts: list[bytes] = []
        #: At least so many bytes must come until the frame in `_parts` can be looked at again.
        self._missing_bytes = 0

    def take(self, data: bytes) -> bytes:
        """See frames.Replies."""
        self._done = 0
        if self._parts:
            self._parts.append(data)
            self._missing_bytes -= len(data)
            if self._missing_bytes > 0:
                return b""
            data = b"".join(self._parts)
            self._parts.clear()
        failed: list[int] = []
        try:
            self._walk(data, failed)
        except KioError as error:
            self.error = error
        if not failed:
            return bytes(self._done)
        outcomes = bytearray(self._done)
        for place in failed:
            outcomes[place] = FAILED
        return bytes(outcomes)

    def _walk(self, data: bytes, failed: list[int]) -> None:
        at = 0
        end = len(data)
        while at < end:
            if end - at < wire.LENGTH.size:
                self._keep(data[at:], wire.LENGTH.size)
                return
            (length,) = wire.LENGTH.unpack_from(data, at)
            body = at + wire.LENGTH.size
            if not 3 <= length <= REPLY_BYTES_MAX:
                raise ProtocolError(f"this is no reply of kio: {data[at : at + 40]!r}")
            if body + length > end:
                self._keep(data[at:], wire.LENGTH.size + length)
                return
            at = body + length
            if not self._is_plain(data, body, length) and self._is_failure(data[body:at]):
                failed.append(self._done)
            self._done += 1

    def _keep(self, part: bytes, needed: int) -> None:
        self._parts.append(part)
        self._missing_bytes = needed - len(part)

    def _is_plain(self, data: bytes, body: int, length: int) -> bool:
        """Whether it is a single operation's success; counts a nil. Looks at no more bytes than it must."""
        if self._is_batch or data[body] != _OF_THREE:
            return False
        after_id = body + 1
        first = data[after_id]
        after_id += 1 if first < 0x80 else _INTEGER_BYTES.get(first, length)
        if not first or after_id + 1 >= body + length or data[after_id] != wire.STATUS_OK:
            return False
        if data[after_id + 1] == _NIL:
            self._tally.missing += 1
        return True

    def _is_failure(self, frame: bytes) -> bool:
        """Whether the whole command failed; a batch of which some keys failed has not."""
        message = _unpacked(frame)
        if type(message) is not list or not 3 <= len(message) <= 4:
            raise ProtocolError(f"this is no reply of kio: {frame[:40]!r}")
        id_, status = message[0], message[1]
        if id_ == 0:
            raise _refusal(message)
        if status == wire.STATUS_OK or status == wire.STATUS_PARTIAL:
            result = message[2]
            failures = self._partial(message) if status == wire.STATUS_PARTIAL else []
            missing = result.count(None) if isinstance(result, list) else result is None
            self._tally.missing += missing - len(failures)
            return False
        self._tally.fail(_name(status), self._batch)
        return True

    def _partial(self, message: list[Any]) -> list[Any]:
        """The failures of single keys, counted."""
        failures = message[3] if len(message) == 4 else None
        if type(failures) is not list or not all(type(failure) is list and len(failure) > 1 for failure in failures):
            raise ProtocolError(f"this is no reply of kio: {message!r:.80}")
        for failure in failures:
            self._tally.fail(_name(failure[1]), 1)
        return failures


class NativeGreeting:
    """The hello."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._got = b""
        self.opening = wire.encode_frame(
            [1, wire.OP_HELLO, 0, {"protocol": wire.PROTOCOL_VERSION, "client": CLIENT_NAME}]
        )

    def take(self, data: bytes) -> bool:
        """See frames.Greeting."""
        self._got += data
        if self._got[:1] in (b"+", b"-"):
            raise ConfigError(f"{self._where} does not speak kio's protocol: did you mean redis://?")
        if len(self._got) < wire.LENGTH.size:
            return False
        (length,) = wire.LENGTH.unpack_from(self._got)
        if length > HELLO_BYTES_MAX:
            raise ConfigError(f"{self._where} does not speak kio's protocol: it answered {self._got[:40]!r}")
        if len(self._got) < wire.LENGTH.size + length:
            return False
        message = _unpacked(self._got[wire.LENGTH.size :])
        if type(message) is not list or len(message) < 3:
            raise ConfigError(f"{self._where} does not speak kio's protocol: it answered {self._got[:40]!r}")
        if message[1] != wire.STATUS_OK:
            raise ConnectionLost(f"{self._where} refused the connection: {_refusal(message)}")
        return True


def _bin_header(length: int) -> bytes:
    """What stands before `length` bytes of msgpack bin."""
    if length < 1 << 8:
        return struct.pack(">BB", 0xC4, length)
    return struct.pack(">BH", 0xC5, length) if length < 1 << 16 else struct.pack(">BI", 0xC6, length)


def _unpacked(frame: bytes) -> Any:
    try:
        return msgpack.unpackb(frame, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"this is no reply of kio: {error}") from None


def _refusal(message: list[Any]) -> KioError:
    """What is wrong with the whole connection."""
    status, text = message[1], message[2]
    if type(status) is not int or type(text) is not str:
        return ProtocolError(f"this is no reply of kio: {message!r:.80}")
    return from_wire(status, text)


def _name(code: Any) -> str:
    """An error's name in the report."""
    cls = BY_CODE.get(code) if type(code) is int else None
    return cls.__name__ if cls else f"code {code}"
