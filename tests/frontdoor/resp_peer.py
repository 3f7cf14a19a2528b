"""A RESP door without sockets: connections, the runner and its commands, and shards in a dict behind them.

door = RespDoor()                   two shards, all of them up
peer = door.peer()                  a connection
peer.ask(b"SET", b"k", b"v")        one command, and the bytes of its reply
door.is_holding = True              batches are kept in `door.held` until `door.let_go()`
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from kio import opbatch, wire
from kio.commands.functions import REGISTER
from kio.commands.state import Removed, State
from kio.errors import KioError, NotAuthenticated
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Dropped, Event, Gathered, Refused
from kio.frontdoor.resp.connection import ConnectionCommands
from kio.frontdoor.resp.rights import Everybody, Guest
from kio.frontdoor.resp.runner import Runner
from kio.frontdoor.resp.sessions import Session
from kio.opbatch import ABSENT, NUMBER, VALUE, VERSIONED, Operation
from tests.frontdoor.backend import Answer, Shards, Version, encode
from tests.frontdoor.peer import SEED

SHARDS = 2
OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
NIL = b"$-1\r\n"


def command(*arguments: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class RespShards(Shards):
    """Shards that also know what only RESP asks for."""

    def _execute(self, shard: int, o: Operation) -> Answer:
        if o.op == wire.OP_EXISTS and o.flags & opbatch.WITH_VERSION:
            status, shown = super()._execute(shard, o._replace(op=wire.OP_GET))
            return (VERSIONED, shown[: opbatch.VERSION.size]) if status == VERSIONED else (status, b"")
        if o.op == wire.OP_APPLY:
            return self._apply(shard, o)
        if o.op == wire.OP_ATOMIC and o.flags & opbatch.EACH:
            return VALUE, encode(o.value, self.replies(o.value))
        if o.op in (wire.OP_SYNC, wire.OP_CHECKPOINT):
            return NUMBER, struct.pack("<q", 0)
        return super()._execute(shard, o)

    def _apply(self, shard: int, o: Operation) -> Answer:
        at = (o.keyspace, o.key)
        found = self._execute_on_key(shard, o._replace(op=wire.OP_GET, value=b"", flags=0))
        state = State(found[1], self.versions[shard][at].expire_at) if found[0] != ABSENT else None
        name, *arguments = msgpack.unpackb(o.value)
        try:
            outcome = REGISTER.call(name, state, self.now_ms, arguments)
        except KioError as error:
            return error.code, str(error).encode()
        if isinstance(outcome.change, Removed):
            self.keys[shard].pop(at, None)
        elif outcome.change is not None:
            self._lsns[shard] += 1
            self.keys[shard][at] = outcome.change.value
            self.versions[shard][at] = Version(self._lsns[shard], outcome.change.expire_at_ms)
        return VALUE, msgpack.packb(outcome.reply)


class RespDoor:
    """The door.

    Attributes:
        is_holding: True: batches are kept, not answered.
        held: these: (shard, message).
        refused: what was told of connections that did not speak RESP.
    """

    def __init__(self, shards: int = SHARDS, *, stranger: bool = False, **dispatch: Any) -> None:
        self.shards = RespShards(shards)
        self.dispatch = Dispatch(shards, SEED, **dispatch)
        self.runner = Runner(self.dispatch, shards)
        self.doomed: list[int] = []
        ConnectionCommands(self.runner, self.dispatch, "7.2.0", self._authenticate, self.doomed.append)
        if stranger:
            self.runner.stranger = lambda: None
        self.now_ms = 1_000
        self.is_holding = False
        self.held: list[tuple[int, bytes]] = []
        self.refused: list[Refused] = []
        self.unowned: list[Event] = []
        self.peers: dict[int, RespPeer] = {}

    def _authenticate(
        self, session: Session, name: str, password: bytes, told: Callable[[Guest | KioError], None]
    ) -> None:
        told(Everybody() if password == b"secret" else NotAuthenticated())

    def peer(self) -> RespPeer:
        """A new connection."""
        peer = RespPeer(self)
        self.peers[peer.id] = peer
        return peer

    def turn(self) -> None:
        """What Door.turn does."""
        while True:
            while events := self.dispatch.take_events():
                for event in events:
                    self._handle(event)
            for id in self.doomed:
                if id in self.peers:
                    self.peers[id].close()
            self.doomed.clear()
            for shard, batch in self.dispatch.take_batches():
                self.held.append((shard, batch))
            if not self.is_holding:
                self.answer_all()
            self.dispatch.outputs()
            self.dispatch.resume(self.now_ms)
            if not self.dispatch.has_news and (self.is_holding or not self.held):
                return

    def _handle(self, event: Event) -> None:
        if isinstance(event, Gathered):
            if self.runner.owns(event.handle):
                self.runner.gathered(event)
            else:
                self.unowned.append(event)
        elif isinstance(event, Dropped):
            self.runner.dropped(event.handle)
        elif isinstance(event, Refused):
            self.refused.append(event)

    def answer_all(self) -> None:
        """The shards answer what is held."""
        held, self.held = self.held, []
        for _, batch in held:
            self.dispatch.deliver(self.shards.execute(batch))

    def let_go(self) -> None:
        """Hold no more."""
        self.is_holding = False
        self.turn()

    def pass_by(self, ms: int) -> None:
        """Time passes for the deadlines."""
        self.now_ms += ms
        self.dispatch.expire(self.now_ms)
        self.turn()

    def operations(self) -> list[tuple[int, bytes]]:
        """(operation, key) of what the shards have executed since the last call."""
        done = [(o.op, o.key) for o in self.shards.operations]
        self.shards.operations.clear()
        return done

    def contents(self) -> dict[bytes, bytes]:
        """What all shards hold in keyspace 0."""
        return {key: value for shard in self.shards.keys for (keyspace, key), value in shard.items() if keyspace == 0}


class RespPeer:
    """One connection of a door."""

    def __init__(self, door: RespDoor) -> None:
        self.door = door
        self.dispatch = door.dispatch
        self.id = self.dispatch.open(True)
        door.runner.opened(Session(self.id, 7, f"127.0.0.1:{1000 + len(door.peers)}", "127.0.0.1:6379"))

    @property
    def session(self) -> Session:
        """What the runner knows of it."""
        session = self.door.runner.sessions.get(self.id)
        assert session is not None
        return session

    def feed(self, data: bytes) -> None:
        """Bytes that the client sent; nothing is answered yet."""
        self.dispatch.feed(self.id, data, self.door.now_ms)

    def send(self, *arguments: bytes) -> None:
        """One command; what can be answered is."""
        self.feed(command(*arguments))
        self.door.turn()

    def send_all(self, commands: Iterable[tuple[bytes, ...]]) -> None:
        """Several commands, in one piece."""
        self.feed(b"".join(command(*each) for each in commands))
        self.door.turn()

    def output(self) -> bytes:
        """All bytes for this client since the last call."""
        data = bytes(self.dispatch.output(self.id))
        self.dispatch.consumed(self.id, len(data))
        return data

    def ask(self, *arguments: bytes) -> bytes:
        """The reply to one command, and what else has come."""
        self.send(*arguments)
        return self.output()

    def ask_all(self, *commands: tuple[bytes, ...]) -> bytes:
        """The replies to several commands that were sent in one piece."""
        self.send_all(commands)
        return self.output()

    def close(self) -> None:
        """The connection ends."""
        del self.door.peers[self.id]
        self.door.runner.closed(self.id)
        self.dispatch.close(self.id)

    @property
    def is_over(self) -> bool:
        """Whether it is to be closed."""
        return self.dispatch.is_finished(self.id)
