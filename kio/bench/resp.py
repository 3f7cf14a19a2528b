"""RESP2, the protocol of Redis and of the servers that speak as it does, from the side of a client that only counts.

Replies are walked, never built: the bytes of a value are skipped as they come, so that a value of any size costs no
copy, and a run of equally long values is recognised by its first header.
"""

from __future__ import annotations

from typing import Final

from kio.bench.frames import COUNTER_SUFFIX, FAILED, Tally
from kio.bench.plan import DELETE, EXPIRE, INCR, READ, RMW, Plan
from kio.errors import ConfigError, ConnectionLost, ProtocolError

CRLF: Final = b"\r\n"
#: A reply's line that is longer than this without an end is no reply.
LINE_BYTES_MAX: Final = 64 << 10
#: A bulk string or an array that announces more than this is no reply of a server that was asked for little.
COUNT_MAX: Final = 1 << 30
#: How a frame of kio's own protocol begins when it answers something that is no frame: short, so two bytes of 0.
_KIO_BEGINS: Final = b"\0\0"
_TYPES: Final = b"+-:$*"

_BULK, _ERROR, _ARRAY = b"$-*"


def command(*arguments: bytes) -> bytes:
    """One command as a frame."""
    return b"".join([b"*%d\r\n" % len(arguments), *(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)])


class RespShape:
    """The commands of a plan: GET, SET, DEL, INCR, SET PX; MGET and MSET where a command has several keys."""

    def __init__(self, plan: Plan) -> None:
        ttl_ms = max(1, round(plan.ttl_s * 1000))
        self._px = b"\r\n$2\r\nPX\r\n$%d\r\n%d\r\n" % (len(str(ttl_ms)), ttl_ms)
        self._is_batch = plan.batch > 1

    def __call__(self, kind: int, place: int, lengths: list[int], values: list[bytes]) -> list[bytes | None]:
        """Parts of one command; RESP answers in order, so its place needs no mention."""
        del place
        if kind in (READ, RMW):
            return self._keys_only(b"MGET" if self._is_batch else b"GET", lengths)
        if kind == DELETE:
            return self._keys_only(b"DEL", lengths)
        if kind == INCR:
            return [b"*2\r\n$4\r\nINCR\r\n$%d\r\n" % lengths[0], None, COUNTER_SUFFIX + CRLF]
        if self._is_batch:
            parts: list[bytes | None] = [b"*%d\r\n$4\r\nMSET" % (1 + 2 * len(lengths))]
            for length, value in zip(lengths, values, strict=True):
                parts += [b"\r\n$%d\r\n" % length, None, b"\r\n$%d\r\n" % len(value), value]
            return [*parts, CRLF]
        (length,), (value,) = lengths, values
        is_expiring = kind == EXPIRE
        head = b"*%d\r\n$3\r\nSET\r\n$%d\r\n" % (5 if is_expiring else 3, length)
        return [head, None, b"\r\n$%d\r\n" % len(value), value, self._px if is_expiring else CRLF]

    @staticmethod
    def _keys_only(name: bytes, lengths: list[int]) -> list[bytes | None]:
        parts: list[bytes | None] = [b"*%d\r\n$%d\r\n%b" % (1 + len(lengths), len(name), name)]
        for length in lengths:
            parts += [b"\r\n$%d\r\n" % length, None]
        return [*parts, CRLF]


class RespReplies:
    """The replies of one connection. Between two calls of `take` it holds part of a line at most, never a value."""

    __slots__ = ("_batch", "_head", "_open", "_rest", "_run", "_skip", "_tally")

    def __init__(self, tally: Tally, batch: int) -> None:
        self._tally = tally
        self._batch = batch
        self._rest = b""
        #: Bytes of a value, its CRLF included, that are still to come.
        self._skip = 0
        #: Elements of arrays that are still to come; 0 between two replies.
        self._open = 0
        #: The header of the last value that was a reply by itself, and the bytes of that reply.
        self._head = b"$0\r\n"
        self._run = len(self._head) + len(CRLF)

    def take(self, data: bytes) -> bytes:
        """See frames.Replies."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        done = 0
        if self._skip:
            at = min(self._skip, len(data))
            self._skip -= at
            if self._skip:
                return b""
            if not CRLF.endswith(data[max(0, at - 2) : at]):
                raise ProtocolError("a reply's value does not end where it should")
            done = self._close_one()
        return self._walk(data, at, done)

    def _close_one(self) -> int:
        """One element has come: 1 when it completes a reply."""
        if self._open:
            self._open -= 1
        return 0 if self._open else 1

    def _walk(self, data: bytes, at: int, done: int) -> bytes:
        """The outcomes of what stands in `data` from `at` on, after the `done` that are known to be OK."""
        failed: list[int] = []
        end = len(data)
        head, run = self._head, self._run
        while at < end:
            if not self._open:
                # A run of values of one size, the common case: two looks each.
                while data.startswith(head, at) and data.startswith(CRLF, at + run - 2):
                    at += run
                    done += 1
                if at >= end:
                    break
            line_end = data.find(CRLF, at)
            if line_end < 0:
                if end - at > LINE_BYTES_MAX or data[at] not in _TYPES:
                    raise _garbage(data[at:])
                self._rest = data[at:]
                break
            kind = data[at]
            after = line_end + 2
            if kind == _BULK:
                after = self._value_end(data, at, line_end)
                if not self._open and line_end + 2 < after <= end:
                    head, run = self._head, self._run = data[at : line_end + 2], after - at
            elif kind == _ERROR:
                self._fail(data[at + 1 : line_end], failed, done)
            elif kind == _ARRAY:
                count = self._count(data, at, line_end)
                if count > 0:
                    # Its elements take its place; within another array it was one element itself.
                    self._open += count - 1 if self._open else count
                    at = after
                    continue
                self._tally.missing -= count * (1 if self._open else self._batch)
            elif kind not in _TYPES:
                raise _garbage(data[at:])
            at = after
            if at > end:
                self._skip = at - end
                break
            done += self._close_one()
        if not failed:
            return bytes(done)
        outcomes = bytearray(done)
        for place in failed:
            outcomes[place] = FAILED
        return bytes(outcomes)

    def _value_end(self, data: bytes, at: int, line_end: int) -> int:
        """Where the value whose header stands at `at` ends, which may be past what has come."""
        count = self._count(data, at, line_end)
        after = line_end + 2
        if count < 0:
            self._tally.missing += 1
            return after
        after += count + 2
        if after <= len(data) and not data.startswith(CRLF, after - 2):
            raise ProtocolError("a reply's value does not end where it should")
        return after

    @staticmethod
    def _count(data: bytes, at: int, line_end: int) -> int:
        """The number in a header: -1 is nil."""
        try:
            count = int(data[at + 1 : line_end])
        except ValueError:
            raise _garbage(data[at:]) from None
        if not -1 <= count <= COUNT_MAX:
            raise _garbage(data[at:])
        return count

    def _fail(self, text: bytes, failed: list[int], done: int) -> None:
        code = text.partition(b" ")[0].decode("ascii", "replace")[:40] or "ERR"
        if self._open:
            self._tally.fail(code, 1)
        else:
            self._tally.fail(code, self._batch)
            failed.append(done)


class RespGreeting:
    """AUTH and SELECT where the URL names them, then PING."""

    def __init__(self, where: str, user: str | None, password: str | None, database: int) -> None:
        self._where = where
        self._got = b""
        commands = []
        if password is not None:
            names = [user.encode()] if user else []
            commands.append(command(b"AUTH", *names, password.encode()))
        if database:
            commands.append(command(b"SELECT", b"%d" % database))
        commands.append(command(b"PING"))
        self._left = len(commands)
        self.opening = b"".join(commands)

    def take(self, data: bytes) -> bool:
        """See frames.Greeting."""
        self._got += data
        if self._got.startswith(_KIO_BEGINS):
            raise ConfigError(f"{self._where} speaks kio's protocol, not RESP: did you mean kio://?")
        while b"\n" in self._got:
            line, _, self._got = self._got.partition(b"\n")
            line = line.removesuffix(b"\r")
            if line[:1] not in (b"+", b"-"):
                raise self._stranger(line)
            if line[:1] == b"-":
                raise self._refused(line[1:].decode("utf-8", "replace"))
            self._left -= 1
        if len(self._got) > LINE_BYTES_MAX or self._got[:1] not in (b"", b"+", b"-"):
            raise self._stranger(self._got)
        return self._left == 0

    def _stranger(self, data: bytes) -> ConfigError:
        return ConfigError(f"{self._where} does not speak RESP: it answered {_shown(data)}")

    def _refused(self, text: str) -> ConfigError | ConnectionLost:
        code = text.partition(" ")[0]
        if code == "NOAUTH":
            return ConfigError(f"{self._where} wants a password, as in redis://:PASSWORD@HOST:PORT")
        if code in ("LOADING", "MASTERDOWN", "BUSY"):
            return ConnectionLost(f"{self._where} takes no commands now: {text}")
        if "max number of clients" in text:
            return ConnectionLost(f"{self._where} takes no more connections: {text}")
        return ConfigError(f"{self._where} refused the connection: {text}")


def _garbage(data: bytes) -> ProtocolError:
    return ProtocolError(f"this is no reply of RESP: {_shown(data)}")


def _shown(data: bytes) -> str:
    return ascii(data[:40].decode("latin-1")) + ("..." if len(data) > 40 else "")
