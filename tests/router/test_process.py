"""The router as a process, between real sockets and real pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from kio import control, errors, opbatch, wire
from tests.frontdoor.backend import encode
from tests.frontdoor.socket_client import SocketClient
from tests.router.process import RouterProcess, wait_until


@pytest.fixture
def router() -> Iterator[RouterProcess]:
    with RouterProcess() as router:
        yield router


def test_keys_travel_through_the_pipes_and_back_over_tcp_and_unix(router: RouterProcess) -> None:
    router.all_up()
    with router.client() as tcp, router.unix_client() as unix:
        assert tcp.hello[:2] == [0, 0]
        assert tcp.hello[2]["shards"] == 4
        assert tcp.hello[2]["value_bytes_max"] == 1 << 20
        keys = [b"key %d" % i for i in range(2_000)]
        assert tcp.ask(wire.OP_SET_MANY, 0, [part for key in keys for part in (key, key * 3)]) == [0, [True] * 2_000]
        assert unix.ask(wire.OP_GET_MANY, 0, [*keys, b"absent"]) == [0, [*(key * 3 for key in keys), None]]
        assert unix.ask(wire.OP_SET, 0, b"large", bytes(1 << 20)) == [0, True]
        assert tcp.ask(wire.OP_GET, 0, b"large") == [0, bytes(1 << 20)]
        assert all(router.shards.keys)


def test_pipelined_requests_are_answered_in_their_order(router: RouterProcess) -> None:
    router.all_up()
    with router.client() as client:
        for i in range(3_000):
            client.send(i, wire.OP_SET if i % 2 else wire.OP_GET, 0, b"%d" % (i // 2), *([b"v%d" % i] if i % 2 else []))
        assert [client.reply() for _ in range(3_000)] == [[i, 0, True if i % 2 else None] for i in range(3_000)]


def test_a_shard_without_a_worker_is_down_and_the_others_serve(router: RouterProcess) -> None:
    router.worker_up(0, [0, 1])
    router.worker_up(1, [2, 3])
    (key,), (other,) = router.keys_of(0, 1), router.keys_of(2, 1)
    with router.client() as client:
        wait_until(lambda: client.ask(wire.OP_COUNT, 0) == [0, 0], "all shards to be up")
        router.worker_down(0, [0, 1])
        wait_until(lambda: client.ask(wire.OP_GET, 0, key)[0] == errors.ShardDown.code, "the shard to be down")
        assert client.ask(wire.OP_SET, 0, other, b"v") == [0, True]
        assert client.ask(wire.OP_SET, 0, key, b"v") == [errors.ShardDown.code, errors.ShardDown.text, False]
        status, result, failed = client.ask(wire.OP_GET_MANY, 0, [key, other])
        assert (status, result) == (1, [None, b"v"])
        assert failed == [[0, errors.ShardDown.code, errors.ShardDown.text, False]]
        code, message, _ = client.ask(wire.OP_COUNT, 0)
        assert (code, message[:8]) == (errors.ShardDown.code, "shard 0:")
        router.worker_up(0, [0, 1])
        wait_until(lambda: client.ask(wire.OP_GET, 0, key) == [0, None], "the shard to be up again")


def test_what_was_in_flight_to_a_worker_that_died_is_answered_and_its_late_replies_are_not(
    router: RouterProcess,
) -> None:
    worker = router.all_up()
    worker.is_holding = True
    with router.client() as client:
        client.send(1, wire.OP_SET, 0, b"k", b"v")
        client.send(2, wire.OP_GET, 0, b"k")
        wait_until(lambda: sum(opbatch.decode_header(b, opbatch.BATCH_MAGIC)[2] for b in worker.held) == 2, "the batch")
        stale = worker.held[0]
        router.worker_down(0, [0, 1, 2, 3])
        assert client.reply() == [1, errors.ShardDown.code, errors.ShardDown.text, True]
        assert client.reply() == [2, errors.ShardDown.code, errors.ShardDown.text, False]
        again = router.all_up()
        again.is_holding = True
        again.send_raw(encode(stale, [opbatch.Reply(0, opbatch.DONE, b"")]))
        again.send_raw(b"no replies message")
        again.is_holding = False
        assert client.ask(wire.OP_GET, 0, b"k") == [0, None]
    wait_until(lambda: "replies dropped" in router.logged(), "the malformed message to be logged")


def test_a_worker_that_does_not_answer_costs_its_requests_their_deadline_and_status_a_moment(
    router: RouterProcess,
) -> None:
    worker = router.all_up()
    worker.is_holding = True
    status = {"version": "9", "shards": {0: {"state": "serving"}}, "workers": [], "router": {"pid": 1}}
    control.send(router.control, {"type": "topology", "status": status})
    with router.client() as client:
        started = time.monotonic()
        assert client.ask(wire.OP_SET, 0, b"k", b"v", deadline_ms=200) == [36, errors.Timeout.text, True]
        assert 0.15 < time.monotonic() - started < 1.5
        status, stats = client.ask(wire.OP_STATS)
        assert status == 0
        assert stats["version"] == "9"
        assert stats["router"]["pid"] == 1
        assert stats["router"]["connections"] == 1
        assert {shard["state"] for shard in stats["shards"]} == {"down", "recovering"}
        worker.is_holding = False
        figures = client.ask(wire.OP_STATS)[1]["shards"][3]
        assert figures.pop("in_flight") >= 1  # what the worker took and never answered
        assert figures == {"shard": 3, "worker": None, "state": "serving", "reason": "", "keys": 0, "live_bytes": 0}


def test_scan_walks_all_shards_page_by_page(router: RouterProcess) -> None:
    router.all_up()
    keys = sorted(b"key %d" % i for i in range(1_000))
    with router.client() as client:
        client.ask(wire.OP_SET_MANY, 0, [part for key in keys for part in (key, b"v" + key)])
        for what, prefix in ((wire.SCAN_KEYS, b""), (wire.SCAN_ITEMS, b"key 7"), (wire.SCAN_KEYS, b"none")):
            expected = [key for key in keys if key.startswith(prefix)]
            found: list[bytes] = []
            cursor = b""
            while True:
                status, (cursor, page) = client.ask(wire.OP_SCAN, 0, cursor, prefix, 64, what)
                assert status == 0
                assert len(page) <= 64 * (1 + what)
                found += page
                if not cursor:
                    break
            if what == wire.SCAN_ITEMS:
                assert found[1::2] == [b"v" + key for key in found[::2]]
                found = found[::2]
            assert sorted(found) == expected


@pytest.mark.parametrize(
    "arguments",
    [[0, b"", b"", 0, 0], [0, b"", b"", 65_537, 0], [0, b"", b"", 1, 3], [0, b"x", b"", 1, 0],
     [0, b"\x01\x00\x04" + bytes(8), b"", 1, 0], [0, b"\x02\x00\x00" + bytes(8), b"", 1, 0],
     [0, b"", b"p" * 65_536, 1, 0]],
)  # fmt: skip
def test_a_scan_out_of_range_is_a_bad_request(router: RouterProcess, arguments: list[object]) -> None:
    with router.client() as client:
        assert client.ask(wire.OP_SCAN, *arguments)[0] == errors.BadRequest.code


def test_count_and_clear_sum_over_the_shards_of_one_keyspace(router: RouterProcess) -> None:
    router.all_up()
    with router.client() as client:
        for keyspace, count in ((0, 500), (5, 300)):
            client.ask(wire.OP_SET_MANY, keyspace, [b"%d" % (i // 2) for i in range(2 * count)])
        assert client.ask(wire.OP_COUNT, 0) == [0, 500]
        assert client.ask(wire.OP_CLEAR, 0) == [0, 500]
        assert client.ask(wire.OP_COUNT, 0) == [0, 0]
        assert client.ask(wire.OP_COUNT, 5) == [0, 300]


def test_a_clear_that_reached_only_some_shards_may_have_been_applied(router: RouterProcess) -> None:
    router.worker_up(0, [0, 1, 2])
    with router.client() as client:
        wait_until(lambda: client.ask(wire.OP_GET, 0, router.keys_of(0, 1)[0]) == [0, None], "the worker to be up")
        code, message, maybe_applied = client.ask(wire.OP_CLEAR, 0)
        assert (code, message[:8], maybe_applied) == (errors.ShardDown.code, "shard 3:", True)


def test_ping_gives_its_payload_back_without_a_worker(router: RouterProcess) -> None:
    with router.client() as client:
        assert client.ask(wire.OP_PING, b"payload") == [0, b"payload"]


def test_drain_answers_what_is_in_flight_and_refuses_what_is_new(router: RouterProcess) -> None:
    worker = router.all_up()
    worker.is_holding = True
    with router.client() as client, router.client() as other:
        client.send(1, wire.OP_SET, 0, b"k", b"v")
        wait_until(lambda: bool(worker.held), "the batch")
        router.terminate()
        wait_until(lambda: "drain:" in router.logged(), "the drain to begin")
        assert other.ask(wire.OP_GET, 0, b"k")[0] == errors.Draining.code
        client.send(2, wire.OP_GET, 0, b"k")
        with pytest.raises(subprocess.TimeoutExpired):
            router.process.wait(0.1)
        worker.send_raw(worker.shards.execute(worker.held[0]))
        assert client.reply() == [1, 0, True]
        assert client.reply() == [2, errors.Draining.code, errors.Draining.text, False]
        with pytest.raises(ConnectionError):
            client.reply()
    assert router.process.wait(3) == 0


def test_a_drain_ends_in_time_although_a_worker_never_answers(router: RouterProcess) -> None:
    worker = router.all_up()
    worker.is_holding = True
    with router.client() as client:
        client.send(1, wire.OP_SET, 0, b"k", b"v")
        wait_until(lambda: bool(worker.held), "the batch")
        control.send(router.control, {"type": "drain"})
        assert router.process.wait(3) == 0


def test_the_router_is_gone_with_its_supervisor_and_deaf_to_an_interrupt(router: RouterProcess) -> None:
    router.process.send_signal(signal.SIGINT)
    with router.client() as client:
        assert client.ask(wire.OP_PING, b"x") == [0, b"x"]
    router.control.close()
    assert router.process.wait(2) == 1


def test_the_supervisor_is_told_figures(router: RouterProcess) -> None:
    router.all_up()
    with router.client() as client:
        client.ask(wire.OP_SET, 0, b"k", b"v")
        client.ask(wire.OP_SET, 0, b"", b"v")
        stats = router.await_told("stats")
        while stats["connections"] < 1 or wire.OP_SET not in stats["per_op"]:
            stats = router.await_told("stats")
    assert stats["per_op"][wire.OP_SET] == 2
    assert stats["errors"][errors.KeyEmpty.code] == 1
    assert stats["in_flight"] == 0
    assert stats["rss_bytes"] > 1 << 20
    assert stats["cpu_s"] > 0


def test_hostile_bytes_cost_the_router_no_memory_and_other_clients_nothing(router: RouterProcess) -> None:
    router.all_up()
    before = router.await_told("stats")["rss_bytes"]
    with router.client() as client, contextlib.ExitStack() as stack:
        for data in (b"\x7f\xff\xff\xff" + bytes(1_000), os.urandom(100_000), b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00"):
            hostile = stack.enter_context(router.client())
            with contextlib.suppress(ConnectionError):
                hostile.sock.sendall(data)
            if data != b"\x00\x00":
                assert hostile.is_closed()
            assert client.ask(wire.OP_SET, 0, b"k", b"v") == [0, True]
        after = router.await_told("stats")["rss_bytes"]
    assert after - before < 10 << 20
    assert "this is HTTP" in router.logged()


def test_when_descriptors_run_out_those_who_are_in_are_served_and_the_others_later(router: RouterProcess) -> None:
    router.all_up()
    process = psutil.Process(router.process.pid)
    with router.client() as client, contextlib.ExitStack() as stack:
        bound = process.num_fds() + 3
        process.rlimit(psutil.RLIMIT_NOFILE, (bound, bound))
        waiting = [stack.enter_context(SocketClient(router.address, greet=False)) for _ in range(6)]
        wait_until(lambda: "accepting rests" in router.logged(), "the descriptors to run out")
        for _ in range(10):
            assert client.ask(wire.OP_SET, 0, b"k", b"v") == [0, True]
        for each in waiting[:5]:
            each.close()
        waiting[5].send(1, wire.OP_HELLO, {"protocol": 1, "client": "patient"})
        assert waiting[5].reply()[:2] == [1, 0]
    assert router.logged().count("accepting rests") <= 2


def test_a_router_begins_with_the_map_of_keyspaces_that_it_is_given() -> None:
    places = bytes([*range(5), 6, 5, *range(7, 256)])
    with RouterProcess(keyspaces=places) as router:
        router.all_up()
        with router.client() as client:
            assert client.ask(wire.OP_SET, 5, b"k", b"v") == [0, True]
        assert [at for keys in router.shards.keys for at in keys] == [(6, b"k")]
