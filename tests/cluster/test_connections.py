"""Connections: the order of replies, what is left of connections that are gone, and clients that do not read."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, scaled, wait_until
from tests.cluster.load import Load
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import DELETE, EXISTS, GET, OK, PING, SET, Wire

CONNECTS = 1_000 if FULL else 300
PIPELINED = 20_000 if FULL else 3_000
MIB = 1 << 20


@scaled
def test_replies_come_in_the_order_of_requests_across_shards_under_load(chance: Chance) -> None:
    dice = chance.dice
    with (
        Daemon(workers=2, shards=4) as daemon,
        Load(daemon, clients=2, seed=chance.seed) as load,
        Wire(daemon.url) as wire,
    ):
        model: dict[bytes, bytes] = {}
        requests: list[tuple[object, ...]] = []
        expected: list[object] = []
        for number in range(PIPELINED):
            key = b"order:%d" % dice.randrange(100)
            op = dice.choice((SET, GET, GET, DELETE, EXISTS, PING))
            if op == SET:
                model[key] = b"%d" % number * dice.choice((0, 1, 50))
                requests.append((SET, 0, key, model[key]))
                expected.append(True)
            elif op == PING:
                requests.append((PING, b"%d" % number))
                expected.append(b"%d" % number)
            else:
                requests.append((op, 0, key))
                expected.append({GET: model.get(key), EXISTS: key in model, DELETE: key in model}[op])
                if op == DELETE:
                    model.pop(key, None)
        load.await_acks(20)
        first = wire.last_id + 1
        sender = threading.Thread(target=wire.send_all, args=(requests,), daemon=True)
        sender.start()
        for number, result in enumerate(expected, first):
            reply = wire.receive()
            assert reply == [number, OK, result], (
                f"request {number} {requests[number - first]!r:.100} was answered {reply!r:.100}; {chance.repeat}"
            )
        sender.join(10)


@scaled
def test_descriptors_return_to_base_after_many_connects(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                wire.call(GET, 0, b"{%s}k" % tag)  # now every pipe has been used, and has its descriptors
        base, memory = daemon.descriptors(), daemon.rss_mib()
        for number in range(CONNECTS):
            wire = Wire(daemon.url)
            if number % 3 == 0:
                wire.send(GET, 0, b"k")
            elif number % 3 == 1:
                wire.sock.sendall(b"\0\0\0\x20half")
            wire.sock.close()

        def is_back() -> bool:
            return all(count <= base[pid] for pid, count in daemon.descriptors().items())

        wait_until(is_back, 5, lambda: f"descriptors {base} of before, now they are {daemon.descriptors()}", 0.1)
        grown = {pid: round(after - memory[pid], 1) for pid, after in daemon.rss_mib().items()}
        assert max(grown.values()) < 20, f"{CONNECTS} connections cost {grown} MiB"


def test_a_client_that_never_reads_does_not_hurt_others(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                wire.call(SET, 0, b"{%s}large" % tag, b"x" * MIB)
        before = daemon.rss_mib()
        with contextlib.ExitStack() as stack:
            deaf = [stack.enter_context(Wire(daemon.url)) for _ in range(4)]
            probes = [stack.enter_context(Probe(daemon.url, tag)) for tag in tags.values()]
            for wire in deaf:
                wire.sock.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    for _ in range(200):
                        wire.send_all([(GET, 0, b"{%s}large" % tag) for tag in tags.values()])
            began = time.monotonic()
            wait_until(lambda: all(len(p.answers) > 300 for p in probes), 10, "300 answers of each shard")
            grown = sum(daemon.rss_mib().values()) - sum(before.values())
            print(f"memory grew by {grown:.0f} MiB; 300 probes took {time.monotonic() - began:.2f} s")
        for probe in probes:
            assert not probe.failures(), probe.failures()[:3]
            assert sorted(a.took_s for a in probe.answers)[len(probe.answers) * 95 // 100] < 0.5
        assert grown < 4 * 100, (
            f"four clients that do not read cost {grown:.0f} MiB, although 64 MiB each are the bound"
        )
        assert_healthy(daemon)


def test_a_client_that_goes_away_amid_a_pipeline_leaves_the_rest_alone(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(Probe(daemon.url, tag)) for tag in tags.values()]
            for number in range(30):
                wire = Wire(daemon.url)
                wire.send_all([(SET, 0, b"gone:%d" % n, b"x" * 1_000) for n in range(200)])
                if number % 2:
                    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                wire.sock.close()
            wait_until(lambda: all(len(p.answers) > 20 for p in probes), 10, "answers of each shard")
        for probe in probes:
            assert not probe.failures(), probe.failures()[:3]
        assert_healthy(daemon)


def assert_healthy(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        assert wire.call(SET, 0, b"healthy", b"1") is True
        assert wire.call(GET, 0, b"healthy") == b"1"
    assert {stats["state"] for stats in daemon.shard_stats().values()} == {"serving"}
