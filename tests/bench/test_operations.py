"""The stream of operations."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from array import array
from collections import Counter
from dataclasses import replace

import pytest

from kio.bench.operations import BLOCK, Operations
from kio.bench.plan import INSERT, KINDS, READ, UPDATE, Plan
from tests.bench.goodness import fits

PLAN = Plan(url="kio://127.0.0.1", records=1000, mix={"read": 0.7, "update": 0.3}, value_bytes="10-200")
PLANS = [
    PLAN,
    replace(PLAN, keys="uniform", value_bytes="100"),
    replace(PLAN, keys="latest:0.99", mix={"read": 0.8, "insert": 0.1, "rmw": 0.1}),
    replace(PLAN, keys="hotset:0.2:0.8", mix={"delete": 0.2, "incr": 0.3, "expire": 0.5}),
    replace(PLAN, batch=7, pipeline=3),
    replace(PLAN, batch=3 * BLOCK),
    replace(PLAN, mix={"insert": 1.0}, records=0),
]

Taken = tuple[bytes, "array[int]", "array[int]"]


def joined(parts: list[Taken]) -> Taken:
    ids, sizes = array("Q"), array("I")
    for _, some_ids, some_sizes in parts:
        ids += some_ids
        sizes += some_sizes
    return b"".join(kinds for kinds, _, _ in parts), ids, sizes


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_seed_gives_the_same_operations_however_they_are_cut(plan: Plan) -> None:
    whole = Operations(plan, 1).take(5000)
    assert [len(part) for part in whole] == [5000] * 3
    for cut in range(3):
        source = random.Random(cut)
        counts: list[int] = []
        while sum(counts) < 5000:
            counts.append(min(source.choice([0, 1, 2, 50, BLOCK, 2000]), 5000 - sum(counts)))
        stream = Operations(plan, 1)
        assert joined([stream.take(count) for count in counts]) == whole


def test_another_interpreter_draws_the_same() -> None:
    """Nothing depends on the hashes of strings, which differ from process to process."""
    code = (
        "import hashlib; from kio.bench.operations import Operations; from kio.bench.plan import Plan;"
        f"taken = Operations(Plan.from_dict({PLAN.as_dict()!r}), 0).take(3000);"
        "print(hashlib.sha256(taken[0] + taken[1].tobytes() + taken[2].tobytes()).hexdigest())"
    )
    kinds, ids, sizes = Operations(PLAN, 0).take(3000)
    here = hashlib.sha256(kinds + ids.tobytes() + sizes.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert there.stdout.strip() == here


def test_another_seed_or_another_process_gives_others() -> None:
    one = Operations(PLAN, 0).take(1000)
    assert Operations(replace(PLAN, seed=2), 0).take(1000) != one
    assert Operations(PLAN, 1).take(1000) != one


def test_kinds_come_in_their_shares() -> None:
    mix = {"read": 0.6, "update": 0.25, "rmw": 0.1, "delete": 0.05}
    kinds, _, _ = Operations(replace(PLAN, mix=mix), 0).take(100_000)
    counts = Counter(KINDS[kind] for kind in kinds)
    assert set(counts) == set(mix)
    assert fits([counts[name] for name in mix], list(mix.values()))


def test_a_kind_with_no_share_never_comes() -> None:
    kinds, _, _ = Operations(replace(PLAN, mix={"read": 1.0, "update": 0.0}), 0).take(10_000)
    assert set(kinds) == {READ}


def test_inserts_of_all_processes_are_the_next_ids_each_once() -> None:
    plan = replace(PLAN, records=10, processes=3, mix={"read": 0.5, "insert": 0.5})
    for process in range(3):
        kinds, ids, _ = Operations(plan, process).take(3000)
        inserted = [id for kind, id in zip(kinds, ids, strict=True) if kind == INSERT]
        assert inserted == [10 + place * 3 + process for place in range(len(inserted))]
        assert 1300 < len(inserted) < 1700


def test_loading_is_every_id_in_order_from_the_first() -> None:
    plan = replace(PLAN, records=0, mix={"insert": 1.0})
    kinds, ids, _ = Operations(plan, 0).take(2000)
    assert set(kinds) == {INSERT}
    assert list(ids) == list(range(2000))


def test_latest_reads_only_what_was_inserted_before_and_follows_it() -> None:
    plan = replace(PLAN, keys="latest:0.99", mix={"read": 0.9, "insert": 0.1})
    kinds, ids, _ = Operations(plan, 0).take(20_000)
    newest, ages = plan.records - 1, []
    for kind, id in zip(kinds, ids, strict=True):
        if kind == INSERT:
            newest = id
        else:
            ages.append(newest - id)
    assert min(ages) == 0
    assert newest > 2500
    # Of a fixed newest record, the reads at the end would be thousands of records behind.
    assert sorted(ages[-1000:])[500] < 100


def test_all_operations_of_a_command_are_of_one_kind_and_commands_differ() -> None:
    kinds, _, _ = Operations(replace(PLAN, batch=7), 0).take(7 * 1000)
    commands = [kinds[first : first + 7] for first in range(0, len(kinds), 7)]
    assert all(len(set(command)) == 1 for command in commands)
    assert fits([sum(command[0] == kind for command in commands) for kind in (READ, UPDATE)], [0.7, 0.3])


def test_sizes_are_those_of_values() -> None:
    _, _, sizes = Operations(PLAN, 0).take(50_000)
    counts = Counter(sizes)
    assert fits([counts[size] for size in range(10, 201)], [1 / 191] * 191)
