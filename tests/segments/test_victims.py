"""Which segments a compaction rewrites, by their figures alone."""

from __future__ import annotations

from kio.segments.victims import Candidate, pick_fitting, pick_victims


def candidate(number: int, live: int, kept: int = 0, lsn_max: int = 0) -> Candidate:
    return Candidate(number, 100, live, kept, lsn_max, lsn_max, False)


def ids(candidates: list[Candidate]) -> list[int]:
    return [candidate.id for candidate in candidates]


def test_a_victim_is_left_for_later_while_its_survivors_have_no_room() -> None:
    old_and_full, fresh_and_empty = candidate(1, 70, lsn_max=1), candidate(2, 35, lsn_max=100)
    both = [old_and_full, fresh_and_empty]
    assert ids(pick_victims(both, 101, 100, 1)) == [1]
    assert ids(pick_fitting(both, 70)) == [1, 2]
    assert ids(pick_fitting(both, 69)) == [2]
    assert ids(pick_fitting([candidate(1, 60, kept=10), candidate(2, 50, kept=10)], 65)) == [2]


def test_where_no_survivors_have_room_the_fewest_are_taken() -> None:
    assert ids(pick_fitting([candidate(1, 70), candidate(2, 35, kept=30), candidate(3, 90)], 10)) == [2]
    assert pick_fitting([], 10) == []
