"""IDENTITY of format version 2: the committed file is read as it was meant, and written with the same bytes.

Version 1 stands in the golden directories v1 and v2, which were never resharded.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kio.errors import DirectoryInvalid
from kio.segments.identity import (
    DirectoryIdentity,
    _encode,
    create_or_load,
    leftovers,
    load,
    remove_leftovers,
    shard_path,
    shards_root,
    write,
)
from kio.segments.sealed_json import checksum_of

GOLDEN = Path(__file__).parent / "identity_v2.json"
IDENTITY = DirectoryIdentity(bytes(range(70, 86)), 0x0123_4567_89AB_CDEF, 3, generation=2)


def resharded(data: Path) -> Path:
    """A directory with the golden identity, and empty shards where it says."""
    for shard in range(3):
        shard_path(data / "shards-0002", shard).mkdir(parents=True)
    (data / "IDENTITY").write_bytes(GOLDEN.read_bytes())
    return data


def test_the_golden_file_is_read_as_it_was_meant_and_written_with_the_same_bytes(tmp_path: Path) -> None:
    data = resharded(tmp_path / "data")
    assert load(data) == IDENTITY
    assert shards_root(data, IDENTITY) == data / "shards-0002"
    assert _encode(IDENTITY) == GOLDEN.read_bytes()


def test_a_directory_that_was_never_resharded_is_of_version_1(tmp_path: Path) -> None:
    identity, _ = create_or_load(tmp_path, 2)
    assert identity.format_version == 1
    assert b"generation" not in (tmp_path / "IDENTITY").read_bytes()
    assert shards_root(tmp_path, identity) == tmp_path


def test_a_shard_that_stands_elsewhere_does_not_count(tmp_path: Path) -> None:
    data = resharded(tmp_path / "data")
    shard_path(data / "shards-0002", 1).rename(data / "shard-0001")
    with pytest.raises(DirectoryInvalid, match="has no shard 1; is the right disk mounted"):
        load(data)


@pytest.mark.parametrize("field", [{"format_version": 1}, {"generation": 0}])
def test_a_version_that_does_not_fit_the_fields_is_damage(tmp_path: Path, field: dict[str, int]) -> None:
    fields = {"directory_id": IDENTITY.directory_id.hex(), "seed": 1, "shards": 1, "algorithm": IDENTITY.algorithm}
    fields |= {"format_version": 2, "generation": 2} | field
    text = str(fields | {"checksum": checksum_of(fields)}).replace("'", '"')
    (tmp_path / "IDENTITY").write_text(text)
    with pytest.raises(DirectoryInvalid, match="is damaged: version"):
        load(tmp_path)


def test_what_the_identity_does_not_name_is_left_over(tmp_path: Path) -> None:
    data = resharded(tmp_path / "data")
    strangers = ["run", "backup-staging", "shards-of-mine", "shard-0000.before"]
    for name in [*strangers, "shards-0001/shard-0000", "shards-0003", "shard-0000", "shard-0001"]:
        (data / name).mkdir(parents=True)
    left = [data / name for name in ("shard-0000", "shard-0001", "shards-0001", "shards-0003")]
    assert leftovers(data, IDENTITY) == left
    assert remove_leftovers(data, load(data)) == left
    assert sorted(path.name for path in data.iterdir()) == sorted([*strangers, "IDENTITY", "shards-0002"])
    assert load(data) == IDENTITY


def test_the_shards_of_a_directory_that_was_never_resharded_are_not_left_over(tmp_path: Path) -> None:
    identity, _ = create_or_load(tmp_path, 2)
    (tmp_path / "shards-0001" / "shard-0000").mkdir(parents=True)
    (tmp_path / "shard-0007").mkdir()
    assert leftovers(tmp_path, identity) == [tmp_path / "shards-0001"]


def test_segments_of_a_resharded_directory_without_identity_are_not_started_over(tmp_path: Path) -> None:
    path = shard_path(shards_root(tmp_path, IDENTITY), 0)
    path.mkdir(parents=True)
    (path / "0000000001.seg").write_bytes(b"")
    with pytest.raises(DirectoryInvalid, match="no IDENTITY file, but shard-0000 holds segments"):
        create_or_load(tmp_path, 2)
    write(tmp_path, IDENTITY)
    with pytest.raises(DirectoryInvalid, match="has no shard 1"):
        create_or_load(tmp_path, 2)
