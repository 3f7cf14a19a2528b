"""KEYSPACES of format version 1: the committed file is read as it was meant, and written with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kio.errors import DirectoryInvalid, FormatTooNew
from kio.segments.keyspaces import NAME, KeyspaceMap, encode, load, write
from kio.segments.sealed_json import checksum_of

GOLDEN = Path(__file__).parent / "keyspaces_v1.json"
#: 0 and 1 were swapped, then 1 and 15, then 3 and itself.
MAP = KeyspaceMap(bytes([1, 15, *range(2, 15), 0, *range(16, 256)]), 3)


def written(data: Path, **fields: Any) -> None:
    """The golden file with some fields changed, and a checksum that fits."""
    changed = {name: value for name, value in json.loads(GOLDEN.read_bytes()).items() if name != "checksum"} | fields
    (data / NAME).write_text(json.dumps(changed | {"checksum": checksum_of(changed)}))


def test_the_golden_file_is_read_as_it_was_meant_and_written_with_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(GOLDEN.read_bytes())
    assert load(tmp_path) == MAP
    assert encode(MAP) == GOLDEN.read_bytes()
    assert KeyspaceMap().swapped(0, 1).swapped(1, 15).swapped(3, 3) == MAP


def test_a_directory_without_the_file_has_every_keyspace_in_its_place(tmp_path: Path) -> None:
    assert load(tmp_path) == KeyspaceMap(bytes(range(256)), 0)
    write(tmp_path, KeyspaceMap().swapped(4, 5).swapped(4, 5))
    assert load(tmp_path) == KeyspaceMap(bytes(range(256)), 2)


@pytest.mark.parametrize("at", range(0, len(GOLDEN.read_bytes()) - 1, 3))
def test_a_file_that_is_cut_or_changed_is_damaged_or_says_the_same(tmp_path: Path, at: int) -> None:
    whole = GOLDEN.read_bytes()
    for text in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :]):
        (tmp_path / NAME).write_bytes(text)
        try:
            assert load(tmp_path) == MAP
        except DirectoryInvalid as error:
            assert str(error).startswith(f"{tmp_path / NAME} is damaged: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"moved": {"0": 1}},
        {"moved": {"0": 1, "1": 1}},
        {"moved": {"0": 256, "256": 0}},
        {"moved": {"0": "1", "1": 0}},
        {"moved": {"0": True, "1": 0}},
        {"moved": {"00": 1, "1": 0}},
        {"moved": {"-1": 0}},
        {"moved": {"x": 0}},
        {"moved": [0, 1]},
        {"swaps": -1},
        {"swaps": None},
        {"format_version": "1"},
    ],
)
def test_a_map_that_cannot_be_is_damage_although_its_checksum_fits(tmp_path: Path, fields: dict[str, Any]) -> None:
    written(tmp_path, **fields)
    with pytest.raises(DirectoryInvalid, match="KEYSPACES is damaged"):
        load(tmp_path)


def test_a_newer_version_is_refused_and_named(tmp_path: Path) -> None:
    written(tmp_path, format_version=2, moved="of another form")
    with pytest.raises(FormatTooNew, match="KEYSPACES has format version 2, this kio reads up to 1"):
        load(tmp_path)


def test_a_file_that_cannot_be_read_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(DirectoryInvalid, match="KEYSPACES cannot be read: Is a directory"):
        load(tmp_path)
