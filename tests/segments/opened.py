"""What an open shard holds, to be compared, and shards opened from copies with their checkpoint and without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from kio.segments._checkpoint import Copier
from kio.segments.checkpoint import PAGE, is_checkpoint_name
from kio.segments.disk import DISK, Disk
from kio.segments.options import StoreOptions
from tests.segments.support import Driven, unopened


class Held(NamedTuple):
    """A KeyDir and its figures, with segments by their id."""

    #: (page, tag, segment, offset), sorted
    words: list[tuple[int, int, int, int]]
    keys: dict[int, int]
    #: segment -> live bytes, where there are any
    live: dict[int, int]


def held_by(driven: Driven) -> Held:
    """What the store of `driven` holds."""
    engine = driven.store._engine
    copier = Copier(engine)
    try:
        while not copier.copy(1 << 40):
            pass
        pages = bytes(copier.seal(0))
        _, _, _, segments, keys = copier.contents()
    finally:
        copier.close()
    words = []
    at = 0
    while at < len(pages):
        _, page, count, _, _ = PAGE.unpack_from(pages, at)
        at += PAGE.size
        for i in range(at, at + 8 * count, 8):
            word = int.from_bytes(pages[i : i + 8], "little")
            words.append((page, word >> 44, segments[word >> 28 & 0xFFFF][0], word & 0xFFFFFF8))
        at += 8 * count
    real = {id: engine.usage(slot)[2] for slot, (id, _) in segments.items()}
    assert real == dict(segments.values())
    assert keys == {keyspace: engine.count_keys(keyspace) for keyspace in range(256) if engine.count_keys(keyspace)}
    return Held(sorted(words), keys, {id: live for id, live in real.items() if live})


def checkpoints_in(path: Path) -> list[Path]:
    """The checkpoint files of a shard directory."""
    return sorted(file for file in path.iterdir() if is_checkpoint_name(file.name))


def opened_copy(source: Path, target: Path, options: StoreOptions, disk: Disk = DISK) -> Driven:
    """A copy of a shard directory, opened as after a kill."""
    shutil.copytree(source, target)
    return unopened(target, options, disk).open()


def opened_without(source: Path, target: Path, options: StoreOptions) -> Driven:
    """The same, without its checkpoint."""
    shutil.copytree(source, target)
    for file in checkpoints_in(target):
        file.unlink()
    return unopened(target, options, DISK).open()
