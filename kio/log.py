"""The log lines of every process: one subject, one verb, then key=value with units in the names.

    shard=3 seal: segment=42 records=91234 bytes=67108864 took_ms=18

A warning heals itself; an error needs a person, and its `run` field names the next command. Under journald a line
begins with the priority as sd-daemon(3) has it, and journald keeps the time; elsewhere with UTC time and level.

Owns: the root logger's one handler, on stderr. Never does: write files, rotate, or open a socket.
Invariants:
  * one event is one line in the text format, and one message in the journal, whatever its values hold: control
    characters are escaped, so that nothing a client sends can forge a line;
  * a line is one write to stderr, which all processes of the daemon share.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TextIO

from kio.clock import monotonic_s

#: A longer value is cut, and its full length told.
VALUE_CHARACTERS_MAX: Final = 240
#: Distinct faults that one `Repeats` remembers; past it the one that was quiet longest is forgotten.
FAULTS_MAX: Final = 256

#: Whatever could end a line, move the cursor, or reorder what stands around it on a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN: Final = re.compile(r"[^\s\"=\\]+")
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def fields(**values: object) -> str:
    r"""`values` as `key=value key=value`, in the order given.

    Text and bytes that hold spaces, quotes, `=` or `\` are quoted; control characters and bytes that are not UTF-8 are
    escaped; None is left out.

    >>> fields(segment=42, took_ms=1.5, key=b"a b\n", reason=None, ok=True)
    'segment=42 took_ms=1.5 key="a b\\n" ok=true'
    """
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items() if value is not None)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes | bytearray) else str(value)
    rest = len(text) - VALUE_CHARACTERS_MAX
    if rest > 0:
        text = text[:VALUE_CHARACTERS_MAX]
    if not _PLAIN.fullmatch(text) or _CONTROL.search(text):
        text = '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return f"{text}...(+{rest})" if rest > 0 else text


def _escaped(text: str) -> str:
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as surrogateescape carries it
        code -= 0xDC00
    short = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class Log:
    """Writes lines about one subject, such as `shard=3`.

    `name` is the logger's, a module's `__name__`. Lines below the level cost one check and are not built.
    """

    __slots__ = ("_logger", "_prefix")

    def __init__(self, name: str, **subject: object) -> None:
        self._logger = logging.getLogger(name)
        self._prefix = fields(**subject) + " " if subject else ""

    def debug(self, verb: str, /, **values: object) -> None:
        """What a developer of kio wants to see."""
        self._write(logging.DEBUG, verb, values)

    def info(self, verb: str, /, **values: object) -> None:
        """What an operator wants to find later."""
        self._write(logging.INFO, verb, values)

    def warning(self, verb: str, /, **values: object) -> None:
        """A fault that heals itself."""
        self._write(logging.WARNING, verb, values)

    def error(self, verb: str, /, **values: object) -> None:
        """A fault that needs a person: say in `run` which command comes next."""
        self._write(logging.ERROR, verb, values)

    def exception(self, verb: str, /, **values: object) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, verb, values, traceback=True)

    def _write(self, level: int, verb: str, values: Mapping[str, object], *, traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            tail = fields(**values)
            line = f"{self._prefix}{verb}: {tail}" if tail else f"{self._prefix}{verb}"
            self._logger.log(level, "%s", line, exc_info=traceback)


class Repeats:
    """Warns about faults that may repeat without end: each at once when it is new, then once an interval with a count.

    Used by one thread, whose loop calls `tick` now and then. A fault is told apart by its verb and `fault`; the other
    values of a line are those of the case that wrote it.
    """

    def __init__(self, log: Log, interval_s: float = 10.0, clock: Callable[[], float] = monotonic_s) -> None:
        self._log = log
        self._interval_s = interval_s
        self._clock = clock
        #: (verb, fault) -> (when it was last written, how often it was kept back since); the quiet longest first.
        self._seen: OrderedDict[tuple[str, object], tuple[float, int]] = OrderedDict()

    def warning(self, verb: str, /, fault: object, **values: object) -> None:
        """Write the fault, or count it when it was written less than an interval ago."""
        now = self._clock()
        key = (verb, fault)
        written, kept_back = self._seen.pop(key, (None, 0))
        if written is not None and now - written < self._interval_s:
            self._seen[key] = (written, kept_back + 1)
            return
        self._log.warning(verb, fault=fault, **values, repeated=kept_back or None)
        self._seen[key] = (now, 0)
        if len(self._seen) > FAULTS_MAX:
            self._forget(next(iter(self._seen)))

    def tick(self) -> None:
        """Write the counts of the faults that stopped: what was kept back an interval ago and has not come again."""
        now = self._clock()
        for key in [key for key, (written, _) in self._seen.items() if now - written >= self._interval_s]:
            self._forget(key)

    def _forget(self, key: tuple[str, object]) -> None:
        verb, fault = key
        _, kept_back = self._seen.pop(key)
        if kept_back:
            self._log.warning(verb, fault=fault, repeated=kept_back)


class LineFormatter(logging.Formatter):
    """A log record as one line; a traceback follows, each of its lines indented."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        text = _escaped(record.getMessage())
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            text = "\n    ".join([text, *map(_escaped, trace)])
        if self._journal:
            priority = f"<{_PRIORITIES.get(record.levelno, 6)}>"
            return priority + text.replace("\n", "\n" + priority)
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z {record.levelname.lower():7} {text}"


def configure(
    level: str = "info",
    format: str = "auto",
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send every log line of this process to stderr; a second call replaces the first.

    Args:
        level, format: the settings `log_level` and `log_format`.
        stream: where to write instead of stderr.
        environ: where JOURNAL_STREAM is looked for.
    """
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    journal = format == "journal" or (format == "auto" and is_journal(target, environ))
    handler.setFormatter(LineFormatter(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` leads to journald: JOURNAL_STREAM names its device and inode."""
    named = environ.get("JOURNAL_STREAM", "")
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{stat.st_dev}:{stat.st_ino}"
