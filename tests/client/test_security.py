"""TLS under both clients, and the password that nobody sees."""

from __future__ import annotations

import doctest
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kio.client import credentials
from kio.client.options import parse
from kio.errors import ConfigError, ConnectionLost, NotAuthenticated, ProtocolError, Timeout
from kio.tls import ServerTls
from tests.client.reference import Drop, Fail, ReferenceServer
from tests.tls import AUTHORITY, STRANGER, private

Connect = Callable[..., Any]


@pytest.fixture
def secure(server: ReferenceServer, tmp_path: Path) -> str:
    """A URL of the server, which speaks TLS, with the authority of its certificate."""
    file = private("server.pem", tmp_path)
    server.context = ServerTls(file, file).context
    return f"kios://127.0.0.1:{server.port}?tls_ca_file={AUTHORITY}"


def test_over_tls_everything_is_as_without(connect: Connect, secure: str, server: ReferenceServer) -> None:
    db = connect(secure)
    db.set("k", b"v")
    assert db.get("k") == b"v"
    values = {b"%d" % i: bytes([i % 251]) * 50_000 for i in range(200)}  # 10 MB, past all buffers
    assert db.set_many(values) == 200
    assert db.get_many(values) == values
    server.piece_bytes = 1
    assert db.get("k") == b"v"
    server.piece_bytes = 0
    assert server.connections == 1, "an idle connection over TLS is not taken for a stale one"


def test_a_connection_over_tls_that_breaks_is_made_again(
    connect: Connect, secure: str, server: ReferenceServer
) -> None:
    db = connect(secure)
    db.set("k", b"v")
    server.drop_connections()
    assert db.get("k") == b"v"
    answers: list[Any] = [Drop(), None, None]
    server.script = lambda op, arguments: answers.pop(0) if answers else None
    assert db.get("k") == b"v"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (f"tls_ca_file={STRANGER}", "no TLS with kios://.*certificate verify failed"),
        ("", "no TLS with kios://.*certificate verify failed"),
    ],
)
def test_a_server_whose_certificate_is_not_right_is_refused_at_once(
    connect: Connect, secure: str, query: str, told: str
) -> None:
    started = time.monotonic()
    with pytest.raises(ProtocolError, match=told):
        connect(f"{secure.partition('?')[0]}?{query}")
    assert time.monotonic() - started < 2


def test_a_name_that_the_certificate_does_not_have_is_refused_unless_nothing_is_verified(
    connect: Connect, secure: str
) -> None:
    other = secure.replace("127.0.0.1", "127.1")
    with pytest.raises(ProtocolError, match="certificate verify failed: .*mismatch"):
        connect(other)
    assert connect(other + "&tls_verify=false").get("k") is None


def test_a_server_that_asks_for_a_certificate_takes_the_right_one_only(
    connect: Connect, secure: str, server: ReferenceServer, tmp_path: Path
) -> None:
    file = private("server.pem", tmp_path)
    server.context = ServerTls(file, file, AUTHORITY).context
    assert connect(f"{secure}&tls_cert_file={private('client.pem', tmp_path)}").get("k") is None
    for wrong in ("", f"&tls_cert_file={private('intruder.pem', tmp_path)}"):
        with pytest.raises((ProtocolError, ConnectionLost)):
            connect(secure + wrong, timeout=1)


def test_a_plain_client_at_a_tls_port_and_the_other_way_round_are_told_so(
    connect: Connect, secure: str, server: ReferenceServer
) -> None:
    with pytest.raises((ProtocolError, ConnectionLost)):
        connect(f"kio://127.0.0.1:{server.port}", timeout=1)
    server.context = None
    with pytest.raises((ProtocolError, ConnectionLost, Timeout)):
        connect(secure, timeout=1, connect_timeout=0.5)


def test_files_that_cannot_be_read_are_named(connect: Connect, secure: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_ca_file .*nowhere.pem cannot be read"):
        connect(f"{secure.partition('?')[0]}?tls_ca_file={tmp_path}/nowhere.pem")
    with pytest.raises(ConfigError, match="password_file .*nowhere cannot be read"):
        connect(f"kio://ada@h?password_file={tmp_path}/nowhere")


@pytest.mark.parametrize("way", ["url", "escaped", "argument", "file"])
def test_the_hello_names_the_user_and_the_password_whichever_way_they_were_given(
    connect: Connect, server: ReferenceServer, tmp_path: Path, way: str
) -> None:
    address = f"127.0.0.1:{server.port}"
    password = "se/cr@t:#" if way in ("escaped", "argument") else "secret"
    if way == "url":
        connect(f"kio://ada:secret@{address}")
    elif way == "escaped":
        connect(f"kio://ada:se%2Fcr%40t%3A%23@{address}")
    elif way == "argument":
        connect(f"kio://{address}", user="ada", password=password)
    else:
        (tmp_path / "password").write_text("secret\n")
        connect(f"kio://ada@{address}?password_file={tmp_path}/password")
    (hello,) = server.hellos
    assert (hello[b"user"], hello[b"password"]) == (b"ada", password.encode())


def test_without_a_user_the_hello_is_as_ever(connect: Connect, server: ReferenceServer) -> None:
    connect(server.url)
    connect(f"kio://:secret@127.0.0.1:{server.port}")
    assert set(server.hellos[0]) == {b"protocol", b"client"}
    assert server.hellos[1][b"user"] == b"default"


def test_a_daemon_that_wants_another_password_says_so_once(connect: Connect, server: ReferenceServer) -> None:
    server.greeting = Fail(NotAuthenticated.code, "no such user, or another password")
    with pytest.raises(NotAuthenticated, match="no such user"):
        connect(f"kio://ada:wrong@127.0.0.1:{server.port}")
    assert len(server.hellos) == 1


def test_no_message_and_no_repr_holds_a_password(connect: Connect, server: ReferenceServer) -> None:
    url = f"kio://ada:hunter2@127.0.0.1:{server.port}"
    db = connect(url)
    options = parse(url)
    assert options.password is not None
    assert options.password.reveal() == b"hunter2"
    shown = [repr(db), str(db), repr(options), options.url, repr(vars(options.password.__class__))]
    with pytest.raises(TypeError, match="password"):
        pickle.dumps(options)
    bad = [
        "kio://ada:hunter2@h:port",
        "kio://ada:hunter2@h:99999",
        "kio://ada:hunter2@h#part",
        "kio://ada:hunter2@h/999",
        "kio://ada:hunter2@h?colour=red",
        "kio://ada:hunter2/x@h",
        "kio://ada:hunter2?x@h",
        "kio://ada:hunter2#x@h",
        "kio://ada:h@hunter2@h:0",
        "http://ada:hunter2@h",
        "kio://h?password=hunter2",
        "kio+unix://ada:hunter2@host/run/kio.sock",
        "kios://ada:hunter2@[h",
    ]
    for each in bad:
        with pytest.raises(ConfigError) as caught:
            parse(each)
        shown.append(str(caught.value))
    with pytest.raises(ConfigError) as caught:
        parse("kio://h", password=["hunter2"])
    shown.append(str(caught.value))
    server.stop()
    with pytest.raises(ConnectionLost) as lost:
        connect(url, timeout=0.5)
    server.start()
    shown.append(str(lost.value))
    assert [text for text in shown if "hunter2" in text] == []


def test_the_examples_of_the_credentials_are_right() -> None:
    ran = doctest.testmod(credentials)
    assert ran.attempted > 0
    assert ran.failed == 0
