"""A worker process with real pipes, a real store and real signals."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import Corrupt, InternalError
from kio.hashing import routed_hash
from kio.opbatch import Operation
from kio.segments import identity, manifest
from kio.segments.options import StoreOptions
from kio.segments.store import Store
from tests.workers.under_test import LIMIT_S, WorkerUnderTest


def operation(worker: WorkerUnderTest, op: int, key: bytes, value: bytes = b"") -> Operation:
    return Operation(op, key, value, routed_hash(key, worker.directory.seed))


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_worker_serves_its_shards_and_has_everything_after_a_drain(tmp_path: Path, sync: str):
    with WorkerUnderTest(tmp_path, sync=sync) as worker:
        ready = worker.await_message("ready")
        assert {number: stats["state"] for number, stats in ready["shards"].items()} == {0: "serving", 1: "serving"}
        worker.connect()
        for shard in (0, 1):
            key = b"key of %d" % shard
            set_, get = operation(worker, wire.OP_SET, key, b"value"), operation(worker, wire.OP_GET, key)
            assert [reply.status for reply in worker.ask(shard, set_)] == [opbatch.DONE]
            assert [(r.status, r.payload) for r in worker.ask(shard, get)] == [(opbatch.VALUE, b"value")]
        worker.post(type="drain")
        assert worker.process.wait(LIMIT_S) == 0
    with WorkerUnderTest(tmp_path, sync=sync) as worker:
        worker.await_message("ready")
        worker.connect()
        for shard in (0, 1):
            get = operation(worker, wire.OP_GET, b"key of %d" % shard)
            assert worker.ask(shard, get)[0].payload == b"value"


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_sigterm_answers_what_is_in_the_pipe_first(tmp_path: Path, sync: str):
    with WorkerUnderTest(tmp_path, sync=sync) as worker:
        worker.await_message("ready")
        worker.connect()
        worker.ask(0, operation(worker, wire.OP_SET, b"first", b""))
        for number in range(200):
            worker.send(0, operation(worker, wire.OP_SET, b"%d" % number, b"v"), batch_id=number)
        worker.process.send_signal(signal.SIGTERM)
        assert [worker.receive()[0] for _ in range(200)] == list(range(200))
        assert worker.process.wait(LIMIT_S) == 0


def test_a_worker_whose_supervisor_is_gone_ends_at_once(tmp_path: Path):
    with WorkerUnderTest(tmp_path) as worker:
        worker.await_message("ready")
        worker.control.close()
        assert worker.process.wait(2.0) == 1


def test_ctrl_c_in_the_terminal_is_not_the_workers_business(tmp_path: Path):
    with WorkerUnderTest(tmp_path) as worker:
        worker.await_message("ready")
        worker.connect()
        worker.process.send_signal(signal.SIGINT)
        assert worker.ask(0, operation(worker, wire.OP_GET, b"x"))[0].status == opbatch.ABSENT


def test_a_new_router_gets_new_pipes_and_nothing_of_the_old_ones(tmp_path: Path):
    with WorkerUnderTest(tmp_path, sync="always") as worker:
        worker.await_message("ready")
        worker.connect()
        for number in range(100):
            worker.send(0, operation(worker, wire.OP_SET, b"old", b"%d" % number), batch_id=number)
        worker.connect()
        assert worker.ask(0, operation(worker, wire.OP_SET, b"new", b""))[0].status == opbatch.DONE


def test_a_router_that_never_reads_holds_nobody_up(tmp_path: Path):
    with WorkerUnderTest(tmp_path, sync="os") as worker:
        worker.await_message("ready")
        worker.connect()
        worker.ask(0, operation(worker, wire.OP_SET, b"large", bytes(1 << 20)))
        worker.ask(1, operation(worker, wire.OP_SET, b"mark", b""))
        for number in range(100):
            worker.send(0, operation(worker, wire.OP_GET, b"large"), batch_id=number)
        worker.send(1, operation(worker, wire.OP_SET, b"mark", b"again"))
        while worker.await_message("stats")["shards"][1]["lsn"] < 2:
            pass
        worker.connect()
        assert worker.ask(1, operation(worker, wire.OP_GET, b"mark"))[0].payload == b"again"


def test_pipes_that_no_router_ever_connects_to_are_in_nobodys_way(tmp_path: Path):
    with WorkerUnderTest(tmp_path) as worker:
        worker.await_message("ready")
        worker.bind_pipe()
        worker.connect()
        assert worker.ask(0, operation(worker, wire.OP_GET, b"x"))[0].status == opbatch.ABSENT


def test_a_damaged_shard_is_told_and_refused_and_the_others_serve(tmp_path: Path):
    identity.create_or_load(tmp_path, 2)
    (identity.shard_path(tmp_path, 1) / manifest.NAME).write_bytes(b"not a manifest at all, but long enough to be one")
    with WorkerUnderTest(tmp_path) as worker:
        failed = worker.await_message("failed")
        assert failed["shard"] == 1
        shards = worker.await_message("ready")["shards"]
        assert shards[0]["state"] == "serving"
        assert shards[1]["state"] == "failed"
        assert shards[1]["reason"] == failed["message"] != ""
        worker.connect()
        get = operation(worker, wire.OP_GET, b"x")
        assert worker.ask(0, get)[0].status == opbatch.ABSENT
        error = worker.ask(1, get)[0].error()
        assert type(error).__name__ == failed["error"]
        assert isinstance(error, Corrupt)


def test_a_batch_for_a_shard_of_somebody_else_is_refused(tmp_path: Path):
    with WorkerUnderTest(tmp_path) as worker:
        worker.await_message("ready")
        worker.connect()
        assert isinstance(worker.ask(9, operation(worker, wire.OP_GET, b"x"))[0].error(), InternalError)


def test_a_worker_runs_on_its_one_core(tmp_path: Path):
    cpu = max(os.sched_getaffinity(0))
    with WorkerUnderTest(tmp_path, cpu=cpu) as worker:
        worker.await_message("ready")
        worker.connect()
        threads = os.listdir(f"/proc/{worker.process.pid}/task")
        assert len(threads) > 2, "the helpers and ZeroMQ have threads of their own"
        assert {frozenset(os.sched_getaffinity(int(thread))) for thread in threads} == {frozenset({cpu})}


def test_a_shard_that_its_last_owner_still_holds_is_waited_for(tmp_path: Path):
    directory, _ = identity.create_or_load(tmp_path, 2)
    holder = Store.open(identity.shard_path(tmp_path, 0), directory, 0, StoreOptions())
    release = threading.Timer(0.3, holder.close)
    with WorkerUnderTest(tmp_path) as worker:
        release.start()
        assert worker.await_message("ready")["shards"][0]["state"] == "serving"
    release.join()


def test_stats_come_by_themselves_and_say_what_the_process_takes(tmp_path: Path):
    with WorkerUnderTest(tmp_path) as worker:
        worker.await_message("ready")
        first, second = worker.await_message("stats"), worker.await_message("stats")
        assert first["shards"].keys() == {0, 1}
        assert second["rss_bytes"] > 1 << 20
        assert second["cpu_s"] >= first["cpu_s"] > 0
