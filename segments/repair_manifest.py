"""The repair of a manifest: from every edit that can still be read, and from the segment files themselves.

Where every edit reads (only the header is damaged, say), the new manifest says what the old one did. Otherwise the
files decide, and the edits help (salvage_manifest.py):

    an edit that reads says that a segment was dropped        its file is left out: a leftover
    footer whole, or an edit says how it was sealed           the segment is taken as it stands
    no footer: it was never sealed, or that is damaged        its records are copied into a new, sealed segment
    records of an earlier one in an output that is not whole  the output's others are copied: no record counts twice
    two segments hold the same records                        the later one is a compaction's output: if it is whole,
                                                              the earlier one was its victim, or would have been
    no record                                                 prepared, never used: left out

Why copies: what stands behind the last record of a segment that was never sealed is a torn tail, and recovery writes
over it; but of these nobody knows any more whether they were sealed, and a backup may share their files.
Why the earlier of two is left out: a complete output and all that was not compacted with it are one right state; some
of its victims beside it are not, as a tombstone may have gone with a victim whose file is gone already.
What no file tells is told to the operator: a clear whose record was compacted away, a segment dropped by an edit that
cannot be read, whose file came back or was not removed yet.
Damage of records stays what it was: a copy of a segment with damage is marked as damaged, so that what it may hide goes
on to be answered Corrupt until `kio repair record` decides.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise, repeat
from pathlib import Path
from typing import Final

from kio.errors import Corrupt, FormatTooNew
from kio.segments import _hints, format
from kio.segments.check import examine_shard
from kio.segments.manifest import NAME, Manifest, SegmentEntry, State, readable_edits, written_end
from kio.segments.repair import Plan, Replacement, ShardFiles, nothing_to_repair
from kio.segments.salvage import Lost, Salvaged, read_file, read_hints, records_of_copy, salvage
from kio.segments.salvage_manifest import Edits, Known, exact_state, is_of_another, read_checkpoints
from kio.segments.segment import RECORDS_START, new_entry, segment_id, segment_name

#: Where it is not known how many edits are lost: so many segment ids are passed over.
_IDS_UNKNOWN: Final = 1000
_OF_SEALED: Final = ("end", "size", "records", "lsn_min", "lsn_max", "epoch_max", "hash", "damaged")


@dataclass
class _File:
    """A segment file and what is to become of it."""

    entry: SegmentEntry
    records: int
    #: Bytes that are no valid records.
    damaged_bytes: int
    torn_bytes: int
    epoch_max: int
    lsn_max: int
    #: (LSN, epoch) of each record, as one number, sorted.
    versions: array[int]
    #: Of these, what another segment holds as well and this one must not.
    doubled: set[int] = field(default_factory=set)

    @property
    def is_sealed(self) -> bool:
        """Whether it was sealed, and can tell."""
        return self.entry.state == "sealed"

    @property
    def is_taken(self) -> bool:
        """Whether it can be taken as it stands."""
        return self.is_sealed and not self.doubled


def plan_manifest(files: ShardFiles) -> Plan:
    """Write a shard's manifest anew.

    Raises:
        FormatTooNew: when a newer kio wrote a part of the shard.
    Cost: reads every segment; eight bytes of memory a record.
    """
    faults = examine_shard(files.root, files.identity, files.shard, files.disk).faults
    messages = [fault.message for fault in faults if fault.repair == "manifest"]
    if not messages:
        return nothing_to_repair(files.shard, "the manifest is whole")
    return _Rebuild(files, messages).plan()


class _Rebuild:
    """One rebuild: what there is is read when it is made."""

    def __init__(self, files: ShardFiles, messages: list[str]) -> None:
        self._files = files
        self._plan = Plan(files.shard, notes=messages)
        self._names = files.disk.names(files.path)
        self._data = self._read_manifest()
        self._known = Known()
        self._checkpoints = list(read_checkpoints(files.disk, files.path, files.shard, files.identity))
        self._segments: dict[int, _File] = {}
        #: Files that are set aside: what cannot be read, what is superseded, what is copied.
        self._aside: list[int] = []

    def _read_manifest(self) -> bytes:
        return read_file(self._files.disk, self._files.path / NAME)[0] if NAME in self._names else b""

    # ---- edits ----

    def plan(self) -> Plan:
        """Find out what can be done."""
        is_ours = not is_of_another(self._data, self._files.shard, self._files.identity.directory_id)
        edits = readable_edits(self._data) if is_ours else []
        heads = {number: self._head(number) for number in map(segment_id, self._names) if number is not None}
        lost = self._known.take_all(edits, self._data)
        if self._is_contradicted(heads):
            self._plan.notes.append("the edits are those of another shard, and are not used")
            self._known, edits, lost = Known(), [], None
        state = exact_state(edits)
        if state is not None and self._is_told_by_files(edits, state, heads):
            return self._plan_exact(len(edits), state)
        for number, header in sorted(heads.items()):
            self._look_at(number, header)
        return self._plan_rebuilt(len(edits), lost)

    def _is_contradicted(self, heads: dict[int, format.Header | None]) -> bool:
        """Whether the edits speak of other segments than those that are there."""
        salts = self._known.salts
        return any(
            head is not None and self._is_ours(number, head) and number in salts and salts[number][0] != head.salt
            for number, head in heads.items()
        )

    def _is_ours(self, number: int, header: format.Header) -> bool:
        ours = (self._files.identity.directory_id, self._files.shard, number)
        return (header.directory_id, header.shard, header.segment) == ours

    def _is_told_by_files(self, edits: Edits, state: State, heads: dict[int, format.Header | None]) -> bool:
        """Whether no file says that an edit is lost behind the last one that reads."""
        is_torn = edits[-1][0] < written_end(self._data, edits[-1][0])
        if is_torn and not heads.keys() >= state.segments.keys():
            return False
        return all(
            header is None
            or number < state.next_id
            or not self._is_ours(number, header)
            or not self._records_in(number, header)
            for number, header in heads.items()
        )

    def _records_in(self, number: int, header: format.Header) -> int:
        return self._salvage(SegmentEntry(number, header.salt, header.epoch)).scan.records

    # ---- files ----

    def _head(self, number: int) -> format.Header | None:
        """The header of a segment file, where it reads.

        Raises:
            FormatTooNew: when a newer kio wrote it.
        """
        disk = self._files.disk
        fd = disk.open(self._files.path / segment_name(number))
        try:
            return format.decode_header(disk.read(fd, RECORDS_START, 0))
        except FormatTooNew:
            raise
        except (Corrupt, OSError):
            return None
        finally:
            disk.close(fd)

    def _footer(self, number: int) -> tuple[format.Footer | None, int]:
        """The footer of a segment file, where there is one that reads, and the file's length."""
        disk = self._files.disk
        fd = disk.open(self._files.path / segment_name(number))
        try:
            size = disk.size(fd)
            footer = format.decode_footer(disk.read(fd, format.FOOTER.size, max(0, size - format.FOOTER.size)))
            is_ours = (footer.shard, footer.segment, footer.size) == (self._files.shard, number, size)
            return footer if is_ours else None, size
        except FormatTooNew:
            raise
        except (Corrupt, OSError):
            return None, disk.size(fd)
        finally:
            disk.close(fd)

    def _salvage(self, entry: SegmentEntry) -> Salvaged:
        path = self._files.path / segment_name(entry.id)
        found = salvage(self._files.disk, path, self._files.shard, self._files.identity.seed, entry)
        if entry.state == "sealed" or not found.scan.records:
            return found
        crc_seed = format.crc_seed(self._files.shard, entry.id, entry.salt)
        scan = _hints.scan(found.data, RECORDS_START, len(found.data), crc_seed, self._files.identity.seed, False)
        lsns = [lsn for _, _, kind, lsn in sorted(_hints.iterate(scan.hints)) if kind != format.DAMAGED]
        if all(first < second for first, second in pairwise(lsns)):
            return found
        # Records that do not rise are those of a compaction's output.
        found.scan = scan
        found.lost = [Lost(entry.id, offset, size) for offset, size in scan.damaged]
        return found

    def _look_at(self, number: int, header: format.Header | None) -> None:
        """Decide what a file is."""
        name, plan, known = segment_name(number), self._plan, self._known
        if header is not None and not self._is_ours(number, header):
            plan.notes.append(f"{name} is that of segment {header.segment} of shard {header.shard}: left where it is")
            return
        if number in known.dropped or number in known.outputs:
            plan.notes.append(f"{name} was dropped, or never installed, as an edit says: the next start removes it")
            return
        footer, size = self._footer(number)
        salt, epoch = known.salts.get(number, (None, 0))
        salt = header.salt if header is not None else footer.salt if footer is not None else salt
        if salt is None:
            plan.loses.append(
                f"all records of {name}: neither its header nor its footer reads, and no edit tells its salt"
            )
            self._aside.append(number)
            return
        epoch = header.epoch if header is not None else epoch or (footer.epoch_max if footer is not None else 1)
        found = self._salvage(self._entry(number, salt, epoch, footer, size))
        if footer is not None and found.entry.hash == footer.content_hash and number not in known.sealed:
            self._count(found)
        torn = found.scan.torn_bytes if found.entry.state != "sealed" else 0
        if not found.scan.records and found.entry.state != "sealed":
            if torn:
                plan.loses.append(f"{torn} bytes of {name}, of which no record reads")
                self._aside.append(number)
            return
        self._segments[number] = _File(
            found.entry,
            found.scan.records,
            found.bytes_lost,
            torn,
            found.scan.epoch_max,
            found.scan.lsn_max,
            _versions(found.scan.hints),
        )

    def _entry(self, number: int, salt: int, epoch: int, footer: format.Footer | None, size: int) -> SegmentEntry:
        entry = SegmentEntry(number, salt, epoch)
        told = self._known.sealed.get(number)
        if told is not None and (footer is None or footer.content_hash == told["hash"]):
            for name in _OF_SEALED:
                setattr(entry, name, told[name])
            entry.compacted = number in self._known.compacted
        elif footer is not None:
            entry.end, entry.size, entry.hash = footer.end, size, footer.content_hash
            entry.records, entry.epoch_max = footer.hints, footer.epoch_max
            entry.lsn_min, entry.lsn_max = footer.lsn_min, footer.lsn_max
        else:
            # Where it is known that it takes no more records, and they end before that, some of them are lost.
            entry.end, entry.lsn_max = self._known.ends.get(number, (0, 0))
            return entry
        entry.state = "sealed"
        return entry

    def _count(self, found: Salvaged) -> None:
        """What a footer leaves open: damage at the seal, and whether it is a compaction's output."""
        entry = found.entry
        hints = read_hints(found.data, self._files.shard, entry)
        damaged = _hints.specials(hints)[1] if hints is not None else []
        entry.records -= len(damaged)
        entry.damaged = bool(damaged)
        entry.compacted = entry.lsn_max - entry.lsn_min + 1 != entry.records

    # ---- the plan ----

    def _plan_exact(self, edits: int, state: State) -> Plan:
        self._plan.does.append(f"write the manifest anew from its {edits} edits, all of which can be read")
        self._plan.does.append(f"keep the damaged one as {self._kept_name()}")
        self._plan.loses.append("nothing")
        files = self._files

        def act() -> None:
            self._keep()
            Manifest.write(files.path, files.shard, files.identity.directory_id, state, files.disk)

        return self._plan.then(act)

    def _plan_rebuilt(self, edits: int, lost: int | None) -> Plan:
        plan, known = self._plan, self._known
        if NAME not in self._names:
            plan.loses.append("all edits of the manifest: it is missing")
        else:
            count = "an unknown number of" if lost is None else str(lost)
            plan.loses.append(f"{count} edits of the manifest; {edits} can be read")
        superseded = self._supersede()
        taken = [file for file in self._segments.values() if file.is_taken]
        copied = [file for file in self._segments.values() if not file.is_taken]
        plan.records_kept = sum(file.records - len(file.doubled) for file in self._segments.values())
        plan.does.append(f"write a manifest that names {len(taken)} sealed segments as they stand")
        for file in copied:
            name = segment_name(file.entry.id)
            plan.does.append(
                f"copy the {file.records - len(file.doubled)} records of {name} into a new segment, set it aside"
            )
            if file.torn_bytes:
                plan.notes.append(
                    f"{file.torn_bytes} bytes behind the last record of {name} are a torn tail, or a damaged end"
                )
        for number, by in superseded.items():
            plan.does.append(
                f"set {segment_name(number)} aside: segment {by}, a compaction's output, holds what counts of it"
            )
        for file in self._segments.values():
            if file.damaged_bytes:
                plan.records_lost = None
                plan.notes.append(
                    f"segment {file.entry.id} has {file.damaged_bytes} damaged bytes, which kio repair record is for"
                )
        self._describe_missing()
        self._aside += [file.entry.id for file in copied] + list(superseded)
        if NAME in self._names:
            plan.does.append(f"keep the damaged manifest as {self._kept_name()}")
        plan.aside = [f"{segment_name(number)}.aside" for number in self._aside]
        plan.may_return.append(
            "deleted keys and older values, where a segment that lost edits had dropped has its file yet"
        )
        plan.may_return.append("the keys of a keyspace that was cleared, where no segment holds the clear any more")
        if not known.clock_ms:
            plan.notes.append("the time up to which keys have expired is lost: is the wall clock right?")
        passed_over = _IDS_UNKNOWN if lost is None else lost
        return plan.then(lambda: self._install(copied, passed_over))

    def _describe_missing(self) -> None:
        known = self._known
        gone = known.salts.keys() - known.dropped - known.outputs - set(map(segment_id, self._names))
        for number in sorted(gone):
            told = known.sealed.get(number)
            if told is not None:
                self._plan.records_lost = None
                lsns = f"LSN {told['lsn_min']} to {told['lsn_max']}"
                self._plan.loses.append(
                    f"segment {number}, {told['records']} records, {lsns}, which has no file; nothing is lost if an "
                    "edit that cannot be read had dropped it"
                )

    def _supersede(self) -> dict[int, int]:
        """Take out what a whole output holds as well; segment -> output. No record may be there twice."""
        found: dict[int, int] = {}
        pairs = _sharing(self._segments)
        for first, second in sorted(pairs):
            output, victim = self._segments[second], self._segments[first]
            if output.is_sealed and not output.damaged_bytes and not (output.entry.damaged and victim.is_sealed):
                found[first] = second
                # The copy that an interrupted repair has made of a segment without a footer.
                output.entry.damaged |= bool(victim.damaged_bytes) and not victim.is_sealed
        for number in found:
            del self._segments[number]
        for first, second in sorted(pairs):
            if first in self._segments and second in self._segments:
                output = self._segments[second]
                output.doubled |= set(output.versions) & set(self._segments[first].versions)
        return found

    # ---- doing it ----

    def _kept_name(self) -> str:
        number = 1
        while f"{NAME}.damaged-{number}" in self._names and not self._is_kept(f"{NAME}.damaged-{number}"):
            number += 1
        return f"{NAME}.damaged-{number}"

    def _is_kept(self, name: str) -> bool:
        disk = self._files.disk
        fd = disk.open(self._files.path / name)
        try:
            return disk.size(fd) == len(self._data) and disk.read(fd, len(self._data), 0) == self._data
        finally:
            disk.close(fd)

    def _keep(self) -> None:
        name = self._kept_name()
        if NAME in self._names and name not in self._names:
            self._files.disk.replace(self._files.path / name, self._data)

    def _install(self, copied: list[_File], passed_over: int) -> None:
        self._keep()
        known, files = self._known, self._segments
        state = State(floors=dict(known.floors), clock_ms=known.clock_ms)
        state.epoch = 1 + max(
            [known.epoch, *(max(f.entry.epoch, f.epoch_max, f.entry.epoch_max) for f in files.values())]
        )
        state.lsn = max([known.lsn, *(max(f.lsn_max, f.entry.lsn_max) for f in files.values())])
        state.lsn = max([state.lsn, *(contents.lsn_max for contents in self._checkpoints)])
        state.next_id = 1 + passed_over + max([known.next_id - 1, *self._ids()])
        for number, file in files.items():
            if file.is_taken:
                state.segments[number] = file.entry
        replacement = Replacement(self._files, state)
        for file in copied:
            source = self._salvage(file.entry)
            source.left_out = _offsets(source.scan.hints, file.doubled)
            if not records_of_copy(source):
                continue
            number = replacement.state.next_id
            replacement.state.next_id += 1
            written = replacement.add_copy(new_entry(number, state.epoch), source)
            written.damaged = bool(file.damaged_bytes)
        for number in self._aside:
            replacement.set_aside(number)
        replacement.install()

    def _ids(self) -> Iterator[int]:
        """Every segment id that a file tells of."""
        yield 0
        for name in self._names:
            stem = Path(name).name.partition(".")[0]
            if ".seg" in name and stem.isascii() and stem.isdigit():
                yield int(stem)
        for contents in self._checkpoints:
            yield from (number for number, _ in contents.segments.values())


def _versions(hints: bytes) -> array[int]:
    """The version of each record as one number."""
    return array("Q", sorted(version for version, _ in _versions_at(hints)))


def _offsets(hints: bytes, versions: set[int]) -> frozenset[int]:
    """Where the records of these versions stand."""
    return frozenset(offset for version, offset in _versions_at(hints) if version in versions)


def _versions_at(hints: bytes) -> Iterator[tuple[int, int]]:
    """(version as one number, offset) of each record; no two versions that a shard writes in its life make the same."""
    for _, lsn, epoch, unit, _, _, kind, _ in format.HINT.iter_unpack(hints):
        if kind & format.KIND_MASK != format.DAMAGED:
            yield (lsn << 16 | epoch & 0xFFFF) & 0xFFFF_FFFF_FFFF_FFFF, unit * 8


def _sharing(segments: dict[int, _File]) -> set[tuple[int, int]]:
    """The pairs of segments, lower id first, that hold the same record."""
    pairs: set[tuple[int, int]] = set()
    merged = heapq.merge(*(zip(file.versions, repeat(number)) for number, file in segments.items()))
    for _, group in groupby(merged, key=lambda item: item[0]):
        numbers = sorted({number for _, number in group})
        if len(numbers) > 1:
            pairs.update((first, second) for i, first in enumerate(numbers) for second in numbers[i + 1 :])
    return pairs
