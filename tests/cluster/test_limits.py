"""The largest key and value work, one byte more is refused by name; hostile bytes cost neither memory nor other
clients.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgpack
import pytest

import kio
from tests.cluster.conftest import Chance
from tests.cluster.daemon import Daemon, wait_until
from tests.cluster.probe import Probe, shard_tags
from tests.cluster.rawwire import (
    BAD_REQUEST,
    CLEAR,
    COUNT,
    DELETE,
    EXISTS,
    FRAME_TOO_LARGE,
    GET,
    GET_MANY,
    HELLO,
    KEY_EMPTY,
    KEY_TOO_LARGE,
    LENGTH,
    OK,
    PARTIAL,
    PING,
    PROTOCOL_ERROR,
    REPLY_TOO_LARGE,
    SCAN,
    SET,
    SET_MANY,
    UNKNOWN_OPERATION,
    VALUE_TOO_LARGE,
    Wire,
    frame,
)

KEY_BYTES = 65_535
VALUE_BYTES = 16 << 20
CONNECTIONS = 200
MEMORY_MIB = 50


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as running:
        yield running


def test_the_largest_key_and_value_work_and_one_byte_more_is_refused_by_name(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        wire.call(CLEAR, 0)
        longest, largest = b"k" * KEY_BYTES, bytes(range(256)) * (VALUE_BYTES // 256)
        assert wire.call(SET, 0, longest, b"v") is True
        assert wire.call(SET, 0, b"large", largest) is True
        assert wire.call(SET, 0, longest + b"", largest) is True
        assert wire.call(GET, 0, longest) == largest
        assert wire.call(GET, 0, b"large") == largest
        for op in (SET, GET, DELETE, EXISTS):
            arguments = (b"v",) if op == SET else ()
            assert wire.request(op, 0, longest + b"k", *arguments)[0] == KEY_TOO_LARGE
            assert wire.request(op, 0, b"", *arguments)[0] == KEY_EMPTY
        assert wire.request(SET, 0, b"larger", largest + b"v")[0] == VALUE_TOO_LARGE
        assert wire.call(COUNT, 0) == 2, "something that was refused was written"
        assert wire.call(GET, 0, b"larger") is None
        assert wire.call(PING, b"alive") == b"alive"
        wire.call(CLEAR, 0)


def test_one_bad_key_of_a_batch_fails_alone(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        pairs = [b"a", b"1", b"k" * (KEY_BYTES + 1), b"2", b"", b"3", b"b", b"x" * (VALUE_BYTES - 200_000), b"c", b"5"]
        status, result, faults = wire.request(SET_MANY, 0, pairs)
        assert status == PARTIAL
        assert result == [True, None, None, True, True]
        assert [(index, code, maybe) for index, code, _, maybe in faults] == [
            (1, KEY_TOO_LARGE, False),
            (2, KEY_EMPTY, False),
        ]
        assert wire.call(GET_MANY, 0, [b"a", b"c"]) == [b"1", b"5"]
        assert wire.call(CLEAR, 0) == 3


def test_a_frame_that_is_too_long_is_skipped_and_answered(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        limit = wire.welcome["frame_bytes_max"]
        long = wire.send(SET, 0, b"k", b"v" * (limit + 1))
        assert wire.receive()[:2] == [long, FRAME_TOO_LARGE]
        assert wire.call(PING, b"alive") == b"alive"
        assert wire.call(GET, 0, b"k") is None


def test_requests_that_make_no_sense_are_answered_and_the_connection_lives_on(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        assert wire.request(999)[0] == UNKNOWN_OPERATION
        for op, *arguments in (
            (GET, 0),
            (GET, 0, b"k", b"more"),
            (GET, 256, b"k"),
            (GET, -1, b"k"),
            (GET, 0, 7),
            (GET, 0, None),
            (SET, 0, b"k", [b"v"]),
            (SET_MANY, 0, [b"k"]),
            (GET_MANY, 0, b"k"),
            (GET_MANY, 0, {b"k": 1}),
            (SCAN, 0, b"", b"", 0, 0),
            (SCAN, 0, b"", b"", 10, 9),
            (SCAN, 0, b"no cursor of ours", b"", 10, 0),
            (COUNT, "0"),
        ):
            status, *rest = wire.request(op, *arguments)
            assert status == BAD_REQUEST, f"operation {op} with {arguments} was answered {status} {rest!r}"
        assert wire.call(PING, b"alive") == b"alive"


def test_what_is_not_the_protocol_is_told_and_the_connection_closed(daemon: Daemon) -> None:
    for junk in (
        LENGTH.pack(4) + b"\xc1\xc1\xc1\xc1",
        LENGTH.pack(0),
        frame({"not": "an array"}),
        frame(7),
        frame([]),
        LENGTH.pack(0x8000_0000),
        LENGTH.pack(0xFFFF_FFFF) + b"x" * 100,
    ):
        with Wire(daemon.url) as wire:
            wire.sock.sendall(junk)
            reply = wire.receive()
            assert reply[:2] == [0, PROTOCOL_ERROR] or reply[1] == BAD_REQUEST, f"{junk[:20]!r} was answered {reply!r}"
            if reply[1] == PROTOCOL_ERROR:
                assert wire.is_closed_by_peer(), f"after {junk[:20]!r} the connection is open"


def test_nothing_is_served_before_the_hello_and_no_unknown_version(daemon: Daemon) -> None:
    with Wire(daemon.url, hello=False) as wire:
        wire.send(GET, 0, b"k")
        assert wire.receive()[1] == PROTOCOL_ERROR
        assert wire.is_closed_by_peer()
    with Wire(daemon.url, hello=False) as wire:
        wire.send(HELLO, {"protocol": 0, "client": "tests"})
        assert wire.receive()[1] == PROTOCOL_ERROR
        assert wire.is_closed_by_peer()
    with Wire(daemon.url, hello=False) as wire:
        assert wire.call(HELLO, {"protocol": 99, "client": "from the future"})["protocol"] == 2
    with Wire(daemon.url, hello=False) as wire:
        wire.sock.sendall(LENGTH.pack(5_000) + b"\x94" + b"x" * 200)
        assert wire.is_closed_by_peer(), "a frame of 5,000 bytes was awaited before the hello"


def attacks(dice: random.Random) -> list[Callable[[], bytes]]:
    """Makers of hostile byte strings; whatever comes after the hello."""
    deep = b"\x91" * 2_000 + b"\xc0"
    return [
        lambda: dice.randbytes(dice.randint(1, 200)),
        lambda: dice.randbytes(1 << 16),
        lambda: LENGTH.pack(1 << 31) + dice.randbytes(100),
        lambda: LENGTH.pack(200 << 20) + b"x" * 1_000,
        lambda: LENGTH.pack(VALUE_BYTES) + b"\x96\x01\x02\x00\x00\xa1k\xc6" + struct.pack(">I", VALUE_BYTES - 100),
        lambda: frame([1, SET, 0, 0, b"half", b"v" * 5_000])[:2_000],
        lambda: LENGTH.pack(len(deep)) + deep,
        lambda: LENGTH.pack(9) + b"\x95\x01\x11\x00\x00\xdd\xff\xff\xff",
        lambda: LENGTH.pack(10) + b"\x95\x01\x11\x00\x00\xdd\xff\xff\xff\xff",
        lambda: LENGTH.pack(10) + b"\x95\x01\x01\x00\x00\xc6\xff\xff\xff\xff",
        lambda: LENGTH.pack(10) + b"\x95\x01\x01\x00\x00\xdb\x80\x00\x00\x00",
        lambda: frame([-5, GET, 0, 0, b"k"]),
        lambda: frame([1 << 63, GET, 0, 0, b"k"]),
        lambda: frame([1, GET, -1, 0, b"k"]),
        lambda: frame([1.5, "get", None]),
        lambda: frame([1, GET, 0, 0, msgpack.ExtType(5, b"k")]),
        lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"*1\r\n$4\r\nPING\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        lambda: b"\0" * 4_096,
    ]


@pytest.mark.timeout(60)
def test_hostile_bytes_cost_neither_memory_nor_other_clients(chance: Chance) -> None:
    """200 connections, half of them before the hello, all left open while memory is measured."""
    makers = attacks(chance.dice)
    with Daemon(workers=2) as daemon:
        tags = shard_tags(daemon)
        pids = daemon.pids()
        before = daemon.rss_mib()
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(Probe(daemon.url, tag)) for tag in tags.values()]
            for number in range(CONNECTIONS):
                make = makers[number // 2 % len(makers)]
                sock = say_hello(daemon.url) if number % 2 else dial(daemon.url)
                stack.enter_context(sock)
                with contextlib.suppress(ConnectionError):
                    sock.sendall(make())
            with Wire(daemon.url) as wire:
                assert wire.call(PING, b"alive") == b"alive"
            wait_until(lambda: all(len(probe.answers) >= 100 for probe in probes), 10, "100 answers of each shard")
            assert daemon.pids() == pids, f"a process died\nrepeat with: {chance.repeat}"
            grown = {pid: round(after - before[pid], 1) for pid, after in daemon.rss_mib().items()}
        for probe in probes:
            assert not probe.failures(), f"another client noticed: {probe.failures()[:3]}\nrepeat with: {chance.repeat}"
        assert max(grown.values()) < MEMORY_MIB, f"MiB grown per process: {grown}\nrepeat with: {chance.repeat}"
        with Wire(daemon.url) as wire:
            assert wire.request(COUNT, 0) == [OK, len(tags)], "hostile bytes wrote something"


def dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def say_hello(url: str) -> socket.socket:
    """A connection after its hello, the answer read."""
    wire = Wire(url)
    return wire.sock


def test_values_that_do_not_fit_into_one_reply_are_told_key_by_key_and_the_client_gets_all(daemon: Daemon) -> None:
    count, value = 80, b"x" * (1 << 20)
    keys = [b"{one shard}%d" % n for n in range(count)]
    with Wire(daemon.url) as wire, kio.connect(daemon.url, timeout=20) as db:
        wire.call(CLEAR, 0)
        for key in keys:
            wire.call(SET, 0, key, value)
        status, values, faults = wire.request(GET_MANY, 0, keys)
        assert status == PARTIAL
        assert {code for _, code, _, _ in faults} == {REPLY_TOO_LARGE}
        assert all(values[index] is None for index, *_ in faults)
        assert values.count(value) == count - len(faults) > 0
        assert db.get_many(keys) == dict.fromkeys(keys, value)
        wire.call(CLEAR, 0)


def test_a_request_that_comes_byte_by_byte_is_served(daemon: Daemon) -> None:
    with Wire(daemon.url, hello=False) as wire:
        hello = frame([1, HELLO, 0, {"protocol": 1, "client": "slow"}])
        for byte in hello + frame([2, SET, 0, 0, b"slow", b"and steady"]) + frame([3, GET, 0, 0, b"slow"]):
            wire.sock.sendall(bytes([byte]))
        assert [wire.receive()[:2] for _ in range(2)] == [[1, OK], [2, OK]]
        assert wire.receive() == [3, OK, b"and steady"]
        wire.last_id = 3
        assert wire.call(DELETE, 0, b"slow") is True


def test_a_batch_of_more_keys_than_a_frame_may_hold_is_refused_and_the_largest_works(daemon: Daemon) -> None:
    with Wire(daemon.url) as wire:
        most = wire.welcome["frame_keys_max"]
        keys = [b"%d" % n for n in range(most)]
        assert wire.call(GET_MANY, 0, keys) == [None] * most
        assert wire.request(GET_MANY, 0, [*keys, b"one more"])[0] in (FRAME_TOO_LARGE, BAD_REQUEST)
        assert wire.call(PING, b"alive") == b"alive"
