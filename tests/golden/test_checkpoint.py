"""Checkpoints of format version 1: a start uses the committed one; the reference encoders still give its bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

from kio.segments.check import check_directory
from kio.segments.checkpoint import checkpoint_name
from kio.segments.identity import shard_path
from kio.segments.manifest import Manifest, checkpoint_edit
from kio.segments.options import StoreOptions
from tests.golden.make_checkpoint import SHARD, make
from tests.golden.make_v2 import CONTENT, IDENTITY
from tests.segments.support import Driven

GOLDEN = Path(__file__).parent / "checkpoint_v1.ckpt"


def directory(tmp_path: Path) -> Path:
    """The golden directory of format version 2, with the golden checkpoint named in its first shard."""
    data = tmp_path / "data"
    shutil.copytree(Path(__file__).parent / "v2", data)
    named, _ = make()
    path = shard_path(data, SHARD)
    shutil.copy(GOLDEN, path / checkpoint_name(named.id))
    manifest = Manifest.load(path, SHARD, IDENTITY.directory_id)
    manifest.start()
    manifest.append(checkpoint_edit(named))
    manifest.close()
    return data


def test_the_reference_encoders_still_give_the_golden_bytes() -> None:
    assert make()[1] == GOLDEN.read_bytes()


def test_a_start_from_the_golden_checkpoint_finds_what_was_meant(tmp_path: Path) -> None:
    path = shard_path(directory(tmp_path), SHARD)
    driven = Driven(path, StoreOptions(), identity=IDENTITY)
    assert driven.store.stats()["checkpoint_fallbacks"] == 0
    driven.maintain()
    for (shard, keyspace), content in CONTENT.items():
        if shard == SHARD:
            assert driven.items(keyspace=keyspace) == content
            assert driven.count(keyspace) == len(content)
    driven.kill()


def test_check_finds_the_golden_checkpoint_whole(tmp_path: Path) -> None:
    assert check_directory(directory(tmp_path), SHARD).faults == []
