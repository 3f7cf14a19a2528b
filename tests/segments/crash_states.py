"""The crash states of a shard's history: what a kill or a power cut can leave at every moment of it, opened and judged.

    history (crash_history.py) --calls--> FaultyDisk --before each call that changes anything--> CrashStates
                                                                                                     |
        a moment = the calls so far;  a fate = which of what is not durable survives;  a state = moment x fate
                                                                                                     |
                                                             a fresh directory, opened, judged by the history's model

What is not durable survives by blocks: each block of a file stands as it was after some number of the writes since the
last sync, each name as it was before or after, the length of a file likewise, all independent of one another.
A state is right when
  * opening it raises nothing;
  * what it holds is exactly what the history held behind one of its records (or in front of the first): a prefix of
    the order, and no LSN in the middle of an atomic batch;
  * that record is not older than anything promised: after a kill what was replied, after a power cut what was
    acknowledged or called durable;
  * opening it again gives the same (rule 9), and so does a crash at any moment of opening it;
  * a key written behind it, and all maintenance, leave it so.
Damage that recovery calls corruption (`suspect_lsn`) may answer Corrupt, and nothing else that is not right; only fates
that tear records apart may lead there.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from kio.errors import Corrupt
from kio.segments import format
from kio.segments._hints import crc32c
from kio.segments.disk import Disk
from kio.segments.store import StoreOptions
from tests.segments.crash_history import KEYS, KEYSPACES, NUMBER_KEY, History, Promise
from tests.segments.faulty_disk import CarelessDisk, FaultyDisk, File, apply_change
from tests.segments.support import Driven, Time, unopened

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096
NESTED_SHARE: Final = 0.1
#: In a record: LSN, epoch, kind and flags, keyspace.
_HEADER_BYTES: Final = [*range(8, 20), 22, 23]

#: Relative path -> content.
State = dict[Path, bytes]


class Fate(NamedTuple):
    """What a crash leaves of that which is not durable."""

    name: str
    keeps_name: Callable[[random.Random], bool]
    #: Given a file, chance, and whether it is the one that was written to last.
    content: Callable[[File, random.Random, bool], bytes]
    #: The process was killed and the machine goes on; else the power was cut.
    is_kill: bool = False
    #: It may leave records with a hole inside, or changed ones.
    tears: bool = False
    #: Only at a moment inside of a write.
    is_inside: bool = False


class Violation(Exception):
    """A state that is not right, and why."""


# ---- fates ----


def _after(file: File, changes: int) -> bytes:
    """The file after its first `changes` changes that are not durable."""
    content = bytearray(file.durable)
    for change in file.pending[:changes]:
        apply_change(content, *change)
    return bytes(content)


def _whole(file: File, _: random.Random, __: bool) -> bytes:
    return _after(file, len(file.pending))


def _durable(file: File, _: random.Random, __: bool) -> bytes:
    return bytes(file.durable)


def _whole_or_durable(file: File, chance: random.Random, _: bool) -> bytes:
    return _after(file, len(file.pending) * chance.randrange(2))


def _torn(file: File, chance: random.Random, changes: int) -> bytes:
    """The file after `changes` changes, the next one begun."""
    content = bytearray(_after(file, changes))
    if changes < len(file.pending):
        kind, number, data = file.pending[changes]
        apply_change(content, kind, number, data[: chance.randrange(len(data) + 1)] if kind == "write" else data)
    return bytes(content)


def _in_order(file: File, chance: random.Random, _: bool) -> bytes:
    return _torn(file, chance, chance.randint(0, len(file.pending)))


def _last_write_torn(file: File, chance: random.Random, is_last: bool) -> bytes:
    is_torn = is_last and file.pending and file.pending[-1][0] == "write"
    return _torn(file, chance, len(file.pending) - 1) if is_torn else _after(file, len(file.pending))


def _by_blocks(block_bytes: int) -> Callable[[File, random.Random, bool], bytes]:
    def content(file: File, chance: random.Random, _: bool) -> bytes:
        changes = len(file.pending)
        versions = [_after(file, n) for n in sorted({0, changes, *(chance.randint(0, changes) for _ in range(4))})]
        longest = max(map(len, versions))
        blocks = (chance.choice(versions)[at : at + block_bytes] for at in range(0, longest, block_bytes))
        whole = b"".join(block.ljust(block_bytes, b"\0") for block in blocks)
        return whole[: len(chance.choice(versions))]

    return content


def header_damaged(*, is_checked: bool) -> Callable[[File, random.Random, bool], bytes]:
    """One bit of the header of a record that is not durable is another; a checksum that leaves it out still holds."""

    def content(file: File, chance: random.Random, _: bool) -> bytes:
        whole = bytearray(_after(file, len(file.pending)))
        writes = [offset for kind, offset, _ in file.pending if kind == "write" and offset >= format.HEADER.size]
        if not whole.startswith(format.SEGMENT_MAGIC) or not writes:
            return bytes(whole)
        header = format.decode_header(whole)
        seed = format.crc_seed(header.shard, header.segment, header.salt)
        at = chance.choice(writes)
        with suppress(Corrupt):  # what was written there is no record, or was cut again
            _, size = format.decode_record(bytes(whole[at:]), seed)
            whole[at + chance.choice(_HEADER_BYTES)] ^= 1 << chance.randrange(8)
            if not is_checked:
                whole[at : at + 4] = struct.pack("<I", crc32c(bytes(whole[at + 4 : at + size]), seed))
        return bytes(whole)

    return content


def _always(_: random.Random) -> bool:
    return True


def _never(_: random.Random) -> bool:
    return False


def _perhaps(chance: random.Random) -> bool:
    return chance.random() < 0.5


FATES: Final = (
    Fate("killed", _always, _whole, is_kill=True),
    Fate("killed inside a write", _always, _last_write_torn, is_kill=True, is_inside=True),
    Fate("all", _always, _whole),
    Fate("none", _never, _durable),
    Fate("names, no bytes", _always, _durable),
    Fate("bytes, no names", _never, _whole),
    Fate("some files", _perhaps, _whole_or_durable),
    Fate("in order", _perhaps, _in_order),
    Fate("by pages", _perhaps, _by_blocks(PAGE_BYTES), tears=True),
    Fate("by sectors", _perhaps, _by_blocks(SECTOR_BYTES), tears=True),
    Fate("by sectors, names kept", _always, _by_blocks(SECTOR_BYTES), tears=True),
    Fate("header damaged", _always, header_damaged(is_checked=True), tears=True),
)
#: What "header damaged" leaves of a store whose checksum leaves the headers out.
HEADER_UNCHECKED: Final = Fate("header unchecked", _always, header_damaged(is_checked=False), tears=True)


# ---- judging ----


class AfterPowerCut(CarelessDisk):
    """The disk of a machine that was booted anew."""

    def boot_id(self) -> str:
        return "after a power cut"


class _Recovering(FaultyDisk):
    """A disk that is watched while a state is recovered."""

    def boot_id(self) -> str:
        return "after a power cut"


class Seen(NamedTuple):
    """What an opened shard shows."""

    lsn: int
    items: dict[int, dict[bytes, bytes]]
    keys: int
    live_bytes: int
    suspect_lsn: int


@dataclass
class CrashStates:
    """Enumerates the states of one history, and judges them; `watch` begins.

    Args:
        directory: to work in; what it holds is removed.
        share: the part of all states that is looked at.
        nested: the part of those whose recovery is enumerated as well; a tenth of its states is looked at.
        stops_early: look at no more states after the first violation.
    """

    directory: Path
    options: StoreOptions
    history: History
    fates: Sequence[Fate] = FATES
    share: float = 1.0
    nested: float = 0.05
    stops_early: bool = False
    states: int = 0
    moments: int = 0
    suspects: int = 0
    violations: list[str] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def watch(self, disk: FaultyDisk, source: Path) -> None:
        """Look at every moment of what `disk` does in `source` from now on."""
        disk.on_change = lambda kind: self._moment(disk, source, kind, f"call {disk.calls['any']}")

    def _moment(self, disk: FaultyDisk, source: Path, kind: str, moment: str, outer: Fate | None = None) -> None:
        """Look at a moment; `outer` is the fate of the state that is being recovered."""
        self.moments += 1
        moment += ", written" if kind == "written" else f", before {kind}"
        for chosen in self.fates:
            fate = chosen
            if fate.is_inside != (kind == "written") or self._chance.random() >= self.share:
                continue
            chance = random.Random(f"{self.moments} {fate.name}")
            if self.stops_early and self.violations:
                return
            state = self._state(disk, source, fate, chance)
            promise = self.history.promise(is_kill=fate.is_kill and (outer is None or outer.is_kill))
            fate = fate._replace(tears=fate.tears or (outer is not None and outer.tears))
            name = blake2b(repr((sorted(state.items()), promise, fate.is_kill, fate.tears)).encode()).digest()
            if name in self._seen:
                continue
            self._seen.add(name)
            self.states += 1
            try:
                self._judge(state, promise, fate, chance)
                if outer is None and chance.random() < self.nested:
                    self._crash_while_recovering(state, moment, fate)
            except Violation as violation:
                self.violations.append(f"{moment}, fate {fate.name!r}: {violation}")

    def _state(self, disk: FaultyDisk, source: Path, fate: Fate, chance: random.Random) -> State:
        files = disk.surviving_files(source, lambda: fate.keeps_name(chance))
        return {
            path.relative_to(source): fate.content(file, chance, file is disk.last_written)
            for path, file in sorted(files.items())
            if path.name != "LOCK"
        }

    def _judge(self, state: State, promise: Promise, fate: Fate, chance: random.Random) -> None:
        driven = self._materialise("judged", state, CarelessDisk() if fate.is_kill else AfterPowerCut())
        self._open(driven)
        try:
            seen = self._look(driven)
            self._compare(driven, seen, promise, fate)
            self._reopen(driven)
            self._same(seen, self._look(driven), "opened again")
            if not seen.suspect_lsn and chance.random() < 0.25:
                self._live_on(driven, seen)
        finally:
            if hasattr(driven, "store"):
                driven.kill()

    def _materialise(self, name: str, state: State, disk: Disk) -> Driven:
        path = self.directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for file, content in state.items():
            (path / file).write_bytes(content)
        driven = unopened(path, self.options, disk)
        driven.clock = Time(self.history.now_ms).clock
        return driven

    def _open(self, driven: Driven) -> None:
        try:
            driven.open()
        except Exception as error:  # whatever it is, it is not right
            raise Violation(f"opening raised {error!r}") from error

    def _reopen(self, driven: Driven) -> None:
        driven.kill()
        del driven.store
        self._open(driven)

    def _look(self, driven: Driven) -> Seen:
        store = driven.store
        stats = store.stats()
        suspect_lsn = store._engine.suspect_lsn
        items = {} if suspect_lsn else {keyspace: driven.items(keyspace=keyspace) for keyspace in KEYSPACES}
        return Seen(store.lsn, items, stats["keys"], stats["live_bytes"], suspect_lsn)

    def _compare(self, driven: Driven, seen: Seen, promise: Promise, fate: Fate) -> None:
        if not promise.lsn_min <= seen.lsn <= promise.lsn_max:
            raise Violation(f"LSN {seen.lsn} was recovered, {promise.lsn_min} to {promise.lsn_max} were right")
        expected = self.history.visible(seen.lsn)
        if expected is None:
            raise Violation(f"LSN {seen.lsn} was recovered, which is inside of an atomic batch")
        if seen.suspect_lsn:
            if not fate.tears:
                raise Violation(f"records up to LSN {seen.suspect_lsn} are called damaged")
            self.suspects += 1
        elif seen.items != expected:
            raise Violation(f"LSN {seen.lsn} gives {seen.items}, not {expected}")
        for keyspace in KEYSPACES:
            for key, answer in driven.answers([*KEYS, NUMBER_KEY], keyspace).items():
                if answer != expected[keyspace].get(key) and not (seen.suspect_lsn and answer is Corrupt):
                    raise Violation(f"{key!r} of {keyspace} is {answer!r}, not {expected[keyspace].get(key)!r}")

    def _same(self, before: Seen, after: Seen, when: str) -> None:
        if before != after:
            raise Violation(f"{when}, it is {after}, and was {before}")

    def _live_on(self, driven: Driven, before: Seen) -> None:
        """Write behind what was recovered, let all maintenance run, and open it once more."""
        driven.put(b"behind", b"it")
        driven.sync()
        driven.maintain()
        self._reopen(driven)
        if not driven.delete(b"behind"):
            raise Violation("what was written behind the recovered records is gone")
        after = self._look(driven)
        if after.lsn != before.lsn + 2:
            raise Violation(f"LSN {after.lsn} follows {before.lsn} and two more records")
        if after.items != before.items:
            raise Violation(f"maintenance made {after.items} of {before.items}")

    def _crash_while_recovering(self, state: State, moment: str, fate: Fate) -> None:
        """Another power cut at every moment of the recovery from this one."""
        disk = _Recovering()
        driven = self._materialise("recovering", state, disk)
        share, self.share = self.share, NESTED_SHARE
        disk.on_change = lambda kind: self._moment(
            disk, driven.path, kind, f"{moment}, fate {fate.name!r}, recovery", outer=fate
        )
        try:
            self._open(driven)
        finally:
            self.share = share
            disk.on_change = None
        driven.kill()
