"""The exit codes of every verb: the numbers are the error classes' own (errors.py), their meaning stands here once.

Codes from 64 on are those of sysexits(3) where it has one. A test holds this table and the error classes together.
"""

from __future__ import annotations

from typing import Final

DONE: Final = 0
#: Not found, or a part of the work failed: the message says which.
FAILED: Final = 1
USAGE: Final = 2
CORRUPT: Final = 65
INTERNAL: Final = 70
INPUT_OUTPUT: Final = 74
#: 128 + the signal's number, as a shell reports it.
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

MEANINGS: Final[dict[int, str]] = {
    DONE: "done",
    FAILED: "the key is not there, a condition does not hold, or a part failed",
    USAGE: "wrong usage, or a request that can never succeed (a key too long)",
    CORRUPT: "data on disk is corrupt",
    69: "the daemon cannot be reached",
    INTERNAL: "kio is at fault",
    73: "the data directory is in use by another process",
    INPUT_OUTPUT: "a file cannot be read or written, or the daemon's disk failed",
    75: "the daemon cannot answer now; try again",
    76: "another protocol, or a file of a newer version",
    77: "the daemon does not know this user, or the user may not do this",
    78: "a setting is wrong, or this is not a kio data directory",
    124: "the deadline passed",
    INTERRUPTED: "interrupted with Ctrl-C",
    BROKEN_PIPE: "the reader of stdout went away",
}


def table() -> str:
    """The table that ends `kio --help`."""
    return "Exit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
