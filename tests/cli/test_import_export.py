"""`kio import` and `kio export` from the outside: what they store, write, tell and exit with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kio.errors import DiskFull, ShardDown

from .conftest import FakeClient, Run


def tree(root: Path) -> dict[bytes, bytes]:
    found = {}
    for directory, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = Path(os.fsdecode(directory + b"/" + name))
            found[os.fsencode(path.relative_to(root))] = path.read_bytes()
    return found


FILES = {
    b"empty": b"",
    b"d/caf\xe9": b"\xff",
    b"d/e/big": bytes(range(256)) * 20_000,
    b"d/line\nbreak": b"x",
    b" -": b"y",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for name, value in FILES.items():
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    return root


def test_a_tree_goes_in_and_comes_back(kio: Run, db: FakeClient, source: Path, tmp_path: Path) -> None:
    ran = kio("import", "--tree", str(source))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(b"imported 5 records, 4.9 MiB in ")
    assert db.data == FILES
    ran = kio("export", "--tree", str(tmp_path / "out"))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(b"exported 5 records, 4.9 MiB in ")
    assert tree(tmp_path / "out") == FILES


def test_a_prefix_goes_on_and_comes_off(kio: Run, db: FakeClient, source: Path, tmp_path: Path) -> None:
    db.data = {b"other": b"1", b"p": b"2"}
    assert kio("import", "--tree", str(source), "--prefix", "p:\udcff/").code == 0
    assert {b"p:\xff/" + name for name in FILES} == db.data.keys() - {b"other", b"p"}
    assert kio("export", "--tree", str(tmp_path / "out"), "--prefix", "p:\udcff/").code == 0
    assert tree(tmp_path / "out") == FILES


def test_the_tally_as_json_has_the_same_fields_for_both(kio: Run, db: FakeClient, source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to("empty")
    into = json.loads(kio("import", "--tree", str(source), "--json").out)
    out = json.loads(kio("export", "--tree", str(tmp_path / "out"), "--json").out)
    assert into.keys() == out.keys()
    assert (into["records"], into["bytes"], into["skipped"]) == (5, 5_120_003, 1)
    assert (out["records"], out["bytes"], out["failed"], out["retried"], out["interrupted"]) == (
        5,
        5_120_003,
        0,
        0,
        False,
    )


def test_a_file_over_the_limit_is_told_and_the_rest_is_stored(kio: Run, db: FakeClient, source: Path) -> None:
    db.told = {"settings": {"max_value_bytes": 1000}}
    ran = kio("import", "--tree", str(source))
    assert ran.code == 1
    assert ran.err == f"kio: {source}/d/e/big: the file is longer than max_value_bytes, which is 1000\n"
    assert db.data == {name: value for name, value in FILES.items() if name != b"d/e/big"}
    assert b"1 failed" in ran.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_told_and_the_rest_is_stored(kio: Run, db: FakeClient, source: Path) -> None:
    (source / "empty").chmod(0)
    ran = kio("import", "--tree", str(source))
    assert (ran.code, ran.err) == (1, f"kio: {source}/empty: Permission denied\n")
    assert len(db.data) == 4


def test_keys_that_would_escape_are_told_and_the_rest_is_written(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    db.data = {b"../evil": b"1", b"/etc/evil": b"1", b"a//b": b"1", b"good": b"2"}
    ran = kio("export", "--tree", str(tmp_path / "out"))
    assert ran.code == 1
    assert ran.err.splitlines() == [
        'kio: ../evil: the key holds the component ".."',
        "kio: /etc/evil: the key is an absolute path",
        "kio: a//b: the key is empty or holds an empty component",
    ]
    assert tree(tmp_path) == {b"out/good": b"2"}
    assert b"exported 1 records" in ran.out


LINES = b'{"id": "a", "n": 1}\n{"id": "b"}\n'


def test_json_lines_go_in_and_come_back(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(LINES)
    ran = kio("import", "--jsonl", str(tmp_path / "in"), "--key", "id", "--prefix", "p:")
    assert (ran.code, ran.err) == (0, "")
    assert db.data == {b"p:a": b'{"id": "a", "n": 1}', b"p:b": b'{"id": "b"}'}
    db.data[b"p:\xff"] = b"\xff"
    assert kio("export", "--jsonl", str(tmp_path / "out"), "--key", "id", "--prefix", "p:").code == 0
    assert (tmp_path / "out").read_bytes() == LINES + b'{"key_base64": "/w==", "value_base64": "/w=="}\n'
    wanted, db.data = db.data, {}
    assert kio("import", "--jsonl", str(tmp_path / "out"), "--key", "id", "--prefix", "p:").code == 0
    assert db.data == wanted


def test_a_line_without_the_key_is_told_with_its_number(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(LINES + b'{"name": "c"}\n')
    ran = kio("import", "--jsonl", str(file), "--key", "id")
    assert (ran.code, ran.err) == (1, f'kio: {file}:3: there is no field "id"\n')
    assert b"imported 2 records" in ran.out


def test_csv_goes_in_and_comes_back(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    text = b'id,note\na,"x, ""y"""\nb,\n'
    (tmp_path / "in.csv").write_bytes(text)
    assert kio("import", "--csv", str(tmp_path / "in.csv"), "--key", "id").code == 0
    assert db.data == {b"a": b'{"id":"a","note":"x, \\"y\\""}', b"b": b'{"id":"b","note":""}'}
    assert kio("export", "--csv", str(tmp_path / "out.csv"), "--key", "id").code == 0
    assert (tmp_path / "out.csv").read_bytes() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_column_that_is_not_there_is_wrong_usage(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"a,b\n1,2\n")
    ran = kio("import", "--csv", str(tmp_path / "in.csv"), "--key", "id")
    assert ran.code == 2
    assert ran.err.endswith('in.csv has no column "id"; it has a, b; see "kio import --help"\n')


@pytest.mark.parametrize(("way", "wanted"), [("--jsonl", b'{"x":"1"}\n'), ("--csv", b"x\n1\n")])
def test_with_a_dash_the_lines_are_the_answer_and_the_tally_goes_to_stderr(
    kio: Run, db: FakeClient, way: str, wanted: bytes
) -> None:
    db.data = {b"k": b'{"x":"1"}'}
    ran = kio("export", way, "-")
    assert (ran.code, ran.out) == (0, wanted)
    assert ran.err.startswith("kio: exported 1 records")


def test_a_missing_input_file_is_told(kio: Run, db: FakeClient, tmp_path: Path) -> None:
    ran = kio("import", "--jsonl", str(tmp_path / "absent"), "--key", "id")
    assert ran.code == 74
    assert ran.err == f"kio: {tmp_path}/absent: No such file or directory\n"


def test_an_error_that_ends_the_import_leaves_the_tally(kio: Run, db: FakeClient, source: Path) -> None:
    db.outcomes = [DiskFull()]
    ran = kio("import", "--tree", str(source))
    assert ran.code == 74
    assert ran.out.startswith(b"imported 0 records")
    assert ran.err == "kio: the disk is full; free some space\n"


def test_a_daemon_that_stays_away_is_given_up_after_the_time_asked_for(kio: Run, db: FakeClient, source: Path) -> None:
    db.outcomes = [ShardDown("shard 1 is away")] * 3
    ran = kio("import", "--tree", str(source), "--give-up", "0")
    assert (ran.code, ran.err) == (75, "kio: gave up after 0 s: shard 1 is away\n")


def test_ctrl_c_ends_an_import_with_its_tally(kio: Run, db: FakeClient, source: Path) -> None:
    db.outcomes = [KeyboardInterrupt()]
    ran = kio("import", "--tree", str(source))
    assert ran.code == 130
    assert ran.out.rstrip().endswith(b"interrupted")
    assert ran.err == ""


@pytest.mark.parametrize("way", ["--tree", "--jsonl", "--csv"])
def test_ctrl_c_ends_an_export_with_its_tally_and_leaves_no_half_file(
    kio: Run, db: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def records(prefix: bytes = b"") -> Iterator[tuple[bytes, bytes, None]]:
        yield b"a", b'{"x":1}', None
        raise KeyboardInterrupt

    monkeypatch.setattr(db, "records", records)
    ran = kio("export", way, str(tmp_path / "out"))
    assert ran.code == 130
    assert ran.out.startswith(b"exported 1 records")
    assert tree(tmp_path) == ({b"out/a": b'{"x":1}'} if way == "--tree" else {})
