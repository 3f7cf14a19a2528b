"""Locks: what every client does with every daemon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kio.errors import LockLost, LockTimeout, RequestError


class LockSuite:
    """The store is empty when a test begins."""

    def test_a_lock_is_held_by_one_and_released_for_the_next(self, db: Any) -> None:
        first, second = db.lock("l", 30), db.lock("l", 30)
        token = first.acquire()
        assert (first.token, second.token) == (token, None)
        with pytest.raises(LockTimeout, match="held by somebody else"):
            second.acquire(timeout=0)
        first.release()
        assert first.token is None
        assert second.acquire(timeout=0) > token
        second.release()
        assert db.exists("l") is False

    def test_a_block_holds_it_and_its_token_is_the_version_of_its_record(self, db: Any) -> None:
        with db.lock("l", 30) as lock:
            assert lock.token == db.entry("l").version
            assert 20 < db.ttl("l") <= 30
            assert 20 < lock.left_s() <= 30
        assert db.exists("l") is False
        assert lock.left_s() == 0

    def test_tokens_rise_with_each_holder_however_it_ended(self, db: Any) -> None:
        tokens = []
        for _ in range(3):
            lock = db.lock("l", 30)
            tokens.append(lock.acquire())
            lock.extend()
            lock.release()
            tokens.append(db.lock("l", 0.05).acquire())
            until = time.monotonic() + 10
            while db.exists("l"):
                assert time.monotonic() < until
        assert tokens == sorted(set(tokens))

    def test_an_expired_lock_goes_to_who_waits_for_it(self, db: Any) -> None:
        first, second = db.lock("l", 0.3), db.lock("l", 30)
        token, started_s = first.acquire(), time.monotonic()
        assert second.acquire(timeout=10) > token
        assert 0.1 < time.monotonic() - started_s < 5
        for late in (first.extend, first.release):
            with pytest.raises((LockLost, RequestError)):
                late()
        assert db.entry("l").version == second.token
        second.release()

    def test_a_wait_ends_at_its_timeout(self, db: Any) -> None:
        db.lock("l", 30).acquire()
        started_s = time.monotonic()
        with pytest.raises(LockTimeout), db.lock("l", 30, timeout=0.3):
            pytest.fail("somebody else has it")
        assert 0.3 <= time.monotonic() - started_s < 3

    def test_extend_sets_the_expiry_and_keeps_the_token(self, db: Any) -> None:
        with db.lock("l", 2) as lock:
            token = lock.token
            lock.extend(100)
            assert 90 < db.ttl("l") <= 100
            lock.extend()
            assert lock.token == token
            assert 90 < db.ttl("l") <= 100, "its ttl is the last that was given"
            assert 90 < lock.left_s() <= 100

    def test_a_lock_that_was_removed_is_lost(self, db: Any) -> None:
        lock = db.lock("l", 30)
        lock.acquire()
        db.delete("l")
        with pytest.raises(LockLost):
            lock.extend()
        with pytest.raises(RequestError, match="acquire it first"):
            lock.release()
        with pytest.raises(LockLost), db.lock("l", 30):
            db.delete("l")

    def test_what_a_block_raises_is_not_hidden_by_a_lock_that_was_lost(self, db: Any) -> None:
        with pytest.raises(ZeroDivisionError) as caught, db.lock("l", 30):
            db.delete("l")
            raise ZeroDivisionError
        assert "could not be released" in caught.value.__notes__[0]

    def test_a_lock_that_another_has_now_stays_his(self, db: Any) -> None:
        lock = db.lock("l", 30)
        lock.acquire()
        db.set("l", b"somebody else")
        with pytest.raises(LockLost):
            lock.release()
        assert db.get("l") == b"somebody else"

    def test_it_is_not_reentrant_and_what_is_not_held_is_not_released(self, db: Any) -> None:
        with db.lock("l", 30) as lock:
            with pytest.raises(RequestError, match="not reentrant"):
                lock.acquire(timeout=0)
            lock.release()
            for call in (lock.release, lock.extend):
                with pytest.raises(RequestError, match="acquire it first"):
                    call()

    @pytest.mark.parametrize(("name", "ttl"), [("", 1), ("l", 0), ("l", -1), ("l", float("inf"))])
    def test_a_name_or_a_ttl_that_is_none_is_told_at_once(self, db: Any, name: str, ttl: float) -> None:
        with pytest.raises(RequestError):
            db.lock(name, ttl)

    def test_a_client_with_a_codec_locks_as_well(self, db: Any) -> None:
        coded = db.with_options(codec="json", keyspace=7)
        with coded.lock("l", 30):
            assert db.exists("l") is False
            assert coded.exists("l") is True
