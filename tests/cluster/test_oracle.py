"""The oracle itself: every kind of fault that it is there for, planted by hand, must be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.oracle import (
    ABSENT,
    Journal,
    KeyState,
    Watched,
    WrongValueError,
    make_value,
    read_journals,
    version_of,
)

KEY = b"c0:k1"
CONNECTION_LOST = 37
TIMEOUT = 36


def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "writer-0")


def sets(j: Journal, version: int) -> None:
    j.begin({KEY: version}, is_delete=False)
    j.ack({KEY: version})


def deletes(j: Journal, version: int) -> None:
    j.begin({KEY: version}, is_delete=True)
    j.ack({KEY: version})


def violations(tmp_path: Path, contents: dict[bytes, bytes]) -> list[str]:
    verdict = read_journals([tmp_path / "writer-0"])
    verdict.judge(contents)
    return verdict.violations


def test_a_value_names_its_key_and_version_and_nothing_else_passes_for_it() -> None:
    value = make_value(KEY, 7)
    assert version_of(KEY, value) == 7
    assert version_of(KEY, None) == ABSENT
    for wrong in (b"", b"x", value[:-1], value + b"\0", make_value(b"c0:k2", 7), b"\0" * len(value)):
        with pytest.raises(WrongValueError):
            version_of(KEY, wrong)
    for at in range(0, len(value), 7):
        flipped = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(WrongValueError):
            version_of(KEY, flipped)


def test_values_have_many_lengths() -> None:
    assert len({len(make_value(KEY, version)) for version in range(1, 200)}) > 100


def test_what_was_acknowledged_and_is_there_is_no_violation(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    sets(j, 2)
    assert violations(tmp_path, {KEY: make_value(KEY, 2)}) == []


def test_a_lost_write_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    assert "lost" in violations(tmp_path, {})[0]


def test_an_older_value_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    sets(j, 2)
    assert "older" in violations(tmp_path, {KEY: make_value(KEY, 1)})[0]


def test_a_resurrected_delete_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    deletes(j, 2)
    assert violations(tmp_path, {}) == []
    assert "back again" in violations(tmp_path, {KEY: make_value(KEY, 1)})[0]


def test_a_wrong_value_and_a_key_nobody_wrote_are_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    assert "nobody wrote" in violations(tmp_path, {KEY: b"junk"})[0]
    assert "nobody wrote it" in violations(tmp_path, {KEY: make_value(KEY, 1), b"other": b""})[0]


def test_a_write_without_a_reply_may_be_there_or_not(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    j.begin({KEY: 2}, is_delete=False)
    for version in (1, 2):
        assert violations(tmp_path, {KEY: make_value(KEY, version)}) == []
    assert "lost" in violations(tmp_path, {})[0]


def test_a_refused_write_must_not_be_there(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    j.begin({KEY: 2}, is_delete=False)
    j.fail({KEY: 2}, 33, maybe_applied=False)
    assert violations(tmp_path, {KEY: make_value(KEY, 1)}) == []
    assert "refused" in violations(tmp_path, {KEY: make_value(KEY, 2)})[0]


def test_an_unknown_write_has_one_outcome_for_ever(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    j.begin({KEY: 2}, is_delete=False)
    j.fail({KEY: 2}, CONNECTION_LOST, maybe_applied=True)
    j.observe(KEY, make_value(KEY, 1))
    assert violations(tmp_path, {KEY: make_value(KEY, 1)}) == []
    assert violations(tmp_path, {KEY: make_value(KEY, 2)}) != []


def test_an_unknown_write_does_not_overtake_an_acknowledged_one_unless_its_deadline_passed() -> None:
    for code, survives in ((CONNECTION_LOST, False), (TIMEOUT, True)):
        state = KeyState()
        state.begin(1, is_delete=False)
        state.unknown(1, code)
        state.begin(2, is_delete=False)
        state.ack(2)
        assert (state.observe(1) is None) is survives


def test_what_the_writer_read_itself_is_a_violation_too(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    j.observe(KEY, None)
    assert "lost" in violations(tmp_path, {KEY: make_value(KEY, 1)})[0]


def test_a_reader_sees_versions_rise_and_what_is_gone_stay_gone() -> None:
    watched = Watched()
    assert [watched.observe(KEY, version) for version in (3, 3, 4, ABSENT, 6, 6)] == [None] * 6
    assert watched.observe(KEY, 5) is not None
    assert watched.observe(KEY, ABSENT) is None
    assert watched.observe(KEY, 6) is not None


def test_what_a_reader_saw_going_back_is_among_the_violations(tmp_path: Path) -> None:
    j = journal(tmp_path)
    j.watch(b"c1:k1", make_value(b"c1:k1", 2))
    j.watch(b"c1:k1", make_value(b"c1:k1", 1))
    assert "went back" in violations(tmp_path, {})[0]


def fades(j: Journal, version: int) -> None:
    j.begin({KEY: version}, is_delete=False, fades=True)
    j.ack({KEY: version})


def test_what_fades_is_there_or_gone_and_neither_is_a_violation(tmp_path: Path) -> None:
    j = journal(tmp_path)
    fades(j, 1)
    j.observe(KEY, make_value(KEY, 1))
    assert violations(tmp_path, {KEY: make_value(KEY, 1)}) == []
    assert violations(tmp_path, {}) == []


def test_what_has_faded_and_is_back_again_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    fades(j, 1)
    j.observe(KEY, None)
    assert "back again" in violations(tmp_path, {KEY: make_value(KEY, 1)})[0]


def test_an_older_value_behind_what_has_faded_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    sets(j, 1)
    fades(j, 2)
    assert "older" in violations(tmp_path, {KEY: make_value(KEY, 1)})[0]


def test_what_is_there_after_its_time_is_seen(tmp_path: Path) -> None:
    j = journal(tmp_path)
    fades(j, 1)
    verdict = read_journals([tmp_path / "writer-0"])
    verdict.judge({KEY: make_value(KEY, 1)}, has_faded=True)
    assert "its time is over" in verdict.violations[0]
