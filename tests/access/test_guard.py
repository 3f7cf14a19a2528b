"""The pauses between failed tries."""

from __future__ import annotations

import doctest

import pytest

from kio.access import Guard, guard


def fail(peers: Guard, peer: str, tries: int) -> float:
    """Make `tries` tries as soon as each may be made; the seconds that this took."""
    now = 0.0
    for _ in range(tries):
        while pause := peers.attempt(peer, now):
            now += pause
    return now


def test_the_first_tries_are_free_and_then_each_waits_twice_as_long() -> None:
    assert fail(Guard(), "a", guard.FREE_TRIES) == 0
    assert fail(Guard(), "a", guard.FREE_TRIES + 1) == 0.5
    assert fail(Guard(), "a", guard.FREE_TRIES + 4) == 0.5 + 1 + 2 + 4
    assert fail(Guard(), "a", 200) > 150 * guard.PAUSE_S_MAX


def test_a_try_that_comes_too_early_is_told_when_and_costs_nothing() -> None:
    peers = Guard()
    for _ in range(guard.FREE_TRIES):
        assert peers.attempt("a", 10.0) == 0
    for _ in range(100):
        assert peers.attempt("a", 10.25) == pytest.approx(0.25)
    assert peers.attempt("a", 10.5) == 0


def test_tries_at_once_count_before_any_of_them_is_answered() -> None:
    peers = Guard()
    assert [peers.attempt("a", 0.0) == 0 for _ in range(100)].count(True) == guard.FREE_TRIES


def test_one_peer_does_not_slow_another() -> None:
    peers = Guard()
    fail(peers, "a", guard.FREE_TRIES)
    assert peers.attempt("a", 0.0) > 0
    assert peers.attempt("b", 0.0) == 0


def test_success_and_silence_forget_what_failed() -> None:
    peers = Guard()
    fail(peers, "a", guard.FREE_TRIES)
    peers.succeeded("a")
    peers.succeeded("never seen")
    assert len(peers) == 0
    fail(peers, "a", guard.FREE_TRIES)
    assert peers.attempt("b", guard.FORGET_S) == 0
    assert len(peers) == 1


def test_the_table_is_bounded_and_forgets_who_was_quiet_longest() -> None:
    peers = Guard(peers_max=3)
    for peer in ("a", "b", "c"):
        fail(peers, peer, guard.FREE_TRIES - 1)
    peers.attempt("a", 0.0)
    peers.attempt("d", 0.0)
    assert len(peers) == 3
    assert peers.attempt("a", 0.0) > 0
    assert fail(peers, "b", guard.FREE_TRIES) == 0


def test_the_examples_of_the_guard_are_right() -> None:
    ran = doctest.testmod(guard)
    assert ran.attempted > 0
    assert ran.failed == 0
