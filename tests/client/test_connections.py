from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kio
from kio import wire
from kio.client.channel import Channel
from kio.client.options import parse
from kio.client.protocol import Request
from kio.client.retry import Deadline
from kio.client.window import KEYS_MAX
from kio.errors import ConnectionLost, Overloaded, ProtocolError, RequestError, Timeout
from tests.client.reference import Drop, Fail, Hold, ReferenceServer, Send


def wait_until(condition: Callable[[], bool], limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_daemon_that_is_not_there_is_told_at_once(connect: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match=r'cannot reach kio://.*refused; is "kio serve" running there\?'):
        connect(f"kio://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionError, match="no such file"):
        connect("kio+unix:///nowhere/kio.sock")
    assert time.monotonic() - started < 2


def test_a_daemon_that_accepts_and_says_nothing_is_given_up_in_time(connect: Any, server: ReferenceServer) -> None:
    server.greeting = Hold()
    with pytest.raises(ConnectionLost, match=r"did not answer within 0\.2 s"):
        connect(server.url, connect_timeout=0.2)
    with pytest.raises(Timeout):
        connect(server.url, timeout=0.2)
    server.greeting.until.set()


@pytest.mark.parametrize(
    "greeting",
    [
        Send(b"-ERR unknown command\r\n"),
        Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Send(wire.encode_frame([1, 0, {"protocol": wire.PROTOCOL_VERSION + 1}])),
        Fail(ProtocolError.code, "this daemon speaks protocol 9"),
    ],
)
def test_what_is_not_a_daemon_of_this_protocol_is_a_protocol_error(
    connect: Any, server: ReferenceServer, greeting: Any
) -> None:
    server.greeting = greeting
    with pytest.raises(ProtocolError):
        connect(server.url)


def test_a_version_that_is_too_new_is_a_protocol_error_that_names_both(connect: Any, server: ReferenceServer) -> None:
    server.hello["protocol"] = 3
    with pytest.raises(ProtocolError, match="the daemon speaks protocol 3, this client 2"):
        connect(server.url)


def test_garbage_instead_of_a_reply_is_a_protocol_error_and_the_next_call_works(
    db: Any, server: ReferenceServer
) -> None:
    server.script = lambda op, arguments: Send(b"\0\0\0\4none")
    with pytest.raises(ProtocolError) as caught:
        db.set("k", b"v")
    assert caught.value.maybe_applied
    server.script = lambda op, arguments: None
    db.set("k", b"v")
    assert db.get("k") == b"v"
    assert server.connections == 2


@pytest.mark.parametrize("reply_bytes", range(12))
def test_a_daemon_that_dies_in_mid_reply_is_asked_again(db: Any, server: ReferenceServer, reply_bytes: int) -> None:
    db.set("k", b"value")
    answers: list[Any] = [Drop(reply_bytes, executes=True)]
    server.script = lambda op, arguments: answers.pop() if answers else None
    assert db.get("k") == b"value"


def test_without_retries_a_lost_connection_is_told_and_the_next_call_makes_a_new_one(
    connect: Any, server: ReferenceServer
) -> None:
    db = connect(server.url, retries=False)
    server.script = lambda op, arguments: Drop()
    with pytest.raises(ConnectionLost):
        db.get("k")
    server.script = lambda op, arguments: None
    assert db.get("k") is None


def test_a_call_outlives_a_daemon_that_restarts(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url, timeout=20)
    db.set("k", b"v")
    server.stop()
    restart = threading.Timer(0.3, server.start)
    restart.start()
    assert db.get("k") == b"v"
    restart.join()


def test_a_daemon_that_refuses_connections_for_a_while_is_asked_again(db: Any, server: ReferenceServer) -> None:
    server.drop_connections()
    server.greeting = Fail(Overloaded.code, "too many connections")
    healed = threading.Timer(0.2, lambda: setattr(server, "greeting", None))
    healed.start()
    assert db.get("k") is None
    healed.join()
    assert server.connections > 2


def test_a_connection_that_was_closed_while_idle_costs_a_write_nothing(server: ReferenceServer) -> None:
    with kio.connect(server.url, retries=False) as db:
        server.drop_connections()
        wait_until(lambda: not server._open)
        db.set("k", b"v")
        assert server.connections == 2


def test_a_connection_with_a_reply_on_its_way_is_never_used_again(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url)
    db.set_many({"a": b"1", "b": b"2"})
    hold = Hold()
    server.script = lambda op, arguments: hold if arguments[1] == b"a" else None
    with pytest.raises(Timeout):
        db.with_options(timeout=0.1).get("a")
    hold.until.set()
    for _ in range(20):
        assert db.get("b") == b"2"


def test_of_a_lost_connection_what_was_not_sent_was_not_applied(server: ReferenceServer) -> None:
    server.script = lambda op, arguments: Drop()
    frame = [Request(wire.OP_SET_MANY, (0, [b"k", b"v"]), KEYS_MAX) for _ in range(3)]
    channel = Channel(parse(server.url), Deadline(5))
    first, *rest = [reply.error for reply in channel.exchange(frame, Deadline(5))]
    assert [type(error) for error in (first, *rest)] == [ConnectionLost] * 3
    assert [error is not None and error.maybe_applied for error in (first, *rest)] == [True, False, False]
    assert channel.is_broken


def test_a_call_that_is_given_up_resets_its_connection_so_that_unread_writes_are_dropped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:

        def answer_the_hello() -> socket.socket:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(wire.encode_frame([1, 0, ReferenceServer.HELLO]))
            return connection

        accepted = threads.submit(answer_the_hello)
        port = listener.getsockname()[1]
        with kio.connect(f"kio://127.0.0.1:{port}") as db, accepted.result() as connection:
            with pytest.raises(Timeout):
                db.with_options(timeout=0.3).set("k", b"v")
            connection.recv(1000)
            with pytest.raises(ConnectionResetError):
                connection.recv(1000)


def test_a_closed_client_says_so(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url)
    view = db.with_options(keyspace=1)
    db.close()
    for closed in (db, view):
        with pytest.raises(RequestError, match="this client is closed"):
            closed.get("k")
    db.close()


def test_closing_leaves_no_connection(connect: Any, server: ReferenceServer) -> None:
    db = connect(server.url)
    db.get("k")
    db.close()
    wait_until(lambda: not server._open)


def test_sixteen_threads_share_a_client(server: ReferenceServer) -> None:
    def work(db: kio.client.Client, thread: int) -> None:
        for i in range(30):
            key = f"{thread}:{i}"
            db.set(key, key.encode())
            assert db.get(key) == key.encode()
            keys = [f"{thread}:{j}" for j in range(i + 1)]
            assert db.get_many(keys) == {key: key.encode() for key in keys}

    with kio.connect(server.url) as db, ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda thread: work(db, thread), range(16)))
        assert db.count() == 16 * 30
    assert server.connections <= 16


def test_a_thread_past_the_bound_waits_for_a_connection(server: ReferenceServer) -> None:
    with kio.connect(server.url, max_connections=2) as db, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda i: db.get(str(i)), range(200))) == [None] * 200
    assert server.connections <= 2


def test_a_thread_past_the_bound_waits_no_longer_than_its_deadline(server: ReferenceServer) -> None:
    hold = Hold()
    server.script = lambda op, arguments: hold
    with kio.connect(server.url, max_connections=1) as db, ThreadPoolExecutor(1) as threads:
        first = threads.submit(db.get, "k")
        wait_until(lambda: len(server.requests) == 1)
        with pytest.raises(Timeout, match="all 1 connections of this client were busy") as caught:
            db.with_options(timeout=0.1).set("k", b"v")
        assert not caught.value.maybe_applied
        hold.until.set()
        assert first.result() is None


def test_an_interrupted_call_leaves_no_half_read_connection(server: ReferenceServer) -> None:
    main = threading.main_thread()
    hold = Hold()
    server.script = lambda op, arguments: hold if arguments[1] == b"slow" else None

    def interrupt_once_it_waits() -> None:
        wait_until(lambda: len(server.requests) == 2)
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with kio.connect(server.url) as db:
            db.set("fast", b"v")
            watcher = threading.Thread(target=interrupt_once_it_waits)
            watcher.start()
            with pytest.raises(KeyboardInterrupt):
                db.get("slow")
            watcher.join()
            assert db.get("fast") == b"v"
            hold.until.set()
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_a_client_that_is_dropped_unclosed_warns_as_a_socket_does(server: ReferenceServer) -> None:
    db = kio.connect(server.url)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        channel = db._pool._idle.pop()
        del channel
        assert [warning.category for warning in caught] == [ResourceWarning]
    db.close()


def run_script(server: ReferenceServer, script: str) -> str:
    """What a fresh interpreter prints for `script`, which finds a connected client in `db`."""
    head = f"import os, sys, threading, kio\ndb = kio.connect({server.url!r})\n"
    done = subprocess.run(
        # Python 3.12 warns of the fork beside a thread that some of the scripts are about.
        [
            *(sys.executable, "-W", "error::ResourceWarning", "-W", "ignore::DeprecationWarning"),
            *("-c", head + textwrap.dedent(script)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_forked_child_opens_its_own_connections(server: ReferenceServer) -> None:
    run_script(
        server,
        """
        db.set("from", b"parent")
        child = os.fork()
        if child == 0:
            for i in range(100):
                db.set(f"child:{i}", b"c")
                assert db.get("from") == b"parent"
            assert len(list(db.keys("child:"))) == 100
            db.close()
            os._exit(0)
        for i in range(100):
            db.set(f"parent:{i}", b"p")
            assert db.get(f"parent:{i}") == b"p"
        assert os.waitpid(child, 0)[1] == 0
        assert db.count() == 201
        db.close()
        """,
    )
    assert server.connections == 2
    writers: dict[int, set[bytes]] = {1: set(), 2: set()}
    for number, op, arguments, _ in server.requests:
        if op == wire.OP_SET:
            writers[number].add(arguments[1].partition(b":")[0])
    assert writers == {1: {b"from", b"parent"}, 2: {b"child"}}


def test_a_child_forked_while_a_thread_holds_the_pool_works_and_closes_its_copies(server: ReferenceServer) -> None:
    hold = Hold()
    server.script = lambda op, arguments: hold if arguments[1] == b"slow" else None
    release = threading.Thread(target=lambda: (wait_until(lambda: b"done" in server.keyspaces[0]), hold.until.set()))
    server.keyspaces[0] = {}
    release.start()
    run_script(
        server,
        """
        slow = threading.Thread(target=db.get, args=("slow",))
        slow.start()
        while not db._pool._taken:
            pass
        parents = db._pool._taken.copy().pop()._socket.fileno()
        db._pool._changed.acquire()
        child = os.fork()
        if child == 0:
            try:
                os.fstat(parents)
            except OSError:
                db.set("done", b"1")
                os._exit(0)
            os._exit(1)
        db._pool._changed.release()
        assert os.waitpid(child, 0)[1] == 0
        slow.join()
        assert db.get("done") == b"1"
        db.close()
        """,
    )
    release.join(10)


def test_importing_the_client_imports_nothing_of_the_daemon_and_nothing_slow() -> None:
    script = """
        import sys, kio.client
        heavy = {"typer", "rich", "zmq", "prometheus_client", "psutil", "asyncio", "ssl"} & set(sys.modules)
        daemon = [name for name in sys.modules if name.startswith(("kio.segments", "kio.daemon", "kio.router"))]
        assert not heavy | set(daemon), (heavy, daemon)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
