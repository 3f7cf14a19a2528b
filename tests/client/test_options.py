from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

import kio
from kio.client.options import UNSET, Options, changed, parse, reason
from kio.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kio://127.0.0.1", {"address": ("127.0.0.1", 7400)}),
        ("kio://127.0.0.1/", {"address": ("127.0.0.1", 7400)}),
        ("kio://db.example:9/3", {"address": ("db.example", 9), "keyspace": 3}),
        ("kio://[::1]:7401/255", {"address": ("::1", 7401), "keyspace": 255}),
        ("kio://h?timeout=none", {"timeout": None}),
        ("kio://h?timeout=0.5&retries=false", {"timeout": 0.5, "retries": False}),
        ("kio://h/4?connect_timeout=3&max_connections=2", {"connect_timeout": 3, "max_connections": 2, "keyspace": 4}),
        ("kio+unix:///run/kio.sock", {"address": "/run/kio.sock"}),
        ("kio+unix:///run/a%20b.sock?keyspace=9", {"address": "/run/a b.sock", "keyspace": 9}),
    ],
)
def test_a_url_tells_the_address_and_the_options(url: str, expected: dict[str, Any]) -> None:
    options = parse(url)
    assert {name: getattr(options, name) for name in expected} == expected
    assert options.url == url


def test_the_timeout_is_on_unless_it_is_turned_off() -> None:
    assert parse("kio://h").timeout == 5.0
    assert parse("kio://h", timeout=UNSET).timeout == 5.0
    assert parse("kio://h", timeout=None).timeout is None


def test_an_argument_wins_over_the_query() -> None:
    options = parse("kio://h/1?timeout=2&retries=true", timeout=9, keyspace=2, retries=UNSET)
    assert (options.timeout, options.keyspace, options.retries) == (9, 2, True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:7400",
        "http://127.0.0.1:7400",
        "redis://127.0.0.1",
        "kio://",
        "kio:///3",
        "kio://h:0",
        "kio://h:65536",
        "kio://h:port",
        "kio://[::1",
        "kio://h/256",
        "kio://h/-1",
        "kio://h/1_0",
        "kio://h/٣",
        "kio://h/a",
        "kio://h/1/2",
        "kio://h/1?keyspace=1",
        "kio://h?timeout=1&timeout=2",
        "kio://h?timeout=0",
        "kio://h?timeout=",
        "kio://h?timeout=nan",
        "kio://h?timeout=1e3",
        "kio://h?timeout=true",
        "kio://h?connect_timeout=none",
        "kio://h?retries=1",
        "kio://h?max_connections=0",
        "kio://h?max_connections=1.0",
        "kio://h?colour=red",
        "kio://user@h",
        "kio://:@h",
        "kio://h?user=ada",
        "kio://h?password=secret",
        "kio://h?tls_ca_file=x",
        "kios://h?tls_key_file=x",
        "kios://h?tls_verify=1",
        "kio://ada:x@",
        "kio://h#part",
        "kio+unix://run/kio.sock",
        "kio+unix:relative",
        "kio+unix:///" + "x" * 107,
        "kio+unix:///run/%00",
    ],
)
def test_a_bad_url_is_one_clear_error(url: str) -> None:
    with pytest.raises(ConfigError):
        parse(url)


def test_the_error_names_the_part_and_what_it_should_be() -> None:
    with pytest.raises(ConfigError, match=r"keyspace is an integer from 0 to 255, not 256"):
        parse("kio://h/256")
    with pytest.raises(ConfigError, match=r"unknown option 'tiemout': a client has keyspace, timeout, "):
        parse("kio://h?tiemout=3")
    with pytest.raises(ConfigError, match=r"a URL is a str"):
        parse(7400)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "5"},
        {"timeout": True},
        {"connect_timeout": None},
        {"retries": 1},
        {"keyspace": 256},
        {"keyspace": True},
        {"keyspace": 1.0},
        {"max_connections": 0},
    ],
)
def test_an_argument_out_of_range_is_an_error_before_anything_is_connected(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        kio.connect("kio://127.0.0.1:1", **options)


def test_what_the_system_says_reads_the_same_from_a_socket_and_an_event_loop() -> None:
    assert (
        reason(ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 7400)")) == "connection refused"
    )
    assert reason(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) == "name or service not known"
    assert reason(OSError("Multiple exceptions: ...")) == "multiple exceptions: ..."


def test_changed_options_are_checked_too() -> None:
    options = parse("kio://h")
    assert changed(options, timeout=None, keyspace=UNSET) == Options("kio://h", ("h", 7400), timeout=None)
    with pytest.raises(ConfigError):
        changed(options, keyspace=-1)
