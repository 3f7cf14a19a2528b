from __future__ import annotations

from typing import Any

import pytest

from kio import wire
from kio.client import plans
from kio.client.protocol import Limits, Reply, Request
from kio.client.retry import Retry
from kio.client.window import BYTES_MAX, KEYS_MAX, Window
from kio.errors import (
    Corrupt,
    DiskFull,
    FrameTooLarge,
    KeyTooLarge,
    Overloaded,
    PartialFailure,
    ReplyTooLarge,
    ShardDown,
    Timeout,
    ValueTooLarge,
)
from tests.client.reference import Drop, Fail, FailKeys, Hold, ReferenceServer


def frames(server: ReferenceServer, op: int) -> list[list[Any]]:
    """The items of each frame of that operation."""
    return [arguments[1] for _, each, arguments, _ in server.requests if each == op]


def test_a_batch_is_split_at_the_keys_that_the_daemon_takes(db: Any, connect: Any, server: ReferenceServer) -> None:
    server.hello["frame_keys_max"] = 100
    small = connect(server.url)
    keys = [b"%d" % i for i in range(950)]
    small.set_many({key: key for key in keys})
    assert small.get_many(keys) == {key: key for key in keys}
    assert [len(items) // 2 for items in frames(server, wire.OP_SET_MANY)] == [100] * 9 + [50]
    assert [len(items) for items in frames(server, wire.OP_GET_MANY)] == [100] * 9 + [50]


def test_a_batch_is_split_at_bytes_and_a_large_value_travels_alone(db: Any, server: ReferenceServer) -> None:
    sizes = [900_000] * 9 + [10] * 5
    db.set_many([(b"%d" % i, bytes(size)) for i, size in enumerate(sizes)])
    sent = frames(server, wire.OP_SET_MANY)
    assert [len(items) // 2 for items in sent] == [4, 4, 6]
    assert all(sum(map(len, items)) <= plans.FRAME_BYTES for items in sent)


def test_keys_whose_utf8_is_longer_than_they_look_are_split_again(db: Any, server: ReferenceServer) -> None:
    server.hello["key_bytes_max"] = 65_535
    keys = [chr(0x1F600 + i) * 16_000 for i in range(260)]
    assert sum(map(len, keys)) < plans.FRAME_BYTES + 16_000
    assert db.set_many(dict.fromkeys(keys, b"v")) == 260
    assert db.get_many(keys) == dict.fromkeys(keys, b"v")


def test_keys_that_did_not_fit_into_a_reply_are_asked_again_in_smaller_batches(
    db: Any, server: ReferenceServer
) -> None:
    pairs = {f"k{i}": bytes([i]) * 1000 for i in range(100)}
    db.set_many(pairs)
    server.reply_bytes_max = 30_500
    assert db.get_many(pairs) == pairs
    asked = [len(items) for items in frames(server, wire.OP_GET_MANY)]
    assert asked == [100, 30, 30, 10]


def test_a_whole_frame_that_is_too_large_is_halved(db: Any, server: ReferenceServer) -> None:
    def script(op: int, arguments: list[Any]) -> Any:
        if op == wire.OP_GET_MANY and len(arguments[1]) > 10:
            return Fail(ReplyTooLarge.code)
        if op == wire.OP_SET_MANY and len(arguments[1]) > 20:
            return Fail(FrameTooLarge.code)
        return None

    server.script = script
    pairs = {f"k{i}": b"%d" % i for i in range(77)}
    assert db.set_many(pairs) == 77
    assert db.get_many(pairs) == pairs


def test_when_none_of_the_keys_fits_half_of_them_are_asked(db: Any, server: ReferenceServer) -> None:
    db.set_many({f"k{i}": b"%d" % i for i in range(8)})
    server.script = lambda op, arguments: (
        FailKeys(dict.fromkeys(range(len(arguments[1])), ReplyTooLarge.code)) if len(arguments[1]) > 2 else None
    )
    assert len(db.get_many([f"k{i}" for i in range(8)])) == 8
    assert [len(items) for items in frames(server, wire.OP_GET_MANY)] == [8, 4, 4, 2, 2, 2, 2]


def test_one_key_whose_reply_does_not_fit_just_now_is_asked_again(db: Any, server: ReferenceServer) -> None:
    answers = [Fail(ReplyTooLarge.code), FailKeys({0: ReplyTooLarge.code}), None]
    db.set("k", b"v")
    server.script = lambda op, arguments: answers.pop(0)
    assert db.get_many(["k"]) == {"k": b"v"}
    assert answers == []


def test_only_the_keys_that_failed_are_asked_again(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [FailKeys({1: ShardDown.code, 3: Overloaded.code}), FailKeys({0: ShardDown.code}), None]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    pairs = {f"k{i}": b"%d" % i for i in range(5)}
    assert db.set_many(pairs) == 5
    assert frames(server, wire.OP_SET_MANY)[1:] == [[b"k1", b"1", b"k3", b"3"], [b"k1", b"1"]]
    assert db.get_many(pairs) == pairs


def test_what_remains_is_told_per_key_beside_the_result_of_the_rest(db: Any, server: ReferenceServer) -> None:
    db.set_many({"a": b"1", "b": b"2", "c": b"3"})
    server.script = lambda op, arguments: FailKeys({1: Corrupt.code})
    with pytest.raises(PartialFailure, match=r"1 of 3 keys failed; the first, 'b': ") as caught:
        db.get_many(["a", "b", "c"])
    assert caught.value.result == {"a": b"1", "c": b"3"}
    assert list(caught.value.errors) == ["b"]
    assert isinstance(caught.value.errors["b"], Corrupt)

    server.script = lambda op, arguments: FailKeys({0: DiskFull.code}) if op == wire.OP_SET_MANY else None
    with pytest.raises(PartialFailure) as caught:
        db.set_many({b"x": b"1", "y": b"2"})
    assert caught.value.result == 1
    assert {key: type(error) for key, error in caught.value.errors.items()} == {b"x": DiskFull}
    assert db.get("y") == b"2"

    server.script = lambda op, arguments: FailKeys({0: Corrupt.code})
    with pytest.raises(PartialFailure) as caught:
        db.delete_many(["a", "b"])
    assert caught.value.result == 1
    with pytest.raises(PartialFailure) as caught:
        db.exists_many(["c", "y"])
    assert caught.value.result == {"y": True}


def test_when_every_key_failed_in_the_same_way_that_error_is_raised(db: Any, server: ReferenceServer) -> None:
    server.script = lambda op, arguments: FailKeys({0: DiskFull.code, 1: DiskFull.code})
    with pytest.raises(DiskFull):
        db.set_many({"a": b"1", "b": b"2"})
    server.script = lambda op, arguments: FailKeys({0: DiskFull.code, 1: Corrupt.code})
    with pytest.raises(PartialFailure):
        db.set_many({"a": b"1", "b": b"2"})


def test_a_pair_that_is_too_large_fails_alone(db: Any) -> None:
    with pytest.raises(PartialFailure) as caught:
        db.set_many(
            {
                "fits": b"v",
                "value": bytes((1 << 20) + 1),
                "frame": bytes(9 << 20),
                "k" * 70_000: b"v",
                "K" * (9 << 20): b"v",
            }
        )
    assert {key[:5]: type(error) for key, error in caught.value.errors.items()} == {
        "value": ValueTooLarge,
        "frame": ValueTooLarge,
        "kkkkk": KeyTooLarge,
        "KKKKK": KeyTooLarge,
    }
    assert caught.value.result == 1
    assert list(db.keys()) == [b"fits"]


def test_a_write_that_failed_is_not_repeated_over_a_later_one_of_the_same_key(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [FailKeys({0: ShardDown.code, 1: ShardDown.code})]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    assert db.set_many([("k", b"old"), ("other", b"x"), (b"k", b"new")]) == 3
    assert db.get_many(["k", "other"]) == {"k": b"new", "other": b"x"}
    assert frames(server, wire.OP_SET_MANY)[1:] == [[b"other", b"x"]]


def test_equal_keys_that_failed_together_are_repeated_in_their_order(db: Any, server: ReferenceServer) -> None:
    answers: list[Any] = [FailKeys({2: ShardDown.code, 0: ShardDown.code})]  # told in no order
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    assert db.set_many([("k", b"old"), ("other", b"x"), ("k", b"new")]) == 3
    assert db.get("k") == b"new"


def test_frames_that_were_not_answered_are_sent_again_after_a_lost_connection(db: Any, server: ReferenceServer) -> None:
    count = 0

    def script(op: int, arguments: list[Any]) -> Any:
        nonlocal count
        count += 1
        return Drop(executes=True, reply_bytes=3) if count == 3 else None

    server.script = script
    pairs = {b"%d" % i: b"v" for i in range(50_000)}
    assert db.set_many(pairs) == 50_000
    assert db.count() == 50_000


def test_keys_without_an_answer_at_the_deadline_say_that_they_may_have_been_applied(
    connect: Any, server: ReferenceServer
) -> None:
    hold = Hold()
    server.script = lambda op, arguments: hold if len(server.requests) == 2 else None
    db = connect(server.url, timeout=1)
    pairs = {b"%d" % i: b"v" for i in range(2 * plans.FRAME_KEYS)}
    with pytest.raises(PartialFailure) as caught:
        db.set_many(pairs)
    hold.until.set()
    assert caught.value.result == plans.FRAME_KEYS
    assert len(caught.value.errors) == plans.FRAME_KEYS
    assert caught.value.maybe_applied
    error = caught.value.errors[b"%d" % plans.FRAME_KEYS]
    assert isinstance(error, Timeout)
    assert error.maybe_applied


def test_large_values_are_read_on_in_frames_that_fill_the_window() -> None:
    keys = [b"%d" % i for i in range(100)]
    run = plans.Batch(wire.OP_GET_MANY, 0, keys, Limits(), Retry(5, True)).run()
    assert [request.keys for request in next(run).requests] == [100]
    value = bytes(1 << 20)
    read = Reply([value] * 64 + [None] * 36, failures=[(i, ReplyTooLarge()) for i in range(64, 100)])
    requests = run.send([read]).requests
    assert [request.keys for request in requests] == [4] * 9
    window = Window()
    while window.has_room:
        window.add(requests[0], 100)
    assert window.frames == 4


def test_an_attempt_that_may_have_been_applied_is_not_forgotten_by_later_ones(
    connect: Any, server: ReferenceServer
) -> None:
    answers: list[Any] = [FailKeys({0: ShardDown.code}, maybe_applied=True)]
    server.script = lambda op, arguments: answers.pop(0) if answers else FailKeys({0: ShardDown.code})
    db = connect(server.url, timeout=0.5)
    with pytest.raises((ShardDown, Timeout)) as caught:
        db.set_many({"k": b"v"})
    assert len(server.requests) > 2
    assert caught.value.maybe_applied
    assert "given up after" in caught.value.__notes__[0]


def test_long_requests_and_long_replies_do_not_wait_for_each_other(db: Any) -> None:
    pairs = {b"%03d" % i + bytes(60_000): bytes(200_000) for i in range(150)}
    assert db.set_many(pairs) == 150
    assert db.get_many(pairs) == pairs


def test_an_empty_window_takes_any_frame_and_a_full_one_none() -> None:
    window = Window()
    assert window.has_room
    large = Request(wire.OP_SET_MANY, (), 1)
    window.add(large, BYTES_MAX)
    assert not window.has_room
    window.remove(large, BYTES_MAX)
    many = Request(wire.OP_GET_MANY, (), plans.FRAME_KEYS)
    while window.has_room:
        window.add(many, 1)
    assert window.keys == KEYS_MAX
