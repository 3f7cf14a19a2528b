"""The verbs about expiry, conditions and counters; expiries that import and export keep; on the reference server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kio as kio_package
from kio.cli import loading
from kio.client import Client
from kio.errors import DiskFull, NotAnInteger, ShardDown, ValueTooLarge
from tests.client.reference import Fail, ReferenceServer, reference_server

from .conftest import Ran, Run


@pytest.fixture
def server() -> Iterator[ReferenceServer]:
    with reference_server() as server:
        yield server


@pytest.fixture
def db(server: ReferenceServer) -> Iterator[Client]:
    with kio_package.connect(server.url) as db:
        yield db


@pytest.fixture
def verb(kio: Run, server: ReferenceServer) -> Callable[..., Ran]:
    """`kio VERB ...` against the reference server."""
    return lambda verb, *arguments: kio(verb, "--url", server.url, *arguments)


def test_set_with_a_ttl_and_ttl_tell_seconds(verb: Any, db: Client) -> None:
    assert verb("set", "k", "v", "--ttl", "90").code == 0
    ran = verb("ttl", "k")
    assert ran.code == 0
    assert 80 < float(ran.out) <= 90
    assert verb("set", "k", "w", "--keep-ttl").code == 0
    assert 80 < json.loads(verb("ttl", "k", "--json").out)["ttl_s"] <= 90
    assert verb("set", "k", "x").code == 0
    assert verb("ttl", "k").out == b"never\n"


def test_ttl_of_a_missing_key_and_of_one_that_stays_as_json(verb: Any, db: Client) -> None:
    ran = verb("ttl", "absent")
    assert (ran.code, ran.out, ran.err) == (1, b"", "kio: there is no key absent\n")
    ran = verb("ttl", "absent", "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "key": "absent", "key_base64": "YWJzZW50", "found": False, "expires": False, "ttl_s": None
    }  # fmt: skip
    db.set("k", b"v")
    told = json.loads(verb("ttl", "k", "--json").out)
    assert (told["found"], told["expires"], told["ttl_s"]) == (True, False, None)


def test_set_on_a_condition_tells_when_it_does_not_hold(verb: Any, db: Client) -> None:
    ran = verb("set", "k", "v", "--if-present")
    assert (ran.code, ran.err) == (1, "kio: there is no key k, so it was not set\n")
    assert verb("set", "k", "v", "--if-absent").code == 0
    ran = verb("set", "k", "w", "--if-absent")
    assert (ran.code, ran.err) == (1, "kio: there is a key k, so it was not set\n")
    ran = verb("set", "k", "w", "--if-absent", "--json")
    assert (ran.code, json.loads(ran.out)["stored"]) == (1, False)
    assert db.get("k") == b"v"
    assert verb("set", "k", "w", "--if-present", "--if-absent").code == 2
    assert verb("set", "k", "w", "--ttl", "-1").code == 2


def test_touch_and_persist_tell_whether_there_was_something_to_do(verb: Any, db: Client) -> None:
    assert verb("touch", "k", "--ttl", "9").err == "kio: there is no key k\n"
    assert verb("persist", "k").code == 1
    db.set("k", b"v")
    assert verb("persist", "k").err == "kio: there is no key k that would expire\n"
    assert verb("touch", "k", "--ttl", "9").code == 0
    left_s = db.ttl("k")
    assert left_s is not None
    assert 0 < left_s <= 9
    assert json.loads(verb("touch", "k", "--ttl", "9", "--json").out)["found"] is True
    assert json.loads(verb("persist", "k", "--json").out) == {"key": "k", "key_base64": "aw==", "persisted": True}
    assert verb("persist", "k", "--json").code == 1
    assert verb("touch", "k").code == 2


def test_incr_prints_the_sum(verb: Any, db: Client) -> None:
    assert verb("incr", "n").out == b"1\n"
    assert verb("incr", "n", "--by", "-43").out == b"-42\n"
    assert json.loads(verb("incr", "n", "--json").out) == {"key": "n", "key_base64": "bg==", "number": -41}
    db.set("n", b"text")
    ran = verb("incr", "n")
    assert (ran.code, ran.err) == (NotAnInteger.exit_code, f"kio: {NotAnInteger.text}\n")
    assert verb("incr", "n", "--by", str(2**63)).code == 2


def test_append_takes_its_value_as_set_does(
    verb: Any, db: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "value").write_bytes(b"file\0")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"stdin")))
    assert verb("append", "k", "argument-").out == b""
    assert verb("append", "k", "--file", str(tmp_path / "value")).code == 0
    assert json.loads(verb("append", "k", "-", "--json").out) == {"key": "k", "key_base64": "aw==", "value_bytes": 19}
    assert db.get("k") == b"argument-file\0stdin"
    assert verb("append", "k").code == 2


RECORDS = {
    b"p:json": b'{"id": "json"}',
    b"p:bytes": b"\xff\n",
    b"p:stays": b'{"id": "stays"}',
    b"p:late": b'{"id": "x"}',
}
EXPIRES = {b"p:json": 4_000_000_000.125, b"p:bytes": 4_000_000_001.0, b"p:late": 4_000_000_002.75}


@pytest.mark.parametrize("way", ["--jsonl", "--csv"])
def test_what_expires_goes_out_and_comes_back_with_its_time(verb: Any, db: Client, tmp_path: Path, way: str) -> None:
    for key, value in RECORDS.items():
        db.set(key, value, expire_at=EXPIRES.get(key))
    before = sorted(db.records())
    file = str(tmp_path / "records")
    assert verb("export", way, file, "--prefix", "p:", "--key", "id").code == 0
    db.clear()
    ran = verb("import", way, file, "--prefix", "p:", "--key", "id")
    assert ran.code == 0
    assert ran.out.startswith(b"imported 4 records")
    after = sorted(db.records())
    assert [(key, expire_at) for key, _, expire_at in after] == [(key, expire_at) for key, _, expire_at in before]
    assert {key: value for key, value, _ in after if key in EXPIRES} == {key: RECORDS[key] for key in EXPIRES}
    assert json.loads(dict(db.items())[b"p:stays"]) == {"id": "stays"}


def test_a_tree_tells_that_it_does_not_keep_expiries(verb: Any, db: Client, tmp_path: Path) -> None:
    db.set("stays", b"1")
    assert verb("export", "--tree", str(tmp_path / "one")).err == ""
    db.set("goes", b"2", ttl=1_000)
    ran = verb("export", "--tree", str(tmp_path / "two"))
    assert ran.code == 0
    assert "1 records expire, which a tree does not keep; --jsonl and --csv do" in ran.err
    assert (tmp_path / "two" / "goes").read_bytes() == b"2"


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "a", "value_base64": "", "expire_at": "soon"}',
        '{"key": "a", "value_base64": "", "expire_at": true}',
        '{"key": "a", "value_base64": "", "expire_at": 0}',
        '{"key": "a", "value_base64": "", "expire_at": 1e300}',
        '{"key": "a", "value_base64": "", "expire_at": NaN}',
    ],
)
def test_an_expiry_that_is_no_moment_is_told_with_its_line(verb: Any, db: Client, tmp_path: Path, line: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": "fine"}\n' + line + "\n")
    ran = verb("import", "--jsonl", str(file), "--key", "id")
    assert ran.code == 1
    assert 'in.jsonl:2: the field "expire_at" is not a number of seconds since 1970' in ran.err
    assert db.count() == 1


def test_a_row_whose_expiry_is_no_number_is_told_with_its_line(verb: Any, db: Client, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("id,key_base64,value_base64,key_expire_at\n,YQ==,,soon\nb,,,\n,Yw==,,4000000000\n")
    ran = verb("import", "--csv", str(file), "--key", "id")
    assert ran.code == 1
    assert 'in.csv:2: the field "expire_at" is not a number' in ran.err
    assert sorted(db.records()) == [(b"b", b'{"id":"b"}', None), (b"c", b"", 4_000_000_000.0)]


def test_records_that_expire_are_sent_again_or_refused_as_all_others(
    verb: Any, db: Client, server: ReferenceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PAUSE_S_FIRST", 0.01)
    file = tmp_path / "in.jsonl"
    line = '{"key": "%s", "value_base64": "", "expire_at": 4000000000}\n'
    file.write_text("".join(line % key for key in "abc") + '{"id": "d"}\n')
    fails = {b"a": [ShardDown.code] * 3, b"b": [ValueTooLarge.code]}

    def fail(op: int, arguments: list[Any]) -> Any:
        codes = fails.get(arguments[1], []) if isinstance(arguments[1:2], list) and arguments[1:] else []
        return Fail(codes.pop(0)) if codes else None

    server.script = lambda op, arguments: fail(op, arguments) if op == 2 else None
    ran = verb("import", "--jsonl", str(file), "--key", "id")
    assert ran.code == 1
    assert b"imported 3 records" in ran.out
    assert "in.jsonl:2: key b:" in ran.err
    assert sorted(db.keys()) == [b"a", b"c", b"d"]
    fails[b"a"] = [DiskFull.code]
    assert verb("import", "--jsonl", str(file), "--key", "id").code == DiskFull.exit_code
