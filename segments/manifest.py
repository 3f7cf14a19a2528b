"""The manifest: which segments a shard has and in which state, as a log of checksummed edits.

It is the only truth at open: a file that no edit names changes nothing, a segment that is named and missing is an
error.

    MANIFEST = header, edit*
    header   magic "KIOMANI\\n", version u16, 0 u16, shard u32, directory id 16, CRC32C of the 32 bytes before: u32
    edit     payload length u32, CRC32C u32 over (sequence number, payload) continued from the length,
             sequence number u64 from 1 without gaps, payload: a msgpack map with "t", its type

    t        fields                                         meaning
    create   id, salt, epoch                                a segment was made, and may hold records from now on
    sealing  id, end, lsn                                   no more records come; they end here and are durable
    sealed   id, end, size, records, lsn_min, lsn_max,      hints and footer are durable as well
             epoch_max, hash, damaged
    drop     id                                             the segment is gone, or about to be unlinked
    epoch    epoch                                          raised by an unclean open
    floor    keyspace, epoch, lsn                           a clear record up to here is durable
    open     boot                                           in use: without a later `close` the next open is unclean;
                                                            boot: the machine's boot id, "" or missing if unknown
    close    epoch, lsn                                     clean stop, all sealed
    next     id                                             the next segment id, where the manifest was written anew
    clock    ms                                             the shard's clock (clock.py) has reached it: what expired by
                                                            then stays expired
    checkpoint  id, lsn, size, crc                          checkpoint-ID.ckpt (checkpoint.py) is durable, and every
                                                            record up to the LSN is; the one before it is gone
    output   id, salt, epoch                                a compaction is about to write this segment; until it is
                                                            installed its file means nothing
    install  id, drops, lsn, and the fields of sealed       the output is sealed and durable, and takes the place of the
                                                            segments `drops`; id 0: nothing of them had to stay. Every
                                                            LSN up to lsn is durable
    all      edits                                          these edits, in their order, or none of them

Each edit is durable (fdatasync) when `append` returns. When the edits pass 1 MiB they are written anew with what still
counts, by temporary file, fsync, rename, directory fsync; where the disk has no room for that the file goes on.
Behind the last edit the file is zeros, blocks that were allocated ahead: so that a full disk can still be told what was
sealed, compacted and dropped. A version that knows nothing of that takes them for a torn tail and cuts them.
Crash: an edit that was being appended is a torn tail and is cut. A bad edit with a valid one behind it is corruption.
As the two look alike at the very end of the file, recovery refuses a manifest that does not know the latest segment
although that one holds records.
Versions: 1 has none of the last four. A manifest of an older version is written anew when it is opened for
appending.
"""

from __future__ import annotations

import errno
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from kio.errors import Corrupt, FormatTooNew
from kio.segments._hints import crc32c
from kio.segments.checkpoint import Named
from kio.segments.disk import DISK, Disk

NAME: Final = "MANIFEST"
VERSION: Final = 2
MAGIC: Final = b"KIOMANI\n"
HEADER: Final = struct.Struct("<8sHHI16s")
EDIT: Final = struct.Struct("<IIQ")
#: An edit is a few hundred bytes; a longer length is damage.
EDIT_BYTES_MAX: Final = 64 * 1024
REWRITE_BYTES: Final = 1 << 20
#: Blocks are allocated in steps of this size, as soon as less than half of it is left.
AHEAD_BYTES: Final = 64 * 1024
_WAY_OUT: Final = 'restore it from a copy, or see "kio repair manifest"'
assert HEADER.size == 32


@dataclass
class SegmentEntry:
    """What the manifest knows of one segment; offsets and sizes in bytes."""

    id: int
    salt: int
    epoch: int
    #: "active", "sealing" or "sealed".
    state: str = "active"
    end: int = 0
    size: int = 0
    records: int = 0
    lsn_min: int = 0
    lsn_max: int = 0
    epoch_max: int = 0
    hash: bytes = b""
    #: Records were unreadable when it was sealed.
    damaged: bool = False
    #: It is a compaction's output: its records are older than its id, and their LSNs do not rise.
    compacted: bool = False


@dataclass
class State:
    """What all edits together say."""

    segments: dict[int, SegmentEntry] = field(default_factory=dict)
    #: Outputs of compactions that are not installed.
    outputs: dict[int, SegmentEntry] = field(default_factory=dict)
    epoch: int = 1
    #: Higher than every segment id that was ever used.
    next_id: int = 1
    #: keyspace -> (epoch, LSN)
    floors: dict[int, tuple[int, int]] = field(default_factory=dict)
    is_closed: bool = True
    #: The boot of the machine in which the shard was last opened; empty when it is not known.
    boot: str = ""
    #: Every LSN up to it was durable when some edit was made.
    lsn: int = 0
    #: The highest time that the shard's clock is known to have reached, in ms since 1970.
    clock_ms: int = 0
    #: The checkpoint that recovery may begin with; None while there is none.
    checkpoint: Named | None = None

    def apply(self, edit: dict[str, Any]) -> None:
        """Take one edit over.

        Raises:
            KeyError, TypeError, ValueError: when the edit does not fit the state.
        """
        kind = edit["t"]
        if kind in ("create", "output"):
            if edit["id"] < self.next_id:
                raise ValueError(f"segment {edit['id']} is made twice")
            made = self.segments if kind == "create" else self.outputs
            made[edit["id"]] = SegmentEntry(edit["id"], edit["salt"], edit["epoch"])
            self.next_id = edit["id"] + 1
        elif kind == "sealing":
            entry = self.segments[edit["id"]]
            entry.state, entry.end, entry.lsn_max = "sealing", edit["end"], edit["lsn"]
            self.lsn = max(self.lsn, edit["lsn"])
        elif kind == "sealed":
            entry = self.segments[edit["id"]]
            _seal(entry, edit)
            self.lsn = max(self.lsn, entry.lsn_max)
        elif kind == "install":
            self._install(edit)
        elif kind == "drop":
            del (self.outputs if edit["id"] in self.outputs else self.segments)[edit["id"]]
        elif kind == "epoch":
            self.epoch = max(self.epoch, edit["epoch"])
        elif kind == "floor":
            floor = (edit["epoch"], edit["lsn"])
            self.floors[edit["keyspace"]] = max(self.floors.get(edit["keyspace"], (0, 0)), floor)
        elif kind == "open":
            self.is_closed = False
            self.boot = edit.get("boot", "")
        elif kind == "close":
            self.is_closed, self.epoch, self.lsn = True, edit["epoch"], edit["lsn"]
        elif kind == "clock":
            self.clock_ms = max(self.clock_ms, edit["ms"])
        elif kind == "checkpoint":
            self.checkpoint = Named(edit["id"], edit["lsn"], edit["size"], edit["crc"])
            self.lsn = max(self.lsn, edit["lsn"])
        elif kind == "next":
            self.next_id = edit["id"]
        elif kind == "all":
            for one in edit["edits"]:
                self.apply(one)
        else:
            raise ValueError(f"unknown edit {kind!r}")

    def _install(self, edit: dict[str, Any]) -> None:
        if not self.segments.keys() >= set(edit["drops"]):
            raise ValueError(f"a compaction of segments {edit['drops']}, which are not all there")
        if edit["id"]:
            entry = self.outputs.pop(edit["id"])
            _seal(entry, edit)
            entry.compacted = True
            self.segments[entry.id] = entry
        for dropped in edit["drops"]:
            del self.segments[dropped]
        self.lsn = max(self.lsn, edit["lsn"])

    def edits(self) -> list[dict[str, Any]]:
        """The shortest log that gives this state."""
        out: list[dict[str, Any]] = [{"t": "close", "epoch": self.epoch, "lsn": self.lsn}]
        out += [{"t": "floor", "keyspace": k, "epoch": e, "lsn": lsn} for k, (e, lsn) in self.floors.items()]
        for s in sorted((self.segments | self.outputs).values(), key=lambda s: s.id):
            is_output = s.compacted or s.id in self.outputs
            out.append({"t": "output" if is_output else "create", "id": s.id, "salt": s.salt, "epoch": s.epoch})
            if s.compacted:
                out.append(install_edit(s, [], self.lsn))
            elif s.state == "sealing":
                out.append({"t": "sealing", "id": s.id, "end": s.end, "lsn": s.lsn_max})
            elif s.state == "sealed":
                out.append(sealed_edit(s))
        out.append({"t": "next", "id": self.next_id})
        if self.clock_ms:
            out.append({"t": "clock", "ms": self.clock_ms})
        if self.checkpoint is not None:
            out.append(checkpoint_edit(self.checkpoint))
        if not self.is_closed:
            out.append({"t": "open", "boot": self.boot})
        return out


_OF_SEALED: Final = ("end", "size", "records", "lsn_min", "lsn_max", "epoch_max", "hash", "damaged")


def _seal(entry: SegmentEntry, edit: dict[str, Any]) -> None:
    entry.state = "sealed"
    for name in _OF_SEALED:
        setattr(entry, name, edit[name])


def sealed_edit(s: SegmentEntry) -> dict[str, Any]:
    """The edit that says a segment is sealed as `s` describes it."""
    return {"t": "sealed", "id": s.id} | {name: getattr(s, name) for name in _OF_SEALED}


def install_edit(output: SegmentEntry | None, drops: list[int], lsn: int) -> dict[str, Any]:
    """The edit that puts a compaction's sealed output, if it has one, in the place of the segments `drops`."""
    described = {} if output is None else {name: getattr(output, name) for name in _OF_SEALED}
    return {"t": "install", "id": output.id if output else 0, "drops": drops, "lsn": lsn} | described


def checkpoint_edit(named: Named) -> dict[str, Any]:
    """The edit that names a checkpoint."""
    return {"t": "checkpoint", "id": named.id, "lsn": named.lsn_max, "size": named.size, "crc": named.crc}


class Manifest:
    """A shard's manifest, open for appending. `append` may be called from any thread."""

    def __init__(self, path: Path, shard: int, directory_id: bytes, disk: Disk) -> None:
        self.path = path
        self.shard = shard
        self.directory_id = directory_id
        self.state = State()
        #: Bytes of a torn last edit that `load` found, zeros behind it not counted; 0 when it was whole.
        self.torn_bytes = 0
        self._disk = disk
        self._lock = threading.Lock()
        #: Held while an edit changes `state`: for microseconds, never during a call to the disk.
        self._changing = threading.Lock()
        self._fd = -1
        self._end = 0
        self._size = 0
        self._rewrite_at = REWRITE_BYTES
        self._sequence = 0
        self._version = VERSION
        self._failure: OSError | None = None

    @classmethod
    def create(cls, directory: Path, shard: int, directory_id: bytes, disk: Disk = DISK) -> None:
        """Make the empty manifest of a new shard, durably."""
        self = cls(directory / NAME, shard, directory_id, disk)
        self._rewrite()

    @classmethod
    def write(cls, directory: Path, shard: int, directory_id: bytes, state: State, disk: Disk = DISK) -> None:
        """Make, or replace, a manifest that says `state`, durably and at once."""
        self = cls(directory / NAME, shard, directory_id, disk)
        self.state = state
        self._rewrite()

    @classmethod
    def load(cls, directory: Path, shard: int, directory_id: bytes, disk: Disk = DISK) -> Manifest:
        """Read a manifest; nothing is written, not even the torn tail is cut (`start` does that).

        Raises:
            Corrupt: when the manifest is missing, of another shard, or damaged anywhere but in its last edit.
            FormatTooNew: when a newer kio wrote it.
        """
        self = cls(directory / NAME, shard, directory_id, disk)
        try:
            fd = disk.open(self.path)
        except FileNotFoundError:
            raise Corrupt(f"the manifest of shard {shard} is missing: {self.path}; {_WAY_OUT}") from None
        try:
            data = disk.read(fd, disk.size(fd), 0)
        finally:
            disk.close(fd)
        self._parse(data)
        return self

    def start(self) -> None:
        """Open for appending: cut the torn tail, if any; an older version is written anew, unless the disk refuses."""
        self._fd = self._disk.open(self.path, writable=True)
        if self.torn_bytes:
            self._disk.truncate(self._fd, self._end)
            self._disk.sync(self._fd)
            self._size = self._end
        if self._version < VERSION:
            self._shorten()
        self._allocate_ahead(0)

    def append(self, *edits: dict[str, Any]) -> None:
        """Make edits durable, all or none of them, with one fdatasync, and take them over.

        Raises:
            OSError: when the disk refuses: no edit was taken. After a sync that failed, or a write that cannot be taken
                back, the manifest takes none from then on, since nobody knows what is on disk: see `has_failed`.
        """
        with self._lock:
            if self._failure is not None:
                raise OSError(errno.EIO, f"the manifest takes no more edits: {self._failure}")
            # One edit under one checksum: of several, a power cut could keep a later one and tear an earlier one.
            edit = edits[0] if len(edits) == 1 else {"t": "all", "edits": edits}
            data = self._encode(self._sequence + 1, edit)
            self._allocate_ahead(len(data))
            self._write(data)
            self._end += len(data)
            self._sequence += 1
            with self._changing:
                self.state.apply(edit)
            if self._end > self._rewrite_at:
                self._shorten()

    def entries(self) -> list[SegmentEntry]:
        """The segments at one moment between edits. For the store's thread, while a job may append."""
        with self._changing:
            return list(self.state.segments.values())

    @property
    def has_failed(self) -> bool:
        """Whether it takes no more edits, and the last one may or may not be on disk."""
        return self._failure is not None

    @property
    def failure(self) -> str:
        """Why it takes no more edits; empty while it does."""
        return "" if self._failure is None else f"the manifest could not be written: {self._failure}"

    def close(self) -> None:
        """Close the descriptor; every edit is durable already."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    def _allocate_ahead(self, more: int) -> None:
        """Have blocks for `more` bytes and those to come; where the disk refuses, the write finds out."""
        wanted = self._end + more + AHEAD_BYTES // 2
        if wanted <= self._size:
            return
        size = wanted + AHEAD_BYTES // 2
        size -= size % AHEAD_BYTES
        with suppress(OSError):
            self._disk.allocate(self._fd, size)
            self._size = size

    def _write(self, data: bytes) -> None:
        try:
            self._disk.write(self._fd, data, self._end)
        except OSError as error:
            try:
                self._disk.truncate(self._fd, self._end)
                self._disk.sync(self._fd)
                self._size = self._end
            except OSError:
                self._failure = error
            raise
        self._size = max(self._size, self._end + len(data))
        try:
            self._disk.sync_data(self._fd)
        except OSError as error:
            self._failure = error
            raise

    def _shorten(self) -> None:
        """Write the manifest anew. Its edits are durable already, so what fails here is no failure of theirs."""
        try:
            self._rewrite()
            fd = self._disk.open(self.path, writable=True)
        except OSError as error:
            # As long as the old file has the name, it goes on, and a later edit tries again.
            if not self._disk.is_name_of(self.path, self._fd):
                self._failure = error
            self._rewrite_at = self._end + AHEAD_BYTES
            return
        self._disk.close(self._fd)
        self._fd = fd
        self._rewrite_at = max(REWRITE_BYTES, self._end + AHEAD_BYTES)

    def _rewrite(self) -> None:
        head = HEADER.pack(MAGIC, VERSION, 0, self.shard, self.directory_id)
        edits = self.state.edits()
        data = head + struct.pack("<I", crc32c(head))
        data += b"".join(self._encode(i, edit) for i, edit in enumerate(edits, 1))
        # One that is in use has blocks ahead: it is not replaced by one that has none.
        ahead = AHEAD_BYTES - len(data) % AHEAD_BYTES if self._fd >= 0 else 0
        self._disk.replace(self.path, data + bytes(ahead))
        self._sequence = len(edits)
        self._end, self._size = len(data), len(data) + ahead

    @staticmethod
    def _encode(sequence: int, edit: dict[str, Any]) -> bytes:
        payload: bytes = msgpack.packb(edit)
        return EDIT.pack(len(payload), _edit_crc(sequence, payload), sequence) + payload

    def _parse(self, data: bytes) -> None:
        where = f"the manifest of shard {self.shard}"
        head = data[: HEADER.size]
        if len(data) < HEADER.size + 4 or struct.unpack_from("<I", data, HEADER.size)[0] != crc32c(head):
            raise Corrupt(f"{where} is corrupt at offset 0: {self.path}; {_WAY_OUT}")
        magic, version, _, shard, directory_id = HEADER.unpack(head)
        if magic != MAGIC or shard != self.shard or directory_id != self.directory_id:
            raise Corrupt(f"{where} is that of shard {shard} of directory {directory_id.hex()}: {self.path}")
        if version > VERSION:
            raise FormatTooNew(f"{where} has format version {version}, this kio reads up to {VERSION}")
        self._version = version
        at = HEADER.size + 4
        sequence = 0
        while (payload := _edit_at(data, at, sequence + 1)) is not None:
            try:
                self.state.apply(msgpack.unpackb(payload))
            except (KeyError, TypeError, ValueError) as error:
                raise Corrupt(f"{where} contradicts itself at offset {at}: {error}; {_WAY_OUT}") from error
            sequence += 1
            at += EDIT.size + len(payload)
        self._size = len(data)
        written = written_end(data, at)
        for later in range(at, written):
            if _edit_at(data, later, None, above=sequence) is not None:
                raise Corrupt(
                    f"{where} is corrupt at offset {at}, valid edits follow at {later}: {self.path}; {_WAY_OUT}"
                )
        self.torn_bytes = written - at
        self._end = at
        self._sequence = sequence


def readable_edits(data: bytes) -> list[tuple[int, int, dict[str, Any]]]:
    """(offset behind it, sequence number, edit) of every edit that can be read in the bytes of a damaged manifest."""
    found: list[tuple[int, int, dict[str, Any]]] = []
    at = last = 0
    while at + EDIT.size <= len(data):
        payload = _edit_at(data, at, None, above=last)
        if payload is None:
            at += 1
            continue
        last = EDIT.unpack_from(data, at)[2]
        at += EDIT.size + len(payload)
        found.append((at, last, msgpack.unpackb(payload)))
    return found


def written_end(data: bytes, end: int) -> int:
    """Where the bytes of a manifest end whose edits end at `end`: zeros behind them are blocks that wait for edits."""
    return max(end, len(data.rstrip(b"\0")))


def _edit_crc(sequence: int, payload: bytes) -> int:
    return crc32c(struct.pack("<Q", sequence) + payload, len(payload))


def _edit_at(data: bytes, at: int, sequence: int | None, above: int = 0) -> bytes | None:
    """The payload of the valid edit at offset `at`, or None.

    Its sequence number is `sequence`, or, where that is None, any that could follow `above`.
    """
    if at + EDIT.size > len(data):
        return None
    length, crc, found = EDIT.unpack_from(data, at)
    if length > EDIT_BYTES_MAX or at + EDIT.size + length > len(data):
        return None
    if found != sequence if sequence is not None else not above < found <= above + (1 << 20):
        return None
    payload = data[at + EDIT.size : at + EDIT.size + length]
    return payload if crc == _edit_crc(found, payload) else None
