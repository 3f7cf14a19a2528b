"""Who is told what when a child comes or goes; the processes are the test's."""

from __future__ import annotations

import signal
from collections import deque
from typing import Any

import pytest

from kio.daemon import fleet as fleets
from kio.daemon.children import Lifecycle
from kio.daemon.fleet import Child, Fleet, Worker
from kio.daemon.topology import snapshot, topology

SERVING = {"state": "serving", "reason": "", "keys": 7}


class ScriptedProcess:
    """A child whose words and end are the test's."""

    pids = iter(range(1000, 1_000_000))

    def __init__(self) -> None:
        self.pid = next(self.pids)
        self.kill_at: float | None = None
        self.posted: list[dict[str, Any]] = []
        self.says: deque[dict[str, Any] | None] = deque()
        self.returncode: int | None = None
        self.is_closed = False
        self.is_watched = True

    def post(self, message: dict[str, Any]) -> None:
        self.posted.append(message)

    def receive(self) -> dict[str, Any] | None:
        if not self.says:
            raise BlockingIOError
        return self.says.popleft()

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -signal.SIGKILL

    def close(self) -> None:
        assert not self.is_watched
        self.is_closed = True

    def types(self) -> list[str]:
        return [message["type"] for message in self.posted]


class Stage:
    """A fleet of two workers with two shards each, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spawn_error: OSError | None = None
        self.removed: list[str] = []
        workers = [
            Worker(
                f"worker {n}",
                "kio.workers",
                {"type": "configure", "worker": n},
                Lifecycle(now=0.0),
                number=n,
                cpu=n,
                shards=[n, n + 2],
            )
            for n in (0, 1)
        ]
        router = Child("router", "kio.router", {"type": "configure"}, Lifecycle(now=0.0, breaks=False))
        self.fleet = Fleet(
            router, workers, self.spawn, self.unwatch, self.removed.append, "kio check ./data", self.swap
        )
        self.workers = workers

    def swap(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"type": "keyspaces", "id": message["id"], "places": b"new places", "error": ""}

    def spawn(self, child: Child) -> ScriptedProcess:
        if self.spawn_error is not None:
            raise self.spawn_error
        return ScriptedProcess()

    def unwatch(self, child: Child) -> None:
        assert not self.process(child).is_closed, "a closed descriptor's number may be another socket's by now"
        self.process(child).is_watched = False

    def process(self, child: Child) -> Any:
        assert child.process is not None
        return child.process

    @property
    def router(self) -> Any:
        return self.process(self.fleet.router)

    def say(self, child: Child, **message: Any) -> None:
        self.process(child).says.append(message)
        self.fleet.receive(child, self.now)

    def bring_up(self, worker: Worker) -> None:
        self.say(worker, type="ready", shards=dict.fromkeys(worker.shards, SERVING))
        self.say(worker, type="piped", name=worker.pipe)

    def end(self, child: Child, returncode: int) -> None:
        self.process(child).returncode = returncode
        self.fleet.reap(self.now)

    def states(self) -> dict[int, str]:
        facts = topology(self.fleet, version="1", supervisor={}, ports={}, settings={})
        return {number: shard["state"] for number, shard in snapshot(self.fleet, facts).shards.items()}


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.fleet.turn(0.0)
    return stage


@pytest.fixture
def running(stage: Stage) -> Stage:
    stage.say(stage.fleet.router, type="ready")
    for worker in stage.workers:
        stage.bring_up(worker)
    assert stage.fleet.is_settled
    return stage


def test_every_child_is_started_and_told_its_configuration_first(stage: Stage):
    for child in stage.fleet.children:
        assert [message.items() >= child.configure.items() for message in stage.process(child).posted] == [True]
    assert stage.states() == dict.fromkeys(range(4), "recovering")
    assert not stage.fleet.is_settled


def test_a_worker_that_is_ready_is_piped_and_then_put_up_at_the_router(stage: Stage):
    worker = stage.workers[0]
    stage.say(worker, type="ready", shards={0: SERVING, 2: SERVING})
    assert stage.process(worker).posted[-1] == {"type": "pipe", "name": "w0.1-r1"}
    assert "worker_up" not in stage.router.types()
    stage.say(worker, type="piped", name="w0.1-r1")
    assert stage.router.posted[-1] == {"type": "worker_up", "worker": 0, "name": "w0.1-r1", "shards": [0, 2]}
    assert stage.states() == {0: "serving", 1: "recovering", 2: "serving", 3: "recovering"}


@pytest.mark.parametrize("seen_first", ["end of file", "exit"])
def test_a_dead_worker_is_taken_down_at_once_and_started_again_under_a_new_name(running: Stage, seen_first: str):
    worker = running.workers[0]
    process = running.process(worker)
    if seen_first == "end of file":
        process.says.append(None)
        running.fleet.receive(worker, 1.0)
        assert running.router.types()[-1] == "worker_down"
        assert running.states()[0] == "down"
    running.end(worker, -signal.SIGKILL)
    assert running.router.types().count("worker_down") == 1
    assert running.router.posted[-1] == {"type": "worker_down", "worker": 0, "shards": [0, 2]}
    assert running.removed == ["w0.1-r1"]
    assert process.is_closed
    running.fleet.turn(running.now)
    running.bring_up(worker)
    assert running.router.posted[-1]["name"] == "w0.2-r1"
    assert running.fleet.is_settled


def test_a_new_router_gets_new_pipes_with_every_worker(running: Stage):
    running.process(running.fleet.router).says.append(None)
    running.fleet.receive(running.fleet.router, 1.0)
    assert set(running.states().values()) == {"down"}
    running.end(running.fleet.router, -signal.SIGKILL)
    running.fleet.turn(1.0)
    for number, worker in enumerate(running.workers):
        name = f"w{number}.1-r2"
        assert running.process(worker).posted[-1] == {"type": "pipe", "name": name}
        running.say(worker, type="piped", name=f"w{number}.1-r1")
        assert not worker.is_up, "that was the answer to the dead router's pipe"
        running.say(worker, type="piped", name=name)
    assert running.router.types() == ["configure", "worker_up", "worker_up"]
    assert sorted(running.removed) == ["w0.1-r1", "w1.1-r1"]


def test_a_worker_that_becomes_ready_while_the_router_is_away_is_piped_when_it_is_back(running: Stage):
    worker = running.workers[0]
    running.end(worker, -signal.SIGKILL)
    running.end(running.fleet.router, 1)
    running.fleet.turn(0.0)
    assert running.fleet.router.process is None, "it crashed, so it backs off"
    running.say(worker, type="ready", shards={})
    assert running.process(worker).types() == ["configure"]
    running.fleet.turn(10.0)
    assert running.process(worker).posted[-1] == {"type": "pipe", "name": "w0.2-r2"}


def test_last_words_are_heard_after_the_end(running: Stage, caplog: pytest.LogCaptureFixture):
    worker = running.workers[0]
    running.end(worker, -signal.SIGKILL)
    running.fleet.turn(0.0)
    running.process(worker).says += [{"type": "failed", "error": "OSError", "message": "disk on fire"}, None]
    running.end(worker, 1)
    assert worker.life.reason == "OSError: disk on fire"
    assert "disk on fire" in caplog.text


def test_the_failure_of_one_shard_is_not_the_workers(stage: Stage):
    worker = stage.workers[1]
    stage.say(worker, type="failed", shard=3, error="Corrupt", message="damaged")
    stage.say(worker, type="ready", shards={1: SERVING, 3: {"state": "failed", "reason": "damaged"}})
    stage.say(worker, type="piped", name=worker.pipe)
    assert stage.states() == {0: "recovering", 1: "serving", 2: "recovering", 3: "failed"}
    assert worker.life.state == "serving"
    assert worker.life.reason == ""


def test_a_worker_that_was_given_up_leaves_the_others_serving_and_says_what_to_do(
    running: Stage, caplog: pytest.LogCaptureFixture
):
    worker = running.workers[0]
    while worker.life.state != "broken":
        running.end(worker, -signal.SIGSEGV)
        running.now = worker.life.start_at or 0.0
        if worker.life.state != "broken":
            running.fleet.turn(running.now)
    assert running.states() == {0: "down", 1: "serving", 2: "down", 3: "serving"}
    assert running.fleet.is_settled
    last = caplog.records[-1].getMessage()
    assert 'child given up: child="worker 0" reason="killed by SIGSEGV" shards=0,2' in last
    assert 'run="kio check ./data"' in last


def test_a_process_that_cannot_be_started_backs_off(running: Stage):
    worker = running.workers[0]
    running.spawn_error = OSError(11, "Resource temporarily unavailable")
    running.end(worker, -signal.SIGKILL)
    running.fleet.turn(1.0)
    assert worker.life.state == "backing-off"
    assert "could not be started" in worker.life.reason
    running.spawn_error = None
    running.fleet.turn(2.0)
    assert worker.process is not None


def test_a_child_that_closed_its_control_socket_and_lives_on_is_killed(running: Stage):
    worker = running.workers[0]
    process = running.process(worker)
    process.says.append(None)
    running.fleet.receive(worker, 10.0)
    running.fleet.turn(10.0)
    assert process.returncode is None
    assert running.fleet.wake_at() == 10.0 + fleets.EXIT_GRACE_S
    running.fleet.turn(10.0 + fleets.EXIT_GRACE_S)
    assert process.returncode == -signal.SIGKILL


def test_the_router_is_stopped_first_and_the_workers_when_it_is_gone(running: Stage):
    running.fleet.stop(1.0)
    running.fleet.turn(1.0)
    assert running.router.types()[-1] == "drain"
    assert all("drain" not in running.process(worker).types() for worker in running.workers)
    running.end(running.fleet.router, 0)
    running.fleet.turn(1.5)
    for worker in running.workers:
        assert running.process(worker).types()[-1] == "drain"
        running.end(worker, 0)
    running.fleet.turn(1e6)
    assert running.fleet.is_stopped, "nobody is started again"


def test_whoever_does_not_stop_in_time_is_killed(running: Stage):
    running.fleet.stop(1.0)
    router = running.router
    running.fleet.turn(1.0 + fleets.ROUTER_STOP_S)
    assert router.returncode == -signal.SIGKILL
    running.fleet.reap(3.5)
    running.fleet.turn(3.5)
    running.fleet.turn(3.5 + fleets.WORKER_STOP_S)
    running.fleet.reap(5.5)
    assert running.fleet.is_stopped


def test_a_second_signal_does_not_wait(running: Stage):
    running.fleet.stop(1.0)
    running.fleet.stop(1.1)
    running.fleet.turn(1.1)
    running.fleet.reap(1.1)
    running.fleet.turn(1.1)
    assert running.fleet.router.process is None
    assert running.process(running.workers[0]).types()[-1] == "drain"


def test_a_worker_that_is_still_recovering_is_not_waited_for(stage: Stage):
    stage.fleet.stop(1.0)
    stage.fleet.reap(1.0)
    assert all(worker.process is None for worker in stage.workers)


def test_every_change_that_status_shows_is_counted(running: Stage):
    worker = running.workers[0]
    before = running.fleet.changes
    running.say(worker, type="stats", shards={0: SERVING | {"keys": 8}, 2: SERVING}, rss_bytes=1, cpu_s=0.1)
    assert running.fleet.changes == before, "more keys are no news"
    running.say(worker, type="stats", shards={0: SERVING | {"state": "read-only"}, 2: SERVING}, rss_bytes=1, cpu_s=0.1)
    assert running.fleet.changes == before + 1
    assert running.states()[0] == "read-only"


def test_a_shard_that_the_disk_failed_stays_read_only_when_its_worker_starts_again(running: Stage):
    worker = running.workers[0]
    failed = SERVING | {"state": "read-only", "reason": "a sync failed"}
    running.say(worker, type="stats", shards={0: failed, 2: SERVING}, rss_bytes=1, cpu_s=0.1)
    running.end(worker, -9)
    running.fleet.turn(running.now)
    assert running.process(worker).posted[0]["read_only"] == {0: "a sync failed"}


def test_a_swap_is_answered_and_the_next_router_begins_with_its_map(running: Stage) -> None:
    router = running.fleet.router
    assert "keyspaces" not in router.configure
    running.say(router, type="swap", id=7, first=0, second=1)
    assert running.router.posted[-1] == {"type": "keyspaces", "id": 7, "places": b"new places", "error": ""}
    running.end(router, -9)
    running.now = 60.0
    running.fleet.turn(running.now)
    assert running.router.posted[0] == {"type": "configure", "keyspaces": b"new places"}


def test_a_worker_cannot_swap(running: Stage) -> None:
    running.say(running.workers[0], type="swap", id=7, first=0, second=1)
    assert "keyspaces" not in running.process(running.workers[0]).types()
    assert "keyspaces" not in running.router.types()
