"""`sync = always` seen from the kernel: no reply leaves before the fdatasync that covers it, and clients share
fdatasyncs.

strace slows, orders and breaks the calls of a running worker; see strace.py.
"""

from __future__ import annotations

import os
import selectors
import signal
import time

from tests.cluster.conftest import Chance
from tests.cluster.daemon import Daemon, wait_until
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import GET, OK, SET, SHARD_READ_ONLY, Wire
from tests.cluster.strace import SYNCS, Strace, needs_strace

DELAY_S = 0.3
SLOW_DISK = ("-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:delay_enter=300000")
CLIENTS = 50


def tag_of_worker(daemon: Daemon, worker: int, tags: dict[int, bytes]) -> bytes:
    return tags[daemon.shards_of(worker)[0]]


@needs_strace
def test_a_write_is_answered_after_an_fdatasync_that_began_after_it_and_reads_go_on(chance: Chance) -> None:
    with Daemon(workers=2, sync="always") as daemon:
        tag = tag_of_worker(daemon, 0, shard_tags(daemon))
        old, new, other = b"{%s}old" % tag, b"{%s}new" % tag, b"{%s}other" % tag
        with (
            Wire(daemon.url) as first,
            Wire(daemon.url) as second,
            Wire(daemon.url) as reader,
            Wire(daemon.url) as peeker,
        ):
            first.call(SET, 0, old, b"durable")
            with Strace([daemon.worker_pid(0)], *SLOW_DISK):
                sent = time.monotonic()
                first.send(SET, 0, new, b"1")
                reads = 0
                while time.monotonic() < sent + DELAY_S / 2:
                    assert reader.call(GET, 0, old) == b"durable"
                    reads += 1
                peeked = time.monotonic()
                peeker.send(GET, 0, new)
                sent_second = time.monotonic()
                second.send(SET, 0, other, b"2")
                assert reader.call(GET, 0, old) == b"durable"
                assert time.monotonic() < sent + DELAY_S, "a read of a durable key waited for the disk"
                assert first.receive()[1:] == [OK, True]
                assert time.monotonic() - sent >= DELAY_S, "a write was acknowledged before its fdatasync"
                value = peeker.receive()[2]
                assert value is None or (value == b"1" and time.monotonic() - sent >= DELAY_S), (
                    f"a read that was sent {peeked - sent:.3f} s after a write returned it before it was durable"
                )
                assert second.receive()[1:] == [OK, True]
                assert time.monotonic() - sent_second >= DELAY_S, "an fdatasync under way was taken for a later write"
            assert reads > 10, f"only {reads} reads were answered in {DELAY_S / 2} s while an fdatasync was under way"


@needs_strace
def test_between_a_request_and_its_reply_the_worker_calls_fdatasync(chance: Chance) -> None:
    with Daemon(workers=2, sync="always") as daemon:
        tag = tag_of_worker(daemon, 0, shard_tags(daemon))
        with (
            Strace([daemon.worker_pid(0)], "-e", f"trace={SYNCS},%network,read,write") as strace,
            Wire(daemon.url) as wire,
        ):
            for n in range(50):
                wire.call(SET, 0, b"{%s}%d" % (tag, n), b"v" * (n * 37 % 500))
        assert count_covered_replies(strace.lines()) == 50


def count_covered_replies(lines: list[str]) -> int:
    """Replies in a trace of one client that waits for each; every one must follow an fdatasync that began after its
    request.

    A request is seen as the arrival of an op batch (magic KOB1), a reply as the sending of replies (KOR1).
    """
    replies = 0
    began = synced = False
    for line in lines:
        if "KOB1" in line:
            began = synced = False
        elif "fdatasync(" in line or "fsync(" in line:
            began = True
            synced = "unfinished" not in line
        elif "fdatasync resumed" in line or "fsync resumed" in line:
            synced = began
        elif "KOR1" in line:
            assert synced, f"a reply left before the fdatasync that covers it: {line}"
            replies += 1
            began = synced = False
    return replies


def test_the_reading_of_traces_finds_a_reply_that_left_too_early() -> None:
    request, begin, end = "1 recvfrom(9, ..KOB1", "2 fdatasync(7 <unfinished ...>", "2 <... fdatasync resumed>) = 0"
    reply = "3 sendto(10, ..KOR1"
    assert count_covered_replies([request, begin, end, reply] * 3) == 3
    for wrong in (
        [request, reply],
        [request, begin, reply, end],
        [begin, request, end, reply],
        [begin, end, request, reply],
    ):
        try:
            count_covered_replies(wrong)
        except AssertionError:
            continue
        raise AssertionError(f"not found in {wrong}")


@needs_strace
def test_fifty_clients_share_fdatasyncs(chance: Chance) -> None:
    """On a disk of 20 ms: a faster one would measure how fast this test sends."""
    sets = 2_000
    with Daemon(workers=2, sync="always") as daemon:
        pids = [daemon.worker_pid(0), daemon.worker_pid(1)]
        slow = ("-e", f"inject={SYNCS}:delay_enter=20000")
        with Strace(pids, "-e", f"trace={SYNCS}", *slow) as strace:
            drive(daemon.url, sets)
        syncs = strace.calls("fdatasync") + strace.calls("fsync")
        print(f"{sets} replies, {syncs} fdatasyncs of 20 ms: {sets / syncs:.1f} replies each")
        assert sets / syncs > 10, f"{sets} writes of {CLIENTS} clients took {syncs} fdatasyncs"


def drive(url: str, sets: int) -> None:
    """`sets` writes by CLIENTS connections, each of which waits for its reply before it sends the next."""
    wires = [Wire(url) for _ in range(CLIENTS)]
    with selectors.DefaultSelector() as selector:
        try:
            for number, wire in enumerate(wires):
                selector.register(wire.sock, selectors.EVENT_READ, wire)
                wire.send(SET, 0, b"client%d" % number, b"v")
            sent, answered = CLIENTS, 0
            while answered < sets:
                ready = selector.select(15)
                assert ready, f"no reply within 15 s; {answered} of {sets} were answered"
                for key, _ in ready:
                    wire = key.data
                    assert wire.receive()[1:] == [OK, True]
                    answered += 1
                    if sent < sets:
                        wire.send(SET, 0, b"client%d" % sent, b"v")
                        sent += 1
        finally:
            for wire in wires:
                wire.sock.close()


@needs_strace
def test_an_fdatasync_that_fails_is_never_acknowledged_and_makes_the_shard_read_only(chance: Chance) -> None:
    with Daemon(workers=2, sync="always") as daemon:
        tags = shard_tags(daemon)
        (broken,), (whole,) = daemon.shards_of(0), daemon.shards_of(1)
        old, new = b"{%s}old" % tags[broken], b"{%s}new" % tags[broken]
        with Wire(daemon.url) as wire, Probe(daemon.url, tags[whole]) as probe:
            wire.call(SET, 0, old, b"durable")
            with Strace([daemon.worker_pid(0)], "-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:error=EIO"):
                status, *rest = wire.request(SET, 0, new, b"1")
                assert status == SHARD_READ_ONLY, f"a write whose fdatasync failed was answered {status} {rest!r}"
            assert wire.request(SET, 0, new, b"2")[0] == SHARD_READ_ONLY, (
                "writes came back although the disk failed one"
            )
            assert wire.call(GET, 0, old) == b"durable"
            status, value, *_ = wire.request(GET, 0, new)
            assert status == SHARD_READ_ONLY or value is None, f"a write that is not durable is served: {value!r}"
            wait_until(lambda: daemon.shard_stats()[broken]["state"] == "read-only", 5, "the status to say so", 0.1)
            assert daemon.shard_stats()[whole]["state"] == "serving"
            told = {stats["shard"]: stats for stats in daemon.cli_status()["shards"]}
            assert told[broken]["state"] == "read-only"
            assert told[broken]["reason"]
            assert not probe.failures(), f"another shard failed: {probe.failures()[:3]}"
        # A new process must not make of it what the disk did not: only an operator's restart of the daemon does.
        os.kill(daemon.worker_pid(0), signal.SIGKILL)
        with Wire(daemon.url) as wire:
            wait_until(lambda: wire.request(GET, 0, old)[1] == b"durable", 10, "the worker to serve again", 0.1)
            assert wire.request(SET, 0, new, b"2")[0] == SHARD_READ_ONLY, "a restarted worker took writes again"
            assert daemon.shard_stats()[broken]["state"] == "read-only"
        daemon.kill_everything()
        daemon.restart()
        with Wire(daemon.url) as wire:
            assert wire.call(GET, 0, old) == b"durable"
            assert wire.call(SET, 0, new, b"3") is True
