"""Sockets to listen on and the directory of the pipes."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest
import zmq

from kio import control
from kio.config import Settings
from kio.daemon import listeners
from kio.daemon.listeners import Doors, PipesDirectory
from kio.errors import ConfigError


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "BIND_WAIT_S", 0.05)


def settings(tmp_path: Path, **more: object) -> Settings:
    values: dict[str, object] = {"data": tmp_path, "port": 0, "http_port": 0, "resp_port": 0}
    return Settings(**values | more)  # type: ignore[arg-type]


def test_port_0_is_told_as_the_port_that_was_bound(tmp_path: Path):
    with Doors.opened(settings(tmp_path)) as doors:
        port = doors.native.getsockname()[1]
        assert port > 0
        assert doors.url == f"kio://127.0.0.1:{port}"
        assert doors.ports["native"] == port
        assert doors.http_url == f"http://127.0.0.1:{doors.ports['http']}"
        assert doors.resp_url == f"redis://127.0.0.1:{doors.ports['resp']}"
        assert doors.inherited == [
            {"fd": doors.native.fileno(), "kind": "tcp", "protocol": "native"},
            {"fd": doors.resp.fileno(), "kind": "tcp", "protocol": "resp"},
        ]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_an_ipv6_address_is_bracketed(tmp_path: Path):
    try:
        with Doors.opened(settings(tmp_path, host="::1")) as doors:
            assert doors.url.startswith("kio://[::1]:")
    except ConfigError:
        pytest.skip("this machine has no IPv6")


def test_the_unix_socket_is_its_owners_alone_and_is_gone_afterwards(tmp_path: Path):
    path = tmp_path / "kio.sock"
    with Doors.opened(settings(tmp_path, socket=str(path))) as doors:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [door["kind"] for door in doors.inherited] == ["tcp", "unix", "tcp"]
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path):
    path = tmp_path / "kio.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with listeners.listen_unix(path) as sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert sock.getsockname() == str(path)


@pytest.mark.usefixtures("hasty")
def test_a_unix_socket_that_somebody_serves_is_left_alone(tmp_path: Path):
    path = tmp_path / "kio.sock"
    with listeners.listen_unix(path), pytest.raises(ConfigError, match="another process listens there"):
        listeners.listen_unix(path)


def test_a_file_where_the_unix_socket_should_be_is_not_removed(tmp_path: Path):
    path = tmp_path / "kio.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is not a socket"):
        listeners.listen_unix(path)
    assert path.read_text() == "precious"


@pytest.mark.usefixtures("hasty")
def test_a_port_in_use_is_an_error_that_names_the_setting():
    with listeners.listen_tcp("127.0.0.1", 0, "port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on http_port {port} on 127.0.0.1"):
            listeners.listen_tcp("127.0.0.1", port, "http_port")


def test_a_port_that_is_just_being_given_up_is_waited_for():
    taken = listeners.listen_tcp("127.0.0.1", 0, "port")
    threading.Timer(0.2, taken.close).start()
    with listeners.listen_tcp("127.0.0.1", taken.getsockname()[1], "port") as sock:
        assert sock.fileno() > 0


def test_the_pipes_directory_is_its_owners_alone_and_empty():
    with tempfile.TemporaryDirectory(prefix="kio-") as home:  # short enough to be named as it is
        path = Path(home) / "run"
        path.mkdir(mode=0o755)
        (path / "left over").write_text("")
        pipes = PipesDirectory(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert list(path.iterdir()) == []
        assert (pipes.address, pipes.inherited_fds) == (str(path), ())
        pipes.close()


def test_a_pipe_can_be_forgotten(tmp_path: Path):
    pipes = PipesDirectory(tmp_path / "run")
    for name in ("w0.1-r1.ops", "w0.1-r1.rep", "w0.2-r1.ops"):
        (pipes.path / name).write_text("")
    pipes.remove("w0.1-r1")
    pipes.remove("w9.9-r9")
    assert [file.name for file in pipes.path.iterdir()] == ["w0.2-r1.ops"]
    pipes.close()


def test_a_path_too_long_for_a_socket_is_reached_through_a_descriptor(tmp_path: Path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    pipes = PipesDirectory(deep / "run")
    assert pipes.address == f"/proc/self/fd/{pipes.inherited_fds[0]}"
    name = control.pipe_name(1023, 999_999, 999_999)
    context = zmq.Context()
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.setsockopt(zmq.RCVTIMEO, 5000)
        endpoint = control.pipe_endpoints(pipes.address, name)[0]
        pull.bind(endpoint)
        assert (pipes.path / f"{name}.ops").exists()
        push.connect(endpoint)
        push.send(b"through")
        assert pull.recv() == b"through"
    context.term()
    pipes.close()
    assert os.listdir(pipes.path) == []


def test_the_longest_pipe_name_fits_the_room_that_is_kept_for_it():
    name = control.pipe_name(1023, 10**9, 10**9)
    assert len(f"{name}.ops") <= listeners.PIPE_NAME_BYTES_MAX
