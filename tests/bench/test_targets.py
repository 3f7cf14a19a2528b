"""URLs and what they mean; what a connection says when the other side is not what the URL promised."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kio.bench.targets import Target, connect, parse_target
from kio.errors import ConfigError, ConnectionLost
from tests.bench.servers import noop_process, scripted
from tests.client.reference import reference_server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kio://h", Target("", "native", ("h", 7400))),
        ("kio://h:1", Target("", "native", ("h", 1))),
        ("kio+unix:///run/k.sock", Target("", "native", "/run/k.sock")),
        ("redis://h", Target("", "resp", ("h", 6379))),
        ("redis://h:1/2", Target("", "resp", ("h", 1), None, None, 2)),
        ("redis://:p%40ss@h", Target("", "resp", ("h", 6379), None, "p@ss")),
        ("redis://ann:secret@h:1/", Target("", "resp", ("h", 1), "ann", "secret")),
        ("redis+unix:///run/r.sock", Target("", "resp", "/run/r.sock")),
        ("unix:///run/r.sock?db=3", Target("", "resp", "/run/r.sock", None, None, 3)),
        ("unix://:secret@/run/r.sock", Target("", "resp", "/run/r.sock", None, "secret")),
    ],
)
def test_a_url_names_a_protocol_and_an_address(url: str, expected: Target) -> None:
    assert parse_target(url) == expected._replace(url=url)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://h", "it begins with kio://"),
        ("h:6379", "it begins with kio://"),
        ("", "it begins with kio://"),
        ("redis://", "names no host"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h:99999", "Port out of range"),
        ("redis://h/x", "a database is a number"),
        ("redis://h/-1", "a database is a number"),
        ("redis://ann@h", "a user needs a password"),
        ("redis://h?x=1", "it has no options"),
        ("redis://h#x", "no fragment"),
        ("unix://run/r.sock", "whole path"),
        ("unix:///r?x=1", "unknown option 'x'"),
        ("unix:///" + "x" * 200, "at most 107 bytes"),
        ("kio://h/3", "keyspace 0"),
        ("kio://", "names no host"),
    ],
)
def test_a_bad_url_is_one_line_that_says_what_it_should_be(url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse_target(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["native", "resp"])
def test_a_connection_is_greeted_over_tcp_and_a_unix_socket(protocol: str, tmp_path: Path) -> None:
    with noop_process(protocol) as (_, url), connect(parse_target(url)) as connected:
        assert connected.gettimeout() is None
        if connected.family == socket.AF_INET:
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    with (
        noop_process(protocol, "--unix", str(tmp_path / "s")) as (_, url),
        connect(parse_target(url)) as connected,
    ):
        assert connected.family == socket.AF_UNIX


def test_kios_url_for_a_server_of_resp_says_so() -> None:
    def resp(connection: socket.socket) -> None:
        # As Redis does: nothing before the end of a line, then an answer to each.
        while data := connection.recv(1000):
            if b"PING\r\n" in data:
                connection.sendall(b"+PONG\r\n")

    with scripted(resp) as address, pytest.raises(ConfigError, match=r"did you mean redis://\?"):
        connect(parse_target(f"kio://{address}"))


def test_a_redis_url_for_kio_says_so() -> None:
    with reference_server() as server, pytest.raises(ConfigError, match=r"did you mean kio://\?"):
        connect(parse_target(server.url.replace("kio://", "redis://")))


@pytest.mark.parametrize("scheme", ["kio", "redis"])
def test_a_server_that_closes_at_once_is_one_clear_line(scheme: str) -> None:
    def close(connection: socket.socket) -> None:
        connection.recv(1000)

    with scripted(close) as address, pytest.raises(ConnectionLost, match="closed the connection before it answered"):
        connect(parse_target(f"{scheme}://{address}"))


@pytest.mark.parametrize("scheme", ["kio", "redis"])
def test_a_server_that_says_nothing_is_given_up(scheme: str) -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    with scripted(silent) as address, pytest.raises(ConnectionLost, match="did not answer within 0.2 s"):
        connect(parse_target(f"{scheme}://{address}"), 0.2)


@pytest.mark.parametrize("scheme", ["kio", "redis"])
def test_nobody_listening_is_one_clear_line_without_the_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    user = ":secret@" if scheme == "redis" else ""
    with pytest.raises(ConnectionLost, match=f"cannot reach 127.0.0.1:{port}: connection refused") as caught:
        connect(parse_target(f"{scheme}://{user}127.0.0.1:{port}"))
    assert "secret" not in str(caught.value)


def test_a_host_that_has_no_address_is_a_wrong_url() -> None:
    with pytest.raises(ConfigError, match="cannot find the host nowhere.invalid"):
        connect(parse_target("redis://nowhere.invalid"))


def test_a_refused_password_is_told() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"-WRONGPASS invalid username-password pair\r\n")
        connection.recv(1000)

    with scripted(refuse) as address, pytest.raises(ConfigError, match="WRONGPASS"):
        connect(parse_target(f"redis://:x@{address}"))


@pytest.mark.parametrize(
    "url",
    [
        "kio://ada:hunter2@127.0.0.1",
        "kios://ada:hunter2@127.0.0.1",
        "kio://ada:hunter2/x@127.0.0.1",
        "redis://ada:hunter2@127.0.0.1:0",
        "redis://ada:hunter2/x@127.0.0.1:port",
        "redis://ada:hunter2@127.0.0.1/many",
        "http://ada:hunter2@127.0.0.1",
    ],
)
def test_a_url_that_is_refused_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(url)
    assert "hunter2" not in str(caught.value)
