"""The Loader against a daemon that refuses, fails for a while, or stays away."""

from __future__ import annotations

import pytest

from kio.cli import loading
from kio.cli.loading import Loader
from kio.cli.transfer import Record, Tally
from kio.errors import (
    ConnectionLost,
    DiskFull,
    KioError,
    PartialFailure,
    ShardDown,
    Timeout,
    ValueTooLarge,
)

from .conftest import FakeClient


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tally(told: list[str]) -> Tally:
    return Tally(tell=told.append)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def loader(client: FakeClient, tally: Tally, clock: Clock) -> Loader:
    return Loader(client, tally, 60.0, sleep=clock.sleep, clock=clock)  # type: ignore[arg-type]


def record(n: int, value: bytes = b"v") -> Record:
    return Record(b"k%d" % n, value, f"in:{n}")


def test_batches_are_bounded_in_records(loader: Loader, client: FakeClient, tally: Tally) -> None:
    for n in range(2500):
        loader.add(record(n))
    loader.flush()
    assert client.batches == [1000, 1000, 500]
    assert (tally.records, tally.bytes, tally.retried) == (2500, 2500, 0)


def test_batches_are_bounded_in_bytes(loader: Loader, client: FakeClient) -> None:
    for n in range(10):
        loader.add(record(n, bytes(loading.BATCH_BYTES_MAX // 4)))
    loader.flush()
    assert client.batches == [4, 4, 2]


def test_the_last_value_of_a_key_stays(loader: Loader, client: FakeClient, tally: Tally) -> None:
    loader.add(record(1, b"first"))
    loader.add(record(2))
    loader.add(record(1, b"last"))
    loader.flush()
    assert client.data[b"k1"] == b"last"
    assert (client.batches, tally.records) == ([2, 1], 3)


def test_nothing_to_send_sends_nothing(loader: Loader, client: FakeClient) -> None:
    loader.flush()
    assert client.batches == []


@pytest.mark.parametrize("error", [ShardDown(), ConnectionLost(), Timeout(maybe_applied=True)])
def test_a_batch_that_fails_for_a_while_is_sent_again_and_counted(
    loader: Loader, client: FakeClient, tally: Tally, clock: Clock, error: KioError
) -> None:
    client.outcomes = [error, error, None]
    for n in range(3):
        loader.add(record(n))
    loader.flush()
    assert len(client.data) == 3
    assert (tally.records, tally.retried, tally.failed) == (3, 6, 0)
    assert clock.pauses == [0.1, 0.2]


def test_only_what_failed_of_a_batch_is_sent_again(loader: Loader, client: FakeClient, tally: Tally) -> None:
    client.outcomes = [PartialFailure(errors={b"k1": ShardDown(), b"k2": ShardDown()}), None]
    for n in range(4):
        loader.add(record(n))
    loader.flush()
    assert client.batches == [4, 2]
    assert (tally.records, tally.retried) == (4, 2)


def test_a_record_that_is_refused_is_told_and_the_rest_is_kept(
    loader: Loader, client: FakeClient, tally: Tally, told: list[str]
) -> None:
    client.outcomes = [PartialFailure(errors={b"k1": ValueTooLarge("too long"), b"k2": ShardDown()}), None]
    for n in range(4):
        loader.add(record(n))
    loader.flush()
    assert (tally.records, tally.retried, tally.failed) == (3, 1, 1)
    assert told == ["in:1: key k1: too long"]


def test_one_record_that_spoils_its_whole_batch_is_found(
    loader: Loader, client: FakeClient, tally: Tally, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = client.set_many

    def refuse(pairs: dict[bytes, bytes]) -> int:
        if b"k5" in pairs:
            raise ValueTooLarge("too long")
        return store(pairs)

    monkeypatch.setattr(client, "set_many", refuse)
    for n in range(8):
        loader.add(record(n))
    loader.flush()
    assert sorted(client.data) == [b"k%d" % n for n in range(8) if n != 5]
    assert (tally.records, tally.failed, told) == (7, 1, ["in:5: key k5: too long"])


def test_a_daemon_that_takes_nothing_is_given_up(
    loader: Loader, client: FakeClient, tally: Tally, clock: Clock
) -> None:
    client.outcomes = [ShardDown("shard 1 is away")] * 1000
    loader.add(record(1))
    with pytest.raises(ShardDown, match="^gave up after 60 s: shard 1 is away$"):
        loader.flush()
    assert 55 < clock.now_s <= 60
    assert max(clock.pauses) == loading.PAUSE_S_MAX
    assert tally.records == 0


def test_progress_starts_the_time_to_give_up_anew(loader: Loader, client: FakeClient, clock: Clock) -> None:
    keys = [b"k%d" % n for n in range(4)]
    for left in (keys[1:], keys[2:], keys[3:]):
        client.outcomes += [ShardDown()] * 25 + [PartialFailure(errors=dict.fromkeys(left, ShardDown()))]
    for n in range(4):
        loader.add(record(n))
    loader.flush()
    assert clock.now_s > 100


@pytest.mark.parametrize("outcome", [DiskFull("full"), PartialFailure(errors={b"k1": DiskFull("full")})])
def test_an_error_that_waiting_does_not_heal_ends_the_import_at_once(
    loader: Loader, client: FakeClient, clock: Clock, outcome: KioError
) -> None:
    client.outcomes = [outcome]
    loader.add(record(0))
    loader.add(record(1))
    with pytest.raises(DiskFull, match="full"):
        loader.flush()
    assert clock.pauses == []
