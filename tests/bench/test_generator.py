"""A generator process against servers that behave, that are slow, that misbehave and that die.

Where the server takes a known time, the right latencies follow by arithmetic; bounds are as wide as a busy machine
needs, except in the stress run, which wants two quiet cores.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest

from kio.bench.noop import RespResponder
from kio.bench.operations import Operations
from kio.bench.plan import Plan
from tests.bench.quiet import cores_apart, measured_in_quiet
from tests.bench.runs import HEAD_START_NS, figures, generator, run
from tests.bench.servers import PONG, Script, answer_each, noop_process, scripted

OPEN = Plan("", rate=1000, seconds=0.3, connections=4)
CLOSED = Plan("", rate=0, count=2000, connections=4)
EVERYTHING = {"read": 0.3, "update": 0.2, "insert": 0.1, "rmw": 0.3, "delete": 0.1}


def answering(reply: bytes, first: bytes = PONG) -> Script:
    """A script: greet, then answer each command with `reply`."""

    def script(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(first)
        answer_each(connection, reply)

    return script


@pytest.mark.parametrize("protocol", ["native", "resp"])
@pytest.mark.parametrize(
    "shape", ["plain", "pipeline", "batch", *(pytest.param(s, marks=pytest.mark.stress) for s in ("deep", "sizes"))]
)
def test_every_operation_is_answered_once_and_every_command_is_timed(protocol: str, shape: str) -> None:
    shapes = {
        "plain": {"mix": EVERYTHING},
        "pipeline": {"mix": EVERYTHING, "pipeline": 10},
        "deep": {"mix": EVERYTHING, "pipeline": 5, "depth": 3},
        "batch": {"mix": {"read": 0.5, "update": 0.5}, "batch": 10},
        "sizes": {"mix": EVERYTHING, "pipeline": 10, "value_bytes": "1-3000", "key_bytes": "20-40"},
    }
    with noop_process(protocol) as (_, url):
        for plan in (replace(OPEN, rate=2000, count=600), CLOSED):
            told = run(replace(plan, url=url, **shapes[shape]))  # type: ignore[arg-type]
            assert (told.done, told.failed, told.unsent) == (plan.count, 0, 0)
            assert told.sent == plan.count
            assert told.due == (600 if plan.rate else 0)
            batch = shapes[shape].get("batch", 1)
            assert told.counts["corrected"] == told.counts["uncorrected"] == plan.count // batch  # type: ignore[operator]
            assert told.errors == {}
            assert told.events == []
            assert told.connections_lost == 0


@pytest.mark.parametrize("protocol", ["native", "resp"])
def test_counters_and_expiring_keys_are_asked_of_both_protocols(protocol: str) -> None:
    with noop_process(protocol) as (_, url):
        told = run(replace(CLOSED, url=url, mix={"incr": 0.5, "expire": 0.5}, pipeline=4))
    assert (told.done, told.failed) == (2000, 0)


def test_values_of_a_mebibyte_go_both_ways_in_many_pieces() -> None:
    size = str(1 << 20)
    for protocol in ("resp", "native"):
        with noop_process(protocol, "--value-bytes", size) as (_, url):
            plan = replace(
                CLOSED, url=url, mix={"read": 0.5, "update": 0.5}, value_bytes=size, count=120, pipeline=2, depth=2
            )
            told = run(plan)
        assert (told.done, told.failed) == (120, 0)


def test_replies_that_come_byte_by_byte_are_replies() -> None:
    def dribble(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(1000)
        connection.sendall(PONG)
        responder = RespResponder(b"abc")
        while data := connection.recv(65536):
            for byte in b"".join(responder.take(data)):
                connection.sendall(bytes([byte]))

    with scripted(dribble) as address:
        told = run(replace(CLOSED, url=f"redis://{address}", count=100, mix={"read": 0.5, "update": 0.5}, pipeline=5))
    assert (told.done, told.failed) == (100, 0)


def test_reads_that_find_nothing_are_counted_and_are_no_errors() -> None:
    with scripted(answering(b"$-1\r\n")) as address:
        told = run(replace(CLOSED, url=f"redis://{address}", count=100))
    assert (told.done, told.failed, told.missing) == (100, 0, 100)


def test_errors_are_counted_by_code_and_stand_in_no_histogram() -> None:
    with scripted(answering(b"-OOM command not allowed\r\n")) as address:
        told = run(replace(CLOSED, url=f"redis://{address}", count=100, mix={"rmw": 1.0}))
    assert (told.done, told.failed) == (0, 100)
    assert told.errors == {"OOM": 100}
    assert told.counts["corrected"] == 0


def test_a_read_that_is_written_back_counts_once_and_takes_both_round_trips() -> None:
    seen: list[bytes] = []

    def record(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(PONG)
        while data := connection.recv(65536):
            seen.append(data)
            time.sleep(0.02)
            connection.sendall(b"+OK\r\n" * data.count(b"*"))

    with scripted(record) as address:
        plan = replace(CLOSED, url=f"redis://{address}", count=6, pipeline=3, connections=1, mix={"rmw": 1.0})
        told = run(plan)
    assert told.done == told.sent == 6
    names = [data.split(b"\r\n")[2] for data in seen]
    assert names == [b"GET", b"SET", b"GET", b"SET"]
    reads, writes = seen[0].split(b"\r\n"), seen[1].split(b"\r\n")
    assert reads[4::5] == writes[4::7], "what was read is what is written"
    assert told.corrected["p50"] >= 40_000


def test_the_same_seed_asks_for_the_same() -> None:
    def asked(seed: int) -> bytes:
        seen: list[bytes] = []

        def record(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(PONG)
            while data := connection.recv(65536):
                seen.append(data)
                connection.sendall(b"+OK\r\n" * data.count(b"*"))

        with scripted(record) as address:
            plan = replace(CLOSED, url=f"redis://{address}", count=200, connections=1, seed=seed)
            assert run(replace(plan, mix={"read": 0.5, "update": 0.5})).done == 200
        return b"".join(seen)

    first = asked(1)
    assert first == asked(1)
    assert first != asked(2)
    _, ids, _ = Operations(replace(CLOSED, seed=1, mix={"read": 0.5, "update": 0.5}), 0).take(200)
    assert [int(part.split(b"\r\n", 1)[0]) for part in first.split(b"bench:")[1:]] == list(ids)


def test_a_server_of_known_speed_gives_the_figures_of_arithmetic() -> None:
    with noop_process("resp", "--delay-us", "50000") as (_, url):
        told = run(replace(OPEN, url=url, rate=100, seconds=1, connections=10))
    assert told.done == 100
    for latencies in (told.corrected, told.uncorrected):
        assert 50_000 <= latencies["p50"] <= 60_000
    assert told.counts == {"corrected": 100, "uncorrected": 100, "lateness": 100}


def test_what_falls_due_while_every_connection_is_busy_grows_old() -> None:
    # Arrivals every 25 ms, 50 ms of service: request k (from 0) is answered 50 (k + 1) - 25 k ms after it was due.
    with noop_process("resp", "--delay-us", "50000") as (_, url):
        told = run(replace(OPEN, url=url, rate=40, seconds=1, connections=1))
    assert told.done == 40
    assert told.corrected["p50"] == pytest.approx(50_000 + 25_000 * 19, rel=0.1)
    assert told.corrected["max"] == pytest.approx(50_000 + 25_000 * 39, rel=0.1)
    assert told.uncorrected["p50"] == pytest.approx(50_000, rel=0.2)


def test_the_closed_loop_waits_for_its_answers_and_says_nothing_of_lateness() -> None:
    with noop_process("resp", "--delay-us", "20000") as (_, url):
        told = run(replace(CLOSED, url=url, count=0, seconds=0.5, connections=2, depth=2))
    assert 20 <= told.done <= 2 * 2 * 27
    assert told.counts["lateness"] == 0
    assert told.corrected == told.uncorrected
    assert told.elapsed_s >= 0.5


@pytest.mark.stress
def test_a_server_that_dies_is_tried_again_and_the_run_ends_with_what_there_was() -> None:
    with noop_process("resp") as (server, url), generator(replace(OPEN, url=url, seconds=30)) as made:
        made.start()
        while made.ledger.operations_done < 200:
            time.sleep(0.01)
        server.kill()
        told = figures(made, made.end())
    assert told.done >= 200
    assert told.connections_lost == 4
    assert told.elapsed_s < 20
    assert set(told.errors) <= {"ConnectionLost", "Unsent"}
    assert told.errors["Unsent"] == told.unsent > 1000
    assert told.failed == sum(told.errors.values())
    assert told.done + told.failed == told.due
    assert told.corrected["max"] > 4_000_000, "what could not be sent has the age that it had at the end"
    assert told.events[-1] == "no connection for 5 s: the run ended early"
    assert any("connections lost: " in text or "connection lost: " in text for text in told.events)


def test_a_server_that_comes_back_is_used_again() -> None:
    with noop_process("resp") as (server, url):
        port = url.rpartition(":")[2]
        with generator(replace(OPEN, url=url, rate=500, seconds=1.5)) as made:
            made.start()
            while made.ledger.operations_done < 100:
                time.sleep(0.01)
            server.kill()
            server.wait()
            with noop_process("resp", "--port", port):
                told = figures(made, made.end())
    assert told.done + told.failed == told.due == 750
    assert set(told.errors) <= {"ConnectionLost"}
    assert told.failed <= 4
    assert told.connections_lost == 4
    assert told.events[-1] == "all connections are up again"


def test_a_server_that_closes_after_each_answer_costs_errors_only() -> None:
    def one(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(PONG)
        answer_each(connection, b"+OK\r\n", most=1)

    with scripted(one) as address:
        told = run(replace(OPEN, url=f"redis://{address}", rate=50, seconds=1))
    assert told.done + told.failed == 50
    assert told.done >= 4
    assert told.connections_lost >= 4


@pytest.mark.parametrize(
    ("scheme", "greeting", "reply"),
    [
        ("redis", PONG, b"HTTP/1.1 500 Internal Server Error\r\n\r\n"),
        ("redis", PONG, b"+OK\r\n+OK\r\n"),
        ("redis", PONG, b"+OK\r\n-ERR\r\n-ERR\r\n"),
        ("redis", PONG, b"-ERR\r\nHTTP/1.1 500\r\n"),
        ("kio", b"\0\0\0\4\x93\1\0\x80", b"+OK\r\n\r\n"),
    ],
)
def test_garbage_is_a_protocol_error_and_the_connection_is_dropped(scheme: str, greeting: bytes, reply: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(greeting)
        answer_each(connection, reply, mark=b"bench:")

    with scripted(script) as address:
        told = run(replace(OPEN, url=f"{scheme}://{address}", rate=50, seconds=0.5, drain_s=0.5))
    assert told.connections_lost >= 4
    # The first of two replies to one command is an answer; the second is nobody's.
    assert told.errors.get("ProtocolError", 0) + told.errors.get("ERR", 0) + told.done >= 4
    assert told.failed == sum(told.errors.values())
    assert told.done + told.failed >= 25
    assert any("lost: " in text for text in told.events)


def test_what_is_never_answered_or_sent_is_an_error_of_its_age() -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(PONG)
        while connection.recv(65536):
            pass

    with scripted(silent) as address:
        told = run(replace(OPEN, url=f"redis://{address}", rate=100, seconds=0.5, connections=3, drain_s=0.5))
    assert (told.done, told.failed, told.unsent) == (0, 50, 47)
    assert told.errors == {"Unanswered": 3, "Unsent": 47}
    assert told.counts["corrected"] == 50
    assert told.counts["uncorrected"] == 0
    assert 980_000 <= told.corrected["max"] <= 5_000_000
    assert 0.98 <= told.elapsed_s < 5


def test_the_closed_loop_does_not_wait_for_ever_for_its_last_answers() -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(PONG)
        answer_each(connection, b"+OK\r\n", most=10)
        while connection.recv(65536):
            pass

    with scripted(silent) as address:
        for plan in (replace(CLOSED, count=0, seconds=0.3), replace(CLOSED, count=44)):
            told = run(replace(plan, url=f"redis://{address}", drain_s=0.3))
            assert told.done == 40
            assert told.errors == {"Unanswered": 4}


@pytest.mark.stress
def test_a_stop_is_obeyed_at_once_and_what_was_outstanding_is_no_error() -> None:
    with noop_process("resp") as (_, url):
        for plan in (replace(OPEN, seconds=60), replace(CLOSED, count=0, seconds=60)):
            with generator(replace(plan, url=url)) as made:
                made.start()
                while made.ledger.operations_done < 50:
                    time.sleep(0.01)
                made.ledger.stop_requested = 1
                told = figures(made, made.end())
            assert told.done >= 50
            assert told.failed == 0
            assert told.elapsed_s < 30


def test_a_stopped_generator_knows_that_it_stood_still() -> None:
    with noop_process("resp") as (_, url), generator(replace(OPEN, url=url, rate=200, seconds=1.5)) as made:
        start_ns = made.start()
        while made.ledger.operations_done < 50:
            time.sleep(0.01)
        stopped_ns = time.monotonic_ns()
        os.kill(made.process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(made.process.pid, signal.SIGCONT)
        told = figures(made, made.end())
        assert told.stall_s >= 0.4
        assert start_ns < made.ledger.stall_at_ns <= stopped_ns + 500_000_000
    assert told.done == 300
    assert told.corrected["p99"] > 300_000, "what was due meanwhile was late"


def test_an_interrupt_is_the_coordinators_affair() -> None:
    with noop_process("resp") as (_, url), generator(replace(OPEN, url=url)) as made:
        made.start()
        os.kill(made.process.pid, signal.SIGINT)
        assert figures(made, made.end()).done == 300


@pytest.mark.parametrize("moment", ["before the task", "preparing", "ready", "running"])
def test_it_ends_when_the_coordinator_is_gone(moment: str) -> None:
    with noop_process("resp") as (_, url):
        seconds = 2000 if moment == "preparing" else 60
        with generator(replace(OPEN, url=url, rate=2000, seconds=seconds, keys="zipf:0.99")) as made:
            if moment == "ready":
                assert made.line() == {"ready": True}
            elif moment == "running":
                made.start()
                while made.ledger.operations_done < 50:
                    time.sleep(0.01)
            assert made.process.stdin is not None
            made.process.stdin.close()
            assert made.process.wait(60) == 1


def test_nobody_listening_is_told_before_anything_is_prepared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with generator(replace(OPEN, url=f"redis://127.0.0.1:{port}", seconds=100_000)) as made:
        told = made.line()
        assert made.process.wait() == 2
    assert told == {
        "error": {"code": "ConnectionLost", "message": f"cannot reach 127.0.0.1:{port}: connection refused"}
    }


@pytest.mark.parametrize(
    ("url", "message"),
    [("http://x", "it begins with kio://"), ("redis://127.0.0.1:1/x", "a database is a number")],
)
def test_a_wrong_url_is_one_clear_line(url: str, message: str) -> None:
    with generator(replace(OPEN, url=url)) as made:
        told = made.line()
        assert made.process.wait() == 2
    assert told["error"]["code"] == "ConfigError"
    assert message in told["error"]["message"]


def test_two_processes_divide_the_connections_and_the_requests() -> None:
    lock = threading.Lock()
    accepted = 0

    def count(connection: socket.socket) -> None:
        nonlocal accepted
        with lock:
            accepted += 1
        connection.recv(1000)
        connection.sendall(PONG)
        answer_each(connection, b"+OK\r\n")

    with scripted(count) as address:
        plan = replace(OPEN, url=f"redis://{address}", connections=5, processes=2, rate=500, count=101)
        with generator(plan, 0) as first, generator(plan, 1) as second:
            for made in (first, second):
                assert made.line() == {"ready": True}
            start_ns = time.monotonic_ns() + HEAD_START_NS
            for made in (first, second):
                made.tell({"start_ns": start_ns})
            told = [figures(made, made.end()) for made in (first, second)]
    assert [made.done for made in told] == [51, 50]
    assert accepted == 5


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_one_process_sends_three_hundred_thousand_operations_in_a_second_of_its_core() -> None:
    with noop_process("resp") as (_, url):
        plan = replace(CLOSED, url=url, count=1_500_000, pipeline=16, connections=50, keys="uniform")
        told = run(plan)
    assert told.done / told.cpu_s > 300_000
    assert told.events == []


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_on_idle_cores_a_known_service_time_is_read_within_two_percent() -> None:
    with noop_process("resp", "--delay-us", "10000") as (server, url), cores_apart(server.pid):
        plan = replace(OPEN, url=url, rate=1000, seconds=3, connections=50)
        told = measured_in_quiet(
            lambda: run(plan),
            lambda told: all(
                latencies[percentile] == pytest.approx(10_000, rel=0.02)
                for latencies in (told.corrected, told.uncorrected)
                for percentile in ("p50", "p99")
            ),
            # On cores of their own the generator is late by tens of microseconds, and the server by no millisecond.
            lambda told: told.lateness["p999"] > 200 or told.uncorrected["p999"] > 11_000,
        )
    assert told.done == 3_000


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_queue_that_grows_ages_as_arithmetic_says() -> None:
    with noop_process("resp", "--delay-us", "10000") as (_, url):
        told = run(replace(OPEN, url=url, rate=150, seconds=10, connections=1, drain_s=60))
    assert told.done == 1500
    # Request k is answered k + 1 turns of the one connection after the start, and was due k / 150 s after it.
    turn_us = told.elapsed_s * 1e6 / told.done
    assert turn_us >= 10_000
    for percentile, k in (("p50", 749), ("p99", 1484)):
        assert told.corrected[percentile] == pytest.approx(turn_us * (k + 1) - k * 1e6 / 150, rel=0.02)


@pytest.mark.stress
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_on_idle_cores_one_process_is_punctual_at_twenty_thousand_a_second() -> None:
    with noop_process("resp") as (_, url):
        plan = replace(OPEN, url=url, rate=20_000, seconds=5, connections=50)
        told = measured_in_quiet(lambda: run(plan), lambda told: told.lateness["p99"] < 200)
    assert told.done == 100_000
