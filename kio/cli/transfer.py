"""What import and export share: the record that is moved, the tally of the run, and its closing line.

A record that cannot be moved (an unreadable file, a line without the key) is a fault: it is told at once with where it
came from, counted, and the rest goes on. An error that concerns the daemon or the whole target ends the run; the tally
is printed then too, as it is after Ctrl-C.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kio.cli import exit_codes, output

MIB: Final = 1 << 20


class Record(NamedTuple):
    """A key, its value, where they came from (a path, or file and line, for messages), and when it expires.

    `expire_at` is in seconds since 1970; None is never.
    """

    key: bytes
    value: bytes
    origin: str
    expire_at: float | None = None


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        records, bytes: what was moved; bytes are the values'.
        retried: records that were sent or read again after the client's own retries had run out.
        failed: records that could not be moved, each of them told.
        skipped: what is not data: symlinks, sockets, devices, keys that hold no string.
        kinds: of them, those whose kind is told.
    """

    tell: Callable[[str], None] = output.message
    records: int = 0
    bytes: int = 0
    retried: int = 0
    failed: int = 0
    skipped: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    is_interrupted: bool = False
    _began: float = field(default_factory=time.monotonic)

    def moved(self, value_bytes: int) -> None:
        """Count a record that was moved."""
        self.records += 1
        self.bytes += value_bytes

    def fault(self, origin: str, why: str) -> None:
        """Tell and count a record that cannot be moved."""
        self.failed += 1
        self.tell(f"{origin}: {why}")

    def skip(self, kind: str) -> None:
        """Count something that is not data, of a kind that is worth telling."""
        self.skipped += 1
        self.kinds[kind] += 1

    @property
    def exit_code(self) -> int:
        """What the run exits with."""
        if self.is_interrupted:
            return exit_codes.INTERRUPTED
        return exit_codes.FAILED if self.failed else exit_codes.DONE

    def fields(self) -> dict[str, Any]:
        """The tally as --json prints it."""
        seconds = max(time.monotonic() - self._began, 0.001)
        return {
            "records": self.records,
            "bytes": self.bytes,
            "seconds": round(seconds, 3),
            "records_per_s": round(self.records / seconds),
            "bytes_per_s": round(self.bytes / seconds),
            "retried": self.retried,
            "failed": self.failed,
            "skipped": self.skipped,
            "skipped_kinds": dict(self.kinds),
            "interrupted": self.is_interrupted,
        }

    def text(self, verb: str) -> str:
        """The tally as one line: `imported 20,000 records, ...`."""
        now = self.fields()
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        return (
            f"{verb} {self.records:,} records, {self.bytes / MIB:,.1f} MiB in {now['seconds']:,.1f} s "
            f"({now['records_per_s']:,} records/s, {now['bytes_per_s'] / MIB:,.1f} MiB/s), "
            f"{self.retried:,} retried, {self.failed:,} failed, {self.skipped:,} skipped"
            + (f" ({kinds})" if kinds else "")
            + (", interrupted" if self.is_interrupted else "")
        )


@contextmanager
def closing_line(tally: Tally, verb: str, *, json: bool, answer_on_stdout: bool = True) -> Iterator[None]:
    """Print the tally when the block ends, unless nobody reads stdout; Ctrl-C ends the block and is noted in it."""
    is_wanted = True
    try:
        yield
    except KeyboardInterrupt:
        tally.is_interrupted = True
    except BrokenPipeError:
        is_wanted = False
        raise
    finally:
        if is_wanted and not answer_on_stdout:
            output.message(tally.text(verb))
        elif is_wanted and json:
            output.as_json(tally.fields())
        elif is_wanted:
            output.line(tally.text(verb))
