"""The thread that checks passwords."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from kio.access import Access, Right, User, Verifier
from kio.access.passwords import Cost, Hashed, hashed

ADA = User("ada", Right.READ, (), hashed(b"secret", Cost(10, 1, 1)))


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    verifier = Verifier(Access({"ada": ADA}), waiting_max=3)
    yield verifier
    verifier.close()


def wait(verifier: Verifier, count: int) -> list[tuple[int, User | None]]:
    found: list[tuple[int, User | None]] = []
    while len(found) < count:
        assert select.select([verifier], [], [], 10)[0]
        found += verifier.answers()
    return found


def test_answers_come_in_the_order_of_the_asking_and_make_the_descriptor_readable(verifier: Verifier) -> None:
    assert not select.select([verifier], [], [], 0)[0]
    verifier.start()
    assert verifier.ask(1, "ada", b"secret")
    assert verifier.ask(2, "ada", b"wrong")
    assert verifier.ask(3, "eve", b"secret")
    assert wait(verifier, 3) == [(1, ADA), (2, None), (3, None)]
    assert not select.select([verifier], [], [], 0)[0]
    assert verifier.answers() == []


def test_past_its_bound_nothing_more_is_taken(verifier: Verifier) -> None:
    assert [verifier.ask(i, "ada", b"secret") for i in range(5)] == [True, True, True, False, False]
    verifier.start()
    assert [ticket for ticket, _ in wait(verifier, 3)] == [0, 1, 2]
    assert verifier.ask(9, "ada", b"secret")


def test_a_check_that_fails_is_no_and_the_thread_goes_on(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Hashed, password: bytes) -> bool:
        raise ValueError("memory limit exceeded")

    monkeypatch.setattr(Hashed, "is_of", fail)
    verifier.start()
    verifier.ask(1, "ada", b"secret")
    assert wait(verifier, 1) == [(1, None)]
    monkeypatch.undo()
    verifier.ask(2, "ada", b"secret")
    assert wait(verifier, 1) == [(2, ADA)]


def test_closing_ends_the_thread_with_what_it_is_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(self: Hashed, password: bytes) -> bool:
        begun.set()
        may_end.wait(10)
        return True

    monkeypatch.setattr(Hashed, "is_of", slow)
    verifier = Verifier(Access({"ada": ADA}))
    verifier.start()
    for ticket in range(10):
        verifier.ask(ticket, "eve", b"x")
    assert begun.wait(10)
    threading.Timer(0.05, may_end.set).start()
    verifier.close()
    assert "verifier" not in {thread.name for thread in threading.enumerate()}
