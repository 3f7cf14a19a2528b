"""A door with real sockets, turned by a thread, with shards in a dict behind it."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgpack

from kio.access import Access
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.door import Door
from kio.frontdoor.doorkeeper import Doorkeeper
from kio.frontdoor.events import Asked, Dropped, Gathered
from kio.frontdoor.greeting import Greeting
from kio.frontdoor.poller import Poller
from kio.frontdoor.resp.rights import Known
from kio.frontdoor.resp.runner import Runner
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import SEED
from tests.frontdoor.socket_client import LIMIT_S, SocketClient

SHARDS = 2


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` is true."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S:g} s in vain for {what}"
        time.sleep(0.005)


class Rare:
    """Answers every rare request with the shards' statuses; remembers what it was told."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self.events: list[object] = []

    def asked(self, event: Asked) -> None:
        self.events.append(event)
        self.dispatch.fan_out(event.handle, event.op, list(range(SHARDS)))

    def gathered(self, event: Gathered) -> None:
        self.events.append(event)
        self.dispatch.answer(event.handle, msgpack.packb([status for status, _ in event.replies]))

    def dropped(self, event: Dropped) -> None:
        self.events.append(event)


class RunningDoor:
    """The door, its sockets and its thread.

    Args:
        access: the users; None lets everybody in.
        with_resp: RESP is spoken at `resp_address`.

    Attributes:
        is_holding: True: batches are kept in `held`, not answered.
    """

    def __init__(
        self,
        listener: socket.socket | None = None,
        *,
        dispatch: dict[str, Any] | None = None,
        access: Access | None = None,
        with_resp: bool = False,
        **door: Any,
    ) -> None:
        self.shards = Shards(SHARDS)
        self.is_holding = False
        self.held: list[bytes] = []
        self._replies: list[bytes] = []
        self._home = tempfile.TemporaryDirectory(prefix="kio-test-")
        tcp = listener or socket.create_server(("127.0.0.1", 0))
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unix_address = os.fspath(Path(self._home.name) / "sock")
        unix.bind(self.unix_address)
        unix.listen()
        self.address = tcp.getsockname()
        self.poller = Poller()
        self.dispatch = Dispatch(SHARDS, SEED, **(dispatch or {}))
        self.rare = Rare(self.dispatch)
        greeting = Greeting("kio/test", SHARDS, 1 << 20)
        self.keeper = Doorkeeper(access or Access())
        if with_resp:
            resp = socket.create_server(("127.0.0.1", 0))
            self.resp_address = resp.getsockname()
            runner = Runner(self.dispatch, SHARDS)
            runner.stranger = self._stranger
            door |= {"resp_listeners": [resp], "runner": runner}
        door["doorkeeper"] = self.keeper
        self.door = Door(self.poller, self.dispatch, [tcp, unix], self._submit, self.rare, greeting, **door)
        self._is_stopping = False
        self._actions: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join()
        self.door.close()
        self.poller.close()
        self._home.cleanup()
        if self._error is not None:
            raise self._error

    def _stranger(self) -> Known | None:
        user = self.keeper.access.default
        return None if user is None else Known(user, self.keeper.access)

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self.poller.poll(0.0 if self._replies else min(0.01, self.door.wait_s))
                while self._actions:
                    self._actions.pop(0)()
                replies, self._replies = self._replies, []
                for message in replies:
                    self.door.deliver(message)
                self.door.turn()
        except BaseException as error:  # noqa: BLE001 (raised again in the test's thread)
            self._error = error

    def _submit(self, shard: int, batch: bytes) -> None:
        if self.is_holding:
            self.held.append(batch)
        else:
            self._replies.append(self.shards.execute(batch))

    def act(self, action: Callable[[], None]) -> None:
        """Have the door's thread call `action`."""
        self._actions.append(action)

    def release(self) -> None:
        """Answer what was held, and hold no more."""
        self.is_holding = False
        held, self.held = self.held, []
        self.act(lambda: self._replies.extend(self.shards.execute(batch) for batch in held))

    def client(self, *, greet: bool = True) -> SocketClient:
        """A client over TCP."""
        return SocketClient(self.address, greet=greet)
