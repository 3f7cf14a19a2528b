"""Compaction and deleted keys: they stay deleted, and tombstones go as soon as nothing is left for them to hide."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from kio.segments.format import PUT, TOMBSTONE
from kio.segments.options import StoreOptions
from kio.segments.segment import segment_name
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import Driven, put
from tests.segments.test_compaction import QUIET, fill, in_log, kinds_of
from tests.segments.test_recovery import damage


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    return Driven(tmp_path / "shard", QUIET, CarelessDisk())


# ---- rule 3 ----


def hide_one_of_two(driven: Driven) -> tuple[int, int]:
    """Segment 1 holds a put of `gone` and a live key, segment 2 the tombstone of `gone` and a live key: their ids."""
    driven.execute(put(b"gone", b"older"), put(b"live 1", b"1"))
    driven.seal()
    driven.delete(b"gone")
    driven.put(b"live 2", b"2")
    driven.seal()
    older, newer = driven.sealed_ids()
    return older, newer


def test_a_tombstone_stays_while_another_segment_holds_an_older_put(driven: Driven) -> None:
    _, newer = hide_one_of_two(driven)
    driven.put(b"live 2", b"3")
    driven.rewrite(newer)
    assert kinds_of(driven, b"gone") == [PUT, TOMBSTONE]
    assert driven.reopen().get(b"gone") is None
    assert driven.count() == 2


def test_a_tombstone_goes_with_the_put_that_it_hides(driven: Driven) -> None:
    hide_one_of_two(driven)
    driven.compact()
    assert kinds_of(driven, b"gone") == []
    assert driven.reopen().items() == {b"live 1": b"1", b"live 2": b"2"}


def test_a_tombstone_goes_when_what_it_hid_went_before(driven: Driven) -> None:
    older, newer = hide_one_of_two(driven)
    driven.rewrite(older)
    assert kinds_of(driven, b"gone") == [TOMBSTONE]
    driven.rewrite(newer)
    assert kinds_of(driven, b"gone") == []
    assert driven.reopen().items() == {b"live 1": b"1", b"live 2": b"2"}


def test_a_tombstone_goes_when_a_newer_record_of_its_key_hides_as_much(driven: Driven) -> None:
    _, newer = hide_one_of_two(driven)
    driven.put(b"gone", b"back")
    driven.seal()
    driven.rewrite(newer)
    assert kinds_of(driven, b"gone") == [PUT, PUT]
    driven.delete(b"gone")
    driven.seal()
    driven.rewrite(driven.sealed_ids()[-1])
    assert kinds_of(driven, b"gone")[-1] == TOMBSTONE
    assert driven.reopen().get(b"gone") is None


def test_a_tombstone_below_the_floor_of_its_keyspace_goes(driven: Driven) -> None:
    older, newer = hide_one_of_two(driven)
    driven.clear()
    driven.put(b"live 1", b"again")
    driven.seal()
    driven.rewrite(newer)
    assert TOMBSTONE not in kinds_of(driven, b"gone")
    assert driven.reopen().items() == {b"live 1": b"again"}
    assert older in driven.sealed_ids() or kinds_of(driven, b"gone") == []


def test_a_segment_of_tombstones_that_must_stay_is_not_rewritten_again_and_again(tmp_path: Path) -> None:
    options = StoreOptions(segment_bytes=64 * 1024, space_amplification=1.2)
    driven = Driven(tmp_path / "shard", options, CarelessDisk())
    items = fill(driven, 30, size=400)
    driven.execute(
        *(put(b"gone %d" % i, b"") for i in range(30)), *(put(b"stays %d" % i, b"9" * 900) for i in range(60))
    )
    driven.seal()
    older = driven.sealed_ids()[-1]
    for i in range(30):
        driven.delete(b"gone %d" % i)
    driven.seal()
    driven.rewrite(driven.sealed_ids()[-1])
    kept = driven.sealed_ids()[-1]
    written = driven.store.stats()["compacted_bytes_written"]
    for _ in range(5):
        driven.maintain()
    assert driven.store.stats()["compacted_bytes_written"] == written
    driven.rewrite(older)
    driven.maintain()
    assert kept not in driven.sealed_ids()
    assert b"gone 1" not in {record.key for record in in_log(driven)}
    assert items.items() <= driven.reopen().items().items()


def test_segments_that_hold_no_trusted_hints_keep_every_tombstone(driven: Driven) -> None:
    older, newer = hide_one_of_two(driven)
    entry = driven.store._manifest.state.segments[older]
    damage(driven.path / segment_name(older), entry.end + 8)
    driven.put(b"live 2", b"3")
    driven.rewrite(newer)
    driven.rewrite(newer)
    assert kinds_of(driven, b"gone") == [PUT, TOMBSTONE]
    assert driven.reopen().get(b"gone") is None


# ---- every order ----

MOMENTS: list[tuple[str, ...]] = [
    (),
    ("seal",),
    ("seal", "compact"),
    ("seal", "compact", "kill"),
    ("kill", "compact", "restart"),
]


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "among others"])
def test_a_deleted_key_stays_deleted_in_every_order_of_seal_compaction_crash_and_restart(
    tmp_path: Path, is_alone: bool
) -> None:
    """Put, overwrite, delete; behind each of them any of MOMENTS. Others keep segments from being wholly dead."""
    chance = random.Random(4)
    for number, moments in enumerate(itertools.product(MOMENTS, repeat=3)):
        driven = Driven(tmp_path / str(number), QUIET, CarelessDisk())
        others: dict[bytes, bytes] = {}
        for i, moment in enumerate(moments):
            if not is_alone:
                others |= {b"other %d" % i: b"%d" % number, b"all": b"%d" % i}
                driven.put(b"other %d" % i, b"%d" % number)
                driven.put(b"all", b"%d" % i)
            if i < 2:
                driven.put(b"key", b"%d" % i)
            else:
                assert driven.delete(b"key")
            for event in moment:
                if event == "compact" and chance.random() < 0.5:
                    driven.rewrite(*(number for number in driven.sealed_ids() if chance.random() < 0.5))
                else:
                    {"seal": driven.seal, "compact": driven.compact, "kill": driven.reopen, "restart": driven.restart}[
                        event
                    ]()
            expected = others if i == 2 else others | {b"key": b"%d" % i}
            assert driven.items() == expected, moments
        driven.reopen()
        assert driven.items() == others, moments
        driven.compact()
        assert driven.reopen().items() == others, moments
        driven.store.close()
