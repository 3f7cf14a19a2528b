"""`kio repair`: it says what is lost, changes nothing without --yes, and what it did is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kio.cli import exit_codes
from kio.segments.disk import lock_file
from tests.segments.damaged import History, content, make_history
from tests.segments.test_recovery import records_of

from .conftest import Run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(tmp_path_factory.mktemp("repair") / "data")


@pytest.fixture
def damaged(whole: History, tmp_path: Path) -> History:
    """A shard with one damaged record in its first segment: its key can be read, its value cannot."""
    history = whole.copied(tmp_path / "data")
    spoil(history.sealed[0], records_of(history.sealed[0])[1][0] + 50)
    return history


def spoil(file: Path, at: int) -> None:
    file.write_bytes(bytes(byte ^ (where == at) for where, byte in enumerate(file.read_bytes())))


def advised(kio: Run, data: Path) -> list[str]:
    """The command that check names for its first fault, as a shell would pass it."""
    words: list[str] = json.loads(kio("check", str(data), "--json").out)["faults"][0]["run"].split()
    assert words[0] == "kio"
    return words[1:]


def test_without_yes_it_says_what_is_lost_and_changes_nothing(kio: Run, damaged: History) -> None:
    before = content(damaged.data)
    ran = kio(*advised(kio, damaged.data))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.decode().splitlines()
    (does,) = [line for line in lines if line.startswith("does: ")]
    assert does.startswith("does: copy the ") and does.endswith("set 0000000001.seg aside")
    assert f"loses: 1 records of segment 1 between LSN 1 and {records_of_all(damaged, 1)}, in 96 bytes" in lines
    (lost,) = [line for line in lines if line.startswith("lost: ")]
    assert lost.startswith("lost: segment=1 offset=") and "lsn=2 put keyspace=0 key=key 1: absent" in lost
    assert not any(line.startswith("may return: ") for line in lines)
    assert lines[-1].startswith("nothing was changed; a backup or a replica")
    assert content(damaged.data) == before


def records_of_all(history: History, segment: int) -> int:
    return max(record.lsn for number, _, record in history.records if number == segment)


def test_with_yes_it_is_done_and_check_finds_nothing_any_more(kio: Run, damaged: History) -> None:
    told = json.loads(kio(*advised(kio, damaged.data), "--json").out)
    ran = kio(*advised(kio, damaged.data), "--yes")
    assert ran.code == 0
    assert ran.out.decode().splitlines()[-1] == f'done; run "kio check {damaged.data} --shard 0"'
    assert kio("check", str(damaged.data)).code == 0
    assert (told["done"], told["records_lost"], told["lost"][0]["key"]) == (False, 1, "key 1")
    assert told["aside"] == ["0000000001.seg.aside"]
    assert (damaged.path / "0000000001.seg.aside").exists()


def test_json_has_the_same_fields_before_and_after(kio: Run, damaged: History) -> None:
    command = advised(kio, damaged.data)
    before = json.loads(kio(*command, "--json").out)
    after = json.loads(kio(*command, "--json", "--yes").out)
    assert after == before | {"done": True}


def test_where_there_is_nothing_to_repair_it_says_so(kio: Run, damaged: History) -> None:
    command = advised(kio, damaged.data)
    assert kio(*command, "--yes").code == 0
    again = kio(*command, "--yes")
    assert again.code == exit_codes.FAILED
    assert again.out.decode().splitlines() == [
        "note: the manifest names no segment 1; it may be repaired already", "nothing to repair",
    ]  # fmt: skip
    assert kio("repair", "checkpoint", str(damaged.data), "--shard", "0").code == exit_codes.FAILED


def test_a_damaged_checkpoint_is_given_up_without_a_loss(kio: Run, whole: History, tmp_path: Path) -> None:
    history = whole.copied(tmp_path / "data")
    (file,) = history.path.glob("*.ckpt")
    spoil(file, 300)
    ran = kio(*advised(kio, history.data), "--yes")
    assert "loses: nothing: the records say all that a checkpoint does" in ran.out.decode().splitlines()
    assert kio("check", str(history.data)).code == 0


def test_a_manifest_is_written_anew_and_the_damaged_one_kept(kio: Run, whole: History, tmp_path: Path) -> None:
    history = whole.copied(tmp_path / "data")
    manifest = history.path / "MANIFEST"
    spoil(manifest, 20)
    before = manifest.read_bytes()
    command = advised(kio, history.data)
    assert command == ["repair", "manifest", str(history.data), "--shard", "0"]
    refused = kio("repair", "record", str(history.data), "--shard", "0", "--segment", "1")
    assert refused.code == exit_codes.CORRUPT
    assert 'see "kio repair manifest"' in refused.err
    lines = kio(*command).out.decode().splitlines()
    assert "does: keep the damaged one as MANIFEST.damaged-1" in lines
    assert "loses: nothing" in lines
    assert manifest.read_bytes() == before
    assert kio(*command, "--yes").code == 0
    assert (history.path / "MANIFEST.damaged-1").read_bytes() == before
    assert kio("check", str(history.data)).code == 0


def test_a_directory_in_use_and_one_that_is_none_have_their_exit_codes(kio: Run, damaged: History) -> None:
    lock = lock_file(damaged.data / "LOCK")
    ran = kio(*advised_for(damaged))
    lock.release()
    assert ran.code == 73
    assert "in use by process" in ran.err
    assert kio("repair", "segment", str(damaged.path), "--shard", "0", "--segment", "1").code == 78
    assert kio("repair", "segment", str(damaged.data), "--shard", "1", "--segment", "1").code == 78


def advised_for(history: History) -> list[str]:
    return ["repair", "record", str(history.data), "--shard", "0", "--segment", "1"]
