"""The rules that a shard's correctness rests on: for each a way to break it, and the test that fails when it is broken.

    1  the highest (epoch, LSN) wins, never the file
       broken: of two records of a key, the one in the later file wins
       test_rule_1_is_held_by_the_copy_that_stands_behind_a_newer_record
    2  key bytes are compared on read and on overwrite
       broken: the hash decides
       test_rule_2_is_held_by_keys_of_one_hash
    3  a tombstone is dropped only when no older segment can still hold its key
       broken: a compaction looks at no other segment
       test_rule_3_is_held_by_a_tombstone_that_still_hides_a_put
    4  a segment is deleted only after the edit that drops it is durable
       broken: a compaction unlinks its victims before the edit
       test_a_segment_that_is_unlinked_before_the_edit_that_drops_it_is_found
    5  a name is durable only after a sync of its directory
       broken: no directory is ever synced
       test_a_missing_sync_of_the_directory_is_found
    6  a checkpoint never refers to bytes that are not on disk
       broken: it is named without waiting for the records
       test_a_checkpoint_of_records_that_are_not_on_disk_is_found
    7  a torn tail is cut; damage anywhere else is corruption
       broken: whatever follows damage is cut
       test_rule_7_is_held_by_damage_with_records_behind_it
    8  checksums cover the header fields too
       broken: a changed header passes
       test_a_checksum_that_leaves_the_header_out_is_found
    9  recovery gives the same state twice
       broken: a segment is set aside and stays in the manifest
       test_a_recovery_that_a_second_one_does_not_repeat_is_found

Those whose names begin with test_rule stand here; the others in test_crash_states.py, where the enumerator of crash
states is what fails. Both run their checks on what is not broken as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kio import opbatch
from kio.hashing import routed_hash
from kio.segments import _hints, copying, rewrite
from kio.segments._compact import Survivors
from kio.segments.checkpointing import Checkpointer
from kio.segments.format import HINT
from kio.segments.recovery import Recovery
from kio.segments.segment import Segment
from kio.segments.store import Executed, Store
from tests.segments import test_compaction, test_compaction_tombstones, test_crash_states, test_power_cut_hole
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.support import IDENTITY, Driven, hash_of, key_of_hash


def test_rule_1_is_held_by_the_copy_that_stands_behind_a_newer_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "HINTS_PER_SLICE", 2)
    monkeypatch.setattr(copying, "CHUNK_BYTES", 100)
    monkeypatch.setattr(Checkpointer, "plan", lambda self, now_s: None)
    holds = test_compaction.test_a_compacted_copy_in_a_later_file_never_beats_a_newer_record
    holds(Driven(tmp_path / "right", test_compaction.QUIET, CarelessDisk()), None)
    rebuild = _hints.rebuild

    def by_file(keydir: Any, sources: Sequence[Any], floors: Mapping[int, Any]) -> _hints.Rebuilt:
        changed = []
        for slot, hints, mapping, flag in sources:
            (number,) = struct.unpack_from("<Q", mapping, 16)
            fields = [list(hint) for hint in HINT.iter_unpack(hints)]
            for hint in fields:
                hint[1] += number << 32
            changed.append((slot, b"".join(HINT.pack(*hint) for hint in fields), mapping, flag))
        return rebuild(keydir, changed, floors)

    monkeypatch.setattr(_hints, "rebuild", by_file)
    with pytest.raises(AssertionError):
        holds(Driven(tmp_path / "broken", test_compaction.QUIET, CarelessDisk()), None)


def two_keys_of_one_hash_hold_what_each_was_given(path: Path) -> None:
    one, other = (key_of_hash(hash_of(5, 77, 9), nth) for nth in range(2))
    driven = Driven(path, disk=CarelessDisk())
    try:
        driven.put(one, b"1")
        assert driven.get(other) is None
        driven.put(other, b"2")
        assert driven.items() == {one: b"1", other: b"2"}
    finally:
        driven.kill()


def test_rule_2_is_held_by_keys_of_one_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_keys_of_one_hash_hold_what_each_was_given(tmp_path / "right")
    first: dict[int, bytes] = {}
    execute = Store.execute

    def by_tag(store: Store, batch: bytes) -> Executed:
        operations = [
            op._replace(key=first.setdefault(routed_hash(op.key, IDENTITY.seed, op.keyspace), op.key))
            for op in opbatch.decode_batch(batch)
        ]
        return execute(store, opbatch.encode_batch(0, 1, operations))

    monkeypatch.setattr(Store, "execute", by_tag)
    with pytest.raises(AssertionError):
        two_keys_of_one_hash_hold_what_each_was_given(tmp_path / "broken")


class Forgetful(Survivors):
    """Looks at no other segment before it lets a tombstone go."""

    def compare(self, neighbours: Any, floors: Any, unknown_lsn: int, now_ms: int) -> None:
        super().compare([], floors, (1 << 64) - 1, now_ms)


def test_rule_3_is_held_by_a_tombstone_that_still_hides_a_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holds = test_compaction_tombstones.test_a_tombstone_stays_while_another_segment_holds_an_older_put
    holds(Driven(tmp_path / "right", test_compaction.QUIET, CarelessDisk()))
    monkeypatch.setattr(rewrite, "Survivors", Forgetful)
    with pytest.raises(AssertionError):
        holds(Driven(tmp_path / "broken", test_compaction.QUIET, CarelessDisk()))


def test_rule_7_is_held_by_damage_with_records_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holds = test_power_cut_hole.test_in_the_same_boot_the_same_hole_is_corruption
    (tmp_path / "right").mkdir()
    holds(tmp_path / "right")

    def first_damage(recovery: Recovery, segment: Segment, scan: _hints.Scan) -> int | None:
        return min((offset for offset, _ in scan.damaged), default=None)

    monkeypatch.setattr(Recovery, "_hole", first_damage)
    (tmp_path / "broken").mkdir()
    with pytest.raises(AssertionError):
        holds(tmp_path / "broken")


def test_every_rule_has_a_test_that_is_there() -> None:
    rules = re.findall(r"^    (\d)  .*\n       broken: .*\n       (test_\w+)$", __doc__ or "", flags=re.MULTILINE)
    assert [number for number, _ in rules] == list("123456789")
    assert {name for _, name in rules} <= vars(test_crash_states).keys() | globals().keys()
