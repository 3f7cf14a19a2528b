"""The offline examination of a shard's checkpoint: every checksum, and every word against the records.

What is wrong with a checkpoint loses no record: the next start does without it. It says all the same that a disk or a
program is not to be trusted; and a word that points behind the last record says that durable records are gone.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from kio.errors import Corrupt
from kio.segments._hints import Scan
from kio.segments._words import Words
from kio.segments.checkpoint import CheckpointFile, Contents, Named, checkpoint_name
from kio.segments.disk import Disk


class CheckpointCheck:
    """The checkpoint that a shard's manifest names, read whole.

    Attributes:
        file: its name.
        fault: what is wrong with the file by itself; empty when nothing is.

    Raises:
        FormatTooNew: when a newer kio wrote it.
    Cost: memory for all its words.
    """

    def __init__(self, disk: Disk, directory: Path, shard: int, directory_id: bytes, named: Named) -> None:
        self.file = checkpoint_name(named.id)
        self.fault = ""
        self._slots: dict[int, tuple[int, int]] = {}
        try:
            with closing(CheckpointFile(disk, directory / self.file, shard, directory_id, named)) as file:
                self._read(file)
        except (Corrupt, OSError) as error:
            self.fault = f"{error}; the next start does without it"

    def _read(self, file: CheckpointFile) -> None:
        contents: Contents = file.contents
        words = Words(file.seed)
        for pages in file.chunks():
            words.add(pages)
        if not words.is_whole or words.count != contents.words:
            raise Corrupt(f"it has {words.count} words where the trailer says {contents.words}, or too few pages")
        self._words = words
        self._slots = {id: (slot, live) for slot, (id, live) in contents.segments.items()}

    def compare(self, segment: int, scan: Scan) -> str:
        """What is wrong with the words that point into a segment whose records are whole; empty when nothing is."""
        if segment not in self._slots:
            return ""
        slot, live = self._slots[segment]
        lost, found = self._words.compare(slot, scan.hints)
        if lost:
            return f"{lost} of its words point to no record in segment {segment}: durable records are missing there"
        if found != live:
            return f"it counts {live} live bytes in segment {segment} where its words make {found}"
        return ""
