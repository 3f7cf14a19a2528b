"""The corruption sweep: a small data directory, cut at every byte and flipped at every byte.

The directory has sealed segments, one that an unclean stop left unsealed, overwrites, deletes and a clear. Whatever is
done to one of its files, opening it raises a typed error, or every key is answered rightly or with a typed error:
never with a wrong value, an older value, or silence. And `check_directory` names the damage.

The one legal exception is the torn tail: damage at or behind the last record of the unsealed segment, with nothing
valid behind it. Then the shard's state is the one before the first record that is no longer whole.

The quick sweep takes every so-maniest byte, from another start each time; KIO_SWEEP_SEED repeats one.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kio.errors import Corrupt, KioError
from kio.segments.check import Report, check_directory
from kio.segments.disk import DISK
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode, load
from kio.segments.options import StoreOptions
from kio.segments.segment import RECORDS_START
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import IDENTITY, Driven
from tests.segments.test_recovery import records_of, segment_files

OPTIONS = StoreOptions(segment_bytes=768)
SEED = int(os.environ.get("KIO_SWEEP_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
QUICK = 61
STEP = 1 if os.environ.get("FULL") else 3
Model = dict[bytes, bytes]


class Directory(NamedTuple):
    """The directory to be damaged, and all that was done to it."""

    data: Path
    #: The state after each record, by LSN; [0] is empty.
    states: list[Model]
    #: The segment that the unclean stop left.
    unsealed: Path

    @property
    def model(self) -> Model:
        return self.states[-1]

    @property
    def keys(self) -> set[bytes]:
        return {key for state in self.states for key in state} | {b"never there"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    data = tmp_path_factory.mktemp("sweep") / "data"
    driven = Driven(data / "shard-0000", OPTIONS)
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    states: list[Model] = [{}]

    def put(number: int, size: int) -> None:
        value = (b"%d of key %d." % (len(states), number) * 40)[:size]
        driven.put(b"key %d" % number, value)
        states.append(states[-1] | {b"key %d" % number: value})

    def delete(number: int) -> None:
        assert driven.delete(b"key %d" % number)
        states.append({k: v for k, v in states[-1].items() if k != b"key %d" % number})

    put(9, 30)
    driven.clear()
    states.append({})
    for number in (1, 2, 3, 4, 5, 1, 2):
        put(number, 60 + number * 9)
    delete(3)
    driven.run_jobs()
    put(6, 0)
    put(4, 100)
    driven.restart()
    for number in (7, 5):
        put(number, 77)
    delete(6)
    driven.run_jobs()
    driven.reopen()
    driven.run_jobs()
    put(3, 50)
    delete(7)
    put(8, 70)
    put(1, 61)
    driven.kill()
    unsealed = [file for file in segment_files(driven.path) if records_of(file)][-1]
    assert len(segment_files(driven.path)) >= 5
    assert len(records_of(unsealed)) == 4
    assert [record.lsn for _, record in records_of(unsealed)][-1] == len(states) - 1
    assert not check_directory(data).faults
    return Directory(data, states, unsealed)


def places(directory: Directory, step: int) -> Iterator[tuple[Path, int]]:
    """(file, offset) of every `step`-th byte of all files that mean anything, and some of the manifest's room."""
    start = SEED
    for path in sorted(directory.data.rglob("*")):
        if path.is_file() and path.name not in ("LOCK", "RESERVE"):
            size = path.stat().st_size
            if path.name == "MANIFEST":
                size = min(size, len(path.read_bytes().rstrip(b"\0")) + 200)
            for offset in range(start % step, size, step):
                yield path, offset
            start += size


def legal_states(directory: Directory, path: Path, offset: int) -> list[Model]:
    """The states that a torn tail at this place may leave, beside the last one."""
    if path != directory.unsealed:
        return []
    records = records_of(path)
    if offset < records[-1][0]:
        return []
    return [directory.states[-2]]


def examine(directory: Directory, copy: Path, legal: list[Model], what: str) -> None:
    """Check first, then open and ask for everything."""
    report: Report | KioError
    try:
        report = check_directory(copy)
    except KioError as error:
        report = error
    is_told = isinstance(report, KioError) or bool(report.faults)
    try:
        load(copy)
        driven = Driven(copy / "shard-0000", OPTIONS, CarelessDisk())
    except KioError:
        assert is_told, what
        return
    try:
        answers = driven.answers(directory.keys)
        wrong = {
            key: (answer, directory.model.get(key))
            for key, answer in answers.items()
            if not isinstance(answer, type) and answer != directory.model.get(key)
        }
        if wrong:
            state = {key: answer for key, answer in answers.items() if answer is not None}
            assert state in legal, (what, wrong)
        try:
            items = driven.items()
            assert items in (directory.model, *legal), what
            assert driven.count() == len(items), what
        except Corrupt:
            assert is_told, what
        if any(isinstance(answer, type) for answer in answers.values()):
            assert is_told, what
        driven.put(b"new", b"value")
        driven.reopen()
        assert driven.get(b"new") == b"value", what
        again = driven.answers(directory.keys)
        assert again == answers, what
    finally:
        driven.kill()


def sweep(directory: Directory, tmp_path: Path, step: int, kind: str) -> None:
    chance = random.Random(SEED)
    copy = tmp_path / "data"
    for path, offset in places(directory, step):
        shutil.copytree(directory.data, copy)
        target = copy / path.relative_to(directory.data)
        content = bytearray(target.read_bytes())
        legal = legal_states(directory, path, offset)
        if kind == "cut":
            del content[offset:]
            if path == directory.unsealed:
                whole = sum(1 for at, _ in records_of(path) if at < offset)
                legal = directory.states[len(directory.states) - 1 - len(records_of(path)) :][: whole + 1]
        else:
            content[offset] ^= chance.randrange(1, 256)
        target.write_bytes(content)
        what = f"{kind} {path.name} at {offset}; KIO_SWEEP_SEED={SEED}"
        examine(directory, copy, legal, what)
        shutil.rmtree(copy)


@pytest.mark.parametrize("kind", [pytest.param("cut", marks=pytest.mark.stress), "flip"])
def test_damage_is_answered_rightly_or_with_an_error_and_never_in_silence(
    directory: Directory, tmp_path: Path, kind: str
) -> None:
    sweep(directory, tmp_path, QUICK if kind == "flip" else QUICK + 12, kind)


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_damage_at_any_byte_is_answered_rightly_or_with_an_error_and_never_in_silence(
    directory: Directory, tmp_path: Path, kind: str
) -> None:
    sweep(directory, tmp_path, STEP, kind)


def test_check_names_the_damage_with_segment_and_offset(directory: Directory, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    for path in segment_files(directory.data / "shard-0000"):
        records = records_of(path)
        for offset, _ in records[:-1] if path == directory.unsealed else records:
            shutil.copytree(directory.data, copy)
            target = copy / path.relative_to(directory.data)
            content = bytearray(target.read_bytes())
            content[offset + 10] ^= 1
            target.write_bytes(content)
            named = {(fault.shard, fault.file, fault.offset, fault.kind) for fault in check_directory(copy).faults}
            assert (0, path.name, offset, "record") in named
            assert {file for _, file, _, _ in named} == {path.name}
            shutil.rmtree(copy)


def test_check_tells_a_torn_tail_as_a_note(directory: Directory, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(directory.data, copy)
    offset = records_of(directory.unsealed)[-1][0]
    target = copy / directory.unsealed.relative_to(directory.data)
    content = bytearray(target.read_bytes())
    content[offset + 10] ^= 1
    target.write_bytes(content)
    report = check_directory(copy)
    assert report.faults == []
    notes = {(note.file, note.offset, note.kind) for note in report.notes}
    assert (target.name, offset, "torn tail") in notes


def test_a_page_of_zeros_is_no_record_and_no_silence(directory: Directory, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    for path in segment_files(directory.data / "shard-0000"):
        for offset, _ in records_of(path)[:-1]:
            shutil.copytree(directory.data, copy)
            target = copy / path.relative_to(directory.data)
            content = bytearray(target.read_bytes())
            content[offset : offset + 40] = bytes(40)
            target.write_bytes(content)
            examine(directory, copy, [], f"zeros in {path.name} at {offset}")
            shutil.rmtree(copy)


def test_a_segment_in_the_place_of_another_is_not_believed(directory: Directory, tmp_path: Path) -> None:
    files = segment_files(directory.data / "shard-0000")
    for source in files:
        for target in files:
            if source == target or target == directory.unsealed or not records_of(target):
                continue
            copy = tmp_path / "data"
            shutil.copytree(directory.data, copy)
            shutil.copy(source, copy / target.relative_to(directory.data))
            examine(directory, copy, [], f"{source.name} in the place of {target.name}")
            shutil.rmtree(copy)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_many_wounds_at_once_give_no_wrong_value(directory: Directory, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    copy = tmp_path / "data"
    sealed = [file for file in segment_files(directory.data / "shard-0000") if file != directory.unsealed]
    for round in range(1500 * (10 if os.environ.get("FULL") else 1)):
        shutil.copytree(directory.data, copy)
        for _ in range(chance.randint(2, 6)):
            target = copy / chance.choice(sealed).relative_to(directory.data)
            content = bytearray(target.read_bytes())
            content[chance.randrange(RECORDS_START, len(content))] ^= chance.randrange(1, 256)
            target.write_bytes(content)
        examine(directory, copy, [], f"round {round}; KIO_SWEEP_SEED={SEED}")
        shutil.rmtree(copy)


def test_the_directory_of_the_sweep_is_whole(directory: Directory, tmp_path: Path) -> None:
    shutil.copytree(directory.data, tmp_path / "data")
    driven = Driven(tmp_path / "data" / "shard-0000", OPTIONS, DISK)
    assert driven.items() == directory.model
    driven.store.close()
    report = check_directory(tmp_path / "data")
    assert (report.faults, report.notes) == ([], [])
