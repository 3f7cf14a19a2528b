"""The whole daemon: what it says, what it does when a part of it dies, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import kio
from kio.errors import ConfigError, DirectoryInUse
from tests.cluster.daemon import ROOT, Daemon, environment, wait_until
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import GET, PING, SET, Wire

WORKER_BACK_S = 2.0


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    """`kio serve`, for starts that are to fail."""
    return subprocess.run(
        [sys.executable, "-m", "kio", "serve", "--port", "0", "--http-port", "0", "--resp-port", "0", *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def test_the_start_line_names_the_effective_settings_and_the_ready_line_follows():
    with Daemon(workers=2, shards=3) as daemon:
        wait_until(lambda: "kio serve: ready" in daemon.log_tail(), 5, "the ready line")
        start = next(line for line in daemon.log_tail().splitlines() if "kio serve: version=" in line)
        for part in (
            f"version={kio.__version__}",
            f"pid={daemon.supervisor}",
            f"data={daemon.data}",
            f"url={daemon.url}",
            f"http={daemon.http}",
            "workers=2",
            "shards=3",
            "sync=interval",
        ):
            assert f" {part} " in start + " "
        announced = json.loads((daemon.data / "run" / "daemon.json").read_text())
        assert announced == {"pid": daemon.supervisor, "url": daemon.url, "http": daemon.http}
        daemon.stop()
        assert list((daemon.data / "run").iterdir()) == []


def test_status_knows_every_process_and_shard():
    with Daemon(workers=2, shards=3) as daemon:
        status = daemon.status()
        assert status["supervisor"]["pid"] == daemon.supervisor
        pids = [status["router"]["pid"], *(worker["pid"] for worker in status["workers"])]
        assert sorted([daemon.supervisor, *pids]) == daemon.pids()
        assert [worker["shards"] for worker in status["workers"]] == [[0, 2], [1]]
        assert status["ports"]["native"] == port_of(daemon.url)
        assert status["ports"]["http"] == port_of(daemon.http)
        assert status["settings"]["sync"] == "interval"


def test_a_killed_worker_is_back_in_time_and_the_other_shards_never_fail():
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        (down,), (up,) = daemon.shards_of(0), daemon.shards_of(1)
        with Wire(daemon.url) as wire:
            wire.call(SET, 0, b"{%s}kept" % tags[down], b"value")
        with Probe(daemon.url, tags[up]) as other, Probe(daemon.url, tags[down]) as own:
            for restarts in (1, 2, 3):
                moment = time.monotonic()
                os.kill(daemon.worker_pid(0), signal.SIGKILL)
                wait_until(lambda: daemon.status()["workers"][0]["restarts"] == restarts, 5, "the restart")  # noqa: B023
                assert own.recovered_after(moment, WORKER_BACK_S + 1) < WORKER_BACK_S
        assert other.failures() == []
        with Wire(daemon.url) as wire:
            assert wire.call(GET, 0, b"{%s}kept" % tags[down]) == b"value"
        assert daemon.status()["workers"][0]["restarts"] == 3
        assert b'kio_restarts_total{child="worker 0"} 3.0' in daemon.http_get("/metrics")[1]


def test_no_connection_is_refused_while_the_router_is_started_again():
    with Daemon(workers=2) as daemon:
        with kio.connect(daemon.url) as db:
            db.set("key", b"value")
            router = daemon.router_pid()
            os.kill(router, signal.SIGKILL)
            with Wire(daemon.url) as wire:
                assert wire.call(PING, b"x") == b"x"
            assert db.get("key") == b"value", "the client connects again by itself"
        assert daemon.router_pid() != router
        assert daemon.status()["router"]["restarts"] == 1


def test_nothing_outlives_the_supervisor_and_the_same_ports_are_free_at_once():
    with Daemon(workers=2) as daemon:
        with Wire(daemon.url) as wire:
            wire.call(SET, 0, b"key", b"value")
        port, http_port = port_of(daemon.url), port_of(daemon.http)
        daemon.flags += ["--port", str(port), "--http-port", str(http_port)]
        for _ in range(3):
            daemon.kill_supervisor()
            daemon.restart()
            assert port_of(daemon.url) == port
            with Wire(daemon.url) as wire:
                assert wire.call(GET, 0, b"key") == b"value"
        daemon.kill_supervisor()
        daemon.assert_nothing_left(2.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_stops_in_order_and_soon(number: signal.Signals):
    with Daemon(workers=2) as daemon:
        wait_until(lambda: "kio serve: ready" in daemon.log_tail(), 5, "the ready line")
        began = time.monotonic()
        os.kill(daemon.supervisor, number)
        assert wait_until(lambda: daemon.exit_code() is not None, 5, "the end") is True
        assert daemon.exit_code() == 0
        assert time.monotonic() - began < 2.0
        assert "child killed" not in daemon.log_tail()
        assert "kio serve: stopped" in daemon.log_tail()


def test_a_child_that_stands_still_does_not_keep_the_daemon_from_stopping():
    with Daemon(workers=2) as daemon:
        os.kill(daemon.router_pid(), signal.SIGSTOP)
        began = time.monotonic()
        os.kill(daemon.supervisor, signal.SIGTERM)
        wait_until(lambda: daemon.exit_code() == 0, 5, "exit 0 within 5 s")
        assert time.monotonic() - began < 5.0
        daemon.assert_nothing_left(0.5)


def test_a_second_signal_hastens_the_end():
    with Daemon(workers=2) as daemon:
        for pid in daemon.pids():
            if pid != daemon.supervisor:
                os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        while daemon.exit_code() is None:
            os.kill(daemon.supervisor, signal.SIGTERM)
            time.sleep(0.05)
        assert daemon.exit_code() == 0
        assert time.monotonic() - began < 1.5


def test_a_second_daemon_on_the_same_directory_is_refused():
    with Daemon() as daemon:
        done = serve("--data", str(daemon.data))
        assert done.returncode == DirectoryInUse.exit_code
        assert str(daemon.supervisor) in done.stderr
        with Wire(daemon.url) as wire:
            assert wire.call(PING, b"alive") == b"alive"


def test_another_number_of_shards_for_an_existing_directory_is_refused():
    with Daemon(workers=1, shards=2) as daemon:
        daemon.stop()
        done = serve("--data", str(daemon.data), "--shards", "4")
        assert done.returncode == ConfigError.exit_code
        assert f'has 2; leave shards out, or run "kio reshard {daemon.data} --shards 4"' in done.stderr
        daemon.shards = None
        daemon.workers = 8
        daemon.restart()
        assert len(daemon.status()["workers"]) == 2, "never more workers than shards"


def test_a_port_in_use_is_refused_with_the_name_of_the_setting(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == ConfigError.exit_code
    assert f"cannot listen on port {port}" in done.stderr


def test_the_admin_door_answers_while_every_child_stands_still():
    with Daemon(workers=2) as daemon:
        children = [pid for pid in daemon.pids() if pid != daemon.supervisor]
        age = re.compile(rb"^kio_figures_age_seconds (\S+)$", re.MULTILINE)
        wait_until(lambda: age.findall(daemon.http_get("/metrics")[1]), 5, "the first figures")
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        for path in ("/healthz", "/metrics", "/readyz"):
            began = time.monotonic()
            assert daemon.http_get(path)[0] == 200
            assert time.monotonic() - began < 1.0
        wait_until(lambda: float(age.findall(daemon.http_get("/metrics")[1])[0]) > 1.0, 5, "figures to grow old")
        for pid in children:
            os.kill(pid, signal.SIGCONT)


def test_a_worker_that_cannot_start_is_given_up_and_the_others_serve():
    with Daemon(workers=2) as daemon:
        lock = daemon.data / "shard-0000" / "LOCK"
        lock.unlink()
        lock.mkdir()
        os.kill(daemon.worker_pid(0), signal.SIGKILL)
        wait_until(lambda: daemon.status()["workers"][0]["state"] == "broken", 10, "the breaker")
        broken, serving = daemon.status()["workers"]
        assert "IsADirectoryError" in broken["reason"]
        assert serving["state"] == "serving"
        tail = daemon.log_tail()
        assert re.search(r'child given up: child="worker 0" reason=.* shards=0 .*run="kio check ', tail)
        status, body = daemon.http_get("/readyz")
        assert status == 503
        assert [part["shard"] for part in json.loads(body)["not_serving"]] == [0]
        assert daemon.http_get("/healthz")[0] == 200


def test_systemd_is_told_of_readiness_of_life_and_of_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        with Daemon(workers=2) as daemon:
            monkeypatch.delenv("NOTIFY_SOCKET")
            heard = []
            while not heard or not heard[-1].startswith("READY=1"):
                heard.append(manager.recv(4096).decode())
            assert heard[-1] == f"READY=1\nSTATUS=serving 2 of 2 shards at {daemon.url}"
            for _ in range(5):
                assert manager.recv(4096) == b"WATCHDOG=1"
            for pid in daemon.pids():
                if pid != daemon.supervisor:
                    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            daemon.stop()
            while not (last := manager.recv(4096)).startswith(b"STOPPING=1"):
                assert last == b"WATCHDOG=1"


def test_a_unix_socket_serves_beside_the_port(tmp_path: Path):
    path = tmp_path / "kio.sock"
    with Daemon(flags=["--socket", str(path)]) as daemon:
        assert daemon.status()["ports"]["socket"] == str(path)
        with kio.connect(f"kio+unix://{path}") as db:
            db.set("key", b"value")
            assert db.get("key") == b"value"
    assert not path.exists()


def test_a_data_directory_with_a_very_long_path_serves(tmp_path: Path):
    data = tmp_path / ("d" * 120) / "data"
    with Daemon(data, workers=2) as daemon:
        for _ in range(2):
            with Wire(daemon.url) as wire:
                for number in range(10):
                    wire.call(SET, 0, b"%d" % number, b"value")
            os.kill(daemon.router_pid(), signal.SIGKILL)


def test_for_a_person_the_commands_to_try_follow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAKELEVEL", "1")
    with Daemon() as daemon:
        tail = wait_until(lambda: "try" in daemon.log_tail() and daemon.log_tail(), 5, "the hints")
        hints = tail[tail.index("try, in another terminal:") :].splitlines()[1:]
        assert hints.pop(2) == f"  redis-cli -p {daemon.cli_status()['ports']['resp']} GET greeting"
        assert len(hints) == 5
        for hint in hints:
            assert hint.endswith(f" --url {daemon.url}")
            program, *arguments = hint.split()
            assert program.endswith("kio")
            if arguments[0] != "import":
                assert daemon.cli(*arguments).returncode == 0
