"""TLS between a socket and Dispatch, against Python's own client over a socket pair."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kio.errors import ProtocolError
from kio.frontdoor import tls
from kio.frontdoor.tls import TlsStream
from kio.tls import ServerTls, client_context
from tests.tls import AUTHORITY, private

READ_BYTES = 64 << 10


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    file = private("server.pem", tmp_path)
    return ServerTls(file, file).context


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


class Loop:
    """The loop of tls.py's docstring, with a blocking socket; what comes is sent back as `answer` has it."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, answer: Callable[[bytes], bytes] = lambda data: data
    ) -> None:
        self.sock = sock
        self.stream = TlsStream(context)
        self.answer = answer
        self.error: ProtocolError | None = None
        self.received = 0
        self.output_bytes_max = 0
        self._unsent = bytearray()

    def run(self) -> None:
        buffer, plain = bytearray(READ_BYTES), bytearray(READ_BYTES)
        try:
            while not self.stream.is_ended:
                n = self.sock.recv_into(buffer)
                if n == 0:
                    return
                self.stream.feed(memoryview(buffer)[:n])
                while m := self.stream.read_into(plain):
                    self.received += m
                    self._unsent += self.answer(bytes(plain[:m]))
                self.write()
            self.stream.close()
        except ProtocolError as error:
            self.error = error
        self.write()
        self.sock.shutdown(socket.SHUT_WR)

    def write(self) -> None:
        while True:
            del self._unsent[: self.stream.send(bytes(self._unsent[: 1 << 20]))]
            self.output_bytes_max = max(self.output_bytes_max, self.stream._waiting)
            if not self.stream.wants_to_write:
                return
            self.stream.consumed(self.sock.send(self.stream.output()))


@pytest.fixture
def served(pair: tuple[socket.socket, socket.socket], context: ssl.SSLContext) -> Iterator[Loop]:
    """An echo over TLS at the one end of `pair`."""
    loop = Loop(pair[0], context)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield loop
    pair[1].close()
    thread.join(10)
    assert not thread.is_alive()


def connect(sock: socket.socket, **options: object) -> ssl.SSLSocket:
    context = client_context(AUTHORITY)
    for name, value in options.items():
        setattr(context, name, value)
    return context.wrap_socket(sock.dup(), server_hostname="localhost")


def recv_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece
        data += piece
    return bytes(data)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_sent_comes_back_and_both_sides_part_cleanly(
    served: Loop, pair: tuple[socket.socket, socket.socket], version: ssl.TLSVersion
) -> None:
    with connect(pair[1], maximum_version=version) as client:
        client.settimeout(10)
        assert client.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        for data in (b"a", b"hello" * 100, bytes(100_000)):
            client.sendall(data)
            assert recv_exactly(client, len(data)) == data
        raw = client.unwrap()  # waits for the other side's word
        assert raw.recv(1) == b""
        raw.close()
    assert served.stream.is_ended
    assert served.error is None


def test_ten_megabytes_pass_through_in_both_directions_with_bounded_buffers(
    served: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    data = random.Random(7).randbytes(10 << 20)
    with connect(pair[1]) as client:
        client.settimeout(60)
        sums = hashlib.sha256()
        for start in range(0, len(data), 1 << 16):
            client.sendall(data[start : start + (1 << 16)])
            sums.update(recv_exactly(client, min(1 << 16, len(data) - start)))
        assert sums.digest() == hashlib.sha256(data).digest()
    assert served.received == len(data)
    assert served.output_bytes_max <= tls.OUTPUT_BYTES_MAX + 2 * tls.RECORD_BYTES


def exchange(stream: TlsStream, client: ssl.SSLObject, to_server: ssl.MemoryBIO, to_client: ssl.MemoryBIO) -> None:
    """Shake hands in memory."""
    for _ in range(10):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if to_server.pending:
            stream.feed(to_server.read())
            assert stream.read_into(bytearray(10)) == 0
        to_client.write(stream.output())
        stream.consumed(len(stream.output()))
    assert stream.is_established


@pytest.fixture
def shaken(context: ssl.SSLContext) -> tuple[TlsStream, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    stream = TlsStream(context)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(AUTHORITY).wrap_bio(to_client, to_server, server_hostname="localhost")
    exchange(stream, client, to_server, to_client)
    return stream, client, to_server, to_client


Shaken = tuple[TlsStream, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]


def test_a_stream_that_is_cut_anywhere_gives_the_same_plaintext(shaken: Shaken) -> None:
    stream, client, to_server, _ = shaken
    data = random.Random(1).randbytes(50_000)
    for start in range(0, len(data), 5_000):
        client.write(data[start : start + 5_000])
    ciphertext = to_server.read()
    found, plain = bytearray(), bytearray(1_000)
    cuts = random.Random(2)
    while ciphertext:
        n = cuts.choice([1, 2, 5, 17, 3_000])
        stream.feed(ciphertext[:n])
        ciphertext = ciphertext[n:]
        while m := stream.read_into(plain):
            found += plain[:m]
    assert found == data


def test_who_pauses_in_the_middle_goes_on_without_more_bytes_from_the_socket(shaken: Shaken) -> None:
    stream, client, to_server, _ = shaken
    for i in range(4):
        client.write(bytes([i]) * 10_000)
    stream.feed(to_server.read())
    plain = bytearray(15_000)
    assert stream.read_into(plain) == 15_000
    assert not stream.is_drained
    with pytest.raises(AssertionError):
        stream.feed(b"more")
    assert [stream.read_into(plain), stream.read_into(plain), stream.read_into(plain)] == [15_000, 10_000, 0]
    assert plain[9_999] == 3
    assert stream.is_drained


def test_past_the_bound_of_output_nothing_more_is_taken_until_the_socket_took_some(shaken: Shaken) -> None:
    stream, client, _, to_client = shaken
    data = random.Random(3).randbytes(1 << 20)
    taken = stream.send(data)
    assert tls.OUTPUT_BYTES_MAX - tls.RECORD_BYTES <= taken < tls.OUTPUT_BYTES_MAX + tls.RECORD_BYTES
    assert stream.send(data[taken:]) == 0
    received = bytearray()
    while len(received) < len(data):
        piece = bytes(stream.output()[:100_000])
        stream.consumed(len(piece))
        to_client.write(piece)
        taken += stream.send(data[taken:])
        with suppress(ssl.SSLWantReadError):
            while True:
                received += client.read(1 << 16)
    assert received == data
    assert not stream.wants_to_write


def test_before_the_handshake_nothing_is_sent_in_the_clear(context: ssl.SSLContext) -> None:
    stream = TlsStream(context)
    assert stream.send(b"secret") == 0
    assert bytes(stream.output()) == b""
    stream.close()
    assert not stream.wants_to_write


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: kio\r\n\r\n",
        b"\x00\x00\x00\x20" + bytes(32),
        b"*1\r\n$4\r\nPING\r\n",
        os.urandom(4_096),
        b"\x16\x03\x01\xff\xff" + bytes(20_000),
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff",
    ],
    ids=["http", "kio", "resp", "random", "long record", "long message"],
)
def test_what_is_not_tls_is_one_typed_fault_and_nothing_works_after_it(context: ssl.SSLContext, garbage: bytes) -> None:
    stream = TlsStream(context)
    with pytest.raises(ProtocolError, match="TLS failed: "):
        for start in range(0, len(garbage), 1_000):
            stream.feed(garbage[start : start + 1_000])
            stream.read_into(bytearray(10))
    with pytest.raises(ProtocolError):
        stream.feed(b"x")
    with pytest.raises(ProtocolError):
        stream.read_into(bytearray(10))
    assert stream.send(b"secret") == 0
    assert b"secret" not in bytes(stream.output())
    stream.close()


def test_http_and_the_plain_protocol_are_told_apart_from_broken_tls(context: ssl.SSLContext) -> None:
    for garbage in (b"GET / HTTP/1.1\r\nHost: kio\r\n\r\n", b"\x00\x00\x00\x20" + bytes(32)):
        with pytest.raises(ProtocolError, match="the other side does not speak TLS"):
            TlsStream(context).feed(garbage)


def test_half_a_handshake_waits_and_an_endless_one_is_a_fault(context: ssl.SSLContext) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(AUTHORITY).wrap_bio(to_client, to_server, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = to_server.read()
    stream = TlsStream(context)
    for i in range(len(hello) - 1):
        stream.feed(hello[i : i + 1])
        assert stream.read_into(bytearray(10)) == 0
    assert not stream.is_established
    assert not stream.wants_to_write
    # Records of one byte each, of a message that announces as much as it may: OpenSSL keeps it all.
    stream = TlsStream(context)
    with pytest.raises(ProtocolError, match="TLS failed"):
        stream.feed(b"\x16\x03\x01\x00\x04\x01\x01\xff\xff")
        for _ in range(tls.HANDSHAKE_BYTES_MAX // 6 + 1):
            stream.read_into(bytearray(10))
            stream.feed(b"\x16\x03\x01\x00\x01\x00")


@pytest.mark.parametrize("damage", ["bit", "length", "unencrypted"])
def test_a_record_that_is_damaged_too_long_or_not_encrypted_is_a_fault_after_what_came_before_it(
    shaken: Shaken, damage: str
) -> None:
    stream, client, to_server, _ = shaken
    client.write(b"good")
    stream_bytes = to_server.read()
    client.write(b"bad")
    record = bytearray(to_server.read())
    if damage == "bit":
        record[-1] ^= 1
    elif damage == "length":
        record[3:5] = b"\xff\xff"
        record += bytes(66_000)
    else:
        record = bytearray(b"\x17\x03\x03\x00\x03bad")
    stream.feed(stream_bytes + record)
    plain = bytearray(100)
    assert stream.read_into(plain) == 4
    assert plain[:4] == b"good"
    with pytest.raises(ProtocolError, match="TLS failed: "):
        stream.read_into(plain)
    assert stream.wants_to_write, "an alert for the peer"


def test_a_socket_that_ends_without_a_word_is_no_clean_end(shaken: Shaken) -> None:
    stream, client, to_server, _ = shaken
    client.write(b"last")
    stream.feed(to_server.read())
    assert stream.read_into(bytearray(10)) == 4
    assert not stream.is_ended
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    stream.feed(to_server.read())
    assert stream.read_into(bytearray(10)) == 0
    assert stream.is_ended


def test_a_client_without_the_certificate_that_is_asked_for_or_with_a_strangers_is_a_fault(tmp_path: Path) -> None:
    file = private("server.pem", tmp_path)
    context = ServerTls(file, file, AUTHORITY).context
    for name, is_right in (("client.pem", True), ("intruder.pem", False), (None, False)):
        stream = TlsStream(context)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        mine = client_context(AUTHORITY, private(name, tmp_path) if name else None)
        client = mine.wrap_bio(to_client, to_server, server_hostname="localhost")
        if is_right:
            exchange(stream, client, to_server, to_client)
        else:
            with pytest.raises(ProtocolError, match="TLS failed: (certificate verify failed|peer did not return)"):
                exchange(stream, client, to_server, to_client)


def test_a_version_that_is_too_old_is_a_fault(tmp_path: Path) -> None:
    file = private("server.pem", tmp_path)
    stream = TlsStream(ServerTls(file, file, None, "1.3").context)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    mine = client_context(AUTHORITY)
    mine.maximum_version = ssl.TLSVersion.TLSv1_2
    client = mine.wrap_bio(to_client, to_server, server_hostname="localhost")
    with pytest.raises(ProtocolError, match="TLS failed: unsupported protocol"):
        exchange(stream, client, to_server, to_client)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_client_that_renegotiates_is_refused_and_the_others_data_stays_bounded(context: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-CAfile", str(AUTHORITY)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                loop = Loop(sock, context)
                thread = threading.Thread(target=loop.run)
                thread.start()
                assert process.stdin is not None
                process.stdin.write("hello\n")
                process.stdin.flush()
                by = time.monotonic() + 10
                while loop.received < len("hello\n"):  # a command is one only at the beginning of what it reads
                    assert time.monotonic() < by
                    time.sleep(0.01)
                process.stdin.write("R\n")
                process.stdin.flush()
                _, told = process.communicate(timeout=20)
                thread.join(20)
                assert not thread.is_alive()
    assert "RENEGOTIATING" in told
    assert "no renegotiation" in told
    assert loop.received == len("hello\n")
