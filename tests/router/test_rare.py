"""Count, clear, scan and stats over several shards, without a socket."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from kio import errors, opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Dropped, Gathered
from kio.router.rare import RareOperations
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED, Peer, key_of, turn

SHARDS = 4
Answer = tuple[int, bytes]


class Router:
    """A client, the shards, and between them what the router's loop connects.

    Attributes:
        answers: by shard, what it answers instead of the truth.
    """

    def __init__(self) -> None:
        self.dispatch = Dispatch(SHARDS, SEED)
        self.shards = Shards(SHARDS)
        self.rare = RareOperations(self.dispatch, SHARDS, lambda: {"connections": 1, "pid": 5})
        self.peer = Peer(self.dispatch)
        self.answers: dict[int, Answer] = {}

    def turn(self) -> None:
        """Until nothing happens any more."""
        while self.dispatch.has_news:
            for event in self.dispatch.take_events():
                if isinstance(event, Asked):
                    self.rare.asked(event)
                elif isinstance(event, Gathered):
                    self.rare.gathered(event)
                elif isinstance(event, Dropped):
                    self.rare.dropped(event)
            for shard, batch in self.dispatch.take_batches():
                answer = self.answers.get(shard)
                wrong = [opbatch.Reply(0, *answer)] if answer else []
                self.dispatch.deliver(encode(batch, wrong) if wrong else self.shards.execute(batch))
            self.dispatch.outputs()

    def ask(self, op: int, *arguments: Any, deadline_ms: int = 0) -> list[Any]:
        """The reply to one request, without its id."""
        self.peer.send(7, op, *arguments, deadline_ms=deadline_ms)
        self.turn()
        ((_, *reply),) = self.peer.replies()
        return reply


@pytest.fixture
def router() -> Router:
    return Router()


def test_the_first_shard_that_fails_a_count_is_named(router: Router) -> None:
    router.answers = {2: (errors.Corrupt.code, b"segment 1 is corrupt"), 3: (errors.ShardReadOnly.code, b"")}
    assert router.ask(wire.OP_COUNT, 0) == [errors.Corrupt.code, "shard 2: segment 1 is corrupt", False]


def test_a_seal_is_a_point_of_each_shard_in_their_order_or_the_error_of_the_first_that_has_none(router: Router) -> None:
    router.answers = {shard: (opbatch.VALUE, msgpack.packb({"lsn": shard})) for shard in range(SHARDS)}
    assert router.ask(wire.OP_SEAL) == [0, [{"lsn": shard} for shard in range(SHARDS)]]
    router.answers[1] = (errors.ShardReadOnly.code, b"a sync failed")
    assert router.ask(wire.OP_SEAL) == [errors.ShardReadOnly.code, "shard 1: a sync failed", False]


def test_a_count_that_is_no_number_is_an_internal_error(router: Router) -> None:
    router.answers = {1: (opbatch.VALUE, b"12345678")}
    code, message, _ = router.ask(wire.OP_COUNT, 0)
    assert (code, message[:12]) == (errors.InternalError.code, "shard 1 gave")


def test_a_clear_that_no_shard_has_done_was_not_applied_unless_one_says_it_may_be(router: Router) -> None:
    router.answers = dict.fromkeys(range(SHARDS), (errors.DiskFull.code, b""))
    assert router.ask(wire.OP_CLEAR, 0)[::2] == [errors.DiskFull.code, False]
    router.answers[3] = (errors.DiskFull.code | opbatch.MAYBE_APPLIED, b"")
    assert router.ask(wire.OP_CLEAR, 0)[::2] == [errors.DiskFull.code, True]
    del router.answers[3]
    assert router.ask(wire.OP_CLEAR, 0)[::2] == [errors.DiskFull.code, True]


def test_a_compaction_is_asked_of_every_shard_and_answers_what_is_dead_in_all(router: Router) -> None:
    router.answers = {shard: (opbatch.NUMBER, struct.pack("<q", 100 + shard)) for shard in range(SHARDS)}
    assert router.ask(wire.OP_COMPACT) == [0, 100 * SHARDS + sum(range(SHARDS))]
    router.answers[1] = (errors.ShardReadOnly.code, b"the disk failed")
    assert router.ask(wire.OP_COMPACT)[:2] == [errors.ShardReadOnly.code, "shard 1: the disk failed"]


def test_a_scan_passes_over_shards_that_hold_nothing(router: Router) -> None:
    key = key_of(2, SHARDS)
    router.peer.send(1, wire.OP_SET, 0, key, b"v")
    turn(router.dispatch, router.shards)
    assert router.peer.replies() == [[1, 0, True]]
    status, (cursor, page) = router.ask(wire.OP_SCAN, 0, b"", b"", 10, wire.SCAN_ITEMS)
    assert (status, page) == (0, [key, b"v"])
    assert router.ask(wire.OP_SCAN, 0, cursor, b"", 10, wire.SCAN_ITEMS) == [0, [b"", []]]


@pytest.mark.parametrize("answer", [(opbatch.NUMBER, bytes(8)), (opbatch.VALUE, bytes(8)), (opbatch.VALUE, b"")])
def test_a_page_of_the_wrong_kind_is_an_internal_error(router: Router, answer: Answer) -> None:
    router.answers = {0: answer}
    assert router.ask(wire.OP_SCAN, 0, b"", b"", 10, 0)[0] == errors.InternalError.code


def test_a_scan_stops_at_a_shard_that_fails_and_can_be_repeated_from_there(router: Router) -> None:
    router.answers = {0: (opbatch.VALUE, struct.pack("<Q", 9) + msgpack.packb([b"a"]))}
    _, (cursor, page) = router.ask(wire.OP_SCAN, 0, b"", b"", 1, 0)
    assert page == [b"a"]
    router.answers = {0: (errors.Corrupt.code, b"broken")}
    assert router.ask(wire.OP_SCAN, 0, cursor, b"", 1, 0) == [errors.Corrupt.code, "shard 0: broken", False]
    router.answers = {}
    assert router.ask(wire.OP_SCAN, 0, cursor, b"", 1, 0) == [0, [b"", []]]


def test_stats_join_what_the_shards_the_supervisor_and_the_router_know(router: Router) -> None:
    router.rare.topology = {
        "version": "1",
        "router": {"pid": 4, "restarts": 2},
        "shards": {n: {"worker": n % 2, "state": "serving", "reason": ""} for n in range(3)},
    }
    router.dispatch.fail_shard(1)
    router.answers = {2: (opbatch.VALUE, msgpack.packb({"state": "read-only", "reason": "disk", "keys": 7}))}
    status, stats = router.ask(wire.OP_STATS)
    assert status == 0
    assert (stats["version"], stats["router"]) == ("1", {"pid": 5, "restarts": 2, "connections": 1})
    first, second, third, fourth = stats["shards"]
    assert (first["shard"], first["worker"], first["state"], first["keys"]) == (0, 0, "serving", 0)
    assert (second["worker"], second["state"]) == (1, "down")
    assert errors.ShardDown.text in second["reason"]
    assert (third["state"], third["reason"], third["keys"]) == ("read-only", "disk", 7)
    assert (fourth["worker"], fourth["state"]) == (None, "serving")


def test_a_request_whose_client_is_gone_leaves_nothing_behind(router: Router) -> None:
    for op, arguments in ((wire.OP_COUNT, [0]), (wire.OP_SCAN, [0, b"", b"", 1, 0]), (wire.OP_STATS, [])):
        router.peer.send(1, op, *arguments)
    router.dispatch.close(router.peer.id)
    router.turn()
    router.peer = Peer(router.dispatch)
    assert router.ask(wire.OP_COUNT, 0) == [0, 0]
    assert router.rare._steps == {}


def test_a_seal_waits_until_no_keyspaces_are_being_swapped(router: Router) -> None:
    router.answers = {shard: (opbatch.VALUE, msgpack.packb({"lsn": shard})) for shard in range(SHARDS)}
    waiting: list[Callable[[], None]] = []
    router.rare.when_still = waiting.append
    router.peer.send(7, wire.OP_SEAL)
    router.turn()
    assert router.peer.replies() == []
    (then,) = waiting
    then()
    router.turn()
    ((_, *reply),) = router.peer.replies()
    assert reply == [0, [{"lsn": shard} for shard in range(SHARDS)]]


def test_a_seal_that_nobody_waits_for_any_more_is_not_begun_behind_a_swap(router: Router) -> None:
    waiting: list[Callable[[], None]] = []
    router.rare.when_still = waiting.append
    router.peer.send(7, wire.OP_SEAL)
    router.turn()
    router.dispatch.close(router.peer.id)
    router.turn()
    waiting.pop()()
    assert router.dispatch.take_batches() == []
    assert router.rare._steps == {}
