"""The oracle: values that tell who wrote them, a file of what was acknowledged, and the judge of what is read later.

Owns: the format of test values, the journal of one writer, and `KeyState`, the set of outcomes that one key may have.
Every key has one writer, which numbers its operations on it: version 1, 2, 3... whether set or delete. So what a later
read may return follows from the journal alone:

    acked          the client has read the positive reply: this outcome holds until a later operation
    unknown        no reply, or one that says "maybe applied": either outcome, but only one, for ever
    refused        the reply says that nothing was applied: this version is never seen
    fading         set with a short time to live: there or gone, but never there again, and gone in the end

An unknown write never overtakes a later acknowledged one of the same client, since both travel in order; the one
exception is a write whose deadline passed, which may still wait behind a process that stood still: it stays possible
until seen. The writer judges its own reads with `KeyState` while it runs; `judge` replays the journals after a restart
with the same class.

Not here: the processes that write (writer.py), the daemon (daemon.py).
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The outcome of a delete, and of a key never written.
ABSENT = 0
#: The codes of errors.py by which a write may still be applied after later ones: Timeout.
LATE_CODES = frozenset({36})


class WrongValueError(AssertionError):
    """Raised when bytes are not a value that any writer made for this key."""


def make_value(key: bytes, version: int) -> bytes:
    """The value of `key` at `version`: names both, has a length of 0.1 to 70 KiB that follows from them, and a
    checksum.
    """
    dice = random.Random(f"{key!r}/{version}")
    length = dice.choices((dice.randint(0, 200), dice.randint(200, 4_000), dice.randint(4_000, 70_000)), (70, 20, 10))[
        0
    ]
    body = b"%s|%d|%d|" % (key, version, length) + dice.randbytes(length)
    return body + zlib.crc32(body).to_bytes(4, "big")


def version_of(key: bytes, value: bytes | None) -> int:
    """The version that `value` of `key` carries; ABSENT for None.

    Raises:
        WrongValueError: when it is not byte for byte what `make_value` gives for this key and some version.
    """
    if value is None:
        return ABSENT
    body, checksum = value[:-4], value[-4:]
    if zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise WrongValueError(f"key {key!r}: a value nobody wrote: {len(value)} bytes that begin with {value[:60]!r}")
    name, version, _ = body.split(b"|", 2)
    if name != key or value != make_value(key, int(version)):
        raise WrongValueError(f"key {key!r}: a value nobody wrote there: it says key {name[:60]!r} version {version!r}")
    return int(version)


@dataclass
class KeyState:
    """What one key may hold, given all that its writer knows."""

    possible: set[int] = field(default_factory=lambda: {ABSENT})
    #: Outcomes of timed out writes, which may still come.
    late: set[int] = field(default_factory=set)
    #: version -> its outcome, of operations sent and not yet answered.
    pending: dict[int, int] = field(default_factory=dict)
    #: Versions with a short time to live.
    fading: set[int] = field(default_factory=set)
    acked: int = 0

    def begin(self, version: int, is_delete: bool, *, fades: bool = False) -> None:
        self.pending[version] = ABSENT if is_delete else version
        if fades:
            self.fading.add(version)

    def ack(self, version: int) -> None:
        self.possible = self._becomes(self.pending.pop(version))
        self.acked = version

    def _becomes(self, outcome: int) -> set[int]:
        """What the key may hold from now on, given that it has come to this."""
        return {outcome} | self.late | ({ABSENT} if outcome in self.fading else set())

    def unknown(self, version: int, code: int) -> None:
        outcome = self.pending.pop(version)
        self.possible.add(outcome)
        if outcome in self.fading:
            self.possible.add(ABSENT)
        if code in LATE_CODES:
            self.late.add(outcome)

    def refuse(self, version: int) -> None:
        del self.pending[version]

    def abandon(self) -> None:
        """Whatever is pending will never be answered: the writer is gone."""
        for version in list(self.pending):
            self.unknown(version, max(LATE_CODES))

    def observe(self, outcome: int) -> str | None:
        """Take over what a read returned; the violation in words where it must not have returned that."""
        if outcome not in self.possible:
            return self._explain(outcome)
        self.possible = self._becomes(outcome)
        if outcome != ABSENT:
            self.late.discard(outcome)
        return None

    def _explain(self, outcome: int) -> str:
        seen = "absent" if outcome == ABSENT else f"version {outcome}"
        allowed = ", ".join("absent" if o == ABSENT else f"version {o}" for o in sorted(self.possible))
        if outcome == ABSENT:
            kind = "lost"
        elif outcome > self.acked:
            kind = "applied although refused, or undone by a later read"
        elif self.possible == {ABSENT}:
            kind = "deleted and back again"
        else:
            kind = "an older value"
        return f"{kind}: {seen}, allowed is {allowed}; version {self.acked} was the last acknowledged"


class Watched:
    """What one reader sees of keys that somebody else writes: versions never go back, and what was gone stays gone."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self._lowest: dict[bytes, int] = {}

    def observe(self, key: bytes, outcome: int) -> str | None:
        """Take over what a read returned; the violation in words where it must not have returned that."""
        if outcome == ABSENT:
            self._lowest[key] = self._seen.get(key, ABSENT) + 1
            return None
        lowest = self._lowest.get(key, ABSENT)
        if outcome < lowest:
            return (
                f"went back for a reader: version {outcome} after version {self._seen[key]}, {lowest} is the lowest now"
            )
        self._seen[key] = self._lowest[key] = outcome
        return None


class Journal:
    """The file of one writer: a line before each operation and one after its outcome, written at once."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.states: dict[bytes, KeyState] = {}
        self.watched = Watched()

    def state(self, key: bytes) -> KeyState:
        return self.states.setdefault(key, KeyState())

    def begin(self, versions: Mapping[bytes, int], is_delete: bool, *, fades: bool = False) -> None:
        for key, version in versions.items():
            self.state(key).begin(version, is_delete, fades=fades)
        letter = "D" if is_delete else "F" if fades else "S"
        self._write(f"{letter}\t{key.decode()}\t{version}" for key, version in versions.items())

    def ack(self, versions: Mapping[bytes, int]) -> None:
        for key, version in versions.items():
            self.states[key].ack(version)
        self._write(f"A\t{key.decode()}\t{version}" for key, version in versions.items())

    def fail(self, versions: Mapping[bytes, int], code: int, maybe_applied: bool) -> None:
        for key, version in versions.items():
            if maybe_applied:
                self.states[key].unknown(version, code)
            else:
                self.states[key].refuse(version)
        letter = "U" if maybe_applied else "N"
        self._write(f"{letter}\t{key.decode()}\t{version}\t{code}" for key, version in versions.items())

    def observe(self, key: bytes, value: bytes | None) -> None:
        """Judge a read of an own key; a violation is written down, and the judge of the journals raises it later."""
        outcome = self._outcome(key, value)
        if outcome is not None and not self._tell(key, self.state(key).observe(outcome)):
            self._write([f"R\t{key.decode()}\t{outcome}"])

    def watch(self, key: bytes, value: bytes | None) -> None:
        """Judge a read of another writer's key."""
        outcome = self._outcome(key, value)
        if outcome is not None:
            self._tell(key, self.watched.observe(key, outcome))

    def _outcome(self, key: bytes, value: bytes | None) -> int | None:
        try:
            return version_of(key, value)
        except WrongValueError as error:
            self.violate(str(error))
            return None

    def _tell(self, key: bytes, violation: str | None) -> bool:
        if violation is not None:
            self.violate(f"key {key!r} {violation}")
        return violation is not None

    def note(self, text: str) -> None:
        """A read that failed, or whatever else helps to understand the journal."""
        self._write(["#\t" + " ".join(text.split())])

    def violate(self, text: str) -> None:
        self._write(["V\t" + " ".join(text.split())])

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, lines: Iterable[str]) -> None:
        os.write(self._fd, "".join(line + "\n" for line in lines).encode())


@dataclass
class Verdict:
    """What the journals say, and what of it the store did not keep."""

    states: dict[bytes, KeyState] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    acked: int = 0
    unknown: int = 0
    refused: int = 0

    def judge(self, contents: Mapping[bytes, bytes], *, has_faded: bool = False) -> None:
        """Compare with everything that the store holds: all keys, no more and no less.

        Args:
            has_faded: the time of whatever fades is over.
        """
        for key, state in self.states.items():
            try:
                outcome = version_of(key, contents.get(key))
                violation = state.observe(outcome)
                if violation is None and has_faded and outcome in state.fading:
                    violation = f"its time is over and it is there: version {outcome}"
            except WrongValueError as error:
                violation = str(error)
            if violation is not None:
                self.violations.append(f"key {key!r} {violation}")
        for key in contents.keys() - self.states.keys():
            self.violations.append(f"key {key!r} is there and nobody wrote it")

    def __str__(self) -> str:
        shown = "".join("\n  " + v for v in self.violations[:20])
        counts = f"{self.acked} acked, {self.unknown} unknown, {self.refused} refused"
        return f"{counts}; {len(self.violations)} violations{shown}"


def read_journals(paths: Iterable[Path]) -> Verdict:
    """Replay the journals of writers that have ended; what they saw themselves is already among the violations."""
    verdict = Verdict()
    for path in paths:
        for line in path.read_text().splitlines():
            letter, _, rest = line.partition("\t")
            if letter == "V":
                verdict.violations.append(f"{path.name}: {rest}")
            elif letter != "#":
                _replay(verdict, letter, *rest.split("\t"))
    for state in verdict.states.values():
        state.abandon()
    return verdict


def _replay(verdict: Verdict, letter: str, name: str, number: str, code: str = "0") -> None:
    key, version = name.encode(), int(number)
    state = verdict.states.setdefault(key, KeyState())
    match letter:
        case "S" | "D" | "F":
            state.begin(version, letter == "D", fades=letter == "F")
        case "A":
            state.ack(version)
            verdict.acked += 1
        case "U":
            state.unknown(version, int(code))
            verdict.unknown += 1
        case "N":
            state.refuse(version)
            verdict.refused += 1
        case "R":
            state.observe(version)
        case _:
            raise AssertionError(f"a journal holds an unknown line {letter!r}")
