"""The front door in process, on one core: how many keys pass through Dispatch, and back, in a second.

    python -m tests.measure.frontdoor [--rounds 50] [--json]

No socket, no shard: frames are fed and batches taken (in), prepared replies delivered and the output consumed (out).
Keys of 16 bytes, values of 100. Time is CPU time, the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from kio import opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from tests.frontdoor.peer import SEED, Peer, frame

VALUE = b"v" * 100
KEYS = [b"key:%012d" % i for i in range(1_000)]
PAIRS = [part for key in KEYS for part in (key, VALUE)]

#: What one round sends (a thousand keys each), and what a shard answers to each operation.
LOADS: dict[str, tuple[bytes, tuple[int, bytes]]] = {
    "get_many of 1000": (frame(1, wire.OP_GET_MANY, 0, KEYS, deadline_ms=5_000), (opbatch.VALUE, VALUE)),
    "set_many of 1000": (frame(1, wire.OP_SET_MANY, 0, PAIRS, deadline_ms=5_000), (opbatch.DONE, b"")),
    "1000 single gets": (
        b"".join(frame(id, wire.OP_GET, 0, key, deadline_ms=5_000) for id, key in enumerate(KEYS)),
        (opbatch.VALUE, VALUE),
    ),
}


def measure(shards: int, request: bytes, answer: tuple[int, bytes], rounds: int) -> tuple[float, float]:
    """Keys a second (in, out)."""
    dispatch = Dispatch(shards, SEED, connection_requests_max=2 * len(KEYS))
    peer = Peer(dispatch)
    batches: list[tuple[int, bytes]] = []
    replies: list[bytes] = []

    def go_in() -> None:
        peer.feed(request)
        batches.extend(dispatch.take_batches())

    def go_out() -> None:
        for message in replies:
            dispatch.deliver(message)
        dispatch.outputs()
        dispatch.consumed(peer.id, len(dispatch.output(peer.id)))

    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        batches.clear()
        taken_in = timed(go_in)
        replies = [answered(batch, answer) for _, batch in batches]
        times.append((taken_in, timed(go_out)))
    took_in, took_out = (statistics.median(column) for column in zip(*times, strict=True))
    return len(KEYS) / took_in, len(KEYS) / took_out


def timed(act: Callable[[], None]) -> float:
    """CPU seconds of a call."""
    began = time.process_time_ns()
    act()
    return (time.process_time_ns() - began) / 1e9


def answered(batch: bytes, answer: tuple[int, bytes]) -> bytes:
    """Replies to a batch, `answer` to each of its operations."""
    shard, batch_id, count = opbatch.decode_header(batch, opbatch.BATCH_MAGIC)
    return opbatch.encode_replies(shard, batch_id, (opbatch.Reply(index, *answer) for index in range(count)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Keys a second through the front door, in process.")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for shards in (1, 2, 8):
        for load, (request, answer) in LOADS.items():
            keys_in, keys_out = measure(shards, request, answer, arguments.rounds)
            rows.append({"shards": shards, "load": load, "in_m_per_s": keys_in / 1e6, "out_m_per_s": keys_out / 1e6})
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'shards':>6}  {'load':<18} {'in_m_per_s':>10} {'out_m_per_s':>11}")
    for row in rows:
        print(f"{row['shards']:>6}  {row['load']:<18} {row['in_m_per_s']:>10.1f} {row['out_m_per_s']:>11.1f}")


if __name__ == "__main__":
    main()
