"""The verbs as processes of their own against a real daemon: bytes, exit codes, pipes, terminals and signals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kio import client
from kio.cli import app, exit_codes
from tests.cluster.daemon import ROOT, Daemon, environment, run_cli, wait_until

LIMIT_S = 30.0
VALUE_BYTES_MAX = 16 << 20


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(workers=2) as running:
        yield running


def start(daemon: Daemon, *arguments: str, **files: int | None) -> subprocess.Popen[bytes]:
    """`kio ARGUMENTS` against the daemon, not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "kio", *arguments],
        cwd=ROOT,
        env=environment(KIO_URL=daemon.url),
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | files,  # type: ignore[arg-type]
    )


def test_what_is_set_is_got_counted_scanned_and_deleted(daemon: Daemon) -> None:
    key = os.fsdecode(b"small/\xff")
    assert daemon.cli("set", key, os.fsdecode(b"\xfe\n")).stdout == b""
    assert daemon.cli("get", key).stdout == b"\xfe\n"
    assert json.loads(daemon.cli("count", "--json").stdout)["keys"] >= 1
    assert daemon.cli("scan", "small/").stdout == b"small/\\xff\n"
    assert daemon.cli("scan", "small/", "--values", "--raw", "--null").stdout == b"small/\xff\t\xfe\n\0"
    assert daemon.cli("delete", key).returncode == 0
    gone = daemon.cli("get", key, check=False)
    assert (gone.returncode, gone.stdout, gone.stderr) == (1, b"", b"kio: there is no key small/\\xff\n")
    assert daemon.cli("delete", key, check=False).returncode == 1


def test_compact_tells_what_is_dead_and_gives_it_back(daemon: Daemon) -> None:
    value = "v" * 1000
    for _ in range(3):
        assert daemon.cli("set", "compacted", value).returncode == 0
    assert int(daemon.cli("compact").stdout) >= 2 * 1000
    deadline = time.monotonic() + 30
    while json.loads(daemon.cli("compact", "--json").stdout)["dead_bytes"] > 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shards = json.loads(daemon.cli("status", "--json").stdout)["shards"]
    assert sum(shard["segments_dropped"] for shard in shards) >= 1
    assert daemon.cli("get", "compacted").stdout.rstrip(b"\n") == value.encode()


def test_status_tells_processes_ports_and_shards(daemon: Daemon) -> None:
    told = json.loads(daemon.cli("status", "--json").stdout)
    assert told["supervisor"]["pid"] == daemon.supervisor
    pids = [told["router"]["pid"], *(worker["pid"] for worker in told["workers"])]
    assert set(pids) <= set(daemon.pids())
    assert str(told["ports"]["native"]) == daemon.url.rsplit(":", 1)[1]
    for shard in told["shards"]:
        assert {"keys", "live_bytes", "dead_bytes", "segments", "lsn", "keydir_bytes", "state"} <= shard.keys()
    shown = daemon.cli("status").stdout.decode()
    for pid in pids:
        assert str(pid) in shown
    assert "settings.data" in shown


def test_the_largest_key_and_value_work_and_one_byte_more_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(bytes(VALUE_BYTES_MAX))
    assert daemon.cli("set", "k" * 65_535, "--file", file).returncode == 0
    assert daemon.cli("get", "k" * 65_535).stdout == bytes(VALUE_BYTES_MAX)
    file.write_bytes(bytes(VALUE_BYTES_MAX + 1))
    for arguments in (["set", "k", "--file", str(file)], ["get", "k" * 65_536], ["get", ""]):
        refused = daemon.cli(*arguments, check=False)
        assert refused.returncode == exit_codes.USAGE
        assert re.fullmatch(rb"kio: [^\n]+\n", refused.stderr)
    assert daemon.cli("delete", "k" * 65_535).returncode == 0


def test_a_tree_comes_back_byte_for_byte(daemon: Daemon, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name, value in {
        b"empty": b"",
        b"d/not utf-8 \xff\xfe": b"\xff",
        b"d/line\nfeed": b"\0\n",
        b"d/{tag}": b"x",
        b"several/MiB": os.urandom(5 << 20),
    }.items():
        path = source / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    into = json.loads(daemon.cli("import", "--tree", source, "--prefix", "tree/", "--json").stdout)
    assert (into["records"], into["failed"]) == (5, 0)
    daemon.cli("export", "--tree", target, "--prefix", "tree/")
    compared = subprocess.run(["diff", "-r", source, target], capture_output=True, check=False)
    assert (compared.returncode, compared.stdout) == (0, b"")


def test_a_file_over_the_limit_is_told_and_not_sent(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "over").write_bytes(bytes(VALUE_BYTES_MAX + 1))
    (tmp_path / "under").write_bytes(b"x")
    ran = daemon.cli("import", "--tree", tmp_path, "--prefix", "limit/", check=False)
    assert ran.returncode == exit_codes.FAILED
    assert ran.stderr == f"kio: {tmp_path}/over: the file is longer than max_value_bytes, which is 16777216\n".encode()
    assert daemon.cli("scan", "limit/").stdout == b"limit/under\n"


@pytest.fixture(scope="module")
def people(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 lines that are also in the daemon, as folk:*."""
    file = tmp_path_factory.mktemp("people") / "people.jsonl"
    with file.open("w") as lines:
        lines.writelines(json.dumps({"id": f"{n:05}", "name": "Ada Lovelace"}) + "\n" for n in range(20_000))
    daemon.cli("import", "--jsonl", file, "--key", "id", "--prefix", "folk:")
    return file


def test_lines_come_back_in_any_order(daemon: Daemon, people: Path) -> None:
    ran = daemon.cli("export", "--jsonl", "-", "--key", "id", "--prefix", "folk:")
    assert sorted(ran.stdout.splitlines()) == people.read_bytes().splitlines()
    assert ran.stderr.startswith(b"kio: exported 20,000 records")


@pytest.mark.parametrize(
    "arguments",
    [["scan", "--values"], ["scan", "--json"], ["export", "--jsonl", "-"], ["export", "--csv", "-"]],
    ids=" ".join,
)
def test_a_reader_that_goes_away_ends_the_verb_quietly(daemon: Daemon, people: Path, arguments: list[str]) -> None:
    with start(daemon, *arguments) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        writing.stdout.readline()
        writing.stdout.close()
        assert writing.wait(LIMIT_S) == exit_codes.BROKEN_PIPE
        assert writing.stderr.read() == b""


def test_ctrl_c_ends_an_import_with_its_tally(daemon: Daemon) -> None:
    importing = start(daemon, "import", "--jsonl", "-", "--key", "id", "--prefix", "ctrl-c/", stdin=subprocess.PIPE)
    with importing:
        assert importing.stdin is not None
        importing.stdin.write(b"".join(b'{"id": "%d"}\n' % n for n in range(5_000)))
        importing.stdin.flush()
        with client.connect(daemon.url) as db:
            # More than one batch: the first has been answered and counted then.
            wait_until(lambda: sum(1 for _ in db.keys("ctrl-c/")) > 1000, LIMIT_S, "the second batch")
        importing.send_signal(signal.SIGINT)
        out, err = importing.communicate(timeout=LIMIT_S)
    assert importing.returncode == exit_codes.INTERRUPTED
    assert re.fullmatch(rb"imported \d,\d{3} records, .* interrupted\n", out)
    assert err == b""


def on_a_terminal(daemon: Daemon, *arguments: str, no_color: bool = False) -> str:
    """What `kio ARGUMENTS` writes to a terminal as stdout and stderr; it must exit with 0."""
    ours, theirs = pty.openpty()
    variables = {"KIO_URL": daemon.url, "TERM": "xterm", "COLUMNS": "120"} | ({"NO_COLOR": "1"} if no_color else {})
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "kio", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        with suppress(OSError):  # EIO: the last process has closed its side
            while select.select([ours], [], [], LIMIT_S)[0] and (part := os.read(ours, 65536)):
                shown += part
        os.close(ours)
        assert running.wait(LIMIT_S) == 0
    return shown.decode()


def test_on_a_terminal_there_is_colour_and_a_progress_bar_and_no_color_is_respected(
    daemon: Daemon, people: Path
) -> None:
    arguments = ["import", "--jsonl", str(people), "--key", "id", "--prefix", "folk:"]
    shown = on_a_terminal(daemon, *arguments)
    assert "import" in shown
    assert "MB/s" in shown or "MiB" in shown
    assert "\x1b[3" in shown
    assert "imported 20,000 records" in shown
    for plain in (arguments, ["status"]):
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_a_terminal(daemon, *plain, no_color=True))


def test_nothing_on_stderr_where_that_is_no_terminal(daemon: Daemon, people: Path) -> None:
    assert daemon.cli("import", "--jsonl", people, "--key", "id", "--prefix", "folk:").stderr == b""


def test_a_daemon_that_is_not_there_and_a_port_that_is_not_kio(daemon: Daemon) -> None:
    absent = run_cli("count", url="kio://127.0.0.1:1", check=False)
    assert absent.returncode == 69
    assert absent.stderr.startswith(b"kio: cannot reach kio://127.0.0.1:1")
    other = run_cli("count", "--timeout", "2", url="kio://" + daemon.http.removeprefix("http://"), check=False)
    assert other.returncode in (69, 76, 124)
    assert re.fullmatch(rb"kio: [^\n]+\n", other.stderr)


@pytest.mark.parametrize("verb", [verb for verb in app.VERBS if verb not in ("serve", "check")])
def test_the_examples_of_the_help_work_as_they_stand(daemon: Daemon, people: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "people.jsonl").write_bytes(people.read_bytes()[:1000].rpartition(b"\n")[0])
    (tmp_path / "people.csv").write_bytes(b"id,name\n1,Ada\n")
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "index.html").write_bytes(b"<html>")
    (tmp_path / "var" / "lib").mkdir(parents=True)
    (tmp_path / "backup").mkdir()
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    shim = tmp_path / "bin" / "kio"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kio "$@"\n')
    shim.chmod(0o755)
    with client.connect(daemon.url) as db:
        db.set_many(dict.fromkeys(["user:42", "user:43", "site/x", "people:1"], b'{"id": "1"}'))
        db.set("session:42", b"", ttl=1_000)
    path = os.pathsep.join([str(shim.parent), os.environ["PATH"]])
    lines = app.imported(app.VERBS[verb]).EXAMPLE.splitlines()
    if verb in ("restore", "reshard"):
        before = ["backup", "restore"][: ("restore", "reshard").index(verb) + 1]
        lines = [*(line for each in before for line in app.imported(app.VERBS[each]).EXAMPLE.splitlines()), *lines]
    # Any server that speaks RESP is one to import from.
    resp = f"redis://127.0.0.1:{daemon.cli_status()['ports']['resp']}/0"
    for line in (line.replace("redis://:PASSWORD@127.0.0.1:6379/0", resp) for line in lines):
        # What an operator has at the root of the machine is in the test's own directory.
        here = re.sub(r" /(?=backup/|var/)", f" {tmp_path}/", line.replace("kio://127.0.0.1:7400", daemon.url))
        ran = subprocess.run(
            ["sh", "-c", here],
            cwd=tmp_path,
            env=environment(KIO_URL=daemon.url, PATH=path),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ran.returncode == 0, f"{line}: {ran.stderr.decode()}"


def test_an_import_outlasts_a_restart_of_the_daemon() -> None:
    lines = [b'{"id": "%d"}\n' % n for n in range(6_000)]
    with Daemon(workers=1) as daemon:
        arguments = ["import", "--jsonl", "-", "--key", "id", "--timeout", "0.5", "--json"]
        with start(daemon, *arguments, stdin=subprocess.PIPE) as importing:
            assert importing.stdin is not None
            importing.stdin.write(b"".join(lines[:3_000]))
            importing.stdin.flush()
            with client.connect(daemon.url) as db:
                wait_until(lambda: db.count() > 0, LIMIT_S, "the first records")
            daemon.stop()
            importing.stdin.write(b"".join(lines[3_000:]))
            importing.stdin.close()
            daemon.restart()
            assert importing.stdout is not None
            told = json.loads(importing.stdout.read())
            assert importing.wait(LIMIT_S) == 0
        assert (told["records"], told["failed"]) == (6_000, 0)
        assert daemon.cli("count").stdout == b"6000\n"


def test_an_export_outlasts_the_death_of_a_worker(daemon: Daemon, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(daemon, "export", "--tree", str(out), "--prefix", "folk:", "--json") as exporting:
        wait_until(lambda: out.exists() and any(out.iterdir()), LIMIT_S, "the first files")
        os.kill(daemon.worker_pid(0), signal.SIGKILL)
        assert exporting.stdout is not None
        told = json.loads(exporting.stdout.read())
        assert exporting.wait(LIMIT_S) == 0
    assert (told["records"], told["failed"]) == (20_000, 0)
    assert len(list(out.iterdir())) == 20_000
