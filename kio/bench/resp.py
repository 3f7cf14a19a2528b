"""RESP2, the protocol of Redis and of the servers that speak as it does, from the side of a client that only counts.

Replies are walked, never built: the bytes of a value are skipped as they come, so that a value of any size costs no
copy. Runs of like replies, the common case, are one match of a pattern: values of one length, and equal lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from kio.bench.frames import COUNTER_SUFFIX, FAILED, Tally
from kio.bench.plan import DELETE, EXPIRE, INCR, READ, RMW, Plan
from kio.errors import ConfigError, ConnectionLost, KioError, ProtocolError

CRLF: Final = b"\r\n"
#: A reply's line that is longer than this without an end is no reply.
LINE_BYTES_MAX: Final = 64 << 10
#: A bulk string or an array that announces more than this is no reply of a server that was asked for little.
COUNT_MAX: Final = 1 << 30
#: An error's code, the first word of its message, is cut at this length.
CODE_CHARACTERS_MAX: Final = 40
#: How a frame of kio's own protocol begins when it answers something that is no frame: short, so two bytes of 0.
_KIO_BEGINS: Final = b"\0\0"
_TYPES: Final = b"+-:$*"

_BULK, _ERROR, _ARRAY, _STATUS, _NUMBER = b"$-*+:"
#: A reply whose first line is longer repeats too seldom to be looked for.
_ALIKE_LINE_BYTES_MAX: Final = 32


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


class _Alike:
    """Replies of one type that begin with the same line; a second one in a row is expected to be followed by more."""

    __slots__ = ("_line", "run", "size")

    def __init__(self) -> None:
        self._line = b""
        #: Finds how many of these replies stand at a place, one after the other; None where none is expected.
        self.run: Callable[[bytes, int], re.Match[bytes] | None] | None = None
        #: The bytes of one of them.
        self.size = 0

    def see(self, line: bytes, value_bytes: int) -> None:
        """One more came: its first line, CRLF included, and the length of the value after it, 0 where it has none."""
        if line != self._line:
            self._line, self.run = line, None
        elif self.run is None and len(line) <= _ALIKE_LINE_BYTES_MAX:
            value = b".{%d}\r\n" % value_bytes if line[0] == _BULK else b""
            # Made once for each line; the module remembers it.
            self.run = re.compile(b"(?:%b%b)++" % (re.escape(line), value), re.DOTALL).match
            self.size = len(line) + (value_bytes + len(CRLF) if value else 0)


class RespReplies:
    """The replies of one connection. Between two calls of `take` it holds part of a line at most, never a value."""

    __slots__ = (
        "_alike",
        "_batch",
        "_codes",
        "_done",
        "_failed",
        "_nils",
        "_open",
        "_rest",
        "_skip",
        "_tally",
        "error",
    )

    def __init__(self, tally: Tally, batch: int) -> None:
        self._tally = tally
        self._batch = batch
        self.error: KioError | None = None
        self._rest = b""
        #: Bytes of a value, its CRLF included, that are still to come.
        self._skip = 0
        #: Elements of arrays that are still to come; 0 between two replies.
        self._open = 0
        #: Of this call of `take`: replies that are done, and which of them have failed.
        self._done = 0
        self._failed: list[int] = []
        #: Errors and nils among the elements so far.
        self._codes: list[str] = []
        self._nils = 0
        #: What repeats among whole replies, by their first byte.
        self._alike = {_BULK: _Alike(), _STATUS: _Alike(), _NUMBER: _Alike()}

    def take(self, data: bytes) -> bytes:
        """See frames.Replies."""
        self._done = 0
        try:
            self._walk(data)
        except ProtocolError as error:
            self.error = error
        if not self._failed:
            return bytes(self._done)
        outcomes = bytearray(self._done)
        for place in self._failed:
            outcomes[place] = FAILED
        self._failed.clear()
        return bytes(outcomes)

    def _walk(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = len(data)
        at = 0
        if self._skip:
            at = min(self._skip, end)
            self._skip -= at
            if self._skip:
                return
            if not CRLF.endswith(data[max(0, at - 2) : at]):
                raise _unended()
            self._close_one()
        while at < end:
            if not self._open:
                alike = self._alike.get(data[at])
                if alike is not None and alike.run is not None and (run := alike.run(data, at)) is not None:
                    self._done += (run.end() - at) // alike.size
                    at = run.end()
                    continue
            line_end = data.find(CRLF, at)
            if line_end < 0:
                if end - at > LINE_BYTES_MAX or data[at] not in _TYPES:
                    raise _garbage(data[at:])
                self._rest = data[at:]
                return
            at = self._element(data, at, line_end)
            if at > end:
                self._skip = at - end
            else:
                self._close_one()

    def _element(self, data: bytes, at: int, line_end: int) -> int:
        """Look at the element whose first line stands from `at` to `line_end`.

        Returns:
            Where it ends, past the end of `data` where it is not whole.
        """
        kind = data[at]
        after = line_end + len(CRLF)
        if kind == _BULK:
            return self._value_end(data, at, line_end)
        if kind == _ERROR:
            code = data[at + 1 : line_end].partition(b" ")[0].decode("ascii", "replace")[:CODE_CHARACTERS_MAX] or "ERR"
            if self._open:
                self._codes.append(code)
            else:
                self._tally.fail(code, self._batch)
                self._failed.append(self._done)
        elif kind == _ARRAY:
            count = _count(data, at, line_end)
            if count > 0:
                # Its elements take its place: within another array it is one itself. One more, which closes now.
                self._open += count + (0 if self._open else 1)
            elif count < 0:
                self._nil(self._batch)
        elif kind not in _TYPES:
            raise _garbage(data[at:])
        elif not self._open:
            self._alike[kind].see(data[at:after], 0)
        return after

    def _close_one(self) -> None:
        """An element has come; it may complete a reply."""
        if self._open:
            self._open -= 1
            if self._open:
                return
            self._tally.missing += self._nils
            self._nils = 0
            for code in self._codes:
                self._tally.fail(code, 1)
            self._codes.clear()
        self._done += 1

    def _nil(self, keys: int) -> None:
        """Nothing was found, for `keys` keys where it is the whole reply."""
        if self._open:
            self._nils += 1
        else:
            self._tally.missing += keys

    def _value_end(self, data: bytes, at: int, line_end: int) -> int:
        """Where the value whose header stands at `at` ends, which may be past what has come."""
        count = _count(data, at, line_end)
        start = line_end + len(CRLF)
        if count < 0:
            self._nil(1)
            return start
        after = start + count + len(CRLF)
        if after <= len(data):
            if not data.startswith(CRLF, after - 2):
                raise _unended()
            if not self._open:
                self._alike[_BULK].see(data[at:start], count)
        return after


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


def _count(data: bytes, at: int, line_end: int) -> int:
    """The number in a header: -1 is nil."""
    try:
        count = int(data[at + 1 : line_end])
    except ValueError:
        raise _garbage(data[at:]) from None
    if not -1 <= count <= COUNT_MAX:
        raise _garbage(data[at:])
    return count


def _unended() -> ProtocolError:
    return ProtocolError("a reply's value does not end where it should")


def _garbage(data: bytes) -> ProtocolError:
    return ProtocolError(f"this is no reply of RESP: {_shown(data)}")


def _shown(data: bytes) -> str:
    return ascii(data[:40].decode("latin-1")) + ("..." if len(data) > 40 else "")
