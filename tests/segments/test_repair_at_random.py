"""Several wounds at random, check, and its advice followed until it finds nothing: nobody gets a value nobody wrote.

Keys without a record in a damaged file read exactly right, the others are absent, right, or older. KIO_REPAIR_SEED
repeats a run; FULL=1 takes more rounds.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from kio.segments.check import check_directory
from kio.segments.segment import segment_id
from tests.segments.damaged import History, linked, make_history, repair_all
from tests.segments.damaged import content as digests
from tests.segments.faulty_disk import CarelessDisk

SEED = int(os.environ.get("KIO_REPAIR_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(tmp_path_factory.mktemp("repair") / "data")


def wound(file: Path, chance: random.Random) -> str:
    """Damage a file in one of the ways in which files get damaged."""
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data)) if data else 0
    kind = chance.choice(["flip", "flip", "flip", "zeros", "junk", "cut", "gone", "longer"])
    if kind == "gone":
        file.unlink()
        return f"{file.name} gone"
    if kind == "flip" and data:
        data[at] ^= chance.randrange(1, 256)
    elif kind == "zeros":
        data[at : at + 60] = bytes(len(data[at : at + 60]))
    elif kind == "junk":
        data[at : at + 60] = chance.randbytes(len(data[at : at + 60]))
    elif kind == "cut":
        del data[at:]
    elif kind == "longer":
        data += chance.randbytes(50)
    file.write_bytes(data)
    return f"{file.name} {kind} at {at}"


def repair_rounds(history: History, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        chance = random.Random(f"{SEED} {number}")
        damaged = history.copied(tmp_path / "data")
        files = sorted(path for path in damaged.path.iterdir() if path.name != "LOCK")
        chosen = [chance.choice(files) for _ in range(chance.randint(1, 4))]
        done = [wound(file, chance) for file in chosen if file.exists()]
        what = f"{done}; KIO_REPAIR_SEED={SEED}, round {number}"
        hurt = {segment_id(file.name) for file in chosen}
        backup = linked(damaged.data, tmp_path / "backup")
        before = digests(backup)
        try:
            repair_all(damaged.data, CarelessDisk())
            assert digests(backup) == before
            assert check_directory(damaged.data).faults == []
            affected = damaged.keys_in(lambda segment, _, __, hurt=hurt: segment in hurt)  # type: ignore[misc]
            damaged.judge(affected, affected)
        except Exception as error:
            raise AssertionError(what) from error
        shutil.rmtree(damaged.data)
        shutil.rmtree(backup)


def test_random_damage_is_repaired_by_the_advice_that_check_gives(history: History, tmp_path: Path) -> None:
    repair_rounds(history, tmp_path, 8)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_much_random_damage_is_repaired_by_the_advice_that_check_gives(history: History, tmp_path: Path) -> None:
    repair_rounds(history, tmp_path, 10_000 if os.environ.get("FULL") else 200)
