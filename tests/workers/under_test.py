"""One real worker process with the test in the place of its supervisor and its router."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import zmq

from kio import control, opbatch
from kio.limits import MIB
from kio.opbatch import Operation, Reply
from kio.segments import identity

LIMIT_S: Final = 10.0
ROOT: Final = Path(__file__).resolve().parents[2]


class WorkerUnderTest:
    """`python -m kio.workers` on a new data directory, or on the one given; killed when the `with` block ends."""

    def __init__(self, data: Path, *, shards: Sequence[int] = (0, 1), sync: str = "interval", cpu: int | None = None):
        self.data = data
        self.sync = sync
        self.cpu = cpu
        self.shards = list(shards)
        self.directory, _ = identity.create_or_load(data, len(self.shards))
        self.pipes_dir = data / "run"
        self.pipes_dir.mkdir(exist_ok=True)
        self._context = zmq.Context()
        self._push: Any = None
        self._pull: Any = None
        self._left: list[Any] = []
        self._pipes = 0

    def __enter__(self) -> Self:
        ours, theirs = control.control_pair()
        self.control = ours
        environ = {name: value for name, value in os.environ.items() if not name.startswith("KIO_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kio.workers", "--control-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), environ.get("PYTHONPATH", "")])},
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(LIMIT_S)
        self.post(
            type="configure",
            worker=0,
            cpu=self.cpu,
            shards=self.shards,
            data=str(self.data),
            pipes_dir=str(self.pipes_dir),
            seed=self.directory.seed,
            directory_id=self.directory.directory_id,
            sync=self.sync,
            sync_interval_ms=50,
            segment_bytes=MIB,
            space_amplification=1.4,
            dead_ratio=0.0,
            checkpoint_interval_s=60,
            open_segments=16,
            memory_bytes_max=0,
            max_value_bytes=MIB,
            read_only={},
            log_level="info",
            log_format="text",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
        self.control.close()
        self._context.destroy(linger=0)

    # --- as the supervisor

    def post(self, **message: Any) -> None:
        assert control.send(self.control, message)

    def await_message(self, kind: str) -> dict[str, Any]:
        """The next control message of that type; others are skipped."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            message = control.receive(self.control)
            assert message is not None, f"the worker is gone; {kind!r} was awaited"
            if message["type"] == kind:
                return message
        raise AssertionError(f"waited in vain for {kind!r}")

    def connect(self) -> None:
        """A new pair of pipes, as for a new router; the old one is left as a dead router leaves it."""
        name = self.bind_pipe()
        self._left += [self._push, self._pull]
        self._push, self._pull = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
        for sock, endpoint in zip(
            (self._push, self._pull), control.pipe_endpoints(str(self.pipes_dir), name), strict=True
        ):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVTIMEO, int(LIMIT_S * 1000))
            sock.connect(endpoint)

    def bind_pipe(self) -> str:
        """Have a pair of pipes bound; its name."""
        self._pipes += 1
        name = control.pipe_name(0, 1, self._pipes)
        self.post(type="pipe", name=name)
        assert self.await_message("piped")["name"] == name
        return name

    # --- as the router

    def send(self, shard: int, *operations: Operation, batch_id: int = 1) -> None:
        self._push.send(opbatch.encode_batch(shard, batch_id, operations))

    def receive(self) -> tuple[int, list[Reply]]:
        """(batch id, replies) of the next message."""
        message = self._pull.recv()
        return opbatch.decode_header(message, opbatch.REPLIES_MAGIC)[1], opbatch.decode_replies(message)

    def ask(self, shard: int, *operations: Operation) -> list[Reply]:
        """The replies to one batch, by index."""
        self.send(shard, *operations, batch_id=4711)
        replies: list[Reply] = []
        while len(replies) < len(operations):
            batch_id, some = self.receive()
            assert batch_id == 4711
            replies += some
        return sorted(replies)
