"""What can still be read of a damaged manifest: its edits, one by one, and what they say without those between them.

Edits are found by their checksum wherever they stand; their sequence numbers tell how many are missing between them.
Beside them the checkpoints tell which segments there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from kio.errors import Corrupt
from kio.segments import _hints
from kio.segments.checkpoint import TRAILER, CheckpointFile, Contents, Named, is_checkpoint_name, trailer_crc
from kio.segments.disk import Disk
from kio.segments.identity import DirectoryIdentity
from kio.segments.manifest import HEADER, MAGIC, State

#: (offset behind it, sequence number, edit), as manifest.readable_edits finds them.
Edits: TypeAlias = list[tuple[int, int, dict[str, Any]]]


@dataclass
class Known:
    """What the readable edits say, taken one by one: of those between them nothing is known."""

    salts: dict[int, tuple[int, int]] = field(default_factory=dict)
    sealed: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: Where segments end, and with which LSN, that were about to be sealed.
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)
    compacted: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    #: Outputs that were not installed, as far as every edit behind theirs can be read.
    outputs: set[int] = field(default_factory=set)
    floors: dict[int, tuple[int, int]] = field(default_factory=dict)
    clock_ms: int = 0
    epoch: int = 0
    next_id: int = 1
    lsn: int = 0

    def take(self, edit: dict[str, Any]) -> None:
        """Take one edit over, whatever came before it."""
        kind = edit["t"]
        if kind in ("create", "output"):
            self.salts[edit["id"]] = (edit["salt"], edit["epoch"])
            self.next_id = max(self.next_id, edit["id"] + 1)
            if kind == "output":
                self.outputs.add(edit["id"])
        elif kind in ("sealed", "install"):
            self.dropped.update(edit.get("drops", ()))
            if edit["id"]:
                self.sealed[edit["id"]] = edit
            if kind == "install":
                self.compacted.add(edit["id"])
                self.outputs.discard(edit["id"])
            self.lsn = max(self.lsn, edit["lsn"] if kind == "install" else edit["lsn_max"])
        elif kind == "sealing":
            self.ends[edit["id"]] = (edit["end"], edit["lsn"])
        elif kind == "drop":
            self.dropped.add(edit["id"])
            self.outputs.discard(edit["id"])
        elif kind == "floor":
            floor = (edit["epoch"], edit["lsn"])
            self.floors[edit["keyspace"]] = max(self.floors.get(edit["keyspace"], (0, 0)), floor)
        elif kind == "next":
            self.next_id = max(self.next_id, edit["id"])
        elif kind == "clock":
            self.clock_ms = max(self.clock_ms, edit["ms"])
        elif kind == "all":
            for one in edit["edits"]:
                self.take(one)
        self.epoch = max(self.epoch, edit.get("epoch", 0))
        if kind in ("sealing", "close", "checkpoint"):
            self.lsn = max(self.lsn, edit["lsn"])

    def take_all(self, edits: Edits, data: bytes) -> int | None:
        """Take over what reads in the manifest `data`; how many edits do not, None where that is not known."""
        lost = last = 0
        for _, sequence, edit in edits:
            if sequence > last + 1:
                lost += sequence - last - 1
                self.outputs.clear()
            last = sequence
            with suppress(KeyError, TypeError, ValueError):
                self.take(edit)
        if not edits or edits[-1][0] < len(data):
            self.outputs.clear()
            return None
        return lost


def is_of_another(data: bytes, shard: int, directory_id: bytes) -> bool:
    """Whether the header of the manifest `data` reads, and is that of another shard."""
    head = data[: HEADER.size]
    if len(data) < HEADER.size + 4 or data[HEADER.size : HEADER.size + 4] != _hints.crc32c(head).to_bytes(4, "little"):
        return False
    magic, _, _, *whose = HEADER.unpack(head)
    return magic == MAGIC and whose != [shard, directory_id]


def exact_state(edits: Edits) -> State | None:
    """What the manifest said, if every edit reads."""
    state = State()
    if not edits or [sequence for _, sequence, _ in edits] != list(range(1, len(edits) + 1)):
        return None
    try:
        for _, _, edit in edits:
            state.apply(edit)
    except (KeyError, TypeError, ValueError):
        return None
    return state


def read_checkpoints(disk: Disk, path: Path, shard: int, identity: DirectoryIdentity) -> Iterator[Contents]:
    """What the checkpoints in a shard's directory tell, whether a manifest names them or not; pages are not read."""
    for name in filter(is_checkpoint_name, disk.names(path)):
        fd = disk.open(path / name)
        try:
            size = disk.size(fd)
            end = disk.read(fd, TRAILER.size, max(0, size - TRAILER.size))
        except OSError:
            continue
        finally:
            disk.close(fd)
        number = name.removeprefix("checkpoint-").removesuffix(".ckpt")
        if number.isdigit() and len(end) == TRAILER.size:
            named = Named(int(number), 0, size, trailer_crc(end))
            with (
                suppress(Corrupt, OSError),
                closing(CheckpointFile(disk, path / name, shard, identity.directory_id, named)) as file,
            ):
                yield file.contents
