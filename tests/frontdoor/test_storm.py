"""Dispatch under everything at once: each request is answered once and in its place, whatever happens.

A seeded storm of connections, requests, frames in pieces, replies that come late, twice, mangled or never, shards that
fail, deadlines and slow readers. After it, what was asked is compared with what was answered, and nothing is left.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgpack
import pytest

from kio import errors, opbatch, wire
from kio.errors import ProtocolError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Asked, Gathered
from tests.frontdoor.backend import Shards, encode
from tests.frontdoor.peer import SEED, Peer, frame, unpack
from tests.frontdoor.test_bounds import settled_allocations

SHARDS = 3
#: Rare operations and their arguments.
RARE: dict[int, list[Any]] = {wire.OP_COUNT: [0], wire.OP_STATS: [], wire.OP_PING: [b"p"]}


class Client:
    """One connection: what it has asked and what it was answered."""

    def __init__(self, dispatch: Dispatch, chance: random.Random) -> None:
        self.peer = Peer(dispatch)
        self.chance = chance
        self.next_id = 0
        self.unsent = b""
        self.received = b""

    def ask(self) -> None:
        """Write one more request."""
        chance = self.chance
        keys = [chance.choice([b"", b"%d" % chance.randrange(40)]) for _ in range(2 * chance.randrange(8))]
        value = bytes(chance.choice([0, 5, 300, 5_000, 20_000]))
        op = chance.choice([*range(1, 10), 17, 18, 19, 20, wire.OP_ATOMIC, *RARE])
        arguments: list[Any] = [0, keys]
        if op <= wire.OP_TTL:
            arguments = [0, b"%d" % chance.randrange(40), *self.rest_of(op, value)]
        elif op == wire.OP_ATOMIC:
            ops = chance.choices(range(1, 10), k=chance.randrange(5))
            tag = chance.choice([b"{%d}", b"{t}%d"])
            arguments = [0, [[op, tag % chance.randrange(3), *self.rest_of(op, value)] for op in ops]]
        elif op == wire.OP_SET_MANY:
            arguments = [0, [part for key in keys for part in (key, value)]]
        elif op in RARE:
            arguments = RARE[op]
        self.unsent += frame(self.next_id, op, *arguments, deadline_ms=chance.choice([0, 0, 30, 300]))
        self.next_id += 1

    def rest_of(self, op: int, value: bytes) -> list[Any]:
        """What stands behind the key of an operation; now and then what must not."""
        chance = self.chance
        options: list[list[Any]] = [[], [wire.TTL, 700], [wire.IF_ABSENT], [wire.IF_VERSION, 1, 3], [wire.WITH_OLD]]
        rest: dict[int, list[Any]] = {
            wire.OP_GET: chance.choice([[], [wire.WITH_VERSION]]),
            wire.OP_SET: [value, *chance.choice(options)],
            wire.OP_DELETE: chance.choice(options),
            wire.OP_INCR: [chance.choice([1, -7, 2**63 - 1])],
            wire.OP_APPEND: [value],
            wire.OP_EXPIRE: [wire.TTL, 5_000],
        }
        return rest.get(op, [])

    def feed(self, now_ms: int) -> None:
        """Send some of what is written."""
        if not self.peer.dispatch.is_paused(self.peer.id):
            n = self.chance.randint(0, len(self.unsent))
            self.peer.now_ms = now_ms
            self.peer.feed(self.unsent[:n])
            self.unsent = self.unsent[n:]

    def read(self, n: int) -> None:
        """Take up to `n` bytes of replies."""
        dispatch = self.peer.dispatch
        data = bytes(dispatch.output(self.peer.id)[:n])
        dispatch.consumed(self.peer.id, len(data))
        self.received += data


class Storm:
    """The state of one storm."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = 10_000
        self.dispatch = Dispatch(
            SHARDS,
            SEED,
            value_bytes_max=10_000,
            connection_requests_max=12,
            shard_operations_max=60,
            shard_bytes_max=60_000,
            reply_bytes_max=30_000,
            half_frames_bytes_max=100_000,
            unsent_bytes_max=100_000,
        )
        self.shards = Shards(SHARDS)
        self.clients: list[Client] = []
        self.waiting: list[tuple[bytes, list[opbatch.Reply]]] = []
        self.handles: list[Asked] = []
        self.answered = 0

    def step(self) -> None:
        """Let something happen."""
        chance, dispatch = self.chance, self.dispatch
        self.now_ms += chance.choice([0, 1, 5, 40])
        if len(self.clients) < 6:
            self.clients.append(Client(dispatch, chance))
        client = chance.choice(self.clients)
        action = chance.random()
        if action < 0.35:
            client.ask()
            client.feed(self.now_ms)
        elif action < 0.45:
            client.feed(self.now_ms)
        elif action < 0.6:
            self.waiting += [(batch, self.shards.replies(batch)) for _, batch in dispatch.take_batches()]
        elif action < 0.8 and self.waiting:
            self.deliver()
        elif action < 0.85:
            self.mangle()
        elif action < 0.88:
            dispatch.expire(self.now_ms)
        elif action < 0.9:
            shard = chance.randrange(SHARDS)
            dispatch.fail_shard(shard)
            if chance.random() < 0.9:
                dispatch.shard_up(shard)
        elif action < 0.98:
            client.read(chance.choice([1, 100, 100_000]))
        elif action < 0.985:
            self.leave(client)
        dispatch.resume(self.now_ms)
        self.take_events()

    def deliver(self) -> None:
        """Some entries of some batch."""
        at = self.chance.randrange(len(self.waiting))
        batch, replies = self.waiting[at]
        self.chance.shuffle(replies)
        n = self.chance.randint(1, len(replies))
        with contextlib.suppress(ProtocolError):  # a mangled message may have answered some of them
            self.dispatch.deliver(encode(batch, replies[:n]))
        del replies[:n]
        if not replies:
            del self.waiting[at]

    def mangle(self) -> None:
        """A message that no worker would send; entries it happens to answer are answered."""
        if self.waiting:
            batch, replies = self.chance.choice(self.waiting)
            message = bytearray(encode(batch, replies))
            for _ in range(self.chance.randint(1, 3)):
                message[self.chance.randrange(len(message))] = self.chance.randrange(256)
            with contextlib.suppress(ProtocolError):
                self.dispatch.deliver(bytes(message[: self.chance.randint(0, len(message))]))

    def take_events(self) -> None:
        """Answer the rare requests, some at once and some later."""
        for event in self.dispatch.take_events():
            if isinstance(event, Asked):
                self.handles.append(event)
                self.dispatch.fan_out(event.handle, event.op, [0, 1, 2], limit_ms=self.chance.choice([0, 50]))
            elif isinstance(event, Gathered):
                assert len(event.replies) == SHARDS
                self.dispatch.answer(event.handle, msgpack.packb("gathered"))
        if self.handles and self.chance.random() < 0.2:
            self.dispatch.fail(self.handles.pop(0).handle, errors.Corrupt.code, "so it was decided")

    def leave(self, client: Client) -> None:
        """A client goes; what it got is a prefix of what it asked."""
        self.clients.remove(client)
        self.dispatch.close(client.peer.id)
        whole = client.received
        at = 0
        while at + 4 <= len(whole) and at + 4 + wire.LENGTH.unpack_from(whole, at)[0] <= len(whole):
            at += 4 + wire.LENGTH.unpack_from(whole, at)[0]
        self.check(client, unpack(whole[:at]))

    def check(self, client: Client, replies: list[list[Any]]) -> None:
        """Each reply in its place, and of a kind that its request may have."""
        assert [reply[0] for reply in replies] == list(range(len(replies)))
        assert all(reply[1] in (0, 1, 2) or reply[1] >= opbatch.ERROR for reply in replies)
        assert len(replies) <= client.next_id
        self.answered += len(replies)

    def settle(self) -> None:
        """Answer all that waits, and let every client read to the end."""
        while self.dispatch.requests or any(client.unsent for client in self.clients):
            self.fail_shards()
            for client in self.clients:
                client.feed(self.now_ms)
                client.read(1 << 30)
            for event in self.handles:
                self.dispatch.fail(event.handle, errors.Corrupt.code, "the end")
            self.handles.clear()
            self.dispatch.resume(self.now_ms)
            self.take_events()
        self.fail_shards()
        for client in self.clients:
            client.read(1 << 30)
            replies = unpack(client.received)
            self.check(client, replies)
            assert len(replies) == client.next_id
            assert self.dispatch.in_flight(client.peer.id) == (0, 0)
            self.dispatch.close(client.peer.id)
        assert self.dispatch.requests == 0
        assert [self.dispatch.shard_in_flight(shard) for shard in range(SHARDS)] == [(0, 0)] * SHARDS

    def fail_shards(self) -> None:
        """All that is in flight is answered."""
        for shard in range(SHARDS):
            self.dispatch.fail_shard(shard)
            self.dispatch.shard_up(shard)


def weather(seed: int, steps: int) -> None:
    """One storm, from clear sky to clear sky."""
    base = settled_allocations()
    storm = Storm(seed)
    for _ in range(steps):
        storm.step()
    storm.settle()
    assert storm.answered > steps // 20
    del storm
    assert settled_allocations() == base


@pytest.mark.parametrize("seed", range(5))
def test_each_request_is_answered_once_and_in_its_place_whatever_happens(seed: int) -> None:
    weather(seed, 3_000)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_many_storms_leave_nothing_behind() -> None:
    for seed in range(1_000, 1_200):
        weather(seed, 5_000)
