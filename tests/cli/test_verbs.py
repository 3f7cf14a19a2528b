"""The small verbs from the outside: bytes on stdout, messages on stderr, --json."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kio.cli import output

from .conftest import FakeClient, Run


def test_get_prints_the_bytes_and_nothing_else(kio: Run, db: FakeClient) -> None:
    db.data = {b"k": b"\xff\r\n\0no newline"}
    ran = kio("get", "k")
    assert (ran.code, ran.out, ran.err) == (0, b"\xff\r\n\0no newline", "")


def test_get_of_an_empty_value_finds_it(kio: Run, db: FakeClient) -> None:
    db.data = {b"k": b""}
    ran = kio("get", "k")
    assert (ran.code, ran.out) == (0, b"")


def test_get_of_a_missing_key_exits_with_1_and_says_so_on_stderr(kio: Run, db: FakeClient) -> None:
    ran = kio("get", "k\n")
    assert (ran.code, ran.out, ran.err) == (1, b"", "kio: there is no key k\\x0a\n")


@pytest.mark.parametrize(("value", "printed"), [(b"x", b"x\n"), (b"x\n", b"x\n"), (b"", b"\n")])
def test_get_on_a_terminal_ends_the_line(
    kio: Run, db: FakeClient, monkeypatch: pytest.MonkeyPatch, value: bytes, printed: bytes
) -> None:
    db.data = {b"k": value}
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    assert kio("get", "k").out == printed


def test_get_as_json_tells_text_and_base64(kio: Run, db: FakeClient) -> None:
    db.data = {b"text": b"x", b"bytes": b"\xff"}
    assert json.loads(kio("get", "text", "--json").out) == {
        "key": "text",
        "key_base64": "dGV4dA==",
        "found": True,
        "value": "x",
        "value_base64": "eA==",
    }
    assert json.loads(kio("get", "bytes", "--json").out)["value"] is None
    absent = kio("get", "absent", "--json")
    assert absent.code == 1
    assert json.loads(absent.out) == {
        "key": "absent",
        "key_base64": "YWJzZW50",
        "found": False,
        "value": None,
        "value_base64": None,
    }


def test_keys_need_not_be_utf8(kio: Run, db: FakeClient) -> None:
    key = os.fsdecode(b"\xff\xfe")
    assert kio("set", key, os.fsdecode(b"\xfd")).code == 0
    assert db.data == {b"\xff\xfe": b"\xfd"}
    assert kio("get", key).out == b"\xfd"


def test_set_takes_its_value_from_the_argument_a_file_or_stdin(
    kio: Run, db: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "value").write_bytes(b"from a file\0")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from stdin\n")))
    assert kio("set", "a", "an argument").out == b""
    assert kio("set", "b", "--file", str(tmp_path / "value")).code == 0
    assert kio("set", "c", "-").code == 0
    assert kio("set", "d", "").code == 0
    assert db.data == {b"a": b"an argument", b"b": b"from a file\0", b"c": b"from stdin\n", b"d": b""}
    assert json.loads(kio("set", "a", "xyz", "--json").out) == {
        "key": "a",
        "key_base64": "YQ==",
        "value_bytes": 3,
        "stored": True,
    }


def test_a_key_or_value_that_looks_like_an_option_stands_behind_two_dashes(kio: Run, db: FakeClient) -> None:
    assert kio("set", "--", "-k", "--json").code == 0
    assert db.data == {b"-k": b"--json"}


def test_delete_tells_each_key_that_was_not_there(kio: Run, db: FakeClient) -> None:
    db.data = {b"a": b"", b"b": b"", b"c": b""}
    assert kio("delete", "a").code == 0
    ran = kio("delete", "b", "absent")
    assert (ran.code, ran.out, ran.err) == (1, b"", "kio: there is no key absent\n")
    ran = kio("delete", "c", "absent", "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "deleted": 1,
        "keys": [
            {"key": "c", "key_base64": "Yw==", "deleted": True},
            {"key": "absent", "key_base64": "YWJzZW50", "deleted": False},
        ],
    }
    assert db.data == {}


def test_count_prints_the_number(kio: Run, db: FakeClient) -> None:
    db.data = {b"a": b"", b"b": b""}
    assert kio("count").out == b"2\n"
    assert json.loads(kio("count", "--json").out) == {"keys": 2}


def test_scan_prints_keys_with_a_prefix_up_to_a_limit(kio: Run, db: FakeClient) -> None:
    db.data = {b"a1": b"", b"b": b"", b"a2": b"", b"a3": b""}
    assert kio("scan", "a", "--limit", "2").out == b"a1\na2\n"
    assert kio("scan").out == b"a1\nb\na2\na3\n"
    assert db.pages == [2, 1000]


def test_scan_prints_keys_that_match_a_pattern(kio: Run, db: FakeClient) -> None:
    db.data = {b"a1": b"", b"b1": b"", b"a2": b"", b"a\xff": b"x"}
    assert kio("scan", "--match", "?[1-9]").out == b"a1\nb1\na2\n"
    assert kio("scan", "a", "--match", "*1", "--limit", "1").out == b"a1\n"
    assert db.pages == [1000, 1000]
    assert kio("scan", "--match", os.fsdecode(b"*\xff"), "--values").out == b"a\\xff\tx\n"


def test_scan_escapes_what_cannot_be_printed_unless_raw(kio: Run, db: FakeClient) -> None:
    db.data = {b"\xff\n": b"v\t", "é\\".encode(): b""}
    assert kio("scan", "--values").out == "\\xff\\x0a\tv\\x09\né\\\\\t\n".encode()
    assert kio("scan", "--values", "--raw", "--null").out == b"\xff\n\tv\t\0" + "é\\\t\0".encode()


def test_scan_as_json_is_one_document(kio: Run, db: FakeClient) -> None:
    assert json.loads(kio("scan", "--json").out) == {"records": [], "keys": 0}
    db.data = {b"a": b"1", b"\xff": b""}
    assert json.loads(kio("scan", "--json").out) == {
        "records": [{"key": "a", "key_base64": "YQ=="}, {"key": None, "key_base64": "/w=="}],
        "keys": 2,
    }
    with_values = json.loads(kio("scan", "--json", "--values", "--limit", "1").out)
    assert with_values == {
        "records": [{"key": "a", "key_base64": "YQ==", "value": "1", "value_base64": "MQ=="}],
        "keys": 1,
    }


STATS = {
    "version": "0.1.0",
    "supervisor": {"pid": 10, "uptime_s": 5.5},
    "router": {"pid": 11, "restarts": 0, "state": "serving", "reason": "", "connections": 3, "rss_bytes": 3 << 20},
    "workers": [
        {"worker": 0, "pid": 12, "cpu": 1, "restarts": 2, "state": "starting", "reason": "killed", "shards": [0]}
    ],
    "shards": [
        {"shard": 0, "worker": 0, "state": "down", "reason": "its worker is away"},
        {
            "shard": 1,
            "worker": 0,
            "state": "serving",
            "keys": 1234567,
            "live_bytes": 5 << 19,
            "dead_bytes": 0,
            "amplification": 1.0,
            "lsn": 9,
        },
    ],
    "ports": {"port": 7400},
    "settings": {"data": "/somewhere", "sync": "always"},
}


def test_status_shows_processes_and_shards_with_units_in_the_header(kio: Run, db: FakeClient) -> None:
    db.told = STATS
    ran = kio("status")
    assert ran.code == 0
    lines = [" ".join(line.split()) for line in ran.out.decode().splitlines()]
    assert "process pid cpu restarts rss_mib cpu_s state" in lines
    assert "router 11 0 3.0 serving" in lines
    assert "worker 0 12 1 2 starting" in lines
    assert "1 0 1,234,567 2.5 0.0 1.00 9 serving" in lines
    assert "0 0 down" in lines
    assert lines[-2:] == ["worker 0 is starting: killed", "shard 0 is down: its worker is away"]
    assert b"\x1b" not in ran.out


def test_status_as_json_is_what_the_daemon_tells(kio: Run, db: FakeClient) -> None:
    db.told = STATS
    assert json.loads(kio("status", "--json").out) == STATS


def test_status_of_a_daemon_that_tells_little_is_still_a_table(kio: Run, db: FakeClient) -> None:
    assert kio("status").code == 0


def test_version_tells_program_protocol_and_python(kio: Run) -> None:
    assert kio("version").out.startswith(b"kio 0.")
    assert set(json.loads(kio("version", "--json").out)) == {"version", "protocol", "python"}


def test_config_show_tells_each_value_with_its_origin(
    kio: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kio.toml"
    file.write_text('sync = "always"\n')
    monkeypatch.setenv("KIO_WORKERS", "3")
    settings = json.loads(kio("config", "show", "--config", str(file), "--json").out)["settings"]
    assert settings["sync"] == {"value": "always", "origin": str(file)}
    assert settings["workers"] == {"value": 3, "origin": "KIO_WORKERS"}
    assert settings["port"] == {"value": 7400, "origin": "default"}
    monkeypatch.setenv("KIO_CONFIG", str(file))
    lines = [line.split() for line in kio("config", "show").out.decode().splitlines()]
    assert ["sync", "always", str(file)] in lines


def test_the_url_and_the_timeout_reach_the_client(kio: Run, db: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kio("count")
    kio("count", "--url", "kio://127.0.0.1:1", "--timeout", "2.5")
    monkeypatch.setenv("KIO_URL", "kio://127.0.0.1:2")
    kio("count")
    assert db.asked == [("kio://127.0.0.1:7400", 10.0), ("kio://127.0.0.1:1", 2.5), ("kio://127.0.0.1:2", 10.0)]


def test_json_is_indented_for_a_person_and_one_line_for_a_pipe(
    kio: Run, db: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kio("count", "--json").out == b'{"keys": 0}\n'
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    assert kio("count", "--json").out == b'{\n  "keys": 0\n}\n'


def test_bytes_in_statistics_are_printed_as_hexadecimal(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.as_json({"directory_id": b"\x01\xff"})
    assert capfdbinary.readouterr().out == b'{"directory_id": "01ff"}\n'
