"""A shard with a history, the ways in which its files get damaged, and what it may answer when it was repaired."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kio.errors import KioError
from kio.segments import format
from kio.segments.check import Fault, check_directory
from kio.segments.disk import DISK, Disk
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode
from kio.segments.manifest import NAME as MANIFEST_NAME
from kio.segments.manifest import Manifest, readable_edits
from kio.segments.options import StoreOptions
from kio.segments.repair import Plan, ShardFiles, open_shard
from kio.segments.repair_manifest import plan_manifest
from kio.segments.repair_segments import plan_checkpoint, plan_record, plan_segment
from kio.segments.segment import RECORDS_START, segment_id, segment_name
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import IDENTITY, Driven, unopened
from tests.segments.test_recovery import damage, records_of, segment_files

OPTIONS = StoreOptions(segment_bytes=1024, space_amplification=1000.0)
#: (keyspace, key)
Key = tuple[int, bytes]


@dataclass
class History:
    """A data directory of one shard that was killed, and everything that was ever written to it.

    Attributes:
        records: (segment, offset, record) of every record in its files.
        values: what each key ever was, None where it was deleted or cleared.
        model: what it holds.
    """

    data: Path
    records: list[tuple[int, int, format.Record]] = field(default_factory=list)
    values: dict[Key, set[bytes | None]] = field(default_factory=dict)
    model: dict[Key, bytes] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.data / "shard-0000"

    @property
    def sealed(self) -> list[Path]:
        """The sealed segments that hold records, oldest first."""
        state = Manifest.load(self.path, 0, IDENTITY.directory_id).state
        return [self.path / segment_name(e.id) for _, e in sorted(state.segments.items()) if e.state == "sealed"]

    @property
    def unsealed(self) -> list[Path]:
        """The others that hold records."""
        state = Manifest.load(self.path, 0, IDENTITY.directory_id).state
        files = (self.path / segment_name(e.id) for _, e in sorted(state.segments.items()) if e.state != "sealed")
        return [file for file in files if file.exists() and records_of(file)]

    def copied(self, target: Path) -> History:
        """The same in a copy of its files, to be damaged."""
        shutil.copytree(self.data, target)
        return History(target, self.records, self.values, self.model)

    def keys_in(self, lost: Callable[[int, int, format.Record], bool]) -> set[Key]:
        """The keys of the records that are lost; a clear stands for every key of its keyspace."""
        gone = [record for segment, offset, record in self.records if lost(segment, offset, record)]
        keys = {(record.keyspace, record.key) for record in gone if record.kind != format.CLEAR}
        cleared = {record.keyspace for record in gone if record.kind == format.CLEAR}
        return keys | {key for key in self.values if key[0] in cleared}

    def judge(self, affected: set[Key], stale: set[Key], options: StoreOptions = OPTIONS) -> None:
        """Open it: what is not affected reads right, what is affected is absent, or older where it is in `stale`."""
        driven = unopened(self.path, options, CarelessDisk()).open()
        for _ in range(2):
            answers = self._answers(driven)
            for key, answer in answers.items():
                assert not isinstance(answer, type), (key, answer)
                if key not in affected:
                    assert answer == self.model.get(key), key
                elif key in stale:
                    assert answer in self.values[key] | {None}, key
                else:
                    assert answer in (None, self.model.get(key)), key
            for space in {space for space, _ in self.values}:
                items = driven.items(keyspace=space)
                assert items == {k[1]: v for k, v in answers.items() if k[0] == space and v is not None}
                assert driven.count(space) == len(items)
            driven.put(b"new", b"value")
            driven.reopen()
            assert driven.get(b"new") == b"value"
            driven.delete(b"new")
        driven.compact()
        assert self._answers(driven) == answers
        driven.store.close()
        assert check_directory(self.data).faults == []

    def _answers(self, driven: Driven) -> dict[Key, bytes | type[KioError] | None]:
        return {(space, key): driven.answers([key], space)[key] for space, key in self.values}


def make_history(data: Path) -> History:
    """Sealed segments with overwrites, deletes, a clear and expiries, two segments never sealed, and a checkpoint."""
    driven = Driven(data / "shard-0000", OPTIONS, CarelessDisk())
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    history = History(data)

    def put(number: int, size: int, keyspace: int = 0) -> None:
        key = (keyspace, b"key %d" % number)
        value = (b"%d of key %d." % (driven.store.lsn, number) * 40)[:size]
        driven.put(key[1], value, keyspace)
        history.model[key] = value
        history.values.setdefault(key, set()).add(value)

    def delete(number: int) -> None:
        key = (0, b"key %d" % number)
        assert driven.delete(key[1])
        del history.model[key]
        history.values[key].add(None)

    def clear(keyspace: int) -> None:
        driven.clear(keyspace)
        for key in [key for key in history.model if key[0] == keyspace]:
            history.values[key].add(None)
            del history.model[key]

    for number in range(16):
        put(number, 60 + number * 5)
    put(1, 50, keyspace=3)
    delete(3)
    delete(4)
    put(1, 80)
    driven.run_jobs()
    clear(3)
    put(2, 50, keyspace=3)
    for number in (4, 5, 6, 7, 17, 18):
        put(number, 90)
    delete(5)
    driven.run_jobs()
    driven.restart()  # takes a checkpoint
    for number in (8, 9, 19, 1):
        put(number, 120)
    delete(9)
    put(2, 200)
    driven.run_jobs()
    clear(3)
    for number in (10, 3, 20, 21, 22, 10, 23):  # fills another segment, which is never sealed
        put(number, 150)
    driven.kill()
    for file in segment_files(driven.path):
        history.records += [(segment_id(file.name) or 0, offset, record) for offset, record in records_of(file)]
    assert len(history.sealed) >= 4
    assert len(history.unsealed) >= 2
    assert check_directory(data).faults == []
    return history


# ---- damage ----


@dataclass(frozen=True)
class Wound:
    """A damage; what the records are that are lost, and whether it stays unknown whose they were."""

    name: str
    inflict: Callable[[History], Callable[[int, int, format.Record], bool]]
    is_known: bool = False


def _nothing(_: int, __: int, ___: format.Record) -> bool:
    return False


def _record(file: Path, nth: int, at: int, count: int = 1) -> Callable[[int, int, format.Record], bool]:
    """Damage `count` records of a file from the `nth` on, `at` bytes behind their start."""
    found = records_of(file)[nth : nth + count]
    for offset, _ in found:
        damage(file, offset + at, bytes([file.read_bytes()[offset + at] ^ 0x5A]))
    lost = {(segment_id(file.name), offset) for offset, _ in found}
    return lambda segment, offset, _: (segment, offset) in lost


def _whole(file: Path) -> Callable[[int, int, format.Record], bool]:
    number = segment_id(file.name)
    return lambda segment, _, __: segment == number


def spoiled(file: Path, at: int) -> None:
    """Let one byte of a file be another."""
    damage(file, at, bytes([file.read_bytes()[at] ^ 0x5A]))


def _flip(file: Path, at: int) -> Callable[[int, int, format.Record], bool]:
    spoiled(file, at)
    return _nothing


def _missing(file: Path) -> Callable[[int, int, format.Record], bool]:
    lost = _whole(file)
    file.unlink()
    return lost


def _cut(file: Path, size: int) -> Callable[[int, int, format.Record], bool]:
    number = segment_id(file.name)
    os.truncate(file, size)
    return lambda segment, offset, _: segment == number and offset >= size - 32


def _with_hints(history: History) -> Callable[[int, int, format.Record], bool]:
    file = history.sealed[1]
    _flip(file, format.decode_footer(file.read_bytes()).hints_offset + 9)
    return _record(file, 0, 30, 2)


def _end_lost(file: Path) -> Callable[[int, int, format.Record], bool]:
    """The last record of a segment that was never sealed is zeros, as if it had not been written."""
    offset, _ = records_of(file)[-1]
    damage(file, offset, bytes(file.stat().st_size - offset))
    number = segment_id(file.name)
    return lambda segment, at, _: (segment, at) == (number, offset)


def _swapped(history: History) -> Callable[[int, int, format.Record], bool]:
    first, second = history.sealed[:2]
    shutil.copy(first, second)
    return _whole(second)


def _footer(file: Path) -> format.Footer:
    return format.decode_footer(file.read_bytes())


def _checkpoint(history: History) -> Path:
    (file,) = history.path.glob("*.ckpt")
    return file


WOUNDS = [
    Wound("header", lambda h: _flip(h.sealed[0], 20)),
    Wound("header of one never sealed", lambda h: _flip(h.unsealed[0], 41)),
    Wound("value of a record", lambda h: _record(h.sealed[1], 1, 50), is_known=True),
    Wound("checksum of every record", lambda h: _record(h.sealed[2], 0, 1, 99), is_known=True),
    Wound("key of a record", lambda h: _record(h.sealed[0], 2, 26)),
    Wound("two records and the hints", _with_hints),
    Wound("hints", lambda h: _flip(h.sealed[2], _footer(h.sealed[2]).hints_offset + 3)),
    Wound("footer", lambda h: _flip(h.sealed[0], h.sealed[0].stat().st_size - 50)),
    Wound("bytes behind the footer", lambda h: _flip_behind(h.sealed[1])),
    Wound("missing", lambda h: _missing(h.sealed[1])),
    Wound("last sealed one missing", lambda h: _missing(h.sealed[-1])),
    Wound("cut to nothing", lambda h: _whole_and_cut(h.sealed[0], 30)),
    Wound("cut within the records", lambda h: _cut(h.sealed[0], 600)),
    Wound("another one in its place", _swapped),
    Wound("record of one never sealed", lambda h: _record(h.unsealed[0], 1, 30)),
    Wound("first record of one never sealed", lambda h: _record(h.unsealed[0], 0, 30)),
    Wound("record of the last one", lambda h: _record(h.unsealed[-1], 0, 30)),
    Wound("end of one never sealed", lambda h: _end_lost(h.unsealed[0])),
    Wound("one never sealed is missing", lambda h: _missing(h.unsealed[0])),
    Wound("checkpoint", lambda h: _flip(_checkpoint(h), 300)),
    Wound("checkpoint missing", lambda h: _missing(_checkpoint(h)) and _nothing),
]


def _manifest(history: History) -> Path:
    return history.path / MANIFEST_NAME


def _edits(file: Path) -> list[int]:
    """Where the edits of a manifest end."""
    return [end for end, _, _ in readable_edits(file.read_bytes())]


def _flip_edit(file: Path, *numbers: int) -> Callable[[int, int, format.Record], bool]:
    ends = _edits(file)
    for number in numbers:
        _flip(file, ends[number] - 3)
    return _nothing


def _replaced(file: Path, content: bytes) -> Callable[[int, int, format.Record], bool]:
    file.write_bytes(content)
    return _nothing


#: What check finds wrong with a manifest; no record is lost by it.
MANIFEST_WOUNDS = [
    Wound("header", lambda h: _flip(_manifest(h), 20)),
    Wound("length of the first edit", lambda h: _flip(_manifest(h), 36)),
    Wound("the first edit", lambda h: _flip_edit(_manifest(h), 0)),
    Wound("an edit in the middle", lambda h: _flip_edit(_manifest(h), len(_edits(_manifest(h))) // 2)),
    Wound("every other edit", lambda h: _flip_edit(_manifest(h), *range(0, len(_edits(_manifest(h))), 2))),
    Wound("missing", lambda h: _manifest(h).unlink() or _nothing),
    Wound("empty", lambda h: _replaced(_manifest(h), b"")),
    Wound(
        "cut to its half", lambda h: _replaced(_manifest(h), _manifest(h).read_bytes()[: _edits(_manifest(h))[3] + 5])
    ),
    Wound("zeros", lambda h: _replaced(_manifest(h), bytes(_manifest(h).stat().st_size))),
    Wound("that of another shard", lambda h: _replaced(_manifest(h), _foreign(h))),
]


def _foreign(history: History) -> bytes:
    path = history.data.parent / "foreign"
    path.mkdir()
    Manifest.create(path, 1, IDENTITY.directory_id, CarelessDisk())
    return (path / MANIFEST_NAME).read_bytes()


def _flip_behind(file: Path) -> Callable[[int, int, format.Record], bool]:
    with file.open("ab") as opened:
        opened.write(b"junk")
    return _nothing


def _whole_and_cut(file: Path, size: int) -> Callable[[int, int, format.Record], bool]:
    os.truncate(file, size)
    return _whole(file)


# ---- repair ----


def plan_for(files: ShardFiles, fault: Fault) -> Plan:
    """The plan that a fault asks for."""
    if fault.repair == "record":
        return plan_record(files, fault.segment)
    if fault.repair == "segment":
        return plan_segment(files, fault.segment)
    if fault.repair == "manifest":
        return plan_manifest(files)
    assert fault.repair == "checkpoint", fault
    return plan_checkpoint(files)


def repair_all(data: Path, disk: Disk = DISK) -> list[Plan]:
    """Follow check's advice until it finds nothing any more; what was planned and done."""
    done = []
    while faults := check_directory(data).faults:
        assert len(done) < 20, faults
        before = content(data)
        with open_shard(data, faults[0].shard, disk) as files:
            plan = plan_for(files, faults[0])
            assert content(data) == before
            assert plan.does, (faults[0], plan.notes)
            plan.carry_out()
        done.append(plan)
    return done


def content(data: Path) -> dict[str, str]:
    """The digest of each file but the locks."""
    files = (path for path in data.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def linked(data: Path, target: Path) -> Path:
    """A copy by hard links, as a backup on the same file system is one; the manifest is copied."""
    shutil.copytree(data, target, copy_function=os.link)
    for path in target.rglob("*"):
        if path.name in (MANIFEST_NAME, "LOCK"):
            text = path.read_bytes()
            path.unlink()
            path.write_bytes(text)
    return target


assert RECORDS_START == 64
